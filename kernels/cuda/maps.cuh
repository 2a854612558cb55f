// The maps that scans compose: affine ones, whose matrices are k x k (k = 1: diagonal, scalar, identity), and clamps.
//
// A map is gathered step by step (`begin`, `then`), put after another one (`after`), and applied to a state (`act`). A
// step that is cut from its past makes all that follows `constant`: the state is then selected, never multiplied out,
// because 0 * inf is NaN. A composed product may overflow where its steps do not; `trusts` says whether the state that
// a map gave is what its steps would have given, so that the caller can walk through these instead.

#pragma once

namespace recsolve {

// x -> A x + b. Sums are taken in the order of the reference.
template <class T, int K> struct Affine {
    using Number = T;
    static constexpr int parts = K, entries = K * K, vectors = 1, size = entries + parts + 1;

    T a[entries], b[parts];
    bool constant;

    // A row of m times v. Every rounding is spelt out, so that a compiler cannot fuse one product here and another
    // there: blocks that do the same must get the same bits.
    __device__ static T row(const T* m, const T* v, int stride) {
        T total = m[0] * v[0];
#pragma unroll
        for (int j = 1; j < K; ++j) total = multiply_add(m[j], v[j * stride], total);
        return total;
    }

    // result <- m v + f.
    __device__ static void apply(const T* m, const T* v, const T* f, T* result) {
#pragma unroll
        for (int i = 0; i < K; ++i) {
            result[i] = K == 1 ? multiply_add(m[0], v[0], f[0]) : row(m + i * K, v, 1) + f[i];
        }
    }

    __device__ static void step(const T* e, const T* f, bool cut, const T*, T* x) {
        T next[K];
        apply(e, x, f, next);
#pragma unroll
        for (int i = 0; i < K; ++i) x[i] = cut ? f[i] : next[i];
    }

    __device__ void identity() {
#pragma unroll
        for (int i = 0; i < entries; ++i) a[i] = i % (K + 1) == 0 ? T(1) : T(0);
#pragma unroll
        for (int i = 0; i < K; ++i) b[i] = T(0);
        constant = false;
    }

    __device__ void begin(const T* e, const T* f, bool cut, const T*) {
#pragma unroll
        for (int i = 0; i < entries; ++i) a[i] = e[i];
#pragma unroll
        for (int i = 0; i < K; ++i) b[i] = f[i];
        constant = cut;
    }

    // Puts one more step after this map.
    __device__ void then(const T* e, const T* f, bool cut, const T* initial) {
        multiply(e, a);
        step(e, f, cut, initial, b);
        constant |= cut;
    }

    // Puts this map after an earlier one.
    __device__ void after(const Affine& earlier) {
        if (constant) return;
        T next[K];
        apply(a, earlier.b, b, next);
#pragma unroll
        for (int i = 0; i < K; ++i) b[i] = next[i];
        T left[entries];
#pragma unroll
        for (int i = 0; i < entries; ++i) left[i] = a[i], a[i] = earlier.a[i];
        multiply(left, a);
        constant = earlier.constant;
    }

    __device__ void act(T* x) const {
        T next[K];
        apply(a, x, b, next);
#pragma unroll
        for (int i = 0; i < K; ++i) x[i] = constant ? b[i] : next[i];
    }

    // NaN stays NaN through every step, so a state that has one is right if nothing was cut.
    __device__ bool trusts(const T* before, const T* after) const {
        bool all_finite = true, lost = false;
#pragma unroll
        for (int i = 0; i < K; ++i) all_finite &= finite(after[i]), lost |= is_nan(before[i]);
        return all_finite || (lost && !constant);
    }

private:
    // right <- left right, column by column.
    __device__ static void multiply(const T* left, T* right) {
#pragma unroll
        for (int j = 0; j < K; ++j) {
            T column[K];
#pragma unroll
            for (int i = 0; i < K; ++i) column[i] = row(left + i * K, right + j, K);
#pragma unroll
            for (int i = 0; i < K; ++i) right[i * K + j] = column[i];
        }
    }
};

// x -> max(min(r, x), s), with e = r and f = s. Nothing rounds, so any composition equals the loop bit for bit; a cut
// step clamps the initial state. Composition: Ronca, arXiv 2605.06384.
template <class T> struct Clamp {
    using Number = T;
    static constexpr int parts = 1, entries = 1, vectors = 1, size = 3;

    T a[1], b[1];
    bool constant;

    __device__ static T clamp(T r, T x, T s) { return greatest(least(r, x), s); }

    __device__ static void step(const T* e, const T* f, bool cut, const T* initial, T* x) {
        x[0] = clamp(e[0], cut ? initial[0] : x[0], f[0]);
    }

    __device__ void identity() { a[0] = T(1) / T(0), b[0] = T(-1) / T(0), constant = false; }

    __device__ void begin(const T* e, const T* f, bool cut, const T* initial) {
        a[0] = e[0], b[0] = cut ? clamp(e[0], initial[0], f[0]) : f[0], constant = cut;
    }

    __device__ void then(const T* e, const T* f, bool cut, const T* initial) {
        a[0] = least(e[0], a[0]);
        step(e, f, cut, initial, b);
        constant |= cut;
    }

    __device__ void after(const Clamp& earlier) {
        if (constant) return;
        b[0] = clamp(a[0], earlier.b[0], b[0]), a[0] = least(a[0], earlier.a[0]), constant = earlier.constant;
    }

    __device__ void act(T* x) const { x[0] = constant ? b[0] : clamp(a[0], x[0], b[0]); }

    __device__ bool trusts(const T*, const T*) const { return true; }
};

// Maps in memory, number by number at a distance.
template <class Map, class T> __device__ inline void put(const Map& map, T* at, long long distance) {
#pragma unroll
    for (int i = 0; i < Map::entries; ++i) at[i * distance] = map.a[i];
#pragma unroll
    for (int i = 0; i < Map::parts; ++i) at[(Map::entries + i) * distance] = map.b[i];
    at[(Map::size - 1) * distance] = T(map.constant);
}

template <class Map, class T> __device__ inline Map get(const T* at, long long distance) {
    Map map;
#pragma unroll
    for (int i = 0; i < Map::entries; ++i) map.a[i] = at[i * distance];
#pragma unroll
    for (int i = 0; i < Map::parts; ++i) map.b[i] = at[(Map::entries + i) * distance];
    map.constant = at[(Map::size - 1) * distance] != T(0);
    return map;
}

}  // namespace recsolve

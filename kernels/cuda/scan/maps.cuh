// The maps that scans compose: affine ones, whose matrices are k x k (k = 1: diagonal, scalar, identity), over numbers or
// over a semiring; and clamps. More are in simple_maps.cuh and special_maps.cuh.
//
// A map is gathered step by step (`begin`, `then`), put after another one (`after`), and applied to a state (`act`). A
// step that is cut from its past makes all that follows `constant`: the state is then selected, never multiplied out,
// because 0 * inf is NaN. A composed product may overflow where its steps do not; `trusts` says whether the state that
// a map gave is what its steps would have given, so that the caller can walk through these instead.

#pragma once

#include "scan/problem.cuh"

namespace recsolve {

// Products and sums of numbers. Every rounding is spelt out, so that a compiler cannot fuse one product here and another
// there: blocks that do the same must get the same bits.
template <class T> struct Real {
    using Products = Real;
    __device__ static T zero() { return T(0); }
    __device__ static T one() { return T(1); }
    __device__ static T times(T x, T y) { return x * y; }
    __device__ static T plus(T x, T y) { return x + y; }
    __device__ static T more(T x, T y, T total) { return multiply_add(x, y, total); }
    __device__ static bool sure(T x) { return finite(x); }  // that no overflow is hidden in a result
};

// x -> A x + b. Sums are taken in the order of the reference. `Algebra` has the operations, and those of composed products.
template <class T, int K, class Algebra> struct Linear {
    using Number = T;
    using Operations = Algebra;
    static constexpr int parts = K, entries = K * K, vectors = 1, size = entries + parts + 1;

    T a[entries], b[parts];
    bool constant;

    // A row of m times v.
    template <class R = Algebra> __device__ static T row(const T* m, const T* v, int stride) {
        T total = R::times(m[0], v[0]);
#pragma unroll
        for (int j = 1; j < K; ++j) total = R::more(m[j], v[j * stride], total);
        return total;
    }

    // result <- m v + f.
    __device__ static void apply(const T* m, const T* v, const T* f, T* result) {
#pragma unroll
        for (int i = 0; i < K; ++i) {
            result[i] = K == 1 ? Algebra::more(m[0], v[0], f[0]) : Algebra::plus(row(m + i * K, v, 1), f[i]);
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
        for (int i = 0; i < entries; ++i) a[i] = i % (K + 1) == 0 ? Algebra::one() : Algebra::zero();
#pragma unroll
        for (int i = 0; i < K; ++i) b[i] = Algebra::zero();
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
    __device__ void after(const Linear& earlier) {
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
        bool sure = true, lost = false;
#pragma unroll
        for (int i = 0; i < K; ++i) sure &= Algebra::sure(after[i]), lost |= is_nan(before[i]);
        return sure || (lost && !constant);
    }

private:
    // right <- left right, column by column.
    __device__ static void multiply(const T* left, T* right) {
#pragma unroll
        for (int j = 0; j < K; ++j) {
            T column[K];
#pragma unroll
            for (int i = 0; i < K; ++i) column[i] = row<typename Algebra::Products>(left + i * K, right + j, K);
#pragma unroll
            for (int i = 0; i < K; ++i) right[i * K + j] = column[i];
        }
    }
};

template <class T, int K> using Affine = Linear<T, K, Real<T>>;

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

// Maps in memory, number by number at a distance: a, then b, then whether they are constant.
template <class Map> constexpr int COMPOSED = Map::size - Map::parts - 1;

template <class Map, class T> __device__ inline void put(const Map& map, T* at, long long distance) {
#pragma unroll
    for (int i = 0; i < COMPOSED<Map>; ++i) at[i * distance] = map.a[i];
#pragma unroll
    for (int i = 0; i < Map::parts; ++i) at[(COMPOSED<Map> + i) * distance] = map.b[i];
    at[(Map::size - 1) * distance] = T(map.constant);
}

template <class Map, class T> __device__ inline Map get(const T* at, long long distance) {
    Map map;
#pragma unroll
    for (int i = 0; i < COMPOSED<Map>; ++i) map.a[i] = at[i * distance];
#pragma unroll
    for (int i = 0; i < Map::parts; ++i) map.b[i] = at[(COMPOSED<Map> + i) * distance];
    map.constant = at[(Map::size - 1) * distance] != T(0);
    return map;
}

}  // namespace recsolve

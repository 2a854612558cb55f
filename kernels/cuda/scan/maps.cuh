// What the maps that scans compose have in common; each is in a header of its own, in scan/monoids.
//
// A map is gathered step by step (`begin`, `then`), put after another one (`after`), and applied to a state (`act`). A
// step that is cut from its past makes all that follows `constant`: the state is then selected, never multiplied out,
// because 0 * inf is NaN. A composed product may overflow where its steps do not; `trusts` says whether the state that
// a map gave is what its steps would have given, so that the caller can walk through these instead.

#pragma once

#include "scan/problem.cuh"

namespace recsolve {

// What a map gave is what its steps would have given, if it is finite, or if NaN came in and nothing was cut.
template <class T> __device__ inline bool sure_of(T before, T after, bool constant) {
    return finite(after) || (is_nan(before) && !constant);
}

// A sum in a composed map: NaN where it overflows, because the loop, which is bounded in between, may not get there.
template <class T> __device__ inline T marked_sum(T x, T y) {
    const T total = x + y;
    return !finite(total) && finite(x) && finite(y) ? total - total : total;
}

// x -> A x + b, whose matrices are K x K (K = 1: diagonal, scalar, identity). Sums are taken in the order of the
// reference. `Algebra` has the operations, and those of composed products.
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

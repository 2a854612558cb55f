// Sums with bounds.

#pragma once

#include "scan/maps.cuh"

namespace recsolve {

// x -> max(min(x + d, hi), lo), from d, lo, hi. Composed: a = d, hi and b = lo. A cut step acts on the initial state.
template <class T> struct SaturatingAdd {
    using Number = T;
    static constexpr int parts = 1, entries = 0, vectors = 3, size = 4;

    T a[2], b[1];
    bool constant;

    __device__ static T bounded(T x, T d, T lo, T hi) { return greatest(least(x + d, hi), lo); }

    __device__ static void step(const T*, const T* f, bool cut, const T* initial, T* x) {
        x[0] = bounded(cut ? initial[0] : x[0], f[0], f[1], f[2]);
    }

    __device__ void identity() {
        a[0] = T(0), a[1] = T(1) / T(0), b[0] = T(-1) / T(0), constant = false;
    }

    __device__ void begin(const T*, const T* f, bool cut, const T* initial) {
        a[0] = f[0], a[1] = f[2], b[0] = cut ? bounded(initial[0], f[0], f[1], f[2]) : f[1], constant = cut;
    }

    __device__ void then(const T* e, const T* f, bool cut, const T* initial) {
        a[0] = marked_sum(a[0], f[0]), a[1] = bounded(a[1], f[0], f[1], f[2]);
        step(e, f, cut, initial, b);
        constant |= cut;
    }

    __device__ void after(const SaturatingAdd& earlier) {
        if (constant) return;
        const T lo = bounded(earlier.b[0], a[0], b[0], a[1]), hi = bounded(earlier.a[1], a[0], b[0], a[1]);
        a[0] = marked_sum(earlier.a[0], a[0]), a[1] = hi, b[0] = lo, constant = earlier.constant;
    }

    __device__ void act(T* x) const { x[0] = constant ? b[0] : bounded(x[0], a[0], b[0], a[1]); }

    __device__ bool trusts(const T* before, const T* after) const { return sure_of(before[0], after[0], constant); }
};

}  // namespace recsolve

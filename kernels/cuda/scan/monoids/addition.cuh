// Prefix sums.

#pragma once

#include "scan/maps.cuh"

namespace recsolve {

// x -> x + b; a cut step gives b.
template <class T> struct Addition {
    using Number = T;
    static constexpr int parts = 1, entries = 0, vectors = 1, size = 2;

    T a[1], b[1];  // a holds nothing
    bool constant;

    __device__ static void step(const T*, const T* f, bool cut, const T*, T* x) { x[0] = cut ? f[0] : x[0] + f[0]; }

    __device__ void identity() { b[0] = T(0), constant = false; }

    __device__ void begin(const T*, const T* f, bool cut, const T*) { b[0] = f[0], constant = cut; }

    __device__ void then(const T* e, const T* f, bool cut, const T* initial) {
        step(e, f, cut, initial, b);
        constant |= cut;
    }

    __device__ void after(const Addition& earlier) {
        if (constant) return;
        b[0] = earlier.b[0] + b[0], constant = earlier.constant;
    }

    __device__ void act(T* x) const { x[0] = constant ? b[0] : x[0] + b[0]; }

    __device__ bool trusts(const T* before, const T* after) const { return sure_of(before[0], after[0], constant); }
};

}  // namespace recsolve

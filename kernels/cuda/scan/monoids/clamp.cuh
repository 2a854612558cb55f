// Clamps.

#pragma once

#include "scan/maps.cuh"

namespace recsolve {

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

}  // namespace recsolve

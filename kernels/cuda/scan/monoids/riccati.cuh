// Gains of a filter.

#pragma once

#include "scan/maps.cuh"

namespace recsolve {

// K -> A^2 K / (1 + K B) + C, from A, C, B: the gain of a Kalman filter with one state. Composed: a = A, B and b = C,
// which a cut step gives.
template <class T> struct Riccati {
    using Number = T;
    static constexpr int parts = 1, entries = 0, vectors = 3, size = 4;

    T a[2], b[1];
    bool constant;

    __device__ static T move(T A, T C, T B, T x) {
        return multiply_add(A * (T(1) / multiply_add(x, B, T(1)) * x), A, C);
    }

    __device__ static void step(const T*, const T* f, bool cut, const T*, T* x) {
        x[0] = cut ? f[1] : move(f[0], f[1], f[2], x[0]);
    }

    __device__ void identity() { a[0] = T(1), a[1] = b[0] = T(0), constant = false; }

    __device__ void begin(const T*, const T* f, bool cut, const T*) {
        a[0] = f[0], b[0] = f[1], a[1] = f[2], constant = cut;
    }

    __device__ void then(const T*, const T* f, bool cut, const T*) {
        const Riccati earlier = *this;
        a[0] = f[0], b[0] = f[1], a[1] = f[2], constant = cut;
        after(earlier);
    }

    __device__ void after(const Riccati& earlier) {
        if (constant) return;
        const T A1 = earlier.a[0], B1 = earlier.a[1], C1 = earlier.b[0], A2 = a[0], B2 = a[1], C2 = b[0];
        const T through = T(1) / multiply_add(C1, B2, T(1));
        a[0] = A2 * through * A1;
        a[1] = multiply_add(A1 * B2 * through, A1, B1);
        b[0] = multiply_add(A2 * through * C1, A2, C2);
        constant = earlier.constant;
    }

    __device__ void act(T* x) const { x[0] = constant ? b[0] : move(a[0], b[0], a[1], x[0]); }

    __device__ bool trusts(const T* before, const T* after) const { return sure_of(before[0], after[0], constant); }
};

}  // namespace recsolve

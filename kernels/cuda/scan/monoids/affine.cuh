// Affine maps of numbers, and of complex ones.

#pragma once

#include "scan/maps.cuh"

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

// x -> a x + b of complex numbers, whose parts lie side by side in memory.
template <class T> struct ComplexAffine {
    using Number = T;
    static constexpr int parts = 2, entries = 2, vectors = 1, size = 5;

    T a[2], b[2];
    bool constant;

    // v <- m v.
    __device__ static void multiply(const T* m, T* v) {
        const T real = multiply_add(-m[1], v[1], m[0] * v[0]);
        v[1] = multiply_add(m[1], v[0], m[0] * v[1]), v[0] = real;
    }

    __device__ static void step(const T* e, const T* f, bool cut, const T*, T* x) {
        multiply(e, x);
        x[0] = cut ? f[0] : x[0] + f[0], x[1] = cut ? f[1] : x[1] + f[1];
    }

    __device__ void identity() { a[0] = T(1), a[1] = b[0] = b[1] = T(0), constant = false; }

    __device__ void begin(const T* e, const T* f, bool cut, const T*) {
        a[0] = e[0], a[1] = e[1], b[0] = f[0], b[1] = f[1], constant = cut;
    }

    __device__ void then(const T* e, const T* f, bool cut, const T* initial) {
        multiply(e, a);
        step(e, f, cut, initial, b);
        constant |= cut;
    }

    __device__ void after(const ComplexAffine& earlier) {
        if (constant) return;
        T sum[2] = {earlier.b[0], earlier.b[1]}, product[2] = {earlier.a[0], earlier.a[1]};
        step(a, b, false, nullptr, sum);
        multiply(a, product);
        a[0] = product[0], a[1] = product[1], b[0] = sum[0], b[1] = sum[1], constant = earlier.constant;
    }

    __device__ void act(T* x) const { step(a, b, constant, nullptr, x); }

    __device__ bool trusts(const T* before, const T* after) const {
        const bool sure = finite(after[0]) && finite(after[1]), lost = is_nan(before[0]) || is_nan(before[1]);
        return sure || (lost && !constant);
    }
};

}  // namespace recsolve

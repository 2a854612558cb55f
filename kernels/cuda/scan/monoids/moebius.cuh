// Points of a projective line.

#pragma once

#include "scan/maps.cuh"

namespace recsolve {

__device__ inline float scaled(float x, int exponent) {
    return ::scalbnf(x, exponent);
}
__device__ inline double scaled(double x, int exponent) {
    return ::scalbn(x, exponent);
}
__device__ inline int exponent_of(float x) {
    return ::ilogbf(x);
}
__device__ inline int exponent_of(double x) {
    return ::ilogb(x);
}

// x -> (a x + b) / (c x + d), infinity going to a / c. Composed: the matrix in a; the value b where constant. A cut step
// acts on the initial state.
template <class T> struct Moebius {
    using Number = T;
    static constexpr int parts = 1, entries = 0, vectors = 4, size = 6;

    T a[4], b[1];
    bool constant;

    __device__ static T move(const T* f, T x) {
        const bool far = !finite(x) && !is_nan(x);
        return (far ? f[0] : multiply_add(f[0], x, f[1])) / (far ? f[2] : multiply_add(f[2], x, f[3]));
    }

    // Scales a matrix that has become large or small by a power of two.
    __device__ static void normalise(T* m) {
        constexpr T LARGE = T(1 << 20);
        const T largest = greatest(greatest(size_of(m[0]), size_of(m[1])), greatest(size_of(m[2]), size_of(m[3])));
        if ((largest < LARGE && largest * LARGE > T(1)) || !finite(largest) || largest == T(0)) return;
        const int exponent = exponent_of(largest);
#pragma unroll
        for (int i = 0; i < 4; ++i) m[i] = scaled(m[i], -exponent);
    }

    __device__ static void step(const T*, const T* f, bool cut, const T* initial, T* x) {
        x[0] = move(f, cut ? initial[0] : x[0]);
    }

    __device__ void identity() { a[0] = a[3] = T(1), a[1] = a[2] = b[0] = T(0), constant = false; }

    __device__ void begin(const T*, const T* f, bool cut, const T* initial) {
#pragma unroll
        for (int i = 0; i < 4; ++i) a[i] = f[i];
        normalise(a);
        b[0] = cut ? move(f, initial[0]) : T(0), constant = cut;
    }

    __device__ void then(const T* e, const T* f, bool cut, const T* initial) {
        T left[4] = {f[0], f[1], f[2], f[3]};
        normalise(left);
        multiply(left, a);
        step(e, f, cut, initial, b);
        constant |= cut;
    }

    __device__ void after(const Moebius& earlier) {
        if (constant) return;
        b[0] = move(a, earlier.b[0]);
        T right[4] = {earlier.a[0], earlier.a[1], earlier.a[2], earlier.a[3]};
        multiply(a, right);
#pragma unroll
        for (int i = 0; i < 4; ++i) a[i] = right[i];
        constant = earlier.constant;
    }

    __device__ void act(T* x) const { x[0] = constant ? b[0] : move(a, x[0]); }

    __device__ bool trusts(const T* before, const T* after) const { return sure_of(before[0], after[0], constant); }

private:
    __device__ static T size_of(T x) { return x < T(0) ? -x : x; }

    // right <- left right.
    __device__ static void multiply(const T* left, T* right) {
#pragma unroll
        for (int j = 0; j < 2; ++j) {
            const T above = right[j], below = right[2 + j];
            right[j] = multiply_add(left[0], above, left[1] * below);
            right[2 + j] = multiply_add(left[2], above, left[3] * below);
        }
        normalise(right);
    }
};

}  // namespace recsolve

// Sums of exponentials.

#pragma once

#include "scan/maps.cuh"

namespace recsolve {

__device__ inline float exponential(float x) {
    return ::expf(x);
}
__device__ inline double exponential(double x) {
    return ::exp(x);
}

// (M, S) -> S e^M + s e^m in the same form. m and s are arrays of their own; a cut step gives them.
template <class T> struct LogSumExp {
    using Number = T;
    static constexpr int parts = 2, entries = 0, vectors = 1, size = 3;

    T a[1], b[2];  // a holds nothing
    bool constant;

    __device__ static void add(T m, T s, T* x) {
        const bool stays = x[0] >= m;
        const T weight = x[0] == m ? T(1) : exponential(stays ? m - x[0] : x[0] - m);  // inf - inf is NaN
        x[1] = stays ? multiply_add(s, weight, x[1]) : multiply_add(x[1], weight, s);
        x[0] = greatest(x[0], m);
    }

    __device__ static void step(const T*, const T* f, bool cut, const T*, T* x) {
        add(f[0], f[1], x);
        if (cut) x[0] = f[0], x[1] = f[1];
    }

    __device__ void identity() { b[0] = T(-1) / T(0), b[1] = T(0), constant = false; }

    __device__ void begin(const T*, const T* f, bool cut, const T*) { b[0] = f[0], b[1] = f[1], constant = cut; }

    __device__ void then(const T* e, const T* f, bool cut, const T* initial) {
        step(e, f, cut, initial, b);
        constant |= cut;
    }

    __device__ void after(const LogSumExp& earlier) {
        if (constant) return;
        T sum[2] = {earlier.b[0], earlier.b[1]};
        add(b[0], b[1], sum);
        b[0] = sum[0], b[1] = sum[1], constant = earlier.constant;
    }

    __device__ void act(T* x) const {
        add(b[0], b[1], x);
        if (constant) x[0] = b[0], x[1] = b[1];
    }

    __device__ bool trusts(const T* before, const T* after) const {
        const bool lost = is_nan(before[0]) || is_nan(before[1]);
        return (finite(after[1]) && !is_nan(after[0])) || (lost && !constant);
    }
};

template <class T> struct Planes<LogSumExp<T>> {
    static constexpr int K = 2, E = 0, COUNT = 2, ARRAYS = 2;

    __device__ static constexpr int input(int c) { return c; }
    __device__ static constexpr int first(int array) { return array; }
    __device__ static constexpr int count(int) { return 1; }
    __device__ static long long distance(const Problem&, int) { return 0; }
};

}  // namespace recsolve

// Stretches of time as their ends see them: what is composed to correct the first states of segments.

#pragma once

#include "solve/problem.cuh"

namespace recsolve {

// If the first state of a stretch moved by d, its last one would move by A d + rho.
template <class T, int K> struct Link {
    static constexpr int NUMBERS = K * K + 4 * K;

    T A[K * K], rho[K], first[K], last[K];
    T size[K];  // the largest of the states known, infinite where a walk has ended in a state that is not finite

    template <class Of> __device__ void each(Of of) {
        int at = 0;
#pragma unroll
        for (int i = 0; i < K * K; ++i) of(at++, A[i]);
#pragma unroll
        for (int i = 0; i < K; ++i) of(at++, rho[i]), of(at++, first[i]), of(at++, last[i]), of(at++, size[i]);
    }
    __device__ void put(T* to) {
        each([&](int i, T& x) { to[i * LANES] = x; });
    }
    __device__ void get(const T* from) {
        each([&](int i, T& x) { x = from[i * LANES]; });
    }
};

template <int K, class T> __device__ inline void identity(T* A) {
#pragma unroll
    for (int i = 0; i < K * K; ++i) A[i] = i % (K + 1) == 0 ? T(1) : T(0);
}

// y <- A x + y. What is 0 passes nothing on and lets nothing pass, not even what is not finite.
template <int K, class T> __device__ inline void pass(const T* A, const T* x, T* y) {
#pragma unroll
    for (int i = 0; i < K; ++i) {
#pragma unroll
        for (int j = 0; j < K; ++j) if (A[i * K + j] != T(0) && x[j] != T(0)) y[i] = multiply_add(A[i * K + j], x[j], y[i]);
    }
}

// A <- left A.
template <int K, class T> __device__ inline void multiply(const T* left, T* A) {
#pragma unroll
    for (int j = 0; j < K; ++j) {
        T column[K];
#pragma unroll
        for (int i = 0; i < K; ++i) {
            column[i] = left[i * K] * A[j];
#pragma unroll
            for (int m = 1; m < K; ++m) column[i] = multiply_add(left[i * K + m], A[m * K + j], column[i]);
        }
#pragma unroll
        for (int i = 0; i < K; ++i) A[i * K + j] = column[i];
    }
}

// Compositions of links, one after the other in time. Where a stretch as good as begins with the end of the one before it,
// that difference counts for nothing.
template <class T, int K> struct Chain {
    const T atol, rtol;
    bool begun = false;
    Link<T, K> all;

    __device__ Chain(double a, double r) : atol(T(a)), rtol(T(r)) {}

    __device__ bool close(T x, T y) const {
        return same(x, y) || size_of(y - x) <= atol + rtol * larger(size_of(x), size_of(y));
    }

    // How far the end of the chain is from where the next stretch begins.
    __device__ void gap(const T* first, T* d) const {
#pragma unroll
        for (int i = 0; i < K; ++i) d[i] = close(all.last[i], first[i]) ? T(0) : all.last[i] - first[i];
    }

    __device__ void append(const Link<T, K>& next) {
        if (!begun) {
            all = next, begun = true;
            return;
        }
        T d[K], rho[K], A[K * K];
        gap(next.first, d);
#pragma unroll
        for (int i = 0; i < K; ++i) d[i] += all.rho[i], rho[i] = next.rho[i];
        pass<K>(next.A, d, rho);
#pragma unroll
        for (int j = 0; j < K; ++j) {  // the columns of the product
            T column[K], product[K];
#pragma unroll
            for (int i = 0; i < K; ++i) column[i] = all.A[i * K + j], product[i] = T(0);
            pass<K>(next.A, column, product);
#pragma unroll
            for (int i = 0; i < K; ++i) A[i * K + j] = product[i];
        }
#pragma unroll
        for (int i = 0; i < K * K; ++i) all.A[i] = A[i];
#pragma unroll
        for (int i = 0; i < K; ++i) {
            all.rho[i] = rho[i], all.last[i] = next.last[i];
            all.size[i] = larger(all.size[i], next.size[i]);
        }
    }
};

}  // namespace recsolve

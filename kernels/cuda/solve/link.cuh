// Stretches of time as their ends see them: what is composed to correct the first states of segments.

#pragma once

#include "solve/problem.cuh"

namespace recsolve {

// If the first state of a stretch moved by d, its last one would move by A d + rho.
template <class T, int K> struct Link {
    static constexpr int NUMBERS = K * K + 4 * K + 1;

    T A[K * K], rho[K], first[K], last[K];
    T size[K];  // of the states known, in all; infinite where a walk has ended in a state that is not finite
    T written;  // 1 where what comes first has been written

    template <class Of> __device__ void each(Of of) {
        int at = 0;
#pragma unroll
        for (int i = 0; i < K * K; ++i) of(at++, A[i]);
#pragma unroll
        for (int i = 0; i < K; ++i) of(at++, rho[i]), of(at++, first[i]), of(at++, last[i]), of(at++, size[i]);
        of(at++, written);
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

constexpr double SLACK = 0.75;  // of the tolerance, which a mended step takes
constexpr int MENDED = 12;      // tolerances that are spread over some steps

// Compositions of links, one after the other in time. What has been written need not begin with the end of what is before
// it: it moves no more than brings it within the tolerance, and if that is little, it is mended and ends where it did.
// Differences that rounding makes would add up else, and every segment that moves for one would move the next.
template <class T, int K> struct Chain {
    const T atol, rtol;
    bool begun = false;
    Link<T, K> all;

    __device__ Chain(double a, double r) : atol(T(a)), rtol(T(r)) {}

    __device__ T bound(T x, T y) const { return atol + rtol * larger(size_of(x), size_of(y)); }
    __device__ bool close(T x, T y) const {
        return same(x, y) || (finite(y - x) && size_of(y - x) <= bound(x, y));  // inf <= inf holds
    }

    // How far what has been written may stay from the end of what is before it.
    __device__ T slack(T last, T first) const {
        const T size = T(SLACK) * bound(last, first);
        return close(last, first) || !finite(last) ? T(0) : last > first ? size : -size;
    }
    __device__ bool within(int bounds, T move, T x) const { return size_of(move) <= T(bounds) * bound(x, x); }

    // How much what has been written, and ends elsewhere if it moves, moves for the end of what is before it.
    __device__ T shift(T last, T first) const {
        const T move = last - slack(last, first) - first;
        return close(last, first) || within(MENDED, move, first) ? T(0) : move;
    }

    __device__ void append(const Link<T, K>& next) {
        if (!begun) {
            all = next, begun = true;
            return;
        }
        T d[K], rho[K], A[K * K];
#pragma unroll
        for (int i = 0; i < K; ++i) {
            const T last = all.last[i], first = next.first[i];
            d[i] = (next.written != T(0) ? shift(last, first) : last - first) + all.rho[i];
            rho[i] = next.rho[i];
        }
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
            all.size[i] += next.size[i];
        }
    }
};

}  // namespace recsolve

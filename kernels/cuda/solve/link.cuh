// Stretches of time as their ends see them: what is composed to correct the first states of segments.

#pragma once

#include "solve/problem.cuh"

namespace recsolve {

// If the first state of a stretch moved by d, its last one would move by A d + rho.
template <class T, int K> struct Link {
    static constexpr int NUMBERS = K * K + 5 * K;

    T A[K * K], rho[K], first[K], last[K];
    T size[K];  // of the states known, in all; infinite where a walk has ended in a state that is not finite
    T bound[K];  // how near what comes first has to begin; negative where that has not been written

    template <class Of> __device__ void each(Of of) {
        int at = 0;
#pragma unroll
        for (int i = 0; i < K * K; ++i) of(at++, A[i]);
#pragma unroll
        for (int i = 0; i < K; ++i) of(at++, rho[i]), of(at++, first[i]), of(at++, last[i]), of(at++, size[i]), of(at++, bound[i]);
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
constexpr int MENDED = 3;       // tolerances that are spread over some steps

// Compositions of links, one after the other in time. What has been written need not begin with the end of what is before
// it: it moves no more than brings it within the tolerance, and if that is little, it is mended and ends where it did.
// Differences that rounding makes would add up else, and every segment that moves for one would move the next.
template <class T> __device__ inline bool within(int bounds, T move, T bound) {
    return size_of(move) <= T(bounds) * bound;
}
template <class T> __device__ inline bool close(T x, T y, T bound) {
    return same(x, y) || (finite(y - x) && within(1, y - x, bound));  // inf <= inf holds
}

// How far what has been written may stay from the end of what is before it.
template <class T> __device__ inline T slack(T last, T first, T bound) {
    const T size = T(SLACK) * bound;
    return close(last, first, bound) || !finite(last) ? T(0) : last > first ? size : -size;
}

// How much what has been written, and ends elsewhere if it moves, moves for the end of what is before it.
template <class T> __device__ inline T shift(T last, T first, T bound) {
    const T move = last - slack(last, first, bound) - first;
    return close(last, first, bound) || within(MENDED, move, bound) ? T(0) : move;
}

template <class T, int K> struct Chain {
    bool begun = false;
    Link<T, K> all;

    __device__ void append(const Link<T, K>& next) {
        if (!begun) {
            all = next, begun = true;
            return;
        }
        T d[K], rho[K], A[K * K];
#pragma unroll
        for (int i = 0; i < K; ++i) {
            const T last = all.last[i], first = next.first[i];
            d[i] = (next.bound[i] < T(0) ? last - first : shift(last, first, next.bound[i])) + all.rho[i];
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

// What solves need of the device beyond scans: the hardware's approximate functions, and votes of a warp.
//
// A host build defines the same names before this text (RECSOLVE_HOST).

#pragma once

#include "common/device.cuh"

#ifndef RECSOLVE_HOST

namespace recsolve {

// 2^x within 2 units in the last place, 1 / x within 1; results below the normal range are 0.
__device__ inline float approximate_exp2(float x) {
    float y;
    asm("ex2.approx.ftz.f32 %0, %1;" : "=f"(y) : "f"(x));
    return y;
}
__device__ inline float approximate_reciprocal(float x) {
    float y;
    asm("rcp.approx.ftz.f32 %0, %1;" : "=f"(y) : "f"(x));
    return y;
}

// tanh(x) within 2^-10.9 of itself.
__device__ inline float approximate_tanh(float x) {
    float y;
    asm("tanh.approx.f32 %0, %1;" : "=f"(y) : "f"(x));
    return y;
}

// Minima and maxima that pass NaN on, in one instruction.
__device__ inline float least_or_nan(float x, float y) {
    float z;
    asm("min.NaN.f32 %0, %1, %2;" : "=f"(z) : "f"(x), "f"(y));
    return z;
}
__device__ inline float greatest_or_nan(float x, float y) {
    float z;
    asm("max.NaN.f32 %0, %1, %2;" : "=f"(z) : "f"(x), "f"(y));
    return z;
}

// Whether a condition holds in any thread of a warp, all of whose threads come here; `place` is shared by them.
__device__ inline bool any_of_warp(int*, bool condition) {
    return __any_sync(0xffffffffu, condition);
}

// Reads a flag, and what was written before it was published is visible.
__device__ inline int acquire(const int* flag) {
    int value;
    asm volatile("ld.acquire.gpu.global.s32 %0, [%1];" : "=r"(value) : "l"(flag) : "memory");
    return value;
}

// Those of a float that is not negative are in its order.
__device__ inline int bits_of(float x) {
    return __float_as_int(x);
}

__device__ inline unsigned long long bits_of(double x) {
    return __double_as_longlong(x);
}

// The sum over the threads of a warp, in its first thread.
template <class T> __device__ inline T sum_of_warp(T*, T x) {
#pragma unroll
    for (int distance = 16; distance > 0; distance /= 2) x += __shfl_down_sync(0xffffffffu, x, distance);
    return x;
}

// The largest number of the threads of a warp, NaN if one is, in all of them.
template <class T> __device__ inline T largest_of_warp(T*, T x) {
#pragma unroll
    for (int distance = 16; distance > 0; distance /= 2) {
        const T y = __shfl_xor_sync(0xffffffffu, x, distance);
        x = x > y || x != x ? x : y;
    }
    return x;
}

// The bits that any thread of a warp has, in all of them.
__device__ inline int union_of_warp(int*, int bits) {
    return static_cast<int>(__reduce_or_sync(0xffffffffu, static_cast<unsigned int>(bits)));
}

}  // namespace recsolve

#endif

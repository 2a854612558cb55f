// What solves need of the device: approximate functions that are as wrong as the hardware's may be, and votes.

#pragma once

#include <cmath>

namespace recsolve {

// Moves y by up to `error` of itself, up or down as the bits of x have it.
inline float disturbed(float x, double y, double error) {
    if (std::isinf(x)) return static_cast<float>(y);
    const std::uint32_t mixed = as_bits(x) * 2654435761u;
    return static_cast<float>(y * (1.0 + error * (static_cast<double>(mixed >> 8) / (1 << 23) - 1.0)));
}

inline float flushed(float x) {
    return std::fabs(x) < 1.17549435e-38f ? std::copysign(0.0f, x) : x;
}

inline float approximate_exp2(float x) {
    return flushed(disturbed(x, std::exp2(static_cast<double>(x)), 1.4 * 0x1p-23));
}
inline float approximate_reciprocal(float x) {
    return flushed(disturbed(x, 1.0 / static_cast<double>(x), 0x1p-23));
}
inline float approximate_tanh(float x) {
    const float y = disturbed(x, std::tanh(static_cast<double>(x)), 0x1p-11);
    return std::fabs(y) > 1.0f ? std::copysign(1.0f, x) : y;
}
inline float least_or_nan(float x, float y) {
    return x < y || x != x ? x : y;
}
inline float greatest_or_nan(float x, float y) {
    return x > y || x != x ? x : y;
}

inline int bits_of(float x) {
    return static_cast<int>(as_bits(x));
}

inline int acquire(const int* flag) {
    return observe(flag);
}

inline unsigned long long bits_of(double x) {
    unsigned long long bits;
    std::memcpy(&bits, &x, sizeof bits);
    return bits;
}

inline bool any_of_warp(int* place, bool condition) {
    __syncwarp();
    if (threadIdx.x % 32 == 0) *place = 0;
    __syncwarp();
    if (condition) atomicAdd(place, 1);
    __syncwarp();
    bool any = *place != 0;
    __syncwarp();
    return any;
}

template <class T> inline T sum_of_warp(T* place, T x) {
    if (threadIdx.x % 32 == 0) *place = T(0);
    __syncwarp();
    for (unsigned int i = 0; i < 32; ++i) {
        if (threadIdx.x % 32 == i) *place += x;
        __syncwarp();
    }
    T sum = *place;
    __syncwarp();
    return sum;
}

template <class T> inline T largest_of_warp(T* place, T x) {
    __syncwarp();
    if (threadIdx.x % 32 == 0) *place = x;
    __syncwarp();
    for (unsigned int i = 1; i < 32; ++i) {
        if (threadIdx.x % 32 == i && !(*place > x || *place != *place)) *place = x;
        __syncwarp();
    }
    T most = *place;
    __syncwarp();
    return most;
}

inline int union_of_warp(int* place, int bits) {
    __syncwarp();
    if (threadIdx.x % 32 == 0) *place = 0;
    __syncwarp();
    __atomic_fetch_or(place, bits, __ATOMIC_RELAXED);
    __syncwarp();
    const int all = *place;
    __syncwarp();
    return all;
}

}  // namespace recsolve

// CUDA on the host: threads of a block, barriers, atomics and asynchronous copies, for tests without a GPU.
//
// Blocks run on a few OS threads at a time, so that a block that waits for another one really waits. The threads of a
// block are fibers, each of which runs until it reaches a barrier; which one runs first changes from barrier to
// barrier, so a barrier that is missing shows. With RECSOLVE_REAL_THREADS they are OS threads, for sanitizers.
// Asynchronous copies are done as late as they may be.

#pragma once

#define RECSOLVE_HOST
#define __global__
#define __device__
#define __forceinline__ inline
#define __launch_bounds__(...)
#define __cluster_dims__(...)

#include <algorithm>
#include <atomic>
#include <barrier>
#include <chrono>
#include <cstdint>
#include <cstdio>
#include <cstdlib>
#include <cmath>
#include <cstring>
#include <deque>
#include <functional>
#include <map>
#include <memory>
#include <mutex>
#include <thread>
#include <vector>

#ifdef RECSOLVE_REAL_THREADS
#include "threads.hpp"
#else
#include "fibers.hpp"
#endif

struct Dimensions {
    unsigned int x;
};

#define threadIdx (Dimensions{static_cast<unsigned int>(emulated::thread())})
#define blockIdx (Dimensions{static_cast<unsigned int>(emulated::block())})
#define blockDim (Dimensions{static_cast<unsigned int>(emulated::threads())})

inline void __syncthreads() {
    emulated::block_barrier();
}
inline void __syncwarp() {
    emulated::warp_barrier();
}

inline int __syncthreads_or(int predicate) {
    std::atomic<int>& vote = emulated::vote();
    if (predicate) vote = 1;
    emulated::block_barrier();
    int result = vote;
    emulated::block_barrier();
    if (threadIdx.x == 0) vote = 0;
    emulated::block_barrier();
    return result;
}

inline int atomicAdd(int* at, int value) {
    return __atomic_fetch_add(at, value, __ATOMIC_ACQ_REL);
}
inline unsigned long long atomicAdd(unsigned long long* at, unsigned long long value) {
    return __atomic_fetch_add(at, value, __ATOMIC_ACQ_REL);
}

template <class T> inline T atomicMax(T* at, T value) {
    T seen = __atomic_load_n(at, __ATOMIC_RELAXED);
    while (value > seen && !__atomic_compare_exchange_n(at, &seen, value, false, __ATOMIC_RELAXED, __ATOMIC_RELAXED)) {
    }
    return seen;
}

inline int atomicMin(int* at, int value) {
    int seen = __atomic_load_n(at, __ATOMIC_RELAXED);
    while (value < seen && !__atomic_compare_exchange_n(at, &seen, value, false, __ATOMIC_RELAXED, __ATOMIC_RELAXED)) {
    }
    return seen;
}

namespace recsolve {

// Sanitizers know no fences, so every look at a flag acquires.
inline int observe(const int* flag) {
    return __atomic_load_n(flag, __ATOMIC_ACQUIRE);
}
inline void fence() {}
inline void publish(int* flag, int value) {
    __atomic_store_n(flag, value, __ATOMIC_RELEASE);
}
inline unsigned long long observe(const unsigned long long* word) {
    return __atomic_load_n(word, __ATOMIC_RELAXED);
}
inline void publish(unsigned long long* word, unsigned long long value) {
#ifdef RECSOLVE_LATE_STATES
    if (value >> 32 == 3) std::this_thread::sleep_for(std::chrono::microseconds(RECSOLVE_LATE_STATES));
#endif
    __atomic_store_n(word, value, __ATOMIC_RELAXED);
}
inline unsigned long long observe_afar(const unsigned long long* word) {
    return __atomic_load_n(word, __ATOMIC_ACQUIRE);
}
inline void publish_afar(unsigned long long* word, unsigned long long value) {
    __atomic_store_n(word, value, __ATOMIC_RELEASE);
}
inline long long clock_now() {
    return std::chrono::steady_clock::now().time_since_epoch() / std::chrono::nanoseconds(1);
}
inline void pause() {
    emulated::pause();
}
inline unsigned char* shared_memory() {
    return emulated::shared();
}

template <int COUNT = 1, class S> inline void copy_async(S* to, const S* from) {
    constexpr std::size_t BYTES = COUNT * sizeof(S);
    if (BYTES >= 4) {
        if ((std::uintptr_t(to) | std::uintptr_t(from)) % BYTES) emulated::fail("a copy that is not aligned");
        emulated::copies().start({to, from, BYTES});
    } else {
        *to = *from;
    }
}

// Of the word only the byte that is wanted: the others may lie outside what has been allocated here.
inline void copy_word_async(unsigned int* to, const unsigned char* from) {
    emulated::copies().start({reinterpret_cast<unsigned char*>(to) + (std::uintptr_t(from) & 3), from, 1});
}

template <class T> inline T of_thread_before(T x, int distance) {
    unsigned char* places = emulated::exchanged();
    const int own = emulated::thread(), lane = own % emulated::WARP;
    std::memcpy(places + own * 8, &x, sizeof x);
    __syncwarp();
    std::memcpy(&x, places + (lane < distance ? own : own - distance) * 8, sizeof x);
    __syncwarp();
    return x;
}
inline void commit_copies() {
    emulated::copies().commit();
}
template <int PENDING> inline void wait_copies() {
    emulated::copies().wait(PENDING);
}

// Rounded twice here, as the loops of the tests do.
template <class T> inline T multiply_add(T x, T y, T z) {
    return x * y + z;
}

inline float as_float(std::uint32_t bits) {
    float x;
    std::memcpy(&x, &bits, sizeof x);
    return x;
}

inline std::uint32_t as_bits(float x) {
    std::uint32_t bits;
    std::memcpy(&bits, &x, sizeof bits);
    return bits;
}

// IEEE half precision by arithmetic: a half is an integer times a power of two, and so is what rounds to one.
inline float from_half(unsigned short bits) {
    const std::uint32_t sign = (bits & 0x8000u) << 16, exponent = bits >> 10 & 31, mantissa = bits & 1023;
    if (exponent == 31) return as_float(sign | 0x7f800000u | mantissa << 13);
    const float scale = as_float((exponent ? exponent + 127 - 25 : 127 - 24) << 23);
    return as_float(sign | as_bits(scale * static_cast<float>(exponent ? mantissa + 1024 : mantissa)));
}

inline unsigned short to_half(float x) {
    const std::uint32_t bits = as_bits(x), sign = bits >> 16 & 0x8000u, size = bits & 0x7fffffffu;
    if (size > 0x7f800000u) return static_cast<unsigned short>(sign | 0x7e00u);
    if (size >= 0x477ff000u) return static_cast<unsigned short>(sign | 0x7c00u);  // rounds to infinity
    if (size < 0x38800000u) {  // denormal: adding 0.5 leaves multiples of 2^-24, rounded to even
        return static_cast<unsigned short>(sign | (as_bits(as_float(size) + 0.5f) - as_bits(0.5f)));
    }
    return static_cast<unsigned short>(sign | (size - (112u << 23) + 0xfffu + (size >> 13 & 1)) >> 13);
}

inline float from_bfloat(unsigned short bits) {
    return as_float(static_cast<std::uint32_t>(bits) << 16);
}

inline unsigned short to_bfloat(float x) {
    const std::uint32_t bits = as_bits(x);
    if (x != x) return static_cast<unsigned short>(bits >> 16 | 0x40);
    return static_cast<unsigned short>((bits + 0x7fffu + (bits >> 16 & 1)) >> 16);
}

}  // namespace recsolve

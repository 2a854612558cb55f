// What the kernels need of the device beyond plain C++: flags between blocks, asynchronous copies, half precision.
//
// A host build defines the same names before this text (RECSOLVE_HOST), so the kernels themselves run anywhere.

#pragma once

#ifndef RECSOLVE_HOST

namespace recsolve {

// Reads a flag. What was written before it was published is visible after `fence`; asking that of every look at a
// flag would throw away the nearest cache each time.
__device__ inline int observe(const int* flag) {
    int value;
    asm volatile("ld.relaxed.gpu.global.s32 %0, [%1];" : "=r"(value) : "l"(flag) : "memory");
    return value;
}

// Orders what this thread, and those it has met at a barrier, did before it against what they do after it, for all blocks.
__device__ inline void fence() {
    asm volatile("fence.acq_rel.gpu;" ::: "memory");
}

// Writes a flag after everything that this thread, and those it has met at a barrier, wrote before.
__device__ inline void publish(int* flag, int value) {
    asm volatile("st.release.gpu.global.s32 [%0], %1;" ::"l"(flag), "r"(value) : "memory");
}

// The same of a word that says all by itself: nothing else is ordered by it.
__device__ inline unsigned long long observe(const unsigned long long* word) {
    unsigned long long value;
    asm volatile("ld.relaxed.gpu.global.u64 %0, [%1];" : "=l"(value) : "l"(word));
    return value;
}
__device__ inline void publish(unsigned long long* word, unsigned long long value) {
    asm volatile("st.relaxed.gpu.global.u64 [%0], %1;" ::"l"(word), "l"(value) : "memory");
}

// The same between devices, and between a device and its host: what was written before a word was published is visible to
// those who see the word, and to those who meet them at a barrier.
__device__ inline unsigned long long observe_afar(const unsigned long long* word) {
    unsigned long long value;
    asm volatile("ld.acquire.sys.global.u64 %0, [%1];" : "=l"(value) : "l"(word) : "memory");
    return value;
}
__device__ inline void publish_afar(unsigned long long* word, unsigned long long value) {
    asm volatile("st.release.sys.global.u64 [%0], %1;" ::"l"(word), "l"(value) : "memory");
}

// Nanoseconds since some time.
__device__ inline long long clock_now() {
    long long now;
    asm volatile("mov.u64 %0, %%globaltimer;" : "=l"(now));
    return now;
}

// Lets other warps run while this one waits for a flag.
__device__ inline void pause() {
    __nanosleep(32);
}

// Starts to copy COUNT contiguous numbers from global to shared memory; the hardware does so for 4, 8 and 16 aligned
// bytes. The compiler may move it past other accesses (but not past a wait), so its place must not be one that is still
// to be read. The second-level cache alone keeps what comes in pieces of 16 bytes.
template <int COUNT = 1, class S> __device__ inline void copy_async(S* to, const S* from) {
    constexpr int BYTES = COUNT * sizeof(S);
    unsigned int place = static_cast<unsigned int>(__cvta_generic_to_shared(to));
    if constexpr (BYTES == 16) {
        asm volatile("cp.async.cg.shared.global [%0], [%1], 16;" ::"r"(place), "l"(from));
    } else if constexpr (BYTES == 4 || BYTES == 8) {
        asm volatile("cp.async.ca.shared.global [%0], [%1], %2;" ::"r"(place), "l"(from), "n"(BYTES));
    } else {
        static_assert(COUNT == 1, "no copy of so many bytes");
        *to = *from;
    }
}

// Starts to copy the word of four bytes that holds a byte. It may reach beyond an array, but never beyond the memory
// that the array lies in, whose size is a multiple of 256 bytes.
__device__ inline void copy_word_async(unsigned int* to, const unsigned char* from) {
    copy_async(to, reinterpret_cast<const unsigned int*>(reinterpret_cast<unsigned long long>(from) & ~3ull));
}

// Closes the group of the copies started since the last call.
__device__ inline void commit_copies() {
    asm volatile("cp.async.commit_group;" ::: "memory");
}

// Waits until at most PENDING groups of copies are under way.
template <int PENDING> __device__ inline void wait_copies() {
    asm volatile("cp.async.wait_group %0;" ::"n"(PENDING) : "memory");
}

// The number of the thread `distance` before this one in its warp, all of whose threads come here; of the first ones their
// own.
template <class T> __device__ inline T of_thread_before(T x, int distance) {
    return __shfl_up_sync(0xffffffffu, x, distance);
}

// x y + z, rounded once.
__device__ inline float multiply_add(float x, float y, float z) {
    return __fmaf_rn(x, y, z);
}
__device__ inline double multiply_add(double x, double y, double z) {
    return __fma_rn(x, y, z);
}

__device__ inline float from_half(unsigned short bits) {
    float x;
    asm("cvt.f32.f16 %0, %1;" : "=f"(x) : "h"(bits));
    return x;
}

__device__ inline unsigned short to_half(float x) {
    unsigned short bits;
    asm("cvt.rn.f16.f32 %0, %1;" : "=h"(bits) : "f"(x));
    return bits;
}

__device__ inline float from_bfloat(unsigned short bits) {
    return __uint_as_float(static_cast<unsigned int>(bits) << 16);
}

__device__ inline unsigned short to_bfloat(float x) {
    unsigned short bits;
    asm("cvt.rn.bf16.f32 %0, %1;" : "=h"(bits) : "f"(x));
    return bits;
}

// The block's dynamic shared memory.
__device__ inline unsigned char* shared_memory() {
    extern __shared__ __align__(16) unsigned char recsolve_shared[];
    return recsolve_shared;
}

}  // namespace recsolve

#endif

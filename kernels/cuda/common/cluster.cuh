// What a block needs of the device to walk with others: a barrier of a cluster of blocks, their shared memory, and sums
// of neighbouring threads.
//
// A host build defines the same names before this text (RECSOLVE_HOST).

#pragma once

#include "common/device.cuh"

#ifndef RECSOLVE_HOST

namespace recsolve {

// A barrier of all threads of a cluster, after which they see what any of them wrote to shared memory before.
template <int BLOCKS> __device__ inline void meet_cluster() {
    if constexpr (BLOCKS == 1) {
        __syncthreads();
    } else {
        asm volatile("barrier.cluster.arrive.release;\n\tbarrier.cluster.wait.acquire;" ::: "memory");
    }
}

// Writes a number to the same place of the shared memory of another block of the cluster, or of this one.
__device__ inline unsigned int place_in_block(const void* place, int rank) {
    unsigned int there, own = static_cast<unsigned int>(__cvta_generic_to_shared(place));
    asm("mapa.shared::cluster.u32 %0, %1, %2;" : "=r"(there) : "r"(own), "r"(rank));
    return there;
}
template <int BLOCKS> __device__ inline void put_in_block(float* place, int rank, float x) {
    asm volatile("st.shared::cluster.f32 [%0], %1;" ::"r"(place_in_block(place, rank)), "f"(x) : "memory");
}
template <int BLOCKS> __device__ inline void put_in_block(double* place, int rank, double x) {
    asm volatile("st.shared::cluster.f64 [%0], %1;" ::"r"(place_in_block(place, rank)), "d"(x) : "memory");
}

// The sum over WIDTH neighbouring threads, a power of two, in each of them, to the same bit; all threads of a warp come
// here. The place is not used.
template <int WIDTH, class T> __device__ inline T sum_of_group(T*, T x) {
#pragma unroll
    for (int distance = WIDTH / 2; distance > 0; distance /= 2) x += __shfl_xor_sync(0xffffffffu, x, distance);
    return x;
}

}  // namespace recsolve

#endif

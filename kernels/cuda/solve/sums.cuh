// Sums over the segments of a solve, added up in double and rounded once.

#pragma once

#include "common/numbers.cuh"
#include "common/view.cuh"

namespace recsolve {

constexpr int SUM_PARTS = 8;      // of the segments, each taken by a warp
constexpr int SUM_THREADS = 256;  // of a block: SUM_PARTS warps

// Python reads this description and fills such a structure: fields are 64 bits wide.
struct SegmentSums {
    long long segments, count;
    long long from, to;  // addresses of (segments, count) in double, and of as many sums
};

template <class T> __global__ void __launch_bounds__(SUM_THREADS) add_segments(const SegmentSums p) {
    const long long lane = threadIdx.x % LANES, part = threadIdx.x / LANES;
    const long long i = static_cast<long long>(blockIdx.x) * LANES + lane;
    double sum = 0.0;
    if (i < p.count) {
        const double* from = address<const double>(p.from) + i;
#pragma unroll 8
        for (long long segment = part; segment < p.segments; segment += SUM_PARTS) sum += from[segment * p.count];
    }
    double* sums = reinterpret_cast<double*>(shared_memory());
    sums[threadIdx.x] = sum;
    __syncthreads();
    if (part > 0 || i >= p.count) return;
    for (int place = lane + LANES; place < SUM_THREADS; place += LANES) sum += sums[place];
    address<T>(p.to)[i] = static_cast<T>(sum);
}

}  // namespace recsolve

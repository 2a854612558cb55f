// Reads what a solve has written, once: whether these are the bits that it stored, all of them, and whether all is finite.

#pragma once

#include "solve/ring.cuh"

namespace recsolve {

// A block takes a segment of 32 lanes, its warps the times in turns.
template <class Cell, class S, int WARPS> __global__ void __launch_bounds__(WARPS* LANES) check_states(const Recurrence<Cell> p) {
    using T = typename Stored<S>::Number;
    using Lane = SolveLane<Cell, S>;
    unsigned int* sums = reinterpret_cast<unsigned int*>(shared_memory());
    const int warp = threadIdx.x / LANES, own = threadIdx.x % LANES;
    const long long segment = blockIdx.x / p.groups, first = segment * p.span, end = first + p.span;
    const long long last = p.segments == 1 || end > p.steps ? p.steps : end;
    const Lane lane(p, blockIdx.x % p.groups * LANES);
    unsigned int sum = 0, wrong = 0;
#pragma unroll 8
    for (long long t = first + warp; t < last; t += WARPS) {
#pragma unroll
        for (int i = 0; i < Cell::WRITTEN; ++i) {
            const S stored = lane.exists ? lane.written[i][t * p.written[i].time] : S();
            sum += word_of(stored) * (Lane::weight(t) + 2 * i);
            wrong |= !finite(Stored<S>::get(stored));
        }
    }
    sums[threadIdx.x] = sum;
    __syncthreads();
    int* counters = address<int>(p.counters);
    if (wrong && lane.exists) atomicAdd(counters + NOT_FINITE, 1);
    if (warp > 0 || !lane.exists) return;
    for (int i = 1; i < WARPS; ++i) sum += sums[i * LANES + own];
    const unsigned int told = address<unsigned int>(p.checks)[segment * p.lanes + lane.index];
    if (told != sum + static_cast<unsigned int>(p.ticket)) atomicAdd(counters + WRONG, 1);
}

}  // namespace recsolve

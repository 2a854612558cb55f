// Reads what a solve has written, once: whether these are the bits that it stored, all of them, whether all is finite, and
// how large it is.

#pragma once

#include "solve/ring.cuh"

namespace recsolve {

constexpr int AHEAD = 8;  // steps that a warp of the check reads together

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
    T largest = T(0);
    const auto take = [&](S stored, long long t, int i) {
        sum += word_of(stored) * (Lane::weight(t) + 2 * i);
        const T x = Stored<S>::get(stored);
        wrong |= !finite(x), largest = larger(largest, size_of(x));
    };
    long long t = first + warp;
    for (; t + (AHEAD - 1) * WARPS < last; t += AHEAD * WARPS) {
        S stored[AHEAD][Cell::WRITTEN];  // which are all on their way before the first is looked at
#pragma unroll
        for (int j = 0; j < AHEAD; ++j) {
#pragma unroll
            for (int i = 0; i < Cell::WRITTEN; ++i) {
                stored[j][i] = lane.exists ? lane.written[i][(t + j * WARPS) * p.written[i].time] : S();
            }
        }
#pragma unroll
        for (int j = 0; j < AHEAD; ++j) {
#pragma unroll
            for (int i = 0; i < Cell::WRITTEN; ++i) take(stored[j][i], t + j * WARPS, i);
        }
    }
    for (; t < last; t += WARPS) {
#pragma unroll
        for (int i = 0; i < Cell::WRITTEN; ++i) take(lane.exists ? lane.written[i][t * p.written[i].time] : S(), t, i);
    }
    sums[threadIdx.x] = sum;
    __syncthreads();
    int* counters = address<int>(p.counters);
    if (wrong && lane.exists) atomicAdd(counters + NOT_FINITE, 1);
    largest = largest_of_warp(reinterpret_cast<T*>(sums + WARPS * LANES) + warp, lane.exists ? largest : T(0));
    if (own == 0 && largest > T(0)) atomicMax(counters + LARGEST, bits_of(static_cast<float>(largest)));
    if (warp > 0 || !lane.exists) return;
    for (int i = 1; i < WARPS; ++i) sum += sums[i * LANES + own];
    const unsigned int told = address<unsigned int>(p.checks)[segment * p.lanes + lane.index];
    if (told != sum + static_cast<unsigned int>(p.ticket)) atomicAdd(counters + WRONG, 1);
}

}  // namespace recsolve

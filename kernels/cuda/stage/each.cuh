// Elementwise work between matrix products, at all times at once: a stage is a function of numbers in registers.
//
// A thread takes lanes (batch x units) one after the other, and every chunks-th time of each, so that neighbouring
// threads read neighbouring lanes, or neighbouring times where there are fewer lanes than threads.

#pragma once

#include "solve/problem.cuh"

namespace recsolve {

constexpr int THREADS = 256;  // of a block

// A lane by its place on each axis, which is found once for all arrays.
struct Place {
    long long at[AXES];

    __device__ Place(const long long* sizes, long long lane) {
#pragma unroll
        for (int axis = 0; axis < AXES; ++axis) {
            const long long next = lane == 0 || sizes[axis] == 1 ? lane : lane / sizes[axis];
            at[axis] = lane - next * sizes[axis];
            lane = next;
        }
    }

    // Where the number of the lane is, at the first time.
    template <class S> __device__ S* in(const View& view) const {
        long long offset = 0;
#pragma unroll
        for (int axis = 0; axis < AXES; ++axis) offset += at[axis] * view.lane[axis];
        return address<S>(view.at) + offset;
    }
};

// Python reads this description and fills such a structure: fields are 64 bits wide, or views.
template <class Stage> struct Elementwise {
    long long steps, lanes;
    long long sizes[AXES];  // of the axes of lanes, the innermost first
    long long chunks, blocks;
    View in[at_least_one<Stage::IN>];
    View out[Stage::OUT];
};

template <class Stage, class S> __global__ void __launch_bounds__(THREADS, 2) each(const Elementwise<Stage> p) {
    using T = typename Stored<S>::Number;
    const long long threads = p.blocks * blockDim.x;
    const long long own = static_cast<long long>(blockIdx.x) * blockDim.x + threadIdx.x;
    for (long long unit = own; unit < p.lanes * p.chunks; unit += threads) {
        const long long first = unit / p.lanes, lane = unit - first * p.lanes;
        const Place place(p.sizes, lane);
        const S* from[at_least_one<Stage::IN>];
        S* to[Stage::OUT];
#pragma unroll
        for (int i = 0; i < Stage::IN; ++i) from[i] = place.in<const S>(p.in[i]) + first * p.in[i].time;
#pragma unroll
        for (int i = 0; i < Stage::OUT; ++i) to[i] = place.in<S>(p.out[i]) + first * p.out[i].time;
        for (long long t = first; t < p.steps; t += p.chunks) {
            T a[at_least_one<Stage::IN>], b[Stage::OUT];
#pragma unroll
            for (int i = 0; i < Stage::IN; ++i) {
                a[i] = Stored<S>::get(*from[i]);
                from[i] += p.chunks * p.in[i].time;
            }
            Stage::template run<Full<T>>(a, b);
#pragma unroll
            for (int i = 0; i < Stage::OUT; ++i) {
                *to[i] = Stored<S>::put(b[i]);
                to[i] += p.chunks * p.out[i].time;
            }
        }
    }
}

}  // namespace recsolve

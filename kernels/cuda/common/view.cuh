// Where numbers lie in memory: views, which scans and solves share.

#pragma once

#include "common/device.cuh"

namespace recsolve {

constexpr int AXES = 6;    // of lanes, after those that can be merged have been
constexpr int LANES = 32;  // of a warp, and so of a tile at most: one warp holds its states

// Where the numbers of an array lie: address of the first, and distances in numbers.
struct View {
    long long at, time, row, column, lane[AXES];
};

template <class S> __device__ inline S* address(long long at) {
    return reinterpret_cast<S*>(at);
}

// Returns how far the numbers of a lane are from those of lane 0.
__device__ inline long long offset_of(const View& view, const long long* sizes, long long lane) {
    long long offset = 0;
#pragma unroll
    for (int axis = 0; axis < AXES; ++axis) {
        if (lane == 0) break;
        long long next = lane < sizes[axis] ? 0 : sizes[axis] == 1 ? lane : lane / sizes[axis];  // divisions are slow
        offset += (lane - next * sizes[axis]) * view.lane[axis];
        lane = next;
    }
    return offset;
}

}  // namespace recsolve

// One scan as the kernels see it. Python reads this description and fills it in: fields are 64 bits wide, or views.

#pragma once

#include "common/numbers.cuh"
#include "common/view.cuh"

namespace recsolve {

constexpr int INPUTS = 4;  // arrays of elements at most

struct Problem {
    long long steps, lanes;
    long long sizes[AXES];  // of the axes of lanes, the innermost first
    View in[INPUTS];        // elements: a matrix, then vectors
    View y;                 // the result
    View cut;               // bytes: which steps are cut from their past; at == 0: none
    View initial;           // the state before the first step, in the type of the arithmetic; at == 0: none

    // Tiles of lanes x time.
    long long width_log2;                     // lanes of a tile
    long long pitch;                          // distance of steps in shared memory
    long long by_time_in[INPUTS], by_time_y;  // whether times are nearer in memory than lanes
    long long tiles_of_time, tiles_of_lanes;
    long long ranges;  // into which tiles of time are divided where each block takes several
    long long told;    // address of what blocks tell each other
};

// The numbers of one element: a matrix by rows, then vectors.
template <class Map> struct Planes {
    static constexpr int K = Map::parts, E = Map::entries, COUNT = E + Map::vectors * K;

    __device__ static constexpr int input(int c) { return c < E ? 0 : (E > 0) + (c - E) / K; }
    static constexpr int ARRAYS = (E > 0) + Map::vectors;

    // The first plane of an array, and how many it has.
    __device__ static constexpr int first(int array) { return E > 0 && array == 0 ? 0 : E + (array - (E > 0)) * K; }
    __device__ static constexpr int count(int array) { return E > 0 && array == 0 ? E : K; }

    // How far plane c is from the first one of its array.
    __device__ static long long distance(const Problem& p, int c) {
        const View& view = p.in[input(c)];
        return c < E ? c / K * view.row + c % K * view.column : (c - E) % K * view.row;
    }
};

// Reads the state in which a lane starts; zeros where there is none, which are not looked at.
template <class T, int PARTS> __device__ inline void initial_state(const Problem& p, long long lane, T* x) {
    const T* from = p.initial.at ? address<const T>(p.initial.at) + offset_of(p.initial, p.sizes, lane) : nullptr;
#pragma unroll
    for (int i = 0; i < PARTS; ++i) x[i] = from ? from[i * p.initial.row] : T(0);
}

}  // namespace recsolve

// What all steps do to the state before them: one map for each lane, without the states in between.
//
// A block composes a range of tiles of its lanes, one after the other, and leaves one map; those of all ranges are then
// composed by a warp for each lane. So every number is read once, and next to nothing is written.

#pragma once

#include "scan/tile.cuh"

namespace recsolve {

// Leaves the maps of ranges: numbers [range][number][lane].
template <class Map, class S, bool CUT, int THREADS, int RUN, int V, int VECTOR, bool ALONG, int BLOCKS>
__global__ void __launch_bounds__(THREADS, BLOCKS) summary(const Problem p) {
    using T = typename Map::Number;
    Tile<Map, S, CUT, THREADS, RUN, V, VECTOR, ALONG> tile(p, Map::size * LANES);
    const int across = static_cast<int>(p.tiles_of_lanes), block = static_cast<int>(blockIdx.x);
    const int last = static_cast<int>(p.tiles_of_time * (block / across + 1) / p.ranges);
    int times = static_cast<int>(p.tiles_of_time * (block / across) / p.ranges);
    tile.turn_to(block % across, times);
    tile.find_lanes();
    __syncthreads();
#pragma unroll 1
    for (bool first = true; times < last; ++times, first = false) {
        tile.turn_to(block % across, times);
        tile.fetch();  // while the first threads still compose what warps have left: none of it is in the way
        Map whole = tile.compose();
        if (tile.thread >= tile.width) continue;
        T* before = tile.spare + tile.lane;  // registers are for the steps
        if (!first) whole.after(get<Map>(before, LANES));
        put(whole, before, LANES);
    }
    if (tile.thread < tile.width && tile.exists()) {
        const long long place = block / across * Map::size * p.lanes + tile.first_lane + tile.lane;
        put(get<Map>(tile.spare + tile.lane, LANES), address<T>(p.told) + place, p.lanes);
    }
}

// Composes the maps of ranges, a share of them in each thread, and then those of the threads.
template <class Map> __global__ void __launch_bounds__(LANES) together(const Problem p) {
    using T = typename Map::Number;
    const int thread = threadIdx.x;
    const long long each = (p.ranges + LANES - 1) / LANES, first = thread * each;
    const T* from = address<const T>(p.told) + blockIdx.x;
    Map map;
    map.identity();
#pragma unroll 4
    for (long long range = first; range < first + each && range < p.ranges; ++range) {
        Map next = get<Map>(from + range * Map::size * p.lanes, p.lanes);
        if (range > first) next.after(map);
        map = next;
    }
#pragma unroll 1
    for (int distance = 1; distance < LANES; distance *= 2) {
        const Map earlier = map_before(map, distance);
        if (thread >= distance && first < p.ranges) map.after(earlier);
    }
    const long long last = (p.ranges - 1) / each;
    if (thread == last) put(map, address<T>(p.y.at) + blockIdx.x, p.lanes);
}

}  // namespace recsolve

// Few lanes, long times: blocks take tiles as they come, and elements are read once (single-pass scan with decoupled
// look-back: Merrill and Garland, NVIDIA 2016).
//
// Tiles are handed out in order of time by a counter, so a block only ever waits for tiles that running blocks have. A
// tile first tells the map of all its steps, then the state after them. To find the state before its own steps a block
// searches the nearest tile that has told its state and applies the maps in between to it, in order. That is what these
// tiles do themselves, operation by operation, so results do not depend on who came first; composing the maps would not
// have this property, and would overflow sooner. Where a map cannot be trusted, the block waits for the state.
//
// All this waits for memory several times, so a block has four tiles on its belt: in every tick workers ask for the
// numbers of the first, compose the second and fill the fourth, while scouts look back for the third and a clerk takes
// the next ticket.

#pragma once

#include "scan/tile.cuh"

namespace recsolve {

enum Told { NOTHING, MAP, STATE };

// What the tiles of the same lanes tell each other.
template <class Tile> struct Chain {
    using Map = typename Tile::Map;
    using T = typename Map::Number;
    static constexpr int K = Map::parts;

    int* flags;            // [tile]
    T *aggregates, *ends;  // [tile][number][lane], [tile][part][lane]
    int width, lane;

    __device__ Chain(const Tile& tile, long long lanes) : width(tile.width), lane(tile.lane) {
        long long first = lanes * tile.p.tiles_of_time;
        flags = address<int>(tile.p.flags) + first;
        aggregates = address<T>(tile.p.aggregates) + first * Map::size * width;
        ends = address<T>(tile.p.states) + first * K * width;
    }

    __device__ Map map(long long tile) const { return get<Map>(aggregates + tile * Map::size * width + lane, width); }

    __device__ void state(long long tile, T* x) const {
#pragma unroll
        for (int k = 0; k < K; ++k) x[k] = ends[(tile * K + k) * width + lane];
    }

    // Called by a warp as a whole, whose thread of each lane `holds` what is told.
    __device__ void tell_map(long long tile, const Map& map, bool holds) const {
        if (holds) put(map, aggregates + tile * Map::size * width + lane, width);
        __syncwarp();
        if (holds && lane == 0) publish(flags + tile, MAP);
    }

    __device__ void tell_state(long long tile, const T* x, bool holds) const {
#pragma unroll
        for (int k = 0; k < K; ++k) {
            if (holds) ends[(tile * K + k) * width + lane] = x[k];
        }
        __syncwarp();
        if (holds && lane == 0) publish(flags + tile, STATE);
    }

    __device__ void wait(long long tile, Told what) const {
        while (observe(flags + tile) < what) pause();
    }
};

// Returns how many tiles before the last one a state has been told, where "tile -1" is the initial state.
template <int THREADS, class Tile> __device__ inline int nearest_state(Tile& tile, const int* flags, long long last) {
    int* nearest = tile.control + CONTROL - 1;
    for (;;) {
        if (tile.thread == 0) *nearest = THREADS;
        meet<SCOUTS, THREADS>();
        long long at = last - tile.thread;
        if (at == -1 || (at >= 0 && observe(flags + at) == STATE)) atomicMin(nearest, tile.thread);
        meet<SCOUTS, THREADS>();
        int found = *nearest;
        if (found == tile.thread) fence();
        meet<SCOUTS, THREADS>();
        if (found < THREADS) return found;
        pause();
    }
}

// Applies `count` maps, staged at a distance, to a state: TOGETHER at a time, for shared memory answers late.
template <int TOGETHER, class Tile>
__device__ inline void apply(const Chain<Tile>& chain, const typename Tile::T* staged, int distance, long long first,
                             int count, typename Tile::T* x) {
    using Map = typename Tile::Map;
    constexpr int K = Map::parts;
    typename Tile::T before[K], saved[K];
#pragma unroll 1
    for (int i = 0; i < count; i += TOGETHER) {
        Map maps[TOGETHER];
#pragma unroll
        for (int j = 0; j < TOGETHER; ++j) {
            if (i + j < count) maps[j] = get<Map>(staged + (i + j) * chain.width, distance);
        }
        bool trusted = true;
#pragma unroll
        for (int k = 0; k < K; ++k) saved[k] = x[k];
#pragma unroll
        for (int j = 0; j < TOGETHER; ++j) {
            if (i + j >= count) break;
#pragma unroll
            for (int k = 0; k < K; ++k) before[k] = x[k];
            maps[j].act(x);
            trusted &= maps[j].trusts(before, x);
        }
        if (trusted) continue;
#pragma unroll
        for (int k = 0; k < K; ++k) x[k] = saved[k];
#pragma unroll 1
        for (int j = i; j < i + TOGETHER && j < count; ++j) {
#pragma unroll
            for (int k = 0; k < K; ++k) before[k] = x[k];
            Map map = get<Map>(staged + j * chain.width, distance);
            map.act(x);
            if (map.trusts(before, x)) continue;
            chain.wait(first + j, STATE);
            fence();
            chain.state(first + j, x);
        }
    }
}

// The state of a lane after a tile as other blocks reckon it; false if the map cannot be trusted.
template <class Tile> __device__ inline bool reckon(const Tile& tile, typename Tile::T* end) {
    using Map = typename Tile::Map;
    typename Tile::T before[Map::parts];
    tile.read(tile.carry, before);
    tile.read(tile.carry, end);
    Map whole = get<Map>(tile.whole + tile.lane, LANES);
    whole.act(end);
    return whole.trusts(before, end);
}

// Puts the state before a tile into its carry, and tells the one after it if its map can be trusted.
template <int THREADS, int BATCH, class Tile> __device__ inline void look_back(Tile& tile, const Spot& spot) {
    using Map = typename Tile::Map;
    using T = typename Map::Number;
    constexpr int DISTANCE = THREADS * BATCH, TOGETHER = Map::size <= 3 ? 4 : 1;
    const Chain<Tile> chain(tile, spot.lanes);
    const int runs = THREADS / tile.width, next = spot.times;
    const bool holds = tile.thread < tile.width;  // the state of a lane
    const int from = next - 1 - nearest_state<THREADS>(tile, chain.flags, next - 1);
    T x[Map::parts];
    if (holds && from < 0) tile.read(tile.start, x);
    if (holds && from >= 0) chain.state(from, x);
#pragma unroll 1
    for (int first = from + 1; first < next; first += runs * BATCH) {
        const int mine = first + tile.run;
#pragma unroll
        for (int i = 0; i < BATCH; ++i) {
            if (mine + i * runs < next) chain.wait(mine + i * runs, MAP);
        }
        fence();
        Map maps[BATCH];  // all of them are under way at once
#pragma unroll
        for (int i = 0; i < BATCH; ++i) {
            if (mine + i * runs < next) maps[i] = chain.map(mine + i * runs);
        }
#pragma unroll
        for (int i = 0; i < BATCH; ++i) {
            if (mine + i * runs < next) put(maps[i], tile.spare + i * THREADS + tile.thread, DISTANCE);
        }
        meet<SCOUTS, THREADS>();
        const int count = next - first < runs * BATCH ? next - first : runs * BATCH;
        if (holds) apply<TOGETHER>(chain, tile.spare + tile.lane, DISTANCE, first, count, x);
        meet<SCOUTS, THREADS>();
    }
    if (tile.thread >= LANES) return;
    bool trusted = true;
    T end[Map::parts];
    if (holds) {
        tile.write(tile.carry, x);
        trusted = reckon(tile, end);
        if (!trusted) atomicMax(tile.doubts + 1, 1);
    }
    __syncwarp();
    const bool late = tile.doubts[1], ends = next + 1 == tile.p.tiles_of_time;
    if (!late && !ends) chain.tell_state(next, end, holds);
}

// Fills a tile and stores it, and tells the state after it if that has been in doubt.
template <class Tile> __device__ inline void finish(Tile& tile, const Spot& spot) {
    tile.fill();
    tile.store();
    if (!tile.doubts[1] || spot.times + 1 == tile.p.tiles_of_time || tile.thread >= LANES) return;
    typename Tile::T end[Tile::K];
    const bool holds = tile.thread < tile.width;
    if (holds && !reckon(tile, end)) tile.last(end);
    Chain<Tile>(tile, spot.lanes).tell_state(spot.times, end, holds);
}

template <class Map, class S, int THREADS, int RUN, int VECTOR, int SCOUTING, int BATCH>
__global__ void __launch_bounds__(THREADS + SCOUTING + LANES, 1) chained(const Problem p) {
    if (p.condition && *address<const int>(p.condition) == 0) return;
    using Belt = Tile<Map, S, THREADS, RUN, VECTOR, 4>;
    Belt tile(p, Map::size * SCOUTING * BATCH);
    const int thread = threadIdx.x;
    const bool works = thread < THREADS, scouts = !works && thread < THREADS + SCOUTING, keeps = !works && !scouts;
    const int own = works ? thread : scouts ? thread - THREADS : thread - THREADS - SCOUTING;
    const int across = static_cast<int>(p.tiles_of_lanes), along = static_cast<int>(p.tiles_of_time);
    constexpr int PLACES = Belt::PLACES;
    int* tickets = tile.control;  // -1 for none

    auto tile_of = [&](int tick) {
        const int ticket = tickets[tick & (PLACES - 1)];
        return Spot{tick & 3, tick & (PLACES - 1), ticket % across, ticket < 0 ? along : ticket / across};
    };
    auto take_ticket = [&](int tick) {
        if (own == 0) tickets[tick & (PLACES - 1)] = atomicAdd(address<int>(p.ticket), 1);
        __syncwarp();
        const Spot spot = tile_of(tick);
        tile.turn_to(spot, own);
        if (spot.times < along) tile.find_lanes(LANES);
    };

    if (keeps && own < PLACES) tickets[own] = -1;
    __syncwarp();
    if (keeps) take_ticket(0);
    for (int tick = 0;; ++tick) {
        // Twice for racecheck, which loses sight of a barrier that some warps reach from one of their own.
        __syncthreads();
        __syncthreads();
        const Spot first = tile_of(tick), second = tile_of(tick - 1), third = tile_of(tick - 2), fourth = tile_of(tick - 3);
        if (first.times >= along && second.times >= along && third.times >= along && fourth.times >= along) return;
        if (keeps) take_ticket(tick + 1);
        if (scouts && third.times < along) {
            tile.turn_to(third, own);
            look_back<SCOUTING, BATCH>(tile, third);
        }
        if (!works) continue;
        if (first.times < along) {
            tile.turn_to(first, own);
            tile.ask();
        }
        commit_copies();
        if (fourth.times < along) {
            tile.turn_to(fourth, own);
            finish(tile, fourth);
        }
        wait_copies<1>();
        meet<WORKERS, THREADS>();
        if (second.times < along) {
            tile.turn_to(second, own);
            tile.compose();
            if (own >= THREADS - LANES && second.times + 1 < along) {
                const Map whole = get<Map>(tile.whole + tile.lane, LANES);
                Chain<Belt>(tile, second.lanes).tell_map(second.times, whole, own >= THREADS - tile.width);
            }
        }
    }
}

}  // namespace recsolve

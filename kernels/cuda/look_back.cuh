// Few lanes, long times: every block takes one tile, and elements are read once (single-pass scan with decoupled
// look-back: Merrill and Garland, NVIDIA 2016).
//
// Tiles are handed out in order of time by a counter, so a block only ever waits for blocks that are already running.
// A tile first tells the map of all its steps, then the state after them. To find the state before its own steps a
// block searches the nearest tile that has told its state and applies the maps in between to it, in order. That is what
// these tiles do themselves, operation by operation, so results do not depend on who came first; composing the maps
// would not have this property, and would overflow sooner. Where a map cannot be trusted, the block waits for the
// state.

#pragma once

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

    // Called by the first warp as a whole, which holds all lanes of a tile.
    __device__ void tell(long long tile, Told what) {
        __syncwarp();
        if (threadIdx.x == 0) publish(flags + tile, what);
    }

    __device__ void tell_map(long long tile, const Map& map) {
        if (threadIdx.x < width) put(map, aggregates + tile * Map::size * width + lane, width);
        tell(tile, MAP);
    }

    __device__ void tell_state(long long tile, const T* x) {
        if (threadIdx.x < width) {
#pragma unroll
            for (int k = 0; k < K; ++k) ends[(tile * K + k) * width + lane] = x[k];
        }
        tell(tile, STATE);
    }

    __device__ void wait(long long tile, Told what) const {
        while (observe(flags + tile) < what) pause();
        acquire();
    }
};

// Returns how many tiles before the last one a state has been told, where "tile -1" is the initial state.
template <int THREADS, class Tile> __device__ inline int nearest_state(Tile& tile, const int* flags, long long last) {
    const int own = threadIdx.x;
    for (;;) {
        if (own == 0) tile.control[1] = THREADS;
        __syncthreads();
        long long at = last - own;
        if (at == -1 || (at >= 0 && observe(flags + at) == STATE)) atomicMin(tile.control + 1, own);
        __syncthreads();
        int nearest = tile.control[1];
        if (nearest == own) acquire();
        __syncthreads();
        if (nearest < THREADS) return nearest;
        pause();
    }
}

// Puts the state before tile `next` into its carry.
template <int THREADS, int BATCH, class Tile>
__device__ inline void look_back(Tile& tile, const Chain<Tile>& chain, long long next) {
    using Map = typename Tile::Map;
    using T = typename Map::Number;
    T* staged = tile.maps + Map::size * THREADS;
    constexpr int DISTANCE = THREADS * BATCH;
    const int runs = THREADS / tile.width;
    long long from = next - 1 - nearest_state<THREADS>(tile, chain.flags, next - 1);
    T x[Map::parts], before[Map::parts];
    bool holds = threadIdx.x < tile.width;  // the state of a lane
    if (holds && from < 0) tile.initial(x);
    if (holds && from >= 0) chain.state(from, x);
    for (long long first = from + 1; first < next; first += runs * BATCH) {
#pragma unroll
        for (int i = 0; i < BATCH; ++i) {
            long long at = first + i * runs + tile.run;
            if (at >= next) break;
            chain.wait(at, MAP);
            put(chain.map(at), staged + i * THREADS + threadIdx.x, DISTANCE);
        }
        __syncthreads();
        for (int i = 0; holds && i < runs * BATCH && first + i < next; ++i) {
#pragma unroll
            for (int k = 0; k < Map::parts; ++k) before[k] = x[k];
            Map map = get<Map>(staged + i * tile.width + tile.lane, DISTANCE);
            map.act(x);
            if (!map.trusts(before, x)) {
                chain.wait(first + i, STATE);
                chain.state(first + i, x);
            }
        }
        __syncthreads();
    }
    if (holds) tile.set_carry(x);
    __syncthreads();
}

template <class Map, class S, int THREADS, int RUN, int BATCH>
__global__ void __launch_bounds__(THREADS, Map::parts == 1 ? 5 : 2) chained(const Problem p) {
    using T = typename Map::Number;
    using Block = Tile<Map, S, THREADS, RUN>;
    Block tile(p, BATCH);
    if (threadIdx.x == 0) tile.control[0] = atomicAdd(address<int>(p.ticket), 1);
    __syncthreads();
    const int ticket = tile.control[0], lanes = static_cast<int>(p.tiles_of_lanes);
    const long long own = ticket / lanes;
    const bool first_warp = threadIdx.x < LANES, ends = own + 1 == p.tiles_of_time;
    tile.choose_lanes(static_cast<long long>(ticket % lanes) * tile.width);
    Chain<Block> chain(tile, ticket % lanes);
    tile.choose_steps(own * tile.span);
    tile.load();
    tile.compose_runs(tile.compose_run());
    if (first_warp && !ends) chain.tell_map(own, tile.whole());
    look_back<THREADS, BATCH>(tile, chain, own);

    // The state after the tile, as other blocks reckon it; told before the tile is walked wherever it can be.
    T before[Map::parts], end[Map::parts];
    bool trusted = true;
    if (threadIdx.x < tile.width) {
        Map whole = tile.whole();
        tile.get_carry(before);
        tile.get_carry(end);
        whole.act(end);
        trusted = whole.trusts(before, end);
    }
    const bool late = __syncthreads_or(!trusted);
    if (first_warp && !late && !ends) chain.tell_state(own, end);
    tile.fill();
    tile.store();
    if (first_warp && late && !ends) {
        if (!trusted) tile.last(end);
        chain.tell_state(own, end);
    }
}

}  // namespace recsolve

// A tile: some lanes x a span of time, in the shared memory of a block.
//
// Numbers are brought in as they lie in memory, whichever of lanes and times is nearer, VECTOR of them at once: lanes, or
// the times of the only lane if ALONG. Each of THREADS threads then composes RUN consecutive steps of V lanes, and walks
// through them again from the states in which they start. RUN is odd across lanes, with a gap it is along one, so that the
// threads of a warp meet different banks.

#pragma once

#include "scan/maps.cuh"

namespace recsolve {

template <int N> constexpr int LOG2 = 1 + LOG2<N / 2>;
template <> constexpr int LOG2<1> = 0;

constexpr int FAR = 1 << 30;  // how far a lane must look back for a state, as long as that is not known

// The map of the thread `distance` before this one in its warp; the thread's own where there is none.
template <class Map> __device__ inline Map map_before(const Map& map, int distance) {
    Map earlier;
#pragma unroll
    for (int i = 0; i < COMPOSED<Map>; ++i) earlier.a[i] = of_thread_before(map.a[i], distance);
#pragma unroll
    for (int i = 0; i < Map::parts; ++i) earlier.b[i] = of_thread_before(map.b[i], distance);
    earlier.constant = of_thread_before(static_cast<int>(map.constant), distance);
    return earlier;
}

template <class Map_, class S_, bool CUT, int THREADS_, int RUN, int V, int VECTOR, bool ALONG> struct Tile {
    using Map = Map_;
    using S = S_;
    using T = typename Map::Number;
    using Numbers = Planes<Map>;
    static constexpr int THREADS = THREADS_, WARPS = THREADS / LANES;
    static constexpr int E = Map::entries, K = Map::parts, PLANES = Numbers::COUNT;
    static constexpr int WORDS = PLANES * V * (sizeof(S) > 4 ? 2 : 1), FITTING = WORDS < 32 ? 32 / WORDS : 1;
    static constexpr int GROUP = ALONG ? VECTOR : FITTING < RUN ? FITTING : RUN;  // steps that are read at once
    enum { OF_Y = INPUTS, OF_CUT, ARRAYS };

    const Problem& p;
    const int thread, width, across;  // lanes of the tile, threads side by side
    const int span, pitch, plane;     // steps; numbers between steps, and of a plane, in shared memory
    const int lane;                   // where threads look after a lane each
    const int place, run;             // the first lane that this thread walks, and which run
    int times, steps, own;            // the index of the tile; steps that exist, of the tile and of this run
    long long first_lane, first_step;

    long long* offsets;  // [array][lane]
    int* control;        // [lane]: how far back a state is
    T *start, *carry;    // [part][lane]: the initial state and that before the tile
    T *totals, *begun;   // [warp][number][lane]: maps of warps; [warp][part][lane]: states before them, and if they are known
    T* spare;            // room for other purposes
    S* numbers;          // [number][step][lane], or with a gap of VECTOR after each run along the only lane
    unsigned char* cuts;

    // `spare_numbers` are left for other purposes.
    __device__ Tile(const Problem& problem, int spare_numbers)
        : p(problem), thread(threadIdx.x), width(1 << p.width_log2), across(width / V),
          span(THREADS * RUN * V >> p.width_log2), pitch(static_cast<int>(p.pitch)),
          plane(ALONG ? THREADS * (RUN + VECTOR) : span * pitch), lane(thread & (width - 1)),
          place((thread & (across - 1)) * V), run(thread >> (p.width_log2 - LOG2<V>)) {
        offsets = reinterpret_cast<long long*>(shared_memory());
        control = reinterpret_cast<int*>(offsets + ARRAYS * LANES);
        start = reinterpret_cast<T*>(control + LANES), carry = start + K * LANES, totals = carry + K * LANES;
        begun = totals + WARPS * Map::size * LANES, spare = begun + WARPS * (K + 1) * LANES;
        numbers = reinterpret_cast<S*>(spare + spare_numbers);
        cuts = reinterpret_cast<unsigned char*>(numbers + PLANES * plane);
    }

    __device__ void turn_to(long long tile_of_lanes, int tile_of_time) {
        times = tile_of_time;
        first_lane = tile_of_lanes << p.width_log2;
        first_step = static_cast<long long>(times) * span;
        steps = static_cast<int>(p.steps - first_step < span ? p.steps - first_step : span);
        const int left = steps - run * RUN;
        own = first_lane + place >= p.lanes || left < 0 ? 0 : left < RUN ? left : RUN;
    }

    // Finds out where the lanes are, and in which states they start. All threads must meet before that is used.
    __device__ void find_lanes() {
        for (int i = thread; i < ARRAYS * width; i += THREADS) {
            const int array = i >> p.width_log2, at = i & (width - 1);
            const View& view = array < INPUTS ? p.in[array] : array == OF_Y ? p.y : p.cut;
            const bool used = first_lane + at < p.lanes && (array < INPUTS ? p.in[array].at : array == OF_Y || CUT);
            offsets[array * LANES + at] = used ? offset_of(view, p.sizes, first_lane + at) : 0;
        }
        if (thread >= width) return;
        T x[K] = {};
        if (exists()) initial_state<T, K>(p, first_lane + lane, x);
        write(start, x);
        control[lane] = exists() ? FAR : 0;
    }

    __device__ bool exists() const { return first_lane + lane < p.lanes; }

    // Brings in the numbers of the tile.
    __device__ void fetch() {
        constexpr int UNROLL = sizeof(S) * VECTOR < 4 ? RUN : 4;  // what is not copied asynchronously waits in registers
#pragma unroll
        for (int c = 0; c < PLANES; ++c) {
            const int array = Numbers::input(c);
            const S* from = address<const S>(p.in[array].at) + Numbers::distance(p, c);
            S* to = numbers + c * plane;
            each<VECTOR, UNROLL>(array, p.in[array], p.by_time_in[array], steps, [=](int at, long long distance) {
                copy_async<VECTOR>(to + at, from + distance);
            });
        }
        if (CUT) {
            const unsigned char* from = address<const unsigned char>(p.cut.at);
            unsigned char* to = cuts;
            each<1, RUN>(OF_CUT, p.cut, p.by_time_y, steps, [=](int at, long long distance) { to[at] = from[distance]; });
        }
        commit_copies();
        wait_copies<0>();
        __syncthreads();
    }

    // Writes the states, which have taken the place of the first vector.
    __device__ void store() const {
        __syncthreads();
#pragma unroll
        for (int k = 0; k < K; ++k) {
            S* to = address<S>(p.y.at) + k * p.y.row;
            const S* from = numbers + (E + k) * plane;
            each<VECTOR, 4>(OF_Y, p.y, p.by_time_y, steps,
                            [=](int at, long long distance) { copy<VECTOR>(to + distance, from + at); });
        }
    }

    __device__ void read(const T* from, T* x) const { read(from, lane, x); }
    __device__ void write(T* to, const T* x) const { write(to, lane, x); }

    // Composes all steps in warps, as Hillis and Steele (1986) do; returns the map of the tile to the first threads, one for
    // each lane.
    __device__ Map compose() {
        Map map[V];
        compose_run(map);
#pragma unroll 1
        for (int distance = across; distance < LANES; distance *= 2) {
#pragma unroll
            for (int v = 0; v < V; ++v) {
                const Map earlier = map_before(map[v], distance);
                if (thread % LANES >= distance) map[v].after(earlier);
            }
        }
#pragma unroll
        for (int v = 0; v < V; ++v) {
            before[v] = map_before(map[v], across);
            if (thread % LANES >= LANES - across) put(map[v], totals + thread / LANES * Map::size * LANES + place + v, LANES);
        }
        __syncthreads();
        Map whole;
        whole.identity();
        if (thread >= width) return whole;
        whole = of_warp(0);
#pragma unroll 2
        for (int warp = 1; warp < WARPS; ++warp) {
            Map next = of_warp(warp);
            next.after(whole);
            whole = next;
        }
        return whole;
    }

    // Leaves the states before all warps, from that before the tile on. Called by the first threads, one for each lane.
    __device__ void spread() {
        T x[K], was[K];
        read(carry, x);
        bool known = true;
#pragma unroll 2
        for (int warp = 0; warp < WARPS; ++warp) {
            T* to = begun + warp * (K + 1) * LANES;
            write(to, x);
            to[K * LANES + lane] = T(known);
#pragma unroll
            for (int k = 0; k < K; ++k) was[k] = x[k];
            const Map map = of_warp(warp);
            map.act(x);
            known &= map.trusts(was, x);
        }
    }

    // Walks through the tile, and leaves its last states in the carry if that is `asked` by all. A run whose first state
    // cannot be trusted waits for the run before it, in its own lane only: what goes before it, and other lanes, never change.
    __device__ void fill(bool asked) {
        bool sure[V], late[V], all = true;
#pragma unroll
        for (int v = 0; v < V; ++v) sure[v] = reach_run(v), late[v] = !sure[v], all &= sure[v];
        walk(sure);
        const bool waits = __syncthreads_or(!all);
        if (!waits && !asked) return;
#pragma unroll 1
        for (int turn = waits ? 0 : (steps - 1) / RUN; turn * RUN < steps; ++turn) {
            if (run == turn && own > 0) {
#pragma unroll
                for (int v = 0; v < V; ++v) {
                    if (late[v]) read(carry, place + v, x[v]);
                }
                if (!all) walk(late);
#pragma unroll
                for (int v = 0; v < V; ++v) write(carry, place + v, x[v]);
            }
            __syncthreads();
        }
    }

private:
    T x[V][K];      // first before, then after this run
    Map before[V];  // of the runs before this one in its warp

    // The map of a lane, one for each of the first threads, over all runs of a warp.
    __device__ Map of_warp(int warp) const { return get<Map>(totals + warp * Map::size * LANES + lane, LANES); }

    __device__ static void read(const T* from, int of_lane, T* x) {
#pragma unroll
        for (int k = 0; k < K; ++k) x[k] = from[k * LANES + of_lane];
    }
    __device__ static void write(T* to, int of_lane, const T* x) {
#pragma unroll
        for (int k = 0; k < K; ++k) to[k * LANES + of_lane] = x[k];
    }

    // Where a number is in a plane.
    __device__ int at(int step, int of_lane) const {
        return ALONG ? step + static_cast<int>(static_cast<unsigned int>(step) / RUN) * VECTOR : step * pitch + of_lane;
    }

    // Calls visit(place, distance from the first number of the array) for all numbers of a plane that are in so many steps,
    // COUNT contiguous ones at a time, in order of memory.
    template <int COUNT, int UNROLL, class Visit>
    __device__ void each(int array, const View& view, bool by_time, long long existing, Visit visit) const {
        constexpr int LOG = LOG2<COUNT>;
        const long long lowest = ALONG && view.time < 0 ? (COUNT - 1) * view.time : 0;
#pragma unroll UNROLL
        for (int i = 0; i < (RUN * V + COUNT - 1) / COUNT; ++i) {
            const int n = i * THREADS + thread;
            const int of_lane = ALONG ? 0 : by_time ? n / span : (n << LOG) & (width - 1);
            const int step = ALONG ? n << LOG : by_time ? n - of_lane * span : n >> (p.width_log2 - LOG);
            if (step < span && step < existing && first_lane + of_lane < p.lanes) {
                visit(at(step, of_lane), offsets[array * LANES + of_lane] + (first_step + step) * view.time + lowest);
            }
        }
    }

    // GROUP steps of this thread's lanes, `left` of which are in its run, in the order of time.
    __device__ void take(const S* from, bool backwards, int left, S (*to)[V]) const {
        constexpr int COUNT = ALONG ? VECTOR : V;
        Vector<S, COUNT> some;
#pragma unroll
        for (int j = 0; j < GROUP; ++j) {
            if (j >= left) return;
            if (!ALONG || j == 0) copy<COUNT>(some.numbers, from + j * pitch);
#pragma unroll
            for (int v = 0; v < V; ++v) to[j][v] = some.numbers[ALONG ? j : v];
            if (ALONG && backwards) to[j][0] = some.numbers[ALONG ? VECTOR - 1 - j : 0];
        }
    }
    __device__ void give(S* to, bool backwards, int left, const S (*from)[V]) const {
        constexpr int COUNT = ALONG ? VECTOR : V;
        Vector<S, COUNT> some;
#pragma unroll
        for (int j = 0; j < GROUP; ++j) {
            if (j >= left) return;
#pragma unroll
            for (int v = 0; v < V; ++v) some.numbers[ALONG ? j : v] = from[j][v];
            if (ALONG && backwards) some.numbers[ALONG ? j : 0] = from[ALONG ? VECTOR - 1 - j : 0][0];
            if (!ALONG || j == GROUP - 1) copy<COUNT>(to + (ALONG ? 0 : j * pitch), some.numbers);
        }
    }

    // Calls visit(step, v, element, cut) for all steps and lanes of this thread; x[v] becomes the state of a step if that is true.
    template <bool WRITES, class Visit> __device__ void each_step(Visit visit) {
        const bool starts = first_step + run == 0 && !p.initial.at;
#pragma unroll
        for (int i = 0; i < RUN; i += GROUP) {
            if (i >= own) break;
            const int from = at(run * RUN, place) + i * pitch, left = RUN - i;
            S held[PLANES][GROUP][V];
#pragma unroll
            for (int c = 0; c < PLANES; ++c) take(numbers + c * plane + from, p.in[Numbers::input(c)].time < 0, left, held[c]);
#pragma unroll
            for (int j = 0; j < GROUP && j < left; ++j) {
                if (i + j >= own) break;
#pragma unroll
                for (int v = 0; v < V; ++v) {
                    T element[PLANES];
#pragma unroll
                    for (int c = 0; c < PLANES; ++c) element[c] = Stored<S>::get(held[c][j][v]);
                    const bool cut = (CUT && cuts[from + j * pitch + v]) || (i + j == 0 && starts);
                    const bool moves = visit(i + j, v, element, cut);
                    if constexpr (WRITES) {
#pragma unroll
                        for (int k = 0; k < K; ++k) {
                            if (moves) held[E + k][j][v] = Stored<S>::put(x[v][k]);
                        }
                    }
                }
            }
            if constexpr (WRITES) {
#pragma unroll
                for (int k = 0; k < K; ++k) give(numbers + (E + k) * plane + from, p.y.time < 0, left, held[E + k]);
            }
        }
    }

    __device__ void compose_run(Map* map) {
        T x0[V][K];
#pragma unroll
        for (int v = 0; v < V; ++v) map[v].identity(), read(start, place + v, x0[v]);
        each_step<false>([&](int i, int v, const T* element, bool cut) {
            if (i == 0) map[v].begin(element, element + E, cut, x0[v]);
            if (i > 0) map[v].then(element, element + E, cut, x0[v]);
            return false;
        });
    }

    // Finds the state of a lane before this run; false if it cannot be trusted.
    __device__ bool reach_run(int v) {
        const T* from = begun + thread / LANES * (K + 1) * LANES;
        T was[K];
        read(from, place + v, was);
        read(from, place + v, x[v]);
        const bool known = from[K * LANES + place + v] != T(0);
        if (own == 0 || thread % LANES < across) return known || own == 0;
        before[v].act(x[v]);
        return known && before[v].trusts(was, x[v]);
    }

    // Walks some lanes of this run with the original elements. Those of other lanes are written back as they are, which
    // is right across lanes only: along one they would be turned around where time runs backwards in one array alone.
    __device__ void walk(const bool* some) {
        if (ALONG && !some[0]) return;
        T x0[V][K];
#pragma unroll
        for (int v = 0; v < V; ++v) read(start, place + v, x0[v]);
        each_step<true>([&](int, int v, const T* element, bool cut) {
            if (some[v]) Map::step(element, element + E, cut, x0[v], x[v]);
            return some[v];
        });
    }
};

// Tiny problems: a block takes some lanes through all of time, a tile after the other.
template <class Map, class S, bool CUT, int THREADS, int RUN, int V, int VECTOR, bool ALONG, int BLOCKS>
__global__ void __launch_bounds__(THREADS, BLOCKS) tiny(const Problem p) {
    Tile<Map, S, CUT, THREADS, RUN, V, VECTOR, ALONG> tile(p, 0);
    for (int times = 0; times < p.tiles_of_time; ++times) {
        tile.turn_to(blockIdx.x, times);
        if (times == 0) tile.find_lanes();
        __syncthreads();
        typename Map::Number x[Map::parts];
        if (times == 0 && tile.thread < tile.width) tile.read(tile.start, x), tile.write(tile.carry, x);
        tile.fetch();
        tile.compose();
        if (tile.thread < tile.width) tile.spread();
        __syncthreads();
        tile.fill(true);
        tile.store();
    }
}

}  // namespace recsolve

// A tile: some lanes x a span of time, in the shared memory of a block, which has SLOTS of them at a time.
//
// Each of THREADS workers has a run of RUN consecutive steps of one lane. Numbers are brought in as they lie in memory,
// whichever of lanes and times is nearer, VECTOR of them at once; composed run by run; and walked again from the states
// in which the runs start.

#pragma once

#include "scan/maps.cuh"

namespace recsolve {

template <int N> constexpr int LOG2 = 1 + LOG2<N / 2>;
template <> constexpr int LOG2<1> = 0;

enum { WORKERS = 1, SCOUTS };  // the numbers of their barriers
constexpr int CONTROL = 20;    // ints of a block, a multiple of 16 bytes

// Which tile is in a slot.
struct Spot {
    int slot, place;   // of its numbers and maps; of what is known of its lanes
    int lanes, times;  // its indices among the tiles
};

template <class Map_, class S_, int THREADS, int RUN, int VECTOR, int SLOTS> struct Tile {
    using Map = Map_;
    using S = S_;
    using T = typename Map::Number;
    using Numbers = Planes<Map>;
    static constexpr int E = Map::entries, K = Map::parts, PLANES = Numbers::COUNT;
    static constexpr int STATES = K + Map::size;      // rows of lanes that a slot has
    static constexpr int PLACES = SLOTS == 1 ? 1 : 8;  // a power of two, more than slots
    enum { OF_Y = INPUTS, OF_CUT, ARRAYS };

    const Problem& p;
    int width, span, padding, plane;  // lanes, steps, numbers between runs and of a plane in shared memory
    int thread, lane, run;

    // Of the tile that is worked on.
    int steps, own;  // steps that exist, of the tile and of this thread's run
    bool exists;     // this thread's lane
    long long first_lane, first_step;
    long long* offsets;        // [array][lane]
    T *start, *carry, *whole;  // [part][lane]: the initial state and that before the tile; its map: [number][lane]
    T* maps;                   // [number][thread]
    S* numbers;                // [number][place]
    unsigned char* cuts;       // [place]
    int* doubts;               // whether some run, and the map of the tile, cannot be trusted

    // Of all.
    int* control;  // numbers that all threads see: PLACES of them free, then doubts, then the nearest state
    T* spare;      // what is left of the shared memory

    // `spare_numbers` are left for other purposes.
    __device__ Tile(const Problem& problem, int spare_numbers) : p(problem) {
        width = 1 << p.width_log2;
        span = THREADS * RUN >> p.width_log2;
        padding = width < LANES ? width : 0;
        plane = span * static_cast<int>(p.pitch) + (padding ? THREADS : 0);
        all_offsets = reinterpret_cast<long long*>(shared_memory());
        control = reinterpret_cast<int*>(all_offsets + PLACES * ARRAYS * LANES);
        all_starts = reinterpret_cast<T*>(control + CONTROL);
        all_states = all_starts + PLACES * K * LANES;
        all_maps = all_states + SLOTS * STATES * LANES;
        spare = all_maps + SLOTS * Map::size * THREADS;
        all_numbers = reinterpret_cast<S*>(spare + spare_numbers);
        all_cuts = reinterpret_cast<unsigned char*>(all_numbers + SLOTS * PLANES * plane);
    }

    // Turns to a tile; `index` is that of the thread among workers, or among others.
    __device__ void turn_to(const Spot& spot, int index) {
        thread = afresh(index);
        lane = thread & (width - 1), run = thread >> p.width_log2;
        offsets = all_offsets + spot.place * ARRAYS * LANES;
        start = all_starts + spot.place * K * LANES;
        carry = all_states + spot.slot * STATES * LANES, whole = carry + K * LANES;
        maps = all_maps + spot.slot * Map::size * THREADS;
        numbers = all_numbers + spot.slot * PLANES * plane;
        cuts = all_cuts + spot.slot * plane;
        doubts = control + PLACES + 2 * spot.slot;
        first_lane = static_cast<long long>(spot.lanes) << p.width_log2;
        first_step = static_cast<long long>(spot.times) * span;
        exists = first_lane + lane < p.lanes;
        steps = static_cast<int>(p.steps - first_step < span ? p.steps - first_step : span);
        int left = steps - run * RUN;
        own = !exists || left < 0 ? 0 : left < RUN ? left : RUN;
    }

    // Finds out where the lanes of the tile are; `threads` of this kind do so and must meet before it is used.
    __device__ void find_lanes(int threads) {
        for (int i = thread; i < ARRAYS * width; i += threads) {
            int array = i >> p.width_log2, at = i & (width - 1);
            const View& view = array < INPUTS ? p.in[array] : array == OF_Y ? p.y : p.cut;
            bool used = first_lane + at < p.lanes && (array < INPUTS ? p.in[array].at : array == OF_Y || p.cut.at);
            offsets[array * LANES + at] = used ? offset_of(view, p.sizes, first_lane + at) : 0;
        }
        if (thread < width) {
            T x[K] = {};
            if (exists) initial_state<T, K>(p, first_lane + lane, x);
            write(start, x);
        }
    }

    // Runs start at distances that put the threads of a warp on different banks.
    __device__ int place(int step, int of_lane) const {
        return step * static_cast<int>(p.pitch) + static_cast<int>(static_cast<unsigned int>(step) / RUN) * padding +
               of_lane;
    }

    // Calls visit(place, distance from the first number of the array) for all numbers of a plane, COUNT contiguous ones
    // at a time, in order of memory.
    template <int COUNT, int UNROLL, class Visit>
    __device__ void each(int array, const View& view, bool by_time, Visit visit) const {
        constexpr int LOG = LOG2<COUNT>;
#pragma unroll UNROLL
        for (int i = 0; i < RUN / COUNT; ++i) {
            int n = i * THREADS + thread;
            int of_lane = by_time ? n / span : (n << LOG) & (width - 1);
            int step = by_time ? n - of_lane * span : n >> (p.width_log2 - LOG);
            if (step < steps && first_lane + of_lane < p.lanes) {
                visit(place(step, of_lane), offsets[array * LANES + of_lane] + (first_step + step) * view.time);
            }
        }
    }

    // Asks for the numbers of the tile.
    __device__ void ask() {
        constexpr int UNROLL = sizeof(S) * VECTOR < 4 ? RUN : 4;  // what is not copied asynchronously waits in registers
#pragma unroll
        for (int c = 0; c < PLANES; ++c) {
            constexpr int COUNT = VECTOR;
            const int array = Numbers::input(c);
            const S* from = address<const S>(p.in[array].at) + Numbers::distance(p, c);
            S* to = numbers + c * plane;
            each<COUNT, UNROLL>(array, p.in[array], p.by_time_in[array], [=](int at, long long distance) {
                copy_async<COUNT>(to + at, from + distance);
            });
        }
        if (p.cut.at) {
            const unsigned char* from = address<const unsigned char>(p.cut.at);
            unsigned char* to = cuts;
            each<1, RUN>(OF_CUT, p.cut, p.by_time_y, [=](int at, long long distance) { to[at] = from[distance]; });
        }
    }

    // Writes the states, which have taken the place of the first vector. All threads must have met since.
    __device__ void store() const {
#pragma unroll
        for (int k = 0; k < K; ++k) {
            S* to = address<S>(p.y.at) + k * p.y.row;
            const S* from = numbers + (E + k) * plane;
            each<VECTOR, 4>(OF_Y, p.y, p.by_time_y,
                            [=](int at, long long distance) { copy<VECTOR>(to + distance, from + at); });
        }
    }

    __device__ bool take(int step, int at, T* element) const {
#pragma unroll
        for (int c = 0; c < PLANES; ++c) element[c] = Stored<S>::get(numbers[c * plane + at]);
        return (p.cut.at && cuts[at]) || (first_step + step == 0 && !p.initial.at);
    }

    __device__ void read(const T* from, T* x) const {
#pragma unroll
        for (int k = 0; k < K; ++k) x[k] = from[k * LANES + lane];
    }

    __device__ void write(T* to, const T* x) const {
#pragma unroll
        for (int k = 0; k < K; ++k) to[k * LANES + lane] = x[k];
    }

    // Leaves in `maps` the map of every run after those of the runs before it, and in `whole` that of the tile: in warps
    // as Hillis and Steele (1986) do, over warps one after the other.
    __device__ void compose() {
        Map map = compose_run();
        if (thread == 0) doubts[0] = doubts[1] = 0;
#pragma unroll 1
        for (int distance = width; distance < LANES; distance *= 2) {
            put(map, maps + thread, THREADS);
            __syncwarp();
            if (thread % LANES >= distance) map.after(get<Map>(maps + thread - distance, THREADS));
            __syncwarp();
        }
        put(map, maps + thread, THREADS);
        meet<WORKERS, THREADS>();
        if (thread >= LANES) {
            const T* last = maps + LANES - width + lane;  // runs of the warps before
            Map before = get<Map>(last, THREADS);
#pragma unroll 2
            for (int warp = 1; warp < thread / LANES; ++warp) {
                Map next = get<Map>(last + warp * LANES, THREADS);
                next.after(before);
                before = next;
            }
            map.after(before);
        }
        meet<WORKERS, THREADS>();
        put(map, maps + thread, THREADS);
        if (thread >= THREADS - width) put(map, whole + lane, LANES);
        meet<WORKERS, THREADS>();
    }

    // Fills the tile from its carry, and leaves the states after all runs in `maps`. A run whose first state cannot be
    // trusted waits for the run before it, in its own lane only: what goes before it, and other lanes, never change.
    __device__ void fill() {
        T x[K];
        bool trusted = reach_run(x);
        if (trusted) walk(run * RUN, own, x);
        if (!trusted) atomicMax(doubts, 1);  // by several threads
        meet<WORKERS, THREADS>();  // all have read the maps
        leave(x, trusted, thread);
        meet<WORKERS, THREADS>();
        if (doubts[0] == 0) return;
        if (run == 0) fill_what_waits();
        meet<WORKERS, THREADS>();
    }

    // Reads the last state of this thread's lane, once the tile has been filled.
    __device__ void last(T* x) const { left(x, (steps - 1) / RUN * width + lane); }

private:
    long long* all_offsets;
    T *all_starts, *all_states, *all_maps;
    S* all_numbers;
    unsigned char* all_cuts;

    __device__ Map compose_run() const {
        Map map;
        map.identity();
        T element[PLANES], x0[K];
        read(start, x0);
#pragma unroll
        for (int i = 0; i < RUN; ++i) {
            if (i >= own) break;
            int step = run * RUN + i;
            bool cut = take(step, place(run * RUN, lane) + i * static_cast<int>(p.pitch), element);
            if (i == 0) map.begin(element, element + E, cut, x0);
            if (i > 0) map.then(element, element + E, cut, x0);
        }
        return map;
    }

    // Turns the state before the tile into the one before this thread's run; false if the map cannot be trusted.
    __device__ bool reach_run(T* x) const {
        T before[K];
        read(carry, before);
        read(carry, x);
        if (run == 0 || own == 0) return true;
        Map map = get<Map>(maps + thread - width, THREADS);
        map.act(x);
        return map.trusts(before, x);
    }

    // Walks from a state through `count` steps with the original elements.
    __device__ void walk(int from, int count, T* x) {
        T element[PLANES], x0[K];
        read(start, x0);
#pragma unroll 4
        for (int step = from; step < from + count; ++step) {
            int at = place(step, lane);
            bool cut = take(step, at, element);
            Map::step(element, element + E, cut, x0, x);
#pragma unroll
            for (int k = 0; k < K; ++k) numbers[(E + k) * plane + at] = Stored<S>::put(x[k]);
        }
    }

    __device__ void fill_what_waits() {
        T x[K];
#pragma unroll 1
        for (int i = 1; i * RUN < steps; ++i) {
            int at = i * width + lane;
            if (maps[K * THREADS + at] != T(0)) continue;
            left(x, at - width);
            walk(i * RUN, steps - i * RUN < RUN ? steps - i * RUN : RUN, x);
            leave(x, true, at);
        }
    }

    __device__ void leave(const T* x, bool trusted, int at) {
#pragma unroll
        for (int k = 0; k < K; ++k) maps[k * THREADS + at] = x[k];
        maps[K * THREADS + at] = T(trusted);
    }

    __device__ void left(T* x, int at) const {
#pragma unroll
        for (int k = 0; k < K; ++k) x[k] = maps[k * THREADS + at];
    }
};

// Tiny problems: a block takes some lanes through all of time, a tile after the other.
template <class Map, class S, int THREADS, int RUN, int VECTOR>
__global__ void __launch_bounds__(THREADS, THREADS == 256 ? 4 : 1) tiny(const Problem p) {
    Tile<Map, S, THREADS, RUN, VECTOR, 1> tile(p, 0);
    typename Map::Number x[Map::parts];
    for (Spot spot{0, 0, static_cast<int>(blockIdx.x), 0}; spot.times < p.tiles_of_time; ++spot.times) {
        tile.turn_to(spot, threadIdx.x);
        if (spot.times == 0) tile.find_lanes(THREADS);
        __syncthreads();
        if (spot.times == 0) tile.read(tile.start, x);
        if (tile.run == 0) tile.write(tile.carry, x);
        tile.ask();
        commit_copies();
        wait_copies<0>();
        __syncthreads();
        tile.compose();
        tile.fill();
        tile.store();
        tile.last(x);
    }
}

}  // namespace recsolve

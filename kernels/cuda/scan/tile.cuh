// A tile: some lanes x a span of time, in the shared memory of a block.
//
// Each of THREADS threads has a run of RUN consecutive steps of one lane. Numbers are brought in as they lie in memory,
// whichever of lanes and times is nearer, VECTOR of them at once: lanes, or the times of the only lane if ALONG. They are
// composed run by run, and walked again from the states in which the runs start.

#pragma once

#include "scan/maps.cuh"

namespace recsolve {

template <int N> constexpr int LOG2 = 1 + LOG2<N / 2>;
template <> constexpr int LOG2<1> = 0;

constexpr int CONTROL = 36;     // ints that all threads see, a multiple of 16 bytes: how far each lane must look back for a
constexpr int TICKET = 32;      // state, and a ticket
constexpr int FAR = 1 << 30;    // where that is not known yet

template <class Map_, class S_, int THREADS_, int RUN, int VECTOR, bool ALONG> struct Tile {
    using Map = Map_;
    using S = S_;
    using T = typename Map::Number;
    using Numbers = Planes<Map>;
    static constexpr int THREADS = THREADS_, E = Map::entries, K = Map::parts, PLANES = Numbers::COUNT;
    static constexpr int AT_ONCE = ALONG ? VECTOR : PLANES <= 3 ? 4 : PLANES <= 6 ? 2 : 1;
    static constexpr int GROUP = AT_ONCE < RUN ? AT_ONCE : RUN;  // steps that are read at once: shared memory answers late
    enum { OF_Y = INPUTS, OF_CUT, ARRAYS };

    const Problem& p;
    const int thread, width, lane, run;        // width: lanes; the others of this thread
    const int span, pitch, padding, plane;     // steps; numbers between steps, and runs, and of a plane in shared memory

    // Of the tile that is worked on.
    int times, steps, own;  // its index; steps that exist, of the tile and of this thread's run
    bool exists;            // this thread's lane
    long long first_lane, first_step;

    int* control;             // CONTROL of them
    long long* offsets;        // [array][lane]
    T *start, *carry, *whole;  // [part][lane]: the initial state and that before the tile; its map: [number][lane]
    T *maps, *spare;           // [number][thread]; room for other purposes
    S* numbers;                // [number][place]
    unsigned char* cuts;       // [place]

    // `spare_numbers` are left for other purposes.
    __device__ Tile(const Problem& problem, int spare_numbers)
        : p(problem), thread(threadIdx.x), width(1 << p.width_log2), lane(thread & (width - 1)),
          run(thread >> p.width_log2), span(THREADS * RUN >> p.width_log2), pitch(static_cast<int>(p.pitch)),
          padding(ALONG ? VECTOR : width < LANES ? width : 0),
          plane(span * pitch + (ALONG ? VECTOR * THREADS : padding ? THREADS : 0)) {
        offsets = reinterpret_cast<long long*>(shared_memory());
        control = reinterpret_cast<int*>(offsets + ARRAYS * LANES);
        start = reinterpret_cast<T*>(control + CONTROL);
        carry = start + K * LANES, whole = carry + K * LANES, maps = whole + Map::size * LANES;
        spare = maps + Map::size * THREADS;
        numbers = reinterpret_cast<S*>(spare + spare_numbers);
        cuts = reinterpret_cast<unsigned char*>(numbers + PLANES * plane);
    }

    __device__ void turn_to(long long tile_of_lanes, int tile_of_time) {
        times = tile_of_time;
        first_lane = tile_of_lanes << p.width_log2;
        first_step = static_cast<long long>(times) * span;
        exists = first_lane + lane < p.lanes;
        steps = static_cast<int>(p.steps - first_step < span ? p.steps - first_step : span);
        const int left = steps - run * RUN;
        own = !exists || left < 0 ? 0 : left < RUN ? left : RUN;
    }

    // Finds out where the lanes of the tile are. All threads must meet before that is used.
    __device__ void find_lanes() {
        for (int i = thread; i < ARRAYS * width; i += THREADS) {
            const int array = i >> p.width_log2, at = i & (width - 1);
            const View& view = array < INPUTS ? p.in[array] : array == OF_Y ? p.y : p.cut;
            const bool used = first_lane + at < p.lanes && (array < INPUTS ? p.in[array].at : array == OF_Y || p.cut.at);
            offsets[array * LANES + at] = used ? offset_of(view, p.sizes, first_lane + at) : 0;
        }
        if (run > 0) return;
        T x[K] = {};
        if (exists) initial_state<T, K>(p, first_lane + lane, x);
        write(start, x);
        control[lane] = exists ? FAR : 0;
    }

    // Brings in the numbers of the tile.
    __device__ void fetch() {
        constexpr int UNROLL = sizeof(S) * VECTOR < 4 ? RUN : 4;  // what is not copied asynchronously waits in registers
#pragma unroll
        for (int c = 0; c < PLANES; ++c) {
            const int array = Numbers::input(c);
            const S* from = address<const S>(p.in[array].at) + Numbers::distance(p, c);
            S* to = numbers + c * plane;
            each<VECTOR, UNROLL>(array, p.in[array], p.by_time_in[array], [=](int at, long long distance) {
                copy_async<VECTOR>(to + at, from + distance);
            });
        }
        if (p.cut.at) {
            const unsigned char* from = address<const unsigned char>(p.cut.at);
            unsigned char* to = cuts;
            each<1, RUN>(OF_CUT, p.cut, p.by_time_y, [=](int at, long long distance) { to[at] = from[distance]; });
        }
        commit_copies();
        wait_copies<0>();
        __syncthreads();
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

    __device__ void read(const T* from, T* x) const {
#pragma unroll
        for (int k = 0; k < K; ++k) x[k] = from[k * LANES + lane];
    }

    __device__ void write(T* to, const T* x) const {
#pragma unroll
        for (int k = 0; k < K; ++k) to[k * LANES + lane] = x[k];
    }

    // Leaves in `maps` the map of every run after those of the runs before it, and in `whole` that of the tile, which it
    // tells first: in warps as Hillis and Steele (1986) do, over warps one after the other.
    template <class Tell> __device__ void compose(Tell tell) {
        Map map = compose_run();
#pragma unroll 1
        for (int distance = width; distance < LANES; distance *= 2) {
            put(map, maps + thread, THREADS);
            __syncwarp();
            if (thread % LANES >= distance) map.after(get<Map>(maps + thread - distance, THREADS));
            __syncwarp();
        }
        put(map, maps + thread, THREADS);
        __syncthreads();
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
        if (thread >= THREADS - width) {
            tell(map);
            put(map, whole + lane, LANES);
        }
        __syncthreads();
        put(map, maps + thread, THREADS);
        __syncthreads();
    }

    // Fills the tile from its carry, and leaves the states after all runs in `maps`. A run whose first state cannot be
    // trusted waits for the run before it, in its own lane only: what goes before it, and other lanes, never change.
    __device__ void fill() {
        T x[K];
        const bool trusted = reach_run(x);
        if (trusted) walk(run, own, x);
        const bool waits = __syncthreads_or(!trusted);  // all have read the maps
        leave(x, trusted, thread);
        __syncthreads();
        if (!waits) return;
        if (run == 0) fill_what_waits();
        __syncthreads();
    }

    // Reads the last state of this thread's lane, once the tile has been filled.
    __device__ void last(T* x) const { left(x, (steps - 1) / RUN * width + lane); }

private:
    // Runs start at distances that put the threads of a warp on different banks.
    __device__ int place(int step, int of_lane) const {
        return step * pitch + static_cast<int>(static_cast<unsigned int>(step) / RUN) * padding + of_lane;
    }

    // Calls visit(place, distance from the first number of the array) for all numbers of a plane, COUNT contiguous ones
    // at a time, in order of memory.
    template <int COUNT, int UNROLL, class Visit>
    __device__ void each(int array, const View& view, bool by_time, Visit visit) const {
        constexpr int LOG = LOG2<COUNT>;
        const long long lowest = ALONG && view.time < 0 ? (COUNT - 1) * view.time : 0;
#pragma unroll UNROLL
        for (int i = 0; i < RUN / COUNT; ++i) {
            const int n = i * THREADS + thread;
            const int of_lane = ALONG ? 0 : by_time ? n / span : (n << LOG) & (width - 1);
            const int step = ALONG ? n << LOG : by_time ? n - of_lane * span : n >> (p.width_log2 - LOG);
            if (step < steps && first_lane + of_lane < p.lanes) {
                visit(place(step, of_lane), offsets[array * LANES + of_lane] + (first_step + step) * view.time + lowest);
            }
        }
    }

    // Calls visit(element, cut) for the first `count` steps of a run; if it WRITES, x then is the state after each.
    template <bool WRITES, class Visit> __device__ void each_step(int of_run, int count, const T* x, Visit visit) const {
        const int first = place(of_run * RUN, lane);
        const bool from_the_first = first_step == 0 && of_run == 0 && !p.initial.at;
#pragma unroll
        for (int i = 0; i < RUN; i += GROUP) {
            if (i >= count) break;
            const int at = first + i * pitch;
            S held[PLANES][GROUP];
            bool cut[GROUP];
#pragma unroll
            for (int c = 0; c < PLANES; ++c) take(numbers + c * plane + at, p.in[Numbers::input(c)].time < 0, held[c]);
#pragma unroll
            for (int j = 0; j < GROUP; ++j) cut[j] = (p.cut.at && cuts[at + j * pitch]) || (from_the_first && i + j == 0);
#pragma unroll
            for (int j = 0; j < GROUP; ++j) {
                if (i + j >= count) break;
                T element[PLANES];
#pragma unroll
                for (int c = 0; c < PLANES; ++c) element[c] = Stored<S>::get(held[c][j]);
                visit(element, cut[j], i + j);
                if (!WRITES) continue;
#pragma unroll
                for (int k = 0; k < K; ++k) held[E + k][j] = Stored<S>::put(x[k]);
            }
            if (!WRITES) continue;
#pragma unroll
            for (int k = 0; k < K; ++k) give(numbers + (E + k) * plane + at, p.y.time < 0, held[E + k]);
        }
    }

    // GROUP steps in the order of time; along a lane they lie as in memory, last first if time runs backwards there.
    __device__ void take(const S* from, bool backwards, S* held) const {
        if constexpr (ALONG) {
            Vector<S, GROUP> group;
            copy<GROUP>(group.numbers, from);
#pragma unroll
            for (int j = 0; j < GROUP; ++j) held[j] = backwards ? group.numbers[GROUP - 1 - j] : group.numbers[j];
        } else {
#pragma unroll
            for (int j = 0; j < GROUP; ++j) held[j] = from[j * pitch];
        }
    }

    __device__ void give(S* to, bool backwards, const S* held) const {
        if constexpr (ALONG) {
            Vector<S, GROUP> group;
#pragma unroll
            for (int j = 0; j < GROUP; ++j) group.numbers[j] = backwards ? held[GROUP - 1 - j] : held[j];
            copy<GROUP>(to, group.numbers);
        } else {
#pragma unroll
            for (int j = 0; j < GROUP; ++j) to[j * pitch] = held[j];
        }
    }

    __device__ Map compose_run() const {
        Map map;
        map.identity();
        T x0[K];
        read(start, x0);
        each_step<false>(run, own, nullptr, [&](const T* element, bool cut, int i) {
            if (i == 0) map.begin(element, element + E, cut, x0);
            if (i > 0) map.then(element, element + E, cut, x0);
        });
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

    // Walks from a state through the first `count` steps of a run with the original elements.
    __device__ void walk(int of_run, int count, T* x) const {
        T x0[K];
        read(start, x0);
        each_step<true>(of_run, count, x, [&](const T* element, bool cut, int) {
            Map::step(element, element + E, cut, x0, x);
        });
    }

    __device__ void fill_what_waits() {
        T x[K];
#pragma unroll 1
        for (int i = 1; i * RUN < steps; ++i) {
            const int at = i * width + lane;
            if (maps[K * THREADS + at] != T(0)) continue;
            left(x, at - width);
            walk(i, steps - i * RUN < RUN ? steps - i * RUN : RUN, x);
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
template <class Map, class S, int THREADS, int RUN, int VECTOR, bool ALONG>
__global__ void __launch_bounds__(THREADS, THREADS == 256 ? 4 : 1) tiny(const Problem p) {
    Tile<Map, S, THREADS, RUN, VECTOR, ALONG> tile(p, 0);
    typename Map::Number x[Map::parts];
    for (int times = 0; times < p.tiles_of_time; ++times) {
        tile.turn_to(blockIdx.x, times);
        if (times == 0) tile.find_lanes();
        __syncthreads();
        if (times == 0) tile.read(tile.start, x);
        if (tile.run == 0) tile.write(tile.carry, x);
        tile.fetch();
        tile.compose([](const Map&) {});
        tile.fill();
        tile.store();
        tile.last(x);
    }
}

}  // namespace recsolve

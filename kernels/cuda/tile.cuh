// A tile: some lanes x a span of time, in the shared memory of a block.
//
// Each thread has a run of RUN consecutive steps of one lane. Numbers are brought in as they lie in memory, whichever
// of lanes and times is nearer, composed run by run, and walked again from the states in which the runs start.

#pragma once

namespace recsolve {

constexpr int LANES = 32;  // of a tile at most: those of a warp, so that one warp holds the states of a tile

template <int N> constexpr int LOG2 = 1 + LOG2<N / 2>;
template <> constexpr int LOG2<1> = 0;

template <class Map_, class S_, int THREADS, int RUN> struct Tile {
    using Map = Map_;
    using S = S_;
    using T = typename Map::Number;
    static constexpr int E = Map::entries, K = Map::parts;
    enum { OF_E, OF_F, OF_Y, OF_CUT, ARRAYS };

    const Problem& p;
    int width, span, plane;  // lanes, steps, numbers of a plane in shared memory
    int span_log2;
    int lane, run;   // of this thread
    int steps, own;  // steps that exist, of the tile and of this thread's run
    bool exists;     // this thread's lane
    long long first_lane, first_step;
    long long* offsets;       // [array][lane]
    int* control;             // two numbers that all threads see
    T *carry, *start, *maps;  // [part][lane]: the state before the tile and the initial one; [number][thread]
    S* numbers;               // [number][place]
    unsigned char* cuts;      // [place]

    __device__ Tile(const Problem& problem, int staged_maps) : p(problem) {
        width = 1 << p.width_log2;
        span_log2 = LOG2<THREADS * RUN> - static_cast<int>(p.width_log2);
        span = 1 << span_log2;
        plane = span * static_cast<int>(p.pitch) + THREADS;
        lane = threadIdx.x & (width - 1);
        run = threadIdx.x >> p.width_log2;
        unsigned char* memory = shared_memory();
        offsets = reinterpret_cast<long long*>(memory);
        control = reinterpret_cast<int*>(offsets + ARRAYS * LANES);
        carry = reinterpret_cast<T*>(control + 4);
        start = carry + K * LANES;
        maps = start + K * LANES;
        numbers = reinterpret_cast<S*>(maps + Map::size * THREADS * (1 + staged_maps));
        cuts = reinterpret_cast<unsigned char*>(numbers + (E + K) * plane);
    }

    // Runs start at distances that put the threads of a warp on different banks.
    __device__ int place(int step, int of_lane) const {
        return step * static_cast<int>(p.pitch) + static_cast<int>(static_cast<unsigned int>(step) / RUN) * width +
               of_lane;
    }

    __device__ void choose_lanes(long long first) {
        first_lane = first;
        exists = first + lane < p.lanes;
        for (int i = threadIdx.x; i < ARRAYS * width; i += THREADS) {
            int array = i >> p.width_log2, at = i & (width - 1);
            const View& view = array == OF_E ? p.e : array == OF_F ? p.f : array == OF_Y ? p.y : p.cut;
            offsets[array * LANES + at] = first + at < p.lanes ? offset_of(view, p.sizes, first + at) : 0;
        }
        if (threadIdx.x < width) {
            T x[K] = {};
            if (exists) initial_state<T, K>(p, first + lane, x);
#pragma unroll
            for (int k = 0; k < K; ++k) start[k * LANES + lane] = x[k];
        }
        __syncthreads();
    }

    __device__ void choose_steps(long long first) {
        first_step = first;
        steps = static_cast<int>(p.steps - first < span ? p.steps - first : span);
        int left = steps - run * RUN;
        own = !exists || left < 0 ? 0 : left < RUN ? left : RUN;
    }

    // Calls visit(place, distance from the first number of the array) for all numbers of a plane, in order of memory.
    template <int UNROLL, class Visit> __device__ void each(int array, const View& view, bool by_time,
                                                            Visit visit) const {
#pragma unroll UNROLL
        for (int i = 0; i < RUN; ++i) {
            int n = i * THREADS + threadIdx.x;
            int step = by_time ? n & (span - 1) : n >> p.width_log2;
            int of_lane = by_time ? n >> span_log2 : n & (width - 1);
            if (step < steps && first_lane + of_lane < p.lanes) {
                visit(place(step, of_lane), offsets[array * LANES + of_lane] + (first_step + step) * view.time);
            }
        }
    }

    __device__ void load() {
        constexpr int UNROLL = sizeof(S) < 4 ? RUN : 4;  // what is not copied asynchronously waits in registers
#pragma unroll
        for (int c = 0; c < E + K; ++c) {
            const View& view = c < E ? p.e : p.f;
            const S* from =
                address<const S>(view.at) + (c < E ? c / K * view.row + c % K * view.column : (c - E) * view.row);
            S* to = numbers + c * plane;
            each<UNROLL>(c < E ? OF_E : OF_F, view, c < E ? p.e_by_time : p.f_by_time,
                         [=](int at, long long distance) { copy_async(to + at, from + distance); });
        }
        if (p.cut.at) {
            const unsigned char* from = address<const unsigned char>(p.cut.at);
            unsigned char* to = cuts;
            each<RUN>(OF_CUT, p.cut, p.y_by_time, [=](int at, long long distance) { to[at] = from[distance]; });
        }
        commit_copies();
        wait_copies<0>();
        __syncthreads();
    }

    // Writes the states, which have taken the place of f.
    __device__ void store() const {
        __syncthreads();
#pragma unroll
        for (int k = 0; k < K; ++k) {
            S* to = address<S>(p.y.at) + k * p.y.row;
            const S* from = numbers + (E + k) * plane;
            each<4>(OF_Y, p.y, p.y_by_time, [=](int at, long long distance) { to[distance] = from[at]; });
        }
        __syncthreads();
    }

    __device__ bool take(int step, int at, T* element) const {
#pragma unroll
        for (int c = 0; c < E + K; ++c) element[c] = Stored<S>::get(numbers[c * plane + at]);
        return (p.cut.at && cuts[at]) || (first_step + step == 0 && !p.initial.at);
    }

    __device__ void initial(T* x) const {
#pragma unroll
        for (int k = 0; k < K; ++k) x[k] = start[k * LANES + lane];
    }

    // The state before the tile, of this thread's lane.
    __device__ void get_carry(T* x) const {
#pragma unroll
        for (int k = 0; k < K; ++k) x[k] = carry[k * LANES + lane];
    }

    __device__ void set_carry(const T* x) {
#pragma unroll
        for (int k = 0; k < K; ++k) carry[k * LANES + lane] = x[k];
    }

    __device__ Map compose_run() const {
        Map map;
        map.identity();
        T element[E + K], x0[K];
        initial(x0);
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

    // Puts after every run's map those of the runs before it (Hillis and Steele, 1986), and leaves them in `maps`.
    __device__ void compose_runs(Map map) {
        for (int distance = width; distance < THREADS; distance *= 2) {
            put(map, maps + threadIdx.x, THREADS);
            __syncthreads();
            if (threadIdx.x >= distance) map.after(get<Map>(maps + threadIdx.x - distance, THREADS));
            __syncthreads();
        }
        put(map, maps + threadIdx.x, THREADS);
        __syncthreads();
    }

    // The map of all steps of the tile, of this thread's lane.
    __device__ Map whole() const { return get<Map>(maps + THREADS - width + lane, THREADS); }

    // Turns the state before the tile into the one before this thread's run; false if the map cannot be trusted.
    __device__ bool reach_run(T* x) const {
        T before[K];
        get_carry(before);
        get_carry(x);
        if (run == 0 || own == 0) return true;
        Map map = get<Map>(maps + threadIdx.x - width, THREADS);
        map.act(x);
        return map.trusts(before, x);
    }

    // Walks from a state through `count` steps with the original elements.
    __device__ void walk(int from, int count, T* x) {
        T element[E + K], x0[K];
        initial(x0);
#pragma unroll 4
        for (int step = from; step < from + count; ++step) {
            int at = place(step, lane);
            bool cut = take(step, at, element);
            Map::step(element, element + E, cut, x0, x);
#pragma unroll
            for (int k = 0; k < K; ++k) numbers[(E + k) * plane + at] = Stored<S>::put(x[k]);
        }
    }

    // Fills the tile from its carry, and leaves the states after all runs in `maps`. A run whose first state cannot be
    // trusted waits for the run before it, in its own lane only: what goes before it, and other lanes, never change.
    __device__ void fill() {
        T x[K];
        bool trusted = reach_run(x);
        if (trusted) walk(run * RUN, own, x);
        bool all_trusted = !__syncthreads_or(!trusted);  // and all have read the maps
        leave(x, trusted, threadIdx.x);
        __syncthreads();
        if (all_trusted || run > 0) return;
        for (int i = 1; i * RUN < steps; ++i) {
            int at = i * width + lane;
            if (maps[K * THREADS + at] != T(0)) continue;
            left(x, at - width);
            walk(i * RUN, steps - i * RUN < RUN ? steps - i * RUN : RUN, x);
            leave(x, true, at);
        }
    }

    // Reads the last state of this thread's lane, once the tile has been filled.
    __device__ void last(T* x) const { left(x, (steps - 1) / RUN * width + lane); }

private:
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
template <class Map, class S, int THREADS, int RUN>
__global__ void __launch_bounds__(THREADS, Map::parts == 1 ? 4 : 1) tiny(const Problem p) {
    Tile<Map, S, THREADS, RUN> tile(p, 0);
    tile.choose_lanes(static_cast<long long>(blockIdx.x) * tile.width);
    typename Map::Number x[Map::parts];
    tile.initial(x);
    for (long long first = 0; first < p.steps; first += tile.span) {
        if (tile.run == 0) tile.set_carry(x);
        tile.choose_steps(first);
        tile.load();
        tile.compose_runs(tile.compose_run());
        tile.fill();
        tile.store();
        tile.last(x);
    }
}

}  // namespace recsolve

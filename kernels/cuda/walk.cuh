// Many lanes: a thread walks through time for one lane, as the loop does, with its elements asked for steps ahead.
//
// `registers`: where lanes are very many each thread loads its own elements ahead. `streamed`: where they are fewer more
// must be under way than registers hold. One warp of a block walks; the others keep a ring of pieces of time in shared
// memory filled ahead of it, as the numbers lie in memory, and write the states behind it.

#pragma once

namespace recsolve {

// Where a lane's numbers are.
template <class Map, class S> struct Lane {
    long long inputs[INPUTS];  // distances of the lane
    const unsigned char* cut;
    S* y;

    __device__ Lane(const Problem& p, long long lane) {
        constexpr int LAST = Planes<Map>::input(Planes<Map>::COUNT - 1);
#pragma unroll
        for (int i = 0; i <= LAST; ++i) inputs[i] = offset_of(p.in[i], p.sizes, lane);
        cut = p.cut.at ? address<const unsigned char>(p.cut.at) + offset_of(p.cut, p.sizes, lane) : nullptr;
        y = address<S>(p.y.at) + offset_of(p.y, p.sizes, lane);
    }

    __device__ const S* number(const Problem& p, int c, long long t) const {
        const int i = Planes<Map>::input(c);
        return address<const S>(p.in[i].at) + inputs[i] + Planes<Map>::distance(p, c) + t * p.in[i].time;
    }
};

// Elements on their way to registers: PIECE steps.
template <class Map, class S, bool CUT, int PIECE> struct Ahead {
    static constexpr int PLANES = Planes<Map>::COUNT;

    S held[PIECE][PLANES];
    unsigned char cuts[CUT ? PIECE : 1];

    __device__ void ask(const Problem& p, const Lane<Map, S>& lane, int i, long long t) {
#pragma unroll
        for (int c = 0; c < PLANES; ++c) held[i][c] = *lane.number(p, c, t);
        if (CUT) cuts[i] = lane.cut[t * p.cut.time];
    }

    // Walks a piece from time t on: all of its steps exist if WHOLE, and so do those that are asked for if ASK.
    template <bool WHOLE, bool ASK>
    __device__ void walk(const Problem& p, const Lane<Map, S>& lane, long long t, const typename Map::Number* initial,
                         typename Map::Number* x) {
#pragma unroll
        for (int i = 0; i < PIECE; ++i) {
            if (!WHOLE && t + i >= p.steps) break;
            typename Map::Number numbers[PLANES];
#pragma unroll
            for (int c = 0; c < PLANES; ++c) numbers[c] = Stored<S>::get(held[i][c]);
            bool cut = (CUT && cuts[i]) || (i == 0 && t == 0 && !p.initial.at);
            if (ASK || t + i + PIECE < p.steps) ask(p, lane, i, t + i + PIECE);
            Map::step(numbers, numbers + Map::entries, cut, initial, x);
#pragma unroll
            for (int k = 0; k < Map::parts; ++k) lane.y[(t + i) * p.y.time + k * p.y.row] = Stored<S>::put(x[k]);
        }
    }
};

template <class Map, class S, bool CUT, int PIECE> __global__ void registers(const Problem p) {
    long long index = static_cast<long long>(blockIdx.x) * blockDim.x + threadIdx.x;
    if (index >= p.lanes) return;
    Lane<Map, S> lane(p, index);
    Ahead<Map, S, CUT, PIECE> ahead;
#pragma unroll
    for (int i = 0; i < PIECE; ++i) {
        if (i < p.steps) ahead.ask(p, lane, i, i);
    }
    typename Map::Number initial[Map::parts], x[Map::parts];
    initial_state<typename Map::Number, Map::parts>(p, index, initial);
#pragma unroll
    for (int k = 0; k < Map::parts; ++k) x[k] = initial[k];
    long long t = 0;
    for (; t + 2 * PIECE <= p.steps; t += PIECE) ahead.template walk<true, true>(p, lane, t, initial, x);
    for (; t + PIECE <= p.steps; t += PIECE) ahead.template walk<true, false>(p, lane, t, initial, x);
    if (t < p.steps) ahead.template walk<false, false>(p, lane, t, initial, x);
}

// A ring of PIECES pieces of PIECE steps of the lanes of a warp.
template <class Map, class S, bool CUT, int COPIERS, int PIECE, int PIECES, int VECTOR> struct Ring {
    using T = typename Map::Number;
    using Numbers = Planes<Map>;
    static constexpr int E = Map::entries, K = Map::parts, PLANES = Numbers::COUNT;
    static constexpr int PITCH = LANES + (VECTOR == 1), PLANE = PIECE * PITCH;  // an odd pitch where times are nearer
    static constexpr int AT_ONCE = PLANES <= 3 ? 8 : PLANES <= 6 ? 4 : PLANES <= 12 ? 2 : 1;  // steps read
    static constexpr int TOGETHER = AT_ONCE < PIECE ? AT_ONCE : PIECE;
    enum { OF_Y = INPUTS, OF_CUT, ARRAYS };

    const Problem& p;
    const long long first_lane, end;  // the steps that there are end there
    long long* offsets;               // [array][lane]
    S* numbers;                       // [piece][number][step][lane]
    unsigned int* words;              // [piece][step][lane], that hold the bytes of cuts

    __device__ Ring(const Problem& problem, long long tile, long long last)
        : p(problem), first_lane(tile * LANES), end(last) {
        offsets = reinterpret_cast<long long*>(shared_memory());
        numbers = reinterpret_cast<S*>(offsets + ARRAYS * LANES);
        words = reinterpret_cast<unsigned int*>(numbers + PIECES * PLANES * PLANE);
        for (int i = threadIdx.x; i < ARRAYS * LANES; i += LANES + COPIERS) {
            int array = i / LANES;
            long long lane = first_lane + i % LANES;
            const View& view = array < INPUTS ? p.in[array] : array == OF_Y ? p.y : p.cut;
            bool used = lane < p.lanes && (array < INPUTS ? p.in[array].at : array == OF_Y || CUT);
            offsets[i] = used ? offset_of(view, p.sizes, lane) : 0;
        }
        __syncthreads();
    }

    // Calls visit(place in a plane, lane, step, distance from the array's first number) for VECTOR numbers at a time of
    // a piece that begins at a time, in order of memory.
    template <int COUNT, class Visit>
    __device__ void each(int thread, int array, const View& view, bool by_time, long long first, Visit visit) const {
        constexpr int ACROSS = LANES / COUNT;
#pragma unroll
        for (int i = 0; i < (PIECE * ACROSS + COPIERS - 1) / COPIERS; ++i) {
            int n = i * COPIERS + thread;
            int step = by_time ? n % PIECE : n / ACROSS, lane = by_time ? n / PIECE : n % ACROSS * COUNT;
            if (n < PIECE * ACROSS && first + step < end && first_lane + lane < p.lanes) {
                visit(step * PITCH + lane, offsets[array * LANES + lane] + (first + step) * view.time);
            }
        }
    }

    __device__ void ask(int thread, int piece, long long first) const {
#pragma unroll
        for (int c = 0; c < PLANES; ++c) {
            const int array = Numbers::input(c);
            const S* from = address<const S>(p.in[array].at) + Numbers::distance(p, c);
            S* to = numbers + (piece * PLANES + c) * PLANE;
            each<VECTOR>(thread, array, p.in[array], p.in_by_time[array], first,
                         [=](int at, long long distance) { copy_async<VECTOR>(to + at, from + distance); });
        }
        if (CUT) {
            const unsigned char* from = address<const unsigned char>(p.cut.at);
            unsigned int* to = words + piece * PLANE;
            each<1>(thread, OF_CUT, p.cut, p.y_by_time, first,
                    [=](int at, long long distance) { copy_word_async(to + at, from + distance); });
        }
    }

    // Writes the states of a piece, which have taken the place of the first vector.
    __device__ void store(int thread, int piece, long long first) const {
#pragma unroll
        for (int k = 0; k < K; ++k) {
            S* to = address<S>(p.y.at) + k * p.y.row;
            const S* from = numbers + (piece * PLANES + E + k) * PLANE;
            each<VECTOR>(thread, OF_Y, p.y, p.y_by_time, first,
                         [=](int at, long long distance) { copy<VECTOR>(to + distance, from + at); });
        }
    }

    // Walks a piece, the whole of it if WHOLE: TOGETHER steps are read at once, for shared memory answers late.
    template <bool WHOLE>
    __device__ void walk(int lane, int piece, long long first, const T* initial, T* x) const {
        S* from = numbers + piece * PLANES * PLANE + lane;
        const unsigned char* cut = address<const unsigned char>(p.cut.at) + (CUT ? offsets[OF_CUT * LANES + lane] : 0);
#pragma unroll
        for (int i = 0; i < PIECE; i += TOGETHER) {
            T held[TOGETHER][PLANES];
            bool cuts[TOGETHER];
#pragma unroll
            for (int j = 0; j < TOGETHER; ++j) {
#pragma unroll
                for (int c = 0; c < PLANES; ++c) held[j][c] = Stored<S>::get(from[c * PLANE + (i + j) * PITCH]);
                unsigned int word = CUT ? words[piece * PLANE + (i + j) * PITCH + lane] : 0;
                cuts[j] = CUT && byte_of(word, cut + (first + i + j) * p.cut.time);
            }
#pragma unroll
            for (int j = 0; j < TOGETHER; ++j) {
                if (!WHOLE && first + i + j >= end) return;
                bool starts = i + j == 0 && first == 0 && !p.initial.at;
                Map::step(held[j], held[j] + E, cuts[j] || starts, initial, x);
#pragma unroll
                for (int k = 0; k < K; ++k) from[(E + k) * PLANE + (i + j) * PITCH] = Stored<S>::put(x[k]);
            }
        }
    }
};

// What happens between the pieces of a walk: nothing.
template <class T> struct Onward {
    // Where the threads of a block meet; whether the walk goes on.
    __device__ bool meet(bool) const {
        __syncthreads();
        return true;
    }
    // Steps [first, last] are walked from x on.
    __device__ void before(long long, long long, const T*) {}
    // Whether a lane has reason to go on from x.
    __device__ bool after(const T*) const { return true; }
};

// A warp that walks through a part of time, and others that copy for it.
template <class Map, class S, bool CUT, int COPIERS, int PIECE, int PIECES, int VECTOR> struct Stream {
    using T = typename Map::Number;
    static constexpr int K = Map::parts, UNDER_WAY = PIECES - 2;  // one is walked, one written

    const Ring<Map, S, CUT, COPIERS, PIECE, PIECES, VECTOR> ring;
    const bool walks;
    const int own;
    const long long lane;
    const bool exists;
    T initial[K];

    __device__ Stream(const Problem& p, long long tile, long long end)
        : ring(p, tile, end), walks(threadIdx.x < LANES), own(walks ? threadIdx.x : threadIdx.x - LANES),
          lane(tile * LANES + own), exists(walks && lane < p.lanes) {
#pragma unroll
        for (int k = 0; k < K; ++k) initial[k] = T(0);
        if (exists) initial_state<T, K>(p, lane, initial);
    }

    // Walks from x on; the pieces before `stored` only lead there. Returns whether it comes to the end.
    template <class Between> __device__ __forceinline__ bool run(long long from, long long stored, T* x, Between& between) {
        for (int i = 0; i < UNDER_WAY; ++i) {
            if (!walks) ring.ask(own, i, from + static_cast<long long>(i) * PIECE);
            commit_copies();
        }
        int piece = 0;
        bool on = true;
        long long first = from;
        for (; first < ring.end; first += PIECE) {
            wait_copies<UNDER_WAY - 1>();
            if (!between.meet(on)) break;
            const bool whole = first + PIECE <= ring.end;
            if (walks) {
                if (exists) between.before(first, (whole ? first + PIECE : ring.end) - 1, x);
                if (whole) ring.template walk<true>(own, piece, first, initial, x);
                if (!whole) ring.template walk<false>(own, piece, first, initial, x);
                on = exists && between.after(x);
            } else {
                if (first > stored) ring.store(own, piece == 0 ? PIECES - 1 : piece - 1, first - PIECE);
                ring.ask(own, piece < 2 ? piece + PIECES - 2 : piece - 2, first + UNDER_WAY * PIECE);
                on = false;
            }
            commit_copies();
            piece = piece == PIECES - 1 ? 0 : piece + 1;
        }
        wait_copies<0>();
        __syncthreads();
        if (!walks && first > stored) ring.store(own, piece == 0 ? PIECES - 1 : piece - 1, first - PIECE);
        return first >= ring.end;
    }
};

template <class Map, class S, bool CUT, int COPIERS, int PIECE, int PIECES, int VECTOR>
__global__ void __launch_bounds__(LANES + COPIERS) streamed(const Problem p) {
    using T = typename Map::Number;
    Stream<Map, S, CUT, COPIERS, PIECE, PIECES, VECTOR> stream(p, blockIdx.x, p.steps);
    T x[Map::parts];
#pragma unroll
    for (int k = 0; k < Map::parts; ++k) x[k] = stream.initial[k];
    Onward<T> onward;
    stream.run(0, 0, x, onward);
}

}  // namespace recsolve

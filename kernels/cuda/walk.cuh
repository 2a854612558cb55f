// Many lanes: a thread walks through time for one lane, as the loop does, with its elements loaded steps ahead.
//
// Loads wait in registers where threads are many. Where they are few more must be under way than registers hold, and
// each thread copies asynchronously into its own part of shared memory; no thread ever waits for another.

#pragma once

namespace recsolve {

// Where a lane's elements are.
template <class Map, class S> struct Lane {
    const S *e, *f;
    const unsigned char* cut;
    S* y;

    __device__ Lane(const Problem& p, long long lane) {
        e = address<const S>(p.e.at) + offset_of(p.e, p.sizes, lane);
        f = address<const S>(p.f.at) + offset_of(p.f, p.sizes, lane);
        cut = p.cut.at ? address<const unsigned char>(p.cut.at) + offset_of(p.cut, p.sizes, lane) : nullptr;
        y = address<S>(p.y.at) + offset_of(p.y, p.sizes, lane);
    }

    // Number `c` of an element: the matrix by rows, then the vector.
    __device__ const S* number(const Problem& p, int c, long long t) const {
        if (c < Map::entries) return e + t * p.e.time + c / Map::parts * p.e.row + c % Map::parts * p.e.column;
        return f + t * p.f.time + (c - Map::entries) * p.f.row;
    }
};

// Elements on their way to registers: PIECE steps.
template <class Map, class S, bool CUT, int PIECE_> struct Registers {
    static constexpr int PIECE = PIECE_, NUMBERS = Map::entries + Map::parts, AHEAD = PIECE;

    S held[PIECE][NUMBERS];
    unsigned char cuts[CUT ? PIECE : 1];

    __device__ void ask(const Problem& p, const Lane<Map, S>& lane, int i, long long t) {
#pragma unroll
        for (int c = 0; c < NUMBERS; ++c) held[i][c] = *lane.number(p, c, t);
        if (CUT) cuts[i] = lane.cut[t * p.cut.time];
    }

    __device__ void start(const Problem& p, const Lane<Map, S>& lane) {
#pragma unroll
        for (int i = 0; i < PIECE; ++i) {
            if (i < p.steps) ask(p, lane, i, i);
        }
    }

    __device__ void arrive() {}
    __device__ S take(int i, int c) const { return held[i][c]; }
    __device__ bool cut(const Problem&, const Lane<Map, S>&, int i, long long) const { return CUT && cuts[i]; }
    __device__ void next() {}
};

// Elements on their way to shared memory: PIECES - 1 pieces of PIECE steps under way. A piece is asked for where the
// one before the present one was, which has been used.
template <class Map, class S, bool CUT, int THREADS, int PIECE_, int PIECES> struct Staged {
    static constexpr int PIECE = PIECE_, NUMBERS = Map::entries + Map::parts, AHEAD = (PIECES - 1) * PIECE;

    S* staged;
    unsigned int* words;     // that hold the bytes of cuts
    S held[PIECE][NUMBERS];  // the present piece
    unsigned int cuts[CUT ? PIECE : 1];
    int present;

    __device__ S* place(int piece, int i, int c) const {
        return staged + ((piece * PIECE + i) * NUMBERS + c) * THREADS;
    }

    __device__ void copy(const Problem& p, const Lane<Map, S>& lane, int piece, int i, long long t) {
#pragma unroll
        for (int c = 0; c < NUMBERS; ++c) copy_async(place(piece, i, c), lane.number(p, c, t));
        if (CUT) copy_word_async(words + (piece * PIECE + i) * THREADS, lane.cut + t * p.cut.time);
    }

    __device__ void ask(const Problem& p, const Lane<Map, S>& lane, int i, long long t) {
        copy(p, lane, present == 0 ? PIECES - 1 : present - 1, i, t);
    }

    __device__ void start(const Problem& p, const Lane<Map, S>& lane) {
        S* numbers = reinterpret_cast<S*>(shared_memory());
        staged = numbers + threadIdx.x;
        words = reinterpret_cast<unsigned int*>(numbers + PIECES * PIECE * NUMBERS * THREADS) + threadIdx.x;
        present = 0;
        for (int piece = 0; piece < PIECES - 1; ++piece) {
#pragma unroll
            for (int i = 0; i < PIECE; ++i) {
                if (piece * PIECE + i < p.steps) copy(p, lane, piece, i, piece * PIECE + i);
            }
            commit_copies();
        }
    }

    // Takes a whole piece at once, so that no step waits for shared memory.
    __device__ void arrive() {
        wait_copies<PIECES - 2>();
#pragma unroll
        for (int i = 0; i < PIECE; ++i) {
#pragma unroll
            for (int c = 0; c < NUMBERS; ++c) held[i][c] = *place(present, i, c);
            if (CUT) cuts[i] = words[(present * PIECE + i) * THREADS];
        }
    }

    __device__ S take(int i, int c) const { return held[i][c]; }

    __device__ bool cut(const Problem& p, const Lane<Map, S>& lane, int i, long long t) const {
        return CUT && byte_of(cuts[i], lane.cut + t * p.cut.time);
    }

    __device__ void next() {
        commit_copies();
        present = present == PIECES - 1 ? 0 : present + 1;
    }
};

// Walks PIECE steps from time t on: all of them exist if WHOLE, and so do those that are asked for if ASK.
template <bool WHOLE, bool ASK, class Map, class S, class Ahead>
__device__ inline void walk_piece(const Problem& p, const Lane<Map, S>& lane, Ahead& ahead, long long t,
                                  const typename Map::Number* initial, typename Map::Number* x) {
    ahead.arrive();
#pragma unroll
    for (int i = 0; i < Ahead::PIECE; ++i) {
        if (!WHOLE && t + i >= p.steps) break;
        typename Map::Number numbers[Ahead::NUMBERS];
#pragma unroll
        for (int c = 0; c < Ahead::NUMBERS; ++c) numbers[c] = Stored<S>::get(ahead.take(i, c));
        bool cut = ahead.cut(p, lane, i, t + i) || (i == 0 && t == 0 && !p.initial.at);
        if (ASK || t + i + Ahead::AHEAD < p.steps) ahead.ask(p, lane, i, t + i + Ahead::AHEAD);
        Map::step(numbers, numbers + Map::entries, cut, initial, x);
#pragma unroll
        for (int k = 0; k < Map::parts; ++k) lane.y[(t + i) * p.y.time + k * p.y.row] = Stored<S>::put(x[k]);
    }
    ahead.next();
}

template <class Map, class S, class Ahead> __global__ void walk(const Problem p) {
    constexpr int PIECE = Ahead::PIECE;
    long long index = static_cast<long long>(blockIdx.x) * blockDim.x + threadIdx.x;
    if (index >= p.lanes) return;
    Lane<Map, S> lane(p, index);
    Ahead ahead;
    ahead.start(p, lane);
    typename Map::Number initial[Map::parts], x[Map::parts];
    initial_state<typename Map::Number, Map::parts>(p, index, initial);
#pragma unroll
    for (int k = 0; k < Map::parts; ++k) x[k] = initial[k];
    long long t = 0;
    for (; t + PIECE + Ahead::AHEAD <= p.steps; t += PIECE) walk_piece<true, true>(p, lane, ahead, t, initial, x);
    for (; t + PIECE <= p.steps; t += PIECE) walk_piece<true, false>(p, lane, ahead, t, initial, x);
    if (t < p.steps) walk_piece<false, false>(p, lane, ahead, t, initial, x);
}

}  // namespace recsolve

// Very many lanes: a thread walks through time for one lane, as the loop does, and loads its own elements ahead.

#pragma once

#include "scan/maps.cuh"

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

}  // namespace recsolve

// Few lanes and long times: segments of time in parallel. A segment starts from a guess: the state that some steps
// before it lead to. Later launches make the result right, and do nothing where it is.
//
// Segments that are walked: every warp takes one. Where a segment does not follow from the one before it, it is walked
// again, for all segments at once: forwards until that meets what is there, on the way back to its end.
//
// Segments that are solved in windows: every block takes one. Those whose first states an affine scan over the ends of
// segments moves are solved again.
//
// At last those that still do not follow are solved in windows, one after the other.

#pragma once

#include "solve/ring.cuh"

namespace recsolve {

// What segments tell each other in turns.
template <class Cell, class T> struct Between {
    static constexpr int K = Cell::PARTS;

    const Recurrence<Cell>& p;
    const long long lane;
    const bool exists;
    const long long before = (p.round + 1) & 1, now = p.round & 1;

    __device__ Between(const Recurrence<Cell>& problem, long long index, bool there)
        : p(problem), lane(index), exists(there) {}

    template <int COUNT> __device__ T* of(long long at, long long turn, long long segment) const {
        return address<T>(at) + (turn * p.segments + segment) * COUNT * p.lanes + lane;
    }
    template <int COUNT> __device__ void put(const T* x, long long at, long long turn, long long segment) const {
        T* to = of<COUNT>(at, turn, segment);
#pragma unroll
        for (int i = 0; i < COUNT; ++i) {
            if (exists) to[i * p.lanes] = x[i];
        }
    }
    template <int COUNT> __device__ void get(T* x, long long at, long long turn, long long segment) const {
        const T* from = of<COUNT>(at, turn, segment);
#pragma unroll
        for (int i = 0; i < COUNT; ++i) x[i] = exists ? from[i * p.lanes] : T(0);
    }
};

// Whether an earlier round has left nothing to do.
template <class Cell> __device__ bool done(const Recurrence<Cell>& p) {
    return p.changed != 0 && p.round > 1 && address<int>(p.changed)[p.round - 1] == 0;
}

// Whether the step at time t, at the head of a slot that is in, may start from x where it started from `start`.
template <class Cell, class S, class Loads, class T>
__device__ bool may_start(const Recurrence<Cell>& p, const SolveLane<Cell, S>& lane, const Loads& ring, int slot, long long t,
                          const T* x, const T* start, T& r) {
    T u[at_least_one<Cell::DRIVES>], y[Cell::PARTS], head[Cell::PARTS], from[Cell::PARTS], assumed[Cell::PARTS];
#pragma unroll
    for (int i = 0; i < Cell::PARTS; ++i) from[i] = x[i], assumed[i] = start[i];
    take(p, lane, ring, slot, 0, t, assumed, u);
    Cell::template step<Full<T>>(assumed, u, lane.constants, head);
    // On the way back a step that is cut passes nothing on, but what it writes depends on what comes to it.
    if (take(p, lane, ring, slot, 0, t, from, u) && !Cell::BACK) return true;
    Cell::template step<Full<T>>(from, u, lane.constants, y);
    return Cell::accepts(x, start, u, y, head, T(p.atol), T(p.rtol), r);
}

}  // namespace recsolve

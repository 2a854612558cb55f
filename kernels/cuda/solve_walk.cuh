// Many lanes: a thread walks through time for one lane, as the loop does, and its warp loads steps ahead.

#pragma once

namespace recsolve {

// Takes one step with all that belongs to it.
template <class Cell, class S, class Loads, class T>
__device__ __forceinline__ void walk_step(const Recurrence<Cell>& p, const Lane<Cell, S>& lane, const Loads& ring,
                                          int slot, int i, long long t, T* x, T* sums, S** to) {
    T u[at_least_one<Cell::DRIVES>], y[Cell::PARTS], out[Cell::WRITTEN];
    const bool cut = take(p, lane, ring, slot, i, t, x, u);
    Cell::template step<Full<T>>(x, u, lane.constants, y);
    Cell::results(x, u, lane.constants, y, out, sums);
    if (cut) Cell::leave(y, sums);
    lane.write(p, lane.exists, out, to);
#pragma unroll
    for (int k = 0; k < Cell::PARTS; ++k) x[k] = y[k];
}

// Sums of a lane over all steps: in the type of the states over a few, in double over many.
template <class Cell, class T> struct Sums {
    T few[at_least_one<Cell::SUMS>];
    double all[at_least_one<Cell::SUMS>];

    __device__ void clear() {
#pragma unroll
        for (int i = 0; i < Cell::SUMS; ++i) few[i] = T(0), all[i] = 0.0;
    }
    __device__ void forget() {
#pragma unroll
        for (int i = 0; i < Cell::SUMS; ++i) few[i] = T(0);
    }
    __device__ void gather() {
#pragma unroll
        for (int i = 0; i < Cell::SUMS; ++i) all[i] += few[i], few[i] = T(0);
    }
};

template <class Cell, class S, bool CUT, int WARPS, int STEPS, int SLOTS>
__global__ void __launch_bounds__(WARPS* LANES) solve_by_walk(const Recurrence<Cell> p) {
    using T = typename Stored<S>::Number;
    using Loads = Ring<Cell, S, CUT, STEPS, SLOTS>;
    const int warp = threadIdx.x / LANES;
    const long long group = static_cast<long long>(blockIdx.x) * WARPS + warp;
    if (group >= p.groups) return;
    Lane<Cell, S> lane(p, group * LANES);
    Loads ring(p, lane, shared_memory() + warp * Loads::BYTES);
    Sums<Cell, T> sums;
    sums.clear();
    S* to[Cell::WRITTEN];
    lane.places(p, 0, to);
    T x[Cell::PARTS];
    lane.begin(p, x);
    const auto count = [&](long long t) { return static_cast<int>(t >= p.steps ? 0 : p.steps - t < STEPS ? p.steps - t : STEPS); };
    for (int i = 0; i < SLOTS - 1; ++i) {
        ring.ask(i, i * STEPS, count(i * STEPS));
        commit_copies();
    }
    int slot = 0;
    for (long long t = 0; t < p.steps; t += STEPS) {
        __syncwarp();
        const long long next = t + (SLOTS - 1) * STEPS;
        ring.ask(slot == 0 ? SLOTS - 1 : slot - 1, next, count(next));
        commit_copies();
        ring.template wait<SLOTS - 1>();
        if (count(t) == STEPS) {
#pragma unroll 4
            for (int i = 0; i < STEPS; ++i) walk_step(p, lane, ring, slot, i, t + i, x, sums.few, to);
        } else {
            for (int i = 0; i < count(t); ++i) walk_step(p, lane, ring, slot, i, t + i, x, sums.few, to);
        }
        sums.gather();
        slot = slot == SLOTS - 1 ? 0 : slot + 1;
    }
    bool finite_end = true;
#pragma unroll
    for (int k = 0; k < Cell::PARTS; ++k) finite_end &= finite(x[k]);
    if (lane.exists && !finite_end) address<int>(p.reports)[blockIdx.x * FIELDS + NOT_FINITE] = 1;
#pragma unroll
    for (int i = 0; i < Cell::SUMS; ++i) {
        if (lane.exists) address<double>(p.sums)[i * p.lanes + lane.index] = sums.all[i];
    }
}

}  // namespace recsolve

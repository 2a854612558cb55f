// Many lanes, or many segments of time: a thread walks through time for one lane, as the loop does, and its warp loads
// steps ahead.

#pragma once

#include "solve/boundaries.cuh"

namespace recsolve {

// One warp on its way; `told` is a word of shared memory of its own.
template <class Cell, class S, bool CUT, int STEPS, int SLOTS> struct Walk {
    using T = typename Stored<S>::Number;
    using Loads = DriveRing<Cell, S, CUT, STEPS, SLOTS>;
    static constexpr int K = Cell::PARTS, LAST = STEPS - 1;

    const Recurrence<Cell>& p;
    const long long segment, first, last;
    const SolveLane<Cell, S> lane;
    const Loads ring;
    const Between<Cell, T> between;
    int* const told;
    int* const counts;
    Sums<Cell, T> sums;
    S* to[Cell::WRITTEN];

    // `index` counts warps over groups of lanes first, then over segments.
    __device__ Walk(const Recurrence<Cell>& problem, long long index)
        : p(problem), segment(index / p.groups), first(segment * p.span),
          last(p.segments == 1 || first + p.span > p.steps ? p.steps : first + p.span),
          lane(problem, index % p.groups * LANES),
          ring(problem, lane, shared_memory() + threadIdx.x / LANES * Loads::BYTES),
          between(problem, lane.index, lane.exists),
          told(reinterpret_cast<int*>(shared_memory() + blockDim.x / LANES * Loads::BYTES) + threadIdx.x / LANES),
          counts(address<int>(p.reports) + blockIdx.x * FIELDS) {
        sums.clear();
    }

    __device__ int count(long long t) const {
        return static_cast<int>(t >= last ? 0 : last - t < STEPS ? last - t : STEPS);
    }

    // Takes one step with all that belongs to it.
    template <bool WRITE> __device__ __forceinline__ void step(int slot, int i, long long t, T* x) {
        T u[at_least_one<Cell::DRIVES>], y[K], out[Cell::WRITTEN];
        const bool cut = take(p, lane, ring, slot, i, t + i, x, u);
        Cell::template step<Full<T>>(x, u, lane.constants, y);
        if (WRITE) Cell::results(x, u, lane.constants, y, out, sums.few);
        if (cut) Cell::leave(y, sums.few);
        if (WRITE) lane.write(p, lane.exists, out, to);
#pragma unroll
        for (int k = 0; k < K; ++k) x[k] = y[k];
    }

    template <bool WRITE> __device__ __forceinline__ void piece(int slot, long long t, T* x) {
        if (count(t) == STEPS) {
#pragma unroll 4
            for (int i = 0; i < STEPS; ++i) step<WRITE>(slot, i, t, x);
        } else {
            for (int i = 0; i < count(t); ++i) step<WRITE>(slot, i, t, x);
        }
        if (WRITE) sums.gather();
        if (!WRITE) sums.forget();
    }

    // Calls of(slot, t) for pieces from `from` on, which have come in, until one returns false.
    template <class Of> __device__ __forceinline__ void pieces(long long from, Of of) {
        for (int i = 0; i < SLOTS - 1; ++i) {
            ring.ask(i, from + i * STEPS, count(from + i * STEPS));
            commit_copies();
        }
        int slot = 0;
        for (long long t = from; t < last; t += STEPS) {
            __syncwarp();
            const long long next = t + (SLOTS - 1) * STEPS;
            ring.ask(slot == 0 ? SLOTS - 1 : slot - 1, next, count(next));
            commit_copies();
            ring.template wait<SLOTS - 1>();
            if (!of(slot, t)) break;
            slot = slot == SLOTS - 1 ? 0 : slot + 1;
        }
        ring.template wait<0>();
    }

    // Walks the segment from x on; the steps from `from` to its first one only lead to the state before that.
    __device__ __forceinline__ void run(long long from, T* x) {
        lane.places(p, first, to);
        pieces(from, [&](int slot, long long t) {
            if (t == first && p.segments > 1) between.template put<K>(x, p.starts, between.now, segment);
            if (t < first) {
                piece<false>(slot, t, x);
            } else {
                piece<true>(slot, t, x);
            }
            return true;
        });
        if (p.segments > 1) between.template put<K>(x, p.ends, between.now, segment);
        add_up();
    }

    __device__ void add_up() const {
#pragma unroll
        for (int i = 0; i < Cell::SUMS; ++i) {
            if (lane.exists) address<double>(p.sums)[(segment * Cell::SUMS + i) * p.lanes + lane.index] = sums.all[i];
        }
    }

    __device__ bool any(bool condition) const { return any_of_warp(told, lane.exists && condition); }

    __device__ void tell(Fields field, int value) const {
        if (threadIdx.x % LANES == 0) atomicAdd(counts + field, value);
    }

    __device__ void note(T r) const {
        if (lane.exists && r > T(0)) atomicMax(counts + WORST, bits_of(static_cast<float>(r)));
    }

    // Whether the segment follows from the one before it, whose end becomes x.
    __device__ bool follows(T* x) {
        T start[K], r = T(0);
        ring.ask(0, first, 1);
        commit_copies();
        between.template get<K>(x, p.ends, between.before, segment - 1);
        between.template get<K>(start, p.starts, between.before, segment);
        ring.template wait<0>();
        const bool all = !any(!may_start(p, lane, ring, 0, first, x, start, r));
        if (all) note(r);
        __syncwarp();
        return all;
    }

    // Walks the segment from x on until that meets what is there, where nothing is added up; returns whether it does.
    __device__ bool meet(T* x) {
        bool met = false;
        lane.places(p, first, to);
        pieces(first, [&](int slot, long long t) {
            const bool whole = Cell::SUMS == 0 && count(t) == STEPS;
            T there[K], u[at_least_one<Cell::DRIVES>], y[K], r = T(0);
#pragma unroll
            for (int k = 0; k < K; ++k) {
                there[k] = whole && lane.exists ? Stored<S>::get(to[k][LAST * p.written[k].time]) : T(0);
            }
            for (int i = 0; i < count(t) - whole; ++i) step<true>(slot, i, t, x);
            sums.gather();
            if (!whole) return true;
            T from[K];
#pragma unroll
            for (int k = 0; k < K; ++k) from[k] = x[k];
            const bool cut = take(p, lane, ring, slot, LAST, t + LAST, from, u);
            Cell::template step<Full<T>>(from, u, lane.constants, y);
#pragma unroll
            for (int k = 0; k < K; ++k) y[k] = Stored<S>::get(Stored<S>::put(y[k]));
            met = !any(!cut && !Cell::accepts(x, x, u, y, there, T(p.atol), T(p.rtol), r));
            if (met) note(r);
            if (!met) step<true>(slot, LAST, t, x);
            return !met;
        });
        return met;
    }

    // Makes the segment follow from what the round before has left.
    __device__ void again() {
        T x[K], end[K];
        between.template get<K>(end, p.ends, between.before, segment);
        bool moved = false;
        if (segment == 0 || follows(x)) {
            if (segment == 0) lane.begin(p, x);
            if (segment > 0) between.template get<K>(x, p.starts, between.before, segment);
            between.template put<K>(x, p.starts, between.now, segment);
        } else {
            between.template put<K>(x, p.starts, between.now, segment);
            tell(REDONE, 1);
            if (!meet(x)) {
#pragma unroll
                for (int k = 0; k < K; ++k) moved |= !same(x[k], end[k]), end[k] = x[k];
                add_up();
            }
        }
        between.template put<K>(end, p.ends, between.now, segment);
        if (any(moved) && threadIdx.x % LANES == 0) atomicAdd(address<int>(p.changed) + p.round, 1);
    }
};

template <class Cell, class S, bool CUT, int WARPS, int STEPS, int SLOTS>
__global__ void __launch_bounds__(WARPS* LANES) solve_by_walk(const Recurrence<Cell> p) {
    using T = typename Stored<S>::Number;
    const long long index = static_cast<long long>(blockIdx.x) * WARPS + threadIdx.x / LANES;
    if (index >= p.groups * p.segments) return;
    Walk<Cell, S, CUT, STEPS, SLOTS> warp(p, index);
    T x[Cell::PARTS];
    warp.lane.begin(p, x);
    warp.run(warp.first > p.burn ? warp.first - p.burn : 0, x);
}

template <class Cell, class S, bool CUT, int WARPS, int STEPS, int SLOTS>
__global__ void __launch_bounds__(WARPS* LANES) walk_again(const Recurrence<Cell> p) {
    const long long index = static_cast<long long>(blockIdx.x) * WARPS + threadIdx.x / LANES;
    if (index < p.groups * p.segments && !done(p)) Walk<Cell, S, CUT, STEPS, SLOTS>(p, index).again();
}

}  // namespace recsolve

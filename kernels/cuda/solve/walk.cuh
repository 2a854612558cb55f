// A warp walks a segment of time: a thread for each of 32 lanes, as the loop does, with the drives of the next steps on
// their way. It either writes what it finds, or carries along the derivative of its state by that before the segment.

#pragma once

#include "solve/link.cuh"
#include "solve/ring.cuh"

namespace recsolve {

// What a walk does: it writes, or carries the derivative of its state, or does so with rough functions (which are of no use
// where much is remembered: of 1 - z, for a gate near 1, nothing is left), or writes until it meets what is there.
enum Kind { WRITE, LINEAR, GUESS, MEND };

template <Kind KIND, class Cell, class T> struct Functions {
    using Of = Full<T>;
};
template <class Cell, class T> struct Functions<GUESS, Cell, T> {
    using Of = typename Cell::template Guess<T>;
};

template <class Cell, class S, bool CUT, int STEPS, int SLOTS> struct Walk {
    using T = typename Stored<S>::Number;
    using Loads = DriveRing<Cell, S, CUT, STEPS, SLOTS>;
    static constexpr int K = Cell::PARTS, D = at_least_one<Cell::DRIVES>;

    const Recurrence<Cell>& p;
    const long long segment, first, last;
    const SolveLane<Cell, S> lane;
    const Loads ring;
    int* const told;  // a word of the warp's own
    T start[K], end[K];
    T A[K * K];  // the derivative of the end by the start, as far as it is known
    bool written = false;
    unsigned int check = 0;  // of what has been written
    T defect = T(0);         // the largest where that has been met
    Sums<Cell, T> sums;
    S* to[Cell::WRITTEN];

    __device__ Walk(const Recurrence<Cell>& problem, long long group, long long number, unsigned char* room, int* word)
        : p(problem), segment(number), first(number * p.span), last(ends(problem, number)), lane(problem, group * LANES),
          ring(problem, lane, room), told(word) {
        lane.begin(p, first <= p.burn, start);
#pragma unroll
        for (int k = 0; k < K * K; ++k) A[k] = T(0);
    }

    __device__ static long long ends(const Recurrence<Cell>& p, long long segment) {
        const long long end = (segment + 1) * p.span;
        return p.segments <= 1 || end > p.steps ? p.steps : end;
    }

    __device__ bool any(bool condition) const { return any_of_warp(told, lane.exists && condition); }

    __device__ int count(long long t) const {
        return static_cast<int>(t >= last ? 0 : last - t < STEPS ? last - t : STEPS);
    }

    // Asks for the first steps from a time on: what may be waited for as what `follows` needs, and is what `run` begins with.
    // A walk that ended early has asked for more, and must not have it come after that.
    __device__ void ask(long long from) const {
        ring.template wait<0>();
        for (int i = 0; i < SLOTS - 1; ++i) {
            ring.ask(i, from + i * STEPS, count(from + i * STEPS));
            commit_copies();
        }
    }

    // Takes one step with all that belongs to it, or its derivative into the product P; returns the checksum of what it writes.
    template <Kind KIND>
    __device__ __forceinline__ unsigned int step(int slot, int i, long long t, T* x, T* P, unsigned int weight) {
        T u[D], y[K], J[K * K], out[Cell::WRITTEN];
        unsigned int sum = 0;
        const bool cut = take(p, lane, ring, slot, i, t + i, x, u);
        if constexpr (KIND == WRITE || KIND == MEND) {
            Cell::template step<Full<T>>(x, u, lane.constants, y);
            if (KIND == MEND && !cut) approach(y);
            Cell::results(x, u, lane.constants, y, out, sums.few);
            if (cut) Cell::leave(y, sums.few);
            sum += lane.write(p, out, to, weight);
        } else {
            Cell::template linear<typename Functions<KIND, Cell, T>::Of>(x, u, lane.constants, y, J);
            if (cut) Cell::leave(y, sums.few);
            multiply<K>(J, P);
#pragma unroll
            for (int k = 0; k < K * K; ++k) P[k] = cut ? T(0) : P[k];
        }
#pragma unroll
        for (int k = 0; k < K; ++k) x[k] = y[k];
        return sum;
    }

    template <Kind KIND> __device__ __forceinline__ unsigned int piece(int slot, long long t, T* x, T* P) {
        unsigned int check = 0, weight = SolveLane<Cell, S>::weight(t);
        if (count(t) == STEPS) {
#pragma unroll 4
            for (int i = 0; i < STEPS; ++i, weight += 2 * K) check += step<KIND>(slot, i, t, x, P, weight);
        } else {
            for (int i = 0; i < count(t); ++i, weight += 2 * K) check += step<KIND>(slot, i, t, x, P, weight);
        }
        if (KIND == WRITE) sums.gather();
        if (KIND != WRITE) sums.forget();
        return check;
    }

    // Waits for the steps at time t, in a slot, and asks for those that come into the slot before.
    __device__ void advance(int slot, long long t) const {
        __syncwarp();
        const long long next = t + (SLOTS - 1) * STEPS;
        ring.ask(slot == 0 ? SLOTS - 1 : slot - 1, next, count(next));
        commit_copies();
        ring.template wait<SLOTS - 1>();
    }

    // Walks all of the segment from `start` on, whose first steps have been asked for.
    __device__ __forceinline__ void write() {
        T x[K], P[K * K];
        int slot = 0;
#pragma unroll
        for (int k = 0; k < K; ++k) x[k] = start[k];
        sums.clear();
        lane.places(p, first, to);
        for (long long t = first; t < last; t += STEPS, slot = slot == SLOTS - 1 ? 0 : slot + 1) {
            advance(slot, t);
            check += piece<WRITE>(slot, t, x, P);
        }
        finish();
    }

    // Walks from `start` at a time that has been asked for, in the segment or before it, to the end. Where it begins before
    // the segment, it writes if by then it has forgotten its start; what comes early is forgotten too, and may be rough.
    __device__ __forceinline__ void run(long long from, Kind kind) {
        T x[K], P[K * K];
        int slot = 0;
        check = 0, defect = T(0);
#pragma unroll
        for (int k = 0; k < K; ++k) x[k] = start[k];
        identity<K>(P);
        sums.clear();
        lane.places(p, first, to);
        for (long long t = from; t < last; t += STEPS, slot = slot == SLOTS - 1 ? 0 : slot + 1) {
            advance(slot, t);
            if (t == first && from < first) {
                kind = forgets(P) ? WRITE : LINEAR;
                identity<K>(P);
#pragma unroll
                for (int k = 0; k < K; ++k) start[k] = x[k];
            }
            if (t >= first && kind == WRITE) {
                check += piece<WRITE>(slot, t, x, P);
            } else if (Cell::ROUGH && 2 * t < from + first) {
                piece<GUESS>(slot, t, x, P);
            } else {
                piece<LINEAR>(slot, t, x, P);
            }
        }
#pragma unroll
        for (int k = 0; k < K; ++k) end[k] = x[k];
#pragma unroll
        for (int k = 0; k < K * K; ++k) A[k] = kind == WRITE ? A[k] : P[k];
        written = kind == WRITE;
        if (written) finish();
    }

    // Takes a new state as near to the one that is there as the tolerance allows; returns whether it is that one.
    __device__ bool approach(T* y) {
        bool meets = true;
#pragma unroll
        for (int k = 0; k < K; ++k) {
            const T there = lane.exists ? Stored<S>::get(*to[k]) : y[k], away = there - y[k];
            const T most = T(SLACK) * (T(p.atol) + T(p.rtol) * larger(size_of(y[k]), size_of(there)));
            const bool met = same(there, y[k]) || (finite(away) && size_of(away) <= most);
            if (finite(away)) defect = larger(defect, met ? size_of(away) : most);
            y[k] = met ? there : finite(away) ? y[k] + (away > T(0) ? most : -most) : y[k];
            meets &= met;
        }
        return meets;
    }

    // Walks from `start` on, next to which it has started before, until that meets what it has written then.
    __device__ __forceinline__ void mend() {
        T x[K], P[K * K], y[K], u[D];
        int slot = 0;
#pragma unroll
        for (int k = 0; k < K; ++k) x[k] = start[k];
        lane.places(p, first, to);
        for (long long t = first; t < last; t += STEPS, slot = slot == SLOTS - 1 ? 0 : slot + 1) {
            advance(slot, t);
            // A single step is walked: what it missed here would add to what is missed where segments meet.
            const int steps = count(t), rest = last - first > 1 ? steps - 1 : steps;
            unsigned int weight = SolveLane<Cell, S>::weight(t);
            unsigned int there[STEPS];  // checksums, which come in together
#pragma unroll
            for (int i = 0; i < STEPS; ++i) there[i] = i < steps ? lane.stored(p, to, i, weight + 2 * K * i) : 0;
#pragma unroll
            for (int i = 0; i < STEPS; ++i) check -= i < rest ? there[i] : 0;
            for (int i = 0; i < rest; ++i, weight += 2 * K) check += step<WRITE>(slot, i, t, x, P, weight);
            if (rest == steps) break;
            T from[K];
#pragma unroll
            for (int k = 0; k < K; ++k) from[k] = x[k];
            const bool cut = take(p, lane, ring, slot, rest, t + rest, from, u);
            Cell::template step<Full<T>>(from, u, lane.constants, y);
            if (!any(!cut && !approach(y))) return finish();
#pragma unroll
            for (int i = 0; i < STEPS; ++i) check -= i == rest ? there[i] : 0;
            check += step<MEND>(slot, rest, t, x, P, weight);
        }
#pragma unroll
        for (int k = 0; k < K; ++k) end[k] = x[k];
        finish();
    }

    // Of derivatives that are not finite nothing is known, and nothing is to be gained by knowing more.
    __device__ bool forgets(const T* P) const {
        bool remembers = false;
#pragma unroll
        for (int k = 0; k < K * K; ++k) remembers |= size_of(P[k]) > T(p.forgotten);
        return p.exact || !any(remembers);
    }

    // Leaves what belongs to a segment that has been written.
    __device__ void finish() const {
        if (!lane.exists) return;
        if (!Cell::BACK) {
            address<unsigned int>(p.checks)[segment * p.lanes + lane.index] = check + static_cast<unsigned int>(p.ticket);
        }
#pragma unroll
        for (int i = 0; i < Cell::SUMS; ++i) {
            address<double>(p.sums)[(segment * Cell::SUMS + i) * p.lanes + lane.index] = sums.all[i];
        }
    }

    // How near the start has to be to the end before it; on the way back the drives of the first step, which have been asked
    // for, say what it is added to.
    __device__ void bounds(T* bound) const {
        T u[D];
        if (Cell::BACK) ring.template wait<0>(), ring.get(0, 0, u);
#pragma unroll
        for (int k = 0; k < K; ++k) {
            const T size = size_of(start[k]), other = Cell::BACK ? size_of(u[D - K + k]) : T(0);
            bound[k] = T(p.atol) + T(p.rtol) * larger(size, other);
        }
    }

    // Whether the first step, which has been asked for, may start from x where it started from `start`.
    __device__ bool follows(const T* x, T& r) const {
        T u[D], y[K], head[K], from[K], assumed[K];
#pragma unroll
        for (int k = 0; k < K; ++k) from[k] = x[k], assumed[k] = start[k];
        take(p, lane, ring, 0, 0, first, assumed, u);
        Cell::template step<Full<T>>(assumed, u, lane.constants, head);
        // On the way back a step that is cut passes nothing on, but what it writes depends on what comes to it.
        if (take(p, lane, ring, 0, 0, first, from, u) && !Cell::BACK) return true;
        Cell::template step<Full<T>>(from, u, lane.constants, y);
        return Cell::accepts(x, start, u, y, head, T(p.atol), T(p.rtol), r);
    }
};

// Enough lanes: every warp walks 32 of them through all of time.
template <class Cell, class S, bool CUT, int WARPS, int STEPS, int SLOTS>
__global__ void __launch_bounds__(WARPS* LANES) solve_lanes(const Recurrence<Cell> p) {
    using Own = Walk<Cell, S, CUT, STEPS, SLOTS>;
    const int warp = threadIdx.x / LANES;
    const long long group = static_cast<long long>(blockIdx.x) * WARPS + warp;
    if (group >= p.groups) return;
    Own walk(p, group, 0, shared_memory() + warp * Own::Loads::BYTES, nullptr);
    walk.ask(0);
    walk.write();
    if (threadIdx.x % LANES == 0) atomicAdd(address<int>(p.counters) + ENDED, 1);
}

}  // namespace recsolve

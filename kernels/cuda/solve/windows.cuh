// Fewer lanes: multiple shooting in windows of time. A block takes 32 lanes; each of its warps walks a chunk of steps
// from a guess of their first state and carries the derivative along; one affine scan over the ends of the chunks then
// gives better first states (Newton's method for the chunk boundaries; Bellen and Zennaro 1989).
//
// Inside a chunk a walk is exact, so the defect sits at boundaries only: a window is accepted when every chunk could as
// well have started from the end of the chunk before it. The first sweeps only look for first states, and may be
// rough; what is written, and the test of it, is not. A window that is not accepted in time is walked.

#pragma once

#include "solve/boundaries.cuh"

namespace recsolve {

template <class Cell, class S, bool CUT, int WARPS, int CHUNK> struct Windows {
    using T = typename Stored<S>::Number;
    using Loads = DriveRing<Cell, S, CUT, CHUNK, 2>;
    static constexpr int K = Cell::PARTS, D = at_least_one<Cell::DRIVES>, LENGTH = WARPS * CHUNK;
    static constexpr int UNROLL = K == 1 && !CUT ? 2 : 1, END = 0, START = K, PARTIALS = 2 * K, TOLD = 2 * K + K * K;
    static constexpr int BYTES = WARPS * Loads::BYTES + 2 * WARPS * TOLD * LANES * sizeof(T) + (WARPS + FIELDS) * sizeof(int);

    const Recurrence<Cell>& p;
    const int warp, own;
    SolveLane<Cell, S> lane;
    Loads ring;
    T* told;  // [parity][chunk][number][lane]
    int parity = 0;
    bool writes = true;
    Sums<Cell, T> sums;
    T product[K * K];  // of the derivatives since it was cleared, in the first warp
    T worst = T(0);

    __device__ Windows(const Recurrence<Cell>& problem, long long group)
        : p(problem), warp(threadIdx.x / LANES), own(threadIdx.x % LANES), lane(problem, group * LANES),
          ring(problem, lane, shared_memory() + warp * Loads::BYTES) {
        told = reinterpret_cast<T*>(shared_memory() + WARPS * Loads::BYTES);
        if (threadIdx.x < FIELDS) counts()[threadIdx.x] = 0;
        __syncthreads();
        sums.clear();
        identity(product);
    }

    // What the block reports, written by its first thread; then a word for each warp.
    __device__ int* counts() const { return reinterpret_cast<int*>(told + 2 * WARPS * TOLD * LANES); }

    __device__ static void identity(T* A) {
#pragma unroll
        for (int i = 0; i < K * K; ++i) A[i] = i % (K + 1) == 0 ? T(1) : T(0);
    }

    // A <- left A.
    __device__ static void multiply(const T* left, T* A) {
#pragma unroll
        for (int j = 0; j < K; ++j) {
            T column[K];
#pragma unroll
            for (int i = 0; i < K; ++i) {
                column[i] = left[i * K] * A[j];
#pragma unroll
                for (int m = 1; m < K; ++m) column[i] = multiply_add(left[i * K + m], A[m * K + j], column[i]);
            }
#pragma unroll
            for (int i = 0; i < K; ++i) A[i * K + j] = column[i];
        }
    }

    // x <- end + A (x - start), or the end itself where that is not finite.
    __device__ static void correct(const T* end, const T* start, const T* A, T* x) {
        T moved[K];
#pragma unroll
        for (int i = 0; i < K; ++i) moved[i] = x[i] - start[i];
#pragma unroll
        for (int i = 0; i < K; ++i) {
            T y = end[i];
#pragma unroll
            for (int j = 0; j < K; ++j) y = multiply_add(A[i * K + j], moved[j], y);
            x[i] = finite(y) ? y : end[i];
        }
    }

    __device__ T* place(int chunk) const { return told + ((parity * WARPS + chunk) * TOLD) * LANES + own; }

    template <int COUNT> __device__ static void put(const T* x, T* to) {
#pragma unroll
        for (int i = 0; i < COUNT; ++i) to[i * LANES] = x[i];
    }
    template <int COUNT> __device__ static void get(const T* from, T* x) {
#pragma unroll
        for (int i = 0; i < COUNT; ++i) x[i] = from[i * LANES];
    }

    __device__ static int clamped(long long count) {
        return static_cast<int>(count < 0 ? 0 : count > CHUNK ? CHUNK : count);
    }

    // Walks `count` steps of a slot from x on. A is the derivative of the last state, `head` the first new state.
    template <class M, bool LINEAR, bool WRITE>
    __device__ __forceinline__ void sweep(int slot, long long t, int count, T* x, T* A, T* head) {
        S* to[Cell::WRITTEN];
        if (LINEAR) identity(A);
        if (WRITE) sums.forget(), lane.places(p, t, to);
#pragma unroll UNROLL
        for (int i = 0; i < count; ++i) {
            T u[D], y[K], J[K * K], out[Cell::WRITTEN];
            const bool cut = take(p, lane, ring, slot, i, t + i, x, u);
            if (LINEAR) Cell::template linear<M>(x, u, lane.constants, y, J);
            if (!LINEAR) Cell::template step<M>(x, u, lane.constants, y);
            if (WRITE) Cell::results(x, u, lane.constants, y, out, sums.few);
            if (cut) Cell::leave(y, sums.few);
            if (LINEAR) multiply(J, A);
#pragma unroll
            for (int k = 0; LINEAR && k < K * K; ++k) A[k] = cut ? T(0) : A[k];
            if (WRITE) lane.write(p, lane.exists && writes, out, to);
#pragma unroll
            for (int k = 0; k < K; ++k) {
                x[k] = y[k];
                if (WRITE && i == 0) head[k] = y[k];
            }
        }
    }

    // Whether the step at time t, at the head of this warp's slot, may start from x where it started from `start`, with
    // the result `head`.
    __device__ bool accepts(int slot, long long t, const T* x, const T* start, const T* head, T& r) const {
        T u[D], y[K], given[K];
#pragma unroll
        for (int i = 0; i < K; ++i) given[i] = x[i];
        if (take(p, lane, ring, slot, 0, t, given, u) && !Cell::BACK) return true;  // as in may_start
        Cell::template step<Full<T>>(given, u, lane.constants, y);
        return Cell::accepts(x, start, u, y, head, T(p.atol), T(p.rtol), r);
    }

    // The state before a chunk, by the scan over the chunks before it.
    __device__ void scan(int chunk, T* x) const {
        T end[K], from[K], A[K * K];
        get<K>(place(0) + START * LANES, x);
        for (int i = 0; i < chunk; ++i) {
            const T* of = place(i);
            get<K>(of + END * LANES, end);
            get<K>(of + START * LANES, from);
            get<K * K>(of + PARTIALS * LANES, A);
            correct(end, from, A, x);
        }
    }

    // Replaces `start` by the state that the scan gives; returns whether that is near what it was.
    __device__ bool shoot(T* start) {
        T x[K];
        scan(warp, x);
        const bool near = close(start, x);
#pragma unroll
        for (int i = 0; i < K; ++i) start[i] = x[i];
        return !any_of_warp(counts() + FIELDS + warp, lane.exists && !near);
    }

    // Solves [first, last) from the state x on and leaves the last one in x. The block comes here as a whole.
    __device__ __forceinline__ void solve(long long first, long long last, T* x) {
        int slot = 0;
        ring.ask(slot, first + warp * CHUNK, clamped(last - first - warp * CHUNK));
        commit_copies();
        for (long long t = first; t < last; t += LENGTH, slot ^= 1) {
            const long long next = t + LENGTH + warp * CHUNK;
            ring.ask(slot ^ 1, next, clamped(last - next));
            commit_copies();
            ring.template wait<1>();
            window(slot, t + warp * CHUNK, t, last, x);
        }
        ring.template wait<0>();
    }

    // Solves a window; this warp's chunk begins at t.
    __device__ __forceinline__ void window(int slot, long long t, long long first, long long last, T* x) {
        const int count = clamped(last - t);
        const int chunks = last - first >= LENGTH ? WARPS : static_cast<int>((last - first + CHUNK - 1) / CHUNK);
        const int limit = static_cast<int>(p.most), rough = p.rough < limit ? static_cast<int>(p.rough) : limit;
        T start[K], A[K * K], head[K];
#pragma unroll
        for (int i = 0; i < K; ++i) start[i] = x[i];
#pragma unroll
        for (int i = 0; i < K * K; ++i) A[i] = T(0);
        bool near = false, accepted = false;
        int done = 0;
        for (;; ++done) {
            const int turn = done - limit;  // from 0 on: the chunk that is walked, one after the other
            if (turn < 0) parity ^= 1;
            if (turn < 0 || turn == warp) {
                T end[K];
#pragma unroll
                for (int i = 0; i < K; ++i) end[i] = start[i];
                if (done < rough) {
                    sweep<typename Cell::template Guess<T>, true, false>(slot, t, count, end, A, head);
                } else if (Cell::IS_LINEAR || near || turn >= 0) {
                    sweep<Full<T>, false, true>(slot, t, count, end, A, head);
                } else {
                    sweep<Full<T>, true, true>(slot, t, count, end, A, head);
                }
                put<K>(end, place(warp) + END * LANES);
                put<K>(start, place(warp) + START * LANES);
                put<K * K>(A, place(warp) + PARTIALS * LANES);
            }
            __syncthreads();
            if (turn < 0 && done >= rough) {
                accepted = agree(slot, t, count, start, head);
                if (accepted) break;
            }
            if (turn + 1 >= chunks) break;
            if (turn < -1) near = shoot(start);
            if (turn >= -1 && warp == turn + 1) get<K>(place(warp > 0 ? warp - 1 : 0) + (warp > 0 ? END : START) * LANES, start);
        }
        if (writes) sums.gather();
        get<K>(place(chunks - 1) + END * LANES, x);
        if (!writes && accepted) scan(chunks, x);  // closer than the end of the last chunk
        if (p.segments > 1 && warp == 0) multiply_all(chunks);
        if (threadIdx.x == 0) note(accepted ? done + 1 : limit, !accepted);
    }

    __device__ void note(int sweeps, bool walked) {
        counts()[WINDOWS] += 1, counts()[SWEEPS] += sweeps, counts()[WALKED] += walked;
        if (counts()[MOST_SWEEPS] < sweeps) counts()[MOST_SWEEPS] = sweeps;
    }

    __device__ void multiply_all(int chunks) {
        T A[K * K];
        for (int i = 0; i < chunks; ++i) {
            get<K * K>(place(i) + PARTIALS * LANES, A);
            multiply(A, product);
        }
    }

    // Whether all chunks of the block agree at their boundaries.
    __device__ bool agree(int slot, long long t, int count, const T* start, const T* head) {
        bool agrees = true;
        T r = T(0);
        if (lane.exists && warp > 0 && count > 0) {
            T before[K];
            get<K>(place(warp - 1) + END * LANES, before);
            agrees = writes ? accepts(slot, t, before, start, head, r) : close(before, start);
        }
        const bool all = !__syncthreads_or(!agrees);
        if (all) worst = larger(worst, r);
        return all;
    }

    // Whether a correction of x to y is so small that the next one will be nothing.
    __device__ bool close(const T* x, const T* y) const {
        bool near = true;
#pragma unroll
        for (int i = 0; i < K; ++i) {
            const T distance = size_of(y[i] - x[i]);
            near &= finite(distance) && distance <= T(p.near) * (T(p.atol) + T(p.rtol) * size_of(y[i]));
        }
        return near;
    }

    // Tells the launcher what happened; the block comes here as a whole.
    __device__ void report() {
        __syncthreads();
        if (worst > T(0)) atomicMax(counts() + WORST, bits_of(static_cast<float>(worst)));
        __syncthreads();
        if (threadIdx.x < FIELDS) address<int>(p.reports)[blockIdx.x * FIELDS + threadIdx.x] = counts()[threadIdx.x];
    }
};

}  // namespace recsolve

// Segments of time that are solved in windows, each by a block for 32 lanes.

#pragma once

#include "solve/windows.cuh"

namespace recsolve {

template <class Cell, class S, bool CUT, int WARPS, int CHUNK> struct Segments : Windows<Cell, S, CUT, WARPS, CHUNK> {
    using Base = Windows<Cell, S, CUT, WARPS, CHUNK>;
    using T = typename Base::T;
    static constexpr int K = Base::K;
    using Base::lane, Base::p, Base::own, Base::warp, Base::ring;

    Between<Cell, T> between;

    __device__ Segments(const Recurrence<Cell>& problem, long long group)
        : Base(problem, group), between(problem, lane.index, lane.exists) {}

    // Solves a segment from the state x on, and tells the others.
    __device__ void run(long long turn, long long segment, T* x) {
        const long long first = segment * p.span, end = first + p.span;
        T start[K];
#pragma unroll
        for (int i = 0; i < K; ++i) start[i] = x[i];
        this->identity(this->product);
        this->sums.clear();
        this->solve(first, end < p.steps ? end : p.steps, x);
        if (warp == 0 && p.segments > 1) {
            between.template put<K>(start, p.starts, turn, segment);
            between.template put<K>(x, p.ends, turn, segment);
            if (p.products != 0) between.template put<K * K>(this->product, p.products, turn, segment);
        }
        add_up(segment);
        __syncthreads();
    }

    // Adds up the sums of all warps: those of a segment are written again where it is solved again.
    __device__ void add_up(long long segment) {
        if (Cell::SUMS == 0) return;
        double* to = address<double>(p.sums) + segment * Cell::SUMS * p.lanes + lane.index;
        for (int turn = 0; turn < WARPS; ++turn) {
#pragma unroll
            for (int i = 0; i < Cell::SUMS; ++i) {
                if (turn != warp || !lane.exists) continue;
                to[i * p.lanes] = this->sums.all[i] + (turn > 0 ? to[i * p.lanes] : 0.0);
            }
            __syncthreads();
        }
    }

    __device__ void first_pass(long long segment) {
        const long long first = segment * p.span, from = first > p.burn ? first - p.burn : 0;
        T x[K];
        lane.begin(p, x);
        if (from < first) {
            this->writes = false;
            this->solve(from, first, x);
            this->writes = true;
        }
        run(between.now, segment, x);
    }

    // Solves a segment again if the scan moves its first state by more than rounding does.
    __device__ void second_pass(long long segment) {
        T x[K], start[K], end[K], A[K * K];
        lane.begin(p, x);
        for (long long i = 0; i < segment; ++i) {
            between.template get<K>(start, p.starts, between.before, i);
            between.template get<K>(end, p.ends, between.before, i);
            between.template get<K * K>(A, p.products, between.before, i);
            this->correct(end, start, A, x);
        }
        between.template get<K>(start, p.starts, between.before, segment);
        bool moved = false;
#pragma unroll
        for (int i = 0; i < K; ++i) {
            const T distance = size_of(x[i] - start[i]);
            moved |= !same(x[i], start[i]) && !(finite(distance) && distance <= T(p.atol) + T(p.rtol) * size_of(x[i]));
        }
        if (__syncthreads_or(segment > 0 && lane.exists && moved)) {
            run(between.now, segment, x);
            if (threadIdx.x == 0) this->counts()[REDONE] = 1;
        } else if (warp == 0) {
            between.template put<K>(start, p.starts, between.now, segment);
            between.template get<K>(x, p.ends, between.before, segment);
            between.template put<K>(x, p.ends, between.now, segment);
        }
    }

    // Whether a segment follows from the one before it, in every lane; x becomes the end of that one.
    __device__ bool follows(long long segment, T* x) {
        T start[K], r = T(0);
        ring.ask(0, segment * p.span, 1);
        commit_copies();
        ring.template wait<0>();
        between.template get<K>(x, p.ends, between.before, segment - 1);
        between.template get<K>(start, p.starts, between.before, segment);
        const bool accepted = !lane.exists || may_start(p, lane, ring, 0, segment * p.span, x, start, r);
        if (accepted) this->worst = larger(this->worst, r);
        __syncwarp();
        return accepted;
    }

    __device__ void last_pass() {
        T x[K];
        bool all = true;
        for (long long s = 1 + warp; s < p.segments; s += WARPS) all &= follows(s, x);
        if (!__syncthreads_or(!all)) return;
        int redone = 0;
        for (long long s = 1; s < p.segments; ++s) {
            if (!__syncthreads_or(!follows(s, x))) continue;
            run(between.before, s, x);
            redone += 1;
        }
        if (threadIdx.x == 0) this->counts()[REDONE] = redone;
    }
};

template <class Cell, class S, bool CUT, int WARPS, int CHUNK, int BLOCKS>
__global__ void __launch_bounds__(WARPS* LANES, BLOCKS) solve_by_windows(const Recurrence<Cell> p) {
    Segments<Cell, S, CUT, WARPS, CHUNK> block(p, blockIdx.x % p.groups);
    block.first_pass(blockIdx.x / p.groups);
    block.report();
}

template <class Cell, class S, bool CUT, int WARPS, int CHUNK, int BLOCKS>
__global__ void __launch_bounds__(WARPS* LANES, 1) solve_again(const Recurrence<Cell> p) {
    if (done(p)) return;
    Segments<Cell, S, CUT, WARPS, CHUNK> block(p, blockIdx.x % p.groups);
    if (p.pass == CORRECT) block.second_pass(blockIdx.x / p.groups);
    if (p.pass == REPAIR) block.last_pass();
    block.report();
}

}  // namespace recsolve

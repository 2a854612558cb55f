// Few lanes and long times: segments of time in parallel, each by a block for 32 lanes. A segment starts from a guess:
// the state that some steps before it lead to. Three launches make the result right: all segments; then those whose
// first states an affine scan over the ends of segments moves; and then, one after the other, those that still do not
// follow from the segment before them. With one segment the first launch is all.

#pragma once

namespace recsolve {

template <class Cell, class S, bool CUT, int WARPS, int CHUNK> struct Segments : Windows<Cell, S, CUT, WARPS, CHUNK> {
    using Base = Windows<Cell, S, CUT, WARPS, CHUNK>;
    using T = typename Base::T;
    static constexpr int K = Base::K;
    using Base::lane, Base::p, Base::own, Base::warp, Base::ring;

    __device__ Segments(const Recurrence<Cell>& problem, long long group) : Base(problem, group) {}

    // Numbers of this lane that segments tell: the second pass writes a copy of what the first one wrote.
    __device__ T* of(long long at, long long pass, long long segment, int count) const {
        return address<T>(at) + ((pass * p.segments + segment) * count) * p.lanes + lane.index;
    }
    __device__ void put(const T* x, T* to, int count) const {
        for (int i = 0; i < count; ++i) to[i * p.lanes] = x[i];
    }
    __device__ void get(const T* from, T* x, int count) const {
        for (int i = 0; i < count; ++i) x[i] = lane.exists ? from[i * p.lanes] : T(0);
    }

    // Solves a segment from the state x on, and tells the others.
    __device__ void run(long long pass, long long segment, T* x) {
        const long long first = segment * p.span, end = first + p.span;
        T start[K];
#pragma unroll
        for (int i = 0; i < K; ++i) start[i] = x[i];
        this->identity(this->product);
        this->sums.clear();
        this->solve(first, end < p.steps ? end : p.steps, x);
        if (warp == 0 && lane.exists && p.segments > 1) {
            put(start, of(p.starts, pass, segment, K), K);
            put(x, of(p.ends, pass, segment, K), K);
            put(this->product, of(p.products, pass, segment, K * K), K * K);
        }
        bool finite_end = true;
#pragma unroll
        for (int i = 0; i < K; ++i) finite_end &= finite(x[i]);
        if (lane.exists && !finite_end) this->counts()[NOT_FINITE] = 1;
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
        run(SOLVE, segment, x);
    }

    // Solves a segment again if the scan moves its first state by more than rounding does.
    __device__ void second_pass(long long segment) {
        T x[K], start[K], end[K], A[K * K];
        lane.begin(p, x);
        for (long long i = 0; i < segment; ++i) {
            get(of(p.starts, SOLVE, i, K), start, K);
            get(of(p.ends, SOLVE, i, K), end, K);
            get(of(p.products, SOLVE, i, K * K), A, K * K);
            this->correct(end, start, A, x);
        }
        get(of(p.starts, SOLVE, segment, K), start, K);
        bool moved = false;
#pragma unroll
        for (int i = 0; i < K; ++i) {
            const bool same = x[i] == start[i] || (is_nan(x[i]) && is_nan(start[i]));
            moved |= !same && !(size_of(x[i] - start[i]) <= T(p.atol) + T(p.rtol) * size_of(x[i]));
        }
        if (__syncthreads_or(segment > 0 && lane.exists && moved)) {
            run(CORRECT, segment, x);
            if (threadIdx.x == 0) this->counts()[REDONE] = 1;
        } else if (warp == 0 && lane.exists) {
            put(start, of(p.starts, CORRECT, segment, K), K);
            get(of(p.ends, SOLVE, segment, K), x, K);
            put(x, of(p.ends, CORRECT, segment, K), K);
        }
    }

    // Whether a segment follows from the one before it, in every lane; x becomes the end of that one.
    __device__ bool follows(long long segment, T* x) {
        const long long t = segment * p.span;
        T start[K], from[K], u[Base::D], head[K], r = T(0);
        ring.ask(0, t, 1);
        commit_copies();
        ring.template wait<0>();
        get(of(p.ends, CORRECT, segment - 1, K), x, K);
        get(of(p.starts, CORRECT, segment, K), start, K);
#pragma unroll
        for (int i = 0; i < K; ++i) from[i] = start[i];
        take(p, lane, ring, 0, 0, t, from, u);
        Cell::template step<Full<T>>(from, u, lane.constants, head);
        const bool accepted = !lane.exists || this->accepts(0, t, x, start, head, r);
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
            run(CORRECT, s, x);
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
    Segments<Cell, S, CUT, WARPS, CHUNK> block(p, blockIdx.x % p.groups);
    if (p.pass == CORRECT) block.second_pass(blockIdx.x / p.groups);
    if (p.pass == REPAIR) block.last_pass();
    block.report();
}

}  // namespace recsolve

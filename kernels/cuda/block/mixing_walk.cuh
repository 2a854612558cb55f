// A cell whose mixings couple units, walked through time: a block takes a few sequences from the first step to the
// last, or a cluster of blocks does, each of which has its share of the units.
//
// The state of a unit lies in the registers of one thread of its group. In a step, the stages of the cell alternate with
// products: a stage puts the vectors to be multiplied into the shared memory of all blocks, and after a barrier each
// group of threads multiplies its row. There are two sets of these vectors in turn, so one barrier is enough. Drives are
// copied to shared memory some steps ahead.

#pragma once

#include "block/product.cuh"
#include "common/elementary.cuh"
#include "solve/problem.cuh"

namespace recsolve {

// Python reads this description and fills such a structure: fields are 64 bits wide, or views. In views the axes are
// those of sequences, rows are units, and columns components, or other units in matrices.
template <class Cell> struct Walked {
    long long steps;
    long long batch, groups;  // sequences that share matrices, and blocks or clusters that take them
    long long sizes[AXES];    // of the axes of sequences, those that share matrices first
    View drives[at_least_one<Cell::DRIVES>];
    View constants[at_least_one<Cell::CONSTANTS>];
    View states, initial, restart;  // at == 0: no initial state, so the first step is cut from its past
    View cut;                       // 1 where a step is cut from its past, else 0; at == 0: none but the first
    View matrices[Cell::CALLS];
};

template <class Cell, class T, bool CUT, int UNITS, int BLOCKS, int WIDTH, int SEQUENCES, int DEPTH, bool RESIDENT>
struct Walker {
    using M = Full<T>;
    using Rows = Matrices<T, Cell::CALLS, UNITS, BLOCKS, WIDTH, RESIDENT>;
    static constexpr int THREADS = Rows::THREADS, OWN = Rows::OWN, PADDED = Rows::PADDED;
    static constexpr int GIVEN = Cell::DRIVES + CUT;              // numbers of a unit in a step
    static constexpr int PLACES = OWN * SEQUENCES;                // units of a block, in all its sequences
    static constexpr int EACH = (SEQUENCES + WIDTH - 1) / WIDTH;  // of which a thread has so many
    static constexpr int COPIES = (GIVEN * PLACES + THREADS - 1) / THREADS;
    static constexpr int VECTORS = Cell::SLOTS * SEQUENCES * PADDED;

    const Walked<Cell>& p;
    const int rank, unit, lane;
    T *vectors, *ring, *place;
    const T* from[at_least_one<COPIES>];  // what this thread copies next
    T* to[EACH];                          // where the next states go
    T x[EACH][Cell::PARTS], restart[EACH][Cell::PARTS], m[EACH][Cell::CALLS], w[EACH][at_least_one<Cell::CONSTANTS>];
    int valid = 0;                 // bits: whether there is such a unit and sequence
    int set = 0, slot = 0, t = 0;  // of vectors, of the ring, and the step
    const Rows rows;

    __device__ long long lane_of() const { return blockIdx.x / BLOCKS / p.groups; }
    __device__ long long first() const { return blockIdx.x / BLOCKS % p.groups * SEQUENCES; }
    __device__ long long sequence(int s) const { return lane_of() * p.batch + first() + s; }
    __device__ bool there(int own, int s) const {
        return own < OWN && rank * OWN + own < UNITS && s < SEQUENCES && first() + s < p.batch;
    }
    template <class S> __device__ S* in(const View& view, int own, int s) const {
        return address<S>(view.at) + offset_of(view, p.sizes, sequence(s)) + (rank * OWN + own) * view.row;
    }

    __device__ Walker(const Walked<Cell>& problem)
        : p(problem), rank(blockIdx.x % BLOCKS), unit(threadIdx.x / WIDTH), lane(threadIdx.x % WIDTH),
          rows(problem.matrices, problem.sizes, sequence(0), rank) {
        vectors = reinterpret_cast<T*>(shared_memory());
        ring = vectors + 2 * VECTORS;
        place = ring + DEPTH * GIVEN * PLACES + threadIdx.x;
#pragma unroll
        for (int c = 0; c < COPIES; ++c) {
            const int n = c * THREADS + threadIdx.x, own = n % PLACES % OWN, s = n % PLACES / OWN;
            from[c] = n < GIVEN * PLACES && there(own, s) ? in<const T>(given(c), own, s) : nullptr;
        }
#pragma unroll
        for (int k = 0; k < EACH; ++k) {
            const int s = lane + k * WIDTH;
            if (!there(unit, s)) continue;
            valid |= 1 << k;
            to[k] = in<T>(p.states, unit, s);
#pragma unroll
            for (int i = 0; i < Cell::CONSTANTS; ++i) w[k][i] = *in<const T>(p.constants[i], unit, s);
#pragma unroll
            for (int i = 0; i < Cell::PARTS; ++i) {
                x[k][i] = p.initial.at ? in<const T>(p.initial, unit, s)[i * p.initial.column] : T(0);
                if (CUT && !Cell::LINEAR) restart[k][i] = in<const T>(p.restart, unit, s)[i * p.restart.column];
            }
        }
        for (int i = threadIdx.x; i < 2 * VECTORS; i += THREADS) vectors[i] = T(0);
    }

    // The array of which this thread copies numbers.
    __device__ const View& given(int copy) const {
        const int i = (copy * THREADS + threadIdx.x) / PLACES;
        return CUT && i == Cell::DRIVES ? p.cut : p.drives[i];
    }

    // Asks for the numbers of a step, one after the other.
    __device__ __forceinline__ void ask(int step, int into) {
        if (step < p.steps) {
#pragma unroll
            for (int c = 0; c < COPIES; ++c) {
                if (!from[c]) continue;
                copy_async<1>(ring + into * GIVEN * PLACES + c * THREADS + threadIdx.x, from[c]);
                from[c] += given(c).time;
            }
        }
        commit_copies();
    }

    // Where the numbers of a unit lie.
    __device__ const T* numbers(int k) const { return ring + slot * GIVEN * PLACES + (lane + k * WIDTH) * OWN + unit; }
    __device__ __forceinline__ void read(int k, T* u) const {
#pragma unroll
        for (int i = 0; i < Cell::DRIVES; ++i) u[i] = numbers(k)[i * PLACES];
    }
    __device__ bool is_cut(int k) const { return CUT && numbers(k)[Cell::DRIVES * PLACES] != T(0); }

    // Puts what a stage multiplies where all blocks read it.
    template <int STAGE> __device__ __forceinline__ void prepare(T* next) {
#pragma unroll
        for (int k = 0; k < EACH; ++k) {
            if (!(valid >> k & 1)) continue;
            T u[at_least_one<Cell::DRIVES>], z[Cell::SLOTS];
            read(k, u);
            Cell::template prepare<STAGE, M>(x[k], u, m[k], w[k], z);
#pragma unroll
            for (int i = 0; i < Cell::slots(STAGE); ++i) {
                T* at = next + (i * SEQUENCES + lane + k * WIDTH) * PADDED + rank * OWN + unit;
                if constexpr (BLOCKS == 1) {
                    *at = z[i];
                } else {
#pragma unroll
                    for (int block = 0; block < BLOCKS; ++block) put_in_block<BLOCKS>(at, block, z[i]);
                }
            }
        }
    }

    template <int STAGE> __device__ __forceinline__ void stages() {
        if constexpr (STAGE < Cell::STAGES) {
            T* next = vectors + set * VECTORS;
            set ^= 1;
            prepare<STAGE>(next);
            if constexpr (STAGE == 0) wait_copies<DEPTH - 3>();  // what the next step begins with
            meet_cluster<BLOCKS>();
            if constexpr (STAGE == 0) ask(t + DEPTH - 1, slot == 0 ? DEPTH - 1 : slot - 1);
            constexpr int FIRST = Cell::first(STAGE), LAST = Cell::first(STAGE + 1);
            T sums[LAST - FIRST][SEQUENCES];
            rows.template multiply<Cell, FIRST, LAST, SEQUENCES>(next, lane, place, sums);
#pragma unroll
            for (int s = 0; s < SEQUENCES; ++s) {
#pragma unroll
                for (int call = FIRST; call < LAST; ++call) {
                    if (s % WIDTH == lane) m[s / WIDTH][call] = sums[call - FIRST][s];
                }
            }
            stages<STAGE + 1>();
        }
    }

    __device__ __forceinline__ void finish(int k) {
        T u[at_least_one<Cell::DRIVES>], y[Cell::PARTS];
        read(k, u);
        Cell::template last<M>(x[k], u, m[k], w[k], y);
        if constexpr (Cell::LINEAR) {
            if (is_cut(k) || (t == 0 && !p.initial.at)) Cell::template alone<M>(x[k], u, m[k], w[k], y);
        }
#pragma unroll
        for (int i = 0; i < Cell::PARTS; ++i) x[k][i] = to[k][i * p.states.column] = y[i];
        to[k] += p.states.time;
    }

    __device__ void run() {
        for (int i = 0; i < DEPTH - 1; ++i) ask(i, i);
        wait_copies<DEPTH - 2>();
        meet_cluster<BLOCKS>();
        for (; t < p.steps; ++t) {
#pragma unroll
            for (int k = 0; k < EACH; ++k) {
                if (Cell::LINEAR || !(valid >> k & 1) || !is_cut(k)) continue;
#pragma unroll
                for (int i = 0; i < Cell::PARTS; ++i) x[k][i] = restart[k][i];
            }
            stages<0>();
#pragma unroll
            for (int k = 0; k < EACH; ++k) {
                if (valid >> k & 1) finish(k);
            }
            slot = slot == DEPTH - 1 ? 0 : slot + 1;
        }
    }
};

template <class Cell, class T, bool CUT, int UNITS, int BLOCKS, int WIDTH, int SEQUENCES, int DEPTH, bool RESIDENT>
__global__ void __launch_bounds__(Matrices<T, Cell::CALLS, UNITS, BLOCKS, WIDTH, RESIDENT>::THREADS, 1)
    walk_block(const Walked<Cell> p) {
    Walker<Cell, T, CUT, UNITS, BLOCKS, WIDTH, SEQUENCES, DEPTH, RESIDENT>(p).run();
}

#if !defined(__CUDA_ARCH__) || __CUDA_ARCH__ >= 900
template <class Cell, class T, bool CUT, int UNITS, int BLOCKS, int WIDTH, int SEQUENCES, int DEPTH, bool RESIDENT>
__global__ void __cluster_dims__(BLOCKS, 1, 1)
    __launch_bounds__(Matrices<T, Cell::CALLS, UNITS, BLOCKS, WIDTH, RESIDENT>::THREADS, 1)
        walk_cluster(const Walked<Cell> p) {
    Walker<Cell, T, CUT, UNITS, BLOCKS, WIDTH, SEQUENCES, DEPTH, RESIDENT>(p).run();
}
#endif

}  // namespace recsolve

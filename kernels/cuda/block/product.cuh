// Products of matrices with a few vectors by a block that has its share of their rows at hand, again and again.
//
// A group of WIDTH threads takes one row of every matrix. Its numbers lie in registers where they fit; else they are
// read each time, from the second-level cache. They come in pieces of 16 bytes, those of neighbouring threads side by
// side, and in this order they are added up, so that the sum is the same each time.

#pragma once

#include "common/cluster.cuh"
#include "common/numbers.cuh"
#include "common/view.cuh"

namespace recsolve {

template <class T, int CALLS, int UNITS, int BLOCKS, int WIDTH, bool RESIDENT> struct Matrices {
    static constexpr int VECTOR = 16 / sizeof(T);
    static constexpr int OWN = (UNITS + BLOCKS - 1) / BLOCKS;  // rows of a block
    static constexpr int THREADS = (OWN * WIDTH + LANES - 1) / LANES * LANES;
    static constexpr int PIECES = (UNITS + VECTOR * WIDTH - 1) / (VECTOR * WIDTH);  // of a row, of a thread
    static constexpr int PADDED = PIECES * VECTOR * WIDTH;                          // numbers of a vector, and zeros
    static constexpr int UNROLLED = RESIDENT ? PIECES : 2;
    using Piece = Vector<T, VECTOR>;

    const Piece* from;
    Piece held[RESIDENT ? CALLS * PIECES : 1];

    // Weights lie in the order [block][call][piece][thread].
    __device__ Matrices(const T* weights, int rank) {
        from = reinterpret_cast<const Piece*>(weights) + static_cast<long long>(rank) * CALLS * PIECES * THREADS + threadIdx.x;
        if constexpr (RESIDENT) {
#pragma unroll
            for (int i = 0; i < CALLS * PIECES; ++i) held[i] = from[i * THREADS];
        }
    }

    // Fills sums[call - FIRST][sequence] for the calls FIRST to LAST of a cell with the products of their rows; each
    // multiplies a slot of the vectors x[slot][sequence]. `place` is shared memory for a number.
    template <class Cell, int FIRST, int LAST, int SEQUENCES>
    __device__ __forceinline__ void multiply(const T* x, int lane, T* place, T (*sums)[SEQUENCES]) const {
        constexpr int SPLIT = (LAST - FIRST) * SEQUENCES < 4 ? 2 : 1;  // sums that do not wait for each other
        T parts[LAST - FIRST][SEQUENCES][SPLIT] = {};
#pragma unroll UNROLLED
        for (int q = 0; q < PIECES; ++q) {
#pragma unroll
            for (int s = 0; s < SEQUENCES; ++s) {
#pragma unroll
                for (int call = FIRST; call < LAST; ++call) {
                    const T* vector = x + (Cell::slot(call) * SEQUENCES + s) * PADDED;
                    const Piece other = reinterpret_cast<const Piece*>(vector)[q * WIDTH + lane];
                    const Piece own = RESIDENT ? held[RESIDENT ? call * PIECES + q : 0] : from[(call * PIECES + q) * THREADS];
#pragma unroll
                    for (int i = 0; i < VECTOR; ++i) {
                        T& part = parts[call - FIRST][s][i % SPLIT];
                        part = multiply_add(own.numbers[i], other.numbers[i], part);
                    }
                }
            }
        }
#pragma unroll
        for (int call = 0; call < LAST - FIRST; ++call) {
#pragma unroll
            for (int s = 0; s < SEQUENCES; ++s) {
                const T* part = parts[call][s];
                sums[call][s] = sum_of_group<WIDTH>(place, SPLIT == 2 ? part[0] + part[SPLIT - 1] : part[0]);
            }
        }
    }
};

}  // namespace recsolve

// Products of matrices with a few vectors by a block that has its share of their rows at hand, again and again.
//
// A group of WIDTH threads takes one row of every matrix, in pieces of 16 bytes, those of neighbouring threads side by
// side. They lie in registers where they fit; else they are read each time, from the second-level cache. The order of
// sums is always the same.

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

    const Piece* from[RESIDENT ? 1 : CALLS];
    Piece held[RESIDENT ? CALLS * PIECES : 1];

    // Matrices of a sequence; the rows of those that are read each time are contiguous, aligned and PADDED long.
    __device__ Matrices(const View* matrices, const long long* sizes, long long sequence, int rank) {
        const int own = threadIdx.x / WIDTH, lane = threadIdx.x % WIDTH, row = rank * OWN + own;
        const bool exists = own < OWN && row < UNITS;
#pragma unroll
        for (int call = 0; call < CALLS; ++call) {
            const View& view = matrices[call];
            const T* first = address<const T>(view.at) + offset_of(view, sizes, sequence) + (exists ? row : 0) * view.row;
            if constexpr (RESIDENT) {
#pragma unroll
                for (int i = 0; i < PIECES * VECTOR; ++i) {
                    const int column = (i / VECTOR * WIDTH + lane) * VECTOR + i % VECTOR;
                    const bool there = exists && column < UNITS;
                    held[call * PIECES + i / VECTOR].numbers[i % VECTOR] = there ? first[column * view.column] : T(0);
                }
            } else {
                from[call] = reinterpret_cast<const Piece*>(first) + lane;
            }
        }
    }

    __device__ __forceinline__ Piece piece(int call, int q) const {
        if constexpr (RESIDENT) return held[call * PIECES + q];
        else return from[call][q * WIDTH];
    }

    // Fills sums[call - FIRST][sequence] for the calls FIRST to LAST of a cell with the products of their rows; each
    // multiplies a slot of the vectors x[slot][sequence]. `place` is shared memory for a number.
    template <class Cell, int FIRST, int LAST, int SEQUENCES>
    __device__ __forceinline__ void multiply(const T* x, int lane, T* place, T (*sums)[SEQUENCES]) const {
        constexpr int COUNT = (LAST - FIRST) * SEQUENCES;
        constexpr int SPLIT = COUNT == 1 ? VECTOR : COUNT < 4 ? 2 : 1;  // parts of a sum, which do not wait for each other
        T parts[LAST - FIRST][SEQUENCES][SPLIT] = {};
#pragma unroll UNROLLED
        for (int q = 0; q < PIECES; ++q) {
#pragma unroll
            for (int s = 0; s < SEQUENCES; ++s) {
#pragma unroll
                for (int call = FIRST; call < LAST; ++call) {
                    const T* vector = x + (Cell::slot(call) * SEQUENCES + s) * PADDED;
                    const Piece other = reinterpret_cast<const Piece*>(vector)[q * WIDTH + lane];
                    const Piece own = piece(call, q);
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
                T total = parts[call][s][0];
#pragma unroll
                for (int i = 1; i < SPLIT; ++i) total += parts[call][s][i];
                sums[call][s] = sum_of_group<WIDTH>(place, total);
            }
        }
    }
};

}  // namespace recsolve

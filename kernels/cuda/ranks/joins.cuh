// Steps that a rank has taken anew: put among those that are there, and whether they meet the rest.

#pragma once

#include "common/numbers.cuh"
#include "common/view.cuh"

namespace recsolve {

constexpr int JOIN_THREADS = 256;
constexpr int ADD_SLOTS = 16;  // pieces, in a launch

// Python reads these descriptions and fills such structures: fields are 64 bits wide.
//
// Rows of `units` contiguous numbers: all take the place of those that are there, the last `mixed` in part.
struct Join {
    long long rows, mixed, units;
    long long states, found;  // addresses
};

template <class T> __global__ void __launch_bounds__(JOIN_THREADS) join_steps(const Join p) {
    const long long i = static_cast<long long>(blockIdx.x) * JOIN_THREADS + threadIdx.x;
    if (i >= p.rows * p.units) return;
    const long long left = p.rows - i / p.units;  // rows from this one on
    T* there = address<T>(p.states) + i;
    const T found = address<const T>(p.found)[i];
    if (left > p.mixed) {
        *there = found;
    } else {
        const T weight = static_cast<T>(left) / static_cast<T>(p.mixed + 1), part = weight * (found - *there);
        *there = *there + part;
    }
}

// Whether all bytes are 1, as a byte, and the largest of as many numbers.
struct Meeting {
    long long count;
    long long met, near;   // addresses
    long long all, most;
};

template <class T> __global__ void __launch_bounds__(JOIN_THREADS) meet(const Meeting p) {
    T most = T(0);
    int misses = 0;
    for (long long i = threadIdx.x; i < p.count; i += JOIN_THREADS) {
        most = greatest(most, address<const T>(p.near)[i]);
        if (!address<const unsigned char>(p.met)[i]) misses = 1;
    }
    T* found = reinterpret_cast<T*>(shared_memory());
    found[threadIdx.x] = most;
    misses = __syncthreads_or(misses);
    if (threadIdx.x) return;
    for (int other = 1; other < JOIN_THREADS; ++other) most = greatest(most, found[other]);
    *address<unsigned char>(p.all) = !misses;
    *address<T>(p.most) = most;
}

// Numbers that are added to others, in pieces of memory; in the first ones they are T, in the others double.
struct Addition {
    long long slots, narrow, blocks;
    long long to[ADD_SLOTS], from[ADD_SLOTS], count[ADD_SLOTS];
};

template <class T> __device__ inline void add_slot(long long to, long long from, long long i) {
    T* sum = address<T>(to) + i;
    *sum = *sum + address<const T>(from)[i];
}

template <class T> __global__ void __launch_bounds__(JOIN_THREADS) add_slots(const Addition p) {
    const long long thread = static_cast<long long>(blockIdx.x) * JOIN_THREADS + threadIdx.x;
    for (long long slot = 0; slot < p.slots; ++slot) {
        for (long long i = thread; i < p.count[slot]; i += p.blocks * JOIN_THREADS) {
            if (slot < p.narrow) {
                add_slot<T>(p.to[slot], p.from[slot], i);
            } else {
                add_slot<double>(p.to[slot], p.from[slot], i);
            }
        }
    }
}

}  // namespace recsolve

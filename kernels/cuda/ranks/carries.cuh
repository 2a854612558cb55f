// What ranks say of affine maps of numbers: what their last steps show, what comes into each, and whether it came out.
//
// Times are rows of contiguous numbers, the units; rows of other ranks lie in their messages.

#pragma once

#include "common/numbers.cuh"
#include "common/view.cuh"

namespace recsolve {

constexpr int PARTS = 8;           // of the steps, each taken by a warp
constexpr int RANK_THREADS = 256;  // of a block: PARTS warps

// Python reads these descriptions and fills such structures: fields are 64 bits wide.
//
// The last steps from zero: `end` and `size` are what comes out, and the size of what is summed up to it (a number for
// each unit), `forgets` is an int for each block: whether at most `least` is left of ones.
struct Probe {
    long long steps, units;
    long long matrix, vector, matrix_time, vector_time;  // addresses of the first step, and distances in numbers
    long long end, size, forgets;
    double least;
};

template <class T> __global__ void __launch_bounds__(RANK_THREADS) probe_steps(const Probe p) {
    const long long lane = threadIdx.x % LANES, part = threadIdx.x / LANES, unit = blockIdx.x * LANES + lane;
    const long long each = (p.steps + PARTS - 1) / PARTS, begin = part * each;
    const long long end = begin + each < p.steps ? begin + each : p.steps;
    const auto magnitude = [](T x) { return x < T(0) ? -x : x; };
    T left = T(1), sum = T(0), size = T(0);
    if (unit < p.units) {
        const T *matrix = address<const T>(p.matrix) + unit, *vector = address<const T>(p.vector) + unit;
#pragma unroll 8
        for (long long t = begin; t < end; ++t) {
            const T a = matrix[t * p.matrix_time], b = vector[t * p.vector_time];
            left *= a;
            sum = a * sum + b;
            size = magnitude(a) * size + magnitude(b);
        }
    }
    T *lefts = reinterpret_cast<T*>(shared_memory()), *sums = lefts + RANK_THREADS, *sizes = sums + RANK_THREADS;
    lefts[threadIdx.x] = left, sums[threadIdx.x] = sum, sizes[threadIdx.x] = size;
    __syncthreads();
    if (part == 0) {
        for (int place = lane + LANES; place < RANK_THREADS; place += LANES) {
            left *= lefts[place];
            sum = lefts[place] * sum + sums[place];
            size = magnitude(lefts[place]) * size + sizes[place];
        }
        if (unit < p.units) address<T>(p.end)[unit] = sum, address<T>(p.size)[unit] = size;
        lefts[lane] = left;
    }
    __syncthreads();
    if (threadIdx.x) return;
    int forgets = 1;
    for (int other = 0; other < LANES && blockIdx.x * LANES + other < p.units; ++other) {
        if (!(static_cast<double>(magnitude(lefts[other])) <= p.least)) forgets = 0;
    }
    address<int>(p.forgets)[blockIdx.x] = forgets;
}

// The largest magnitude in some rows, a number for each unit; NaN where there is one.
struct Largest {
    long long rows, units;
    long long from, time, largest;  // `time` is the distance from row to row in numbers
};

template <class T> __global__ void __launch_bounds__(RANK_THREADS) largest_of_rows(const Largest p) {
    const long long lane = threadIdx.x % LANES, part = threadIdx.x / LANES, unit = blockIdx.x * LANES + lane;
    T most = T(0);
    if (unit < p.units) {
        const T* from = address<const T>(p.from) + unit;
#pragma unroll 8
        for (long long t = part; t < p.rows; t += PARTS) {
            const T x = from[t * p.time];
            most = greatest(most, x < T(0) ? -x : x);
        }
    }
    T* found = reinterpret_cast<T*>(shared_memory());
    found[threadIdx.x] = most;
    __syncthreads();
    if (part > 0 || unit >= p.units) return;
    for (int place = lane + LANES; place < RANK_THREADS; place += LANES) most = greatest(most, found[place]);
    address<T>(p.largest)[unit] = most;
}

// The states that come into ranks, (1 + ranks, units), from the one before all. Messages are `apart` bytes from each
// other in the order of steps, and hold a matrix, a vector, and what comes out in place of the map, where a byte is 1.
struct Fold {
    long long ranks, units;
    long long first, states;
    long long apart, matrix, vector, after, cut;
};

template <class T> __global__ void __launch_bounds__(RANK_THREADS) fold_ranks(const Fold p) {
    const long long unit = static_cast<long long>(blockIdx.x) * RANK_THREADS + threadIdx.x;
    if (unit >= p.units) return;
    T* states = address<T>(p.states) + unit;
    T x = address<const T>(p.first)[unit];
    states[0] = x;
    for (long long i = 0; i < p.ranks; ++i) {
        const T a = address<const T>(p.matrix + i * p.apart)[unit], b = address<const T>(p.vector + i * p.apart)[unit];
        const bool cut = address<const unsigned char>(p.cut + i * p.apart)[unit];
        const T product = a * x;
        x = cut ? address<const T>(p.after + i * p.apart)[unit] : product + b;
        states[(i + 1) * p.units] = x;
    }
}

// A byte: whether what comes out is what was said, up to `by` of a size; one that is not finite excuses nothing.
struct Agreement {
    long long units;
    long long end, said, size, agrees;
    double by;
};

template <class T> __global__ void __launch_bounds__(RANK_THREADS) agree(const Agreement p) {
    int misses = 0;
    for (long long unit = threadIdx.x; unit < p.units; unit += RANK_THREADS) {
        const T end = address<const T>(p.end)[unit], said = address<const T>(p.said)[unit];
        const T size = address<const T>(p.size)[unit], off = end < said ? said - end : end - said;
        const bool near = off <= static_cast<T>(p.by) * (finite(size) ? size : T(0));
        if (!(near || end == said || (is_nan(end) && is_nan(said)))) misses = 1;
    }
    misses = __syncthreads_or(misses);
    if (threadIdx.x == 0) *address<unsigned char>(p.agrees) = !misses;
}

}  // namespace recsolve

// How far the rows of an iterate lead in every segment of time, and what the host is told of them.
//
// A block takes a sequence, and its threads chunks of times one after the other. Whether all rows of a segment before
// this one are good is a bit, and a chunk maps such a bit to another: x -> none | (x & all), which compose.

#pragma once

#include "iterate/rows.cuh"

namespace recsolve {

// Python reads this description and fills such a structure: fields are 64 bits wide. All but the first two are
// addresses, of arrays (T, *batch) where nothing else is said; 0: there is none, or it is not wanted.
struct Fronts {
    long long steps, sequences;
    long long told, starts, pinned;  // bytes
    long long worst, largest_states, largest_values;
    long long leading, front, pins, cut;  // bytes: pins are the leading rows and the front, cut those and the starts
    long long solved, largest;            // (*batch): the largest number of states that are solved, and of all and F
    long long report;
};

constexpr long long NOT_A_NUMBER = 0x7ff8000000000000ll;  // the bits of one without a sign

struct Chunk {
    unsigned int none = 0, all = 3;  // bits: of exact rows, of converged ones

    __device__ void follow(unsigned int start, unsigned int good) {
        none = (start | none) & good;
        all = (start | all) & good;
    }
    __device__ unsigned int packed() const { return none | all << 2; }
};

// What a thread or a block counts, and the largest numbers it meets.
template <class T> struct Counted {
    enum Counts { MISSES, LEADS, LATE, MISSED, STOPS, OPENS, COUNTS };
    enum Sizes { WORST_R, KNOWN, ALL, SIZES };

    int counts[COUNTS] = {};
    T sizes[SIZES] = {};

    __device__ static bool is_count(int i) { return i != LATE && i != MISSED; }  // those are the largest of all threads

    // Sums and maxima over a block, in shared memory.
    __device__ void gather(int* sums, T* most) {
        const int warp = threadIdx.x / LANES, warps = (blockDim.x + LANES - 1) / LANES;
        __syncthreads();
#pragma unroll
        for (int i = 0; i < COUNTS; ++i) {
            int* place = sums + warp * COUNTS + i;
            const int found = is_count(i) ? sum_of_warp(place, counts[i]) : largest_of_warp(place, counts[i]);
            if (threadIdx.x % LANES == 0) *place = found;
        }
        __syncthreads();
        for (int other = 1; threadIdx.x < COUNTS && other < warps; ++other) {
            const int i = threadIdx.x, found = sums[other * COUNTS + i];
            sums[i] = is_count(i) ? sums[i] + found : sums[i] > found ? sums[i] : found;
        }
        __syncthreads();
#pragma unroll
        for (int i = 0; i < COUNTS; ++i) counts[i] = sums[i];
        __syncthreads();
#pragma unroll
        for (int i = 0; i < SIZES; ++i) {
            T* place = most + warp * SIZES + i;
            const T found = largest_of_warp(place, sizes[i]);
            if (threadIdx.x % LANES == 0) *place = found;
        }
        __syncthreads();
        for (int i = 0; i < SIZES; ++i) {
            for (int other = 0; other < warps; ++other) sizes[i] = greatest(sizes[i], most[other * SIZES + i]);
        }
    }
};

template <class T> __global__ void __launch_bounds__(1024) fronts_of_rows(const Fronts p) {
    const long long sequence = blockIdx.x, each = (p.steps + blockDim.x - 1) / blockDim.x;
    const long long begin = each * threadIdx.x, end = begin + each < p.steps ? begin + each : p.steps;
    const unsigned char *told = address<const unsigned char>(p.told) + sequence,
                        *starts = address<const unsigned char>(p.starts) + sequence,
                        *pinned = address<const unsigned char>(p.pinned) + sequence;
    const auto good = [&](long long row, unsigned int bits) {
        const bool exact = bits & IS_EXACT || (p.pinned && pinned[row] && bits & IS_FINITE);
        return (exact ? 1u : 0u) | (bits & HAS_CONVERGED);
    };

    Chunk chunk;
    for (long long t = begin; t < end; ++t) {
        const long long row = t * p.sequences;
        chunk.follow(starts[row] ? 3 : 0, good(row, told[row]));
    }
    unsigned char* chunks = shared_memory();
    chunks[threadIdx.x] = static_cast<unsigned char>(chunk.packed());
    __syncthreads();
    for (unsigned int distance = 1; distance < blockDim.x; distance *= 2) {
        const unsigned int before = threadIdx.x >= distance ? chunks[threadIdx.x - distance] : 0xcu;
        __syncthreads();
        const Chunk own = chunk;
        chunk.none = own.none | (before & own.all);
        chunk.all = own.none | (before >> 2 & own.all);
        chunks[threadIdx.x] = static_cast<unsigned char>(chunk.packed());
        __syncthreads();
    }
    unsigned int clean = threadIdx.x ? chunks[threadIdx.x - 1] & 3u : 0u;

    using Count = Counted<T>;
    Count seen;
    for (long long t = begin; t < end; ++t) {
        const long long row = t * p.sequences, number = row + sequence;
        const unsigned int bits = told[row], passed = good(row, bits), start = starts[row] ? 3 : 0;
        const unsigned int so_far = start | clean, stops = so_far & ~passed;
        clean = so_far & passed;
        const bool leads = clean & 1, is_front = stops & 1;
        if (p.leading) address<unsigned char>(p.leading)[number] = leads;
        if (p.front) address<unsigned char>(p.front)[number] = is_front;
        if (p.pins) address<unsigned char>(p.pins)[number] = leads || is_front;
        if (p.cut) address<unsigned char>(p.cut)[number] = leads || is_front || start;
        if (!p.report) continue;
        const int rest = static_cast<int>(p.steps - t);
        if (leads) ++seen.counts[Count::LEADS];
        else if (rest > seen.counts[Count::LATE]) seen.counts[Count::LATE] = rest;
        if (!(bits & HAS_CONVERGED)) {
            ++seen.counts[Count::MISSES];
            if (rest > seen.counts[Count::MISSED]) seen.counts[Count::MISSED] = rest;
        }
        if (stops & 2) {
            ++seen.counts[Count::STOPS];
            if (!(bits & IS_HOPELESS)) ++seen.counts[Count::OPENS];
        }
        const T h = address<const T>(p.largest_states)[number], f = address<const T>(p.largest_values)[number];
        seen.sizes[Count::WORST_R] = greatest(seen.sizes[Count::WORST_R], address<const T>(p.worst)[number]);
        seen.sizes[Count::ALL] = larger(seen.sizes[Count::ALL], larger(h, f));
        if (clean & 2) seen.sizes[Count::KNOWN] = larger(seen.sizes[Count::KNOWN], h);
    }
    if (!p.report) return;
    seen.gather(reinterpret_cast<int*>(shared_memory()), reinterpret_cast<T*>(shared_memory()));
    if (threadIdx.x) return;
    address<T>(p.solved)[sequence] = seen.sizes[Count::KNOWN];
    address<T>(p.largest)[sequence] = seen.sizes[Count::ALL];
    long long* report = address<long long>(p.report);
    const double worst = static_cast<double>(seen.sizes[Count::WORST_R]);
    atomicMax(report + LARGEST_R, is_nan(worst) ? NOT_A_NUMBER : static_cast<long long>(bits_of(worst)));
    atomicMax(report + UNLED, static_cast<long long>(seen.counts[Count::LATE]));
    atomicMax(report + UNCONVERGED, static_cast<long long>(seen.counts[Count::MISSED]));
    const auto add = [&](int field, int count) {
        if (count) atomicAdd(reinterpret_cast<unsigned long long*>(report + field), static_cast<unsigned long long>(count));
    };
    add(FAILED, seen.counts[Count::MISSES]);
    add(LED, seen.counts[Count::LEADS]);
    add(FRONTS, seen.counts[Count::STOPS]);
    add(OPEN, seen.counts[Count::OPENS]);
    add(SETTLED, seen.counts[Count::MISSES] == 0);
}

}  // namespace recsolve

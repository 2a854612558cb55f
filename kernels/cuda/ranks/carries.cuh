// What ranks say of affine maps of numbers: what their first steps show, what comes into each, and whether it came out.
//
// Times are rows of contiguous numbers, the units; rows of other ranks lie in their messages.

#pragma once

#include "common/numbers.cuh"
#include "common/view.cuh"

namespace recsolve {

constexpr int PARTS = 8;           // of the steps, each taken by a warp
constexpr int RANK_THREADS = 256;  // of a block: PARTS warps

template <class T> __device__ inline T magnitude(T x) {
    return x < T(0) ? -x : x;
}

// Whether what is left of a size that comes in is at most `least` of a size; one that is not finite excuses nothing.
template <class T> __device__ inline bool negligible(T left, T comes, T size, double least) {
    return left * comes <= static_cast<T>(least) * size && finite(size);
}

// Python reads these descriptions and fills such structures: fields are 64 bits wide.
//
// The first steps: `left` is what is left of ones at most, `size` the size of what is summed up from zero (a number for
// each unit), `forgets` is an int for each block: whether of what comes in at most `least` of that size is left, if it
// is as large as that, or as any vector. `tiny`, which is added on the way, is more than underflow takes away.
struct Probe {
    long long steps, units;
    long long matrix, vector, matrix_time, vector_time;  // addresses of the first step, and distances in numbers
    long long matrix_unit;                               // that of units, 1 or 0
    long long left, size, forgets;
    double least, tiny;
};

template <class T> __global__ void __launch_bounds__(RANK_THREADS) probe_steps(const Probe p) {
    const long long lane = threadIdx.x % LANES, part = threadIdx.x / LANES, unit = blockIdx.x * LANES + lane;
    const long long each = (p.steps + PARTS - 1) / PARTS, begin = part * each;
    const long long end = begin + each < p.steps ? begin + each : p.steps;
    const T tiny = static_cast<T>(p.tiny);
    T passed = T(1), left = T(1), size = T(0), most = T(0);
    if (unit < p.units) {
        const T* matrix = address<const T>(p.matrix) + unit * p.matrix_unit;
        const T* vector = address<const T>(p.vector) + unit;
#pragma unroll 8
        for (long long t = begin; t < end; ++t) {
            const T a = magnitude(matrix[t * p.matrix_time]), b = magnitude(vector[t * p.vector_time]);
            passed *= a;
            left = a * left + tiny;
            size = a * size + b;
            most = greatest(b, most);
        }
    }
    T* shared = reinterpret_cast<T*>(shared_memory());
    T* const own = shared + threadIdx.x;
    own[0] = passed, own[RANK_THREADS] = left, own[2 * RANK_THREADS] = size, own[3 * RANK_THREADS] = most;
    __syncthreads();
    int remembers = 0;
    if (part == 0 && unit < p.units) {
        for (int place = LANES; place < RANK_THREADS; place += LANES) {
            const T* later = own + place;
            left = later[RANK_THREADS] * left + tiny;
            size = later[0] * size + later[2 * RANK_THREADS];
            most = greatest(later[3 * RANK_THREADS], most);
        }
        address<T>(p.left)[unit] = left, address<T>(p.size)[unit] = size;
        remembers = !(size > T(0) && negligible(left, greatest(most, size), size, p.least));
    }
    remembers = __syncthreads_or(remembers);
    if (threadIdx.x == 0) address<int>(p.forgets)[blockIdx.x] = !remembers;
}

// The states that come into ranks, (1 + ranks, units), from the one before all. Messages are `apart` bytes from each
// other in the order of steps, and hold a matrix, a vector, and what comes out in place of the map, where a byte is 1.
//
// `holds` are ints of (2, ranks, blocks): whether what comes out is not finite, or NaN, only where what comes in is; and,
// of ranks that have told what `probe_steps` shows in place of matrix and vector, whether at most `least` of the size
// is left of what comes in.
struct Fold {
    long long ranks, units, blocks;
    long long first, states, holds;
    long long apart, matrix, vector, after, cut;
    double least;
};

template <class T> __global__ void __launch_bounds__(RANK_THREADS) fold_ranks(const Fold p) {
    const long long unit = static_cast<long long>(blockIdx.x) * RANK_THREADS + threadIdx.x;
    const bool within = unit < p.units;
    T* states = address<T>(p.states) + unit;
    T x = within ? address<const T>(p.first)[unit] : T(0);
    if (within) states[0] = x;
    int* holds = address<int>(p.holds) + blockIdx.x;
    for (long long i = 0; i < p.ranks; ++i) {
        int left = 0, lost = 0;
        if (within) {
            const T a = address<const T>(p.matrix + i * p.apart)[unit];
            const T b = address<const T>(p.vector + i * p.apart)[unit];
            const bool cut = address<const unsigned char>(p.cut + i * p.apart)[unit];
            const T product = a * x, next = cut ? address<const T>(p.after + i * p.apart)[unit] : product + b;
            left = !negligible(a, magnitude(x), b, p.least);
            lost = (finite(x) && !finite(next)) || (!is_nan(x) && is_nan(next));
            x = next;
            states[(i + 1) * p.units] = x;
        }
        left = __syncthreads_or(left);
        lost = __syncthreads_or(lost);
        if (threadIdx.x == 0) holds[i * p.blocks] = !lost, holds[(p.ranks + i) * p.blocks] = !left;
    }
}

// The first steps once more, from what comes in: rows of contiguous numbers, as far apart from step to step.
struct Mend {
    long long steps, units;
    long long matrix, vector, matrix_time, vector_time, matrix_unit;  // as of a probe
    long long comes, rows, rows_time;
};

template <class T> __global__ void __launch_bounds__(RANK_THREADS) mend_steps(const Mend p) {
    constexpr int AHEAD = 16;  // steps that are under way
    const long long unit = static_cast<long long>(blockIdx.x) * RANK_THREADS + threadIdx.x;
    if (unit >= p.units) return;
    const T* matrix = address<const T>(p.matrix) + unit * p.matrix_unit;
    const T* vector = address<const T>(p.vector) + unit;
    T* rows = address<T>(p.rows) + unit;
    T x = address<const T>(p.comes)[unit];
    for (long long begin = 0; begin < p.steps; begin += AHEAD) {
        T a[AHEAD], b[AHEAD];
#pragma unroll
        for (int i = 0; i < AHEAD; ++i) {
            const long long t = begin + i < p.steps ? begin + i : p.steps - 1;
            a[i] = matrix[t * p.matrix_time], b[i] = vector[t * p.vector_time];
        }
#pragma unroll
        for (int i = 0; i < AHEAD; ++i) {
            if (begin + i == p.steps) return;
            const T product = a[i] * x;
            x = product + b[i];
            rows[(begin + i) * p.rows_time] = x;
        }
    }
}

// A byte: whether what comes out is what was said, up to `by` of a size, whatever its sign; one that is not finite
// excuses nothing.
struct Agreement {
    long long units;
    long long end, said, size, agrees;
    double by;
};

template <class T> __global__ void __launch_bounds__(RANK_THREADS) agree(const Agreement p) {
    int misses = 0;
    for (long long unit = threadIdx.x; unit < p.units; unit += RANK_THREADS) {
        const T end = address<const T>(p.end)[unit], said = address<const T>(p.said)[unit];
        const T size = magnitude(address<const T>(p.size)[unit]), off = end < said ? said - end : end - said;
        const bool near = off <= static_cast<T>(p.by) * (finite(size) ? size : T(0));
        if (!(near || end == said || (is_nan(end) && is_nan(said)))) misses = 1;
    }
    misses = __syncthreads_or(misses);
    if (threadIdx.x == 0) *address<unsigned char>(p.agrees) = !misses;
}

}  // namespace recsolve

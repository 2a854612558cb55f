// Trajectories row by row: a row is one time of one sequence, all numbers of its event.
//
// A row is taken by one thread or by some warps of a block. What is told of rows lies in arrays (T, *batch), in C's
// order, whatever the order of the trajectory. The axes of an event (lanes, units; components are apart) come first
// among those of a view, the innermost one first, and then those of the batch.

#pragma once

#include "solve/problem.cuh"

namespace recsolve {

constexpr int ROW_THREADS = 256;  // of a block
constexpr int EVENT_AXES = 3;

// What is told of a row, bit by bit. A mask of good rows is one of exact rows.
constexpr int IS_EXACT = 1;
constexpr int HAS_CONVERGED = 2;
constexpr int IS_FINITE = 4;    // its residual
constexpr int IS_HOPELESS = 8;  // F is not finite, and h equals it there

// What the host is told of an iterate: the bits of the largest |r| as a double, counts of rows, how many times there are
// from the first one on that does not lead, or has not converged, in some sequence, and sequences that have converged.
enum Report { LARGEST_R, FAILED, LED, UNLED, UNCONVERGED, FRONTS, OPEN, SETTLED, REPORTED };

struct Row {
    long long step, sequence, number;  // the last among all rows
    long long batch[AXES - EVENT_AXES];
    int part, parts;  // this thread among those of the row
    bool exists;

    template <class P> __device__ explicit Row(const P& p) {
        parts = static_cast<int>(p.parts);
        part = static_cast<int>(threadIdx.x) % parts;
        const long long row = static_cast<long long>(blockIdx.x) * (blockDim.x / parts) + threadIdx.x / parts;
        exists = row < p.steps * p.sequences;
        const long long sizes = p.by_time ? p.steps : p.sequences, outer = row / sizes, inner = row - outer * sizes;
        step = p.by_time ? inner : outer;
        sequence = p.by_time ? outer : inner;
        number = step * p.sequences + sequence;
        long long rest = sequence;
#pragma unroll
        for (int axis = 0; axis < AXES - EVENT_AXES; ++axis) {
            const long long size = p.sizes[EVENT_AXES + axis], next = size == 1 ? rest : rest / size;
            batch[axis] = rest - next * size;
            rest = next;
        }
    }

    // Where the row begins in an array.
    template <class S> __device__ S* in(const View& view) const {
        long long offset = step * view.time;
#pragma unroll
        for (int axis = 0; axis < AXES - EVENT_AXES; ++axis) offset += batch[axis] * view.lane[EVENT_AXES + axis];
        return address<S>(view.at) + offset;
    }

    template <class S> __device__ S* at(long long told) const { return address<S>(told) + number; }
};

// Where numbers of a component of a row are. AT_ONCE of them are side by side and aligned in all arrays, and so are all
// numbers of a row; 0: they may be anywhere, and are taken one by one.
template <int AT_ONCE> struct Spot {
    static constexpr int COUNT = AT_ONCE ? AT_ONCE : 1;

    long long at[EVENT_AXES];

    template <class P> __device__ __forceinline__ Spot(const P& p, long long entry) : at{entry} {
        if constexpr (AT_ONCE == 0) {
#pragma unroll
            for (int axis = 0; axis < EVENT_AXES; ++axis) {
                const long long size = p.sizes[axis], next = size == 1 ? entry : entry / size;
                at[axis] = entry - next * size;
                entry = next;
            }
        }
    }

    __device__ __forceinline__ long long in(const View& view) const {
        if constexpr (AT_ONCE > 0) return at[0];
        long long offset = 0;
#pragma unroll
        for (int axis = 0; axis < EVENT_AXES; ++axis) offset += at[axis] * view.lane[axis];
        return offset;
    }
};

// Numbers that move as one.
template <class S, int COUNT> struct alignas(COUNT * sizeof(S)) Pack {
    S numbers[COUNT];

    __device__ __forceinline__ S& operator[](int i) { return numbers[i]; }
    __device__ __forceinline__ void load(const S* from) { *this = *reinterpret_cast<const Pack*>(from); }
    __device__ __forceinline__ void store(S* to) const { *reinterpret_cast<Pack*>(to) = *this; }
};

// The largest number of the threads of a row, NaN if one is, in all of them.
template <class T> __device__ inline T largest_of_row(const Row& row, T x) {
    if (row.parts == 1) return x;
    constexpr int WARPS = ROW_THREADS / LANES;
    T* rooms = reinterpret_cast<T*>(shared_memory());
    const int warp = threadIdx.x / LANES, warps = row.parts / LANES;
    x = largest_of_warp(rooms + WARPS + warp, x);
    if (warps > 1) {
        __syncthreads();
        if (threadIdx.x % LANES == 0) rooms[warp] = x;
        __syncthreads();
        for (int i = 0; i < warps; ++i) x = greatest(x, rooms[warp / warps * warps + i]);
    }
    return x;
}

// The test of the numbers of a row, |r| <= atol + rtol max(|h|, |F|), and what it tells.
template <class T> struct Seen {
    enum Bits { MISSED = 1, MOVED = 2, INFINITE_F = 4, ALIVE = 8 };

    T worst = T(0), states = T(0), values = T(0);  // the largest |r|, NaN if one is; the largest finite |h| and |F|
    int bits = 0;

    __device__ __forceinline__ void add(T h, T f, T r, T atol, T rtol) {
        const T a = size_of(h), b = size_of(f), size = size_of(r);
        const bool met = size <= atol + rtol * larger(a, b) && finite(r);
        bits |= (met ? 0 : MISSED) | (r != T(0) ? MOVED : 0);
        if (!finite(f)) bits |= INFINITE_F | (same(h, f) ? 0 : ALIVE);
        worst = greatest(worst, size);
        if (finite(h)) states = larger(states, a);
        if (finite(f)) values = larger(values, b);
    }

    // Takes in what the other threads of the row have seen.
    __device__ void gather(const Row& row) {
        if (row.parts == 1) return;
        constexpr int WARPS = ROW_THREADS / LANES;
        Seen* rooms = reinterpret_cast<Seen*>(shared_memory());
        const int warp = threadIdx.x / LANES, warps = row.parts / LANES;
        Seen& place = rooms[WARPS + warp];
        worst = largest_of_warp(&place.worst, worst);
        states = largest_of_warp(&place.states, states);
        values = largest_of_warp(&place.values, values);
        bits = union_of_warp(&place.bits, bits);
        if (warps > 1) {
            __syncthreads();
            if (threadIdx.x % LANES == 0) rooms[warp] = *this;
            __syncthreads();
            for (int i = 0; i < warps; ++i) {
                const Seen& other = rooms[warp / warps * warps + i];
                worst = greatest(worst, other.worst);
                states = larger(states, other.states);
                values = larger(values, other.values);
                bits |= other.bits;
            }
        }
    }

    __device__ unsigned char told() const {
        const int good = (bits & MOVED ? 0 : IS_EXACT) | (bits & MISSED ? 0 : HAS_CONVERGED);
        const int sane = (finite(worst) ? IS_FINITE : 0) | ((bits & (INFINITE_F | ALIVE)) == INFINITE_F ? IS_HOPELESS : 0);
        return static_cast<unsigned char>(good | sane);
    }

    // Writes what has been seen of a row; the first block clears the report, to which others add in the next launch.
    template <class P> __device__ void tell(const P& p, const Row& row) {
        gather(row);
        if (blockIdx.x == 0 && threadIdx.x < REPORTED) address<long long>(p.report)[threadIdx.x] = 0;
        if (!row.exists || row.part) return;
        *row.at<unsigned char>(p.told) = told();
        *row.at<unsigned char>(p.converged) = !(bits & MISSED);
        *row.at<T>(p.worst) = worst;
        *row.at<T>(p.largest_states) = states;
        *row.at<T>(p.largest_values) = values;
    }
};

}  // namespace recsolve

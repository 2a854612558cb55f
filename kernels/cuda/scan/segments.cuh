// Few lanes, long times, maps that forget: segments of time, each streamed by a block from the state that the steps
// before it lead to from a guess. Most often that is, to the last bit, the state that the walk through all of time would
// have; where it is not, the segment is walked again until it meets what is there. If its end moves nevertheless, a flag
// says so, and the launch after these does everything by look-back. An end that becomes inf or NaN is no reason for that:
// other lanes are to stay as they are, so its lanes are walked on to the last time.

#pragma once

#include "scan/stream.cuh"

namespace recsolve {

// The states before and after segments.
template <class T, int K> struct Seams {
    const Problem& p;
    const long long segment, lane;

    __device__ T* of(long long at, long long which) const { return address<T>(at) + which * K * p.lanes + lane; }
    __device__ void put(const T* x, long long at) const {
        T* to = of(at, segment);
#pragma unroll
        for (int k = 0; k < K; ++k) to[k * p.lanes] = x[k];
    }
    __device__ void get(T* x, long long at, long long which) const {
        const T* from = of(at, which);
#pragma unroll
        for (int k = 0; k < K; ++k) x[k] = from[k * p.lanes];
    }
};

template <class T, int K> __device__ inline bool same(const T* x, const T* y) {
    bool all = true;
#pragma unroll
    for (int k = 0; k < K; ++k) all &= x[k] == y[k] || (is_nan(x[k]) && is_nan(y[k]));
    return all;
}

// Notes the state before a segment.
template <class T, int K> struct Entry : Onward<T> {
    const Seams<T, K>& seams;
    const long long begin;

    __device__ Entry(const Seams<T, K>& of, long long first) : seams(of), begin(first) {}
    __device__ void before(long long first, long long, const T* x) const {
        if (first == begin) seams.put(x, seams.p.starts);
    }
};

// Ends a walk where all lanes meet what is there.
template <class T, class S, int K> struct Meeting {
    const Problem& p;
    const S* y;  // the first state of the lane
    T there[K];

    __device__ Meeting(const Problem& problem, const S* at) : p(problem), y(at) {}
    __device__ bool meet(bool on) const { return __syncthreads_or(on); }
    __device__ void before(long long, long long last, const T*) {
#pragma unroll
        for (int k = 0; k < K; ++k) there[k] = Stored<S>::get(y[last * p.y.time + k * p.y.row]);
    }
    __device__ bool after(const T* x) const {
        if (sizeof(S) < sizeof(T)) return true;  // states that are stored alike may differ
        T stored[K];
#pragma unroll
        for (int k = 0; k < K; ++k) stored[k] = Stored<S>::get(Stored<S>::put(x[k]));
        return !same<T, K>(stored, there);
    }
};

template <class Map, class S, bool CUT, int COPIERS, int PIECES, class Order>
__global__ void __launch_bounds__(Order::WIDTH + COPIERS, BLOCKS<S, Order>) segments(const Problem p) {
    using T = typename Map::Number;
    constexpr int K = Map::parts, THREADS = Order::WIDTH + COPIERS;
    const long long thread = static_cast<long long>(blockIdx.x) * THREADS + threadIdx.x;
    for (long long i = thread; i < p.counters; i += p.segments * p.tiles_of_lanes * THREADS) {
        address<int>(p.changed)[i] = 0;  // for the launches after this one
    }
    const long long segment = blockIdx.x / p.tiles_of_lanes, first = segment * p.span, last = first + p.span;
    Stream<Map, S, CUT, COPIERS, PIECES, Order> stream(p, blockIdx.x % p.tiles_of_lanes, last < p.steps ? last : p.steps);
    const Seams<T, K> seams{p, segment, stream.lane};
    T x[K];
#pragma unroll
    for (int k = 0; k < K; ++k) x[k] = stream.initial[k];
    Entry<T, K> entry(seams, first);
    stream.run(first > p.burn ? first - p.burn : 0, first, x, entry);
    if (stream.exists) seams.put(x, p.ends);
}

// Walks a segment from the end of the one before it until it meets what is there, and tells if its own end moves.
template <class Map, class S, bool CUT, int COPIERS, int PIECES, class Order>
__device__ inline void walk_again(const Problem& p, long long segment, long long tile, typename Map::Number* x) {
    using T = typename Map::Number;
    constexpr int K = Map::parts;
    const long long first = segment * p.span, last = first + p.span;
    Stream<Map, S, CUT, COPIERS, PIECES, Order> stream(p, tile, last < p.steps ? last : p.steps);
    const S* y = address<const S>(p.y.at) + (stream.exists ? offset_of(p.y, p.sizes, stream.lane) : 0);
    Meeting<T, S, K> meeting(p, y);
    const bool to_the_end = stream.run(first, first, x, meeting);
    if (!to_the_end || !stream.exists || segment == p.segments - 1) return;
    const Seams<T, K> seams{p, segment, stream.lane};
    T told[K];
    seams.put(x, p.starts);  // which is not looked at again: from now on the state after the segment
    seams.get(told, p.ends, segment);
    if (same<T, K>(x, told)) return;
    bool all_finite = true;
#pragma unroll
    for (int k = 0; k < K; ++k) all_finite &= finite(x[k]);
    if (all_finite) atomicMax(address<int>(p.changed), 1);
    if (!all_finite) atomicMax(address<int>(p.broken) + tile, static_cast<int>(p.segments - segment));
}

// Walks on to the last time from the first segment that ends otherwise than it was told, in inf or NaN.
template <class Map, class S, bool CUT, int COPIERS, int PIECES, class Order>
__device__ inline void walk_rest(const Problem& p, long long tile) {
    using T = typename Map::Number;
    constexpr int K = Map::parts;
    const long long segment = p.segments - address<const int>(p.broken)[tile], first = (segment + 1) * p.span;
    if (segment == p.segments) return;
    Stream<Map, S, CUT, COPIERS, PIECES, Order> stream(p, tile, p.steps);
    T x[K];
#pragma unroll
    for (int k = 0; k < K; ++k) x[k] = T(0);
    if (stream.exists) Seams<T, K>{p, segment, stream.lane}.get(x, p.starts, segment);
    Onward<T> onward;
    stream.run(first, first, x, onward);
}

// Whether a block is the last one of so many that come here: it then sees what the others have written.
__device__ inline bool comes_last(int* count, long long blocks) {
    fence();
    __syncthreads();
    const bool last = __syncthreads_or(threadIdx.x == 0 && atomicAdd(count, 1) == blocks - 1);
    fence();
    return last;
}

template <class Map, class S, bool CUT, int COPIERS, int PIECES, class Order>
__global__ void __launch_bounds__(Order::WIDTH + COPIERS, 1) segments_again(const Problem p) {
    using T = typename Map::Number;
    constexpr int K = Map::parts;
    const long long segment = blockIdx.x / p.tiles_of_lanes + 1, tile = blockIdx.x % p.tiles_of_lanes;
    const long long lane = tile * Order::WIDTH + threadIdx.x;
    T x[K], told[K];
    bool differs = false;
    if (threadIdx.x < Order::WIDTH && lane < p.lanes) {
        const Seams<T, K> seams{p, segment, lane};
        seams.get(x, p.ends, segment - 1);
        seams.get(told, p.starts, segment);
        differs = !same<T, K>(x, told);
    }
    if (__syncthreads_or(differs)) walk_again<Map, S, CUT, COPIERS, PIECES, Order>(p, segment, tile, x);
    if (comes_last(address<int>(p.done) + tile, p.segments - 1)) {
        walk_rest<Map, S, CUT, COPIERS, PIECES, Order>(p, tile);
    }
}

}  // namespace recsolve

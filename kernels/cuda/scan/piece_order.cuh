// How what is streamed lies in shared memory.

#pragma once

#include "scan/maps.cuh"

namespace recsolve {

// How a piece of PIECE_ steps of WIDTH_ lanes lies in shared memory, on different banks for different threads.
//
// Where lanes are nearer in memory than times COUNT_ of them move at once; with COUNT_ = 1 either may be nearer.
template <int WIDTH_, int PIECE_, int COUNT_> struct Across {
    static constexpr int WIDTH = WIDTH_, PIECE = PIECE_, COUNT = COUNT_, PITCH = WIDTH + (COUNT == 1);
    static constexpr int SIZE = PIECE * PITCH;
    static constexpr int LEAST = 1;  // steps that are read at once

    struct Place {
        int step, lane, at;
    };

    // The n-th MOVED numbers of a piece, in order of memory.
    template <int MOVED> __device__ static Place place(int n, bool by_time) {
        constexpr int GROUPS = WIDTH / MOVED;
        const int step = by_time ? n % PIECE : n / GROUPS, lane = by_time ? n / PIECE : n % GROUPS * MOVED;
        return {step, lane, step * PITCH + lane};
    }
    // How far the lowest address of MOVED numbers is from that of the first step.
    template <int MOVED> __device__ static int lowest(bool) { return 0; }

    template <int N, class S> __device__ static void read(const S* piece, int step, int lane, bool, S* held) {
#pragma unroll
        for (int i = 0; i < N; ++i) held[i] = piece[(step + i) * PITCH + lane];
    }
    template <int N, class S> __device__ static void write(S* piece, int step, int lane, bool, const S* held) {
#pragma unroll
        for (int i = 0; i < N; ++i) piece[(step + i) * PITCH + lane] = held[i];
    }
};

// Where times are nearer COUNT_ of them move at once, as they lie in memory: last first if time runs backwards there.
template <int WIDTH_, int PIECE_, int COUNT_> struct Along {
    static constexpr int WIDTH = WIDTH_, PIECE = PIECE_, COUNT = COUNT_, PITCH = PIECE + COUNT, SIZE = WIDTH * PITCH;
    static constexpr int LEAST = COUNT;

    using Place = typename Across<WIDTH_, PIECE_, 1>::Place;

    template <int MOVED> __device__ static Place place(int n, bool) {
        constexpr int GROUPS = PIECE / MOVED;
        const int step = n % GROUPS * MOVED, lane = n / GROUPS;
        return {step, lane, lane * PITCH + step};
    }
    template <int MOVED> __device__ static int lowest(bool backwards) { return backwards ? 1 - MOVED : 0; }

    template <int N, class S> __device__ static void read(const S* piece, int step, int lane, bool backwards, S* held) {
#pragma unroll
        for (int i = 0; i < N; i += COUNT) {
            Vector<S, COUNT> group;
            copy<COUNT>(group.numbers, piece + lane * PITCH + step + i);
#pragma unroll
            for (int j = 0; j < COUNT; ++j) held[i + j] = backwards ? group.numbers[COUNT - 1 - j] : group.numbers[j];
        }
    }
    template <int N, class S> __device__ static void write(S* piece, int step, int lane, bool backwards, const S* held) {
#pragma unroll
        for (int i = 0; i < N; i += COUNT) {
            Vector<S, COUNT> group;
#pragma unroll
            for (int j = 0; j < COUNT; ++j) group.numbers[j] = backwards ? held[i + COUNT - 1 - j] : held[i + j];
            copy<COUNT>(piece + lane * PITCH + step + i, group.numbers);
        }
    }
};

// The numbers of an array that a thread moves, COUNT at a time: which they are stays the same from piece to piece.
template <class Order, int COUNT, int THREADS> struct Mover {
    static constexpr int GROUPS = Order::PIECE * Order::WIDTH / COUNT, EACH = (GROUPS + THREADS - 1) / THREADS;

    long long distance[EACH];        // from the first number of the array, in the piece that begins at time 0
    int place[EACH], step[EACH];     // in the piece; a step that no piece has, if the lane does not exist

    // `offsets` are those of the lanes, the first `lanes` of which exist.
    __device__ void find(int thread, const View& view, bool by_time, const long long* offsets, long long lanes) {
#pragma unroll
        for (int i = 0; i < EACH; ++i) {
            const int n = i * THREADS + thread;
            const typename Order::Place at = Order::template place<COUNT>(n, by_time);
            const bool exists = n < GROUPS && at.lane < lanes;
            place[i] = at.at, step[i] = exists ? at.step : Order::PIECE;
            distance[i] = exists ? offsets[at.lane] + at.step * view.time + Order::template lowest<COUNT>(view.time < 0) : 0;
        }
    }

    // Calls visit(place, distance from the first number) for those of a piece whose steps come before `end`.
    template <class Visit> __device__ void each(const View& view, long long first, long long end, Visit visit) const {
        const long long there = first * view.time;
        const int steps = end - first < Order::PIECE ? static_cast<int>(end - first) : Order::PIECE;
#pragma unroll
        for (int i = 0; i < EACH; ++i) {
            if (step[i] < steps) visit(place[i], distance[i] + there);
        }
    }
};

}  // namespace recsolve

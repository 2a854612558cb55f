// Matrices of more rows than a thread holds, up to 32: a thread for every row, a warp for one matrix or some small ones.
//
// A warp walks through time. Matrices and vectors are copied to shared memory some steps ahead, in the order in which
// they lie there, VECTOR numbers at a time; the state goes from row to row through shared memory too. Few lanes leave a
// device idle here: time is not cut, because composing matrices costs their rows times the work of acting.

#pragma once

#include "scan/maps.cuh"

namespace recsolve {

template <class Map, class S, bool CUT, int DEPTH, int VECTOR> struct Rows {
    using T = typename Map::Number;
    using Operations = typename Map::Operations;
    static constexpr int N = Map::parts;
    static constexpr int WIDTH = N <= 8 ? 8 : N <= 16 ? 16 : 32;  // threads of a matrix
    static constexpr int PITCH = VECTOR > 1 ? N + VECTOR : N | 1;  // of rows, so that these begin on different banks
    static constexpr int EIGHTHS = (N + 7) / 8 * 8;
    static constexpr int MATRIX = (N * PITCH + 7) / 8 * 8, SLOT = MATRIX + EIGHTHS;  // multiples of 16 bytes
    static constexpr int SUMS = 4;  // that do not wait for each other

    const Problem& p;
    int row;
    bool exists, by_rows;
    const S *matrix, *vector;
    const unsigned char* cut;
    S *y, *slots;
    T* states;            // two of them
    unsigned int* words;  // that hold the bytes of cuts

    __device__ Rows(const Problem& problem) : p(problem) {
        constexpr int EACH = LANES / WIDTH;
        const int own = threadIdx.x / WIDTH;
        const long long lane = static_cast<long long>(blockIdx.x) * EACH + own;
        row = threadIdx.x % WIDTH;
        exists = lane < p.lanes;
        const long long at = exists ? lane : 0;
        by_rows = VECTOR > 1 || distance(p.in[0].column) <= distance(p.in[0].row);
        matrix = address<const S>(p.in[0].at) + offset_of(p.in[0], p.sizes, at);
        vector = address<const S>(p.in[1].at) + offset_of(p.in[1], p.sizes, at);
        cut = CUT ? address<const unsigned char>(p.cut.at) + offset_of(p.cut, p.sizes, at) : nullptr;
        y = address<S>(p.y.at) + offset_of(p.y, p.sizes, at);
        T* all_states = reinterpret_cast<T*>(shared_memory());
        S* all_slots = reinterpret_cast<S*>(all_states + EACH * 2 * EIGHTHS);
        states = all_states + own * 2 * EIGHTHS;
        slots = all_slots + own * DEPTH * SLOT;
        words = reinterpret_cast<unsigned int*>(all_slots + EACH * DEPTH * SLOT) + own * DEPTH;
    }

    __device__ static long long distance(long long stride) { return stride < 0 ? -stride : stride; }

    // Asks for the numbers of a step.
    __device__ void ask(int slot, long long t) const {
        if (exists && t < p.steps) {
            S* to = slots + slot * SLOT;
            const S* from = matrix + t * p.in[0].time;
#pragma unroll 4
            for (int n = row * VECTOR; n < N * N; n += WIDTH * VECTOR) {
                const int r = by_rows ? n / N : n % N, c = by_rows ? n % N : n / N;
                copy_async<VECTOR>(to + r * PITCH + c, from + r * p.in[0].row + c * p.in[0].column);
            }
            if (row < N) copy_async<1>(to + MATRIX + row, vector + t * p.in[1].time + row * p.in[1].row);
            if (CUT && row == 0) copy_word_async(words + slot, cut + t * p.cut.time);
        }
        commit_copies();
    }

    // Returns this row of A x + b, or b where the step is cut.
    __device__ T step(int slot, long long t, const T* x) const {
        const S* from = slots + slot * SLOT;
        const T b = Stored<S>::get(from[MATRIX + row]);
        T sums[SUMS];
#pragma unroll
        for (int i = 0; i < SUMS; ++i) sums[i] = Operations::zero();
#pragma unroll
        for (int j = 0; j < N; j += VECTOR) {
            const auto entries = *reinterpret_cast<const Vector<S, VECTOR>*>(from + row * PITCH + j);
            const auto others = *reinterpret_cast<const Vector<T, VECTOR>*>(x + j);
#pragma unroll
            for (int i = 0; i < VECTOR; ++i) {
                sums[(j + i) % SUMS] = Operations::more(Stored<S>::get(entries.numbers[i]), others.numbers[i], sums[(j + i) % SUMS]);
            }
        }
        const T total = Operations::plus(Operations::plus(sums[0], sums[1]), Operations::plus(sums[2], sums[3]));
        const bool is_cut = (CUT && byte_of(words[slot], cut + t * p.cut.time)) || (t == 0 && !p.initial.at);
        return is_cut ? b : Operations::plus(total, b);
    }
};

template <class Map, class S, bool CUT, int DEPTH, int VECTOR>
__global__ void __launch_bounds__(LANES) dense(const Problem p) {
    using T = typename Map::Number;
    using Walk = Rows<Map, S, CUT, DEPTH, VECTOR>;
    const Walk walk(p);
    const bool holds = walk.exists && walk.row < Walk::N;
    T *x = walk.states, *next = x + Walk::EIGHTHS;
    if (walk.row < Walk::N) {
        const long long lane = (static_cast<long long>(blockIdx.x) * LANES + threadIdx.x) / Walk::WIDTH;
        const bool given = walk.exists && p.initial.at;
        const T* from = given ? address<const T>(p.initial.at) + offset_of(p.initial, p.sizes, lane) : nullptr;
        x[walk.row] = given ? from[walk.row * p.initial.row] : T(0);
    }
    for (int i = 0; i < DEPTH - 1; ++i) walk.ask(i, i);
    int slot = 0;
    for (long long t = 0; t < p.steps; ++t) {
        wait_copies<DEPTH - 2>();
        __syncwarp();  // this step's numbers and the state are there, and the slot of the step before is free
        walk.ask(slot == 0 ? DEPTH - 1 : slot - 1, t + DEPTH - 1);
        if (holds) {
            next[walk.row] = walk.step(slot, t, x);
            walk.y[t * p.y.time + walk.row * p.y.row] = Stored<S>::put(next[walk.row]);
        }
        T* before = x;
        x = next, next = before;
        slot = slot == DEPTH - 1 ? 0 : slot + 1;
    }
}

}  // namespace recsolve

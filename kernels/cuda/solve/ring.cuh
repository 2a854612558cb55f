// The lanes of a warp, and the drives of their next steps on the way to shared memory.
//
// A warp loads for itself: rows of 32 lanes in pieces of 16 bytes, several rows at a time, or where lanes do not lie so
// number by number. No warp waits for another one.

#pragma once

#include "solve/problem.cuh"

namespace recsolve {

// A number that is stored, as a word in which every bit counts.
__device__ inline unsigned int word_of(float x) {
    return static_cast<unsigned int>(bits_of(x));
}
__device__ inline unsigned int word_of(double x) {
    return static_cast<unsigned int>(bits_of(x)) + 2654435761u * static_cast<unsigned int>(bits_of(x) >> 32);
}
template <class Half> __device__ inline unsigned int word_of(Half x) {
    return x.bits;
}

// One lane of a solve: its constants, and where its states begin and what is written goes.
template <class Cell, class S> struct SolveLane {
    using T = typename Stored<S>::Number;

    long long index;
    bool exists;
    T constants[at_least_one<Cell::CONSTANTS>];
    S* written[Cell::WRITTEN];
    const T *initial, *restart;  // states

    __device__ SolveLane(const Recurrence<Cell>& p, long long first) : index(first + threadIdx.x % LANES) {
        exists = index < p.lanes;
#pragma unroll
        for (int i = 0; i < Cell::CONSTANTS; ++i) {
            constants[i] = exists ? Stored<S>::get(*at<const S>(p, p.constants[i])) : T(0);
        }
#pragma unroll
        for (int i = 0; i < Cell::WRITTEN; ++i) written[i] = at<S>(p, p.written[i]);
        initial = at<const T>(p, p.initial), restart = at<const T>(p, p.restart);
    }

    // The address of this lane's number at t = 0.
    template <class X> __device__ X* at(const Recurrence<Cell>& p, const View& view) const {
        return address<X>(view.at) + (exists ? offset_of(view, p.sizes, index) : 0);
    }

    // Reads a state whose numbers are `row` apart.
    __device__ void state(const T* from, long long row, T* x) const {
#pragma unroll
        for (int i = 0; i < Cell::PARTS; ++i) x[i] = exists ? from[i * row] : T(0);
    }

    // The state from which a walk starts. On the way back the first step starts from what comes from beyond the last time,
    // and what begins at later ones is led in from zero.
    __device__ void begin(const Recurrence<Cell>& p, bool at_first, T* x) const {
        if (!Cell::BACK) {
            state(initial, p.initial.row, x);
        } else if (at_first && p.incoming.at != 0) {
            state(at<const T>(p, p.incoming), p.incoming.row, x);
        } else {
#pragma unroll
            for (int i = 0; i < Cell::PARTS; ++i) x[i] = T(0);
        }
    }

    // Puts what a step writes where `to` points, and leads that to the next step; returns the checksum of its bits, whose
    // weights begin with the one given.
    __device__ unsigned int write(const Recurrence<Cell>& p, const T* out, S** to, unsigned int weight) const {
        unsigned int sum = 0;
#pragma unroll
        for (int i = 0; i < Cell::WRITTEN; ++i) {
            const S stored = Stored<S>::put(out[i]);
            if (exists) *to[i] = stored;
            if (!Cell::BACK) sum += word_of(stored) * (weight + 2 * i);
            to[i] += p.written[i].time;
        }
        return sum;
    }

    // The checksum of what is there i steps after where `to` points.
    __device__ unsigned int stored(const Recurrence<Cell>& p, S* const* to, int i, unsigned int weight) const {
        unsigned int sum = 0;
#pragma unroll
        for (int k = 0; k < Cell::WRITTEN; ++k) {
            sum += exists ? word_of(to[k][i * p.written[k].time]) * (weight + 2 * k) : 0;
        }
        return sum;
    }

    // The weight of the first number of a step.
    __device__ static unsigned int weight(long long t) { return static_cast<unsigned int>(2 * Cell::PARTS * t + 1); }

    __device__ void places(const Recurrence<Cell>& p, long long t, S** to) const {
#pragma unroll
        for (int i = 0; i < Cell::WRITTEN; ++i) to[i] = written[i] + t * p.written[i].time;
    }
};

// SLOTS pieces of STEPS steps each.
template <class Cell, class S, bool CUT, int STEPS, int SLOTS> struct DriveRing {
    using T = typename Stored<S>::Number;
    static constexpr int PIECE = 16 / sizeof(S), PIECES = LANES / PIECE;  // numbers of a piece, pieces of a row
    static constexpr int NUMBERS = SLOTS * Cell::DRIVES * STEPS * LANES;
    static constexpr int BYTES = NUMBERS * sizeof(S) + (CUT ? SLOTS * STEPS * LANES * 4 : 0);

    const Recurrence<Cell>& p;
    const int own;
    const long long piece;  // the first of the lanes that this thread copies of a row
    const bool exists, inside;
    const S* from[at_least_one<Cell::DRIVES>];  // at t = 0, what this thread copies
    const unsigned char* cuts;
    S* numbers;

    __device__ DriveRing(const Recurrence<Cell>& problem, const SolveLane<Cell, S>& lane, unsigned char* shared)
        : p(problem), own(threadIdx.x % LANES), piece(lane.index - own + own % PIECES * PIECE), exists(lane.exists),
          inside(piece < p.lanes) {
        numbers = reinterpret_cast<S*>(shared);
#pragma unroll
        for (int d = 0; d < Cell::DRIVES; ++d) {
            const long long mine = by_rows(d) ? inside ? piece : 0 : exists ? lane.index : 0;
            from[d] = address<const S>(p.drives[d].at) + offset_of(p.drives[d], p.sizes, mine);
        }
        cuts = CUT ? lane.template at<const unsigned char>(p, p.cut) : nullptr;
    }

    // The words that hold the bytes of cuts.
    __device__ unsigned int* word(int slot, int i) const {
        return reinterpret_cast<unsigned int*>(numbers + NUMBERS) + (slot * STEPS + i) * LANES + own;
    }

    __device__ bool by_rows(int d) const { return p.rows >> d & 1; }

    __device__ S* row(int slot, int d, int i) const {
        return numbers + ((slot * Cell::DRIVES + d) * STEPS + i) * LANES;
    }

    // On the way back the state before the first step is not among the states; its place is never looked at, and what is
    // read for it is the state after.
    __device__ bool absent(int d, long long t) const {
        constexpr int FIRST = Cell::DRIVES - 2 * Cell::PARTS;
        return Cell::BACK && d >= FIRST && d < FIRST + Cell::PARTS && t == p.steps - 1 && t > 0;
    }

    // Starts to copy `count` steps from time t on: where threads share rows, PIECE rows at a time.
    __device__ void ask(int slot, long long t, int count) const {
#pragma unroll
        for (int d = 0; d < Cell::DRIVES; ++d) {
            const bool rows = by_rows(d);
            if (rows ? !inside : !exists) continue;
            const long long time = p.drives[d].time;
            const int first = rows ? own / PIECES : 0;
            const S* of = from[d] + (t + first) * time;
            S* to = row(slot, d, first) + (rows ? own % PIECES * PIECE : own);
            if (rows && count == STEPS && STEPS % PIECE == 0) {
#pragma unroll
                for (int i = 0; i < STEPS; i += PIECE) {
                    copy_async<PIECE>(to + i * LANES, absent(d, t + first + i) ? of + (i - 1) * time : of + i * time);
                }
                continue;
            }
            for (int i = first, every = rows ? PIECE : 1; i < count; i += every) {
                const S* here = absent(d, t + i) ? of - time : of;
                if (rows) copy_async<PIECE>(to, here);
                if (!rows) copy_async(to, here);
                of += every * time, to += every * LANES;
            }
        }
        if (CUT && exists) {
            for (int i = 0; i < count; ++i) copy_word_async(word(slot, i), cuts + (t + i) * p.cut.time);
        }
    }

    __device__ void get(int slot, int i, T* u) const {
#pragma unroll
        for (int d = 0; d < Cell::DRIVES; ++d) u[d] = Stored<S>::get(row(slot, d, i)[own]);
    }

    __device__ bool cut(int slot, int i, long long t) const {
        return CUT && exists && byte_of(*word(slot, i), cuts + t * p.cut.time);
    }

    // Waits for all copies of the warp but those of the last PENDING groups.
    template <int PENDING> __device__ void wait() const {
        wait_copies<PENDING>();
        __syncwarp();
    }
};

// Takes the numbers of one step, and what it starts from where it is cut from its past; returns whether it is.
template <class Cell, class S, class Loads, class T>
__device__ __forceinline__ bool take(const Recurrence<Cell>& p, const SolveLane<Cell, S>& lane, const Loads& ring, int slot,
                                     int i, long long t, T* x, T* u) {
    ring.get(slot, i, u);
    const bool again = ring.cut(slot, i, t), cut = again || (Cell::BACK && t == p.steps - 1);
    if (cut) {
        T start[Cell::PARTS];
        lane.state(again ? lane.restart : lane.initial, again ? p.restart.row : p.initial.row, start);
        Cell::enter(start, x, u);
    }
    return cut;
}

}  // namespace recsolve

// One solve as the kernels see it, and a cell as they use it: forwards, or on the way back for the adjoint.
//
// A recurrence here has a state of PARTS numbers, DRIVES numbers for every step, CONSTANTS for every lane; it writes
// WRITTEN numbers a step and adds up SUMS. All of it runs in the direction of growing t: strides may be negative.

#pragma once

#include "common/elementary.cuh"
#include "common/numbers.cuh"
#include "common/view.cuh"

namespace recsolve {

template <int N> constexpr int at_least_one = N > 0 ? N : 1;

// Python reads this description and fills such a structure: fields are 64 bits wide, or views.
template <class Cell> struct Recurrence {
    long long steps, lanes;
    long long sizes[AXES];  // of the axes of lanes, the innermost first
    View drives[at_least_one<Cell::DRIVES>];
    View constants[at_least_one<Cell::CONSTANTS>];
    View written[Cell::WRITTEN];
    View initial, restart;  // states, in the type of the arithmetic
    View incoming;          // on the way back, what steps after the last one hand to it, likewise; at == 0: nothing
    View cut;               // bytes: which steps are cut from their past; at == 0: none
    long long rows;         // bit d: lanes of drive d lie in aligned pieces of 16 bytes, counted from the first one
    long long groups;       // of 32 lanes

    double atol, rtol;  // a segment is accepted when |r| <= atol + rtol max(|h|, |f|) where it begins
    double forgotten;   // steps whose product of derivatives is below this forget what they started from
    double near;        // bounds that a first state may move where what is walked from it is written
    long long exact;    // 1: nothing but equality is accepted, and derivatives are of no use
    long long most;     // sweeps before segments are walked in order

    long long segments, span;  // of time, and steps of one
    long long burn;            // steps before a segment that guess its first state
    long long parts, sets;     // blocks that share the segments of lanes, and sets of lanes that do so
    long long ticket;          // what checksums begin with
    long long counters;        // address: Fields, then a flag for each block; all 0
    long long links;           // address: [sweep][block][number][lane of the group]
    long long checks;          // address: [segment][lane], of what is written
    long long sums;            // address: [segment][number][lane]
};

// What is told of a solve, as int; WORST holds the bits of a float.
enum Fields { STARTED, ENDED, SWEEPS, REDONE, WALKED, WORST, UNMET, WRONG, NOT_FINITE, LARGEST, FIELDS = 16 };

template <class T> __device__ inline T larger(T x, T y) {
    return x > y ? x : y;
}
template <class T> __device__ inline bool same(T x, T y) {
    return x == y || (is_nan(x) && is_nan(y));
}
template <class T> __device__ inline T size_of(T x) {
    return x < T(0) ? -x : x;
}

// h[t] = f(h[t-1], u[t]); the states are what is written.
template <class Cell> struct Forward {
    static constexpr int PARTS = Cell::PARTS, DRIVES = Cell::DRIVES, CONSTANTS = Cell::CONSTANTS;
    static constexpr int WRITTEN = PARTS, SUMS = 0;
    static constexpr bool IS_LINEAR = false, BACK = false, ROUGH = true;
    template <class T> using Guess = Rough<T>;

    template <class M, class T> __device__ static void step(const T* x, const T* u, const T* w, T* y) {
        Cell::template step<M>(x, u, w, y);
    }

    template <class M, class T> __device__ static void linear(const T* x, const T* u, const T* w, T* y, T* J) {
        Cell::template linear<M>(x, u, w, y, J);
    }

    // A step, given its result, and what is written and added up for it.
    template <class T> __device__ static void results(const T*, const T*, const T*, const T* y, T* out, T*) {
#pragma unroll
        for (int i = 0; i < PARTS; ++i) out[i] = y[i];
    }

    // A step that is cut from its past: before and after it.
    template <class T> __device__ static void enter(const T* start, T* x, T*) {
#pragma unroll
        for (int i = 0; i < PARTS; ++i) x[i] = start[i];
    }
    template <class T> __device__ static void leave(T*, T*) {}

    // Whether a step may start from x where it started from `assumed`, with the results y and `head`; r is the largest
    // difference. What is equal, or NaN alike, is what a walk would give.
    template <class T>
    __device__ static bool accepts(const T*, const T*, const T*, const T* y, const T* head, T atol, T rtol, T& r) {
        bool accepted = true;
#pragma unroll
        for (int i = 0; i < PARTS; ++i) {
            if (same(y[i], head[i])) continue;
            T difference = size_of(y[i] - head[i]);
            // inf <= inf holds, but what is so far off is no result of this step.
            accepted &= finite(difference) && difference <= atol + rtol * larger(size_of(y[i]), size_of(head[i]));
            r = larger(r, difference);
        }
        return accepted;
    }
};

// The way back: a[t] = J[t]^T (c[t] + a[t+1]), the last time first. Drives are those of the cell, its states one step
// before, and the cotangents c; written are the cotangents of drives and the adjoint variables c + a; added up are the
// cotangents of constants and those of what steps that are cut from their past start from.
template <class Cell> struct Backward {
    static constexpr int PARTS = Cell::PARTS, CONSTANTS = Cell::CONSTANTS;
    static constexpr int OWN = Cell::DRIVES, DRIVES = OWN + 2 * PARTS;
    static constexpr int WRITTEN = OWN + PARTS, SUMS = CONSTANTS + PARTS;
    static constexpr bool IS_LINEAR = true, BACK = true, ROUGH = false;
    template <class T> using Guess = Full<T>;

    template <class T> __device__ static void total(const T* a, const T* u, T* g) {
#pragma unroll
        for (int i = 0; i < PARTS; ++i) g[i] = u[OWN + PARTS + i] + a[i];
    }

    template <class M, class T> __device__ static void step(const T* a, const T* u, const T* w, T* y) {
        T g[PARTS], gu[at_least_one<OWN>], gw[at_least_one<CONSTANTS>];
        total(a, u, g);
        Cell::template pull<M>(u + OWN, u, w, g, y, gu, gw);
    }

    template <class M, class T> __device__ static void linear(const T* a, const T* u, const T* w, T* y, T* J) {
        T g[PARTS], h[PARTS], partials[PARTS * PARTS];
        total(a, u, g);
        Cell::template linear<M>(u + OWN, u, w, h, partials);
#pragma unroll
        for (int i = 0; i < PARTS; ++i) {
            y[i] = partials[i] * g[0];
#pragma unroll
            for (int j = 0; j < PARTS; ++j) {
                J[i * PARTS + j] = partials[j * PARTS + i];
                if (j > 0) y[i] = multiply_add(partials[j * PARTS + i], g[j], y[i]);
            }
        }
    }

    template <class T>
    __device__ static void results(const T* a, const T* u, const T* w, const T*, T* out, T* sums) {
        T g[PARTS], y[PARTS], gw[at_least_one<CONSTANTS>];
        total(a, u, g);
        Cell::template pull<Full<T>>(u + OWN, u, w, g, y, out, gw);
#pragma unroll
        for (int i = 0; i < PARTS; ++i) out[OWN + i] = g[i];
#pragma unroll
        for (int i = 0; i < CONSTANTS; ++i) sums[i] += gw[i];
    }

    template <class T> __device__ static void enter(const T* start, T*, T* u) {
#pragma unroll
        for (int i = 0; i < PARTS; ++i) u[OWN + i] = start[i];
    }
    template <class T> __device__ static void leave(T* y, T* sums) {
#pragma unroll
        for (int i = 0; i < PARTS; ++i) sums[CONSTANTS + i] += y[i], y[i] = T(0);
    }

    // What is written depends on the start itself, beside the cotangent that it is added to.
    template <class T>
    __device__ static bool accepts(const T* x, const T* assumed, const T* u, const T*, const T*, T, T rtol, T& r) {
        bool accepted = true;
#pragma unroll
        for (int i = 0; i < PARTS; ++i) {
            if (same(x[i], assumed[i])) continue;
            T difference = size_of(x[i] - assumed[i]), size = larger(size_of(x[i]), size_of(assumed[i]));
            accepted &= finite(difference) && difference <= rtol * larger(size, size_of(u[OWN + PARTS + i]));
            r = larger(r, difference);
        }
        return accepted;
    }
};

// Sums of a lane over all steps: in the type of the states over a few, in double over many.
template <class Cell, class T> struct Sums {
    T few[at_least_one<Cell::SUMS>];
    double all[at_least_one<Cell::SUMS>];

    __device__ void clear() {
#pragma unroll
        for (int i = 0; i < Cell::SUMS; ++i) few[i] = T(0), all[i] = 0.0;
    }
    __device__ void forget() {
#pragma unroll
        for (int i = 0; i < Cell::SUMS; ++i) few[i] = T(0);
    }
    __device__ void gather() {
#pragma unroll
        for (int i = 0; i < Cell::SUMS; ++i) all[i] += few[i], few[i] = T(0);
    }
};

}  // namespace recsolve

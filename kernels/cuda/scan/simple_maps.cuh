// More maps that scans compose, in the form of maps.cuh: semirings, sums, bounded sums, complex numbers.
//
// `trusts` is strict: what has overflowed, or met inf - inf, on its way through composed maps is walked instead.

#pragma once

#include "scan/maps.cuh"

namespace recsolve {

// Semirings: minima and maxima do not round. A sum in a composed product that overflows is marked by NaN, because the
// loop, which is bounded from below in between, may not get there.
template <class T> struct MaxMin {
    using Products = MaxMin;
    __device__ static T zero() { return T(-1) / T(0); }
    __device__ static T one() { return T(1) / T(0); }
    __device__ static T times(T x, T y) { return least(x, y); }
    __device__ static T plus(T x, T y) { return greatest(x, y); }
    __device__ static T more(T x, T y, T total) { return greatest(total, least(x, y)); }
    __device__ static bool sure(T) { return true; }
};

template <class T> __device__ inline T marked_sum(T x, T y) {
    const T total = x + y;
    return !finite(total) && finite(x) && finite(y) ? total - total : total;
}

template <class T, bool MAX, bool MARKED = false> struct PlusOver {
    using Products = PlusOver<T, MAX, true>;
    __device__ static T zero() { return T(MAX ? -1 : 1) / T(0); }
    __device__ static T one() { return T(0); }
    __device__ static T times(T x, T y) { return MARKED ? marked_sum(x, y) : x + y; }
    __device__ static T plus(T x, T y) { return MAX ? greatest(x, y) : least(x, y); }
    __device__ static T more(T x, T y, T total) { return plus(total, times(x, y)); }
    __device__ static bool sure(T x) { return !is_nan(x); }
};

template <class T> using MaxPlus = PlusOver<T, true>;
template <class T> using MinPlus = PlusOver<T, false>;

// What a map gave is what its steps would have given, if it is finite, or if NaN came in and nothing was cut.
template <class T> __device__ inline bool sure_of(T before, T after, bool constant) {
    return finite(after) || (is_nan(before) && !constant);
}

// x -> x + b; a cut step gives b.
template <class T> struct Addition {
    using Number = T;
    static constexpr int parts = 1, entries = 0, vectors = 1, size = 2;

    T a[1], b[1];  // a holds nothing
    bool constant;

    __device__ static void step(const T*, const T* f, bool cut, const T*, T* x) { x[0] = cut ? f[0] : x[0] + f[0]; }

    __device__ void identity() { b[0] = T(0), constant = false; }

    __device__ void begin(const T*, const T* f, bool cut, const T*) { b[0] = f[0], constant = cut; }

    __device__ void then(const T* e, const T* f, bool cut, const T* initial) {
        step(e, f, cut, initial, b);
        constant |= cut;
    }

    __device__ void after(const Addition& earlier) {
        if (constant) return;
        b[0] = earlier.b[0] + b[0], constant = earlier.constant;
    }

    __device__ void act(T* x) const { x[0] = constant ? b[0] : x[0] + b[0]; }

    __device__ bool trusts(const T* before, const T* after) const { return sure_of(before[0], after[0], constant); }
};

// x -> max(min(x + d, hi), lo), from d, lo, hi. Composed: a = d, hi and b = lo. A cut step acts on the initial state.
template <class T> struct SaturatingAdd {
    using Number = T;
    static constexpr int parts = 1, entries = 0, vectors = 3, size = 4;

    T a[2], b[1];
    bool constant;

    __device__ static T bounded(T x, T d, T lo, T hi) { return greatest(least(x + d, hi), lo); }

    __device__ static void step(const T*, const T* f, bool cut, const T* initial, T* x) {
        x[0] = bounded(cut ? initial[0] : x[0], f[0], f[1], f[2]);
    }

    __device__ void identity() {
        a[0] = T(0), a[1] = T(1) / T(0), b[0] = T(-1) / T(0), constant = false;
    }

    __device__ void begin(const T*, const T* f, bool cut, const T* initial) {
        a[0] = f[0], a[1] = f[2], b[0] = cut ? bounded(initial[0], f[0], f[1], f[2]) : f[1], constant = cut;
    }

    __device__ void then(const T* e, const T* f, bool cut, const T* initial) {
        a[0] = marked_sum(a[0], f[0]), a[1] = bounded(a[1], f[0], f[1], f[2]);
        step(e, f, cut, initial, b);
        constant |= cut;
    }

    __device__ void after(const SaturatingAdd& earlier) {
        if (constant) return;
        const T lo = bounded(earlier.b[0], a[0], b[0], a[1]), hi = bounded(earlier.a[1], a[0], b[0], a[1]);
        a[0] = marked_sum(earlier.a[0], a[0]), a[1] = hi, b[0] = lo, constant = earlier.constant;
    }

    __device__ void act(T* x) const { x[0] = constant ? b[0] : bounded(x[0], a[0], b[0], a[1]); }

    __device__ bool trusts(const T* before, const T* after) const { return sure_of(before[0], after[0], constant); }
};

// x -> a x + b of complex numbers, whose parts lie side by side in memory.
template <class T> struct ComplexAffine {
    using Number = T;
    static constexpr int parts = 2, entries = 2, vectors = 1, size = 5;

    T a[2], b[2];
    bool constant;

    // v <- m v.
    __device__ static void multiply(const T* m, T* v) {
        const T real = multiply_add(-m[1], v[1], m[0] * v[0]);
        v[1] = multiply_add(m[1], v[0], m[0] * v[1]), v[0] = real;
    }

    __device__ static void step(const T* e, const T* f, bool cut, const T*, T* x) {
        multiply(e, x);
        x[0] = cut ? f[0] : x[0] + f[0], x[1] = cut ? f[1] : x[1] + f[1];
    }

    __device__ void identity() { a[0] = T(1), a[1] = b[0] = b[1] = T(0), constant = false; }

    __device__ void begin(const T* e, const T* f, bool cut, const T*) {
        a[0] = e[0], a[1] = e[1], b[0] = f[0], b[1] = f[1], constant = cut;
    }

    __device__ void then(const T* e, const T* f, bool cut, const T* initial) {
        multiply(e, a);
        step(e, f, cut, initial, b);
        constant |= cut;
    }

    __device__ void after(const ComplexAffine& earlier) {
        if (constant) return;
        T sum[2] = {earlier.b[0], earlier.b[1]}, product[2] = {earlier.a[0], earlier.a[1]};
        step(a, b, false, nullptr, sum);
        multiply(a, product);
        a[0] = product[0], a[1] = product[1], b[0] = sum[0], b[1] = sum[1], constant = earlier.constant;
    }

    __device__ void act(T* x) const { step(a, b, constant, nullptr, x); }

    __device__ bool trusts(const T* before, const T* after) const {
        const bool sure = finite(after[0]) && finite(after[1]), lost = is_nan(before[0]) || is_nan(before[1]);
        return sure || (lost && !constant);
    }
};

}  // namespace recsolve

// Affine maps over semirings in which the sum is a maximum or a minimum, which do not round.

#pragma once

#include "scan/maps.cuh"

namespace recsolve {

template <class T> struct MaxMin {
    using Products = MaxMin;
    __device__ static T zero() { return T(-1) / T(0); }
    __device__ static T one() { return T(1) / T(0); }
    __device__ static T times(T x, T y) { return least(x, y); }
    __device__ static T plus(T x, T y) { return greatest(x, y); }
    __device__ static T more(T x, T y, T total) { return greatest(total, least(x, y)); }
    __device__ static bool sure(T) { return true; }
};

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

}  // namespace recsolve

// Elementary functions of cells. `Full` is of full precision, `Rough` is for sweeps that only make a better guess.
//
// tanh and sigmoid of floats go through the hardware's 2^x and 1 / x: within 5 units in the last place of the result,
// for sigmoid of the larger of that and 1/8: below, its relative error grows like |x|, and it is 0 below the normal
// range. The others are those of CUDA's library, within 1 to 4. All keep NaN, and are exact at infinity.

#pragma once

#include "common/numbers.cuh"
#include "common/warp.cuh"

namespace recsolve {

template <class T> __device__ inline T infinity() {
    return T(1) / T(0);
}
template <class T> __device__ inline T not_a_number() {
    return T(0) / T(0);
}

// What needs no precision of its own.
template <class T> struct Simple {
    __device__ static T positive(T x) { return x; }
    __device__ static T square(T x) { return x * x; }
    __device__ static T reciprocal(T x) { return T(1) / x; }
    __device__ static T divide(T x, T y) { return x / y; }
    __device__ static T sign(T x) { return x > T(0) ? T(1) : x < T(0) ? T(-1) : is_nan(x) ? x : T(0); }
    __device__ static bool isnan(T x) { return is_nan(x); }
    __device__ static bool isfinite(T x) { return finite(x); }
    __device__ static bool isinf(T x) { return !finite(x) && !is_nan(x); }
};

template <class T> struct Library;

template <> struct Library<float> : Simple<float> {
    __device__ static float exp(float x) { return ::expf(x); }
    __device__ static float expm1(float x) { return ::expm1f(x); }
    __device__ static float log(float x) { return ::logf(x); }
    __device__ static float log1p(float x) { return ::log1pf(x); }
    __device__ static float sqrt(float x) { return ::sqrtf(x); }
    __device__ static float sin(float x) { return ::sinf(x); }
    __device__ static float cos(float x) { return ::cosf(x); }
    __device__ static float tan(float x) { return ::tanf(x); }
    __device__ static float sinh(float x) { return ::sinhf(x); }
    __device__ static float cosh(float x) { return ::coshf(x); }
    __device__ static float arctan(float x) { return ::atanf(x); }
    __device__ static float arctan2(float y, float x) { return ::atan2f(y, x); }
    __device__ static float power(float x, float y) { return ::powf(x, y); }
    __device__ static float absolute(float x) { return ::fabsf(x); }
    __device__ static float floor(float x) { return ::floorf(x); }
    __device__ static float ceil(float x) { return ::ceilf(x); }
    __device__ static float rint(float x) { return ::rintf(x); }
    __device__ static float trunc(float x) { return ::truncf(x); }
    __device__ static float hypot(float x, float y) { return ::hypotf(x, y); }
    __device__ static float minimum(float x, float y) { return least_or_nan(x, y); }
    __device__ static float maximum(float x, float y) { return greatest_or_nan(x, y); }
};

template <> struct Library<double> : Simple<double> {
    __device__ static double exp(double x) { return ::exp(x); }
    __device__ static double expm1(double x) { return ::expm1(x); }
    __device__ static double log(double x) { return ::log(x); }
    __device__ static double log1p(double x) { return ::log1p(x); }
    __device__ static double sqrt(double x) { return ::sqrt(x); }
    __device__ static double sin(double x) { return ::sin(x); }
    __device__ static double cos(double x) { return ::cos(x); }
    __device__ static double tan(double x) { return ::tan(x); }
    __device__ static double sinh(double x) { return ::sinh(x); }
    __device__ static double cosh(double x) { return ::cosh(x); }
    __device__ static double arctan(double x) { return ::atan(x); }
    __device__ static double arctan2(double y, double x) { return ::atan2(y, x); }
    __device__ static double power(double x, double y) { return ::pow(x, y); }
    __device__ static double absolute(double x) { return ::fabs(x); }
    __device__ static double floor(double x) { return ::floor(x); }
    __device__ static double ceil(double x) { return ::ceil(x); }
    __device__ static double rint(double x) { return ::rint(x); }
    __device__ static double trunc(double x) { return ::trunc(x); }
    __device__ static double hypot(double x, double y) { return ::hypot(x, y); }
    __device__ static double minimum(double x, double y) { return least(x, y); }
    __device__ static double maximum(double x, double y) { return greatest(x, y); }
    __device__ static double tanh(double x) { return ::tanh(x); }
    __device__ static double sigmoid(double x) { return 1.0 / (1.0 + ::exp(-x)); }
};

// What is made of others.
template <class T, class Base> struct Composed : Base {
    __device__ static T softplus(T x) { return logaddexp(x, T(0)); }

    // The larger one, and what the smaller one adds; equal infinities have the distance 0.
    __device__ static T logaddexp(T x, T y) {
        T distance = x == y ? T(0) : -Base::absolute(x - y);
        return Base::maximum(x, y) + Base::log1p(Base::exp(distance));
    }
};

template <class T> struct Full : Composed<T, Library<T>> {};

struct FastFloat : Library<float> {
    static constexpr float LOG2_E = 1.44269504f;

    // 2^x overflows where the result is 0, and is 0 where that is 1.
    __device__ static float sigmoid(float x) { return approximate_reciprocal(1.0f + approximate_exp2(-LOG2_E * x)); }

    // A polynomial near 0, where 1 - 2 / (1 + e^2|x|) would cancel.
    __device__ static float tanh(float x) {
        float z = x * x, size = ::fabsf(x);
        float p = multiply_add(-6.2691197e-03f, z, 2.1110959e-02f);
        p = multiply_add(p, z, -5.3873949e-02f);
        p = multiply_add(p, z, 1.3332915e-01f);
        p = multiply_add(p, z, -3.3333331e-01f);
        float near = multiply_add(p * z, x, x);
        float far = approximate_reciprocal(1.0f + approximate_exp2(2.0f * LOG2_E * size));
        return ::copysignf(size < 0.6f ? near : multiply_add(-2.0f, far, 1.0f), x);  // of -0 too
    }
};

template <> struct Full<float> : Composed<float, FastFloat> {};

// Functions within about 2^-10 of their values.
template <class T> struct Rough : Full<T> {};

struct RoughFloat : Library<float> {
    __device__ static float tanh(float x) { return approximate_tanh(x); }
    __device__ static float sigmoid(float x) { return multiply_add(approximate_tanh(0.5f * x), 0.5f, 0.5f); }
    __device__ static float exp(float x) { return approximate_exp2(1.44269504f * x); }
    __device__ static float divide(float x, float y) { return x * approximate_reciprocal(y); }
    __device__ static float reciprocal(float x) { return approximate_reciprocal(x); }
};

template <> struct Rough<float> : Composed<float, RoughFloat> {};

}  // namespace recsolve

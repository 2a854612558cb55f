"""Exponentials, logarithms and what is made of them, compiled into loops.

exp(x) = 2^k (1 + p), with k = x / ln 2 rounded and p a polynomial for expm1 of the rest: p alone is what is accurate
near 0, and everything that must be is written with it. log(2^e (1 + f)) = e ln 2 + 2 artanh(s), s = f / (2 + f).

The polynomials interpolate at Chebyshev points, in 60 digits, and were rounded afterwards; each adds less than 0.03
units in the last place.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from recsolve.kernels.cpu.jit.elementary.bits import (
    Scalar,
    absolute,
    copysign,
    exponent,
    inlined,
    magic,
    polynomial,
    power_of_two,
    scaled,
    significand,
)

# ln 2 as a part that k times is exact, for it ends in zeros, and the rest.
LN2 = {
    np.float32: (0.693145751953125, 1.428606765330187e-06),
    np.float64: (0.6931471805601177, -1.7239444525614835e-13),
}
# (expm1(r) - r) / r^2 for |r| <= ln 2 / 2.
_EXPONENTIAL = {
    np.float32: (0.5, 0.16666667, 0.041666463, 0.0083333105, 0.0013933731, 0.0001989108),
    np.float64: (
        0.5,
        0.1666666666666667,
        0.04166666666666667,
        0.008333333333326084,
        0.0013888888888883711,
        0.0001984126987500228,
        2.480158732567746e-05,
        2.755725517000089e-06,
        2.755727347871858e-07,
        2.5105312729622103e-08,
        2.09147553258932e-09,
    ),
}
# (2 artanh(s) / s - 2) / z for z = s^2 <= (3 - 2 sqrt(2))^2.
_LOGARITHM = {
    np.float32: (0.66666687, 0.39988777, 0.29580054),
    np.float64: (
        0.666666666666667,
        0.39999999999899444,
        0.2857142862600327,
        0.22222211130259878,
        0.18182889455674947,
        0.15331710618210773,
        0.14616585424888623,
    ),
}
# exp is 0 below the first, expm1 -1 below the second, cosh and sinh infinite above the last; k stays in its range.
_RANGE = {np.float32: (-105.0, -20.0, 89.5), np.float64: (-750.0, -40.0, 710.6)}


def reduction(dtype: Any) -> Any:
    """Return the function of (x, low) -> (shifted k, p) with exp(x + low) = 2^k (1 + p); |low| is far below 1."""
    log2e, shift = dtype(1 / np.log(2)), magic(dtype)
    high, low = (dtype(part) for part in LN2[dtype])
    tail = polynomial(_EXPONENTIAL[dtype])

    @inlined
    def reduced(x: Scalar, rest: Scalar) -> Any:
        shifted = x * log2e + shift
        k = shifted - shift
        r = ((x - k * high) - k * low) + rest
        return shifted, r + (r * r) * tail(r)

    return reduced


def exponentials(dtype: Any) -> dict[str, Any]:
    """Return exp, expm1, tanh, sigmoid, sinh and cosh."""
    zero, one, two, four, half, quarter = (dtype(value) for value in (0, 1, 2, 4, 0.5, 0.25))
    least, flat, most = (dtype(value) for value in _RANGE[dtype])
    nothing = dtype(-0.0)  # unlike +0.0, adding it is no instruction
    tiny = dtype(np.finfo(dtype).eps / 64)  # below this expm1, sinh and tanh of x are x
    reduced = reduction(dtype)

    @inlined
    def exp(x: Scalar) -> Scalar:
        x = least if x < least else x
        x = most if x > most else x
        shifted, p = reduced(x, nothing)
        return scaled(one + p, shifted)

    @inlined
    def quarter_expm1(x: Scalar) -> Scalar:
        # A quarter, so that 2^k does not overflow before sinh does.
        shifted, p = reduced(x, nothing)
        scale = power_of_two(shifted - two)
        return scale * p + (scale - quarter)

    @inlined
    def expm1(x: Scalar) -> Scalar:
        bounded = flat if x < flat else x
        bounded = most if bounded > most else bounded
        return x if absolute(x) < tiny else four * quarter_expm1(bounded)

    @inlined
    def tanh(x: Scalar) -> Scalar:
        size = absolute(x)
        negative = -two * size
        q = quarter_expm1(flat if negative < flat else negative)
        return x if size < tiny else copysign(q / (q + half), x)

    @inlined
    def sigmoid(x: Scalar) -> Scalar:
        # Of the decaying exponential on either side: accurate relative to 0 and without overflow.
        e = exp(-absolute(x))
        return (one if x >= zero else e) / (one + e)

    @inlined
    def sinh(x: Scalar) -> Scalar:
        size = absolute(x)
        q = quarter_expm1(most if size > most else size)
        e = q + q
        return x if size < tiny else copysign(e + q / (e + half), x)

    @inlined
    def cosh(x: Scalar) -> Scalar:
        size = absolute(x)
        shifted, p = reduced(most if size > most else size, nothing)
        e = scaled(one + p, shifted - one)
        return e + quarter / e

    return {"exp": exp, "expm1": expm1, "tanh": tanh, "sigmoid": sigmoid, "sinh": sinh, "cosh": cosh}


def logarithms(dtype: Any, exp: Any) -> dict[str, Any]:
    """Return log, log1p, softplus and logaddexp."""
    zero, one, two, half = (dtype(value) for value in (0, 1, 2, 0.5))
    inf, nan, root = dtype(np.inf), dtype(np.nan), dtype(np.sqrt(2) - 1)
    limits = np.finfo(dtype)
    normal, raised, tiny = limits.tiny, dtype(limits.nmant + 1), dtype(limits.eps / 64)
    raising, shift = dtype(2.0 ** (limits.nmant + 1)), magic(dtype)
    high, low = (dtype(part) for part in LN2[dtype])
    tail = polynomial(_LOGARITHM[dtype])

    @inlined
    def combined(e: Scalar, f: Scalar) -> Scalar:
        # e ln 2 + log(1 + f). As 2 s = f - s f, the leading term is f itself, which is exact.
        s = f / (two + f)
        z = s * s
        square = half * f * f
        return e * high - ((square - (s * (square + z * tail(z)) + e * low)) - f)

    @inlined
    def log(x: Scalar) -> Scalar:
        subnormal = x < normal
        y = x * raising if subnormal else x
        value = combined(exponent(y) - (raised if subnormal else zero), significand(y) - one)
        edge = x if x > zero else (-inf if x == zero else nan)
        return value if (x > zero) & (x < inf) else edge

    @inlined
    def log1p(x: Scalar) -> Scalar:
        u = one + x
        back = u - x
        lost = (x - (u - back)) + (one - back)  # what rounding took from u; given back, f is x where u is near 1
        e = exponent(u)
        value = combined(e, (significand(u) - one) + scaled(lost, shift - e))
        edge = x if x > zero else (-inf if x == -one else nan)
        value = value if (x > -one) & (x < inf) else edge
        return x if absolute(x) < tiny else value

    @inlined
    def log1p_up_to_one(x: Scalar) -> Scalar:
        # For 0 <= x <= 1: 1 + x or half of it is near 1, and there is nothing to take apart.
        near = x < root
        return combined(zero if near else one, x if near else half * (x - one))

    @inlined
    def softplus(x: Scalar) -> Scalar:
        return (x if x > zero else zero) + log1p_up_to_one(exp(-absolute(x)))

    @inlined
    def logaddexp(x: Scalar, y: Scalar) -> Scalar:
        top, bottom = (x if x > y else y), (y if x > y else x)
        distance = zero if top == bottom else top - bottom  # equal infinities have the distance 0
        back = distance - top
        lost = (top - (distance - back)) - (bottom + back)  # what rounding took from it; NaN between infinities,
        lost = lost if absolute(lost) < one else zero  # and where it is large exp is 0
        e = exp(-distance)
        return top + log1p_up_to_one(e - e * lost)

    return {"log": log, "log1p": log1p, "softplus": softplus, "logaddexp": logaddexp}

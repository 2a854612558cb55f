"""Powers, compiled into loops: exp(y log|x|) with the logarithm in more than working precision, and signs.

For float32 that precision is float64. For float64 it is a pair of numbers: the error of y log|x|, which reaches 745, is
an error of the result relative to itself, so log|x| wants ten bits more than the result has.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from recsolve.kernels.cpu.jit.elementary.bits import (
    Scalar,
    absolute,
    copysign,
    exponent,
    fma,
    inlined,
    polynomial,
    product,
    rint,
    scaled,
    significand,
)
from recsolve.kernels.cpu.jit.elementary.exponential import LN2, reduction

# ((2 artanh(s) / s - 2) / z - 2/3) / z for z = s^2 <= (3 - 2 sqrt(2))^2, at Chebyshev points: all but the two leading
# terms, which are summed in pairs.
_REST = (
    0.4,
    0.28571428571429364,
    0.22222222221655885,
    0.18181818335392802,
    0.1538459496251843,
    0.1333480469384731,
    0.11706236339491202,
    0.1172317862387656,
)
_TWO_THIRDS = (0.6666666666666666, 3.700743415417188e-17)


def _logarithm_as_pair() -> Any:
    """Return the function of x >= 0 in float64 that returns log(x) as a sum of two numbers, to about 2^-65."""
    zero, one, two = np.float64(0), np.float64(1), np.float64(2)
    inf, normal = np.float64(np.inf), np.finfo(np.float64).tiny
    raised, raising = np.float64(53), np.float64(2.0**53)
    ln2, ln2_rest = LN2[np.float64]
    third, third_rest = _TWO_THIRDS
    rest = polynomial(_REST)

    @inlined
    def cubed(s: Scalar, s_rest: Scalar) -> Any:
        # s^3 (2/3 + z rest(z)), each factor a pair; what is left out is 2^-66 of 2 s.
        z = product(s, s)
        z_rest = fma(s, s, -z) + two * s * s_rest
        later = product(z, rest(z))
        c = third + later
        c_rest = (later - (c - third)) + third_rest
        w = product(c, z)
        w_rest = fma(c, z, -w) + (c * z_rest + c_rest * z)
        v = product(s, w)
        return v, fma(s, w, -v) + (s * w_rest + s_rest * w)

    @inlined
    def log_as_pair(x: Scalar) -> Any:
        subnormal = x < normal
        scaled_up = x * raising if subnormal else x
        e = exponent(scaled_up) - (raised if subnormal else zero)
        m = significand(scaled_up)
        f, d = m - one, m + one
        inverse = one / d
        s = product(f, inverse)
        s_rest = (fma(-s, d, f) - s * (m - (d - one))) * inverse
        v, v_rest = cubed(s, s_rest)
        twice, whole = two * s, e * ln2
        h = twice + v
        h_rest = (v - (h - twice)) + (two * s_rest + v_rest)
        value = whole + h
        value_rest = (h - (value - whole)) + (h_rest + e * ln2_rest)
        ordinary = (x > zero) & (x < inf)
        edge = -inf if x == zero else x
        return (value if ordinary else edge), (value_rest if ordinary else zero)

    return log_as_pair


def _double() -> Any:
    """Return the function of (x, y) that returns x^y for x >= 0 in float64, special cases apart."""
    zero, one = np.float64(0), np.float64(1)
    least, most, large = np.float64(-760), np.float64(720), np.float64(800)
    log_as_pair, reduced = _logarithm_as_pair(), reduction(np.float64)

    @inlined
    def magnitude(x: Scalar, y: Scalar) -> Scalar:
        log, log_rest = log_as_pair(x)
        t = product(y, log)
        rest = fma(y, log, -t) + y * log_rest
        rest = rest if absolute(t) < large else zero
        t = least if t < least else t
        t = most if t > most else t
        shifted, p = reduced(t, rest)
        return scaled(one + p, shifted)

    return magnitude


def _single(double: dict[str, Any]) -> Any:
    """Return the function of (x, y) that returns x^y for x >= 0 in float32, special cases apart."""
    exp, log = double["exp"], double["log"]

    @inlined
    def magnitude(x: Scalar, y: Scalar) -> Scalar:
        return np.float32(exp(np.float64(y) * log(np.float64(x))))

    return magnitude


def powers(dtype: Any, double: dict[str, Any]) -> dict[str, Any]:
    """Return power, with the special cases of C and NumPy; ``double`` is the exp and log of float64."""
    zero, one, half, inf, nan = (dtype(value) for value in (0, 1, 0.5, np.inf, np.nan))
    magnitude = _single(double) if dtype is np.float32 else _double()

    @inlined
    def power(x: Scalar, y: Scalar) -> Scalar:
        size = absolute(x)
        whole = rint(y) == y
        odd = whole & (rint(half * y) != half * y)
        value = magnitude(size, y)
        value = -value if odd & (copysign(one, x) < zero) else value
        value = nan if (x < zero) & (x > -inf) & (not whole) else value
        unit = (x == one) | (y == zero) | ((size == one) & (absolute(y) == inf))
        return one if unit else value

    return {"power": power}

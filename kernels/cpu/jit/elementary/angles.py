"""Functions of angles and their inverses, compiled into loops.

Angles are reduced by the nearest multiple k of pi / 2, with pi / 2 in parts that fused products take exactly, and those
beyond 2^46 by :mod:`recsolve.kernels.cpu.jit.elementary.far_angles`. The polynomials interpolate at Chebyshev points,
in 60 digits, and were rounded afterwards.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from recsolve.kernels.cpu.jit.decorators import called
from recsolve.kernels.cpu.jit.elementary.bits import (
    Scalar,
    absolute,
    copysign,
    fma,
    inlined,
    magic,
    odd,
    odd_half,
    polynomial,
    product,
)
from recsolve.kernels.cpu.jit.elementary.far_angles import HALF_PI, far_reduction

# Up to here k pi / 2 is subtracted exactly; a power of two, which is the same in all dtypes.
LARGEST = 2.0**46
_HALF_PI = (*HALF_PI, -1.4973849048591698e-33)
# (sin(r) - r) / r^3 and (cos(r) - 1 + r^2 / 2) / r^4, of r^2, for |r| <= 0.8. Those of float32 are for evaluation in
# float64, where it needs no pairs.
_SINE = {
    np.float32: (-0.16666666663409865, 0.008333331704724155, -0.00019839996607644324, 2.7238454628945354e-06),
    np.float64: (
        -0.16666666666666663,
        0.008333333333330467,
        -0.00019841269836043575,
        2.7557315738586845e-06,
        -2.5051057394492127e-08,
        1.5912864224903485e-10,
    ),
}
_COSINE = {
    np.float32: (0.041666666663949484, -0.0013888887530147357, 2.4800525153789957e-05, -2.7291384736662117e-07),
    np.float64: (
        0.041666666666666664,
        -0.0013888888888887096,
        2.4801587298318395e-05,
        -2.755731704403567e-07,
        2.0876099692314926e-09,
        -1.1379338585298136e-11,
    ),
}
# (arctan(t) / t - 1) / t^2, of t^2, for |t| <= sqrt(2) - 1.
_ARCTANGENT = {
    np.float32: (-0.3333333, 0.1999954, -0.1426395, 0.10743669, -0.064517185),
    np.float64: (
        -0.3333333333333333,
        0.19999999999995516,
        -0.14285714284665682,
        0.11111111015187018,
        -0.0909090457530649,
        0.07692183125376892,
        -0.06664510525508936,
        0.05858140904866328,
        -0.050854078345894844,
        0.03923044778479309,
        -0.019175404711104932,
    ),
}
# pi as a float and what that lacks.
_PI = {
    np.float32: (3.1415927410125732, -8.742277657347586e-08),
    np.float64: (3.141592653589793, 1.2246467991473532e-16),
}


def _reduction() -> Any:
    """Return the function of x in float64 -> (shifted k, k, x - k times the first part of pi / 2)."""
    shift, per_turn, largest = magic(np.float64), np.float64(2 / np.pi), np.float64(LARGEST)
    nan = np.float64(np.nan)
    first = _HALF_PI[0]

    @inlined
    def reduced(x: Scalar) -> Any:
        x = x if absolute(x) <= largest else nan
        shifted = fma(x, per_turn, shift)
        k = shifted - shift
        return shifted, k, fma(-k, first, x)  # exact

    return reduced


def _double() -> tuple[Any, Any]:
    """Return the function of x in float64 -> (shifted k, r, rest), and that of (r, rest) -> (sine, cosine)."""
    one, half = np.float64(1), np.float64(0.5)
    reduced, (_, second, third) = _reduction(), _HALF_PI
    sine, cosine = polynomial(_SINE[np.float64]), polynomial(_COSINE[np.float64])

    @inlined
    def near(x: Scalar) -> Any:
        # r less k times the other parts, as a pair: near multiples of pi / 2 little is left of r.
        shifted, k, r = reduced(x)
        p = product(k, second)
        total = r - p
        back = total - r
        rest = (r - (total - back)) - (p + back)
        return shifted, total, (rest - fma(k, second, -p)) - k * third

    @inlined
    def both(r: Scalar, rest: Scalar) -> Any:
        z = r * r
        square = half * z
        s = r + (r * z * sine(z) + (rest - square * rest))
        top = one - square
        return s, top + (((one - top) - square) + (z * z * cosine(z) - r * rest))

    return near, both


def _single() -> tuple[Any, Any]:
    """Return the same for x in float32, computed in float64, which needs no rest."""
    one, half, nothing = np.float64(1), np.float64(0.5), np.float64(0)
    reduced, second = _reduction(), _HALF_PI[1]
    sine, cosine = polynomial(_SINE[np.float32]), polynomial(_COSINE[np.float32])

    @inlined
    def near(x: Scalar) -> Any:
        shifted, k, r = reduced(np.float64(x))
        return shifted, fma(-k, second, r), nothing

    @inlined
    def both(r: Scalar, rest: Scalar) -> Any:
        z = r * r
        return r + r * z * sine(z), one - (half * z - z * z * cosine(z))

    return near, both


def circular(dtype: Any) -> dict[str, Any]:
    """Return sin, cos and tan, the same as ``near_sin`` and so on without branches, and ``is_far``."""
    near, both = _single() if dtype is np.float32 else _double()
    far, largest, widest = far_reduction(), dtype(LARGEST), np.float64(LARGEST)

    @inlined
    def is_far(x: Scalar) -> Any:
        return absolute(x) > largest

    @called
    def anywhere(x: Scalar) -> Any:
        return far(np.float64(x)) if absolute(np.float64(x)) > widest else near(x)

    whole, vectorising = _of_reduction(dtype, anywhere, both), _of_reduction(dtype, near, both)
    return whole | {f"near_{name}": function for name, function in vectorising.items()} | {"is_far": is_far}


def _of_reduction(dtype: Any, reduced: Any, both: Any) -> dict[str, Any]:
    """Return sin, cos and tan with a reduction of their angles."""
    zero, next_quarter = dtype(0), np.float64(1)

    @inlined
    def sin(x: Scalar) -> Scalar:
        shifted, r, rest = reduced(x)
        s, c = both(r, rest)
        value = c if odd(shifted) else s
        return x if x == zero else dtype(-value if odd_half(shifted) else value)

    @inlined
    def cos(x: Scalar) -> Scalar:
        shifted, r, rest = reduced(x)
        s, c = both(r, rest)
        value = s if odd(shifted) else c
        return dtype(-value if odd_half(shifted + next_quarter) else value)

    @inlined
    def tan(x: Scalar) -> Scalar:
        shifted, r, rest = reduced(x)
        s, c = both(r, rest)
        quarter = odd(shifted)
        return x if x == zero else dtype((-c if quarter else s) / (s if quarter else c))

    return {"sin": sin, "cos": cos, "tan": tan}


def inverse(dtype: Any) -> dict[str, Any]:
    """Return arctan and arctan2."""
    zero, one, inf, down = (dtype(value) for value in (0, 1, np.inf, 0.25))
    low, high = dtype(np.sqrt(2) - 1), dtype(np.sqrt(2) + 1)
    limits = np.finfo(dtype)
    large, small, up = limits.max / dtype(4), limits.tiny, dtype(4 / limits.eps)
    pi, pi_rest = (dtype(part) for part in _PI[dtype])
    half, half_rest, quarter, quarter_rest = pi / dtype(2), pi_rest / dtype(2), pi / dtype(4), pi_rest / dtype(4)
    tail = polynomial(_ARCTANGENT[dtype])

    @inlined
    def angle(y: Scalar, x: Scalar) -> Scalar:
        # Of the point (x, y), both >= 0: from the nearest of the axes and the diagonal, so that |t| <= sqrt(2) - 1.
        flat, steep = y < low * x, y > high * x
        t = (y if flat else (-x if steep else y - x)) / (x if flat else (y if steep else y + x))
        start = zero if flat else (half if steep else quarter)
        rest = zero if flat else (half_rest if steep else quarter_rest)
        z = t * t
        return start + (t + (t * z * tail(z) + rest))

    @inlined
    def arctan(x: Scalar) -> Scalar:
        return copysign(angle(absolute(x), one), x)

    @inlined
    def arctan2(y: Scalar, x: Scalar) -> Scalar:
        above, beside = absolute(y), absolute(x)
        alike = (above == beside) & ((above == zero) | (above == inf))  # without a quotient
        diagonal = alike & (above == inf)
        larger = above if above > beside else beside
        scale = down if larger > large else (up if larger < small else one)  # the sum overflows, or digits lack
        above = (one if diagonal else zero) if alike else above * scale
        beside = one if alike else beside * scale
        value = angle(above, beside)
        return copysign(pi - (value - pi_rest) if copysign(one, x) < zero else value, y)

    return {"arctan": arctan, "arctan2": arctan2}

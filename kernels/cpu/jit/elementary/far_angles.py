"""Reduction of large angles, by as many bits of 2 / pi as it takes.

An angle x = m 2^e with an integer m is x (2 / pi) quarter turns. The bits of 2 / pi whose product with x is a multiple
of four turn nothing; some 190 bits after these say which quarter it is, and what is left of it to more than twice the
precision, for no float comes nearer to a multiple of pi / 2 than 2^-62 or so. The integers are exact.

Source: M. Payne and R. Hanek, Radian reduction for trigonometric functions, ACM SIGNUM Newsletter 18 (1983) 19-24.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from recsolve.kernels.cpu.jit.decorators import called
from recsolve.kernels.cpu.jit.elementary.bits import Scalar, absolute, exponent, fma, magic, product, significand

_TWO_OVER_PI = (  # the first 1216 bits after the point
    "a2f9836e4e441529fc2757d1f534ddc0db6295993c439041fe5163abdebbc561b7246e3a424dd2e006492eea09d1921cfe1deb1cb129a73e"
    "e88235f52ebb4484e99c7026b45f7e413991d639835339f49c845f8bbdf9283b1ff897ffde05980fef2f118b5a0a6d1f6d367ecf27cb09b7"
    "4f463f669e5fea2d7527bac7ebe5f17b3d0739f78a5292ea6bfb5fb11f8d5d0856033046fc7b6bab"
)
HALF_PI = (1.5707963267948966, 6.123233995736766e-17)
_LIMB, _LIMBS = 27, 7  # bits of a limb, so that products of two and their sums fit 64 bits; and limbs that are kept


def _limbs() -> Any:
    """Return one limb of zeros, and the limbs of 2 / pi."""
    bits = "0" * _LIMB + f"{int(_TWO_OVER_PI, 16):0{4 * len(_TWO_OVER_PI)}b}"
    return np.array([int(bits[i : i + _LIMB], 2) for i in range(0, len(bits) - _LIMB + 1, _LIMB)], np.int64)


def far_reduction() -> Any:
    """Return the function of x in float64, |x| >= 2^46 -> (shifted k, r, rest): x is k pi / 2 + r + rest, k modulo 4.

    It branches, so it is for loops that meet large angles; all three are NaN where x is not finite.
    """
    limbs, width, mask = _limbs(), _LIMB, (1 << _LIMB) - 1
    first, second = HALF_PI
    shift, inf, nan, one = magic(np.float64), np.float64(np.inf), np.float64(np.nan), np.float64(1)

    @called
    def turns(m: Any, start: Any) -> Any:
        # m times 2 / pi from bit `start` on, in limbs, without what lies above them.
        high, low = m >> width, m & mask
        word, skip = start // width, start % width
        out, carry, after = np.empty(_LIMBS, np.int64), 0, 0
        for j in range(_LIMBS, -1, -1):
            limb = ((limbs[word + j] << width | limbs[word + j + 1]) >> (width - skip)) & mask
            if j < _LIMBS:
                total = low * limb + high * after + carry
                out[j], carry = total & mask, total >> width
            after = limb
        return out

    @called
    def reduced(x: Scalar) -> Any:
        size = absolute(x)
        if not size < inf:
            return nan, nan, nan
        m = np.int64(significand(size) * 2.0**53)  # size is m 2^(e - 53)
        part = turns(m, np.int64(exponent(size)) - 55 + width)  # from the bit that is two quarters on
        quarter, rest_of_limb = part[0] >> (width - 2), part[0] & (mask >> 2)
        if rest_of_limb >> (width - 3):  # nearer to the next one
            quarter, rest_of_limb = quarter + 1, rest_of_limb - (1 << (width - 2))
        value, rest, scale = np.float64(rest_of_limb), 0.0, one
        for j in range(1, _LIMBS):  # each is smaller than what the sum can lack
            scale = scale / (1 << width)
            term = part[j] * scale
            total = value + term
            rest += term - (total - value)
            value = total
        unit = 1.0 / (1 << (width - 2))
        value, rest = value * unit, rest * unit
        r = product(value, first)
        r_rest = fma(value, first, -r) + (value * second + rest * first)
        k = np.float64(quarter)
        return (shift - k, -r, -r_rest) if x < 0.0 else (shift + k, r, r_rest)

    return reduced

"""Elementary functions of scalars, for loops that LLVM turns into vectors.

A call of the C library in the body of a loop keeps LLVM from turning the loop into vectors, and the vector libraries
that Numba knows may not be there. So these functions have no calls, branches or tables: polynomials, selections, and
the bits of floats. Functions of float32 compute in float32, except for those marked, which compute in float64.

Bounds just above the largest errors that were measured, in units in the last place (0.5 is a result rounded once):

==========  =======  =======  =====================================================================
function    float32  float64  where
==========  =======  =======  =====================================================================
exp         1.0      1.0      everywhere, subnormal results included; so are all below
expm1       1.6      2.0
tanh        2.6      2.7
sigmoid     2.5      2.3      relative to 0 in the tail too: sigmoid(x) is exp(x) there
sinh        2.3      2.5
cosh        1.5      1.5
log         0.9      0.9
log1p       1.5      1.5
softplus    1.8      1.8
logaddexp   3.3      3.3      units of the larger of result and larger argument: these may cancel
sin, cos    0.51 *   0.9
tan         0.51 *   2.4
arctan      2.0      2.0
arctan2     2.0      2.0
power       0.51 *   1.3
hypot       1.2      1.2
sqrt        0.5      0.5
==========  =======  =======  =====================================================================

sin, cos and tan of angles beyond 2^46 take a branch. Loops that are to become vectors call ``near_sin`` and so on,
which return NaN there, after they have looked with ``is_far`` whether any angle is as large.

Special values are those of NumPy, signs of zeros included, and NaN is kept. Where the processor has no fused
multiplication, sin, cos, tan and the power of float64 are right but slow, for LLVM then calls the C library.
"""

from __future__ import annotations

from functools import cache
from typing import Any

import numpy as np

from recsolve.kernels.cpu.jit.elementary import bits as bits
from recsolve.kernels.cpu.jit.elementary.angles import circular, inverse
from recsolve.kernels.cpu.jit.elementary.bits import Scalar, absolute, inlined
from recsolve.kernels.cpu.jit.elementary.exponential import exponentials, logarithms
from recsolve.kernels.cpu.jit.elementary.power import powers


def _roundings() -> dict[str, Any]:
    """Return sqrt, absolute, floor, ceil, rint and trunc as functions."""

    def wrapped(operation: Any) -> Any:
        return inlined(lambda x: operation(x))

    return {name: wrapped(getattr(bits, name)) for name in ("sqrt", "absolute", "floor", "ceil", "rint", "trunc")}


def _simple(dtype: Any) -> dict[str, Any]:
    """Return operations that are a product, a quotient, a sign or a square root."""
    zero, one, inf = dtype(0), dtype(1), dtype(np.inf)
    far = 600 if dtype is np.float64 else 96  # a power of two that keeps squares of the largest and smallest floats
    up, down = dtype(2.0**far), dtype(2.0**-far)
    large, small = dtype(np.finfo(dtype).max ** 0.5 / 2), dtype(2.0 ** (-far // 2))

    @inlined
    def hypot(x: Scalar, y: Scalar) -> Scalar:
        a, b = absolute(x), absolute(y)
        larger = a if a > b else b
        over, under = larger > large, larger < small
        scale = down if over else (up if under else one)
        size = bits.sqrt((a * scale) * (a * scale) + (b * scale) * (b * scale))
        size = size * (up if over else (down if under else one))
        return inf if (a == inf) | (b == inf) else size

    @inlined
    def positive(x: Scalar) -> Scalar:
        return x

    @inlined
    def square(x: Scalar) -> Scalar:
        return x * x

    @inlined
    def reciprocal(x: Scalar) -> Scalar:
        return one / x

    @inlined
    def sign(x: Scalar) -> Scalar:
        unit = one if x > zero else (-one if x < zero else zero)
        return unit if x == x else x

    return {"positive": positive, "square": square, "reciprocal": reciprocal, "sign": sign, "hypot": hypot}


def _comparisons(dtype: Any) -> dict[str, Any]:
    """Return minimum and maximum, which keep NaN as NumPy's do, and the tests for what is not finite."""
    inf = dtype(np.inf)

    @inlined
    def minimum(x: Scalar, y: Scalar) -> Scalar:
        return x if (x < y) | (x != x) else y

    @inlined
    def maximum(x: Scalar, y: Scalar) -> Scalar:
        return x if (x > y) | (x != x) else y

    @inlined
    def isnan(x: Scalar) -> Any:
        return x != x

    @inlined
    def isfinite(x: Scalar) -> Any:
        return absolute(x) < inf

    @inlined
    def isinf(x: Scalar) -> Any:
        return absolute(x) == inf

    return {"minimum": minimum, "maximum": maximum, "isnan": isnan, "isfinite": isfinite, "isinf": isinf}


def functions(dtype: Any) -> dict[str, Any]:
    """Return the elementary functions of scalars of a dtype.

    They are compiled into the function that calls them, when it is. Arguments have to be of the dtype, numbers in the
    source included: Numba would compute in float64 otherwise.

    Parameters
    ----------
    dtype : dtype
        float32 or float64.

    Returns
    -------
    dict
        Name of an operation to its function, which compiled loops may call and Python may not: every operation of
        :mod:`recsolve.symbolic.graph` that is not an operator of Python, ``near_sin``, ``near_cos``, ``near_tan`` and
        ``is_far``. The same functions for every call.

    Examples
    --------
    >>> import numba
    >>> import numpy as np
    >>> from recsolve.kernels.cpu.jit.elementary import functions
    >>> tanh = functions(np.float32)["tanh"]
    >>> @numba.njit(error_model="numpy", fastmath={"contract"})
    ... def loop(x, y):
    ...     for i in range(x.size):
    ...         y[i] = tanh(x[i])
    >>> x = np.linspace(-5, 5, 1000, dtype=np.float32)
    >>> y = np.empty_like(x)
    >>> loop(x, y)
    >>> bool(np.allclose(y, np.tanh(x)))
    True
    """
    kind = np.dtype(dtype).type
    if kind not in (np.float32, np.float64):
        raise TypeError(f"elementary functions of {np.dtype(dtype)}; there are those of float32 and float64")
    return _functions(kind)


@cache
def _functions(dtype: Any) -> dict[str, Any]:
    exponential = exponentials(dtype)
    table = exponential | logarithms(dtype, exponential["exp"]) | circular(dtype) | inverse(dtype)
    double = table if dtype is np.float64 else functions(np.float64)
    return table | powers(dtype, double) | _roundings() | _simple(dtype) | _comparisons(dtype)

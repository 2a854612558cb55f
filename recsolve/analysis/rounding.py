"""Bounds on the rounding of operations.

Assumptions on rounding: sums, products, quotients and square roots round correctly, NumPy's elementary functions
are within 4 units in the last place, a sum of n products errs by at most n eps / 2 times that of the magnitudes in
whatever order it is taken, and results below the smallest normal number may be flushed to zero.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from recsolve.base.arrays import Array

# Error of one evaluation in units of eps |result|, with a little for the product of two errors.
_CORRECT, _ELEMENTARY = 0.51, 4.1
_ULPS = {
    **dict.fromkeys(("add", "subtract", "multiply", "divide", "sqrt", "square", "reciprocal"), _CORRECT),
    **dict.fromkeys(("tanh", "exp", "expm1", "log", "log1p", "sin", "cos", "tan", "sinh", "cosh"), _ELEMENTARY),
    **dict.fromkeys(("arctan", "arctan2", "power", "hypot"), _ELEMENTARY),
    "sigmoid": 6.0,  # 1 / (1 + exp(-x)): that of exp and two more
    "softplus": 10.0,  # x + log1p(exp(-x))
    "logaddexp": 10.0,
}
# Operations whose error is not proportional to their result, since cancellation may make that small.
_SCALES: dict[str, Callable[..., Array]] = {
    "sin": lambda size, x: np.minimum(magnitude(x), 1.0),
    "cos": lambda size, x: np.ones_like(size),
    "tan": lambda size, x: size + np.minimum(magnitude(x), 1.0),
    "logaddexp": lambda size, a, b: magnitude(a) + magnitude(b) + 1.0,
}


def magnitude(x: Any) -> Array:
    """Return the largest absolute value of an interval, number or array, entry by entry, in float64."""
    if hasattr(x, "lower"):
        return np.maximum(np.abs(x.lower), np.abs(x.upper))  # type: ignore[no-any-return]
    return np.abs(np.asarray(x, np.float64))


def rounding(name: str, size: Array, args: Sequence[Any], dtype: np.dtype[Any]) -> Any:
    """Return a bound on the error of one evaluation of ``name`` whose results are at most ``size``."""
    if name not in _ULPS:
        return 0.0
    scale = _SCALES[name](size, *args) if name in _SCALES else size
    limits = np.finfo(dtype)
    return _ULPS[name] * float(limits.eps) * scale + float(limits.tiny)


def product_rounding(function: Callable[[Array], Array], size: Array, terms: int, dtype: np.dtype[Any]) -> Array:
    """Return a bound on the error of sums of ``terms`` products: ``function`` applies the magnitudes of the matrix."""
    limits = np.finfo(dtype)
    return terms * (_CORRECT * float(limits.eps) * function(size) + float(limits.tiny))

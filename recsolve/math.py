"""The functions a cell is written with: NumPy's own, and the few that NumPy lacks.

Each runs on arrays of any kind and on the duals that differentiate them. ``where(condition, a, b)`` takes the place
of a Python branch. At a tie ``minimum`` and ``maximum`` pass the derivative to the operand that depends on the state,
unless ``ties`` of the recurrence says otherwise. ``total``, ``mean`` and ``dot`` sum over the units of a lane,
``layer_norm`` and ``rms_norm`` are made of them, and ``gather`` selects units by an index.

Examples
--------
>>> from recsolve.math import sigmoid, tanh
>>> float(sigmoid(0.0)), float(tanh(0.0))
(0.5, 0.0)
"""

from __future__ import annotations

from typing import Any

import numpy as np

from recsolve.symbolic.constants import STATE_DTYPE
from recsolve.symbolic.dual import sigmoid, softplus, value_of
from recsolve.symbolic.stand_in import Elementwise
from recsolve.symbolic.units import dot, gather, layer_norm, mean, rms_norm, total

absolute, arctan, arctan2, ceil, clip, cos, cosh = np.absolute, np.arctan, np.arctan2, np.ceil, np.clip, np.cos, np.cosh
exp, expm1, floor, hypot, log, log1p, logaddexp = np.exp, np.expm1, np.floor, np.hypot, np.log, np.log1p, np.logaddexp
maximum, minimum, reciprocal, rint, sign, sin = np.maximum, np.minimum, np.reciprocal, np.rint, np.sign, np.sin
sinh, sqrt, square, tan, tanh, trunc = np.sinh, np.sqrt, np.square, np.tan, np.tanh, np.trunc


def where(condition: Any, a: Any, b: Any) -> Any:
    """Return ``a`` where a condition holds and ``b`` elsewhere, entry by entry, with the derivative of the one chosen.

    As ``numpy.where``, but inside a cell or function two numbers take the dtype of the state: NumPy makes float64 or
    int64 of them.

    Examples
    --------
    >>> import numpy as np
    >>> from recsolve.math import where
    >>> where(np.array([True, False]), 1.0, -1.0)
    array([ 1., -1.])
    """
    dtype = STATE_DTYPE.get()
    if dtype is not None and not isinstance(condition, Elementwise) and _are_numbers(a, b):
        a, b = dtype.type(a), dtype.type(b)
    return np.where(condition, a, b)


def _are_numbers(a: Any, b: Any) -> bool:
    """Return whether both are numbers, of Python or NumPy; truth values are none."""
    kinds = [x.dtype.kind if isinstance(x, (np.generic, np.ndarray)) and x.ndim == 0 else type(x) for x in (a, b)]
    return all(kind in (bool, int, float, *"biuf") for kind in kinds) and not all(kind in (bool, "b") for kind in kinds)


def softmax(x: Any, axis: int = -1) -> Any:
    """Return exp(x) over its sum along an axis, without overflow. It couples units: for functions, not for cells.

    Examples
    --------
    >>> import numpy as np
    >>> from recsolve.math import softmax
    >>> softmax(np.array([1000.0, 1000.0]))
    array([0.5, 0.5])
    """
    if type(x) is np.ndarray and x.ndim and x.dtype.kind == "f":  # in place: half of the time goes into memory
        e = x - _largest(x, axis)
        np.exp(e, out=e)
        e /= np.add.reduce(e, axis=axis, keepdims=True)
        return e
    e = exp(x - _largest(x, axis))
    return e / np.sum(e, axis=axis, keepdims=True)


def logsumexp(x: Any, axis: int = -1, keepdims: bool = False) -> Any:
    """Return the logarithm of the sum of exp(x) along an axis, without overflow. It couples units, as ``softmax``.

    Examples
    --------
    >>> import numpy as np
    >>> from recsolve.math import logsumexp
    >>> round(float(logsumexp(np.array([1000.0, 1000.0]))), 3)
    1000.693
    """
    largest = _largest(x, axis)
    total = log(np.sum(exp(x - largest), axis=axis, keepdims=True)) + largest
    return total if keepdims else np.squeeze(total, axis=axis)


def _largest(x: Any, axis: int) -> Any:
    """Return the largest value along an axis, as a constant, and 0 where it is infinite: inf - inf is NaN."""
    if type(x) is not np.ndarray:
        top = np.max(value_of(x), axis=axis, keepdims=True)  # of its value: going back, a maximum has no transpose
        return np.where(np.isfinite(top), top, 0)
    top = np.maximum.reduce(x, axis=axis, keepdims=True)
    known = np.isfinite(top)
    return top if np.count_nonzero(known) == known.size else np.where(known, top, 0)


def relu(x: Any) -> Any:
    """Return max(x, 0) entry by entry, by default with derivative 1 at 0 (see ``ties``).

    Examples
    --------
    >>> import numpy as np
    >>> from recsolve.math import relu
    >>> relu(np.array([-1.0, 2.0]))
    array([0., 2.])
    """
    return maximum(x, 0.0)


__all__ = [
    "absolute", "arctan", "arctan2", "ceil", "clip", "cos", "cosh", "dot", "exp", "expm1", "floor", "gather",
    "hypot", "layer_norm", "log", "log1p", "logaddexp", "logsumexp", "maximum", "mean", "minimum", "reciprocal",
    "relu", "rint", "rms_norm", "sigmoid", "sign", "sin", "sinh", "softmax", "softplus", "sqrt", "square", "tan",
    "tanh", "total", "trunc", "where",
]  # fmt: skip


def __dir__() -> list[str]:
    return sorted(__all__)

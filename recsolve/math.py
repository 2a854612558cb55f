"""The functions a cell is written with: NumPy's own, and the few that NumPy lacks.

Each runs on arrays of any kind and on the duals that differentiate them. ``where(condition, a, b)`` takes the place
of a Python branch. At a tie ``minimum`` and ``maximum`` pass the derivative to the operand that depends on the state,
unless ``ties`` of the recurrence says otherwise. ``total``, ``mean`` and ``dot`` sum over the units of a lane, and
``layer_norm`` and ``rms_norm`` are made of them.

Examples
--------
>>> from recsolve.math import sigmoid, tanh
>>> float(sigmoid(0.0)), float(tanh(0.0))
(0.5, 0.0)
"""

from __future__ import annotations

from typing import Any

import numpy as np

from recsolve.symbolic.dual import sigmoid, softplus
from recsolve.symbolic.units import dot, layer_norm, mean, rms_norm, total

absolute, arctan, clip, cos, cosh = np.absolute, np.arctan, np.clip, np.cos, np.cosh
exp, expm1, log, log1p, logaddexp = np.exp, np.expm1, np.log, np.log1p, np.logaddexp
maximum, minimum, reciprocal, sign, sin = np.maximum, np.minimum, np.reciprocal, np.sign, np.sin
sinh, sqrt, square, tan, tanh, where = np.sinh, np.sqrt, np.square, np.tan, np.tanh, np.where


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
    "absolute", "arctan", "clip", "cos", "cosh", "dot", "exp", "expm1", "layer_norm", "log", "log1p", "logaddexp",
    "maximum", "mean", "minimum", "reciprocal", "relu", "rms_norm", "sigmoid", "sign", "sin", "sinh", "softplus",
    "sqrt", "square", "tan", "tanh", "total", "where",
]  # fmt: skip

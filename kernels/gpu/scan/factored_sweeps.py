"""The scan of factored Jacobians by sweeps over all times, where few sequences are long, so that a walk waits.

Quasi-Newton's step on a linear recurrence: with D the k x k block of each unit, a sweep takes the residual
r[t] = e[t] y[t-1] + f[t] - y[t] of all times at once and moves y by the scan of D over r (quasi-DEER, arXiv
2407.19115).
"""

from __future__ import annotations

from math import ceil, prod
from typing import Any

import numpy as np

from recsolve.base.arrays import FLOATS, Array, namespace
from recsolve.kernels.affine_scan import affine_scan

# Units of rounding, in the size of the largest |y| of its step: |r| that is enough, and |r| that is, as rounding bounds
# it, where a sweep leaves more than half of it.
_ENOUGH, _ACCEPTED, _SLOW = 3, 16, 0.5
_FEWEST, _LOOKED = 8, 3  # sweeps that are worth a try; after which what is to come is predicted
_DEEPEST = 2  # mixings one after the other, of which the blocks of units need no matrices
# The model of times: seconds of a step of a walk, and more for each byte of weights that registers do not hold; of a
# sweep, of a number in it, and of a multiplication.
_STEP, _BYTE, _HELD = 1.2e-6, 1.5e-12, 1 << 20
_SWEEP, _NUMBER, _PRODUCT = 4e-4, 16e-12, 2.5e-14


def most_sweeps(e: Any, f: Array) -> int:
    """Return how many sweeps take half of the time of a walk, by a model of both; 0 where a sweep has no use."""
    original = getattr(e, "original", e)
    if original.depth > _DEEPEST or f.dtype not in FLOATS:
        return 0
    weights = [call.mixing.weight for call in original.calls]
    nbytes, rows = sum(w.nbytes for w in weights), prod(f.shape[: f.ndim - len(e.layout.event)])
    walk = len(f) * (_STEP + _BYTE * max(nbytes - _HELD, 0))
    sweep = max(_SWEEP, f.size * _NUMBER + rows * sum(w.size for w in weights) * _PRODUCT)
    return int(walk / (2 * sweep))


def sweep_factored(
    e: Any, f: Array, *, initial: Array | None = None, reset: Array | None = None, most: int
) -> Array | None:
    """Return y[t] = e[t] y[t-1] + f[t] for all t, or None where so many sweeps do not find it.

    What is returned meets |r| <= 16 eps |y| with the largest number of a step of a sequence on both sides, so that what
    decays is as right, for its size, as what does not.

    Parameters
    ----------
    e : Factored, or its transpose
    f : array, shape (T, *batch, *event)
    initial : array, optional
        y[-1]; without it the first step is cut from its past.
    reset : array of bool, optional
        Steps that are cut from their past, broadcasting against ``f``.
    most : int
        Sweeps.
    """
    if most < _FEWEST or len(f) < 2:
        return None
    xp, axes, unit = namespace(f), tuple(range(f.ndim - len(e.layout.event), f.ndim)), float(np.finfo(f.dtype).eps)
    before = xp.zeros_like(f)
    if initial is not None:
        before[0] = initial
    blocks, worst, tiny = e.block(), float("inf"), np.finfo(f.dtype).tiny
    y = affine_scan(blocks, f, initial=initial, reset=reset)
    for sweep in range(most):
        before[1:] = y[:-1]
        value = e.matvec(before)
        if reset is not None:
            xp.copyto(value, f.dtype.type(0), where=reset)
        value += f
        value -= y
        size, missed = (abs(x).max(axis=axes) for x in (y, value))
        last, worst = worst, float((missed / xp.maximum(size, tiny)).max()) / unit
        if worst <= _ENOUGH or (worst <= _ACCEPTED and worst > _SLOW * last):
            return y
        if not (worst <= _ACCEPTED or _may_end(worst / _ACCEPTED, worst / last, sweep, most)):
            return None
        y += affine_scan(blocks, value, reset=reset)
    return None


def _may_end(above: float, rate: float, sweep: int, most: int) -> bool:
    """Return whether residuals that fall at this rate are below the tolerance in time."""
    if not np.isfinite(above):
        return False
    if sweep < _LOOKED:
        return True
    return rate < 1 and sweep + ceil(np.log(above) / -np.log(rate)) <= most

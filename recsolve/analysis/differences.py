"""Derivatives by differences, as intervals that hold them.

A recurrence f is compared with a Jacobian J along v on either side of the state separately. At steps t[k], from large
to as small as rounding allows, e[k] is the quotient ``(f(h + t v) - f(h) - t J v) / t`` with the term of first order in
t extrapolated away (Richardson), and u[k] is several times its change to the neighbouring steps, plus the rounding of
f: it is large where f bends and where f rounds. A derivative lies in all intervals [e - u, e + u] of its side. Where
these have no point in common there is no verdict. At a kink any number between the two sides is a derivative, so J is
refused where 0 is outside the hull of both sides, along several directions.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

from recsolve.base.arrays import Array, namespace
from recsolve.jacobians import Jacobian
from recsolve.recurrence.base import Recurrence

_LARGEST = 2.0**-4  # step, in units of the states
_STEPS = {4: (2.0, 11), 8: (4.0, 14)}  # ratio and number of steps, by bytes of the dtype
_DOUBT = 6  # quotients may converge as slowly as sqrt(t): 1 / (1 - sqrt(1/2)) is 3.4


def reach_of(rec: Recurrence, previous: Array, values: Array, steep: Array, alone: bool) -> Array:
    """Return the distance from the states within which f is expected to bend: their size, less where f is steep.

    NaN where that is too short for differences.
    """
    xp, leading = namespace(previous), tuple(range(1 + len(rec.batch)))
    eps, tiny = float(np.finfo(previous.dtype).eps), float(np.finfo(previous.dtype).tiny)
    size = abs(previous)
    changes = xp.maximum(size, abs(values))
    size = xp.minimum(xp.maximum(size, size.mean(axis=leading, keepdims=True)), changes)  # it may be 0 by chance
    if not alone:
        event = tuple(range(len(leading), previous.ndim))
        size, changes, steep = (x.max(axis=event, keepdims=True) for x in (size, changes, steep))
    changes = xp.where(changes > 0, changes, 1)
    size = xp.where(size > 0, size, xp.minimum(changes, 1))
    reach = xp.minimum(size, changes / xp.maximum(steep, tiny))
    shortest = xp.maximum(eps**0.5 * size, eps * abs(previous).mean())
    return xp.where(reach < shortest, np.nan, reach)  # type: ignore[no-any-return]


def brackets(
    apply: Callable[[Array], Array], previous: Array, values: Array, step: Array, J: Jacobian, allowed: float
) -> list[tuple[Array, Array]]:
    """Return the bounds of (derivative - J) along ``step``, as (least, largest), below the state and above it.

    The least is above the largest where steps of different lengths give different derivatives. J may round by
    ``allowed`` times the largest slope.
    """
    xp = namespace(previous)
    ratio, count = _STEPS[previous.dtype.itemsize]
    lengths = [_LARGEST * ratio**-k for k in range(count)]
    sides = [_Side(apply, previous, values, sign * step, J, lengths) for sign in (-1.0, 1.0)]
    moved_by = [xp.maximum(*[abs(s.slopes[k + 1] - s.slopes[k]) for s in sides]) for k in range(count - 2)]
    found = []
    for sign, side in zip((-1.0, 1.0), sides, strict=True):
        least, largest = xp.full_like(values, -np.inf), xp.full_like(values, np.inf)
        for k in range(1, count - 2):
            u = _DOUBT * xp.maximum(moved_by[k - 1], moved_by[k]) + side.rounding[k] + allowed * side.steepest
            e = xp.where(side.rough[k], np.nan, sign * side.slopes[k])
            least, largest = xp.fmax(least, e - u), xp.fmin(largest, e + u)
        found.append((least, largest))
    return found


class _Side:
    """The slopes of f - J on one side of the states, for steps of decreasing length.

    Attributes
    ----------
    slopes : list of array
        Extrapolated from every two neighbouring lengths.
    rounding : list of array
        Of these.
    rough : list of array of bool
        Where f did not change at all, though it had within longer steps: its values are too coarse.
    steepest : array
        The largest slope of f itself.
    """

    def __init__(
        self,
        apply: Callable[[Array], Array],
        previous: Array,
        values: Array,
        step: Array,
        J: Jacobian,
        lengths: list[float],
    ):
        xp, limits = namespace(previous), np.finfo(previous.dtype)
        eps, tiny = float(limits.eps), float(limits.tiny)
        ratio = lengths[0] / lengths[1]
        quotients, rounding, still = [], [], []
        self.steepest, changed = xp.zeros_like(values), xp.zeros(values.shape, bool)
        for t in lengths:
            moved = previous + t * step
            by = moved - previous  # what the step is after rounding
            f, linear = apply(moved), J.matvec(by)
            quotients.append((f - values - linear) / t)
            rounding.append(4 * (eps * (abs(f) + abs(values) + abs(linear)) + tiny) / t)
            self.steepest = xp.fmax(self.steepest, abs(f - values) / t)
            still.append(changed & (f == values))
            changed |= f != values
        pairs = range(len(lengths) - 1)
        self.slopes = [(ratio * quotients[k + 1] - quotients[k]) / (ratio - 1) for k in pairs]
        self.rounding = [(ratio + 1) / (ratio - 1) * rounding[k + 1] for k in pairs]
        self.rough = [still[k] | still[k + 1] for k in pairs]

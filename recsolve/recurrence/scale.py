"""The size of the states of a recurrence, in whose units an absolute tolerance counts."""

from __future__ import annotations

from math import prod
from typing import TYPE_CHECKING, Any

import numpy as np

from recsolve.base.arrays import Array, is_discrete, namespace, to_host

if TYPE_CHECKING:
    from recsolve.recurrence.base import Recurrence

_ORDINARY = 2.0**7  # sizes from 1 / _ORDINARY to _ORDINARY count as 1
_NUMBERS, _FEWEST, _MOST = 2**15, 4, 16  # of the states that are looked at, and of steps


def scale_of(recurrence: Recurrence) -> float:
    """Return the size of the states as h[0] and f(h[0], u[t]) show it, a power of two; 1 where it is ordinary.

    The largest of them counts where all are below 1/128, and where all are above 128; but no more than 128 times the
    largest of any unit (or lane, where units couple) of any sequence, since all are tested alike. Where f(0, u[t]) is
    smaller it counts instead, for h[0] may be forgotten soon.

    Parameters
    ----------
    recurrence : Recurrence
        Of whose steps 16 are looked at, fewer where states are large.

    Returns
    -------
    float

    Examples
    --------
    >>> import numpy as np, recsolve as rs
    >>> from recsolve.recurrence.scale import scale_of
    >>> def rec(size):
    ...     return rs.Recurrence.from_function(
    ...         lambda h, u: 0.5 * h + u, inputs=np.full((9, 2), size), initial=np.zeros(2), structure="diagonal")
    >>> [scale_of(rec(size)) for size in (1e-20, 0.1, 1e20)] == [2.0**-66, 1.0, 2.0**66]
    True
    """
    if 0 in recurrence.shape or is_discrete(recurrence.dtype):
        return 1.0
    try:
        part = recurrence.sampled(slice(None, None, every_looked_at(recurrence.length, recurrence.shape[1:])))
        sizes = np.maximum(_seen(part, recurrence.initial), _largest(recurrence, recurrence.initial[None]))
        if not 1 / _ORDINARY <= sizes.max() <= _ORDINARY:  # in h[0] alone, perhaps, which is soon forgotten
            others = _seen(part, namespace(recurrence.initial).zeros_like(recurrence.initial))
            sizes = np.where(others > 0, np.minimum(sizes, others), sizes)
    except Exception:  # what f raises is reported when it is solved
        return 1.0
    return _rounded(sizes, recurrence.dtype)


def every_looked_at(length: int, shape: tuple[int, ...]) -> int:
    """Return how far apart the steps are that show the size of states of this shape."""
    steps = min(max(_NUMBERS // max(prod(shape), 1), _FEWEST), _MOST)
    return max(-(-length // steps), 1)


def _seen(part: Recurrence, state: Array) -> Array:
    """Return the sizes of f at one state and some steps."""
    with np.errstate(all="ignore"):
        return _largest(part, part.apply(part.everywhere(state)))


def _largest(recurrence: Recurrence, x: Array) -> Array:
    """Return the sizes of the finite numbers of x, on the host."""
    xp = namespace(x)
    return to_host(sizes_of(recurrence, xp.where(xp.isfinite(x), x, x.dtype.type(0))))


def ordinary(states: Array, largest: float | None = None) -> bool:
    """Return whether states, (T, *batch, *event), are of ordinary size; 0 is what any tolerance makes.

    A few of them are looked at, unless the largest is known.
    """
    return 1 / _ORDINARY <= (largest_of_few(states) if largest is None else largest) <= _ORDINARY


def largest_of_few(states: Array) -> float:
    """Return the largest |h| of a few states, (T, *batch, *event), for which the host waits."""
    few = states[:: max(len(states) // _FEWEST, 1)]
    return float(to_host(abs(few).max())) if few.size else 0.0


def sizes_of(recurrence: Recurrence, x: Array) -> Array:
    """Return the largest |x| over time, of each sequence and of what belongs together in it, in float64.

    Parameters
    ----------
    recurrence : Recurrence
    x : array, shape (T, *batch, *event)
    """
    return largest_together(recurrence, abs(x).max(axis=0).astype(np.float64))


def largest_together(recurrence: Recurrence, x: Array) -> Array:
    """Return the largest of the numbers that belong together, or whether one is True, with axes of size 1 for them.

    They are the units of a lane where these couple, else a unit with its components.

    Parameters
    ----------
    recurrence : Recurrence
    x : array, shape (..., *event)
    """
    layout = recurrence.layout
    if layout.components > 1:
        x = x.max(axis=layout.component_axis, keepdims=True)
    if recurrence.rounding > 0 and layout.units is not None:
        x = x.max(axis=-1, keepdims=True)
    return x


def _rounded(sizes: Array, dtype: np.dtype[Any]) -> float:
    known = sizes[sizes > 0]
    if not known.size:
        return 1.0
    size = float(known.max())
    if size >= 1 / _ORDINARY:
        size = min(size, _ORDINARY * float(known.min()))
        if size <= _ORDINARY:
            return 1.0
    limits = np.finfo(dtype)
    exponent = min(max(round(float(np.log2(size))), limits.minexp), limits.maxexp - 1)
    return float(2.0**exponent)

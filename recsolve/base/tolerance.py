"""Tolerances: what is tested, in one place, and the rounding below which no test says anything."""

from __future__ import annotations

from dataclasses import dataclass, replace
from functools import lru_cache
from typing import TYPE_CHECKING, Any

import numpy as np

from recsolve.base.arrays import Array, is_discrete, namespace
from recsolve.base.layout import Layout

if TYPE_CHECKING:
    from recsolve.recurrence.base import Recurrence

# However large the weights, the default tolerance stays below this many eps.
_MOST = 64

# Default tolerances by which f may round otherwise among other times and sequences, where its rounding is not known.
_OTHERWISE = 16


@lru_cache(maxsize=256)
def default_tol(dtype: Any, rounding: float = 1.0) -> float:
    """Return 4 eps max(1, rounding), at most 64 eps, used as both atol and rtol.

    Without coupling that makes |r| <= 8 eps max(1, |h|, |F|), a few units in the last place: the floor that rounding
    leaves.

    Parameters
    ----------
    dtype : dtype
        float32 or float64; eps is its machine epsilon.
    rounding : float
        How much larger the rounding of f itself is (``Recurrence.rounding``).

    Examples
    --------
    >>> from recsolve.base.tolerance import default_tol
    >>> f"{default_tol('float32'):.2e}, {default_tol('float64', rounding=100):.2e}"
    '4.77e-07, 1.42e-14'
    """
    return min(4 * max(1.0, rounding), _MOST) * float(np.finfo(dtype).eps)


@dataclass(frozen=True)
class Tolerance:
    """The test of every entry of a trajectory: |r| <= atol m + rtol max(|h|, |f|).

    f is f(h[t-1], u[t]) at the states h, evaluated for all t at once, and r = f - h. The test is evaluated in the dtype
    of the states; NaN and inf in r fail it. ``str`` of a tolerance is the test as a sentence, with its numbers.

    Attributes
    ----------
    atol, rtol : float
    lanes : Layout or None
        None, which means m = 1, for an ``atol`` or ``tol`` that the user gives and where units do not couple. By
        default, where units couple, the layout of the states: m is the largest of ``unit`` and all |h| and |f| in the
        entry's lane (all components and units) at its step, because sums inside f round in proportion to the largest
        unit.
    unit : float
        The size of the states (``Recurrence.state_scale``) where the test is the default, which follows it; else 1.

    Examples
    --------
    >>> from recsolve.base.tolerance import Tolerance
    >>> print(Tolerance(1e-9, 1e-6))
    |r| <= 1e-09 + 1e-06 max(|h|, |f|) in every entry, with r = f(h[t-1], u[t]) - h[t]
    """

    atol: float
    rtol: float
    lanes: Layout | None = None
    unit: float = 1.0

    def met(self, states: Array, values: Array, residual: Array) -> Array:
        """Return where the test holds, entry by entry.

        Parameters
        ----------
        states, values, residual : array, shape (T, *batch, *event)
            h, f and r, of one dtype.

        Returns
        -------
        array of bool, shape (T, *batch, *event)

        Examples
        --------
        >>> import numpy as np
        >>> from recsolve.base.tolerance import Tolerance
        >>> h, r = np.ones((3, 1)), np.array([[0.0], [0.5], [np.nan]])
        >>> Tolerance(1e-9, 1e-6).met(h, h + r, r).ravel().tolist()
        [True, False, False]
        """
        if is_discrete(states.dtype):
            return residual == 0  # type: ignore[no-any-return]
        xp = namespace(states)
        return (xp.abs(residual) <= self._bound(states, values)) & xp.isfinite(residual)  # type: ignore[no-any-return]

    def _bound(self, states: Array, values: Array) -> Array:
        xp = namespace(states)
        size = xp.maximum(xp.abs(states), xp.abs(values))
        return self.atol * self._unit(size) + self.rtol * size  # type: ignore[no-any-return]

    def __str__(self) -> str:
        if self.atol == self.rtol == 0:
            return "f(h[t-1], u[t]) = h[t] in every entry"
        unit = "1" if self.lanes is None else "m"
        if self.atol == self.rtol:
            bound = f"{self.atol:.3g} ({unit} + max(|h|, |f|))"
        else:
            bound = f"{self.atol:.3g}{'' if self.lanes is None else ' m'} + {self.rtol:.3g} max(|h|, |f|)"
        text = f"|r| <= {bound} in every entry, with r = f(h[t-1], u[t]) - h[t]"
        if self.lanes is None:
            return text
        return f"{text} and m the largest of {self.unit:.3g}, |h| and |f| in its lane at its step"

    def widened(self, recurrence: Recurrence, states: Array, values: Array, rounding: Array | None) -> Tolerance | None:
        """Return the least wider test that all entries meet; None where rounding does not explain what they miss.

        f may round otherwise among other times and sequences than alone. So |r| may exceed the test by the rounding of
        two evaluations, where that is known, and the wider test adds as few default tolerances of the recurrence to
        atol and rtol as are needed: 1, 2, 4, and so on; at most 16 where it is not known.

        Parameters
        ----------
        recurrence : Recurrence
        states, values : array, shape (T, *batch, *event)
            h and f.
        rounding : array or None
            A bound on the rounding of f, of the same shape.
        """
        if is_discrete(recurrence.dtype):
            return None
        base, xp, residual = default_tol(recurrence.dtype, recurrence.rounding), namespace(states), values - states
        unit = 1.0 if self.lanes is not None else recurrence.state_scale
        excess = abs(residual) - self._bound(states, values)
        if not bool(xp.isfinite(excess).all()) or (rounding is not None and bool((excess > 2 * rounding).any())):
            return None
        times = 1
        while rounding is not None or times <= _OTHERWISE:
            wider = replace(self, atol=self.atol + times * base * unit, rtol=self.rtol + times * base)
            if wider.met(states, values, residual).all():
                return wider
            times *= 2
        return None

    def above_rounding(self, recurrence: Recurrence) -> Tolerance:
        """Return the test with atol and rtol of at least eps max(1, ``recurrence.rounding``), the rounding of f.

        A residual below that is noise: it says neither how far the states are from the truth nor how long a solver
        takes.
        """
        if is_discrete(recurrence.dtype):
            return self
        floor = float(np.finfo(recurrence.dtype).eps) * max(1.0, recurrence.rounding)
        unit = 1.0 if self.lanes is not None else recurrence.state_scale
        return replace(self, atol=max(self.atol, floor * unit), rtol=max(self.rtol, floor))

    def _unit(self, size: Array) -> Any:
        if self.lanes is None or not size.size:
            return 1.0
        axes = (-1,) if self.lanes.components == 1 else (self.lanes.component_axis, -1)
        return namespace(size).maximum(size.max(axis=axes, keepdims=True), self.unit)


def tolerance_for(recurrence: Recurrence, tol: float | None = None, *, scaled: bool = True) -> Tolerance:
    """Return the test that a solve uses: ``tol`` as atol and rtol, or the default of the recurrence.

    With ``scaled=False`` the states are taken to be of ordinary size. Discrete states are tested for equality, and a
    ``tol`` other than 0 is a ValueError.

    Examples
    --------
    >>> import numpy as np, recsolve as rs
    >>> from recsolve.base.tolerance import tolerance_for
    >>> rec = rs.cells.GRU.random(input_size=2, hidden_size=4, rng=0).recurrence(np.ones((30, 2)))
    >>> tolerance_for(rec, 1e-6).rtol, tolerance_for(rec).lanes
    (1e-06, Layout(components=1, lanes=(), units=4))
    """
    if is_discrete(recurrence.dtype):
        if tol:
            raise ValueError(f"tol is {tol}; wanted None or 0, since equality is the test of {recurrence.dtype} states")
        return Tolerance(0.0, 0.0)
    if tol is not None:
        return Tolerance(tol, tol)
    rounding = recurrence.rounding
    base, scale = default_tol(recurrence.dtype, rounding), recurrence.state_scale if scaled else 1.0
    if rounding > 0:
        return Tolerance(base, base, recurrence.layout, scale)
    return Tolerance(base * scale, base, unit=scale)

"""f in finer arithmetic than that of the states: float64 for float32, NumPy's long double for float64."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np

from recsolve.base.arrays import Array, is_discrete, kind_of, namespace
from recsolve.base.names import Names
from recsolve.base.overriding import changed
from recsolve.recurrence.base import Recurrence, check_known
from recsolve.recurrence.cell_recurrence import CellRecurrence
from recsolve.recurrence.function import FunctionRecurrence
from recsolve.symbolic.constants import state_dtype
from recsolve.symbolic.units import units_in_force

_NUMBERS = 2**20  # of the states that are computed together
_TERMS = 2**28  # of sums in long double, which take a second,
_FUNCTIONS = 16  # as elementary functions in the place of this many do


class Finer:
    """f of a recurrence in a finer type.

    Parameters
    ----------
    recurrence : Recurrence

    Attributes
    ----------
    dtype : dtype
        That of the results; the recurrence's own where there is none finer: for float64 on a GPU, where sums of long
        doubles would take too long, and where f refuses finer arrays.

    Examples
    --------
    >>> import numpy as np, recsolve as rs
    >>> from recsolve.analysis.finer import Finer
    >>> x = np.ones((9, 2), np.float32)
    >>> rec = rs.cells.GRU.random(input_size=2, hidden_size=4, rng=0, dtype=np.float32).recurrence(x)
    >>> states = rs.solve(rec).states
    >>> Finer(rec).values(states).dtype, float(abs(Finer(rec).values(states) - states).max()) < 1e-6
    (dtype('float64'), True)
    """

    def __init__(self, recurrence: Recurrence):
        self.recurrence = recurrence
        self.dtype = np.dtype(np.float64 if recurrence.dtype == np.float32 else np.longdouble)
        width = (recurrence.layout.units or 1) if recurrence.rounding > 0 else _FUNCTIONS
        terms = recurrence.shape[0] * int(np.prod(recurrence.shape[1:])) * width
        slow = kind_of(recurrence.initial) == "cupy" or terms > _TERMS
        if recurrence.dtype == np.float64 and (slow or np.finfo(np.longdouble).eps == np.finfo(np.float64).eps):
            self.dtype = recurrence.dtype

    def values(self, states: Array, drive: Mapping[str, Array] | None = None, before: Array | None = None) -> Array:
        """Return f(h[t-1], u[t]) at all t in ``dtype``, which becomes that of the recurrence where f refuses another.

        Parameters
        ----------
        states : array, shape (T, *batch, *event)
            Of any float dtype.
        drive : mapping of arrays, optional
            Of a cell's recurrence: drives in place of its own, of any float dtype.
        before : array, shape (*batch, *event), optional
            A state before the first step in place of ``initial``, of any float dtype.

        Returns
        -------
        array, shape (T, *batch, *event)
        """
        if self.dtype != self.recurrence.dtype:
            try:
                with state_dtype(self.dtype), np.errstate(all="ignore"):
                    return self._by_windows(self._previous(states, before), drive)
            except Exception:  # f is the user's own code
                self.dtype = self.recurrence.dtype
        rec = self.recurrence
        if drive is not None and isinstance(rec, CellRecurrence):
            own = Names({name: self._cast(u) for name, u in drive.items()}, "drive")
            rec = rec._remade(own, rec.wrap(rec.initial), rec.reset, None)
        if before is None:
            return rec.evaluate(states.astype(self.dtype))
        with np.errstate(all="ignore"):
            return rec.bind().apply(self._previous(states, before))

    def _previous(self, states: Array, before: Array | None) -> Array:
        rec = self.recurrence
        previous = rec.previous(states.astype(self.dtype))
        if before is not None:
            seen = rec.over_event(rec.from_initial)[0]
            previous[0] = namespace(before).where(seen, before, previous[0])
        return previous

    def _by_windows(self, previous: Array, drive: Mapping[str, Array] | None) -> Array:
        values = namespace(previous).empty(self.recurrence.shape, self.dtype)
        steps = max(_NUMBERS * len(previous) // previous.size, 1)
        for start in range(0, len(previous), steps):
            cut = slice(start, min(start + steps, len(previous)))
            part = None if drive is None else {name: u[cut] for name, u in drive.items()}
            found = self._apply(self.recurrence.window(cut.start, cut.stop), previous[cut], part)
            if found.dtype != self.dtype or found.shape != values[cut].shape:
                raise TypeError("f has a dtype in mind")
            values[cut] = found
        return values  # type: ignore[no-any-return]

    def _cast(self, x: Array) -> Array:
        return x if is_discrete(x.dtype) else x.astype(self.dtype)

    def _apply(self, rec: Recurrence, previous: Array, drive: Mapping[str, Array] | None) -> Any:
        if isinstance(rec, FunctionRecurrence):
            check_known(rec, FunctionRecurrence)
            parameters = {name: self._cast(p) for name, p in rec.parameters.items()}
            inputs = [self._cast(u) for u in rec.inputs]
            out = rec.call(rec.f, previous, inputs, parameters)
            return rec.flat(out, rec.after(previous)[:-1], self.dtype)
        if not isinstance(rec, CellRecurrence):
            raise TypeError(f"{type(rec).__name__} is not known")
        check_known(rec, CellRecurrence)
        cell, layout, xp = rec.cell, rec.layout, namespace(previous)
        state = {name: layout.component(previous, i) for i, name in enumerate(cell.cell.state)}
        mixings: Any = {name: changed(m, weight=m.weight.astype(self.dtype)) for name, m in cell.mixings.items()}
        drives = {name: self._cast(u) for name, u in (drive or rec.drive).items()}
        parameters = {name: p.astype(self.dtype) for name, p in cell.parameters.items()}
        with units_in_force(layout.lane_width // layout.components):
            out = cell.cell.function(
                Names(state, "component"),
                Names(mixings, "mixing"),
                Names(drives, "drive"),
                Names(parameters, "parameter"),
            )
        part = layout.component(previous, 0).shape
        parts = [xp.broadcast_to(x, part) for x in (out if isinstance(out, tuple) else (out,))]
        return parts[0] if layout.components == 1 else xp.stack(parts, axis=previous.ndim - len(layout.event))

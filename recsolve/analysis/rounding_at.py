"""How far f, evaluated once more, may come out otherwise: its rounding at the states, step by step."""

from __future__ import annotations

from typing import Any

import numpy as np

from recsolve.analysis.enclosure import rounding_of_f
from recsolve.analysis.finer import Finer
from recsolve.base.arrays import Array, kind_of, namespace, to_host
from recsolve.recurrence.base import Recurrence, check_known
from recsolve.recurrence.cell_recurrence import CellRecurrence
from recsolve.recurrence.scale import sizes_of

_NUMBERS = 2**18  # of the states that are looked at together
_TIMES = 4  # of the rounding that has been seen, what may be


def rounding_at(recurrence: Recurrence, states: Array, rows: Array) -> Array | None:
    """Return a bound on |f as computed - f| in some rows, and 0 or more in others; None where it is not known.

    Interval arithmetic proves it. What intervals cannot follow is compared with itself in finer arithmetic: four times
    the most that it is off at any step, in what belongs together. That is no proof, but steps round much alike.

    Parameters
    ----------
    recurrence : Recurrence
    states : array, shape (T, *batch, *event)
        Native.
    rows : array of bool, shape (T, *batch)
        Those that are asked for.

    Returns
    -------
    array or None
        (T, *batch, *event), or broadcasting to it, float64, of the kind of the states. It holds for any order in which
        the sums inside f are taken, at the magnitudes that their terms have at these states.

    Examples
    --------
    >>> import numpy as np, recsolve as rs
    >>> from recsolve.analysis.rounding_at import rounding_at
    >>> rec = rs.cells.GRU.random(input_size=2, hidden_size=4, rng=0).recurrence(np.ones((9, 2)))
    >>> bound = rounding_at(rec, rec.guess(), np.arange(9) == 5)
    >>> bool(0 < bound[5].max() < 1e-14), float(bound[:5].max())
    (True, 0.0)
    """
    if not states.size:
        return None
    try:
        with np.errstate(all="ignore"):
            bound = _by_rows(recurrence, states, rows)
            if bound is None:
                bound = namespace(states).asarray(_by_windows(_on_host(recurrence), to_host(states), to_host(rows)))
    except Exception:  # f is the user's own code, and may raise anything on intervals
        finer, values = Finer(recurrence), recurrence.evaluate(states)
        off = finer.values(states) - values
        if finer.dtype == recurrence.dtype:
            return None
        bound = _TIMES * sizes_of(recurrence, off)
    return bound if bool(namespace(states).isfinite(bound).all()) else None


def _by_rows(recurrence: Recurrence, states: Array, rows: Array) -> Array | None:
    """Return the bound of a cell, of which single steps can be taken alone: few rows miss a test where most meet it."""
    if not isinstance(recurrence, CellRecurrence):
        return None
    xp, previous = namespace(states), recurrence.previous(states)
    bound, places = xp.zeros(states.shape), xp.nonzero(rows)
    count = max(_NUMBERS // recurrence.layout.size, 1)
    for start in range(0, len(places[0]), count):
        place = tuple(x[start : start + count] for x in places)
        alone = recurrence.single_steps(place, previous[place])
        if alone is None:
            return None
        host = _on_host(alone)
        bound[place] = xp.asarray(rounding_of_f(host, host.initial[None]))[0]
    return bound  # type: ignore[no-any-return]


def _by_windows(recurrence: Recurrence, states: Array, rows: Array) -> Array:
    bound = np.zeros(states.shape)
    previous = recurrence.previous(states)
    steps = max(_NUMBERS * len(states) // states.size, 1)
    for start in range(0, len(states), steps):
        cut = slice(start, min(start + steps, len(states)))
        if rows[cut].any():
            bound[cut] = rounding_of_f(recurrence.window(cut.start, cut.stop), previous[cut])
    return np.where(recurrence.over_event(rows), bound, 0.0)


def _on_host(recurrence: Recurrence) -> Recurrence:
    """Return the recurrence on NumPy arrays."""
    if kind_of(recurrence.initial) == "numpy":
        return recurrence
    if not isinstance(recurrence, CellRecurrence):
        raise TypeError("a function may hold arrays on the GPU")
    check_known(recurrence, CellRecurrence)
    drive: Any = {name: to_host(u) for name, u in recurrence.drive.items()}
    reset = None if recurrence.reset is None else to_host(recurrence.reset)
    host = recurrence.cell.to("numpy").recurrence(drive=drive, initial=to_host(recurrence.initial), reset=reset)
    host.restart = to_host(recurrence.restart)
    return host

"""A guess for gated cells: gates from the states of before, then exact scans of what is left."""

from __future__ import annotations

import numpy as np

from recsolve.base.arrays import Array, namespace
from recsolve.base.layout import Layout
from recsolve.jacobians import Diagonal
from recsolve.kernels.affine_scan import affine_scan
from recsolve.kernels.backends import scan
from recsolve.kernels.monoids import MONOIDS
from recsolve.recurrence.base import Recurrence
from recsolve.recurrence.cell_recurrence import CellRecurrence
from recsolve.symbolic.graph import Leaf
from recsolve.symbolic.inner_loop import Loop, inner_loops, values_of
from recsolve.symbolic.program import Program
from recsolve.symbolic.tracing import trace_cell

PASSES = 2  # the first has gates of the initial state, each further one those of the trajectory before


def frozen_gates(recurrence: Recurrence, passes: int = PASSES) -> Array:
    """Return a trajectory of a gated cell: its mixings are held, and its inner loop is solved, ``passes`` times.

    Parameters
    ----------
    recurrence : CellRecurrence
    passes : int
        How often.

    Returns
    -------
    array, shape (T, *batch, *event)

    Raises
    ------
    ValueError
        For a recurrence of no cell, a cell that cannot be traced, or one whose inner loop is not linear; the message
        says why.

    Notes
    -----
    A gate depends on the state through its mixing, and weakly where the drive decides. Where mixings are held, units
    are apart, and what is left of an LSTM or a GRU is affine, of an sLSTM or a clamp a sum between bounds.

    Examples
    --------
    >>> import numpy as np, recsolve as rs
    >>> from recsolve.recurrence.frozen_gates import frozen_gates
    >>> rec = rs.cells.LSTM.random(input_size=3, hidden_size=8, rng=0).recurrence(np.ones((50, 3)))
    >>> error = [abs(frozen_gates(rec, n) - rs.solve(rec).states).max() for n in (1, 2, 3)]
    >>> bool(error[0] > error[1] > error[2])
    True
    """
    if not isinstance(recurrence, CellRecurrence):
        raise ValueError("guess is 'frozen_gates', and this recurrence is of a function; only cells have gates to hold")
    try:
        program = trace_cell(recurrence.cell.cell, "dense", recurrence.ties)
        loops = inner_loops(program)
    except (TypeError, ValueError) as error:
        raise ValueError(f"guess is 'frozen_gates': {error}") from None
    given = {Leaf("drive", name): u for name, u in recurrence.drive.items()}
    given |= {Leaf("parameter", name): p for name, p in recurrence.cell.parameters.items()}
    states = recurrence.empty()
    states[...] = recurrence.initial
    with np.errstate(all="ignore"):
        for _ in range(passes if recurrence.length else 0):
            held = _held(recurrence, program, given, states)
            for loop in loops:  # each sees the new values of those before it
                _solve(recurrence, loop, held, states)
    return states


def _held(recurrence: CellRecurrence, program: Program, given: dict[Leaf, Array], states: Array) -> dict[Leaf, Array]:
    """Return drives, parameters and what the mixings give at some states."""
    held, previous, shape = dict(given), _leaves(recurrence, states), recurrence.layout.component(states, 0).shape
    xp = namespace(states)
    for number, call in enumerate(program.calls):
        (x,) = values_of([call.input.value], {**held, **previous})
        x = xp.ascontiguousarray(xp.broadcast_to(xp.asarray(x, states.dtype), shape))
        held[Leaf("mixing", str(number))] = recurrence.cell.mixings[call.mixing](x)
    return held


def _leaves(recurrence: CellRecurrence, states: Array) -> dict[Leaf, Array]:
    """Return the components of the states before every step."""
    previous, names = recurrence.previous(states), recurrence.cell.cell.state
    return {Leaf("component", name): recurrence.layout.component(previous, i) for i, name in enumerate(names)}


def _solve(recurrence: CellRecurrence, loop: Loop, held: dict[Leaf, Array], states: Array) -> None:
    """Write the trajectory of one component into the states, given the mixings and the components before it."""
    index = recurrence.cell.cell.state.index(loop.component)
    mine, xp = recurrence.layout.component(states, index), namespace(states)
    leaves = {**held, **_leaves(recurrence, states)}
    nodes = [loop.value, *([] if loop.slope is None else [loop.slope]), *(shift.other for shift in loop.shifts)]
    value, *rest = (xp.broadcast_to(xp.asarray(x, mine.dtype), mine.shape) for x in values_of(nodes, leaves))
    cut = xp.broadcast_to(_over(recurrence.starts, mine), mine.shape)
    if loop.slope is None:
        d, low, high = (xp.full(mine.shape, x, mine.dtype) for x in (0.0, -np.inf, np.inf))
        for shift, other in zip(loop.shifts, rest, strict=True):
            if shift.operation == "add":
                d, low, high = (x + shift.sign * other for x in (d, low, high))
            else:
                low, high = (getattr(xp, shift.operation)(x, other) for x in (low, high))
        low, high = (xp.where(cut, value, x) for x in (low, high))  # a start is a map to one value
        d = xp.where(cut, mine.dtype.type(0), d)
        new = scan(MONOIDS["saturating_add"], (d, low, high), initial=xp.zeros_like(mine[0]))
    else:
        layout = Layout(1, recurrence.layout.lanes, recurrence.layout.units)
        slope = Diagonal(xp.ascontiguousarray(rest[0]), layout)
        new = mine + affine_scan(slope, xp.ascontiguousarray(value - mine), reset=_over(recurrence.starts, mine))
    mine[...] = new


def _over(rows: Array, like: Array) -> Array:
    """Return what is known of rows (T, *batch) with axes for lanes and units."""
    return rows.reshape(rows.shape + (1,) * (like.ndim - rows.ndim))

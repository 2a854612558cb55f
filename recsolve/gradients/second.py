"""Second derivatives: the gradients of gradients, by one forward and two reverse scans.

The adjoint is linear in its cotangents c and depends on all leaves (weights, inputs, initial state): G = adjoint(c).
For cotangents v of G the scalar <v, G> is <c, y'>, with y' the tangent of the solution along v. So y' is the gradient
with respect to c; that with respect to the leaves is the adjoint once more, of how the reverse products with the first
adjoint variables move along (h', v) (:mod:`recsolve.gradients.curvature`), and these moves themselves.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, NamedTuple

import numpy as np

from recsolve.base.arrays import Array, matmul_last, namespace
from recsolve.base.links import Leaf
from recsolve.base.overriding import changed
from recsolve.gradients.adjoint import gradients
from recsolve.gradients.curvature import Curved, curve_cell, curve_function
from recsolve.gradients.function_gradients import STATE, OfCell, push_readout
from recsolve.gradients.result import Gradients
from recsolve.gradients.sensitivity import projection_of
from recsolve.gradients.tangent import of_function, split_leaves, tangent_along
from recsolve.recurrence.base import Recurrence, check_known
from recsolve.recurrence.cell_recurrence import CellRecurrence
from recsolve.recurrence.function import FunctionRecurrence
from recsolve.recurrence.graph_recurrence import GraphRecurrence
from recsolve.recurrence.history import HistoryRecurrence
from recsolve.recurrence.ragged_recurrence import RaggedRecurrence
from recsolve.recurrence.read_cell import ReadCell
from recsolve.recurrence.weighted_cell import WeightedCell


class Cotangents(NamedTuple):
    """Native cotangents of states, (T, *batch, *event), output and final state, or None.

    Examples
    --------
    >>> import numpy as np
    >>> from recsolve.gradients.second import Cotangents
    >>> Cotangents(final=np.ones(1)).output is None
    True
    """

    states: Array | None = None
    output: Array | None = None
    final: Array | None = None


class Second(NamedTuple):
    """The result of :func:`recsolve.gradients.second.second_adjoint`, native.

    Attributes
    ----------
    states, output : array
        With respect to the cotangents of states and output, in their shapes. That of ``final`` is ``states[-1]``.
    leaves : dict of array
        With respect to ``recurrence.leaves()``, in their shapes.

    Examples
    --------
    >>> from recsolve.gradients.second import Second
    >>> Second._fields
    ('states', 'output', 'leaves')
    """

    states: Array
    output: Array
    leaves: dict[Leaf, Array]


def second_adjoint(rec: Recurrence, trajectory: Array, c: Cotangents, v: Mapping[Leaf, Array]) -> Second:
    """Return the gradients of <v, gradients of :func:`recsolve.adjoint` for c>.

    Parameters
    ----------
    rec : Recurrence
    trajectory : array, shape (T, *batch, *event)
        Its solution, native.
    c : Cotangents
        Not all None.
    v : mapping of array
        By some of ``rec.leaves()``, in their shapes; what is missing is 0.

    Returns
    -------
    Second

    Raises
    ------
    TypeError
        Where a function uses an operation without a transpose, a mixing lacks ``weight_curvature``, or a class of the
        user's overrides what is differentiated; the message names it.
    ValueError
        As :func:`recsolve.adjoint`.

    Notes
    -----
    Pearlmutter, "Fast exact multiplication by the Hessian", Neural Computation 6 (1994): forward over reverse.

    Examples
    --------
    >>> import numpy as np, recsolve as rs
    >>> from recsolve.gradients.second import Cotangents, second_adjoint
    >>> rec = rs.Recurrence.from_function(lambda h, u: h * h + u, inputs=np.ones((2, 1)), initial=np.ones(1))
    >>> h = rs.solve(rec).states  # 2, 5: the last is (h0^2 + 1)^2 + 1, whose second derivative is 12 h0^2 + 4
    >>> found = second_adjoint(rec, h, Cotangents(final=np.ones(1)), {("initial", None): np.ones(1)})
    >>> found.leaves["initial", None].tolist(), found.states.ravel().tolist()
    ([16.0], [2.0, 8.0])
    """
    moved = tangent_along(rec, trajectory, v)
    first = gradients(rec, trajectory, *c)
    local, at_initial, cotangent = _local(rec, trajectory, moved, v, first.of(STATE))
    shown, output = _shown(rec, trajectory, moved, c.output, v)
    if shown is not None:
        cotangent = cotangent + shown.states
        for leaf, g in shown.leaves.items():
            local[leaf] = local[leaf] + g if leaf in local else g
    again = gradients(rec, trajectory, cotangent, None, None)
    found = {leaf: _total(leaf, again, local) for leaf in _own_leaves(rec)}
    found["initial", None] = again.of(("initial", None)) + at_initial
    if isinstance(rec, (CellRecurrence, RaggedRecurrence)):
        found |= _projected(rec, first, again, local, v)
        if isinstance(rec, CellRecurrence) and isinstance(rec.cell, ReadCell):
            found["readout", None] = _by_linear_readout(rec, c.output, moved)
    return Second(moved, output, {leaf: found[leaf] for leaf in rec.leaves()})


def tangents_of(rec: Recurrence, trajectory: Array, v: Mapping[Leaf, Array]) -> tuple[Array, Array]:
    """Return the tangents of states and output for native tangents of leaves."""
    moved = tangent_along(rec, trajectory, v)
    return moved, _shown(rec, trajectory, moved, None, v)[1]


def _own_leaves(rec: Recurrence) -> list[Leaf]:
    """Return the leaves that f itself sees."""
    if not isinstance(rec, (CellRecurrence, RaggedRecurrence)):
        return [leaf for leaf in rec.leaves() if leaf[0] in ("input", "parameter")]
    return [leaf for leaf in rec.leaves() if leaf[0] in ("mixing", "parameter")] + [("drive", n) for n in rec.drive]


def _total(leaf: Leaf, again: Gradients, local: Mapping[Leaf, Array]) -> Array:
    g = again.of(leaf)
    return namespace(g).asarray(g + local[leaf]) if leaf in local else g


def _local(
    rec: Recurrence, states: Array, moved: Array, v: Mapping[Leaf, Array], g: Array
) -> tuple[dict[Leaf, Array], Array, Array]:
    """Return how the reverse products with f move: those by leaves, by h[0], and by the states before each step."""
    xp, start = namespace(states), v.get(("initial", None))
    if isinstance(rec, HistoryRecurrence):
        curved = curve_function(rec, rec.f, states, g, {STATE: moved, **of_function(rec, v)})
        return curved.leaves, xp.zeros_like(rec.initial), curved.states
    before = rec.previous(states)
    at: dict[Leaf, Array] = {STATE: _before(rec, moved, xp.zeros_like(rec.initial) if start is None else start)}
    if isinstance(rec, CellRecurrence):
        check_known(rec, CellRecurrence)
        drives, _ = split_leaves(rec, v)
        weights = {leaf: x for leaf, x in v.items() if leaf[0] == "mixing"}
        curved = curve_cell(rec, before, g, {**at, **drives, **weights})
    elif isinstance(rec, FunctionRecurrence):
        check_known(rec, FunctionRecurrence)
        curved = _as_leaves(rec, curve_function(rec, rec.f, before, g, {**at, **of_function(rec, v)}))
    else:
        raise TypeError(f"second derivatives of a {type(rec).__name__} are not known")
    return curved.leaves, *_after(rec, curved.states)


def _as_leaves(rec: Recurrence, curved: Curved) -> Curved:
    """Return the same of the leaves of a recurrence that f gets as inputs and parameters."""
    if not isinstance(rec, RaggedRecurrence):
        return curved
    leaves = {place: leaf for leaf, place in rec.places.items()}
    return Curved(curved.states, {leaves.get(place, place): g for place, g in curved.leaves.items()})


def _before(rec: Recurrence, moved: Array, start: Array) -> Array:
    """Return how the states before each step move with the states, and with h[0]."""
    still = namespace(start).zeros_like(rec.restart)
    if isinstance(rec, GraphRecurrence):
        known = namespace(start).zeros_like(rec.known)
        known[0] = start
        return changed(rec, known=known).previous(moved)
    return changed(rec, initial=start, restart=start if rec.restart is rec.initial else still).previous(moved)


def _after(rec: Recurrence, g: Array) -> tuple[Array, Array]:
    """Return the cotangents of h[0] and of the states, for those of the states before each step."""
    xp, zero = namespace(g), g.dtype.type(0)
    at_start = xp.where(rec.over_event(rec.from_initial), g, zero)
    initial = at_start.sum(axis=tuple(range(g.ndim - rec.initial.ndim)))
    states = xp.zeros(rec.shape, g.dtype)
    if isinstance(rec, GraphRecurrence):
        for slot, parents in enumerate(rec.graph.parents.T):
            there = np.flatnonzero(parents >= 0)
            xp.add.at(states, xp.asarray(parents[there]), g[xp.asarray(there), slot])
    elif len(states):
        states[:-1] = xp.where(rec.over_event(rec.starts), zero, g)[1:]
    return initial, states


def _shown(
    rec: Recurrence, states: Array, moved: Array, c: Array | None, v: Mapping[Leaf, Array]
) -> tuple[Curved | None, Array]:
    """Return how the reverse products with what is shown of the states move, and how that moves itself."""
    if rec.readout is not None and isinstance(rec, (FunctionRecurrence, CellRecurrence)):
        names: dict[Leaf, Leaf] = {}
        known: Any = rec
        if isinstance(rec, FunctionRecurrence):
            others = of_function(rec, v)
        else:
            known, names = OfCell(rec), {("input", i): ("drive", n) for i, n in enumerate(rec.drive)}
            leaves, _ = split_leaves(rec, v)
            places = {drive: place for place, drive in names.items()}
            others = {places.get(leaf, leaf): x for leaf, x in leaves.items()}
        at = {STATE: moved, **others}
        output = push_readout(known, rec.readout, states, at)
        if c is None:
            return None, output
        curved = curve_function(known, rec.readout, states, c, at)
        named = {names.get(leaf, leaf): g for leaf, g in curved.leaves.items()}
        return _as_leaves(rec, Curved(curved.states, named)), output
    if not isinstance(rec, CellRecurrence):
        return None, rec.output(moved)
    cell, R = rec.cell, v.get(("readout", None))
    if type(cell) not in (WeightedCell, ReadCell):
        raise TypeError(f"{type(cell).__name__} may override output, so its second derivatives are not known")
    output = cell.output(moved)
    if R is None:
        return None, output
    output = output + matmul_last(WeightedCell.output(cell, states), R)
    if c is None:
        return None, output
    pulled = namespace(states).zeros_like(states)
    WeightedCell.pull_output(cell, matmul_last(c, R.T), pulled)
    return Curved(pulled, {}), output


def _by_linear_readout(rec: CellRecurrence, c: Array | None, moved: Array) -> Array:
    cell: Any = rec.cell
    return namespace(moved).zeros_like(cell.readout) if c is None else cell.pull_readout(c, moved)  # type: ignore[no-any-return]


def _projected(
    rec: CellRecurrence | RaggedRecurrence,
    first: Gradients,
    again: Gradients,
    local: Mapping[Leaf, Array],
    v: Mapping[Leaf, Array],
) -> dict[Leaf, Array]:
    """Return the gradients with respect to the input, and to weights and biases of the projection."""
    projection = projection_of(rec)
    if projection is None or rec.x is None:
        return {}
    drives = {n: _total(("drive", n), again, local) for n in rec.drive}
    before = {n: first.of(("drive", n)) for n in rec.drive}
    x, dx = projection.pull(drives), v.get(("input", 0))
    weights, biases = projection.weight_cotangents(drives, rec.x)
    if any(leaf[0] == "weight" for leaf in v):
        x = x + projection.pull_moved(v, before)
    if dx is not None:
        more, _ = projection.weight_cotangents(before, dx)
        weights = {n: w + more[n] for n, w in weights.items()}
    found: dict[Leaf, Array] = {("input", 0): x}
    found |= {("weight", n): w for n, w in weights.items()}
    return found | {("bias", n): b for n, b in biases.items()}

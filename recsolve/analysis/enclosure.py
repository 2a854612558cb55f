"""Enclosures: how far two runs of f from a ball of states can come apart.

Let one run of the program of f start anywhere in a ball and round as its dtype does, or not at all; let the other start
at any other point of the ball and not round. Operation by operation, their values x and y differ by

    x - y = sum over leaves of slope * (difference of the leaf) + defect,

with every slope inside the derivative of the operation over the intervals (mean value theorem, or its Lipschitz form
for minimum, maximum and absolute) and the defect bounded by the rounding and by jumps: a condition that the ball leaves
open may send the runs different ways. Duals over intervals carry both (:mod:`recsolve.analysis.interval_dual`).
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from recsolve.analysis.interval import Interval
from recsolve.analysis.interval_dual import DEFECT, Directional, Elementwise
from recsolve.analysis.rounding import magnitude, product_rounding
from recsolve.base.arrays import Array, is_discrete
from recsolve.base.layout import Layout
from recsolve.base.names import Names
from recsolve.jacobians import Block, Diagonal, Jacobian, LaneDense
from recsolve.jacobians.factored import Call, Factored
from recsolve.mixings import MIXINGS, Mixing, couples, form_of, plain_of
from recsolve.recurrence.base import Recurrence, check_known
from recsolve.recurrence.cell_recurrence import CellRecurrence
from recsolve.recurrence.function import FunctionRecurrence
from recsolve.symbolic.dual import ONE, Dual, value_of

WIDEST = 128  # lanes up to this width have their matrices formed


@dataclass(frozen=True)
class Enclosure:
    """The bound |x - y| <= |J| |difference of the states| + defect, for two runs as above.

    Attributes
    ----------
    jacobian : Jacobian
        Magnitudes; or LaneDense over an Interval, where units couple and lanes are at most ``WIDEST`` wide.
    defect : array, shape (T, *batch, *event)
        Float64.
    """

    jacobian: Jacobian
    defect: Array


def enclose(recurrence: Recurrence, previous: Array, radius: Array) -> Enclosure:
    """Return the enclosure of f over the balls previous[t] +- radius[t].

    Parameters
    ----------
    recurrence : Recurrence
    previous, radius : array, shape (T, *batch, *event)

    Returns
    -------
    Enclosure

    Raises
    ------
    TypeError
        For a recurrence that is neither a cell's nor a function's, or overrides f.
    Exception
        Of any type, when f does what intervals cannot follow: f is the user's own code.

    Examples
    --------
    >>> import numpy as np, recsolve as rs
    >>> from recsolve.analysis.enclosure import enclose
    >>> rec = rs.Recurrence.from_function(
    ...     lambda h, u: h * h + u, inputs=np.ones((1, 1)), initial=np.zeros(1), structure="diagonal")
    >>> found = enclose(rec, np.array([[3.0]]), np.array([[0.5]]))  # slopes 2 h up to 7
    >>> bool(7 <= found.jacobian.data < 7.01), bool(found.defect < 1e-14)
    (True, True)
    """
    ball, known = Interval.around(previous, radius, recurrence.dtype), _known(recurrence)
    if isinstance(known, CellRecurrence):
        return _enclosed(known, *_of_cell(known, ball))
    try:
        return _elementwise(known, ball)
    except Exception:  # it couples entries, perhaps
        return _coupled(known, ball)


def rounding_of_f(recurrence: Recurrence, previous: Array) -> Array:
    """Return a bound on |f as computed - f| at states: sums at their own magnitudes, followed through all operations.

    Parameters
    ----------
    recurrence : Recurrence
    previous : array, shape (T, *batch, *event)

    Returns
    -------
    array, shape (T, *batch, *event)
        Float64. In whatever order the sums inside f are taken.

    Raises
    ------
    TypeError, Exception
        As :func:`enclose`.

    Examples
    --------
    >>> import numpy as np, recsolve as rs
    >>> from recsolve.analysis.enclosure import rounding_of_f
    >>> rec = rs.Recurrence.from_function(
    ...     lambda h, u: (h + 1000) - 1000, inputs=np.ones((1, 1)), initial=np.zeros(1), structure="diagonal")
    >>> bool(1e-13 < rounding_of_f(rec, np.array([[0.5]])) < 1e-12)
    True
    """
    ball, known = Interval.around(previous, np.zeros(previous.shape), recurrence.dtype), _known(recurrence)
    if isinstance(known, CellRecurrence):
        return _of_cell(known, ball)[2]
    try:
        return _elementwise(known, ball).defect
    except Exception:  # it couples entries, perhaps
        none = np.zeros((1, *(1,) * (1 + len(known.batch)), *known.layout.event))
        return magnitude(_directions(known, ball, none)[0]).reshape(ball.shape)


def _known(recurrence: Recurrence) -> CellRecurrence | FunctionRecurrence:
    """Return the recurrence, if its f is what its base class says; else raise TypeError."""
    if recurrence.graph is not None:
        raise TypeError("what nodes of a graph see is not enclosed")
    for base in (CellRecurrence, FunctionRecurrence):
        if isinstance(recurrence, base):
            check_known(recurrence, base)
            if isinstance(recurrence, FunctionRecurrence):
                given = *recurrence.inputs, *recurrence.parameters.values()
                if any(is_discrete(x.dtype) for x in given):
                    raise TypeError("what integers and bools do is not enclosed")
            return recurrence
    raise TypeError(f"{type(recurrence).__name__} is not enclosed")


def _of_cell(recurrence: CellRecurrence, ball: Interval) -> tuple[_Tape, list[dict[Any, Any]], Array]:
    """Return the mixing calls of one pass, the slopes of what it returns, and the defect."""
    cell, layout = recurrence.cell, recurrence.layout
    tape = _Tape(layout.components)

    def data(arrays: Names | dict[str, Array], what: str) -> Names:
        return Names({name: Elementwise(Interval.of(x, recurrence.dtype), {}) for name, x in arrays.items()}, what)

    s = {name: Elementwise(layout.component(ball, i), {i: ONE}) for i, name in enumerate(cell.cell.state)}  # type: ignore[arg-type]
    W = Names({name: tape.caller(mixing) for name, mixing in cell.mixings.items()}, "mixing")
    out = cell.cell.function(
        Names(s, "component"), W, data(recurrence.drive, "drive"), data(cell.parameters, "parameter")
    )
    out = list(out) if isinstance(out, tuple) else [out]
    shape = layout.component(ball, 0).shape  # type: ignore[arg-type]
    outputs = [_spread(x, shape, ball.dtype) for x in out]
    defect = np.stack(
        [magnitude(partials.pop(DEFECT)) for partials in outputs], axis=len(shape) - len(layout.lanes) - 1
    )
    return tape, outputs, defect.reshape(ball.shape)


def _enclosed(recurrence: CellRecurrence, tape: _Tape, outputs: list[dict[Any, Any]], defect: Array) -> Enclosure:
    layout, dtype = recurrence.layout, recurrence.dtype
    shape = layout.component(defect, 0).shape
    if not tape.calls or not any(outputs):
        return Enclosure(_per_unit(outputs, layout, shape), defect)
    calls = [Call(mixing, _broadcast(partials, shape, dtype)) for mixing, partials in tape.calls]
    leading = (recurrence.length, *recurrence.batch)
    if layout.lane_width <= WIDEST:
        return Enclosure(Factored(calls, outputs, layout, leading).lane_dense(), defect)
    calls = [Call(call.mixing.map(np.abs), _magnitudes(call.partials)) for call in calls]
    return Enclosure(Factored(calls, [_magnitudes(p) for p in outputs], layout, leading), defect)


def _spread(x: Any, shape: tuple[int, ...], dtype: Any) -> dict[Any, Any]:
    """Return the partials of an output, full, with its defect."""
    partials = x.partials if isinstance(x, Dual) else {}
    return _broadcast({DEFECT: 0.0, **partials}, shape, dtype)


def _broadcast(partials: Any, shape: tuple[int, ...], dtype: Any) -> dict[Any, Any]:
    return {leaf: np.broadcast_to(Interval.of(p, dtype), shape) for leaf, p in partials.items()}  # type: ignore[call-overload]


def _magnitudes(partials: Any) -> dict[Any, Array]:
    return {leaf: magnitude(p) for leaf, p in partials.items()}


def _per_unit(outputs: Sequence[dict[Any, Any]], layout: Layout, shape: tuple[int, ...]) -> Jacobian:
    """Return the magnitudes of a Jacobian that couples only the components of a unit."""
    k, zero = layout.components, np.zeros(shape)
    entries = [[magnitude(partials.get(j, zero)) for j in range(k)] for partials in outputs]
    if k == 1:
        return Diagonal(entries[0][0], layout)
    axis = len(shape) - len(layout.lanes) - 1
    return Block(np.stack([np.stack(row, axis=axis) for row in entries], axis=axis), layout)


class _Tape:
    """Records the mixing calls of one pass, each of which opens a new leaf; defects go through them."""

    def __init__(self, components: int):
        self.components = components
        self.calls: list[tuple[Mixing, dict[Any, Any]]] = []

    def caller(self, mixing: Mixing) -> Callable[[Any], Any]:
        mixing = plain_of(mixing)
        form = form_of(mixing)
        if form is None:  # who knows how it rounds?
            raise TypeError(f"{type(mixing).__name__} states no form, so it is not enclosed")
        wide = MIXINGS[form](mixing.weight.astype(np.float64))
        return (lambda x: self._call(wide, x)) if couples(wide) else wide

    def _call(self, mixing: Mixing, x: Elementwise) -> Elementwise:
        sizes = mixing.map(np.abs)
        error = product_rounding(sizes.matvec, magnitude(x.value), mixing.units, x.dtype)
        # Four: the sum at the centre, that of the radius, a run, and slack.
        y = Interval.around(mixing.matvec(x.value.centre), sizes.matvec(x.value.radius) + 4 * error, x.dtype)
        partials = dict(x.partials)
        carried = sizes.matvec(np.broadcast_to(magnitude(partials.pop(DEFECT, 0.0)), x.shape))
        leaf = self.components + len(self.calls)
        if partials:
            self.calls.append((mixing, partials))
        return Elementwise(y, {leaf: ONE} if partials else {})._with(carried * (1 + 1e-12) + error)


def _elementwise(recurrence: FunctionRecurrence, ball: Interval) -> Enclosure:
    """Enclose a function that couples no entries, whatever structure was declared."""

    def data(x: Array) -> Elementwise:
        return Elementwise(Interval.of(x, recurrence.dtype), {})

    inputs, parameters = [data(u) for u in recurrence.inputs], {n: data(p) for n, p in recurrence.parameters.items()}
    out = recurrence.call(recurrence.f, Elementwise(ball, {0: ONE}), inputs, parameters)
    out = recurrence.flat(out, ball.shape[:-1])
    if tuple(np.shape(value_of(out))) != ball.shape:
        raise ValueError(f"f returned shape {np.shape(value_of(out))}; wanted {ball.shape}")
    partials = _magnitudes(_spread(out, ball.shape, ball.dtype))
    return Enclosure(Diagonal(partials.get(0, np.zeros(ball.shape)), recurrence.layout), partials[DEFECT])


def _coupled(recurrence: FunctionRecurrence, ball: Interval) -> Enclosure:
    """Enclose a function by one direction per entry of the state: its coupling is computed, not taken as declared."""
    layout = Layout(units=recurrence.layout.size)
    size, leading = recurrence.layout.size, recurrence.layout.leading(ball)  # type: ignore[arg-type]
    if size > WIDEST:
        raise ValueError(f"{size} numbers per state are too many for one direction each")
    seeds = np.eye(size + 1, size).reshape(size + 1, *(1,) * len(leading), *recurrence.layout.event)
    flat = _directions(recurrence, ball, seeds).reshape(size + 1, *leading, size)
    defect = magnitude(flat[size]).reshape(ball.shape)
    return Enclosure(LaneDense(np.moveaxis(flat[:size], 0, -1), layout), defect)


def _directions(recurrence: FunctionRecurrence, ball: Interval, seeds: Array) -> Any:
    """Return the slopes of a function along directions of the state, the last of which becomes the defect."""

    def directions(x: Any, rows: Array) -> Interval:
        return Interval.of(np.broadcast_to(rows, (len(seeds), *x.shape)), recurrence.dtype)

    def data(u: Array) -> Directional:
        return Directional.seeded(Interval.of(u, recurrence.dtype), directions(u, np.zeros(())))  # type: ignore[return-value]

    state = Directional.seeded(ball, directions(ball, seeds))
    inputs, parameters = [data(u) for u in recurrence.inputs], {n: data(p) for n, p in recurrence.parameters.items()}
    out = recurrence.flat(recurrence.call(recurrence.f, state, inputs, parameters), ball.shape[:-1])
    if not isinstance(out, Directional) or out.shape != ball.shape:
        raise TypeError("f returned something else than states")
    return out.directions

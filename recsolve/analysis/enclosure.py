"""Enclosures: how far two runs of f from a ball of states can come apart.

Let one run of the program of f start anywhere in a ball and round as its dtype does, or not at all; let the other start
at any other point of the ball and not round. Operation by operation, their values x and y differ by

    x - y = sum over leaves of slope * (difference of the leaf) + defect,

with every slope inside the derivative of the operation over the intervals (mean value theorem, or its Lipschitz form
for minimum, maximum and absolute) and the defect bounded by the rounding and by jumps: a condition that the ball leaves
open may send the runs different ways. The chain rule of :mod:`recsolve.symbolic.dual`, read on intervals, carries the
slopes; the defect travels as one more leaf, :data:`DEFECT`.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from recsolve.analysis.interval import Interval
from recsolve.analysis.rounding import magnitude, product_rounding, rounding
from recsolve.base.arrays import Array
from recsolve.base.layout import Layout
from recsolve.base.names import Names
from recsolve.jacobians import Block, Diagonal, Jacobian, LaneDense
from recsolve.jacobians.factored import Call, Factored
from recsolve.mixings import MIXINGS, Mixing, couples, form_of
from recsolve.recurrence.base import Recurrence, check_known
from recsolve.recurrence.cell_recurrence import CellRecurrence
from recsolve.recurrence.function import FunctionRecurrence
from recsolve.recurrence.function_tangent import Tangent
from recsolve.symbolic.constants import constant
from recsolve.symbolic.dual import ONE, Dual, value_of

DEFECT = "defect"  # the leaf of what is not a multiple of a difference of states
WIDEST = 128  # lanes up to this width have their matrices formed
_STEPS = {"sign", "floor", "ceil", "rint"}
_TRUTHS = {
    "greater", "greater_equal", "less", "less_equal", "equal", "not_equal", "bitwise_and", "bitwise_or", "invert",
    "logical_and", "logical_or", "logical_not",
}  # fmt: skip


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
    ball = Interval.around(previous, radius, recurrence.dtype)
    if isinstance(recurrence, CellRecurrence):
        check_known(recurrence, CellRecurrence)
        return _of_cell(recurrence, ball)
    if not isinstance(recurrence, FunctionRecurrence):
        raise TypeError(f"{type(recurrence).__name__} is not enclosed")
    check_known(recurrence, FunctionRecurrence)
    try:
        return _elementwise(recurrence, ball)
    except Exception:  # it couples entries, perhaps
        return _coupled(recurrence, ball)


class _Run(Dual):
    """The base of both enclosing duals: every operation adds its defect."""

    __slots__ = ()
    __hash__ = None  # type: ignore[assignment]

    def _with(self, defect: Array) -> Any:
        """Return this with a further defect."""
        raise NotImplementedError

    def _flat(self, y: Any) -> Any:
        """Return a value that no leaf moves."""
        raise NotImplementedError

    def _values(self, args: Sequence[Any]) -> list[Any]:
        """Return operands without their partials; arrays may be wider here than the state."""
        return [value_of(x) if isinstance(x, Dual) else constant(x, None) for x in args]

    def lift(self, name: str, args: Sequence[Any]) -> Any:
        values = self._values(args)
        if name in _STEPS:
            return self._step(getattr(np, name), values)
        out: Any = super().lift(name, args)
        return out._with(rounding(name, magnitude(out.value), values, out.dtype))

    def _step(self, function: Any, values: Sequence[Any]) -> Any:
        """Return a step function, flat but for jumps."""
        y = function(*values)
        return self._flat(y)._with(y.upper - y.lower)

    def __array_ufunc__(self, ufunc: Any, method: str, *inputs: Any, **kwargs: Any) -> Any:
        if ufunc.__name__ in _TRUTHS and method == "__call__" and not kwargs:
            return self._step(ufunc, [value_of(x) for x in inputs])
        return super().__array_ufunc__(ufunc, method, *inputs, **kwargs)

    def _where(self, condition: Any, a: Any, b: Any) -> Any:
        out: Any = super()._where(condition, a, b)
        truth = Interval.of(value_of(condition) != 0, self.dtype)
        apart = magnitude(Interval.of(value_of(a), self.dtype) - value_of(b))
        return out._with(np.where(truth.lower == truth.upper, 0.0, apart))


class Elementwise(_Run):
    """An interval with the slopes of each entry in the same entry of the leaves."""

    __slots__ = ()

    def _with(self, defect: Any) -> Elementwise:
        more = Interval(-defect, defect, self.dtype)
        known = self.partials.get(DEFECT)
        return type(self)(self.value, {**self.partials, DEFECT: more if known is None else known + more})

    def _flat(self, y: Any) -> Elementwise:
        return type(self)(y, {})

    def __getitem__(self, index: Any) -> Any:
        if set(self.partials) - {DEFECT}:
            raise self._unsupported("indexing")
        return type(self)(self.value[index], {leaf: partial[index] for leaf, partial in self.partials.items()})


class Directional(_Run, Tangent):
    """An interval with its slopes along directions; the last one is the defect."""

    __slots__ = ()

    def _with(self, defect: Any) -> Directional:
        last = np.zeros((len(self.directions), *(1,) * self.ndim))
        last[-1] = 1.0
        return self.seeded(self.value, self.directions + Interval(-last * defect, last * defect, self.dtype))  # type: ignore[return-value]

    def _flat(self, y: Any) -> Any:
        return self.seeded(y, Interval.of(np.zeros((len(self.directions), *y.shape)), self.dtype))

    def _multilinear(self, function: Any, args: Any, kwargs: Any) -> Any:
        if function is not np.matmul:
            raise self._unsupported(f"numpy.{function.__name__}")
        out: Any = super()._multilinear(function, args, kwargs)
        a, b = (magnitude(value_of(x)) for x in args)
        return out._with(product_rounding(lambda size: size @ b, a, a.shape[-1], self.dtype))


def _of_cell(recurrence: CellRecurrence, ball: Interval) -> Enclosure:
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
    defect = defect.reshape(ball.shape)
    if not tape.calls or not any(outputs):
        return Enclosure(_per_unit(outputs, layout, shape), defect)
    calls = [Call(mixing, _broadcast(partials, shape, ball.dtype)) for mixing, partials in tape.calls]
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
    data = [Elementwise(Interval.of(u, recurrence.dtype), {}) for u in recurrence.inputs]
    out = recurrence.f(Elementwise(ball, {0: ONE}), recurrence.contain(data))
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
    events = (1,) * len(leading)
    seeds = np.eye(size + 1, size).reshape(size + 1, *events, *recurrence.layout.event)

    def directions(x: Any, rows: Array) -> Interval:
        return Interval.of(np.broadcast_to(rows, (size + 1, *x.shape)), recurrence.dtype)

    def data(u: Array) -> Directional:
        return Directional.seeded(Interval.of(u, recurrence.dtype), directions(u, np.zeros(())))  # type: ignore[return-value]

    state = Directional.seeded(ball, directions(ball, seeds))
    out = recurrence.f(state, recurrence.contain([data(u) for u in recurrence.inputs]))
    if not isinstance(out, Directional) or out.shape != ball.shape:
        raise TypeError("f returned something else than states")
    flat = out.directions.reshape(size + 1, *leading, size)
    defect = magnitude(flat[size]).reshape(ball.shape)
    return Enclosure(LaneDense(np.moveaxis(flat[:size], 0, -1), layout), defect)

"""How the cotangents of one evaluation of f move: reverse products, along a direction of all that f depends on.

For a cotangent g of F at x = (states, inputs, weights) they are the derivative, along dx, of the pull of g to x: the
second derivatives of <g, F> times dx. The rules of first derivatives give them, going back over an evaluation on
:class:`Tangent` numbers, which carry the direction along.
"""

from __future__ import annotations

from collections.abc import Callable, Hashable, Mapping
from typing import Any, NamedTuple

import numpy as np

from recsolve.base.arrays import Array, is_discrete, namespace
from recsolve.base.links import Leaf
from recsolve.base.ties import ties_in_force
from recsolve.gradients.function_gradients import STATE, Depends, windows
from recsolve.gradients.reverse import Recorded, RecordedState, pull
from recsolve.gradients.sensitivity import CellSensitivity
from recsolve.gradients.transposes import sum_to
from recsolve.mixings import Mixing
from recsolve.recurrence.cell_recurrence import CellRecurrence
from recsolve.recurrence.function_tangent import StateTangent, Tangent
from recsolve.symbolic.constants import state_dtype
from recsolve.symbolic.dual import Dual, OfState


def along(x: Array, direction: Array | None, kind: type[Tangent] = Tangent) -> Tangent:
    """Return a value that moves along one direction, or along none."""
    return kind(x, {}) if direction is None else kind.seeded(x, direction[None])


def moved_by(x: Any, shape: tuple[int, ...], dtype: Any) -> Array:
    """Return how something that was computed of tangents moves, in a shape to which it broadcasts."""
    if not isinstance(x, Tangent) or not x.partials:
        like = x.value if isinstance(x, Tangent) else x
        return namespace(like).zeros(shape, dtype)  # type: ignore[no-any-return]
    return namespace(x.value).broadcast_to(x.directions[0], shape)  # type: ignore[no-any-return]


class Curved(NamedTuple):
    """How cotangents move: those of the states, (T, *batch, *event), and of other leaves, in their shapes."""

    states: Array
    leaves: dict[Leaf, Array]


class _MovingCell(CellSensitivity):
    """A cell evaluated on numbers that move, with mixings whose weights move too."""

    def __init__(self, recurrence: CellRecurrence, previous: Array, moved: Mapping[Leaf, Array]):
        self.moved = moved
        super().__init__(recurrence, previous)

    def _leaf(self, kind: str, name: Hashable, value: Any, depends: type[Dual] = Dual) -> Dual:
        if kind != "call":  # else it moves already
            inner = StateTangent if issubclass(depends, OfState) else Tangent
            value = along(value, self.moved.get((kind, name)), inner)
        return super()._leaf(kind, name, value, depends)

    def _mixed(self, name: str | None, mixing: Mixing, x: Any) -> Any:
        return self._product(mixing.matvec, mixing.weight_tangent, name, x)

    def _mixed_back(self, name: str | None, mixing: Mixing, g: Any) -> Any:
        return self._product(mixing.rmatvec, mixing.rmatvec_tangent, name, g)

    def _product(self, times: Callable[[Array], Array], tangent: Callable[..., Array], name: Any, x: Any) -> Any:
        """Return W x, which moves by (dW) x + W dx, where ``times`` is W or its transpose."""
        value = np.broadcast_to(x.value if isinstance(x, Tangent) else x, self.part.shape)
        by_weight = None if name is None else self.moved.get(("mixing", name))
        parts = [] if by_weight is None else [tangent(by_weight, value)]
        if isinstance(x, Tangent) and x.partials:
            parts.append(times(np.broadcast_to(x.directions[0], self.part.shape)))
        kind = type(x) if isinstance(x, Tangent) else Tangent
        return along(times(value), sum(parts[1:], parts[0]) if parts else None, kind)

    def moving(self, cotangent: Array) -> dict[Leaf, Array]:
        """Return how the cotangents of all leaves move, with one of F that does not."""
        leaves, mixed = self.pull(cotangent)
        shape, dtype = self.part.shape, self.part.dtype
        found = {leaf: moved_by(g, shape, dtype) for leaf, g in leaves.items()}
        for name, g, x in mixed:
            mixing, leaf = self.cell.mixings[name], ("mixing", name)
            (g0, dg), (x0, dx) = ((_value(v), moved_by(v, shape, dtype)) for v in (g, x))
            total = mixing.weight_cotangent(dg, x0) + mixing.weight_cotangent(g0, dx)
            if leaf in self.moved:
                total = total + mixing.weight_curvature(self.moved[leaf], g0, x0)
            found[leaf] = found[leaf] + total if leaf in found else total
        return found


def _value(x: Any) -> Any:
    return x.value if isinstance(x, Tangent) else x


def curve_cell(rec: CellRecurrence, previous: Array, cotangent: Array, moved: Mapping[Leaf, Array]) -> Curved:
    """Return how the cotangents of what a cell depends on move; ``moved`` has ("state", None) among its leaves."""
    parts, component = dict(moved), rec.layout.component
    names = rec.cell.cell.state
    if (states := parts.pop(STATE, None)) is not None:
        parts |= {("state", name): component(states, i) for i, name in enumerate(names)}
    found = _MovingCell(rec, previous, parts).moving(cotangent)
    state = namespace(previous).zeros_like(previous)
    for i, name in enumerate(names):
        if (g := found.pop(("state", name), None)) is not None:
            component(state, i)[...] = g
    like = rec.cell.leaves() | {("drive", n): u for n, u in rec.drive.items()}
    return Curved(state, {leaf: g if leaf[0] == "mixing" else sum_to(g, like[leaf].shape) for leaf, g in found.items()})


def curve_function(
    rec: Depends,
    function: Callable[..., Any],
    states: Array,
    cotangent: Array,
    moved: Mapping[Leaf, Array],
    *,
    whole: bool = False,
) -> Curved:
    """Return how the cotangents of what a function depends on move, for one of what it returns that does not.

    Parameters
    ----------
    rec, function, states, cotangent
        As of :func:`recsolve.gradients.function_gradients.pull_function`.
    moved : mapping of array
        By ("state", None), ("input", place) and ("parameter", name), each in the shape of what it moves.
    whole : bool
        Whether steps see each other, so that windows of time cannot be taken apart.

    Raises
    ------
    TypeError
        When the function uses an operation that has no transpose; the message names it.
    """
    zero = namespace(states).zeros_like
    found: dict[Leaf, Array] = {STATE: zero(states)}
    found |= {("input", i): zero(u) for i, u in enumerate(rec.inputs) if not is_discrete(u.dtype)}
    found |= {("parameter", n): zero(p) for n, p in rec.parameters.items() if not is_discrete(p.dtype)}
    length = len(states)
    if cotangent.size:
        rows = max(states.size, cotangent.size) // length
        for cut in [slice(None)] if whole else windows(length, rows):
            try:
                _curve(rec, function, states, cotangent, moved, cut, found)
            except (TypeError, AttributeError) as error:
                raise TypeError(f"{error}: second derivatives go back over what a function computes") from error
    return Curved(found.pop(STATE), found)


def _curve(
    rec: Depends, function: Any, states: Array, cotangent: Array, moved: Any, cut: slice, found: dict[Leaf, Array]
) -> None:
    """Add the part of some steps."""

    def part(key: Leaf, x: Any) -> Any:
        return x if x is None or key[0] == "parameter" else x[cut]

    def leaf(key: Leaf, x: Array, kind: type[Recorded] = Recorded) -> Any:
        inner = StateTangent if kind is RecordedState else Tangent
        return kind(along(part(key, x), part(key, moved.get(key)), inner), moves=True)

    with ties_in_force(rec.ties), state_dtype(rec.dtype), np.errstate(all="ignore"):
        leaves: dict[Leaf, Any] = {STATE: leaf(STATE, states, RecordedState)}
        for i, u in enumerate(rec.inputs):
            key: Leaf = ("input", i)
            leaves[key] = leaf(key, u) if key in found else u[cut]
        for n, p in rec.parameters.items():
            key = ("parameter", n)
            leaves[key] = leaf(key, p) if key in found else p
        inputs = [leaves["input", i] for i in range(len(rec.inputs))]
        out = rec.call(function, leaves[STATE], inputs, {n: leaves["parameter", n] for n in rec.parameters})
        pulled = pull(rec.results(function, out, cotangent[cut]), [leaves[key] for key in found])
    for key, g in zip(found, pulled, strict=True):
        target = found[key] if key[0] == "parameter" else found[key][cut]
        target += moved_by(g, target.shape, target.dtype)

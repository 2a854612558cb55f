"""How a user's function depends on its inputs and parameters, and a readout also on the states.

Cotangents go back over what the function has computed (:mod:`recsolve.gradients.reverse`), windows of time one after
the other, so that what is recorded stays small. Where a function uses an operation that has no transpose there, or the
result is not finite, forward duals take over: one direction for each feature of an input, and one for each number of a
parameter.
"""

from __future__ import annotations

from collections.abc import Callable, Hashable, Iterator, Mapping
from typing import Any, NamedTuple, TypeAlias

import numpy as np

from recsolve.base.arrays import Array, all_finite, is_discrete, namespace
from recsolve.base.names import Names
from recsolve.base.ties import ties_in_force
from recsolve.gradients.reverse import Recorded, RecordedState, pull
from recsolve.gradients.transposes import sum_to
from recsolve.recurrence.cell_recurrence import CellRecurrence
from recsolve.recurrence.function import FunctionRecurrence
from recsolve.recurrence.function_tangent import DIRECTIONS, StateTangent, Tangent
from recsolve.symbolic.constants import state_dtype

Leaf: TypeAlias = tuple[str, Hashable]  # ("state", None), ("input", place), ("parameter", name)
STATE: Leaf = ("state", None)

_RECORDED = 2**18  # numbers of the states, or of what is read out of them, that are recorded together
_DIRECTED = 2**22  # numbers of all directions that are taken together


class OfCell:
    """What the readout of a cell depends on.

    Parameters
    ----------
    rec : CellRecurrence
    """

    is_automatic = True

    def __init__(self, rec: CellRecurrence):
        self.batch, self.dtype, self.ties = rec.batch, rec.dtype, rec.ties
        self.inputs, self.parameters = list(rec.drive.values()), rec.cell.parameters
        self._rec = rec

    def call(self, function: Callable[..., Any], state: Any, inputs: list[Any], parameters: Mapping[str, Any]) -> Any:
        """Return what a readout gives of arrays, or of what stands for them."""
        drive = dict(zip(self._rec.drive, inputs, strict=True))
        components = Names(self._rec._split(state), "component")
        return function(components, Names(drive, "drive"), Names(parameters, "parameter"))

    def results(self, function: Callable[..., Any], out: Any, cotangent: Array) -> list[tuple[Any, Array]]:
        """Return the one result with its cotangent."""
        return [(out, cotangent)]


Depends: TypeAlias = FunctionRecurrence | OfCell


class Cotangents(NamedTuple):
    """The cotangents of what a function depends on.

    Attributes
    ----------
    states : array or None
        (T, *batch, *event), where it was asked for.
    inputs : list of array
    parameters : dict of array
    """

    states: Array | None
    inputs: list[Array]
    parameters: dict[str, Array]


def pull_function(
    rec: Depends, function: Callable[..., Any], states: Array, cotangent: Array, *, state: bool = False
) -> Cotangents:
    """Return the cotangents of states, inputs and parameters for one of what a function of them returns.

    Parameters
    ----------
    rec : FunctionRecurrence or OfCell
    function : callable
        ``rec.f``, or a readout; no step sees another one.
    states : array, shape (T, *batch, *event)
    cotangent : array, shape (T, *batch, ...)
        Of the results.
    state : bool
        Whether those of the states are wanted.

    Raises
    ------
    TypeError
        When automatic differentiation cannot follow the function.
    """
    found: dict[Leaf, Array] = {}
    if state:
        found[STATE] = namespace(states).zeros_like(states)
    found |= {("input", i): namespace(u).zeros_like(u) for i, u in enumerate(rec.inputs) if not is_discrete(u.dtype)}
    moved = {n: p for n, p in rec.parameters.items() if not is_discrete(p.dtype)}
    found |= {("parameter", n): namespace(p).zeros_like(p) for n, p in moved.items()}
    if cotangent.size and found:
        with ties_in_force(rec.ties), state_dtype(rec.dtype), np.errstate(all="ignore"):
            try:
                _by_records(rec, function, states, cotangent, found)
                # Going back, what min or where has not chosen is 0 times its slope, which may be infinite; going
                # forward it is not chosen.
                rest = {leaf: g for leaf, g in found.items() if not all_finite(g)}
            except Exception:  # an operation without a transpose, or what else the user's code meets
                rest = found
            _by_directions(rec, function, states, cotangent, rest)
            found |= rest
    # Integers and bools have no gradient, so it is 0.
    inputs = [found.get(("input", i), namespace(u).zeros(u.shape, rec.dtype)) for i, u in enumerate(rec.inputs)]
    still = {n: namespace(p).zeros(p.shape, rec.dtype) for n, p in rec.parameters.items() if n not in moved}
    parameters = {n: still[n] if n in still else found["parameter", n] for n in rec.parameters}
    return Cotangents(found.get(STATE), inputs, parameters)


def windows(length: int, row: int) -> Iterator[slice]:
    """Return windows of time, of rows with so many numbers."""
    steps = max(_RECORDED // max(row, 1), 1)
    return (slice(start, start + steps) for start in range(0, length, steps))


def _by_records(
    rec: Depends, function: Callable[..., Any], states: Array, cotangent: Array, found: dict[Leaf, Array]
) -> None:
    """Fill in cotangents from one pass back."""
    length = len(states)
    for cut in windows(length, max(states.size, cotangent.size) // length):
        state: Any = RecordedState(states[cut], moves=STATE in found) if _as_dual(rec, found) else states[cut]
        leaves: dict[Leaf, Any] = {STATE: state}
        for i, u in enumerate(rec.inputs):
            leaves["input", i] = u[cut] if is_discrete(u.dtype) else Recorded(u[cut], moves=True)
        for n, p in rec.parameters.items():
            leaves["parameter", n] = p if is_discrete(p.dtype) else Recorded(p, moves=True)
        out = _called(rec, function, leaves)
        pulled = dict(
            zip(found, pull(rec.results(function, out, cotangent[cut]), [leaves[leaf] for leaf in found]), strict=True)
        )
        for leaf, g in pulled.items():
            if leaf[0] == "parameter":
                found[leaf] += g
            else:
                found[leaf][cut] = g


def _as_dual(rec: Depends, moved: Mapping[Leaf, Any]) -> bool:
    """Return whether the state is given as a dual, because ties go by what depends on it.

    Where the Jacobian is not automatic, f may use the state as it likes.
    """
    return rec.is_automatic or STATE in moved


def _called(rec: Depends, function: Callable[..., Any], leaves: Mapping[Leaf, Any]) -> Any:
    inputs = [leaves["input", i] for i in range(len(rec.inputs))]
    return rec.call(function, leaves[STATE], inputs, {n: leaves["parameter", n] for n in rec.parameters})


def _tangents(rec: Depends, states: Array, moved: Mapping[Leaf, Array]) -> dict[Leaf, Any]:
    """Return all that a function depends on, with directions of what moves."""

    def tangent(leaf: Leaf, x: Array, kind: type[Tangent] = Tangent) -> Tangent:
        return kind(x, {DIRECTIONS: moved[leaf]} if leaf in moved else {})

    dual = _as_dual(rec, moved)
    leaves: dict[Leaf, Any] = {STATE: tangent(STATE, states, StateTangent) if dual else states}
    for i, u in enumerate(rec.inputs):
        leaves["input", i] = u if is_discrete(u.dtype) else tangent(("input", i), u)
    for n, p in rec.parameters.items():
        leaves["parameter", n] = p if is_discrete(p.dtype) else tangent(("parameter", n), p)
    return leaves


def push_function(rec: FunctionRecurrence, previous: Array, moved: Mapping[Leaf, Array]) -> Array:
    """Return the tangent of F for one of each of some inputs and parameters.

    Parameters
    ----------
    rec : FunctionRecurrence
    previous : array, shape (T, *batch, *event)
    moved : mapping of array
        By ("input", place) or ("parameter", name), each in the shape of what it moves.

    Returns
    -------
    array, shape (T, *batch, *event)
    """
    leaves = _tangents(rec, previous, {leaf: x[None] for leaf, x in moved.items()})
    inputs = [leaves["input", i] for i in range(len(rec.inputs))]
    parameters = {n: leaves["parameter", n] for n in rec.parameters}
    with ties_in_force(rec.ties):
        out = rec._call(leaves[STATE], slice(None), inputs, parameters)
    xp = namespace(previous)
    if not isinstance(out, Tangent) or not out.partials:
        return xp.zeros(rec.shape, dtype=rec.dtype)  # type: ignore[no-any-return]
    return xp.broadcast_to(out.directions[0], rec.shape)  # type: ignore[no-any-return]


def push_readout(rec: Depends, readout: Callable[..., Any], states: Array, moved: Mapping[Leaf, Array]) -> Any:
    """Return the tangent of what a readout gives, for one of each of some leaves, the states among them."""
    with ties_in_force(rec.ties), state_dtype(rec.dtype), np.errstate(all="ignore"):
        out = _called(rec, readout, _tangents(rec, states, {leaf: x[None] for leaf, x in moved.items()}))
    if not isinstance(out, Tangent) or not out.partials:
        like = out.value if isinstance(out, Tangent) else out
        return namespace(states).zeros(like.shape, like.dtype)
    return out.directions[0]


def _by_directions(
    rec: Depends, function: Callable[..., Any], states: Array, cotangent: Array, found: dict[Leaf, Array]
) -> None:
    """Fill in cotangents from directions: each leaf is moved along every feature, in all steps and sequences together.

    That is exact because a step sees its own inputs and states only.
    """
    batch, xp = rec.batch, namespace(states)

    def along(leaf: Leaf, directions: Array) -> list[tuple[Array, Array]]:
        """Return the derivatives of every result along directions of a leaf, (m, T, *batch, ...), and its cotangent."""
        out = _called(rec, function, _tangents(rec, states, {leaf: directions}))
        moved = [
            (x.directions, g) for x, g in rec.results(function, out, cotangent) if isinstance(x, Tangent) and x.partials
        ]
        return [(xp.broadcast_to(d, (len(directions), *g.shape)), g) for d, g in moved]

    def pulled(leaf: Leaf, directions: Array) -> Array:
        """Return them times the cotangent, summed over what one step of one sequence returns, (m, T, *batch)."""
        total = xp.zeros((len(directions), *cotangent.shape[: 1 + len(batch)]), dtype=rec.dtype)
        for d, g in along(leaf, directions):
            total += (d * g).reshape(*total.shape, -1).sum(axis=-1)
        return total  # type: ignore[no-any-return]

    for leaf in found:
        x = _value(rec, states, leaf)
        if leaf[0] == "parameter":
            lead = 0
        else:
            lead = 1 + len(batch) if leaf == STATE or _is_batched(along, x, leaf, batch) else 1
        features, axes = x.shape[lead:], 1 + len(batch)
        rows, many = [], int(np.prod(features))
        most = max(_DIRECTED // max(states.size, x.size, cotangent.size), 1)
        for start in range(0, many, most):
            units = xp.zeros((min(most, many - start), many), dtype=x.dtype)
            units[xp.arange(len(units)), start + xp.arange(len(units))] = 1
            shaped = units.reshape((len(units), *(1,) * lead, *features))
            terms = pulled(leaf, xp.broadcast_to(shaped, (len(units), *x.shape)))
            rows.append(terms.sum(axis=tuple(range(1 + lead, 1 + axes))) if lead < axes else terms)
        by_feature = xp.moveaxis(xp.concatenate(rows), 0, -1) if rows else xp.zeros((*x.shape[:lead], 0), x.dtype)
        found[leaf] = sum_to(by_feature.reshape((*by_feature.shape[:-1], *features)), x.shape)


def _value(rec: Depends, states: Array, leaf: Leaf) -> Array:
    _, name = leaf
    if leaf == STATE:
        return states
    return rec.inputs[name] if isinstance(name, int) else rec.parameters[str(name)]


def _is_batched(
    along: Callable[[Leaf, Array], list[tuple[Array, Array]]], u: Array, leaf: Leaf, batch: tuple[int, ...]
) -> bool:
    """Return whether the axes after time of an input are the batch, each sequence seeing its own entry.

    A shape can deceive (features as many as sequences), so the first sequence's entry is moved: no other may follow.
    """
    if not batch or u.shape[1 : 1 + len(batch)] != batch:
        return False
    if int(np.prod(batch)) < 2:
        return int(np.prod(batch)) == 0
    xp = namespace(u)
    first: Any = (slice(None), *(0,) * len(batch))
    direction = xp.zeros((1, *u.shape), dtype=u.dtype)
    direction[0][first] = xp.linspace(1.0, 2.0, u[first].size, dtype=u.dtype).reshape(u[first].shape)
    for derivative, _ in along(leaf, direction):
        followed = derivative[0].copy()
        followed[first] = 0
        if bool((followed != 0).any()):
            return False
    return True

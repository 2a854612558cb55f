"""Tangents of a solution: one forward scan with the true Jacobian."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np

from recsolve.base.arrays import Array, is_discrete, namespace
from recsolve.base.links import Leaf
from recsolve.gradients.function_gradients import push_function
from recsolve.gradients.of_history import tangent_of
from recsolve.gradients.sensitivity import CellSensitivity, projection_of
from recsolve.gradients.solved import check_jacobian, recurrence_of
from recsolve.kernels.affine_scan import affine_scan
from recsolve.recurrence.base import Recurrence, check_known
from recsolve.recurrence.cell_recurrence import CellRecurrence
from recsolve.recurrence.function import FunctionRecurrence
from recsolve.recurrence.history import HistoryRecurrence
from recsolve.recurrence.projection import Projection
from recsolve.solution import Solution


def tangent(
    solution: Solution,
    *,
    states: Any = None,
    initial: Any = None,
    drive: Mapping[str, Any] | None = None,
    inputs: Any = None,
    parameters: Mapping[str, Any] | None = None,
    mixings: Mapping[str, Any] | None = None,
    unconverged: bool = False,
) -> Any:
    """Return the derivative of the states along tangents of what they depend on: one forward scan.

    Parameters
    ----------
    solution : Solution
    states : array, shape (T, *batch, *event), or mapping of arrays, optional
        Tangent of what is added to f at each step, as a residual is; as all others of the kind and dtype of the states.
    initial : array, shape (*batch, *event), or mapping of arrays, optional
        Tangent of h[0]; as ``states`` by component too, where what is missing does not move.
    drive, mixings : mapping of arrays, optional
        Of a cell: tangents by name, each in the shape of what it moves.
    parameters : mapping of arrays, optional
        Of a cell or a function: tangents by name, each in the shape of the parameter.
    inputs : array, or tuple or dict of arrays, optional
        Of a cell on an input: tangent of x, in its shape. Of a function: one for every input, in their container.
    unconverged : bool
        As in :func:`adjoint`.

    Returns
    -------
    array, shape (T, *batch, *event)

    Raises
    ------
    ValueError, TypeError
        As :func:`adjoint`; and for unknown names.

    Examples
    --------
    >>> import numpy as np, recsolve as rs
    >>> cell = rs.cells.GRU.random(input_size=2, hidden_size=4, rng=0)
    >>> sol = rs.solve(cell.recurrence(np.ones((30, 2))))
    >>> rs.tangent(sol, initial=np.ones(4)).shape
    (30, 4)
    """
    rec = recurrence_of(solution, unconverged)
    trajectory = solution._iterate.states
    given = {"drive": drive, "parameters": parameters, "mixings": mixings, "inputs": inputs}
    if isinstance(rec, HistoryRecurrence):
        if states is None or initial is not None or any(x is not None for x in given.values()):
            raise ValueError("the recurrence is a history; wanted states=, the tangent of F, alone")
        return rec.wrap(tangent_of(rec, trajectory, rec.native(states, "states", trajectory.shape)))
    moved: dict[Leaf, Array] = {}
    if initial is not None:
        moved["initial", None] = rec.by_name(initial, "initial", rec.initial.shape)
    if any(x is not None for x in given.values()):
        moved |= _moved(rec, given)
    added = None
    if states is not None:
        added = rec.in_order(rec.by_name(states, "states", rec.as_given(trajectory).shape), "states")
    return rec.wrap(rec.as_given(tangent_along(rec, trajectory, moved, added)))


def tangent_along(rec: Recurrence, trajectory: Array, moved: Mapping[Leaf, Array], added: Array | None = None) -> Array:
    """Return the tangent of the states for native tangents of leaves, and of what is added to f.

    Parameters
    ----------
    rec : Recurrence
    trajectory : array, shape (T, *batch, *event)
    moved : mapping of array
        By some of ``rec.leaves()``, in their shapes. Tangents of drives may stand beside one of the input.
    added : array, shape (T, *batch, *event), optional

    Returns
    -------
    array, shape (T, *batch, *event)
    """
    xp, b = namespace(trajectory), namespace(trajectory).zeros_like(trajectory)
    others = {leaf: x for leaf, x in moved.items() if leaf[0] not in ("initial", "readout")}
    with np.errstate(all="ignore"):
        if isinstance(rec, HistoryRecurrence):  # F does not look at initial
            b = push_function(rec, trajectory, others) if others else b
            return tangent_of(rec, trajectory, b if added is None else b + added)
        previous = rec.previous(trajectory)
        _, J = rec.bind().differentiate(previous)
        check_jacobian(rec, previous, J)
        if added is not None:
            b += added
        if ("initial", None) in moved:
            seen = rec.over_event(rec.from_initial)
            b += J.where(seen, xp.broadcast_to(moved["initial", None], previous.shape))
        if others:
            b += _push(rec, previous, others)
        return affine_scan(J, b, reset=rec.over_event(rec.starts))


def _push(rec: Recurrence, previous: Array, moved: Mapping[Leaf, Array]) -> Array:
    """Return the tangent of F for tangents of what it depends on besides the state."""
    if isinstance(rec, FunctionRecurrence):
        check_known(rec, FunctionRecurrence)
        return push_function(rec, previous, moved)
    assert isinstance(rec, CellRecurrence)
    leaves, weights = split_leaves(rec, moved)
    return CellSensitivity(rec, previous).push(leaves, weights)


def split_leaves(rec: CellRecurrence, moved: Mapping[Leaf, Array]) -> tuple[dict[Leaf, Array], dict[str, Array]]:
    """Return the tangents of drives and parameters, those of the projection among them, and those of mixing weights."""
    leaves = {leaf: x for leaf, x in moved.items() if leaf[0] in ("drive", "parameter")}
    weights = {str(leaf[1]): x for leaf, x in moved.items() if leaf[0] == "mixing"}
    projected = [x for leaf, x in moved.items() if leaf[0] in ("input", "weight", "bias")]
    if projected:
        projection, x = projection_of(rec), rec.x
        assert projection is not None
        assert x is not None
        for n, u in push_projection(projection, x, moved).items():
            leaves["drive", n] = leaves["drive", n] + u if ("drive", n) in leaves else u
    return leaves, weights


def push_projection(projection: Projection, x: Array, moved: Mapping[Leaf, Array]) -> dict[str, Array]:
    """Return the tangents of the drives for those of the input, ("input", 0), and of weights and biases."""
    parts = [projection.push(moved["input", 0])] if ("input", 0) in moved else []
    if any(leaf[0] in ("weight", "bias") for leaf in moved):
        parts.append(projection.push_weights(moved, x))
    return {n: sum((part[n] for part in parts[1:]), start=parts[0][n]) for n in projection.weights}


def _moved(rec: Recurrence, given: Mapping[str, Any]) -> dict[Leaf, Array]:
    """Return the user's tangents as native ones, by leaf."""
    if isinstance(rec, FunctionRecurrence):
        return _moved_of_function(rec, given)
    if not isinstance(rec, CellRecurrence):
        raise ValueError(f"tangents of drive, inputs, parameters and mixings are not known of a {type(rec).__name__}")
    cell = rec.cell
    moved: dict[Leaf, Array] = {}
    for kind, name, like in (("drive", "drive", rec.drive), ("parameter", "parameters", cell.parameters)):
        for n, x in (given[name] or {}).items():
            if n not in like:
                raise ValueError(f"{name} has {n!r}; wanted some of {tuple(like)}")
            moved[kind, n] = rec.native(x, f"{name}[{n!r}]", like[n].shape)
    if given["inputs"] is not None:
        if projection_of(rec) is None or rec.x is None:
            raise ValueError("inputs is given, but the recurrence was given drives, not an input x")
        moved["input", 0] = rec.native(given["inputs"], "inputs", rec.x.shape)
    for n, x in (given["mixings"] or {}).items():
        if n not in cell.mixings:
            raise ValueError(f"mixings has {n!r}; wanted some of {tuple(cell.mixings)}")
        moved["mixing", n] = rec.native(x, f"mixings[{n!r}]", cell.mixings[n].weight.shape)
    return moved


def _moved_of_function(rec: FunctionRecurrence, given: Mapping[str, Any]) -> dict[Leaf, Array]:
    """Return the tangents of the inputs and parameters of a function."""
    if wrong := [name for name in ("drive", "mixings") if given[name] is not None]:
        raise ValueError(f"{' and '.join(wrong)} belong to cells; a function takes initial=, inputs= and parameters=")
    moved: dict[Leaf, Array] = {}
    for n, x in (given["parameters"] or {}).items():
        if n not in rec.parameters:
            raise ValueError(f"parameters has {n!r}; wanted some of {tuple(rec.parameters)}")
        if is_discrete(rec.parameters[n].dtype):
            raise ValueError(
                f"parameters[{n!r}] is given, but that parameter is {rec.parameters[n].dtype}; leave it out"
            )
        moved["parameter", n] = rec.native(x, f"parameters[{n!r}]", rec.parameters[n].shape)
    for place, (name, x) in enumerate(rec.leaves_of(given["inputs"]).items()):
        if is_discrete(rec.inputs[place].dtype):
            if x is not None:
                raise ValueError(f"{name} is given, but that input is {rec.inputs[place].dtype}; wanted None")
            continue
        shape = rec.as_given(rec.inputs[place]).shape
        moved["input", place] = rec.in_order(rec.native(x, name, shape), name)
    return moved

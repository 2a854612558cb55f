"""Tangents of a solution: one forward scan with the true Jacobian."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np

from recsolve.base.arrays import Array, is_discrete, namespace
from recsolve.gradients.function_gradients import push_function
from recsolve.gradients.of_history import tangent_of
from recsolve.gradients.sensitivity import CellSensitivity, projection_of
from recsolve.gradients.solved import check_jacobian, recurrence_of
from recsolve.kernels.affine_scan import affine_scan
from recsolve.recurrence.base import Recurrence, check_known
from recsolve.recurrence.cell_recurrence import CellRecurrence
from recsolve.recurrence.function import FunctionRecurrence
from recsolve.recurrence.history import HistoryRecurrence
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
    xp = namespace(trajectory)
    if isinstance(rec, HistoryRecurrence):
        if states is None or any(x is not None for x in (initial, drive, inputs, parameters, mixings)):
            raise ValueError("the recurrence is a history; wanted states=, the tangent of F, alone")
        return rec.wrap(tangent_of(rec, trajectory, rec.native(states, "states", trajectory.shape)))
    with np.errstate(all="ignore"):
        previous = rec.previous(trajectory)
        _, J = rec.bind().differentiate(previous)
        check_jacobian(rec, previous, J)
        starts = rec.over_event(rec.starts)
        b = xp.zeros_like(trajectory)
        if states is not None:
            b += rec.in_order(rec.by_name(states, "states", rec.as_given(b).shape), "states")
        if initial is not None:
            moved = rec.by_name(initial, "initial", rec.initial.shape)
            seen = rec.over_event(rec.from_initial)
            b += J.where(seen, xp.broadcast_to(moved, previous.shape))
        given = {"drive": drive, "parameters": parameters, "mixings": mixings, "inputs": inputs}
        if any(x is not None for x in given.values()):
            b += _push(rec, previous, given)
        return rec.wrap(rec.as_given(affine_scan(J, b, reset=starts)))


def _push(rec: Recurrence, previous: Array, given: Mapping[str, Any]) -> Array:
    """Return the tangent of F for tangents of drives, input, parameters and mixing weights."""
    if isinstance(rec, FunctionRecurrence):
        return _push_function(rec, previous, given)
    if not isinstance(rec, CellRecurrence):
        raise ValueError(f"tangents of drive, inputs, parameters and mixings are not known of a {type(rec).__name__}")
    cell = rec.cell
    leaves: dict[Any, Array] = {}
    for kind, name, like in (("drive", "drive", rec.drive), ("parameter", "parameters", cell.parameters)):
        for n, x in (given[name] or {}).items():
            if n not in like:
                raise ValueError(f"{name} has {n!r}; wanted some of {tuple(like)}")
            leaves[kind, n] = rec.native(x, f"{name}[{n!r}]", like[n].shape)
    if given["inputs"] is not None:
        projection = projection_of(rec)
        if projection is None or rec.x is None:
            raise ValueError("inputs is given, but the recurrence was given drives, not an input x")
        for n, u in projection.push(rec.native(given["inputs"], "inputs", rec.x.shape)).items():
            leaves["drive", n] = leaves["drive", n] + u if ("drive", n) in leaves else u
    weights = {}
    for n, x in (given["mixings"] or {}).items():
        if n not in cell.mixings:
            raise ValueError(f"mixings has {n!r}; wanted some of {tuple(cell.mixings)}")
        weights[n] = rec.native(x, f"mixings[{n!r}]", cell.mixings[n].weight.shape)
    return CellSensitivity(rec, previous).push(leaves, weights)


def _push_function(rec: FunctionRecurrence, previous: Array, given: Mapping[str, Any]) -> Array:
    """Return the tangent of F for tangents of the inputs and parameters of a function."""
    if wrong := [name for name in ("drive", "mixings") if given[name] is not None]:
        raise ValueError(f"{' and '.join(wrong)} belong to cells; a function takes initial=, inputs= and parameters=")
    check_known(rec, FunctionRecurrence)
    moved: dict[Any, Array] = {}
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
    return push_function(rec, previous, moved)

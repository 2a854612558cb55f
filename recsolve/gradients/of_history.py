"""Derivatives of a history y = F(y, u): (I - J) d = b forwards, (I - J)^T g = c backwards, with J = dF/dy.

J is strictly lower triangular, so that d <- b + J d settles row after row, and ends within T products, as Jacobi's
iteration on y does. Products with J come from automatic differentiation; those with its transpose from a pass back over
what F has computed, or from F itself.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

from recsolve.base.arrays import Array, is_discrete, namespace, to_host, to_native
from recsolve.base.ties import ties_in_force
from recsolve.gradients import reverse
from recsolve.gradients.reverse import Recorded, RecordedState
from recsolve.recurrence.history import HistoryRecurrence
from recsolve.symbolic.constants import state_dtype

_LOOSE = 1e-3  # relative, of what a pullback may differ from a difference quotient


def tangent_of(recurrence: HistoryRecurrence, states: Array, b: Array) -> Array:
    """Return d = b + J d, how the rows follow when F is moved by b."""
    return _settled(lambda d: recurrence.push_state(states, d[None])[0], b)


def adjoint_of(recurrence: HistoryRecurrence, states: Array, c: Array) -> Array:
    """Return g = c + J^T g, the gradient with respect to what is added to F.

    Raises
    ------
    TypeError
        When F uses an operation that has no transpose, and brings no ``pull``.
    ValueError
        When ``pull`` is not the transpose of the derivative of F at the states.
    """
    if 0 in recurrence.shape:
        return c.copy()
    _check_pull(recurrence, states)
    return _settled(lambda g: pull(recurrence, states, g)[0], c)


def pull(recurrence: HistoryRecurrence, states: Array, g: Array) -> tuple[Array, list[Array]]:
    """Return J^T g, and (dF/du)^T g for every input: as ``F.pull(y, u, g)`` gives them, where F has it."""
    back = getattr(recurrence.F, "pull", None)
    if not callable(back):
        return _pass_back(recurrence, states, g)
    with np.errstate(all="ignore"):
        to_states, to_inputs = back(states, recurrence.drive_of_all, g)
    found = {"y": to_states, **dict(recurrence.named_inputs(to_inputs))}
    wanted = {"y": states, **dict(recurrence.named_inputs(recurrence.drive_of_all))}
    if list(found) != list(wanted):
        raise ValueError(f"pull returned cotangents of {list(found)}; wanted {list(wanted)}")
    native = {name: to_native(x, f"the cotangent of {name}") for name, x in found.items()}
    for name, x in native.items():
        if x.shape != wanted[name].shape or x.dtype != recurrence.dtype:
            seen, shape = f"shape {x.shape}, {x.dtype}", f"shape {wanted[name].shape}, {recurrence.dtype}"
            raise ValueError(f"pull returned a cotangent of {name} of {seen}; wanted {shape}")
    first, *others = native.values()
    return first, others


def _pass_back(recurrence: HistoryRecurrence, states: Array, g: Array) -> tuple[Array, list[Array]]:
    """Return them from one pass back over what F computes."""
    y, leaves = RecordedState(states, moves=True), recurrence.inputs
    inputs = [u if is_discrete(u.dtype) else Recorded(u, moves=True) for u in leaves]
    with ties_in_force(recurrence.ties), state_dtype(recurrence.dtype), np.errstate(all="ignore"):
        try:
            out = recurrence.call(recurrence.f, y, inputs, {})
            first, *others = reverse.pull([(out, g)], [y, *(u for u in inputs if isinstance(u, Recorded))])
        except Exception as error:  # F runs on arrays, so it is what has no transpose
            raise TypeError(
                f"{recurrence.description} cannot be differentiated backwards ({error}), and has no pull(y, u, g), "
                "which gives the cotangents of y and u of one of F; forward a gradient would take a product a number"
            ) from error
    found = iter(others)
    # Integers and bools have no gradient, so it is 0.
    zero = [namespace(u).zeros(u.shape, recurrence.dtype) for u in leaves]
    return first, [next(found) if isinstance(u, Recorded) else z for u, z in zip(inputs, zero, strict=True)]


def _settled(product: Callable[[Array], Array], start: Array) -> Array:
    """Return x = start + N x of a nilpotent N: at most T products, fewer where they die out."""
    xp, x = namespace(start), start.copy()
    least = 4 * float(np.finfo(start.dtype).eps)
    for _ in range(len(start)):
        new = start + product(x)
        small = abs(new - x) <= least * xp.maximum(abs(new), abs(x))
        x = new
        if small.all():
            break
    return x


def _check_pull(recurrence: HistoryRecurrence, states: Array) -> None:
    """Raise ValueError unless <g, J d> = <J^T g, d> along random d and g."""
    xp, rng = namespace(states), np.random.default_rng(0)
    d, g = (xp.asarray(rng.standard_normal(states.shape).astype(states.dtype)) for _ in range(2))
    back = pull(recurrence, states, g)[0]
    allowed = float(np.finfo(states.dtype).eps) ** 0.5
    try:
        forward = recurrence.push_state(states, d[None])[0]
    except TypeError:  # automatic differentiation cannot follow F
        h, allowed = float(np.finfo(states.dtype).eps) ** (1 / 3) * recurrence.state_scale, _LOOSE
        h *= max(float(to_host(abs(states).max())) / recurrence.state_scale, 1.0)
        step = states.dtype.type(h)
        forward = (recurrence.whole(states + step * d) - recurrence.whole(states - step * d)) / (2 * step)
    one, other = float((g * forward).sum()), float((back * d).sum())
    size = float(abs(g * forward).sum() + abs(back * d).sum())
    if not abs(one - other) <= allowed * size:
        raise ValueError(
            f"{recurrence.description}.pull is not the transpose of the derivative of F: <g, J d> = {one:.6g} and "
            f"<pull(g), d> = {other:.6g} at the solution, along random directions"
        )

"""Derivatives of a history y = F(y, u, p): (I - J) d = b forwards, (I - J)^T g = c backwards, with J = dF/dy.

J is strictly lower triangular, so that d <- b + J d settles row after row, and ends within T products, as Jacobi's
iteration on y does. Products with J come from automatic differentiation; those with its transpose from a pass back over
what F has computed, or from F itself.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import numpy as np

from recsolve.base.arrays import Array, is_discrete, kind_of, namespace, to_host, to_native
from recsolve.gradients.function_gradients import STATE, Cotangents, Leaf, pull_function, push_function
from recsolve.recurrence.history import HistoryRecurrence

_LOOSE = 1e-3  # relative, of what a pullback may differ from a difference quotient


def tangent_of(recurrence: HistoryRecurrence, states: Array, b: Array) -> Array:
    """Return d = b + J d, how the rows follow when F is moved by b."""
    return _settled(lambda d: recurrence.push_state(states, d[None])[0], b)


def adjoint_of(recurrence: HistoryRecurrence, states: Array, c: Array) -> Array:
    """Return g = c + J^T g, the gradient with respect to what is added to F.

    Raises
    ------
    TypeError
        When F uses an operation that has no transpose, and brings no ``pull``, or one that returns other things.
    ValueError
        When ``pull`` is not the transpose of the derivative of F at the states, or returns other shapes.
    """
    if 0 in recurrence.shape:
        return c.copy()
    back = _pullback(recurrence)

    def everything(g: Array) -> dict[Leaf, Array]:
        if back is not None:
            return back(states, g)
        return {STATE: pass_back(recurrence, recurrence.f, states, g, rest=False).states}  # type: ignore[dict-item]

    _check(recurrence, states, everything)
    return _settled(lambda g: everything(g)[STATE], c)


def pull(recurrence: HistoryRecurrence, states: Array, g: Array) -> tuple[list[Array], dict[str, Array] | None]:
    """Return (dF/du)^T g for every input and (dF/dp)^T g for every parameter; None for these if ``F.pull`` has none."""
    back = _pullback(recurrence)
    if back is None or not g.size:
        found = pass_back(recurrence, recurrence.f, states, g, state=False)
        return found.inputs, found.parameters
    given, names = back(states, g), recurrence.parameters
    known = all(("parameter", n) in given for n in names)
    parameters = {n: given["parameter", n] for n in names} if known else None
    return [given["input", i] for i in range(len(recurrence.inputs))], parameters


def pass_back(
    recurrence: HistoryRecurrence,
    function: Callable[..., Any],
    states: Array,
    g: Array,
    *,
    state: bool = True,
    rest: bool = True,
) -> Cotangents:
    """Return cotangents from one pass back over what F, or a readout, computes of all rows.

    Raises
    ------
    TypeError
        When it uses an operation that has no transpose.
    """
    try:
        return pull_function(recurrence, function, states, g, state=state, rest=rest)
    except Exception as error:  # it runs on arrays, so it is what has no transpose
        name, besides = "readout", ""
        if function is recurrence.f:
            name = recurrence.description
            besides = ", and has no pull(y, u, g), which gives the cotangents of y and u of one of F"
        raise TypeError(
            f"{name} cannot be differentiated backwards ({error}){besides}; forward a gradient would take a product a "
            "number"
        ) from error


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


# What the user's F.pull gives -----------------------------------------------------------------------------------------


def _pullback(rec: HistoryRecurrence) -> Callable[[Array, Array], dict[Leaf, Array]] | None:
    """Return ``F.pull`` between native arrays; None where F has none, and of a window, whose past it does not know."""
    own = getattr(rec.F, "pull", None)
    if not callable(own) or rec.offset:
        return None

    def back(states: Array, g: Array) -> dict[Leaf, Array]:
        with np.errstate(all="ignore"):
            given = own(rec.seen(states), rec.drive_of_all, rec.seen(g), *rec.weights(rec.parameters))
        if not isinstance(given, (tuple, list)) or not 2 <= len(given) <= 2 + rec.takes_parameters:
            seen = len(given) if isinstance(given, (tuple, list)) else type(given).__name__
            besides = ", and of p if it has them" if rec.takes_parameters else ""
            raise TypeError(f"pull returned {seen}; wanted a tuple of the cotangents of y and of u{besides}")
        to_states, to_inputs, *others = given
        found: dict[Leaf, Array] = {STATE: _of_states(rec, to_states)}
        leaves = rec.leaves_of(to_inputs, "what pull returned for the inputs")
        if len(leaves) != len(rec.inputs):
            raise ValueError("pull returned None for the inputs; wanted their cotangents, in their container")
        for i, (name, x) in enumerate(leaves.items()):
            found["input", i] = _fitting(x, name, rec.inputs[i], rec.dtype)
        for parameters in others:
            if not isinstance(parameters, Mapping) or parameters.keys() != rec.parameters.keys():
                names = tuple(parameters) if isinstance(parameters, Mapping) else type(parameters).__name__
                raise ValueError(
                    f"pull returned {names} for p; wanted a dict of the cotangents of {(*rec.parameters,)}"
                )
            for n, p in rec.parameters.items():
                found["parameter", n] = _fitting(parameters[n], f"parameters[{n!r}]", p, rec.dtype)
        return found

    return back


def _of_states(rec: HistoryRecurrence, given: Any) -> Array:
    """Return the cotangent of all rows that ``pull`` returned, as a flat one."""
    if rec.state is None:
        return _fitting(given, "y", rec.initial, rec.dtype, rec.shape)
    lead, parts = rec.shape[:-1], zip(rec.state.shapes.items(), rec.state.ordered(given, "pull"), strict=True)
    fitting = {n: _fitting(x, f"component {n!r}", rec.initial, rec.dtype, (*lead, *shape)) for (n, shape), x in parts}
    return rec.state.pack(fitting, lead, rec.dtype)  # type: ignore[no-any-return]


def _fitting(x: Any, name: str, of: Array, dtype: Any, shape: tuple[int, ...] | None = None) -> Array:
    """Return a cotangent that fits what it is of; that of integers and bools may be None."""
    if x is None and is_discrete(of.dtype):
        return namespace(of).zeros(of.shape, dtype)  # type: ignore[no-any-return]
    native, wanted = to_native(x, f"the cotangent of {name}"), tuple(of.shape) if shape is None else shape
    if namespace(native) is not namespace(of):
        raise TypeError(f"pull returned a cotangent of {name} as {kind_of(native)}; wanted {kind_of(of)}")
    if native.shape != wanted:
        raise ValueError(f"pull returned a cotangent of {name} of shape {tuple(native.shape)}; wanted {wanted}")
    if native.dtype != dtype:
        raise TypeError(f"pull returned a cotangent of {name} of dtype {native.dtype}; wanted {dtype}")
    return native


# Is it the transpose? -------------------------------------------------------------------------------------------------


def _check(rec: HistoryRecurrence, states: Array, back: Callable[[Array], dict[Leaf, Array]]) -> None:
    """Raise ValueError unless <g, F' d> = <F'^T g, d> along random d, of y, of the inputs and of the parameters."""
    xp, rng = namespace(states), np.random.default_rng(0)

    def drawn(x: Array, back: Array) -> Array:
        """Return a random direction along which no term of <back, d> cancels another."""
        noise = xp.asarray(rng.standard_normal(x.shape).astype(x.dtype))
        finite = xp.where(xp.isfinite(x), abs(x), x.dtype.type(0))  # a mask may hold -inf, which stays as it is
        size = float(to_host(finite).max(initial=0)) or rec.state_scale
        along = size * abs(noise) * xp.where(back == 0, xp.sign(noise), xp.sign(back))
        return xp.where(xp.isfinite(x), along, x.dtype.type(0))  # type: ignore[no-any-return]

    g = xp.asarray(rng.standard_normal(states.shape).astype(states.dtype))
    pulled, places = back(g), {STATE: states}
    places |= {("input", i): u for i, u in enumerate(rec.inputs) if not is_discrete(u.dtype)}
    places |= {("parameter", n): p for n, p in rec.parameters.items() if not is_discrete(p.dtype)}
    for kind, name in (("state", "y"), ("input", "u"), ("parameter", "p")):
        d = {leaf: drawn(x, pulled[leaf]) for leaf, x in places.items() if leaf[0] == kind and leaf in pulled}
        if not d:
            continue
        forward, allowed = _forward(rec, states, d)
        terms = [pulled[leaf] * x for leaf, x in d.items()]
        one, other = float((g * forward).sum()), float(sum(x.sum() for x in terms))
        size = float(abs(g * forward).sum() + sum(abs(x).sum() for x in terms))
        if not abs(one - other) <= allowed * size and not _between(rec, states, d, g, other, _LOOSE * size):
            raise ValueError(
                f"{rec.description}.pull is not the transpose of the derivative of F with respect to {name}: "
                f"<g, F' d> = {one:.6g} and <pull(g), d> = {other:.6g} at the solution, along random directions"
            )


def _forward(rec: HistoryRecurrence, states: Array, d: Mapping[Leaf, Array]) -> tuple[Array, float]:
    """Return the derivative of F along directions of what it depends on, and how exact it is."""
    try:
        exact = float(np.finfo(states.dtype).eps) ** 0.5
        return rec.push_state(states, d[STATE][None])[0] if STATE in d else push_function(rec, states, d), exact
    except Exception:  # F is the user's own code; automatic differentiation cannot follow it
        behind, _, ahead, step = _beside(rec, states, d)
        return (ahead - behind) / (2 * step), _LOOSE


def _between(
    rec: HistoryRecurrence, states: Array, d: Mapping[Leaf, Array], g: Array, found: float, slack: float
) -> bool:
    """Return whether F has kinks there, and <g, F' d> as found is between those of its two sides."""
    xp, (behind, here, ahead, step) = namespace(states), _beside(rec, states, d)
    one, other = g * (here - behind) / step, g * (ahead - here) / step
    lower, upper = float(xp.minimum(one, other).sum()), float(xp.maximum(one, other).sum())
    return upper - lower > slack and lower - slack <= found <= upper + slack


def _beside(rec: HistoryRecurrence, states: Array, d: Mapping[Leaf, Array]) -> tuple[Array, Array, Array, Any]:
    """Return F a step behind, here, and a step ahead along directions, and the step."""
    step = states.dtype.type(float(np.finfo(states.dtype).eps) ** (1 / 3))

    def moved(by: Any) -> Array:
        def at(leaf: Leaf, x: Array) -> Array:
            return x + by * d[leaf] if leaf in d else x

        inputs = [at(("input", i), u) for i, u in enumerate(rec.inputs)]
        parameters = {n: at(("parameter", n), p) for n, p in rec.parameters.items()}
        return rec._call(at(STATE, states), slice(None), inputs, parameters)  # type: ignore[no-any-return]

    with np.errstate(all="ignore"):
        return moved(-step), moved(0 * step), moved(step), step

"""Derivatives of elementwise maps, found by running the maps themselves on duals."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any

from recsolve.base.arrays import Array, namespace
from recsolve.base.layout import Layout
from recsolve.jacobians import Diagonal
from recsolve.symbolic.dual import ONE, Dual, OfState

_STATE = "state"


def linearise(
    act: Callable[[Any, Any], Any], elements: tuple[Array, ...], before: Array, title: str
) -> tuple[Diagonal, Callable[[Array], tuple[Array, ...]]]:
    """Return the slopes of ``act`` with respect to states, and the pullback to elements, as ``Monoid.linearise``."""
    found = _partials(lambda e: act(e, OfState(before, {_STATE: ONE})), elements, title)
    slopes = _full(found.get(_STATE, 0.0), before)
    J = Diagonal(slopes, Layout(units=before.shape[-1] if before.ndim > 1 else None))
    return J, partial(_pulled, found, len(elements))


def forget(
    constant: Callable[[Any, Any], Any], elements: tuple[Array, ...], cotangent: Array, title: str
) -> tuple[Array, ...]:
    """Return the cotangents of elements for that of ``constant``, as ``Monoid.forget``."""
    return _pulled(_partials(lambda e: constant(e, None), elements, title), len(elements), cotangent)


def _partials(f: Callable[[Any], Any], elements: tuple[Array, ...], title: str) -> dict[Any, Any]:
    """Return the partials of f(elements) by the place of an element, or ``_STATE``."""
    if elements[0].dtype.kind == "c":  # the rules are those of real functions: |z| has no complex derivative
        raise TypeError(f"the {title} monoid has no derivative of complex numbers; define its linearise and forget")
    try:
        y = f(tuple(Dual(e, {place: ONE}) for place, e in enumerate(elements)))
    except (TypeError, AttributeError) as error:
        raise TypeError(
            f"the {title} monoid has no derivative: its maps are not elementwise; define its linearise ({error})"
        ) from error
    return y.partials if isinstance(y, Dual) else {}


def _pulled(partials: dict[Any, Any], number: int, g: Array) -> tuple[Array, ...]:
    return tuple(g * partials[place] if place in partials else 0 * g for place in range(number))


def _full(partial: Any, like: Array) -> Array:
    """Return a partial, which may be a number, in the shape and dtype of ``like``."""
    xp = namespace(like)
    return xp.broadcast_to(xp.asarray(partial, like.dtype), like.shape)  # type: ignore[no-any-return]

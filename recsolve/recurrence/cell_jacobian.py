"""The Jacobian of a cell in the structure that the partials of its outputs show."""

from __future__ import annotations

from collections.abc import Sequence

from recsolve.base.arrays import Array, namespace
from recsolve.base.layout import Layout
from recsolve.jacobians import Block, Diagonal, Jacobian, Zero
from recsolve.jacobians.factored import Call, Factored

Partials = dict[int, Array]


def structured(
    values: Array, calls: list[Call], outputs: list[Partials], layout: Layout, leading: tuple[int, ...]
) -> Jacobian:
    """Return the Jacobian of F from the partials of its components, and of the inputs of the mixing calls.

    Parameters
    ----------
    values : array, shape (T, *batch, *event)
        F.
    calls : list of Call
    outputs : list of mapping
        Leaf to partial (T, *batch, *lanes, n), for each component.
    layout : Layout
    leading : tuple of int
        The shape (T, *batch).
    """
    if not any(outputs):
        return Zero(values, layout)
    if not calls:
        return _per_unit(outputs, layout.component(values, 0), layout, len(leading))
    return Factored(calls, outputs, layout, leading)


def _per_unit(outputs: Sequence[Partials], part: Array, layout: Layout, axis: int) -> Jacobian:
    """Return the Jacobian of a cell whose mixings are all diagonal: k x k per unit."""
    xp, k = namespace(part), layout.components
    zero = xp.broadcast_to(xp.zeros((), dtype=part.dtype), part.shape)
    if k == 1:
        return Diagonal(outputs[0].get(0, zero), layout)
    rows = [xp.stack([partials.get(j, zero) for j in range(k)], axis=axis) for partials in outputs]
    return Block(xp.stack(rows, axis=axis), layout)

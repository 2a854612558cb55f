"""Mixings on numbers that move along one direction, and whose weights may move too, as second derivatives need them."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np

from recsolve.base.arrays import Array
from recsolve.mixings import Mixing
from recsolve.recurrence.function_tangent import Tangent


def along(x: Array, direction: Array | None, kind: type[Tangent] = Tangent) -> Tangent:
    """Return a value that moves along one direction, or along none."""
    return kind(x, {}) if direction is None else kind.seeded(x, direction[None])


def parts_of(x: Any) -> tuple[Any, Array | None]:
    """Return a value, and the one direction that it moves along, if it moves."""
    if not isinstance(x, Tangent):
        return x, None
    return x.value, x.directions[0] if x.partials else None


class MovingMixing:
    """A mixing whose weight moves along a direction, or stays where that is None.

    Parameters
    ----------
    mixing : Mixing
    direction : array or None
        In the shape of the weight.
    """

    def __init__(self, mixing: Mixing, direction: Array | None):
        self.mixing, self.direction = mixing, direction

    def matvec(self, x: Any) -> Any:
        """Return W x."""
        return self._product(self.mixing.matvec, self.mixing.weight_tangent, x)

    def rmatvec(self, g: Any) -> Any:
        """Return W^T g."""
        return self._product(self.mixing.rmatvec, self.mixing.rmatvec_tangent, g)

    def _product(self, times: Callable[[Array], Array], tangent: Callable[..., Array], x: Any) -> Any:
        """Return W x, which moves by (dW) x + W dx, where ``times`` is W or its transpose."""
        value, moved = parts_of(x)
        if moved is None and self.direction is None and not isinstance(x, Tangent):
            return times(value)
        parts = [] if self.direction is None else [tangent(self.direction, value)]
        if moved is not None:
            parts.append(times(np.broadcast_to(moved, value.shape)))
        kind = type(x) if isinstance(x, Tangent) else Tangent
        return along(times(value), sum(parts[1:], parts[0]) if parts else None, kind)

    def weight_cotangent(self, g: Any, x: Any) -> Any:
        """Return the cotangent of the weight for one of W x, which moves with all three."""
        (g0, dg), (x0, dx), mixing = parts_of(g), parts_of(x), self.mixing
        value = mixing.weight_cotangent(g0, x0)
        parts = [] if dg is None else [mixing.weight_cotangent(np.broadcast_to(dg, g0.shape), x0)]
        if dx is not None:
            parts.append(mixing.weight_cotangent(g0, np.broadcast_to(dx, x0.shape)))
        if self.direction is not None:
            parts.append(mixing.weight_curvature(self.direction, g0, x0))
        return along(value, sum(parts[1:], parts[0])) if parts else value

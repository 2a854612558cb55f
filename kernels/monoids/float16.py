"""float16 is a way to store numbers: what is stored so is widened to float32 where a scan takes it."""

from __future__ import annotations

from typing import Any

import numpy as np

from recsolve.base.arrays import Array, namespace
from recsolve.base.overriding import changed
from recsolve.jacobians import Identity, Jacobian, Zero
from recsolve.jacobians.jacobian import Entries
from recsolve.kernels.monoids.monoid import Monoid

HALF = np.dtype(np.float16)


def state_dtype(x: Array) -> np.dtype[Any]:
    """Return the dtype in which a scan of ``x`` carries its state."""
    return np.dtype(np.float32) if x.dtype == HALF else x.dtype


def widen(x: Any, dtype: Any = np.float32) -> Any:
    """Return an array or a Jacobian with entries in float32, or another dtype."""
    if not isinstance(x, Jacobian):
        return x.astype(dtype, copy=False)
    if isinstance(x, (Zero, Identity)):
        zero = namespace(x.like).zeros((), dtype)
        return changed(x, like=namespace(x.like).broadcast_to(zero, x.like.shape))
    if isinstance(x, Entries):
        return x._mapped(lambda entries: entries.astype(dtype, copy=False))
    return changed(x, data=x.data.astype(dtype, copy=False))  # type: ignore[attr-defined]


class Widened(Monoid):
    """A monoid whose elements are stored in float16 and taken in float32."""

    def __init__(self, monoid: Monoid):
        self.monoid = monoid

    def take(self, elements: Any, index: Any) -> Any:
        """Select times and widen them; what has been widened stays."""
        return tuple(widen(x) for x in self.monoid.take(elements, index))

    def act(self, elements: Any, states: Array) -> Array:
        return self.monoid.act(elements, states)

    def compose(self, later: Any, earlier: Any) -> Any:
        return self.monoid.compose(later, earlier)

    def identity(self, elements: Any) -> Any:
        return self.monoid.identity(elements)

    def constant(self, elements: Any, initial: Array | None) -> Array:
        return self.monoid.constant(elements, initial)

    def like(self, elements: Any) -> Array:
        return self.monoid.like(elements)

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


def widen(x: Any) -> Any:
    """Return an array or a Jacobian with entries in float32."""
    if not isinstance(x, Jacobian):
        return x.astype(np.float32)
    if isinstance(x, (Zero, Identity)):
        zero = namespace(x.like).zeros((), np.float32)
        return changed(x, like=namespace(x.like).broadcast_to(zero, x.like.shape))
    if isinstance(x, Entries):
        return x._mapped(lambda entries: entries.astype(np.float32))
    return changed(x, data=x.data.astype(np.float32))  # type: ignore[attr-defined]


class Widened:
    """A monoid whose elements are stored in float16 and taken in float32."""

    def __init__(self, monoid: Monoid):
        self.monoid = monoid
        self.act, self.compose, self.constant = monoid.act, monoid.compose, monoid.constant
        self.like, self.identity, self.composable = monoid.like, monoid.identity, monoid.composable
        self.prepare, self.mixed, self.check_initial = monoid.prepare, monoid.mixed, monoid.check_initial
        self.name, self.dtypes = monoid.name, monoid.dtypes

    def simplest(self, elements: Any) -> tuple[Monoid, Any]:
        """Return itself: elements are widened as they are taken."""
        return self, elements

    def take(self, elements: Any, index: Any) -> Any:
        """Select times and widen them; what has been widened stays."""
        return tuple(widen(x) for x in self.monoid.take(elements, index))

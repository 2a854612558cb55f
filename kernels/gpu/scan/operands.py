"""What the CUDA scans read of the elements of a monoid: arrays, and which of their axes belong to one element."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple

import numpy as np

from recsolve.base.arrays import Array, namespace
from recsolve.jacobians import Block, Diagonal, Identity, Jacobian, LaneDense, Scalar, Zero
from recsolve.kernels.gpu.scan.dense_plan import ROWS, is_dense
from recsolve.kernels.gpu.scan.maps import STATES
from recsolve.kernels.gpu.scan.variants import INTEGERS, STORAGE
from recsolve.kernels.gpu.views import Strides, strides_of
from recsolve.kernels.monoids.base import MONOIDS, Affine, Monoid
from recsolve.kernels.monoids.special import FiniteMap

_RESTARTING = ("clamp", "saturating_add", "moebius", "finite_map")  # where cut steps act on the initial state


class Operands(NamedTuple):
    """How a map reads its elements.

    Attributes
    ----------
    map : str
        A name of :func:`recsolve.kernels.gpu.scan.maps.map_type`.
    parts : int
        Numbers of a state in one lane.
    inputs : tuple
        Arrays, and the axes of rows and columns of their elements.
    state : int or None
        The axis of the parts of a state.
    """

    map: str
    parts: int
    inputs: tuple[tuple[Array, tuple[int, ...]], ...]
    state: int | None = None

    @property
    def restarts(self) -> bool:
        """Whether cut steps need an initial state."""
        return self.map.partition(":")[0] in _RESTARTING


def operands(monoid: Monoid, elements: Any) -> Operands | None:
    """Return how elements are read, or None where no map does."""
    reader = _READERS.get(type(monoid))
    found = reader(monoid, elements) if reader and monoid is MONOIDS.get(monoid.name) else None
    return found if found and len({x.dtype for x, _ in found.inputs}) == 1 else None


def number_of(x: Array) -> np.dtype[Any]:
    """Return the type of the arithmetic on (the parts of) numbers stored as those of ``x``."""
    if x.dtype.kind in "iu":
        return np.dtype(np.int32)
    return np.dtype(np.float64 if x.dtype.name in ("float64", "complex128") else np.float32)


def state_type(x: Array) -> np.dtype[Any]:
    """Return the type in which states are carried between numbers stored as those of ``x``."""
    return x.dtype if x.dtype.kind == "c" else number_of(x)


def stored_as(x: Array) -> str | None:
    """Return the name of the type in which the numbers of an array are stored; None if kernels do not take it."""
    name = x.real.dtype.name if x.dtype.kind == "c" else x.dtype.name
    return name if name in STORAGE or name in INTEGERS else None


def distances(x: Array, components: tuple[int, ...]) -> Strides:
    """Return the distances in an array, in real numbers; the parts of a complex number are 1 apart."""
    if x.dtype.kind == "c":
        return strides_of(x.real)._replace(row=1, column=1)
    return strides_of(x, components)


def spread(x: Array, shape: tuple[int, ...]) -> Array:
    """Broadcast to a shape, without a call where that is given."""
    return x if x.shape == shape else namespace(x).broadcast_to(x, shape)


def _affine(monoid: Monoid, elements: Any) -> Operands | None:
    e, f = elements
    if f.dtype.kind == "c":
        return Operands("complex_affine", 2, ((_entries(e, f), ()), (f, ()))) if _elementwise(e) else None
    if _elementwise(e):
        return Operands("affine", 1, ((_entries(e, f), ()), (f, ())))
    found = _components(e)
    if found is None:
        return None
    matrix, state = found
    return Operands("affine", f.shape[state], ((e.data, matrix), (f, (state,))), state)


def _elementwise(e: Any) -> bool:
    """Return whether a structure multiplies every number of a state by one of its own."""
    return type(e) in (Zero, Identity, Scalar, Diagonal) or (type(e) is LaneDense and e.layout.lane_width == 1)


def _components(e: Jacobian) -> tuple[tuple[int, int], int] | None:
    """Return the axes of rows and columns of matrices, and that of the states they act on; None without such."""
    if type(e) is Block and not is_dense("affine", e.layout.components):
        axis = len(e.leading)
        return (axis, axis + 1), axis
    if type(e) is LaneDense and e.layout.components == 1 and 2 <= e.layout.lane_width <= ROWS:
        last = e.data.ndim - 1
        return (last - 1, last), last - 1
    return None


def _entries(e: Jacobian, f: Array) -> Array:
    """Return the entries of a diagonal structure in the shape of ``f``; repeated ones have stride 0."""
    if isinstance(e, Identity):
        return spread(namespace(f).ones((1,) * f.ndim, f.dtype), f.shape)
    return spread(e.diagonal().data, f.shape)


def _semiring(monoid: Any, elements: Any) -> Operands | None:
    A, b = elements
    if A.ndim == b.ndim:
        return Operands(monoid.name, 1, ((A, ()), (b, ())))
    n, last = b.shape[-1], A.ndim - 1
    if not 1 <= n <= ROWS:
        return None
    return Operands(monoid.name, n, ((A, (last - 1, last)), (b, (last - 1,))), last - 1)


def _single(monoid: Any, elements: Any) -> Operands:
    return Operands(monoid.name, 1, tuple((x, ()) for x in elements))


def _log_sum_exp(monoid: Any, elements: Any) -> Operands:
    return Operands(monoid.name, 2, tuple((x, ()) for x in elements), elements[0].ndim)


def _finite_map(monoid: Any, elements: Any) -> Operands | None:
    (e,) = elements
    states, last = e.shape[-1], e.ndim - 1
    return Operands(f"finite_map:{states}", 1, ((e, (last,)),)) if states <= STATES else None


def _riccati(monoid: Any, elements: Any) -> Operands | None:
    return _single(monoid, elements) if elements[0].shape[-1] == 1 else None


_READERS: dict[type, Callable[[Any, Any], Operands | None]] = {
    type(monoid): _single for name, monoid in MONOIDS.items() if name not in ("affine", "riccati")
}
_READERS |= {
    Affine: _affine,
    type(MONOIDS["max_plus"]): _semiring,
    type(MONOIDS["logsumexp"]): _log_sum_exp,
    FiniteMap: _finite_map,
    type(MONOIDS["riccati"]): _riccati,
}

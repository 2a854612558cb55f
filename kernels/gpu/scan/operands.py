"""What the CUDA scans read of the elements of a monoid: arrays, and which of their axes belong to one element."""

from __future__ import annotations

from typing import Any

import numpy as np

from recsolve.base.arrays import Array
from recsolve.base.overriding import stated
from recsolve.kernels.gpu.scan.variants import INTEGERS, STORAGE
from recsolve.kernels.gpu.views import INPUTS, Strides, strides_of
from recsolve.kernels.monoids.cuda_map import Operands as Operands
from recsolve.kernels.monoids.monoid import MONOIDS, Monoid, Restarting


def operands(monoid: Monoid, elements: Any) -> Operands | None:
    """Return how elements are read, or None where no map does."""
    cuda = stated(monoid, "cuda") if monoid is MONOIDS.get(monoid.name) else None
    found: Operands | None = cuda.operands(monoid.name, elements) if cuda else None
    if not found or len(found.inputs) > len(INPUTS) or len({x.dtype for x, _ in found.inputs}) > 1:
        return None
    return found._replace(restarts=isinstance(monoid, Restarting))


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

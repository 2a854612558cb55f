"""What the CUDA scans read of the elements of a monoid: arrays, and which of their axes belong to one element."""

from __future__ import annotations

from functools import cache
from typing import Any, NamedTuple

import numpy as np

from recsolve.base.overriding import stated
from recsolve.kernels.gpu.scan.variants import INTEGERS, STORAGE
from recsolve.kernels.gpu.views import INPUTS
from recsolve.kernels.monoids.cuda_map import Operands as Operands
from recsolve.kernels.monoids.monoid import MONOIDS, Monoid


def operands(monoid: Monoid, elements: Any) -> Operands | None:
    """Return how elements are read, or None where no map does."""
    cuda = stated(monoid, "cuda") if any(monoid is known for known in MONOIDS.values()) else None
    found: Operands | None = cuda.operands(monoid.name, elements) if cuda else None
    if not found or len(found.inputs) > len(INPUTS) or len({x.dtype for x, _ in found.inputs}) > 1:
        return None
    return found._replace(restarts=True) if monoid.restarts else found


class Types(NamedTuple):
    """How numbers of a dtype are stored, None where kernels do not take them; the type of the arithmetic on (the parts
    of) them; and the type in which states are carried between them."""

    stored: str | None
    number: np.dtype[Any]
    state: np.dtype[Any]


@cache
def types_of(dtype: np.dtype[Any]) -> Types:
    """Return the types that belong to a dtype."""
    parts = np.empty(0, dtype).real.dtype
    name = parts.name if parts.name in STORAGE or parts.name in INTEGERS else None
    if dtype.kind in "iu":
        return Types(name, np.dtype(np.int32), np.dtype(np.int32))
    number = np.dtype(np.float64 if parts.name == "float64" else np.float32)
    return Types(name, number, dtype if dtype.kind == "c" else number)

"""Newton's method with A or the states stored in bfloat16, to see the effect of narrow storage alone."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

from recsolve.base.arrays import Array
from recsolve.kernels.affine_scan import affine_scan
from recsolve.recurrence.base import Recurrence
from recsolve.studies.compare.measure import distance


def as_stored(x: Array) -> Array:
    """Return what is stored as it is."""
    return x


def bfloat16(x: Array) -> Array:
    """Return float32 numbers rounded to the 8 leading bits that bfloat16 has, to even at ties.

    >>> bfloat16(np.float32([1.0, 1 + 2**-9, 3.14159])).tolist()
    [1.0, 1.0, 3.140625]
    """
    bits = np.ascontiguousarray(x, np.float32).view(np.uint32)
    rounded = bits + np.uint32(0x7FFF) + ((bits >> np.uint32(16)) & np.uint32(1))
    return np.where(np.isfinite(x), (rounded & np.uint32(0xFFFF0000)).view(np.float32), x)


def newton_errors(
    rec: Recurrence,
    truth: Array,
    sweeps: int,
    store_A: Callable[[Array], Array],
    store_h: Callable[[Array], Array],
) -> list[float]:
    """Return the error of every iterate of Newton's method, written out so that storage can be chosen.

    No guard and no pin: what is seen is the storage alone.
    """
    h = store_h(rec.guess())
    found = [distance(h, truth)]
    with np.errstate(all="ignore"):
        for _ in range(sweeps):
            F, J = rec.linearise(h)
            dense = J.lane_dense()
            A = type(dense)(store_A(dense.data), dense.layout)
            d = affine_scan(A, F - h, reset=rec.over_event(rec.starts))
            before = np.zeros_like(d)
            before[1:] = d[:-1]
            h = store_h(F + A.matvec(before))
            found.append(distance(h, truth))
    return found

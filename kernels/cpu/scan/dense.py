"""The compiled scan of one dense matrix per lane: lanes walk through time, bundles of them side by side."""

from __future__ import annotations

from functools import partial
from math import ceil

import numpy as np

from recsolve.base.arrays import Array
from recsolve.base.layout import Layout
from recsolve.jacobians import LaneDense
from recsolve.kernels.cpu.placement.resets import resets_of
from recsolve.kernels.cpu.placement.strides import flat, lanes_of
from recsolve.kernels.cpu.threads import spread

# Sizes in bytes of a matrix that is prefetched, where another thread takes the matrix after it; larger ones are
# prefetched by the hardware. Measured at 8 lanes: 8 x 8 and 16 x 16 in half the time.
_AHEAD = range(128, 4097)


def walk_dense(
    A: LaneDense, f: Array, y: Array, *, initial: Array | None, start: Array | None, reset: Array | None, workers: int
) -> None:
    """Fill ``y`` with y[t] = A[t] y[t-1] + f[t].

    Parameters
    ----------
    A : LaneDense
    f, y : array, shape (T, *batch, *event)
    initial, start : array, optional
        y[-1]; ``start`` goes before ``initial``. With neither the first step is cut from its past.
    reset : array of bool, optional
        Steps that are cut from their past, broadcasting against ``f``.
    workers : int
        Threads at most. Lanes do not mix, so the result does not depend on them.
    """
    from recsolve.kernels.cpu.scan import dense_loops

    layout = A.layout
    e, drive, out = flat(A.data), flat(_by_lane(f, layout)), flat(_by_lane(y, layout), writeable=True)
    arrays = e, drive, out
    lanes = lanes_of(A.data.shape[1:-2], tuple([x.strides[1:-2] for x in arrays]), tuple([x.origin for x in arrays]))

    def rows(x: Array) -> Array:
        """Return rows (m, *batch, *event) as contiguous (m, lanes, k, n)."""
        split = np.moveaxis(_by_lane(x, layout), (-2, -1), (1, 2))
        return np.ascontiguousarray(np.moveaxis(lanes.flatten(split, split.ndim - 3), -1, 1))

    resets = resets_of(reset, f.shape, rows)
    before = start if start is not None else initial
    cold = before is None or resets.start
    at_start = np.zeros(lanes.number * layout.lane_width, y.dtype)
    if before is not None:
        at_start[:] = rows(np.broadcast_to(before, f.shape[1:])[None]).ravel()
    where = lanes.each()
    # Where the next lane is nearer in memory than the next time, lanes walk together and memory is read in order.
    together = lanes.number > 1 and abs(where[1, 0] - where[0, 0]) < abs(e.strides[0])
    bundle = ceil(lanes.number / workers) if together else 1
    ahead = together and bundle < lanes.number and layout.lane_width**2 * y.itemsize in _AHEAD
    g = dense_loops.Geometry(
        len(f), lanes.number, bundle, layout.components, f.shape[-1], int(cold), int(resets.any), int(ahead),
        *(x.strides[0] for x in arrays), *e.strides[-2:], *drive.strides[-2:], *out.strides[-2:],
    )  # fmt: skip
    mask = resets.row, resets.lanes.ravel()
    loop = partial(dense_loops.walk, e.base, drive.base, out.base, at_start, *mask, where, g)
    spread(loop, ceil(lanes.number / bundle), workers)


def _by_lane(x: Array, layout: Layout) -> Array:
    """Return states (..., [k], *lanes, n) as a view (..., *lanes, k, n)."""
    if layout.components == 1:
        return x[..., None, :]
    return np.moveaxis(x, layout.component_axis, -2)

"""The compiled scan of matrices with few entries: lanes walk through time one after the other, shared by threads."""

from __future__ import annotations

from functools import partial
from math import prod
from typing import Any

import numpy as np

from recsolve.base.arrays import FLOATS, Array, freeze, kind_of
from recsolve.base.layout import Layout
from recsolve.jacobians import Banded, Jacobian, LowRank, PermutationDiagonal
from recsolve.kernels.cpu.placement.resets import resets_of
from recsolve.kernels.cpu.threads import spread

SPARSE = (PermutationDiagonal, LowRank, Banded)


def is_sparse(e: Any) -> bool:
    """Return whether there is a compiled walk for the type of a Jacobian."""
    return type(e) in SPARSE


def walks(e: Jacobian, dtype: np.dtype[Any]) -> bool:
    """Return whether there is a compiled walk for all arrays of such a Jacobian."""
    arrays = [x for name, x in vars(e).items() if name in ("data", "left", "right")]
    return dtype in FLOATS and all(kind_of(x) == "numpy" and x.dtype == dtype for x in arrays)


def walk_sparse(A: Any, f: Array, y: Array, *, initial: Array | None, reset: Array | None, workers: int) -> None:
    """Fill ``y`` with y[t] = A[t] y[t-1] + f[t].

    Parameters
    ----------
    A : PermutationDiagonal, LowRank or Banded
    f, y : array, shape (T, *batch, *event)
    initial : array, optional
        y[-1]; without it the first step is cut from its past.
    reset : array of bool, optional
        Steps that are cut from their past, broadcasting against ``f``.
    workers : int
        Threads at most. Lanes do not mix, so the result does not depend on them.
    """
    from recsolve.kernels.cpu.scan import sparse_loops as loops

    layout: Layout = A.layout
    lanes = prod(f.shape[1:]) // layout.lane_width

    def rows(x: Array) -> Array:
        return freeze(np.ascontiguousarray(layout.lane_vectors(x)).reshape(len(x), lanes, layout.lane_width))

    resets = resets_of(reset, f.shape, rows)
    cold = initial is None or resets.start
    before: Any = y.dtype.type(0) if initial is None else initial
    start = rows(np.broadcast_to(before, f.shape[1:])[None])[0]
    mask = resets.lanes.reshape(-1, lanes, layout.lane_width)
    direct = layout.components == 1 and y.flags.c_contiguous
    out = y.reshape(len(y), lanes, layout.lane_width) if direct else np.empty((len(y), *start.shape), y.dtype)
    walked: tuple[Any, ...] = rows(f), out, start, resets.row, mask, cold
    loop: Any
    if type(A) is Banded:
        loop, operands = loops.banded, [(A.data, 2)]
        walked = (np.array(A.offsets, np.intp), *walked)
    elif type(A) is LowRank:
        loop, operands = loops.low_rank, [(A._entries, 1), (A.left, 2), (A.right, 2)]
    else:
        loop, operands = loops.one_entry, [(A._entries, 1), (np.broadcast_to(A.index, A._entries.shape), 1)]
        walked = (*walked, A.rows)
    arrays, steps, places = _own(operands)
    spread(partial(loop, *arrays, *walked, steps, places), lanes, workers)
    if not direct:
        y[...] = layout.from_lane_vectors(out.reshape(layout.lane_vectors(y).shape))


def _own(operands: list[tuple[Array, int]]) -> tuple[list[Array], Array, Array]:
    """Return arrays (T, lanes, ...), each once what times or lanes share, and where these find their own.

    Parameters
    ----------
    operands : list of pairs
        An array (T, *lanes, ...), and the number of its last axes that are no lanes.

    Returns
    -------
    arrays : list of array
    steps : array of int
        0 for each array that is the same at all times, 1 for the others.
    places : array of int, (operands, lanes)
    """
    arrays, steps, places = [], [], []
    for x, last in operands:
        before = x.ndim - last
        few = x[tuple([slice(None, 1 if stride == 0 else None) for stride in x.strides[:before]])]
        lanes, shape = few.shape[1:before], x.shape[1:before]
        arrays.append(freeze(np.ascontiguousarray(few).reshape(len(few), prod(lanes), *x.shape[before:])))
        steps.append(int(len(few) > 1))
        places.append(np.broadcast_to(np.arange(prod(lanes)).reshape(lanes), shape).ravel())
    return arrays, np.array(steps), np.array(places)

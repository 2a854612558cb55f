"""Kernels that the driver runs on every iterate: test its residual row by row, and keep the next one within bounds.

The NumPy forms are the definition, on any namespace. Large NumPy arrays go through compiled loops and are read once;
arrays on a GPU go to :mod:`recsolve.kernels.gpu.iterate`, which tells of an iterate all at once.
"""

from __future__ import annotations

from collections.abc import Hashable, Sequence
from functools import lru_cache, partial
from math import prod
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

from recsolve.base.arrays import FLOATS, Array, difference, freeze, kind_of, namespace, slowest_first
from recsolve.base.layout import Layout
from recsolve.base.tolerance import Tolerance
from recsolve.kernels import backends
from recsolve.kernels.cpu.jit import ready
from recsolve.kernels.cpu.threads import spread, threads

if TYPE_CHECKING:
    from recsolve.kernels.gpu.iterate import Iterations

_TOGETHER = 1 << 16  # rows whose segments are looked at together, to save memory where a state is one number
_SPREAD = 1 << 18  # numbers from which on threads pay for waking them


class Tested(NamedTuple):
    """The residual of an iterate.

    Attributes
    ----------
    residual : array
        F - h, (T, *batch, *event); of discrete states 1 where they differ.
    converged, exact : array of bool
        (T, *batch): rows of which every entry meets the tolerance, or is 0.
    worst : array
        (T, *batch): max |r| of every row, NaN if any entry is.
    """

    residual: Array
    converged: Array
    exact: Array
    worst: Array


def residual_of(states: Array, values: Array, tolerance: Tolerance, axes: tuple[int, ...]) -> Tested:
    """Return the residual and the tests of every row; ``axes`` are those of the event."""
    rows = _rows("residual", (states, values), axes)
    lane = _lane(states, tolerance, axes)
    if rows is None or lane == 0:
        residual = difference(values, states)
        if type(residual) is np.ndarray and not residual.any():  # as after the loop: all are finite, and meet any test
            leading = residual.shape[: residual.ndim - len(axes)]
            return Tested(residual, np.ones(leading, bool), np.ones(leading, bool), np.zeros(leading, residual.dtype))
        met, worst = tolerance.met(states, values, residual), _largest(abs(residual), axes)
        return Tested(residual, met.all(axis=axes), worst == 0, worst)  # type: ignore[arg-type]
    from recsolve.kernels.cpu import residual_loops

    dtype, out = states.dtype, np.empty_like(states)
    integer = np.dtype(f"i{dtype.itemsize}")
    flat = (*rows.flat, rows.flatten(out))
    converged, exact = np.empty(rows.leading, np.bool_), np.empty(rows.leading, np.bool_)
    worst = np.full(rows.leading, 0 if tolerance.lanes is None else tolerance.unit, dtype)
    bits: Any = tuple([freeze(x.view(integer)) for x in flat])
    limits: Any = (np.iinfo(integer).max, dtype.type(tolerance.atol), dtype.type(tolerance.rtol), rows.width, lane)
    results: Any = (converged.ravel(), exact.ravel(), worst.ravel(), worst.ravel().view(integer))
    loop: Any = residual_loops.residual
    rows.run(partial(loop, *flat, bits, *limits, *results))
    return Tested(out, rows.place(converged), rows.place(exact), rows.place(worst))


def largest_finite(x: Array, axes: tuple[int, ...]) -> Array:
    """Return the largest finite |x| of every row, (T, *batch); 0 where there is none."""
    rows, xp = _rows("largest", (x,), axes), namespace(x)
    if rows is None:
        return _largest(xp.where(xp.isfinite(x), xp.abs(x), x.dtype.type(0)), axes)
    from recsolve.kernels.cpu import residual_loops

    largest, integer = np.empty(rows.leading, x.dtype), np.dtype(f"i{x.itemsize}")
    infinity = x.dtype.type(np.inf).view(integer)
    limits = np.iinfo(integer).max, infinity, rows.width, largest.ravel().view(integer)
    rows.run(partial(residual_loops.largest_finite, rows.flat[0].view(integer), *limits))
    return rows.place(largest)


def _largest(sizes: Array, axes: tuple[int, ...]) -> Array:
    """Return the largest number of every row."""
    if not sizes.size:  # CuPy's max takes no initial value
        return namespace(sizes).zeros(sizes.shape[: sizes.ndim - len(axes)], sizes.dtype)  # type: ignore[no-any-return]
    return sizes.max(axis=axes)  # type: ignore[no-any-return]


def guard(
    proposal: Array, states: Array, values: Array, reach: Array, pins: tuple[Array, Array] | None, axes: tuple[int, ...]
) -> Array:
    """Return the proposal, with F where it is beyond ``reach`` or not finite, in the memory order of F.

    Parameters
    ----------
    proposal, states, values : array, shape (T, *batch, *event)
    reach : array, shape (1, *batch, 1...)
    pins : tuple of array of bool, or None
        (T, *batch): the exact rows, which keep their states, and the rows after them, which take F.
    axes : tuple of int
        Those of the event.
    """
    rows = _rows("guard", (states, values, proposal), axes)
    if rows is None:
        xp = namespace(proposal)
        inside = xp.isfinite(proposal) & (xp.abs(proposal) <= reach)
        guarded = xp.where(inside, proposal, values)
        if pins is not None:
            leading, front = (x.reshape(x.shape + (1,) * len(axes)) for x in pins)
            guarded = xp.where(leading, states, xp.where(front, values, guarded))
        return _in_order_of(values, guarded)
    from recsolve.kernels.cpu import residual_loops

    out = np.empty_like(values)
    pin = np.zeros(values.shape[: -len(axes)] if axes else values.shape, np.int8)
    if pins is not None:
        pin[pins[1]], pin[pins[0]] = residual_loops.FRONT, residual_loops.LEADING
    states, values, proposal = rows.flat
    limits = rows.unplace(np.broadcast_to(reach.reshape(reach.shape[: pin.ndim]), pin.shape)), rows.unplace(pin)
    rows.run(partial(residual_loops.guard, proposal, states, values, rows.flatten(out), *limits, rows.width))
    return out


def front(good: Array, starts: Array) -> tuple[Array, Array]:
    """Return the leading good rows of every segment, and the row at which each stops.

    Parameters
    ----------
    good, starts : array of bool, shape (T, *batch)
        NumPy arrays; starts are the first rows of segments.

    Returns
    -------
    leading, stop : array of bool, shape (T, *batch)
        Good rows with only such rows before them, back to the start of the segment; the first row that is not.
    """
    if good.all() and starts[:1].all():
        return np.ones(good.shape, bool), np.zeros(good.shape, bool)
    clean = np.empty(good.shape, bool)
    failure = start = np.array(-1)
    rows = max(_TOGETHER // max(starts[0].size, 1), 1)
    for begin in range(0, len(good), rows):
        part = slice(begin, begin + rows)
        index = np.arange(begin, min(begin + rows, len(good))).reshape((-1,) + (1,) * (good.ndim - 1))
        failures, firsts = _last(~good[part], index, failure), _last(starts[part], index, start)
        clean[part] = failures[:-1] < firsts[1:]
        failure, start = failures[-1:], firsts[-1:]
    return clean & good, clean & ~good


def _last(mask: Array, index: Array, before: Array) -> Array:
    """Return the last index so far at which a mask holds, with that of the rows before first."""
    out = np.empty((len(mask) + 1, *mask.shape[1:]), np.int64)
    out[:1], out[1:] = before, -1
    np.copyto(out[1:], index, where=mask)
    return np.maximum.accumulate(out, axis=0, out=out)


def hopeless(states: Array, values: Array, axes: tuple[int, ...]) -> Array:
    """Return the rows (T, *batch) where F is not finite, and equals h wherever it is not."""
    finite = namespace(states).isfinite(values)
    equal = (values == states) | ((values != values) & (states != states))
    return ~finite.all(axis=axes) & (equal | finite).all(axis=axes)  # type: ignore[no-any-return]


def iterations(starts: Array, layout: Layout, dtype: np.dtype[Any]) -> Iterations | None:
    """Return the kernels of iterations of arrays on a GPU; None where the forms of this module do the work."""
    numbers = starts.size * layout.size
    if kind_of(starts) != "cupy" or backends.asked() == "numpy" or dtype not in FLOATS or not numbers:
        return None
    from recsolve.kernels.gpu.iterate import Iterations

    return Iterations(starts, layout, dtype)


class _Order(NamedTuple):
    """How trajectories of one shape and strides lie in memory.

    Attributes
    ----------
    axes, back : tuple of int
        The axes (T, *batch) from the slowest to the fastest, and the way back.
    leading : tuple of int
        Their sizes.
    width, number : int
        Numbers of a row, and rows.
    contiguous : bool
    """

    axes: tuple[int, ...]
    back: tuple[int, ...]
    leading: tuple[int, ...]
    width: int
    number: int
    contiguous: bool


@lru_cache(maxsize=256)
def _order(shape: tuple[int, ...], strides: tuple[int, ...], size: int, count: int) -> _Order:
    """Return it for arrays whose first ``count`` axes are those of rows."""
    axes = slowest_first(shape[:count], strides[:count])
    step, contiguous = size, True
    for axis in reversed((*axes, *range(count, len(shape)))):
        contiguous &= shape[axis] == 1 or strides[axis] == step
        step *= shape[axis]
    leading = tuple(shape[axis] for axis in axes)
    back = tuple(axes.index(axis) for axis in range(count))
    return _Order(axes, back, leading, prod(shape[count:]), prod(leading), contiguous)


class _Rows:
    """Trajectories of one memory order as flat arrays, row after row."""

    def __init__(self, key: Hashable, arrays: Sequence[Array], order: _Order):
        self.key = key
        self.order, self.leading, self.width, self.number = order, order.leading, order.width, order.number
        self.event = tuple(range(len(order.axes), arrays[0].ndim))
        self.flat = [freeze(self.flatten(x)) for x in arrays]  # loops are compiled for one kind of memory

    def flatten(self, x: Array) -> Array:
        return x.transpose(*self.order.axes, *self.event).reshape(-1)

    def place(self, x: Array) -> Array:
        """Return numbers of rows, in the order of memory, as (T, *batch)."""
        return x.transpose(self.order.back)

    def unplace(self, x: Array) -> Array:
        """Return (T, *batch) as rows in the order of memory."""
        return np.ascontiguousarray(x.transpose(self.order.axes)).reshape(-1)

    def run(self, loop: Any) -> None:
        spread(loop, self.number, threads() if self.number * self.width >= _SPREAD else 1)
        ready.note(self.key)


def _rows(work: str, arrays: Sequence[Array], axes: tuple[int, ...]) -> _Rows | None:
    """Return arrays as rows for some work, or None where NumPy is to do it."""
    like = arrays[0]
    key = work, like.dtype
    if kind_of(like) != "numpy" or like.dtype not in FLOATS or not like.size:
        return None
    if not backends.compiles_rows(like.size, key):
        return None
    for x in arrays:
        if x.strides != like.strides or x.dtype != like.dtype:
            return None
    order = _order(like.shape, like.strides, like.itemsize, like.ndim - len(axes))
    return _Rows(key, arrays, order) if order.contiguous else None


def _lane(states: Array, tolerance: Tolerance, axes: tuple[int, ...]) -> int:
    """Return how many numbers of a row are tested together: those of a lane; 0 where these are not side by side."""
    layout = tolerance.lanes
    width: int = prod(states.shape[axis] for axis in axes)
    if layout is None or not layout.lanes:
        return width
    return int(layout.lane_width) if layout.components == 1 else 0


def _in_order_of(like: Array, x: Array) -> Array:
    """Return ``x`` in the memory order of ``like``."""
    if x.strides == like.strides:
        return x
    out = namespace(like).empty_like(like)
    out[...] = x
    return out  # type: ignore[no-any-return]

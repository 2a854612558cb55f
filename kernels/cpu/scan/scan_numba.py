"""The compiled scan of NumPy arrays on CPU threads: affine maps of every structure, and clamps.

Where lanes (batch x units) are many, tiles of them walk through time side by side, each as the loop does. Where they
are few, time is cut into blocks: their summaries, one pass over these, then all blocks walk from their carries with the
original elements, as in the NumPy kernel. How the work is cut depends on shapes alone, and lanes never mix, so the
result does not depend on the number of threads. Dense matrices, matrices of few entries and factored Jacobians have
files of their own. float16 is scanned in float32, a window of time after the other. What is not carried here goes to
the NumPy kernel.
"""

from __future__ import annotations

from functools import partial
from math import ceil
from typing import Any

import numpy as np

from recsolve.base.arrays import FLOATS, Array, freeze, kind_of
from recsolve.jacobians import Block, Diagonal, Identity, Jacobian, LaneDense, Scalar, Zero
from recsolve.kernels.cpu.placement.resets import resets_of
from recsolve.kernels.cpu.placement.strides import Lanes, flat, lanes_of
from recsolve.kernels.cpu.scan.dense import walk_dense
from recsolve.kernels.cpu.scan.factored_scan import is_factored, walk_factored, walks
from recsolve.kernels.cpu.scan.sparse import is_sparse, walk_sparse
from recsolve.kernels.cpu.scan.sparse import walks as walks_sparse
from recsolve.kernels.cpu.threads import spread, threads
from recsolve.kernels.monoids.affine import Affine
from recsolve.kernels.monoids.clamp import Clamp
from recsolve.kernels.monoids.float16 import HALF, state_dtype, widen
from recsolve.kernels.monoids.monoid import Monoid
from recsolve.kernels.reference import scan_numpy
from recsolve.kernels.registry import register

_WIDTH = 1024  # lanes of a tile at most: its rows of e, f, y and the states stay in the nearest cache
_LEAST = 512  # and at least: two threads on halves of shorter rows are slower than one on whole rows
_NARROW = 16  # with fewer lanes a row is too short for a loop, and blocks of time are walked side by side
_LONG = 2048  # steps from which on that pays
_BLOCK = 64  # steps of a block at least
_BLOCKS = 1024  # blocks at most
_ABREAST, _TILES = 64, 16  # blocks of time of a summary where lanes are few, and tiles at least where they are many
_SIDE = 4  # blocks of a tile: as many as the loops step in registers
_SPREAD = 100_000  # numbers from which on threads pay for waking them
_COMPONENTS = 4  # a block at most
_WINDOW = 1 << 18  # numbers of float16 that are widened at a time, to stay in a cache
_SIMPLE = (Zero, Identity, Scalar, Diagonal)


def carries(monoid: Monoid, elements: Any, initial: Array | None = None) -> bool:
    """Return whether the compiled scan takes these elements, and does not hand them to the NumPy kernel."""
    if type(monoid) not in (Affine, Clamp):
        return False
    e, f = elements
    like = _numbers(e, f)
    if any([kind_of(x) != "numpy" for x in (f, like, initial) if x is not None]) or like.dtype != f.dtype:  # noqa: C419
        return False
    if f.dtype not in (*FLOATS, HALF) or (initial is not None and initial.dtype != state_dtype(f)):
        return False
    if type(monoid) is Clamp:
        return initial is not None
    if is_factored(e):
        return walks(e, f.dtype)
    if is_sparse(e):
        return walks_sparse(e, f.dtype)
    return type(e) in (*_SIMPLE, LaneDense) or (type(e) is Block and e.layout.components <= _COMPONENTS)


def file_of(e: Any) -> str:
    """Return how the names of files with the compiled loops of a structure begin."""
    if is_factored(e):
        return "factored_loops."
    if is_sparse(e):
        return "sparse_loops."
    return {LaneDense: "dense_loops.", Block: "block_loops."}.get(type(e), "elementwise_loops.")


@register("scan", "numba")
def scan(
    monoid: Monoid,
    elements: Any,
    *,
    initial: Array | None = None,
    reset: Array | None = None,
    chunk: int | None = None,
) -> Array:
    """Return what :func:`recsolve.kernels.backends.scan` does.

    ``chunk`` is the length of a block of time; by default lanes walk through all of it where they are many.
    """
    like = monoid.like(elements)
    if not carries(monoid, elements, initial) or (reset is not None and reset.ndim != like.ndim):
        return scan_numpy.scan(monoid, elements, initial=initial, reset=reset, chunk=chunk)
    y = np.empty_like(like)
    if type(elements[0]) is Zero:
        y[...] = elements[1]
    elif y.size and y.dtype == HALF:
        _fill_half(monoid, elements, y, initial, reset, chunk)
    elif y.size:
        _fill(monoid, elements, y, initial, None, reset, chunk)
    return y


def _fill(monoid: Monoid, elements: Any, y: Array, initial: Array | None, start: Array | None, reset: Array | None,
          chunk: int | None) -> None:  # fmt: skip
    """Scan into ``y``, from ``start`` if that is not ``initial``; cut steps of a clamp look back to ``initial``."""
    e, f = elements
    workers = threads() if _numbers(e, f).size >= _SPREAD else 1
    if is_factored(e):
        walk_factored(e, f, y, initial=initial, reset=reset, workers=threads())
        return
    if is_sparse(e):
        walk_sparse(e, f, y, initial=initial, reset=reset, workers=workers)
        return
    if isinstance(e, LaneDense) and e.layout.lane_width > 1:
        walk_dense(e, f, y, initial=initial, start=start, reset=reset, workers=workers)
        return
    e = e.diagonal() if isinstance(e, LaneDense) else e
    Laid(monoid, (e, f), y, initial, start, reset).run(chunk)


def _fill_half(
    monoid: Monoid, elements: Any, y: Array, initial: Array | None, reset: Array | None, chunk: int | None
) -> None:
    """Scan float16 into ``y``, windows of time in float32 one after the other, where blocks of time would not help."""
    steps, row = len(y), y.size // len(y)
    entries = _numbers(*elements).size // steps
    in_blocks = not isinstance(elements[0], LaneDense) and row < _COMPONENTS * _NARROW and steps >= _LONG
    window = steps if chunk or in_blocks else max(_WINDOW // entries, 1)
    start = None
    for begin in range(0, len(y), window):
        part = slice(begin, begin + window)
        wide = tuple(widen(x) for x in monoid.take(elements, part))
        rows = np.empty_like(y[part], dtype=np.float32)
        _fill(monoid, wide, rows, initial, start, reset if reset is None else reset[part], chunk)
        y[part], start = rows, rows[-1]


def _numbers(e: Any, f: Array) -> Array:
    """Return the array that holds the first elements, or the second where the first hold none."""
    return getattr(e, "data", f) if isinstance(e, Jacobian) else e


def _entries(e: Any, f: Array) -> Array:
    """Return the entries of a structure in the shape of ``f`` (a block's as they are); repeated ones have stride 0."""
    if not isinstance(e, Jacobian):
        return np.broadcast_to(e, f.shape)
    if isinstance(e, Block):
        return e.data
    data = f.dtype.type(1) if isinstance(e, Identity) else e.diagonal().data
    return np.broadcast_to(data, f.shape)


class Laid:
    """One scan laid out for the compiled loops; lanes are ordered as ``y`` has them in memory."""

    def __init__(self, monoid: Monoid, elements: Any, y: Array, initial: Array | None, start: Array | None,
                 reset: Array | None):  # fmt: skip
        from recsolve.kernels.cpu.scan import block_loops, elementwise_loops

        e, f = elements
        self.shape, self.dtype = y.shape, y.dtype
        self.k, self.axis = (e.layout.components, e._axis) if isinstance(e, Block) else (1, 0)
        self.loops: Any = block_loops if self.k > 1 else elementwise_loops
        self.geometry: Any = elementwise_loops.Geometry
        self.clamp = isinstance(monoid, Clamp)
        self.kind = self.k if self.k > 1 else int(self.clamp)
        self.arrays = flat(_entries(e, f)), flat(f), flat(y, writeable=True)
        self.lanes = self._lanes(y.shape)
        self.workers = threads() if y.size >= _SPREAD else 1
        self.initial = self._row(initial)
        self.start = self.initial if start is None else self._row(start)
        resets = resets_of(reset, y.shape, self._rows)
        # A clamp starts from ``initial`` where it is cut; there is nothing to look up where that is all of the start.
        self.cut_first = resets.start
        self.cold = (initial is None and start is None) or (resets.start and not self.clamp)
        self.start = self.initial if resets.start else self.start
        self.has_resets, self.row, self.resets = resets.any, resets.row, resets.lanes.ravel()
        self.together = not resets.any or self.k == 1 or bool((resets.lanes == resets.lanes[:, :1]).all())

    def _row(self, state: Array | None) -> Array:
        """Return a state of all lanes, zeros for none."""
        if state is None:
            return freeze(np.zeros(self.k * self.lanes.number, self.dtype))
        return freeze(self._rows(np.broadcast_to(state, self.shape[1:])[None]).ravel())

    def _lanes(self, shape: tuple[int, ...]) -> Lanes:
        e, *states = self.arrays
        origins = tuple([x.origin for x in self.arrays])
        if self.k == 1:
            return lanes_of(shape[1:], tuple([x.strides[1:] for x in self.arrays]), origins)
        without = [e.strides[1 : self.axis] + e.strides[self.axis + 2 :]]
        without += [x.strides[1 : self.axis] + x.strides[self.axis + 1 :] for x in states]
        return lanes_of(shape[1 : self.axis] + shape[self.axis + 1 :], tuple(without), origins)

    def _rows(self, x: Array) -> Array:
        """Return rows (n, *shape of a step) as (n, [k], lanes)."""
        if self.k > 1:
            return self.lanes.flatten(np.moveaxis(x, self.axis, 1), x.ndim - 2)
        return self.lanes.flatten(x, x.ndim - 1)

    def run(self, chunk: int | None) -> None:
        """Fill the result."""
        steps = self.shape[0]
        length = chunk or self._block_length()
        if steps > length and self.together:
            self._in_blocks(length)
        else:
            self._walk_lanes(0, self.start)

    def _block_length(self) -> int:
        steps: int = self.shape[0]
        if self.lanes.number >= _NARROW or steps < _LONG:
            return steps
        length = max(steps // _BLOCKS, _BLOCK)
        return length + 24 if length % 128 == 0 else length  # blocks a power of two apart share a set of the cache

    def _geometry(self, steps: int, inner: int, width: int, apart: int, bundle: int = 1) -> Any:
        """Return sizes and distances; the lanes of a tile are lanes, or blocks ``apart`` steps apart."""
        e, f, y = self.arrays
        k, count = self.k, self.lanes.number
        by_time = tuple(x.strides[0] for x in self.arrays)
        by_lane = tuple(apart * s for s in by_time) if apart else self.lanes.strides
        start, lane = (k * count, 0) if apart else (1, 1)
        components: tuple[int, ...] = (0, 0, 0, 0)
        if k > 1:
            components = (*e.strides[self.axis : self.axis + 2], f.strides[self.axis], y.strides[self.axis])
        switches = int(self.cold), int(self.has_resets)
        return self.geometry(
            self.kind, steps, inner, width, bundle, count, *by_time, *by_lane, start, lane, apart, *switches,
            *components,
        )  # fmt: skip

    def _walk_lanes(self, begin: int, start: Array) -> None:
        """Walk from time ``begin`` to the end, tiles of lanes side by side."""
        lanes = self.lanes
        groups = len(lanes.offsets)
        first = np.arange(groups) * lanes.inner
        origins = lanes.offsets + begin * np.array([x.strides[0] for x in self.arrays])
        where = np.column_stack([origins, first, first, np.full(groups, begin)])
        tiles = max(ceil(lanes.inner * self.k / _WIDTH), ceil(self.workers / groups))
        width = max(ceil(lanes.inner / tiles), min(_LEAST, lanes.inner))
        bundle = self._bundle(width)
        g = self._geometry(self.shape[0] - begin, lanes.inner, width, 0, bundle)
        bases = [x.base for x in self.arrays]
        loop = partial(self.loops.walk, *bases, freeze(start), self.initial, self.row, self.resets, where, g)
        spread(loop, ceil(groups / bundle) * ceil(lanes.inner / width), self.workers)

    def _bundle(self, width: int) -> int:
        """Return how many groups to walk together: several where the next group is nearer in memory than the next time.

        Memory is then read in order.
        """
        offsets, groups = self.lanes.offsets, len(self.lanes.offsets)
        if groups == 1 or abs(offsets[1, 0] - offsets[0, 0]) >= abs(self.arrays[0].strides[0]):
            return 1
        return max(min(ceil(groups / self.workers), _WIDTH // width), 1)

    def _side_by_side(self, length: int, blocks: int) -> tuple[Array, Any]:
        """Return groups of blocks of one lane each."""
        lane = np.arange(self.lanes.number)
        where = np.column_stack([self.lanes.each(), lane, lane, np.zeros(len(lane), int)])
        return where, self._geometry(length, blocks, min(_SIDE, blocks), length)

    def _unfilled(self, blocks: int) -> tuple[Array, Array, Array]:
        """Return room for the summaries of blocks of time, and for whether a step of them is cut."""
        count, (square, vector) = self.lanes.number, ((self.k, self.k), (self.k,)) if self.k > 1 else ((), ())
        P, Q = np.empty((blocks, *square, count), self.dtype), np.empty((blocks, *vector, count), self.dtype)
        return P, Q, np.zeros((blocks, count), np.bool_)

    def blocks(self) -> tuple[int, int]:
        """Return the length and number of blocks of time for a summary: enough for threads, and to walk abreast."""
        steps: int = self.shape[0]
        few = self.lanes.number < _NARROW
        wanted = _ABREAST if few else ceil(_TILES / ceil(self.lanes.number * self.k / _WIDTH))
        blocks = max(min(wanted, steps // _BLOCK), 1)
        return steps // blocks, blocks

    def summaries(self, length: int, blocks: int) -> tuple[Array, Array, Array]:
        """Return the maps (P, Q) of blocks of time, with axes as elements have them, and which of them are cut."""
        lanes = self.lanes
        self.cold = self.cut_first  # else the first step acts on what comes in
        if lanes.number < _NARROW:
            where, g = self._side_by_side(length, blocks)
        else:
            groups, first = len(lanes.offsets), np.tile(np.arange(len(lanes.offsets)) * lanes.inner, blocks)
            begin = np.repeat(np.arange(blocks) * length, groups)
            by_time = np.array([x.strides[0] for x in self.arrays])
            origins = np.tile(lanes.offsets, (blocks, 1)) + begin[:, None] * by_time
            where = np.column_stack([origins, first, first, begin])
            g = self._geometry(length, lanes.inner, min(lanes.inner, max(_WIDTH // self.k, 1)), 0)
        P, Q, seen = self._unfilled(blocks)
        e, f = self.arrays[0].base, self.arrays[1].base
        loop = partial(self.loops.summarise, e, f, P, Q, seen, self.initial, self.row, self.resets, where, g)
        spread(loop, len(where) * ceil(g.inner / g.width), self.workers)
        return self._with_axes(P, 2), self._with_axes(Q, 1), self._with_axes(seen, 0)

    def _with_axes(self, x: Array, components: int) -> Array:
        """Return (blocks, [k, [k]], lanes) with the axes of lanes as they are, and those of components among them."""
        own = components if self.k > 1 else 0
        axes = {self.axis - 1} if self.k > 1 else set()
        sizes = [n for axis, n in enumerate(self.shape[1:]) if axis not in axes]
        apart = x.reshape(*x.shape[:-1], *(sizes[axis] for axis in self.lanes.order))
        leading = 1 + own
        x = apart.transpose(*range(leading), *(leading + self.lanes.order.index(axis) for axis in range(len(sizes))))
        if self.k == 1:
            return x
        if not own:  # all components are cut together
            return np.expand_dims(x, self.axis)
        return np.moveaxis(x, range(1, leading), range(self.axis, self.axis + own))

    def _in_blocks(self, length: int) -> None:
        """Summarise blocks of time, carry states across them, and walk them side by side."""
        count, k, blocks = self.lanes.number, self.k, self.shape[0] // length
        where, g = self._side_by_side(length, blocks)
        P, Q, seen = self._unfilled(blocks)
        start = np.empty((blocks + 1) * k * count, self.dtype)
        start[: k * count] = self.start
        e, f, y = (x.base for x in self.arrays)
        tiles = count * ceil(blocks / g.width)
        rest = self.initial, self.row, self.resets, where, g
        spread(partial(self.loops.summarise, e, f, P, Q, seen, *rest), tiles, self.workers)
        self.loops.carry(e, f, P, Q, seen, start, where, g)
        spread(partial(self.loops.walk_blocks, e, f, y, start, *rest), tiles, self.workers)
        if blocks * length < self.shape[0]:
            self._walk_lanes(blocks * length, start[-k * count :])

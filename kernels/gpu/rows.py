"""Launches over trajectories row by row: how arrays lie, and a structure that an iteration fills addresses into.

What depends on shapes and strides is found once and kept.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import lru_cache
from math import ceil, prod
from typing import Any, NamedTuple

import numpy as np

from recsolve.base.arrays import Array, slowest_first
from recsolve.kernels.codegen.cuda_elementwise import OPTIONS
from recsolve.kernels.codegen.cuda_structures import constants, structure
from recsolve.kernels.gpu.device import Launch, Machine
from recsolve.kernels.gpu.views import AXES, merge

_THREADS, _EVENT = (constants("iterate/rows")[name] for name in ("ROW_THREADS", "EVENT_AXES"))
_SHARED = 1 << 10  # bytes of shared memory of a block, for what its threads tell each other
_NARROW = 8  # numbers of a row that one thread takes
_EACH = 4  # numbers of a wider row that a thread takes, if there are so many,
_ENOUGH = 1 << 16  # and more of them where so many threads are busy: a warp alone need not wait for others
ALIGNED = 16  # bytes that are copied at once


class Unmergeable(Exception):
    """Arrays have more axes than views have room for."""


class Axes(NamedTuple):
    """Where the axes of trajectories (T, *batch, [k], *lanes, n) are.

    Attributes
    ----------
    shape : tuple of int
    batch : int
        How many axes of the batch there are.
    components : int
        k.
    """

    shape: tuple[int, ...]
    batch: int
    components: int

    @property
    def event(self) -> int:
        """The first axis of the lanes and units."""
        return 1 + self.batch + (self.components > 1)

    @property
    def entries(self) -> tuple[int, ...]:
        """The shape of a Jacobian of k x k blocks."""
        square = (self.components,) * 2 if self.components > 1 else ()
        return (*self.shape[: 1 + self.batch], *square, *self.shape[self.event :])


class Laid(NamedTuple):
    """A structure filled in but for addresses, as integers; how many numbers of a row are taken at once; the blocks."""

    problem: Array
    at_once: int
    blocks: int


@lru_cache(maxsize=512)
def lay(
    header: str,
    name: str,
    counts: tuple[tuple[str, int], ...],
    axes: Axes,
    size: int,
    lane: int,
    views: tuple[tuple[str, int, tuple[int, ...], int], ...],
) -> Laid:
    """Return a structure for arrays of ``size`` bytes a number.

    ``views`` are fields, places among several of a field, strides, and how many axes of components come before the
    lanes; the memory order of the first is that of rows.

    Raises
    ------
    Unmergeable
    """
    shape, (T, *batch) = axes.shape, axes.shape[: 1 + axes.batch]
    parts = list(shape[axes.event :])
    filled = np.zeros(1, structure(header, name, **dict(counts)))
    p, before = filled[0], 1 + axes.batch
    found = [_strides(shape, strides, size, axes, own) for _, _, strides, own in views]
    inner, runs = merge(parts or [1], [_in_order(parts or [1]), *(s[3] for s in found)])
    outer, outer_runs = merge(batch or [1], [_in_order(batch or [1]), *(s[1] for s in found)])
    if len(inner) > _EVENT or len(outer) > AXES - _EVENT:
        raise Unmergeable
    p["sizes"] = 1
    p["sizes"][: len(inner)], p["sizes"][_EVENT : _EVENT + len(outer)] = inner, outer
    p["steps"], p["sequences"], p["width"], p["components"] = T, prod(batch), prod(parts), axes.components
    p["parts"] = threads = _threads(prod(parts), axes.components, T * prod(batch))
    order = slowest_first(shape[:before], views[0][2][:before])
    p["by_time"] = before > 1 and order[-1] == 0
    if lane:
        p["lane"] = lane
    for (field, i, _, _), (time, _, own, _), run, far in zip(views, found, runs[1:], outer_runs[1:], strict=True):
        view = p[field] if i < 0 else p[field][i]
        view["time"], view["row"], view["column"] = time, *own
        view["lane"][: len(run)], view["lane"][_EVENT : _EVENT + len(far)] = run, far
    side_by_side = len(inner) == 1 and (inner[0] == 1 or all(run[0] == 1 for run in runs[1:]))
    count = ALIGNED // size
    apart = [n for time, far, own, _ in found for n in (time, *far, *own)] + [prod(parts), lane]
    at_once = count if prod(parts) > 1 and not any(n % count for n in apart) else 1
    blocks = ceil(T * prod(batch) * threads / _THREADS)
    return Laid(filled.view(np.int64), at_once if side_by_side else 0, blocks)


def _strides(
    shape: tuple[int, ...], strides: tuple[int, ...], size: int, axes: Axes, own: int
) -> tuple[int, tuple[int, ...], tuple[int, int], tuple[int, ...]]:
    """Return the distances of times, of the batch, of components (of rows and columns), and of lanes and units."""
    far = [s // size for s in strides]
    first = 1 + axes.batch
    row, column = (*far[first : first + own], 0, 0)[:2]
    lanes = far[first + own :]
    flat = [s if n > 1 else 0 for s, n in zip(lanes, shape[axes.event :], strict=True)]
    batch = [s if n > 1 else 0 for s, n in zip(far[1:first], shape[1:first], strict=True)]
    return far[0], tuple(batch) or (0,), (row, column), tuple(flat) or (0,)


def _in_order(sizes: Sequence[int]) -> tuple[int, ...]:
    """Return the distances in C's order, in which axes are counted whatever the order of the others."""
    return tuple(prod(sizes[i + 1 :]) for i in range(len(sizes)))


def _threads(width: int, components: int, rows: int) -> int:
    """Return how many threads take a row: one, or whole warps, more than one where there are few rows."""
    if width * components <= _NARROW:
        return 1
    threads = 32
    while threads < _THREADS and threads * _EACH < width and threads * rows < _ENOUGH:
        threads *= 2
    return threads


class Step:
    """A kernel and its structure, in which an iteration fills in addresses.

    Parameters
    ----------
    machine : Machine
    laid : Laid
    at : dict
        The places of fields.
    code, kernel : str
        The name has a place for how many numbers are taken at once.
    """

    def __init__(
        self, machine: Machine, laid: Laid, at: dict[str, Any], code: str, kernel: str, threads: int = _THREADS
    ):
        self.machine, self.p, self.at_once, self.at = machine, laid.problem.copy(), laid.at_once, at
        self.code, self.kernel, self.blocks, self.threads = code, kernel, laid.blocks, threads
        self.numbers: tuple[float, ...] = ()
        self._runs: dict[int, Any] = {}

    def fill(self, **addresses: int) -> None:
        p, at = self.p, self.at
        for name, where in addresses.items():
            p[at[name]] = where

    def doubles(self, names: tuple[str, ...], *numbers: float) -> None:
        """Fill in numbers that are mostly those of the last launch."""
        if numbers != self.numbers:
            self.numbers = numbers
            self.p.view(np.float64)[[self.at[name] for name in names]] = numbers

    def run(self, addresses: int = 0) -> None:
        """Launch; the bits of the addresses of arrays say whether their numbers can be taken several at once."""
        at_once = min(self.at_once, 1) if addresses % ALIGNED else self.at_once
        if at_once not in self._runs:
            kernel = self.kernel.format(at_once)
            launch = Launch(self.code, kernel, OPTIONS, self.blocks, self.threads, _SHARED, self.p)
            self._runs[at_once] = self.machine.prepared(launch)
        self._runs[at_once]()

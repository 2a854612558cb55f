"""Where the numbers of strided arrays lie, for compiled loops over flat memory.

A loop vectorises only over contiguous slices of a flat array, so arrays of any strides are passed to it
as a flat base with element strides, and the axes that are independent of each other (the *lanes*: batch, units) are
merged and ordered as the result has them in memory.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import lru_cache
from math import prod
from typing import NamedTuple

import numpy as np
from numpy.lib.stride_tricks import as_strided

from recsolve.base.arrays import Array, freeze

_SHORT = 16  # an inner axis below this is worth less than a longer one that is strided


class Flat(NamedTuple):
    """An array as a flat base from its lowest address on, the place of its first entry there, and element strides."""

    base: Array
    origin: int
    strides: tuple[int, ...]


class _Extent(NamedTuple):
    """Where the entries of an array lie, whatever they are."""

    strides: tuple[int, ...]
    origin: int
    length: int
    lowest: tuple[slice, ...]  # selects the array from its lowest address on


@lru_cache(maxsize=1024)
def _extent(shape: tuple[int, ...], strides: tuple[int, ...], size: int) -> _Extent:
    steps = tuple(s // size if n > 1 else 0 for n, s in zip(shape, strides, strict=True))
    ends = [(n - 1) * s for n, s in zip(shape, steps, strict=True)]
    lowest = tuple(slice(None, None, -1) if s < 0 else slice(None) for s in steps)
    return _Extent(steps, -sum(end for end in ends if end < 0), sum(abs(end) for end in ends) + 1, lowest)


def flat(x: Array, writeable: bool = False) -> Flat:
    """Flatten ``x`` without a copy, unless its entries lie between those of an array of its dtype."""
    size = x.itemsize
    if not x.flags.aligned or any([s % size for s in x.strides]):  # noqa: C419 - a generator takes longer
        x = x.copy()
    strides, origin, length, lowest = _extent(x.shape, x.strides, size)
    if x.flags.c_contiguous and length == x.size:
        base = x.reshape(-1).view()
        base.flags.writeable = writeable and x.flags.writeable
    else:
        base = as_strided(x[lowest], (length,), (size,), writeable=writeable)
    return Flat(base, origin, strides)


class Lanes(NamedTuple):
    """The independent axes of some arrays: groups of lanes that lie at equal distances.

    Attributes
    ----------
    offsets : array of int, shape (groups, arrays)
        Where each group starts.
    inner : int
        Lanes of a group.
    strides : tuple of int
        Distance of the lanes of a group, per array.
    order : tuple of int
        The axes in the order in which lanes are counted.
    """

    offsets: Array
    inner: int
    strides: tuple[int, ...]
    order: tuple[int, ...]

    @property
    def number(self) -> int:
        """Lanes of all groups."""
        return len(self.offsets) * self.inner

    def each(self) -> Array:
        """Return where each lane starts, shape (number, arrays)."""
        steps = np.arange(self.inner)[:, None] * np.array(self.strides)
        return (self.offsets[:, None] + steps).reshape(-1, len(self.strides))  # type: ignore[no-any-return]

    def flatten(self, rows: Array, axes: int) -> Array:
        """Return rows (..., *the axes of the lanes) as contiguous (..., number), in the order of the lanes."""
        leading = rows.ndim - axes
        moved = rows.transpose(*range(leading), *[leading + axis for axis in self.order])
        return np.ascontiguousarray(moved.reshape(*rows.shape[:leading], self.number))


@lru_cache(maxsize=1024)
def lanes_of(shape: tuple[int, ...], strides: tuple[tuple[int, ...], ...], origins: tuple[int, ...]) -> Lanes:
    """Merge the axes of arrays that share a shape; the last array says in which order."""
    order = sorted((axis for axis in range(len(shape)) if shape[axis] != 1), key=lambda axis: -abs(strides[-1][axis]))
    runs: list[list[int]] = []  # axes that merge, from the innermost out
    for axis in reversed(order):
        if runs and all(s[axis] == s[runs[-1][-1]] * _length(shape, runs[-1]) for s in strides):
            runs[-1].insert(0, axis)
        else:
            runs.append([axis])
    return _lanes(shape, strides, origins, _longest_first(shape, runs))


def _length(shape: Sequence[int], run: Sequence[int]) -> int:
    return prod(shape[axis] for axis in run)


def _longest_first(shape: Sequence[int], runs: list[list[int]]) -> list[list[int]]:
    """Put the longest run in place of an innermost one that is too short for a loop."""
    lengths = [_length(shape, run) for run in runs]
    if not runs or lengths[0] >= _SHORT or max(lengths) == lengths[0]:
        return runs
    best = lengths.index(max(lengths))
    return [runs[best], *runs[:best], *runs[best + 1 :]]


def _lanes(
    shape: Sequence[int], strides: Sequence[Sequence[int]], origins: Sequence[int], runs: list[list[int]]
) -> Lanes:
    ones = tuple(axis for axis in range(len(shape)) if shape[axis] == 1)
    order = ones + tuple(axis for run in reversed(runs) for axis in run)
    offsets = np.array(origins, dtype=np.int64)[None]
    for run in reversed(runs[1:]):
        steps = np.arange(_length(shape, run))[:, None] * np.array([s[run[-1]] for s in strides])
        offsets = (offsets[:, None] + steps).reshape(-1, len(strides))
    offsets = freeze(offsets)  # what is kept is shared
    if not runs:
        return Lanes(offsets, 1, (1,) * len(strides), order)
    inner = _length(shape, runs[0])
    step = tuple(s[runs[0][-1]] for s in strides)
    return Lanes(offsets, inner, step if inner > 1 else (1,) * len(strides), order)

"""Compiled walks through time with matrices of few entries: one in every row, thin factors, a few diagonals.

Arrays are contiguous, (T, lanes, ...), with 1 in place of T or of the lanes where all times or lanes share what is
there; ``steps`` and ``places`` say where each finds its own. Sums run in the order of the NumPy products.
"""

from __future__ import annotations

import numpy as np

from recsolve.base.arrays import Array
from recsolve.kernels.cpu.jit.decorators import compiled, inlined


@inlined
def _cut(y: Array, f: Array, mask: Array, row: int, lane: int) -> None:
    """Give y what a step gives that is cut from its past, where the mask says so."""
    for i in range(len(y)):
        if mask[row, lane, i]:
            y[i] = f[i]


@inlined
def _copied(y: Array, f: Array) -> None:
    for i in range(len(y)):
        y[i] = f[i]


@compiled
def one_entry(
    e: Array, p: Array, f: Array, y: Array, start: Array, row: Array, mask: Array, cold: bool, gathers: bool,
    steps: Array, places: Array, first: int, last: int,
) -> None:  # fmt: skip
    """Fill y from A with one entry e in every row, in column p; or in every column, in row p."""
    for lane in range(first, last):
        before = start[lane]
        for t in range(len(y)):
            now, drive = y[t, lane], f[t, lane]
            entries, index = e[steps[0] * t, places[0, lane]], p[steps[1] * t, places[1, lane]]
            if cold and t == 0:
                _copied(now, drive)
            elif gathers:
                for i in range(len(now)):
                    now[i] = entries[i] * before[index[i]] + drive[i]
            else:
                for i in range(len(now)):
                    now[i] = 0
                for j in range(len(now)):
                    now[index[j]] += entries[j] * before[j]
                for i in range(len(now)):
                    now[i] += drive[i]
            if len(row) and row[t] >= 0:
                _cut(now, drive, mask, row[t], lane)
            before = now


@compiled
def low_rank(
    a: Array, U: Array, V: Array, f: Array, y: Array, start: Array, row: Array, mask: Array, cold: bool,
    steps: Array, places: Array, first: int, last: int,
) -> None:  # fmt: skip
    """Fill y from A = diag(a) + U V^T."""
    seen = np.empty(U.shape[-1], U.dtype)
    for lane in range(first, last):
        before = start[lane]
        for t in range(len(y)):
            now, drive = y[t, lane], f[t, lane]
            if cold and t == 0:
                _copied(now, drive)
            else:
                diagonal = a[steps[0] * t, places[0, lane]]
                left, right = U[steps[1] * t, places[1, lane]], V[steps[2] * t, places[2, lane]]
                for k in range(len(seen)):
                    seen[k] = 0
                for i in range(len(now)):
                    for k in range(len(seen)):
                        seen[k] += right[i, k] * before[i]
                for i in range(len(now)):
                    total = diagonal[i] * before[i]
                    for k in range(len(seen)):
                        total += left[i, k] * seen[k]
                    now[i] = total + drive[i]
            if len(row) and row[t] >= 0:
                _cut(now, drive, mask, row[t], lane)
            before = now


@compiled
def banded(
    e: Array, offsets: Array, f: Array, y: Array, start: Array, row: Array, mask: Array, cold: bool,
    steps: Array, places: Array, first: int, last: int,
) -> None:  # fmt: skip
    """Fill y from A with entries e on diagonals, listed by columns."""
    for lane in range(first, last):
        before = start[lane]
        for t in range(len(y)):
            now, drive = y[t, lane], f[t, lane]
            if cold and t == 0:
                _copied(now, drive)
            else:
                n, entries = len(now), e[steps[0] * t, places[0, lane]]
                for i in range(n):
                    now[i] = 0
                for band in range(len(offsets)):
                    offset = offsets[band]
                    for i in range(max(-offset, 0), n - max(offset, 0)):
                        now[i] += entries[band, i + offset] * before[i + offset]
                for i in range(n):
                    now[i] += drive[i]
            if len(row) and row[t] >= 0:
                _cut(now, drive, mask, row[t], lane)
            before = now

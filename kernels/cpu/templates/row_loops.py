"""What compiled loops do with a row of states besides f: for the loops of all cells, in one place.

A process that compiles several cells compiles these functions once; rows and tasks are those of
:mod:`recsolve.kernels.cpu.templates.loops_cell`.
"""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np

from recsolve.base.arrays import Array
from recsolve.kernels.cpu.jit.aliasing import read, write
from recsolve.kernels.cpu.jit.decorators import inlined
from recsolve.kernels.cpu.jit.prefetch import prefetch


class Sizes(NamedTuple):
    """Sizes and distances, in elements."""

    steps: int
    groups: int
    inner: int  # lanes of a group
    width: int  # of a tile
    bundle: int  # groups of a task, where these are nearer in memory than times
    lanes: int  # of all groups
    components: int
    x_c: int
    y_c: int
    c_c: int  # of the cotangent
    J_r: int
    J_c: int
    has_resets: int  # whether there are resets
    window: int


@inlined
def copy(x: Array, s: int, x_c: int, y: Array, q: int, y_c: int, components: int, n: int) -> None:
    """Copy the rows of all components."""
    for j in range(components):
        for i in range(n):
            write(y, q + j * y_c + i, read(x, s + j * x_c + i))


@inlined
def restart_lanes(resets: Array, r: int, restart: Array, lane: int, x: Array, s: int, g: Sizes, n: int) -> None:
    """Replace the states of the lanes that row ``r`` of ``resets`` marks by those that resets start from."""
    for j in range(g.components):
        for i in range(n):
            if resets[r * g.lanes + lane + i]:
                write(x, s + j * g.width + i, restart[j * g.lanes + lane + i])


@inlined
def copy_counted(x: Array, s: int, x_c: int, y: Array, q: int, y_c: int, components: int, n: int) -> int:
    """Copy the rows of all components, and return how many numbers are not finite."""
    bad = 0
    for j in range(components):
        for i in range(n):
            value = read(x, s + j * x_c + i)
            bad += not abs(value) < np.inf
            write(y, q + j * y_c + i, value)
    return bad


@inlined
def ask_one(array: Array, at: Array, b: int, column: int, steps: int, by_time: Array, n: int, line: int) -> None:
    """Prefetch the row some steps before: on the way back the hardware prefetches in the wrong direction."""
    prefetch(array, at[b, column] - steps * by_time[column], n, line)


@inlined
def ask(arrays: Any, at: Array, b: int, first: int, by_time: Array, n: int, line: int) -> None:
    """Prefetch the rows of some arrays."""
    for m in range(len(arrays)):
        ask_one(arrays[m], at, b, first + m, 1, by_time, n, line)


@inlined
def flush(sums: Array, start: int, totals: Array, lane: int, width: int, n: int) -> None:
    """Add the sums of a tile to the totals."""
    for m in range(len(totals)):
        for i in range(n):
            totals[m, lane + i] += sums[start + m * width + i]
            sums[start + m * width + i] = 0


@inlined
def cut_carry(resets: Array, r: int, carry: Array, p: int, into: Array, lane: int, g: Sizes, n: int) -> None:
    """Add to ``into`` the cotangent that a step with a reset gives to its initial state."""
    for j in range(g.components):
        for i in range(n):
            if resets[r * g.lanes + lane + i]:
                into[j, lane + i] += carry[p + j * g.width + i]
                carry[p + j * g.width + i] = 0


@inlined
def correct(h: Array, old: int, new: int, x: Array, d: int, values: int, shift: int, J: int, atol: float, rtol: float,
             g: Sizes, n: int) -> int:  # fmt: skip
    """Put F + J d into the new row of h, its change into d, and return how often the old row fails the test.

    Where d is 0, as it is after exact rows, and where the sum is not finite, the new state is F. Places of the four
    others are in x.
    """
    k, w, failed = g.components, g.width, 0
    for a in range(k):
        for i in range(n):
            write(x, shift + a * w + i, read(x, J + a * k * w + i) * read(x, d + i))
        for b in range(1, k):
            for i in range(n):
                term = read(x, J + (a * k + b) * w + i) * read(x, d + b * w + i)
                write(x, shift + a * w + i, read(x, shift + a * w + i) + term)
    for a in range(k):
        for i in range(n):
            value, state = read(x, values + a * w + i), read(h, old + a * w + i)
            size = max(abs(value), abs(state))
            failed += not abs(value - state) <= atol + rtol * size
            moved = value + read(x, shift + a * w + i)
            moved = moved if abs(moved) < np.inf else value
            write(h, new + a * w + i, moved)
            write(x, d + a * w + i, moved - state)
    return failed

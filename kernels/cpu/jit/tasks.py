"""Steps through time that compiled loops over rows share.

For rows and tasks see :mod:`recsolve.kernels.cpu.templates.loops_cell`.
"""

from __future__ import annotations

from typing import Any

from recsolve.base.arrays import Array
from recsolve.kernels.cpu.jit.decorators import inlined


@inlined
def begin(task: int, where: Array, g: Any, at: Array) -> tuple[int, int]:
    """Set the places of a task, a row for each of its groups; return the number of these and the lanes of its tile."""
    bundles = -(-g.groups // g.bundle)
    begin, i0 = task % bundles * g.bundle, task // bundles * g.width
    count = min(g.bundle, g.groups - begin)
    for b in range(count):
        for a in range(at.shape[1]):
            at[b, a] = where[begin + b, a] + i0
    return count, min(g.width, g.inner - i0)


@inlined
def advance(at: Array, by_time: Array, count: int, steps: int) -> None:
    """Move the places of ``count`` rows by a number of steps."""
    for b in range(count):
        for a in range(at.shape[1]):
            at[b, a] += steps * by_time[a]

"""Compiled walk through time for cells with mixings that couple units: elementwise stages around matrix products.

This module is a template that works as it stands. What is between the two dashed lines is one cell, here
h' = tanh(u + W h); code generation puts a traced cell in its place (:mod:`recsolve.kernels.codegen.numba_mixing`).

Rows, groups and tasks are those of :mod:`recsolve.kernels.cpu.templates.loops_cell`, but here a task has whole
sequences. Its states (x), the inputs of its products (z) and their results (m) lie in buffers of slots, ``capacity``
numbers apart: one per component, input and mixing call. In a slot the rows of the groups follow one another, and so do
the sequences.

Elementwise functions are compiled without fastmath. A product is a chain of fused sums per number, the same for
every sequence, so nothing depends on how sequences are divided among tasks and threads.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy import inf, int64, nan, uint64  # noqa: F401 - cells may have such constants

from recsolve.base.arrays import Array
from recsolve.kernels.cpu.jit.aliasing import get, keep, pointer, pointers, put
from recsolve.kernels.cpu.jit.decorators import compiled, inlined
from recsolve.kernels.cpu.jit.elementary import functions
from recsolve.kernels.cpu.jit.tasks import advance, begin
from recsolve.kernels.cpu.placement.rows import FIRST, LANE, Y

# ---- the cell -------------------------------------------------------------------------------------------------------
F = np.float32
tanh = functions(F)["tanh"]
from recsolve.kernels.cpu.templates.loops_products import (  # noqa: E402 - of this F
    Heads,
    Sizes,
    Weights,
    buffer,
    copy,
    multiply,
    restart_lanes,
)


@inlined
def last(inputs: Any, at: Array, b: int, x: Array, m: Array, r: int, cap: int, y: Array, q: int, y_c: int,
         n: int) -> None:  # fmt: skip
    """Put the new states of a row into ``y``, component j from q + j y_c on."""
    i0, o0 = inputs[0], at[b, FIRST]
    for i in range(n):
        put(0, y, q + i, tanh(get(i0, o0 + i) + get(m, r + i)))


@inlined
def step(inputs: Any, at: Array, count: int, n: int, x: Array, z: Array, m: Array, y: Array, w: Any, g: Any) -> None:
    """Take one step with ``count`` rows of n lanes."""
    multiply(x, int64(0), m, int64(0), w, int64(0), count * n, Heads(g.heads, g.units))
    for b in range(count):
        last(inputs, at, b, x, m, b * n, g.capacity, y, at[b, Y], g.y_c, n)


# ---- end of the cell ------------------------------------------------------------------------------------------------


@compiled
def walk(inputs: Any, y: Array, start: Array, restart: Array, row: Array, resets: Array, weights: Weights, where: Array,
         by_time: Array, g: Sizes, first: int, last: int) -> None:  # fmt: skip
    """Fill ``y`` one step after the other from the states ``start`` on, for the tasks [first, last)."""
    k, c = g.components, g.capacity
    states, memory = buffer(k, c, y), buffer(g.slots + g.calls, c, y)
    x, z, m = pointer(states), pointer(memory), pointer(memory[g.slots * c :])
    w = Weights(pointer(weights.panels), pointer(weights.places), pointer(weights.valid), pointer(weights.products))
    given, new = pointers(inputs), pointer(y)
    at = np.empty((g.bundle, len(by_time)), np.int64)
    for task in range(first, last):
        count, n = begin(task, where, g, at)
        for b in range(count):
            copy(start, at[b, LANE], g.lanes, states, b * n, c, k, n)
        for t in range(g.steps):
            if g.has_resets and row[t] >= 0:
                for b in range(count):
                    restart_lanes(resets, row[t], restart, at[b, LANE], states, b * n, g, n)
            step(given, at, count, n, x, z, m, new, w, g)
            for b in range(count):
                copy(y, at[b, Y], g.y_c, states, b * n, c, k, n)
            advance(at, by_time, count, 1)
    keep(states)
    keep(memory)

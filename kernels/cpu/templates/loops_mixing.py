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

from typing import Any, NamedTuple

import numpy as np
from numpy import inf, int64, nan, uint64  # noqa: F401 - cells may have such constants

from recsolve.base.arrays import Array
from recsolve.kernels.cpu.jit.aliasing import get, keep, pointer, pointers, put
from recsolve.kernels.cpu.jit.decorators import compiled, inlined
from recsolve.kernels.cpu.jit.elementary import functions
from recsolve.kernels.cpu.jit.panel_product import block
from recsolve.kernels.cpu.jit.tasks import advance, begin
from recsolve.kernels.cpu.placement.rows import FIRST, LANE, Y

# ---- the cell -------------------------------------------------------------------------------------------------------
F = np.float32
LENGTH, VECTORS = 16, 4  # of a vector, and vectors of a panel
tanh = functions(F)["tanh"]


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
    multiply(x, int64(0), m, int64(0), w, int64(0), count * n, g)
    for b in range(count):
        last(inputs, at, b, x, m, b * n, g.capacity, y, at[b, Y], g.y_c, n)


# ---- end of the cell ------------------------------------------------------------------------------------------------

WIDTH = LENGTH * VECTORS


class Weights(NamedTuple):
    """The matrices of a cell, as arrays and as pointers to them.

    Attributes
    ----------
    panels : array
        Those of all products, from :func:`recsolve.kernels.cpu.jit.panel_packing.packed`.
    places, valid : array of int
        Where each vector of results goes, and how many numbers of it.
    products : array of int, shape (3 * products,)
        Where the panels of each product begin, where its vectors do, and how many panels it has.
    """

    panels: Any
    places: Any
    valid: Any
    products: Any


class Heads(NamedTuple):
    """How many heads a sequence has, and their units."""

    heads: int
    units: int


class Sizes(NamedTuple):
    """Sizes and distances, in numbers."""

    steps: int
    groups: int
    inner: int  # lanes of a group
    width: int  # of a tile
    bundle: int  # groups of a task
    lanes: int  # of all groups
    components: int
    slots: int  # of inputs of products
    calls: int
    y_c: int
    has_resets: int  # whether there are resets
    heads: int
    units: int  # of a head
    capacity: int  # of a slot


@compiled
def multiply(x: Array, x_0: Any, y: Array, y_0: Any, weights: Weights, product: Any, lanes: int, g: Any) -> None:
    """Put the products of some matrices with the sequences from x[x_0] on into slots of ``y``, from y_0 in each on.

    Panels are the outer loop: those of a small matrix stay in the nearest cache while all sequences pass.
    """
    w, places, valid = weights.panels, weights.places, weights.valid
    w_0, first = get(weights.products, 3 * product), get(weights.products, 3 * product + 1)
    panels = get(weights.products, 3 * product + 2)
    n, stride = g.units, g.units * g.heads
    sequences, size = lanes // stride, n * WIDTH
    whole = sequences - sequences % 4
    for _ in range(g.heads):
        for p in range(panels):
            for s in range(0, whole * stride, 4 * stride):
                block(4, 1, LENGTH, VECTORS, x, x_0 + s, stride, n, w, w_0 + p * size, size,
                      y, y_0 + s, stride, places, valid, first + p * VECTORS)  # fmt: skip
        x_1, y_1 = x_0 + whole * stride, y_0 + whole * stride
        if sequences - whole == 1:
            _for_one(x, x_1, stride, n, w, w_0, size, y, y_1, places, valid, first, panels)
        elif sequences - whole == 2:
            _for_two(x, x_1, stride, n, w, w_0, size, y, y_1, places, valid, first, panels)
        elif sequences - whole == 3:
            for p in range(panels):
                block(3, 1, LENGTH, VECTORS, x, x_1, stride, n, w, w_0 + p * size, size,
                      y, y_1, stride, places, valid, first + p * VECTORS)  # fmt: skip
        x_0, y_0, w_0 = x_0 + n, y_0 + n, w_0 + panels * size


@inlined
def _for_one(x: Array, x_0: int, stride: int, n: int, w: Array, w_0: int, size: int,
             y: Array, y_0: int, places: Array, valid: Array, first: int, panels: int) -> None:  # fmt: skip
    """Multiply for one sequence, four panels at a time: that many sums hide the latency of each."""
    for p in range(0, panels - panels % 4, 4):
        block(1, 4, LENGTH, VECTORS, x, x_0, stride, n, w, w_0 + p * size, size,
              y, y_0, stride, places, valid, first + p * VECTORS)  # fmt: skip
    p = panels - panels % 4
    w_0, first = w_0 + p * size, first + p * VECTORS
    if panels - p == 1:
        block(1, 1, LENGTH, VECTORS, x, x_0, stride, n, w, w_0, size, y, y_0, stride, places, valid, first)
    elif panels - p == 2:
        block(1, 2, LENGTH, VECTORS, x, x_0, stride, n, w, w_0, size, y, y_0, stride, places, valid, first)
    elif panels - p == 3:
        block(1, 3, LENGTH, VECTORS, x, x_0, stride, n, w, w_0, size, y, y_0, stride, places, valid, first)


@inlined
def _for_two(x: Array, x_0: int, stride: int, n: int, w: Array, w_0: int, size: int,
             y: Array, y_0: int, places: Array, valid: Array, first: int, panels: int) -> None:  # fmt: skip
    """Multiply for two sequences, two panels at a time."""
    for p in range(0, panels - panels % 2, 2):
        block(2, 2, LENGTH, VECTORS, x, x_0, stride, n, w, w_0 + p * size, size,
              y, y_0, stride, places, valid, first + p * VECTORS)  # fmt: skip
    p = panels - panels % 2
    if panels > p:
        block(2, 1, LENGTH, VECTORS, x, x_0, stride, n, w, w_0 + p * size, size,
              y, y_0, stride, places, valid, first + p * VECTORS)  # fmt: skip


@inlined
def _copy(x: Array, s: int, x_c: int, y: Array, q: int, y_c: int, components: int, n: int) -> None:
    """Copy the rows of all components."""
    for j in range(components):
        for i in range(n):
            y[uint64(q + j * y_c + i)] = x[uint64(s + j * x_c + i)]


@inlined
def _restart(resets: Array, r: int, restart: Array, lane: int, x: Array, s: int, g: Sizes, n: int) -> None:
    """Replace the states of the lanes that row ``r`` of ``resets`` marks by those that resets start from."""
    for j in range(g.components):
        for i in range(n):
            if resets[r * g.lanes + lane + i]:
                x[s + j * g.capacity + i] = restart[j * g.lanes + lane + i]


@inlined
def _buffer(slots: int, capacity: int, like: Array) -> Array:
    """Return a buffer that begins with a cache line, so that no vector straddles two."""
    line = 64 // like.itemsize
    memory = np.empty(slots * capacity + line, like.dtype)
    start = -(memory.ctypes.data // like.itemsize) % line
    return memory[start : start + slots * capacity]


@compiled
def walk(inputs: Any, y: Array, start: Array, restart: Array, row: Array, resets: Array, weights: Weights, where: Array,
         by_time: Array, g: Sizes, first: int, last: int) -> None:  # fmt: skip
    """Fill ``y`` one step after the other from the states ``start`` on, for the tasks [first, last)."""
    k, c = g.components, g.capacity
    states, memory = _buffer(k, c, y), _buffer(g.slots + g.calls, c, y)
    x, z, m = pointer(states), pointer(memory), pointer(memory[g.slots * c :])
    w = Weights(pointer(weights.panels), pointer(weights.places), pointer(weights.valid), pointer(weights.products))
    given, new = pointers(inputs), pointer(y)
    at = np.empty((g.bundle, len(by_time)), np.int64)
    for task in range(first, last):
        count, n = begin(task, where, g, at)
        for b in range(count):
            _copy(start, at[b, LANE], g.lanes, states, b * n, c, k, n)
        for t in range(g.steps):
            if g.has_resets and row[t] >= 0:
                for b in range(count):
                    _restart(resets, row[t], restart, at[b, LANE], states, b * n, g, n)
            step(given, at, count, n, x, z, m, new, w, g)
            for b in range(count):
                _copy(y, at[b, Y], g.y_c, states, b * n, c, k, n)
            advance(at, by_time, count, 1)
    keep(states)
    keep(memory)


@compiled
def mix(x: Array, y: Array, weights: Weights, lanes: int, tile: int, g: Heads, first: int, last: int) -> None:
    """Fill ``y`` with the first product of ``weights`` at all times: tiles [first, last) of contiguous lanes."""
    w = Weights(pointer(weights.panels), pointer(weights.places), pointer(weights.valid), pointer(weights.products))
    for task in range(first, last):
        i = task * tile
        multiply(pointer(x), i, pointer(y), i, w, int64(0), min(tile, lanes - i), g)

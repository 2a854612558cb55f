"""What the walks of all cells with mixings that couple units share: products of small matrices, buffers of states.

This module is a template that works as it stands, for float32 on a processor whose vectors have 16 numbers. Code
generation puts other numbers between the two dashed lines (:mod:`recsolve.kernels.codegen.numba_mixing`).

A product is a chain of fused sums per number, the same for every sequence, so nothing depends on how sequences are
divided among tasks and threads.
"""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np
from numpy import int64, uint64

from recsolve.base.arrays import Array
from recsolve.kernels.cpu.jit.aliasing import get, pointer
from recsolve.kernels.cpu.jit.decorators import compiled, inlined
from recsolve.kernels.cpu.jit.panel_product import block

# ---- the numbers ----------------------------------------------------------------------------------------------------
F = np.float32
LENGTH, VECTORS = 16, 4  # of a vector, and vectors of a panel
# ---- end of the numbers ---------------------------------------------------------------------------------------------

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


@compiled
def mix(x: Array, y: Array, weights: Weights, lanes: int, tile: int, g: Heads, first: int, last: int) -> None:
    """Fill ``y`` with the first product of ``weights`` at all times: tiles [first, last) of contiguous lanes."""
    w = Weights(pointer(weights.panels), pointer(weights.places), pointer(weights.valid), pointer(weights.products))
    for task in range(first, last):
        i = task * tile
        multiply(pointer(x), i, pointer(y), i, w, int64(0), min(tile, lanes - i), g)


@inlined
def copy(x: Array, s: int, x_c: int, y: Array, q: int, y_c: int, components: int, n: int) -> None:
    """Copy the rows of all components."""
    for j in range(components):
        for i in range(n):
            y[uint64(q + j * y_c + i)] = x[uint64(s + j * x_c + i)]


@inlined
def restart_lanes(resets: Array, r: int, restart: Array, lane: int, x: Array, s: int, g: Sizes, n: int) -> None:
    """Replace the states of the lanes that row ``r`` of ``resets`` marks by those that resets start from."""
    for j in range(g.components):
        for i in range(n):
            if resets[r * g.lanes + lane + i]:
                x[s + j * g.capacity + i] = restart[j * g.lanes + lane + i]


@inlined
def buffer(slots: int, capacity: int, like: Array) -> Array:
    """Return a buffer that begins with a cache line, so that no vector straddles two."""
    line = 64 // like.itemsize
    memory = np.empty(slots * capacity + line, like.dtype)
    start = -(memory.ctypes.data // like.itemsize) % line
    return memory[start : start + slots * capacity]

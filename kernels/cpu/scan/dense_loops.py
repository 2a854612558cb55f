"""Compiled loops of affine scans whose lanes are vectors with a dense matrix for every time.

Every lane walks through time: composing two n x n matrices costs n times a step. A matrix is used once, where it lies,
so the loops are made to read memory in order. A *task* is a bundle of lanes that walk together.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np

from recsolve.base.arrays import Array
from recsolve.kernels.cpu.jit.decorators import Loop, compiled, inlined
from recsolve.kernels.cpu.jit.prefetch import LINE, prefetch

# Columns of ``where``: the origin of each lane in e, f, y.
E, F, Y = range(3)


def reordered(function: Loop) -> Loop:
    """Compile a sum into its callers; its terms may be added in any order, as in any BLAS, or it would not vectorise.

    Nothing else is relaxed: what is inf or NaN stays so.
    """
    return inlined(function, {"reassoc"})


class Geometry(NamedTuple):
    """Sizes and distances, in elements."""

    steps: int
    lanes: int
    bundle: int
    components: int
    units: int
    cold: int  # whether time 0 is cut from its past
    has_resets: int  # whether there are resets
    ahead: int  # whether to prefetch the next matrix
    e_t: int  # from one time to the next
    f_t: int
    y_t: int
    e_row: int
    e_column: int
    f_component: int
    f_unit: int
    y_component: int
    y_unit: int


@reordered
def _dot(e: Array, p: int, x: Array, s: int, n: int) -> float:
    """Return the product of a contiguous row and a vector."""
    total = e[np.uint64(p)] * x[np.uint64(s)]
    for j in range(1, n):
        total += e[np.uint64(p + j)] * x[np.uint64(s + j)]
    return total  # type: ignore[no-any-return]


@inlined
def _add_columns(e: Array, p: int, column: int, x: Array, s: int, z: Array, n: int) -> None:
    """Put the sum of contiguous columns times the entries of a vector into z[s:], four at a time."""
    for i in range(n):
        z[np.uint64(s + i)] = 0
    for j in range(0, n - 3, 4):
        a, b, c, d = x[np.uint64(s + j)], x[np.uint64(s + j + 1)], x[np.uint64(s + j + 2)], x[np.uint64(s + j + 3)]
        q = p + j * column
        for i in range(n):
            total = z[np.uint64(s + i)] + e[np.uint64(q + i)] * a + e[np.uint64(q + column + i)] * b
            total += e[np.uint64(q + 2 * column + i)] * c
            z[np.uint64(s + i)] = total + e[np.uint64(q + 3 * column + i)] * d
    for j in range(n - n % 4, n):
        a = x[np.uint64(s + j)]
        for i in range(n):
            z[np.uint64(s + i)] += e[np.uint64(p + j * column + i)] * a


@inlined
def _product(e: Array, p: int, x: Array, s: int, z: Array, n: int, g: Geometry) -> None:
    """Put the product of the matrix at p and x[s:] into z[s:]."""
    if g.e_column == 1:
        for i in range(n):
            z[np.uint64(s + i)] = _dot(e, p + i * g.e_row, x, s, n)
    elif g.e_row == 1:
        _add_columns(e, p, g.e_column, x, s, z, n)
    else:
        for i in range(n):
            total = e[np.uint64(p + i * g.e_row)] * x[np.uint64(s)]
            for j in range(1, n):
                total += e[np.uint64(p + i * g.e_row + j * g.e_column)] * x[np.uint64(s + j)]
            z[np.uint64(s + i)] = total


@inlined
def _add(f: Array, q: int, z: Array, s: int, g: Geometry) -> None:
    """Add a state of f, whose components and units lie anywhere, to z[s:]."""
    for c in range(g.components):
        to, origin = s + c * g.units, q + c * g.f_component
        if g.f_unit == 1:
            for i in range(g.units):
                z[np.uint64(to + i)] += f[np.uint64(origin + i)]
        else:
            for i in range(g.units):
                z[np.uint64(to + i)] += f[np.uint64(origin + i * g.f_unit)]


@inlined
def _cut(f: Array, q: int, z: Array, s: int, resets: Array, own: int, all_of_it: bool, g: Geometry) -> None:
    """Select f in what is cut from its past."""
    for c in range(g.components):
        for i in range(g.units):
            if all_of_it or resets[own + c * g.units + i]:
                z[s + c * g.units + i] = f[q + c * g.f_component + i * g.f_unit]


@inlined
def _store(z: Array, s: int, y: Array, r: int, g: Geometry) -> None:
    """Copy z[s:] to the result."""
    for c in range(g.components):
        origin, to = s + c * g.units, r + c * g.y_component
        if g.y_unit == 1:
            for i in range(g.units):
                y[np.uint64(to + i)] = z[np.uint64(origin + i)]
        else:
            for i in range(g.units):
                y[np.uint64(to + i * g.y_unit)] = z[np.uint64(origin + i)]


@compiled
def walk(e: Array, f: Array, y: Array, start: Array, row: Array, resets: Array, where: Array,
         g: Geometry, first: int, last: int) -> None:  # fmt: skip
    """Fill ``y`` from the states ``start`` (lanes * n) on, for the tasks [first, last)."""
    n = g.components * g.units
    x, z = np.empty(g.bundle * n, y.dtype), np.empty(g.bundle * n, y.dtype)
    for task in range(first, last):
        begin, end = task * g.bundle, min((task + 1) * g.bundle, g.lanes)
        for i in range((end - begin) * n):
            x[i] = start[begin * n + i]
        for t in range(g.steps):
            cold = g.cold != 0 and t == 0
            cut = cold or (g.has_resets and row[t] >= 0)
            for lane in range(begin, end):
                s, q = (lane - begin) * n, where[lane, F] + t * g.f_t
                p = where[lane, E] + t * g.e_t
                if g.ahead:
                    prefetch(e, p + g.e_t, n * n, LINE // e.itemsize)
                _product(e, p, x, s, z, n, g)
                _add(f, q, z, s, g)
                if cut:
                    own = 0 if cold else (row[t] * g.lanes + lane) * n
                    _cut(f, q, z, s, resets, own, cold, g)
                _store(z, s, y, where[lane, Y] + t * g.y_t, g)
            x, z = z, x

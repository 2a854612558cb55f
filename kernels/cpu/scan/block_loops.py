"""Compiled loops of affine scans whose lanes are k numbers with a k x k matrix, k = 2, 3, 4.

The same loops as those of single numbers, with components outside rows: every product is a loop over the lanes of a
tile, so it vectorises for any k. Sums are taken in the order of the reference.
"""

from __future__ import annotations

import numpy as np

from recsolve.base.arrays import Array
from recsolve.kernels.cpu.jit.decorators import called, compiled, inlined
from recsolve.kernels.cpu.scan.elementwise_loops import LANE, START, TIME, E, F, Geometry, Y, any_cut, cut_at


@inlined
def _row(e: Array, p: int, f: Array, q: int, x: Array, s: int, y: Array, r: int, n: int, g: Geometry) -> None:
    """Put one row of A x + f of n contiguous lanes into ``y``.

    Column j of the matrices starts at p + j g.e_column, component j of the states at s + j g.width.
    """
    c, w = g.e_column, g.width
    if g.kind == 2:
        for i in range(n):
            total = e[np.uint64(p + i)] * x[np.uint64(s + i)] + e[np.uint64(p + c + i)] * x[np.uint64(s + w + i)]
            y[np.uint64(r + i)] = total + f[np.uint64(q + i)]
        return
    for i in range(n):
        total = e[np.uint64(p + i)] * x[np.uint64(s + i)] + e[np.uint64(p + c + i)] * x[np.uint64(s + w + i)]
        total += e[np.uint64(p + 2 * c + i)] * x[np.uint64(s + 2 * w + i)]
        if g.kind == 4:
            total += e[np.uint64(p + 3 * c + i)] * x[np.uint64(s + 3 * w + i)]
        y[np.uint64(r + i)] = total + f[np.uint64(q + i)]


@inlined
def _row_strided(e: Array, p: int, x: Array, s: int, y: Array, r: int, n: int, g: Geometry) -> None:
    """Put one row of A x of n strided lanes into ``y``."""
    for i in range(n):
        total = e[np.uint64(p + i * g.e_l)] * x[np.uint64(s + i)]
        for j in range(1, g.kind):
            total += e[np.uint64(p + j * g.e_column + i * g.e_l)] * x[np.uint64(s + j * g.width + i)]
        y[np.uint64(r + i)] = total


@inlined
def _add(f: Array, q: int, stride: int, y: Array, r: int, n: int) -> None:
    """Add a strided row of f to a row of ``y``."""
    for i in range(n):
        y[np.uint64(r + i)] += f[np.uint64(q + i * stride)]


@inlined
def _copy(x: Array, s: int, x_l: int, y: Array, r: int, y_l: int, n: int) -> None:
    """Copy a row."""
    if x_l == 1 and y_l == 1:
        for i in range(n):
            y[np.uint64(r + i)] = x[np.uint64(s + i)]
    else:
        for i in range(n):
            y[np.uint64(r + i * y_l)] = x[np.uint64(s + i * x_l)]


@compiled
def walk(e: Array, f: Array, y: Array, start: Array, initial: Array, row: Array, resets: Array, where: Array,
         g: Geometry, first: int, last: int) -> None:  # fmt: skip
    """Fill ``y`` from the states ``start`` on, for the tasks [first, last)."""
    k, w, groups, bundles = g.kind, g.width, len(where), -(-len(where) // g.bundle)
    states, after = np.empty(g.bundle * k * w, y.dtype), np.empty(g.bundle * k * w, y.dtype)
    contiguous = g.e_l == 1 and g.f_l == 1
    for task in range(first, last):
        i0, begin = task // bundles * w, task % bundles * g.bundle
        end, n = min(begin + g.bundle, groups), min(w, g.inner - i0)
        for group in range(begin, end):
            for i in range(k):
                origin = where[group, START] + i0 * g.start_l + i * g.lanes
                _copy(start, origin, g.start_l, states, ((group - begin) * k + i) * w, 1, n)
        for t in range(g.steps):
            for group in range(begin, end):
                p, q = where[group, E] + t * g.e_t + i0 * g.e_l, where[group, F] + t * g.f_t + i0 * g.f_l
                r, s = where[group, Y] + t * g.y_t + i0 * g.y_l, (group - begin) * k * w
                for i in range(k):
                    if contiguous:
                        _row(e, p + i * g.e_row, f, q + i * g.f_row, states, s, after, s + i * w, n, g)
                    else:
                        _row_strided(e, p + i * g.e_row, states, s, after, s + i * w, n, g)
                        _add(f, q + i * g.f_row, g.f_l, after, s + i * w, n)
                time = where[group, TIME] + i0 * g.time_l + t
                if any_cut(time, g.time_l, n if g.time_l else 1, row, g.cold, g.has_resets):
                    _cut(f, q, n, after, s, row, resets, where[group, LANE] + i0 * g.lane_l, time, g)
                for i in range(k):
                    _copy(after, s + i * w, 1, y, r + i * g.y_row, g.y_l, n)
            states, after = after, states


@called
def _cut(f: Array, q: int, n: int, after: Array, s: int, row: Array, resets: Array, lane: int, time: int,
         g: Geometry) -> None:  # fmt: skip
    """Select f in the components that are cut from their past."""
    for i in range(g.kind):
        for m in range(n):
            own = i * g.lanes + lane + m * g.lane_l
            if cut_at(time + m * g.time_l, own, g.kind * g.lanes, row, resets, g.cold, g.has_resets):
                after[s + i * g.width + m] = f[q + i * g.f_row + m * g.f_l]


@compiled
def summarise(e: Array, f: Array, P: Array, Q: Array, seen: Array, initial: Array, row: Array, resets: Array,
              where: Array, g: Geometry, first: int, last: int) -> None:  # fmt: skip
    """Compose the steps of blocks to x -> P x + Q, for the tasks [first, last); tiles are of blocks, or of lanes.

    All components of a lane are cut together. Where ``seen`` is set that has happened: Q alone is the state.
    """
    k, w, groups = g.kind, g.width, len(where)
    columns, after = np.empty((k + 1) * k * w, P.dtype), np.empty((k + 1) * k * w, P.dtype)  # of P, then Q
    for task in range(first, last):
        at, j = where[task % groups], task // groups * w
        n = min(w, g.inner - j)
        p, q, time = at[E] + j * g.e_l, at[F] + j * g.f_l, at[TIME] + j * g.time_l
        lane, block, along = at[LANE] + j * g.lane_l, time // g.steps, g.time_l // g.steps
        for t in range(time, time + g.steps):
            for m in range(k + 1):
                for i in range(k):
                    r = (m * k + i) * w
                    if t > time:
                        _row_strided(e, p + i * g.e_row, columns, m * k * w, after, r, n, g)
                    elif m < k:
                        _copy(e, p + i * g.e_row + m * g.e_column, g.e_l, after, r, 1, n)
                    if m == k and t > time:
                        _add(f, q + i * g.f_row, g.f_l, after, r, n)
                    elif m == k:
                        _copy(f, q + i * g.f_row, g.f_l, after, r, 1, n)
            if any_cut(t, g.time_l, n if g.time_l else 1, row, g.cold, g.has_resets):
                _cut(f, q, n, after, k * k * w, row, resets, lane, t, g)
                for b in range(n):
                    own = lane + b * g.lane_l
                    if cut_at(t + b * g.time_l, own, k * g.lanes, row, resets, g.cold, g.has_resets):
                        seen[block + b * along, own] = True
            columns, after = after, columns
            p, q = p + g.e_t, q + g.f_t
        for i in range(k):
            for b in range(n):
                own, of = lane + b * g.lane_l, block + b * along
                Q[of, i, own] = columns[(k * k + i) * w + b]
                for m in range(k):
                    P[of, i, m, own] = columns[(m * k + i) * w + b]


@compiled
def carry(e: Array, f: Array, P: Array, Q: Array, seen: Array, start: Array, where: Array, g: Geometry) -> None:
    """Fill the rows of ``start`` (blocks + 1, k, lanes) after the first; walk a block whose map overflows."""
    k = g.kind
    x, after, before = np.empty(k, P.dtype), np.empty(k, P.dtype), np.empty(k, P.dtype)
    for lane in range(g.lanes):
        for i in range(k):
            x[i] = start[i * g.lanes + lane]
        for j in range(g.inner):
            for i in range(k):
                after[i] = P[j, i, 0, lane] * x[0]
                for m in range(1, k):
                    after[i] += P[j, i, m, lane] * x[m]
                after[i] += Q[j, i, lane]
            if seen[j, lane]:
                for i in range(k):
                    after[i] = Q[j, i, lane]
            elif np.isfinite(x).all() and not np.isfinite(after).all():
                for i in range(k):
                    after[i] = x[i]
                p, q = where[lane, E] + j * g.e_l, where[lane, F] + j * g.f_l
                for _ in range(g.steps):
                    before, after = after, before
                    for i in range(k):
                        after[i] = e[p + i * g.e_row] * before[0]
                        for m in range(1, k):
                            after[i] += e[p + i * g.e_row + m * g.e_column] * before[m]
                        after[i] += f[q + i * g.f_row]
                    p, q = p + g.e_t, q + g.f_t
            for i in range(k):
                x[i] = after[i]
                start[((j + 1) * k + i) * g.lanes + lane] = x[i]


walk_blocks = walk  # one loop serves lanes and blocks

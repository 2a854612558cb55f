"""Compiled loops of scans whose lanes are single numbers: diagonal affine maps and clamps.

``walk`` steps lanes through time, ``summarise`` composes blocks of time into one map a lane, ``carry`` takes states
over those maps. A *task* is a tile of at most ``width`` lanes of a group. A tile can also be made of blocks of time of
one lane, which hides the latency of a step where lanes are few.

Tasks that share memory, the lanes of one tile of blocks, follow each other.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np

from recsolve.base.arrays import Array
from recsolve.kernels.cpu.jit.decorators import called, compiled

AFFINE, CLAMP = 0, 1  # y = e y + f, and y = max(min(e, y), f)


class Geometry(NamedTuple):
    """Sizes and distances, in elements. ``_t`` is from one time to the next, ``_l`` from lane to lane of a group."""

    kind: int  # AFFINE or CLAMP; the number of components in the loops of blocks
    steps: int
    inner: int
    width: int
    bundle: int  # groups that one task walks together, where these are nearer in memory than times
    lanes: int
    e_t: int
    f_t: int
    y_t: int
    e_l: int
    f_l: int
    y_l: int
    start_l: int
    lane_l: int
    time_l: int
    cold: int  # whether time 0 is cut from its past
    has_resets: int  # whether there are resets
    e_row: int  # from component to component
    e_column: int
    f_row: int
    y_row: int


# Columns of ``where``: the origin of each group in e, f, y, in the starts, among all lanes, and in time.
E, F, Y, START, LANE, TIME = range(6)


@called
def act(kind: int, e: float, f: float, x: float) -> float:
    """Return one step; minima and maxima in the forms that pass NaN on."""
    if kind == AFFINE:
        return e * x + f
    low = e if e < x or e != e else x
    return low if low > f or low != low else f


@called
def _through(kind: int, e: float, P: float) -> float:
    """Return the first parameter of a composed map after one more step."""
    if kind == AFFINE:
        return e * P
    return e if e < P or e != e else P


@called
def _step(kind: int, e: Array, p: int, f: Array, q: int, x: Array, s: int, y: Array, r: int, n: int) -> None:
    """Step n contiguous states and copy them to ``y``.

    Places are unsigned: signed ones may count from the end, which keeps a loop from vectorising. Slices would do as
    well, but cost as much as a short row.
    """
    if kind == AFFINE:
        for i in range(n):
            value = e[np.uint64(p + i)] * x[np.uint64(s + i)] + f[np.uint64(q + i)]
            x[np.uint64(s + i)] = value
            y[np.uint64(r + i)] = value
    else:
        for i in range(n):
            value = act(CLAMP, e[np.uint64(p + i)], f[np.uint64(q + i)], x[np.uint64(s + i)])
            x[np.uint64(s + i)] = value
            y[np.uint64(r + i)] = value


@called
def _step_strided(e: Array, p: int, f: Array, q: int, x: Array, y: Array, r: int, g: Geometry) -> None:
    """Step a row that is strided in e, f or y."""
    for i in range(len(x)):
        u, v = e[np.uint64(p + i * g.e_l)], f[np.uint64(q + i * g.f_l)]
        x[i] = act(g.kind, u, v, x[i])
        y[np.uint64(r + i * g.y_l)] = x[i]


@called
def _compose(e: Array, p: int, f: Array, q: int, P: Array, Q: Array, g: Geometry) -> None:
    """Put one more step after the maps x -> act(P, Q, x)."""
    for i in range(len(P)):
        u, v = e[np.uint64(p + i * g.e_l)], f[np.uint64(q + i * g.f_l)]
        P[i] = _through(g.kind, u, P[i])
        Q[i] = act(g.kind, u, v, Q[i])


@called
def _compose_row(kind: int, e: Array, p: int, f: Array, q: int, P: Array, Q: Array) -> None:
    """Do the same with contiguous lanes."""
    if kind == AFFINE:
        for i in range(len(P)):
            u = e[np.uint64(p + i)]
            P[i] = u * P[i]
            Q[i] = u * Q[i] + f[np.uint64(q + i)]
    else:
        for i in range(len(P)):
            u = e[np.uint64(p + i)]
            P[i] = _through(CLAMP, u, P[i])
            Q[i] = act(CLAMP, u, f[np.uint64(q + i)], Q[i])


@called
def gather(base: Array, origin: int, stride: int, row: Array) -> None:
    """Copy a strided row to a buffer."""
    for i in range(len(row)):
        row[i] = base[np.uint64(origin + i * stride)]


@called
def cut_at(t: int, lane: int, lanes: int, row: Array, resets: Array, cold: int, has_resets: int) -> bool:
    """Return whether a lane is cut from its past at time ``t``; row[t] says which row of ``resets`` does so, or -1."""
    if cold and t == 0:
        return True
    return bool(has_resets and row[t] >= 0 and resets[row[t] * lanes + lane])


@called
def any_cut(t: int, stride: int, n: int, row: Array, cold: int, has_resets: int) -> bool:
    """Return whether one of n blocks may be cut, ``stride`` steps apart."""
    if cold and t == 0:
        return True
    for i in range(n if has_resets else 0):  # noqa: SIM110 - Numba compiles no generator in any()
        if row[t + i * stride] >= 0:
            return True
    return False


@called
def _step_four(e: Array, p: int, f: Array, q: int, x: Array, y: Array, r: int, g: Geometry, steps: int) -> None:
    """Step four lanes through time: states in registers, and four chains of operations in flight."""
    a, b, c, d = x[0], x[1], x[2], x[3]
    for _ in range(steps):
        a = act(g.kind, e[np.uint64(p)], f[np.uint64(q)], a)
        b = act(g.kind, e[np.uint64(p + g.e_l)], f[np.uint64(q + g.f_l)], b)
        c = act(g.kind, e[np.uint64(p + 2 * g.e_l)], f[np.uint64(q + 2 * g.f_l)], c)
        d = act(g.kind, e[np.uint64(p + 3 * g.e_l)], f[np.uint64(q + 3 * g.f_l)], d)
        y[np.uint64(r)], y[np.uint64(r + g.y_l)] = a, b
        y[np.uint64(r + 2 * g.y_l)], y[np.uint64(r + 3 * g.y_l)] = c, d
        p, q, r = p + g.e_t, q + g.f_t, r + g.y_t


@called
def _compose_four(e: Array, p: int, f: Array, q: int, P: Array, Q: Array, g: Geometry, steps: int) -> None:
    """Compose steps of four lanes as `_step_four` steps them."""
    A, B, C, D = P[0], P[1], P[2], P[3]
    a, b, c, d = Q[0], Q[1], Q[2], Q[3]
    for _ in range(steps):
        u, v = e[np.uint64(p)], f[np.uint64(q)]
        A, a = _through(g.kind, u, A), act(g.kind, u, v, a)
        u, v = e[np.uint64(p + g.e_l)], f[np.uint64(q + g.f_l)]
        B, b = _through(g.kind, u, B), act(g.kind, u, v, b)
        u, v = e[np.uint64(p + 2 * g.e_l)], f[np.uint64(q + 2 * g.f_l)]
        C, c = _through(g.kind, u, C), act(g.kind, u, v, c)
        u, v = e[np.uint64(p + 3 * g.e_l)], f[np.uint64(q + 3 * g.f_l)]
        D, d = _through(g.kind, u, D), act(g.kind, u, v, d)
        p, q = p + g.e_t, q + g.f_t
    P[0], P[1], P[2], P[3] = A, B, C, D
    Q[0], Q[1], Q[2], Q[3] = a, b, c, d


@compiled
def walk(e: Array, f: Array, y: Array, start: Array, initial: Array, row: Array, resets: Array, where: Array,
         g: Geometry, first: int, last: int) -> None:  # fmt: skip
    """Fill ``y`` from the states ``start`` on, for the tasks [first, last); the lanes of a tile are lanes."""
    groups, bundles, states = len(where), -(-len(where) // g.bundle), np.empty(g.bundle * g.width, y.dtype)
    contiguous = g.e_l == 1 and g.f_l == 1 and g.y_l == 1
    for task in range(first, last):
        i0, begin = task // bundles * g.width, task % bundles * g.bundle
        end, n = min(begin + g.bundle, groups), min(g.width, g.inner - i0)
        for group in range(begin, end):
            gather(start, where[group, START] + i0, 1, states[(group - begin) * g.width :][:n])
        for t in range(g.steps):
            time = where[begin, TIME] + t
            cut = (g.cold and time == 0) or (g.has_resets and row[time] >= 0)
            for group in range(begin, end):
                p, q = where[group, E] + t * g.e_t + i0 * g.e_l, where[group, F] + t * g.f_t + i0 * g.f_l
                r, s = where[group, Y] + t * g.y_t + i0 * g.y_l, (group - begin) * g.width
                if cut:
                    x = states[s : s + n]
                    _step_cut(e, p, f, q, x, y, r, initial, row, resets, where[group, LANE] + i0, time, g)
                elif contiguous:
                    _step(g.kind, e, p, f, q, states, s, y, r, n)
                else:
                    _step_strided(e, p, f, q, states[s : s + n], y, r, g)


@compiled
def walk_blocks(e: Array, f: Array, y: Array, start: Array, initial: Array, row: Array, resets: Array, where: Array,
                g: Geometry, first: int, last: int) -> None:  # fmt: skip
    """Do the same where the lanes of a tile are blocks of one lane."""
    groups, states = len(where), np.empty(g.width, y.dtype)
    for task in range(first, last):
        at, j = where[task % groups], task // groups * g.width
        x = states[: min(g.width, g.inner - j)]
        p, q, r = at[E] + j * g.e_l, at[F] + j * g.f_l, at[Y] + j * g.y_l
        gather(start, at[START] + j * g.start_l, g.start_l, x)
        for time in range(j * g.time_l, j * g.time_l + g.steps):
            if any_cut(time, g.time_l, len(x), row, g.cold, g.has_resets):
                _step_cut(e, p, f, q, x, y, r, initial, row, resets, at[LANE], time, g)
            elif len(x) == 4 and not g.has_resets:
                _step_four(e, p, f, q, x, y, r, g, j * g.time_l + g.steps - time)
                break
            else:
                _step_strided(e, p, f, q, x, y, r, g)
            p, q, r = p + g.e_t, q + g.f_t, r + g.y_t


@called
def _step_cut(e: Array, p: int, f: Array, q: int, x: Array, y: Array, r: int, initial: Array, row: Array, resets: Array,
              lane: int, time: int, g: Geometry) -> None:  # fmt: skip
    """Step a row of which some lanes may be cut, the first of them ``lane`` at ``time``."""
    for i in range(len(x)):
        u, v = e[p + i * g.e_l], f[q + i * g.f_l]
        if cut_at(time + i * g.time_l, lane + i * g.lane_l, g.lanes, row, resets, g.cold, g.has_resets):
            x[i] = _constant(g.kind, u, v, initial[lane + i * g.lane_l])
        else:
            x[i] = act(g.kind, u, v, x[i])
        y[r + i * g.y_l] = x[i]


@called
def _constant(kind: int, e: float, f: float, initial: float) -> float:
    """Return what a step that is cut from its past gives."""
    return f if kind == AFFINE else act(kind, e, f, initial)


@compiled
def summarise(e: Array, f: Array, P: Array, Q: Array, seen: Array, initial: Array, row: Array, resets: Array,
              where: Array, g: Geometry, first: int, last: int) -> None:  # fmt: skip
    """Compose the steps of blocks to x -> act(P, Q, x), for the tasks [first, last); tiles are of blocks, or of lanes.

    Where ``seen`` is set a step was cut from its past: then Q alone is the state, and P means nothing.
    """
    groups, width, maps = len(where), g.width, np.empty((2, g.width), P.dtype)
    for task in range(first, last):
        at, j = where[task % groups], task // groups * width
        n = min(width, g.inner - j)
        P_row, Q_row = maps[0, :n], maps[1, :n]
        p, q, time = at[E] + j * g.e_l, at[F] + j * g.f_l, at[TIME] + j * g.time_l
        lane, block = at[LANE] + j * g.lane_l, time // g.steps
        for t in range(time, time + g.steps):
            if n == 4 and t == time + 1 and not g.has_resets:
                _compose_four(e, p, f, q, P_row, Q_row, g, g.steps - 1)
                break
            if t == time:
                gather(e, p, g.e_l, P_row)
                gather(f, q, g.f_l, Q_row)
            elif g.e_l == 1 and g.f_l == 1:
                _compose_row(g.kind, e, p, f, q, P_row, Q_row)
            else:
                _compose(e, p, f, q, P_row, Q_row, g)
            if any_cut(t, g.time_l, n if g.time_l else 1, row, g.cold, g.has_resets):
                for i in range(n):
                    own = lane + i * g.lane_l
                    if cut_at(t + i * g.time_l, own, g.lanes, row, resets, g.cold, g.has_resets):
                        Q_row[i] = _constant(g.kind, e[p + i * g.e_l], f[q + i * g.f_l], initial[own])
                        seen[block + i * g.time_l // g.steps, own] = True
            p, q = p + g.e_t, q + g.f_t
        for i in range(n):
            to = (block + i, lane) if g.time_l else (block, lane + i)
            P[to], Q[to] = P_row[i], Q_row[i]


@compiled
def carry(e: Array, f: Array, P: Array, Q: Array, seen: Array, start: Array, where: Array, g: Geometry) -> None:
    """Fill the rows of ``start`` (blocks + 1, lanes) after the first from the summaries.

    A composed map may overflow where its steps do not: then the block is walked, in this lane only.
    """
    for lane in range(g.lanes):
        x = start[lane]
        for j in range(g.inner):
            after = Q[j, lane] if seen[j, lane] else act(g.kind, P[j, lane], Q[j, lane], x)
            if not seen[j, lane] and np.isfinite(x) and not np.isfinite(after):
                p, q = where[lane, E] + j * g.e_l, where[lane, F] + j * g.f_l
                after = x
                for _ in range(g.steps):
                    after = act(g.kind, e[p], f[q], after)
                    p, q = p + g.e_t, q + g.f_t
            x = after
            start[(j + 1) * g.lanes + lane] = x

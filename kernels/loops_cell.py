"""Compiled loops of fused solves for cells whose mixings are all diagonal: every lane is a recurrence of its own.

This module is a template that works as it stands. The functions between the two dashed lines are those of one cell,
here h' = tanh(u + w h); code generation puts those of a traced cell in their place (:mod:`recsolve.kernels.source`).

All arrays are flat. A *row* is what n contiguous lanes have at one time. ``at`` keeps where it starts, one place per
array, which ``where`` gives for the first row of each group of lanes and ``by_time`` moves on. A *task* is a tile of at
most ``width`` lanes of a group, or of a bundle of groups. Components of a state lie ``*_c`` apart, in the buffers of a
tile ``width`` apart.

Nothing is compiled with fastmath, and elementary functions write fused products where they mean them, so a cell rounds
alike in all of these loops.
"""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np
from numpy import inf, nan, uint64  # noqa: F401 - cells may have such constants

from recsolve.arrays import Array
from recsolve.kernels.compiled import compiled, inlined
from recsolve.kernels.elementary import functions
from recsolve.kernels.memory import add, get, pointers, put
from recsolve.kernels.rows import COTANGENT, FIRST, JACOBIAN, LANE, X, Y
from recsolve.kernels.tiles import advance, begin

# ---- the cell -------------------------------------------------------------------------------------------------------
F = np.float32
tanh = functions(F)["tanh"]


@inlined
def step(inputs: Any, at: Array, b: int, x: Array, s: int, x_c: int, y: Array, q: int, y_c: int, n: int) -> None:
    """Put f(x) into ``y``: component j of the states starts at x[s + j x_c], of the new ones at y[q + j y_c].

    Row ``b`` of ``at`` has the places of the inputs.
    """
    i0, o0 = inputs[0], at[b, FIRST]
    i1, o1 = inputs[1], at[b, FIRST + 1]
    for i in range(n):
        put(0, y, q + i, tanh(get(i0, o0 + i) + get(i1, o1 + i) * get(x, s + i)))


@inlined
def linear(inputs: Any, at: Array, b: int, x: Array, s: int, x_c: int, y: Array, q: int, y_c: int,
           J: Array, p: int, J_r: int, J_c: int, n: int) -> None:  # fmt: skip
    """Put f(x) into ``y`` and d f_i / d x_j into J, from p + i J_r + j J_c on."""
    i0, o0 = inputs[0], at[b, FIRST]
    i1, o1 = inputs[1], at[b, FIRST + 1]
    for i in range(n):
        w = get(i1, o1 + i)
        h = tanh(get(i0, o0 + i) + w * get(x, s + i))
        put(0, y, q + i, h)
        put(1, J, p + i, w * (F(1.0) - h * h))


@inlined
def pull(inputs: Any, at: Array, b: int, x: Array, s: int, x_c: int, g: Array, carry: Array, width: int,
         drives: Any, sums: Array, n: int) -> None:  # fmt: skip
    """Take the cotangents g of f(x) to x, into ``carry``; to drives, from ``at`` on; and add up those of constants."""
    i0, o0 = inputs[0], at[b, FIRST]
    i1, o1 = inputs[1], at[b, FIRST + 1]
    d0, r0 = drives[0], at[b, FIRST + 2]
    for i in range(n):
        w, old = get(i1, o1 + i), get(x, s + i)
        h = tanh(get(i0, o0 + i) + w * old)
        slope = get(g, i) * (F(1.0) - h * h)
        put(0, carry, i, w * slope)
        put(1, d0, r0 + i, slope)
        add(2, sums, i, old * slope)


# ---- end of the cell ------------------------------------------------------------------------------------------------


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
    cutting: int  # whether there are resets
    window: int


@inlined
def _copy(x: Array, s: int, x_c: int, y: Array, q: int, y_c: int, components: int, n: int) -> None:
    """Copy the rows of all components."""
    for j in range(components):
        for i in range(n):
            y[uint64(q + j * y_c + i)] = x[uint64(s + j * x_c + i)]


@inlined
def _restart(cuts: Array, r: int, restart: Array, lane: int, x: Array, s: int, g: Sizes, n: int) -> None:
    """Put the states that resets start from in place of those of the lanes that row ``r`` of ``cuts`` cuts."""
    for j in range(g.components):
        for i in range(n):
            if cuts[r * g.lanes + lane + i]:
                x[s + j * g.width + i] = restart[j * g.lanes + lane + i]


@compiled
def walk(inputs: Any, y: Array, start: Array, restart: Array, row: Array, cuts: Array, where: Array, by_time: Array,
         g: Sizes, first: int, last: int) -> None:  # fmt: skip
    """Fill ``y`` one step after the other from the states ``start`` on, for the tasks [first, last)."""
    k, w = g.components, g.width
    x, at = np.empty(g.bundle * k * w, y.dtype), np.empty((g.bundle, len(by_time)), np.int64)
    given = pointers(inputs)
    for task in range(first, last):
        count, n = begin(task, where, g, at)
        for b in range(count):
            _copy(start, at[b, LANE], g.lanes, x, b * k * w, w, k, n)
        for t in range(g.steps):
            for b in range(count):
                if g.cutting and row[t] >= 0:
                    _restart(cuts, row[t], restart, at[b, LANE], x, b * k * w, g, n)
                step(given, at, b, x, b * k * w, w, y, at[b, Y], g.y_c, n)
                _copy(y, at[b, Y], g.y_c, x, b * k * w, w, k, n)
            advance(at, by_time, count, 1)


@compiled
def evaluate(inputs: Any, x: Array, y: Array, where: Array, by_time: Array, g: Sizes, first: int, last: int) -> None:
    """Fill ``y`` with f of the states ``x``, row by row, for the tasks [first, last)."""
    at, given = np.empty((g.bundle, len(by_time)), np.int64), pointers(inputs)
    for task in range(first, last):
        count, n = begin(task, where, g, at)
        for _ in range(g.steps):
            for b in range(count):
                step(given, at, b, x, at[b, X], g.x_c, y, at[b, Y], g.y_c, n)
            advance(at, by_time, count, 1)


@compiled
def linearise(inputs: Any, x: Array, y: Array, J: Array, where: Array, by_time: Array, g: Sizes,
              first: int, last: int) -> None:  # fmt: skip
    """Fill ``y`` with f of the states ``x`` and J with its Jacobian, for the tasks [first, last)."""
    at, given = np.empty((g.bundle, len(by_time)), np.int64), pointers(inputs)
    for task in range(first, last):
        count, n = begin(task, where, g, at)
        for _ in range(g.steps):
            for b in range(count):
                linear(given, at, b, x, at[b, X], g.x_c, y, at[b, Y], g.y_c, J, at[b, JACOBIAN], g.J_r, g.J_c, n)
            advance(at, by_time, count, 1)


@compiled
def adjoint(inputs: Any, states: Array, cotangent: Array, y: Array, drives: Any, totals: Array, into: Array,
            start: Array, restart: Array, row: Array, cuts: Array, where: Array, by_time: Array, g: Sizes,
            first: int, last: int) -> None:  # fmt: skip
    """Fill ``y`` with the adjoint variables g[t] = J[t+1]^T g[t+1] + c[t], the last time first.

    On the way the gradients to drives are written, those to constants added up in ``totals`` and those to initial
    states in ``into``, per lane.
    """
    k, w, m = g.components, g.width, len(totals) * g.width
    x, here = np.empty(k * w, y.dtype), np.empty(k * w, y.dtype)
    carries, sums = np.empty((g.bundle, k * w), y.dtype), np.empty((g.bundle, m), y.dtype)
    at = np.empty((g.bundle, len(by_time)), np.int64)
    given, written = pointers(inputs), pointers(drives)
    for task in range(first, last):
        count, n = begin(task, where, g, at)
        advance(at, by_time, count, g.steps - 1)
        carries[:], sums[:] = 0, 0
        for t in range(g.steps - 1, -1, -1):
            for b in range(count):
                carry, lane = carries[b], at[b, LANE]
                _add(carry, cotangent, at[b, COTANGENT], here, g, n)
                _copy(here, 0, w, y, at[b, Y], g.y_c, k, n)
                if t > 0:
                    _copy(states, at[b, X] - by_time[X], g.x_c, x, 0, w, k, n)
                else:
                    _copy(start, lane, g.lanes, x, 0, w, k, n)
                cut = g.cutting and row[t] >= 0
                if cut:
                    _restart(cuts, row[t], restart, lane, x, 0, g, n)
                pull(given, at, b, x, 0, w, here, carry, w, written, sums[b], n)
                if cut:
                    _cut_carry(cuts, row[t], carry, into, lane, g, n)
                if t % _TOGETHER == 0:
                    _flush(sums[b], totals, lane, w, n)
            advance(at, by_time, count, -1)
        for b in range(count):
            for j in range(k):
                for i in range(n):
                    into[j, at[b, LANE] + i] += carries[b, j * w + i]


_TOGETHER = 64  # steps that are added up in the dtype of the states, before float64 takes over


@inlined
def _add(carry: Array, cotangent: Array, p: int, here: Array, g: Sizes, n: int) -> None:
    """Add the cotangent of a step to what comes from the step after it."""
    for j in range(g.components):
        for i in range(n):
            here[uint64(j * g.width + i)] = carry[uint64(j * g.width + i)] + cotangent[uint64(p + j * g.c_c + i)]


@inlined
def _flush(sums: Array, totals: Array, lane: int, width: int, n: int) -> None:
    """Add the sums of a tile to the totals."""
    for m in range(len(totals)):
        for i in range(n):
            totals[m, lane + i] += sums[m * width + i]
            sums[m * width + i] = 0


@inlined
def _cut_carry(cuts: Array, r: int, carry: Array, into: Array, lane: int, g: Sizes, n: int) -> None:
    """Hand what a step that is cut from its past gives its initial state to ``into``."""
    for j in range(g.components):
        for i in range(n):
            if cuts[r * g.lanes + lane + i]:
                into[j, lane + i] += carry[j * g.width + i]
                carry[j * g.width + i] = 0


@compiled
def newton(inputs: Any, y: Array, start: Array, restart: Array, row: Array, cuts: Array, where: Array, by_time: Array,
           g: Sizes, atol: float, rtol: float, counts: Array, first: int, last: int) -> None:  # fmt: skip
    """Fill ``y`` by Newton's method in windows of time that stay in the nearest cache.

    A sweep evaluates the iterate, tests it and makes the next one, which goes to another buffer: what is written is the
    iterate that passed. counts[task] is the number of iterations, in all windows.
    """
    k, w = g.components, g.width
    at, place = np.empty((1, len(by_time)), np.int64), np.empty((1, len(by_time)), np.int64)
    iterates = np.empty((2, (g.window + 1) * k * w), y.dtype)  # row 0 is the state before the window
    x, d, new = np.empty(k * w, y.dtype), np.empty(k * w, y.dtype), np.empty(k * w, y.dtype)
    J, shift = np.empty(k * k * w, y.dtype), np.empty(k * w, y.dtype)
    given = pointers(inputs)
    for task in range(first, last):
        _, n = begin(task, where, g, at)
        lane = at[0, LANE]
        _copy(start, lane, g.lanes, iterates[0], 0, w, k, n)
        for t0 in range(0, g.steps, g.window):
            m = min(g.window, g.steps - t0)
            for t in range(1, m + 1):
                _copy(iterates[0], 0, w, iterates[0], t * k * w, w, k, n)
            now, sweeps, met = 0, 0, False
            while not met and sweeps <= m + 1:
                place[:] = at
                d[:] = 0
                met = True
                _copy(iterates[now], 0, w, iterates[1 - now], 0, w, k, n)
                for t in range(1, m + 1):
                    _copy(iterates[now], (t - 1) * k * w, w, x, 0, w, k, n)
                    if g.cutting and row[t0 + t - 1] >= 0:
                        _restart(cuts, row[t0 + t - 1], restart, lane, x, 0, g, n)
                        _cut_step(cuts, row[t0 + t - 1], d, lane, g, n)
                    linear(given, place, 0, x, 0, w, new, 0, w, J, 0, k * w, w, n)
                    failed = _correct(iterates[now], iterates[1 - now], t * k * w, new, J, d, shift, atol, rtol, g, n)
                    met = met and failed == 0
                    advance(place, by_time, 1, 1)
                now, sweeps = 1 - now, sweeps + 1
            passed = iterates[1 - now]
            for t in range(1, m + 1):
                _copy(passed, t * k * w, w, y, at[0, Y], g.y_c, k, n)
                advance(at, by_time, 1, 1)
            _copy(passed, m * k * w, w, iterates[0], 0, w, k, n)
            counts[task] += sweeps - 1


@inlined
def _cut_step(cuts: Array, r: int, d: Array, lane: int, g: Sizes, n: int) -> None:
    """Let no correction through a step that is cut from its past."""
    for j in range(g.components):
        for i in range(n):
            if cuts[r * g.lanes + lane + i]:
                d[j * g.width + i] = 0


@inlined
def _correct(old: Array, new: Array, o: int, values: Array, J: Array, d: Array, shift: Array, atol: float,
             rtol: float, g: Sizes, n: int) -> int:  # fmt: skip
    """Put F + J d into row ``o`` of the new iterate, its change into d, and return how often the old fails the test.

    Where d is 0, as it is after exact rows, and where the sum is not finite, the new state is F.
    """
    k, w, failed = g.components, g.width, 0
    for a in range(k):
        for i in range(n):
            shift[uint64(a * w + i)] = J[uint64(a * k * w + i)] * d[uint64(i)]
        for b in range(1, k):
            for i in range(n):
                shift[uint64(a * w + i)] += J[uint64((a * k + b) * w + i)] * d[uint64(b * w + i)]
    for a in range(k):
        for i in range(n):
            value, state = values[uint64(a * w + i)], old[uint64(o + a * w + i)]
            size = max(abs(value), abs(state))
            failed += not abs(value - state) <= atol + rtol * size
            moved = value + shift[uint64(a * w + i)]
            moved = moved if abs(moved) < np.inf else value
            new[uint64(o + a * w + i)] = moved
            shift[uint64(a * w + i)] = moved - state
    for a in range(k * w):
        d[a] = shift[a]
    return failed

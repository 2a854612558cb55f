"""Compiled loops of fused solves for cells whose mixings are all diagonal: every lane is a recurrence of its own.

This module is a template that works as it stands. The functions between the two dashed lines are those of one cell,
here h' = tanh(u + w h); code generation puts those of a traced cell in their place
(:mod:`recsolve.kernels.codegen.numba_elementwise`).

All arrays are flat. A *row* is what n contiguous lanes have at one time. ``at`` keeps where it starts, one place per
array, which ``where`` gives for the first row of each group of lanes and ``by_time`` moves on. A *task* is a tile of at
most ``width`` lanes of a group, or of a bundle of groups. Components of a state lie ``*_c`` apart, in the buffers of a
tile ``width`` apart.

Nothing is compiled with fastmath, and elementary functions write fused products where they mean them, so a cell rounds
alike in all of these loops.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy import inf, nan, uint64  # noqa: F401 - cells may have such constants

from recsolve.base.arrays import Array
from recsolve.kernels.cpu.jit.aliasing import add, get, keep, pointer, pointers, put, take, write
from recsolve.kernels.cpu.jit.decorators import compiled, inlined
from recsolve.kernels.cpu.jit.elementary import functions
from recsolve.kernels.cpu.jit.prefetch import LINE
from recsolve.kernels.cpu.jit.tasks import advance, begin
from recsolve.kernels.cpu.placement.rows import COTANGENT, FIRST, JACOBIAN, LANE, X, Y
from recsolve.kernels.cpu.templates.row_loops import (
    Sizes,
    ask,
    ask_one,
    copy,
    copy_counted,
    correct,
    cut_carry,
    flush,
    restart_lanes,
)

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
def pull(inputs: Any, at: Array, b: int, x: Array, s: int, x_c: int, c: Array, o: int, c_c: int, y: Array, q: int,
         y_c: int, carry: Array, p: int, drives: Any, sums: Array, m: int, width: int, n: int) -> None:  # fmt: skip
    """Take the cotangents of f(x) to x and to all that f depends on.

    They are the sum of those in ``c`` and what is in ``carry``, and go to ``y``. Those of x take the place of the
    carry, those of drives go where ``at`` says, and those of constants are added to ``sums``.
    """
    i0, o0 = inputs[0], at[b, FIRST]
    i1, o1 = inputs[1], at[b, FIRST + 1]
    d0, r0 = drives[0], at[b, FIRST + 2]
    for i in range(n):
        w, old = get(i1, o1 + i), get(x, s + i)
        g = get(c, o + i) + take(0, carry, p + i)
        h = tanh(get(i0, o0 + i) + w * old)
        slope = g * (F(1.0) - h * h)
        put(0, carry, p + i, w * slope)
        put(1, d0, r0 + i, slope)
        add(2, sums, m + i, old * slope)
        put(3, y, q + i, g)


# ---- end of the cell ------------------------------------------------------------------------------------------------


IN_LINE = LINE // np.dtype(F).itemsize  # numbers of a line of the cache


@compiled
def walk(inputs: Any, y: Array, start: Array, restart: Array, row: Array, resets: Array, where: Array, by_time: Array,
         g: Sizes, bad: Array, first: int, last: int) -> None:  # fmt: skip
    """Fill ``y`` one step after the other from the states ``start`` on, for the tasks [first, last).

    bad[task] is the number of states that are not finite.
    """
    k, w = g.components, g.width
    buffer, at = np.empty(g.bundle * k * w, y.dtype), np.empty((g.bundle, len(by_time)), np.int64)
    given, x, states = pointers(inputs), pointer(buffer), pointer(y)
    for task in range(first, last):
        count, n = begin(task, where, g, at)
        for b in range(count):
            copy(start, at[b, LANE], g.lanes, x, b * k * w, w, k, n)
        for t in range(g.steps):
            for b in range(count):
                if g.has_resets and row[t] >= 0:
                    restart_lanes(resets, row[t], restart, at[b, LANE], x, b * k * w, g, n)
                step(given, at, b, x, b * k * w, w, states, at[b, Y], g.y_c, n)
                bad[task] += copy_counted(states, at[b, Y], g.y_c, x, b * k * w, w, k, n)
            advance(at, by_time, count, 1)
    keep(buffer)


@compiled
def evaluate(inputs: Any, x: Array, y: Array, where: Array, by_time: Array, g: Sizes, first: int, last: int) -> None:
    """Fill ``y`` with f of the states ``x``, row by row, for the tasks [first, last)."""
    at, given = np.empty((g.bundle, len(by_time)), np.int64), pointers(inputs)
    states, values = pointer(x), pointer(y)
    for task in range(first, last):
        count, n = begin(task, where, g, at)
        for _ in range(g.steps):
            for b in range(count):
                step(given, at, b, states, at[b, X], g.x_c, values, at[b, Y], g.y_c, n)
            advance(at, by_time, count, 1)


@compiled
def linearise(inputs: Any, x: Array, y: Array, J: Array, where: Array, by_time: Array, g: Sizes,
              first: int, last: int) -> None:  # fmt: skip
    """Fill ``y`` with f of the states ``x`` and J with its Jacobian, for the tasks [first, last)."""
    at, given = np.empty((g.bundle, len(by_time)), np.int64), pointers(inputs)
    states, values, entries = pointer(x), pointer(y), pointer(J)
    for task in range(first, last):
        count, n = begin(task, where, g, at)
        for _ in range(g.steps):
            for b in range(count):
                linear(given, at, b, states, at[b, X], g.x_c, values, at[b, Y], g.y_c,
                       entries, at[b, JACOBIAN], g.J_r, g.J_c, n)  # fmt: skip
            advance(at, by_time, count, 1)


@compiled
def adjoint(inputs: Any, states: Array, cotangent: Array, y: Array, drives: Any, totals: Array, into: Array,
            start: Array, restart: Array, row: Array, resets: Array, where: Array, by_time: Array, g: Sizes,
            first: int, last: int) -> None:  # fmt: skip
    """Fill ``y`` with the adjoint variables g[t] = J[t+1]^T g[t+1] + c[t], the last time first.

    On the way the gradients to drives are written, those to constants added up in ``totals`` and those to initial
    states in ``into``, per lane, which at first has what steps after the last one hand to it.
    """
    k, w, m = g.components, g.width, len(totals) * g.width
    buffers = np.empty(k * w, y.dtype), np.empty(g.bundle * k * w, y.dtype), np.empty(g.bundle * m, y.dtype)
    x, carries, sums = pointer(buffers[0]), pointer(buffers[1]), pointer(buffers[2])
    at = np.empty((g.bundle, len(by_time)), np.int64)
    given, written, h, c, result = pointers(inputs), pointers(drives), pointer(states), pointer(cotangent), pointer(y)
    for task in range(first, last):
        count, n = begin(task, where, g, at)
        advance(at, by_time, count, g.steps - 1)
        buffers[1][:], buffers[2][:] = 0, 0
        for b in range(count):
            for j in range(k):
                for i in range(n):
                    buffers[1][b * k * w + j * w + i] = into[j, at[b, LANE] + i]
                    into[j, at[b, LANE] + i] = 0
        for t in range(g.steps - 1, -1, -1):
            cut = g.has_resets and row[t] >= 0
            for b in range(count):
                lane, carry = at[b, LANE], b * k * w
                before, s, x_c = h, at[b, X] - by_time[X], g.x_c
                if t == 0 or cut:
                    if t > 0:
                        copy(h, s, x_c, x, 0, w, k, n)
                    else:
                        copy(start, lane, g.lanes, x, 0, w, k, n)
                    if cut:
                        restart_lanes(resets, row[t], restart, lane, x, 0, g, n)
                    before, s, x_c = x, 0, w
                ask(given, at, b, FIRST, by_time, n, IN_LINE)
                ask(written, at, b, FIRST + len(given), by_time, n, IN_LINE)
                ask_one(h, at, b, X, 2, by_time, n, IN_LINE)
                ask_one(c, at, b, COTANGENT, 1, by_time, n, IN_LINE)
                ask_one(result, at, b, Y, 1, by_time, n, IN_LINE)
                pull(given, at, b, before, s, x_c, c, at[b, COTANGENT], g.c_c, result, at[b, Y], g.y_c,
                     carries, carry, written, sums, b * m, w, n)  # fmt: skip
                if cut:
                    cut_carry(resets, row[t], buffers[1], carry, into, lane, g, n)
                if t % _TOGETHER == 0:
                    flush(buffers[2], b * m, totals, lane, w, n)
            advance(at, by_time, count, -1)
        for b in range(count):
            for j in range(k):
                for i in range(n):
                    into[j, at[b, LANE] + i] += buffers[1][b * k * w + j * w + i]
    keep(buffers)


_TOGETHER = 64  # steps that are added up in the dtype of the states, before float64 takes over


@compiled
def newton(inputs: Any, y: Array, start: Array, restart: Array, row: Array, resets: Array, where: Array, by_time: Array,
           g: Sizes, atol: float, rtol: float, counts: Array, first: int, last: int) -> None:  # fmt: skip
    """Fill ``y`` by Newton's method in windows of time that stay in the nearest cache.

    A sweep evaluates the iterate, tests it and makes the next one, which goes to another buffer: what is written is the
    iterate that passed. counts[task] is the number of iterations, in all windows.
    """
    k, w, row_size = g.components, g.width, g.components * g.width
    at, place = np.empty((1, len(by_time)), np.int64), np.empty((1, len(by_time)), np.int64)
    # Two iterates, whose row 0 is the state before the window; and rows of the state before, d, F, J and J d.
    size = (g.window + 1) * row_size
    iterates, buffer = np.empty(2 * size, y.dtype), np.empty((4 + k) * row_size, y.dtype)
    h, x, given, result = pointer(iterates), pointer(buffer), pointers(inputs), pointer(y)
    d, F_row, shift, J = row_size, 2 * row_size, 3 * row_size, 4 * row_size
    for task in range(first, last):
        _, n = begin(task, where, g, at)
        lane = at[0, LANE]
        copy(start, lane, g.lanes, h, 0, w, k, n)
        for t0 in range(0, g.steps, g.window):
            m = min(g.window, g.steps - t0)
            for t in range(1, m + 1):
                copy(h, 0, w, h, t * row_size, w, k, n)
            now, sweeps, met = 0, 0, False
            while not met and sweeps <= m + 1:
                old, new = now * size, (1 - now) * size
                for a in range(len(by_time)):
                    place[0, a] = at[0, a]
                buffer[d : d + row_size] = 0
                met = True
                copy(h, old, w, h, new, w, k, n)
                for t in range(1, m + 1):
                    copy(h, old + (t - 1) * row_size, w, x, 0, w, k, n)
                    if g.has_resets and row[t0 + t - 1] >= 0:
                        restart_lanes(resets, row[t0 + t - 1], restart, lane, x, 0, g, n)
                        _cut_step(resets, row[t0 + t - 1], x, d, lane, g, n)
                    linear(given, place, 0, x, 0, w, x, F_row, w, x, J, row_size, w, n)
                    failed = correct(h, old + t * row_size, new + t * row_size, x, d, F_row, shift, J, atol, rtol, g, n)
                    met = met and failed == 0
                    advance(place, by_time, 1, 1)
                now, sweeps = 1 - now, sweeps + 1
            passed = (1 - now) * size
            for t in range(1, m + 1):
                copy(h, passed + t * row_size, w, result, at[0, Y], g.y_c, k, n)
                advance(at, by_time, 1, 1)
            copy(h, passed + m * row_size, w, h, 0, w, k, n)
            counts[task] += sweeps - 1
    keep(iterates)
    keep(buffer)


@inlined
def _cut_step(resets: Array, r: int, x: Array, d: int, lane: int, g: Sizes, n: int) -> None:
    """Let no correction through a step that is cut from its past."""
    for j in range(g.components):
        for i in range(n):
            if resets[r * g.lanes + lane + i]:
                write(x, d + j * g.width + i, F(0.0))

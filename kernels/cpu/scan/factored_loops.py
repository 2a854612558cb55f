"""Compiled walk through time with a factored Jacobian: a small interpreter whose registers are rows of numbers.

A product with a factored Jacobian, or with its transpose, is a short list of instructions: multiply a register by an
elementwise partial, add such a product to another, mix by a matrix, clear. A row holds all sequences of a head, head
after head, so an instruction is long enough to pay for being looked up.
"""

from __future__ import annotations

import numpy as np

from recsolve.base.arrays import Array
from recsolve.kernels.cpu.jit.decorators import compiled, inlined
from recsolve.kernels.cpu.scan.factored_operations import CLEAR, MIX, MULTIPLY


@inlined
def _elementwise(operation: int, P: Array, p: int, x: Array, s: int, r: int, n: int) -> None:
    """Put P[p:] x[s:] into x[r:], or add it there."""
    if operation == MULTIPLY:
        for i in range(n):
            x[np.uint64(r + i)] = P[np.uint64(p + i)] * x[np.uint64(s + i)]
    else:
        for i in range(n):
            x[np.uint64(r + i)] += P[np.uint64(p + i)] * x[np.uint64(s + i)]


@inlined
def _mix_two(W: Array, w: int, x: Array, s: int, r: int, n: int) -> None:
    """Mix two rows of n numbers that follow each other; the matrix at w, transposed, is read once for both."""
    for i in range(2 * n):
        x[np.uint64(r + i)] = 0
    for j in range(0, n - 3, 4):
        a, b, c, d = x[np.uint64(s + j)], x[np.uint64(s + j + 1)], x[np.uint64(s + j + 2)], x[np.uint64(s + j + 3)]
        e, f = x[np.uint64(s + n + j)], x[np.uint64(s + n + j + 1)]
        g, h = x[np.uint64(s + n + j + 2)], x[np.uint64(s + n + j + 3)]
        q = w + j * n
        for i in range(n):
            k, m = W[np.uint64(q + i)], W[np.uint64(q + n + i)]
            u, v = W[np.uint64(q + 2 * n + i)], W[np.uint64(q + 3 * n + i)]
            x[np.uint64(r + i)] = x[np.uint64(r + i)] + a * k + b * m + c * u + d * v
            x[np.uint64(r + n + i)] = x[np.uint64(r + n + i)] + e * k + f * m + g * u + h * v
    for j in range(n - n % 4, n):
        a, e = x[np.uint64(s + j)], x[np.uint64(s + n + j)]
        for i in range(n):
            x[np.uint64(r + i)] += a * W[np.uint64(w + j * n + i)]
            x[np.uint64(r + n + i)] += e * W[np.uint64(w + j * n + i)]


@inlined
def _mix_one(W: Array, w: int, x: Array, s: int, r: int, n: int) -> None:
    """Mix one row as `_mix_two` mixes two, in the same order of sums."""
    for i in range(n):
        x[np.uint64(r + i)] = 0
    for j in range(0, n - 3, 4):
        a, b, c, d = x[np.uint64(s + j)], x[np.uint64(s + j + 1)], x[np.uint64(s + j + 2)], x[np.uint64(s + j + 3)]
        q = w + j * n
        for i in range(n):
            total = x[np.uint64(r + i)] + a * W[np.uint64(q + i)] + b * W[np.uint64(q + n + i)]
            total = total + c * W[np.uint64(q + 2 * n + i)]
            x[np.uint64(r + i)] = total + d * W[np.uint64(q + 3 * n + i)]
    for j in range(n - n % 4, n):
        a = x[np.uint64(s + j)]
        for i in range(n):
            x[np.uint64(r + i)] += a * W[np.uint64(w + j * n + i)]


@inlined
def _mix(W: Array, w: int, heads: int, x: Array, s: int, r: int, width: int, n: int) -> None:
    """Mix a register: ``width`` numbers per head, of which every n are one sequence."""
    for head in range(heads):
        matrix, at = w + head * n * n, head * width
        for i in range(0, width - n, 2 * n):
            _mix_two(W, matrix, x, s + at + i, r + at + i, n)
        if width // n % 2:
            _mix_one(W, matrix, x, s + at + width - n, r + at + width - n, n)


@compiled
def walk(code: Array, P: Array, W: Array, heads: int, n: int, x: Array, state: Array, result: Array, cutting: Array,
         f: Array, cuts: Array, y: Array) -> None:  # fmt: skip
    """Fill ``y`` (steps, k, row) for f of that shape; the states before are in the registers ``state`` of x.

    P holds the partials (partials, steps or more, row), W the transposed matrices (matrices, heads, n, n). A step is
    cut where ``cuts`` is set, if ``cutting`` says that there is such a place.
    """
    steps, k, row = f.shape
    P_flat, x_flat, length = P.ravel(), x.ravel(), P.shape[1]
    for t in range(steps):
        for at in range(len(code)):
            operation, target, source, operand = code[at, 0], code[at, 1] * row, code[at, 2] * row, code[at, 3]
            if operation == MIX:
                _mix(W, operand * heads * n * n, heads, x_flat, source, target, row // heads, n)
            elif operation == CLEAR:
                x[code[at, 1]] = 0
            else:
                _elementwise(operation, P_flat, (operand * length + t) * row, x_flat, source, target, row)
        for j in range(k):
            after, before = x[result[j]], x[state[j]]
            for i in range(row):
                before[i] = after[i] + f[t, j, i]
            if cutting[t]:
                for i in range(row):
                    before[i] = f[t, j, i] if cuts[t, j, i] else before[i]
            for i in range(row):
                y[t, j, i] = before[i]

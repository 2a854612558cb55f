"""The compiled scan of factored Jacobians: one product J[t] v a step, walked through time.

The product is compiled to instructions (see `loops_factored`), forwards or transposed. Partials of any strides are
gathered by NumPy, some steps at a time, into a buffer that fits a cache; they are small beside the work of the
mixings. Threads take shares of an axis of the batch or of the lanes, which do not mix. Steps whose matrix products are
so large that the time of a call in Python does not matter stay with NumPy and its BLAS.
"""

from __future__ import annotations

from collections.abc import Mapping
from math import prod
from typing import Any

import numpy as np

from recsolve.base.arrays import Array, broadcast, kind_of
from recsolve.base.layout import Layout
from recsolve.jacobians import Jacobian
from recsolve.jacobians.factored import Call, Factored, Transposed
from recsolve.kernels.cpu.scan.factored_operations import ADD, CLEAR, MIX, MULTIPLY
from recsolve.kernels.cpu.threads import spread
from recsolve.mixings import Mixing, has_matrix, matrix_of

_LARGE = 1 << 22  # multiplications of a mixing, in one step, from which on BLAS is as fast
_SPREAD = 1 << 25  # multiplications in all from which on threads pay: they take turns in Python, once a buffer
_BUFFER = 1 << 20  # bytes of partials and states that are gathered at a time


def is_factored(e: Any) -> bool:
    """Return whether elements are a factored Jacobian or the transpose of one."""
    return type(e) is Factored or (type(e) is Transposed and type(e.original) is Factored)


def walks(e: Jacobian, dtype: np.dtype[Any]) -> bool:
    """Return whether there is a compiled walk for a factored Jacobian."""
    original: Any = e if type(e) is Factored else e.transpose()
    arrays = [p for x in (*(call.partials for call in original.calls), *original.outputs) for p in x.values()]
    arrays += [call.mixing.weight for call in original.calls]
    layout = original.layout
    if layout.units is None or prod((*original.leading[1:], *layout.lanes, layout.units, layout.units)) >= _LARGE:
        return False
    known = all(has_matrix(call.mixing) for call in original.calls)
    return known and all(kind_of(x) == "numpy" and x.dtype == dtype for x in arrays)


class _Program:
    """The instructions of one product, the partials and the matrices they name, and where states come in and out."""

    def __init__(self, e: Jacobian):
        self.code: list[tuple[int, int, int, int]] = []
        self.partials: list[Array] = []
        self.mixings: list[tuple[Mixing, bool]] = []  # and whether it is applied transposed
        self.registers, self.filled = 0, set[int]()
        k = e.layout.components
        original: Any = e if type(e) is Factored else e.transpose()
        self.state, leaves = self._new(k), self._new(len(original.calls))
        if type(e) is Factored:
            self._forwards(original.calls, original.outputs, self.state + leaves)
        else:
            self._transposed(original.calls, original.outputs, self._new(k) + leaves)
        self.code += [(CLEAR, register, 0, 0) for register in self.result if register not in self.filled]

    def _new(self, count: int) -> list[int]:
        self.registers += count
        return list(range(self.registers - count, self.registers))

    def _add(self, target: int, source: int, partial: Array) -> None:
        self.code.append((ADD if target in self.filled else MULTIPLY, target, source, len(self.partials)))
        self.partials.append(partial)
        self.filled.add(target)

    def _mix(self, target: int, source: int, mixing: Mixing, transposed: bool) -> None:
        self.code.append((MIX, target, source, len(self.mixings)))
        self.mixings.append((mixing, transposed))
        self.filled.add(target)

    def _combine(self, target: int, partials: Mapping[int, Array], leaves: list[int]) -> None:
        for leaf, partial in partials.items():
            if leaves[leaf] in self.filled:
                self._add(target, leaves[leaf], partial)

    def _forwards(self, calls: list[Call], outputs: list[Mapping[int, Array]], leaves: list[int]) -> None:
        k = len(self.state)
        self.filled.update(self.state)
        inputs, self.result = self._new(len(calls)), self._new(k)
        for i, call in enumerate(calls):
            self._combine(inputs[i], call.partials, leaves)
            if inputs[i] in self.filled:
                self._mix(leaves[k + i], inputs[i], call.mixing, transposed=False)
        for j, partials in enumerate(outputs):
            self._combine(self.result[j], partials, leaves)

    def _transposed(self, calls: list[Call], outputs: list[Mapping[int, Array]], leaves: list[int]) -> None:
        k = len(self.state)
        self.result = leaves[:k]
        mixed = self._new(len(calls))
        for j, partials in enumerate(outputs):
            for leaf, partial in partials.items():
                self._add(leaves[leaf], self.state[j], partial)
        for i in reversed(range(len(calls))):
            if leaves[k + i] in self.filled:
                self._mix(mixed[i], leaves[k + i], calls[i].mixing, transposed=True)
                for leaf, partial in calls[i].partials.items():
                    self._add(leaves[leaf], mixed[i], partial)

    def matrices(self, dtype: np.dtype[Any], units: int) -> Array:
        """Return all matrices (matrices, heads, n, n), rows and columns exchanged; one head if they see no heads."""
        found = [(matrix_of(m), transposed) for m, transposed in self.mixings]
        W = [w if transposed else w.swapaxes(-1, -2) for w, transposed in found]
        heads = max((len(w) for w in W if w.ndim == 3), default=1)
        table = np.empty((len(W), heads, units, units), dtype)
        for own, w in zip(table, W, strict=True):
            own[...] = w
        return table


def walk_factored(e: Jacobian, f: Array, y: Array, *, initial: Array | None, reset: Array | None, workers: int) -> None:
    """Fill ``y`` with y[t] = e[t] y[t-1] + f[t].

    Parameters
    ----------
    e : Factored, or its transpose
    f, y : array, shape (T, *batch, *event)
    initial : array, optional
        y[-1]; without it the first step is cut from its past.
    reset : array of bool, optional
        Steps that are cut from their past, broadcasting against ``f``.
    workers : int
        Threads at most. Sequences do not mix, so the result does not depend on them.
    """
    layout, program = e.layout, _Program(e)
    matrices = program.matrices(f.dtype, f.shape[-1])
    batch = f.ndim - 1 - len(layout.event)
    part = (*f.shape[: 1 + batch], *f.shape[f.ndim - len(layout.lanes) - 1 :])
    order = (0, *range(1 + batch, len(part) - 1), *range(1, 1 + batch), len(part) - 1)
    partials = [broadcast(p, part).transpose(order) for p in program.partials]
    rows = [_lanes_first(x, batch, layout) for x in (f, y)]
    start = None if initial is None else _lanes_first(broadcast(initial, f.shape[1:])[None], batch, layout)[0]
    mask = None if reset is None else _lanes_first(broadcast(reset, f.shape), batch, layout)
    shape = rows[0].shape[2:-1]
    axis = int(np.argmax(shape)) if shape else 0

    work = f.size * f.shape[-1] * max(len(program.mixings), 1)

    def share(first: int, last: int) -> None:
        own = (slice(None),) * axis + (slice(first, last),) if shape else ()
        part = (slice(None), *own)
        walk = _Share(program, [p[part] for p in partials], matrices)
        if axis == 0 and layout.lanes and matrices.shape[1] > 1:
            walk.matrices = matrices[:, first:last]
        cuts = None if mask is None else mask[(slice(None), *part)]
        drive, out = (x[(slice(None), *part)] for x in rows)
        walk.run(drive, out, None if start is None else start[part], cuts)

    spread(share, shape[axis] if shape else 1, workers if work >= _SPREAD else 1)


def _lanes_first(x: Array, batch: int, layout: Layout) -> Array:
    """Return (T, *batch, [k], *lanes, n) as a view (T, k, *lanes, *batch, n)."""
    moved = x.transpose(0, *range(1 + batch, x.ndim - 1), *range(1, 1 + batch), x.ndim - 1)
    return moved if layout.components > 1 else moved[:, None]


class _Share:
    """The walk of some sequences, as many steps at a time as the buffers hold."""

    def __init__(self, program: _Program, partials: list[Array], matrices: Array):
        self.partials, self.matrices, self.registers = partials, matrices, program.registers
        self.code, self.state, self.result = (
            np.array(x, dtype=np.int64) for x in (program.code, program.state, program.result)
        )

    def run(self, f: Array, y: Array, start: Array | None, mask: Array | None) -> None:
        """Fill y (T, k, *lanes, *batch, n) from f of that shape."""
        from recsolve.kernels.cpu.scan import factored_loops

        (T, k, *shape), W = f.shape, self.matrices
        row = f[0, 0].size
        length = min(max(_BUFFER // ((len(self.partials) + 2 * k) * row * f.itemsize), 1), T)
        partials = np.empty((len(self.partials), length, *shape), f.dtype)
        drive, states = np.empty((2, length, k, *shape), f.dtype)
        cuts, cutting = np.zeros((length, k, *shape), np.bool_), np.zeros(length, np.bool_)
        registers = np.zeros((self.registers, row), f.dtype)
        if start is not None:
            registers[self.state] = start.reshape(k, row)
        for begin in range(0, T, length):
            steps = min(length, T - begin)
            now = slice(begin, begin + steps)
            for buffer, partial in zip(partials, self.partials, strict=True):
                buffer[:steps] = partial[now]
            drive[:steps] = f[now]
            if mask is not None or begin in (0, length):  # the last of these clears what the first has set
                cuts[:steps] = False if mask is None else mask[now]
                cuts[0] |= start is None and begin == 0
                cutting[:steps] = cuts[:steps].any(axis=tuple(range(1, cuts.ndim)))
            rows = (x[:steps].reshape(steps, k, row) for x in (drive, cuts, states))
            factored_loops.walk(
                self.code, partials.reshape(-1, length, row), W.reshape(-1), W.shape[1], f.shape[-1],
                registers, self.state, self.result, cutting, *rows,
            )  # fmt: skip
            y[now] = states[:steps]

"""The engine of a cell whose mixings are all diagonal: loops or kernels that are the whole of a solve."""

from __future__ import annotations

from functools import cached_property, partial
from math import prod
from typing import TYPE_CHECKING, Any

import numpy as np

from recsolve.base.arrays import Array, namespace
from recsolve.base.tolerance import Tolerance
from recsolve.jacobians import Block, Diagonal, Jacobian
from recsolve.kernels.gpu.cell.solve_outcome import Findings, findings, findings_of_all
from recsolve.kernels.starts import Starts
from recsolve.mixings import plain_of
from recsolve.recurrence.compilation import Backend, kernel_of
from recsolve.recurrence.current import Traced
from recsolve.recurrence.engine import Asked, Backward, Brief, CompiledEngine, Verdict, Way

if TYPE_CHECKING:
    from recsolve.kernels.gpu.cell.bound_cell import Bound
    from recsolve.kernels.gpu.iterate import Iterations
    from recsolve.recurrence.cell_recurrence import CellRecurrence


class FusedEngine(CompiledEngine):
    """Compiled loops on NumPy arrays, CUDA kernels on CuPy's, bound to the arrays of one recurrence.

    Parameters
    ----------
    recurrence : CellRecurrence
        All of whose mixings are diagonal.
    traced : Traced
        Its cell.
    backend : {"numba", "cuda"}
    """

    compiled = whole = True

    def __init__(self, recurrence: CellRecurrence, traced: Traced, backend: Backend):
        super().__init__(recurrence, traced, backend)
        cell = recurrence.cell
        names, self.batch = cell.cell, len(recurrence.batch)
        self.loops = kernel_of("fused", backend, traced, recurrence.dtype)
        inputs = [recurrence.drive[name] for name in names.drives]
        inputs += [plain_of(cell.mixings[name]).weight for name in names.mixings]
        inputs += [cell.parameters[name] for name in names.parameters]
        self.inputs, self.starts = recurrence.held(inputs)

    @cached_property
    def _at_once(self) -> Any:
        layout, shape = self.recurrence.layout, self.recurrence.shape
        part = shape if layout.components == 1 else (*shape[: 1 + self.batch], *shape[2 + self.batch :])
        return self.loops.at_once(self.inputs, part, self.batch)

    def guess(self) -> Array:
        rec = self.recurrence
        return self.apply(namespace(rec.initial).broadcast_to(rec.initial, rec.shape))

    def apply(self, previous: Array) -> Array:
        values = self.recurrence.empty()
        self._at_once.evaluate(previous, values)
        return values

    def _differentiated(self, previous: Array) -> tuple[Array, Jacobian]:
        layout, values, axis = self.recurrence.layout, self.recurrence.empty(), 1 + self.batch
        if layout.components == 1:
            entries = np.empty_like(values)
            self._at_once.linearise(previous, values, entries)
            return values, Diagonal(entries, layout)
        shape = (*values.shape[:axis], layout.components, *values.shape[axis:])
        entries = self.recurrence.empty(shape)
        self._at_once.linearise(previous, values, entries)
        return values, Block(entries, layout)

    def bound(self, iterations: Iterations) -> Bound | None:
        if self.backend != "cuda":
            return None
        return iterations.bind(self.loops.elementwise, self.inputs, self.starts, self.recurrence.drive_like)

    def _walked(self, states: Array, start: int) -> bool:
        self.loops.walk(self.inputs, states, self.batch, self.starts, start)
        return True

    def solve(self, way: Way, tolerance: Tolerance, window: int = 256, most: int | None = None) -> Verdict | None:
        if way not in ("walk", "windows") or (way == "windows" and tolerance.lanes is not None):
            return None
        states, rows = self.recurrence.empty(), self.recurrence.length * prod(self.recurrence.batch)
        if self.backend == "cuda":
            test = (0.0, 0.0) if way == "walk" else (tolerance.atol, tolerance.rtol)
            outcome = self.loops.solve(self.inputs, states, self.batch, self.starts, test)
            return _verdict(states, rows, test, outcome.verdict())
        if way == "walk":
            walk = partial(self.loops.walk, self.inputs, states, self.batch, self.starts)
            if (finite := self._if_ready("walk", walk)) is None:
                return None
            # The loop defines the answer, and f rounds alike in all loops of a cell: its residual is 0.
            return Verdict(states, 0, 0.0 if finite else None, counts={"nfev": 1, "rows": rows})
        test = tolerance.atol, tolerance.rtol
        by_newton = partial(self.loops.newton, self.inputs, states, self.batch, self.starts, window, test)
        if (found := self._if_ready("newton", by_newton)) is None:
            return None
        iterations, sweeps, counted = found
        counts = {"nfev": max(iterations, 1), "njev": iterations, "rows": round(sweeps * rows), **counted}
        return Verdict(states, iterations, counts=counts)

    def ask(self, tolerance: Tolerance, start: Array | None = None) -> Asked | None:
        if self.backend != "cuda" or tolerance.lanes is not None or 0 in self.recurrence.shape:
            return None
        states, test = self.recurrence.empty(), (tolerance.atol, tolerance.rtol)
        starts = self.starts if start is None else Starts(start, *self.starts[1:])
        outcome = self.loops.solve(self.inputs, states, self.batch, starts, test)
        rows = self.recurrence.length * prod(self.recurrence.batch)

        def verdict(told: Array, sizes: tuple[int, int]) -> Verdict:
            return _verdict(states, rows, test, findings(told, *sizes))

        def brief(told: Array, sizes: list[tuple[float, float]]) -> list[Brief]:
            return _briefs(states.dtype, test, told, sizes)

        return Asked(states, outcome.told, (outcome.plan.segments, outcome.groups), outcome.judge, verdict, brief)

    def adjoint(self, states: Array, cotangent: Array, incoming: Array | None = None) -> Backward | None:
        rec = self.recurrence
        if rec.reset is not None and rec.restart is not rec.initial and bool(rec.reset.any()):
            return None  # loops add up what all starts take back to h[0], and a window may have two kinds of them
        call = partial(self.loops.adjoint, self.inputs, states, cotangent, self.batch, self.starts, incoming)
        return self._if_ready("adjoint", call)


def _verdict(states: Array, rows: int, test: tuple[float, float], found: Findings) -> Verdict:
    """Return what kernels say of the states that they have written and read again."""
    worst = _no_less(states.dtype, found.worst, found.segments)
    iterations, good = max(found.sweeps - 1, 0) if max(test) else 0, found.complete and found.finite and found.met
    again = {"segments": found.segments, "segments_redone": found.redone, "segments_walked": found.walked}
    counts = {"nfev": max(found.sweeps, 1), "njev": iterations, "rows": max(found.sweeps, 1) * rows, **again}
    return Verdict(states, iterations, worst if good else None, counts=counts, largest=found.largest)


def _briefs(
    dtype: np.dtype[Any], test: tuple[float, float], told: Array, sizes: list[tuple[float, float]]
) -> list[Brief]:
    """Return the same of several solves, as far as others want to know it."""
    found, iterates = [], max(test) > 0
    for (good, worst, sweeps, largest), (segments, _) in zip(findings_of_all(told, sizes), sizes, strict=True):
        if segments > 1:
            worst = _no_less(dtype, worst, segments)
        found.append(Brief(good, worst, sweeps - 1 if iterates and sweeps else 0, largest))
    return found


def _no_less(dtype: np.dtype[Any], worst: float, segments: float) -> float:
    """Return the largest defect, which kernels give in float32 where there are segments, as no less than it was."""
    if segments > 1 and dtype == np.float64:
        return float(np.nextafter(np.float32(worst), np.float32(np.inf)))
    return worst

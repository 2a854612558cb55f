"""Quasi-Newton on the GPU for cells whose mixings see the state: sweeps of products, one stage, a scan and an update.

With P = W h, a sweep evaluates F[t] = f(h[t-1], P[t-1], u[t]), the residual r = F - h and the k x k block A of each
unit, scans d[t] = A[t] d[t-1] + r[t], and moves h <- h + d = F[t] + A[t] d[t-1]. What is scanned is the correction, so
the next product is P + W d, and d is small: factors rounded to eleven bits (TF32) lose 2^-11 of it, not of h. Now and
then P is computed afresh in full precision: when the residual has fallen to what the rough products may have left in P,
and whenever the test is passed, for nothing else is a test. Without scans (A = 0) this is Jacobi's iteration.

The host looks at what a stage reports while the device scans, so the device never waits for it.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from math import ceil
from typing import Any, NamedTuple

import numpy as np

from recsolve.base.arrays import Array, address, empty_in_order, memory_order, namespace
from recsolve.base.layout import Layout
from recsolve.jacobians import Block, Diagonal
from recsolve.kernels.codegen.cuda_elementwise import stages_text
from recsolve.kernels.codegen.cuda_stages import SweepCell, sweep_cell
from recsolve.kernels.codegen.cuda_structures import structure
from recsolve.kernels.gpu.cell.products import stacked
from recsolve.kernels.gpu.cell.stage_launches import REPORT, THREADS, View, fill_lanes, launch, view_all
from recsolve.kernels.gpu.cell.sweep_progress import Progress, Report
from recsolve.kernels.gpu.device import Machine, on
from recsolve.kernels.gpu.scan.scan_cuda import launches
from recsolve.kernels.gpu.views import aligned
from recsolve.kernels.monoids.monoid import MONOIDS
from recsolve.kernels.registry import TracedCell, register
from recsolve.kernels.starts import Starts

_STRICTER = 0.9  # share of the tolerance that is asked for: whoever evaluates f again may round otherwise
_NUMBERS = {"float32": "float", "float64": "double"}
_UPDATED = 8 * THREADS  # numbers of a block of an update


@dataclass(frozen=True)
class Given:
    """What a recurrence gives to its sweeps.

    Attributes
    ----------
    drives : sequence of array
        Broadcasting to (T, *batch, *lanes, n).
    constants : sequence of array
        Broadcasting to (*lanes, n): weights of diagonal mixings, parameters, diagonals of matrices.
    weights : mapping of array
        The matrices of the mixings by name.
    starts : Starts
    shape : tuple of int
        Of the states.
    layout : Layout
    like : array
        Whose memory order the states take.
    """

    drives: Sequence[Array]
    constants: Sequence[Array]
    weights: Mapping[str, Array]
    starts: Starts
    shape: tuple[int, ...]
    layout: Layout
    like: Array

    @property
    def batch(self) -> int:
        """The number of batch axes."""
        return len(self.shape) - 1 - len(self.layout.event)


class Swept(NamedTuple):
    """What sweeps have found.

    Attributes
    ----------
    states : array
    iterations : int
    residual : array or None
        F - h; None where states are a little beyond the tolerance.
    largest : float
        max |F|, rounded to float32.
    """

    states: Array
    iterations: int
    residual: Array | None
    largest: float


class SweepsCuda:
    """The sweeps of one cell.

    Parameters
    ----------
    cell : SweepCell
    machine : Machine, optional
        By default the device of the arrays, on its current stream.
    """

    def __init__(self, cell: SweepCell, machine: Machine | None = None):
        self.cell, self._machine = cell, machine
        self.code = stages_text([cell.source], "sweep")

    def solve(
        self, given: Given, tol: tuple[float, float], *, scanned: bool = True, most: int | None = None
    ) -> Swept | None:
        """Return states that pass the test |r| <= atol + rtol max(|h|, |F|), or are a little beyond the tolerance.

        None is for what did not converge (much beyond the tolerance), is not finite, or has no scan.

        Parameters
        ----------
        given : Given
        tol : tuple of float
            (atol, rtol).
        scanned : bool
            Without scans this is Jacobi's iteration.
        most : int, optional
            Sweeps.
        """
        if given.like.dtype.name not in _NUMBERS or not np.prod(given.shape):
            return None
        with on(given.like, self._machine) as machine:
            work = _Work(self, machine, given, tol, scanned)
            return work.run(most) if work.scan is not None else None


class _Work:
    """The arrays of one solve, and what is launched over them."""

    def __init__(self, sweeps: SweepsCuda, machine: Machine, given: Given, tol: tuple[float, float], scanned: bool):
        self.cell, self.code, self.machine, self.given = sweeps.cell, sweeps.code, machine, given
        self.tol, self.linear = tol, "true" if scanned else "false"
        k, axis, like = self.cell.components, 1 + given.batch, given.like
        self.xp, self.number = namespace(like), _NUMBERS[like.dtype.name]
        self.axis = axis
        self.states, self.residual = (empty_in_order(given.shape, like, axis) for _ in range(2))
        self.correction, self.matrix = self.residual, None
        self.scan: Callable[[], None] | None = lambda: None  # without scans the residual is the correction
        if scanned:
            self.correction = empty_in_order(given.shape, like, axis)
            square = (k, k) if k > 1 else ()
            part = given.shape[axis + (k > 1) :]
            self.matrix = empty_in_order((*given.shape[:axis], *square, *part), like, axis)
            A = Block(self.matrix, given.layout) if k > 1 else Diagonal(self.matrix, given.layout)
            reset = given.starts.reset
            mask = None if reset is None else reset.reshape(reset.shape + (1,) * len(given.layout.event))
            self.scan = launches(MONOIDS["affine"], (A, self.residual), self.correction, machine, reset=mask)
        self.report, self.known = (self.xp.zeros(REPORT, np.int32) for _ in range(2))
        self.reader = machine.reader(self.report)
        self._products()
        self.sweep = self._sweep()

    def _products(self) -> None:
        """Set up the products of the states, and compute those of what starts are made from."""
        g = self.given
        self.stacks = [stacked([g.weights[name] for name in p.mixings]) for p in self.cell.products]
        lanes = g.shape[self.axis + (self.cell.components > 1) : -1]
        self.mixed, self.starts = [], []
        for stack in self.stacks:
            shape = (*g.shape[: self.axis], *lanes, stack.shape[1])
            self.mixed.append(empty_in_order(shape, g.like, self.axis))
            self.starts.append([self.xp.empty(shape[1:], g.like.dtype) for _ in "01"])
        for which, start in enumerate((g.starts.initial, g.starts.restart)):
            outs = [starts[which] for starts in self.starts]
            self._multiply(self._factors(self.xp.ascontiguousarray(start), outs, self.axis - 1), add=False, rough=False)

    def _factors(self, x: Array, outs: Sequence[Array], leading: int) -> list[tuple[Array, Array, Array]]:
        """Return W, x and where W x goes for every product of states x, whose first axes are ``leading``."""
        k, found = self.cell.components, []
        for product, stack, out in zip(self.cell.products, self.stacks, outs, strict=True):
            lanes, m, n = stack.shape
            rows = _rows(x, leading).reshape(-1, k, lanes, n)[:, product.component]
            found.append((stack, rows, _rows(out, leading).reshape(-1, lanes, m)))
        return found

    def _multiply(self, factors: Sequence[tuple[Array, Array, Array]], *, add: bool, rough: bool) -> None:
        """Put products where they go, or add them there."""
        for stack, x, out in factors:
            self.machine.product(stack, x, out, add=add, rough=rough)

    def _sweep(self) -> Array:
        """Return the structure of a stage, filled in."""
        g, k, cell = self.given, self.cell.components, self.cell
        counts = {"DRIVES": len(cell.drives), "CONSTANTS": len(cell.constants), "CALLS": cell.calls}
        filled = np.zeros(1, structure("stage/sweep", "Sweep", **counts))
        p = filled[0]
        part = self._component(self.states)
        fill_lanes(p, part.shape, self.machine.processors)
        p["atol"], p["rtol"] = (_STRICTER * x for x in self.tol)
        p["report"] = address(self.report)
        row, block = ((self.axis,), (self.axis, self.axis + 1)) if k > 1 else ((), ())
        wide = part.shape
        self._kept = [aligned(self.xp.broadcast_to(x, wide)) for x in g.drives]
        views: list[View] = [(p["drives"][i], x, ()) for i, x in enumerate(self._kept)]
        self._kept += [self.xp.broadcast_to(self.xp.ascontiguousarray(x), (1, *wide[1:])) for x in g.constants]
        views += [(p["constants"][i], x, ()) for i, x in enumerate(self._kept[len(g.drives) :])]
        for product, mixed, starts in zip(self.cell.products, self.mixed, self.starts, strict=True):
            arrays = {"mixed": mixed, "initial_mixed": starts[0][None], "restart_mixed": starts[1][None]}
            n = mixed.shape[-1] // len(product.mixings)
            for i in range(len(product.mixings)):
                cut = slice(i * n, (i + 1) * n)
                views += [(p[name][product.first + i], x[..., cut], ()) for name, x in arrays.items()]
        states = {"states": self.states, "residual": self.residual}
        self._kept += [self.xp.ascontiguousarray(x)[None] for x in g.starts[:2]]
        states |= dict(zip(("initial", "restart"), self._kept[-2:], strict=True))
        views += [(p[name], x, row) for name, x in states.items()]
        if self.matrix is not None:
            views.append((p["matrix"], self.matrix, block))
        if g.starts.reset is not None:
            mask = g.starts.reset.reshape(g.starts.reset.shape + (1,) * (len(wide) - g.starts.reset.ndim))
            self._kept.append(self.xp.broadcast_to(self.xp.ascontiguousarray(mask), wide))
            views.append((p["cut"], self._kept[-1], ()))
        view_all(p, views, part)
        return filled

    def _component(self, x: Array) -> Array:
        """Return the first component of states."""
        index: Any = (slice(None),) * self.axis + (0,)
        return x if self.cell.components == 1 else x[index]

    def _evaluate(self, guess: bool = False) -> None:
        """Launch a stage; for a guess every step begins where the first one does."""
        filled = self.sweep.copy()
        filled[0]["guess"] = guess
        self.machine.clear(self.report)
        kernel = f"recsolve::sweep_stage<recsolve::SweepCell, {self.number}, {self.linear}>"
        self.machine.launch(launch(self.code, kernel, filled))

    def _move(self, correction: Array) -> None:
        """Launch an update of the states."""
        filled = np.zeros(1, structure("stage/sweep", "Update"))
        p = filled[0]
        arrays = {"states": self.states, "correction": correction, "residual": self.residual}
        for name, x in (arrays | {"report": self.report, "known": self.known}).items():
            p[name] = address(x)
        p["numbers"] = self.states.size
        p["blocks"] = ceil(self.states.size / _UPDATED)
        p["reach"] = 2.0 * (len(self.states) + 1) * self.given.layout.size**0.5
        self.machine.launch(launch(self.code, f"recsolve::sweep_update<{self.number}>", filled))

    def _begin(self) -> None:
        """Put f(h[0], u[t]) into the states of all t."""
        self.states.fill(0)
        self._evaluate(guess=True)
        self.states += self.residual
        self.known[...] = self.report

    def run(self, most: int | None) -> Swept | None:
        """Sweep until the test is passed, with products in full precision, or there is no more progress."""
        may_be_rough = self.states.dtype == np.float32
        evaluate = self.machine.captured(self._tested)
        move = self.machine.captured(self._moved)
        of_states, of_corrections = (self._factors(x, self.mixed, self.axis) for x in (self.states, self.correction))
        self._begin()
        progress, fresh, begun = Progress(max(self.tol), most), not may_be_rough, False
        while True:
            whole = fresh or not begun
            self._multiply(of_states if whole else of_corrections, add=not whole, rough=not fresh)
            evaluate()
            self.reader.mark()
            move()
            told, begun = Report.of(self.reader.read()), True
            if not told.finite:
                return None
            if told.remaining == 0 and fresh:  # an update after a test that is passed moves nothing
                return Swept(self.states, progress.moves, self.residual, told.size)
            if progress.ended(told):
                return Swept(self.states, progress.moves, None, told.size) if progress.near(told) else None
            fresh = not may_be_rough or progress.needs_fresh(told, fresh)

    def _tested(self) -> None:
        self._evaluate()
        self.reader.send()

    def _moved(self) -> None:
        assert self.scan is not None
        self.scan()
        self._move(self.correction)


def _rows(x: Array, leading: int) -> Array:
    """Return an array whose first axes are times and sequences with one axis for them, as they lie in memory."""
    order = (*memory_order(x, leading), *range(leading, x.ndim))
    return x.transpose(order).reshape(-1, *x.shape[leading:])


@register("sweeps", "cuda")
def sweeps(traced: TracedCell, dtype: Any, machine: Machine | None = None) -> SweepsCuda | None:
    """Return the sweeps of a cell; None if its mixings see what is computed from the state."""
    found = sweep_cell(traced.program)
    return None if found is None else SweepsCuda(found, machine)

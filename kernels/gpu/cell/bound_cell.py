"""A cell whose mixings are all diagonal, evaluated and tested in one launch, with its Jacobian if that is asked for."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from recsolve.base.arrays import Array, address, memory_order, namespace
from recsolve.kernels.gpu.cell.stage_launches import ElementwiseCuda
from recsolve.kernels.gpu.device import Machine
from recsolve.kernels.gpu.rows import ALIGNED, Axes, Step, Unmergeable, lay
from recsolve.kernels.gpu.views import aligned, places, stretched
from recsolve.kernels.starts import Starts

_REGISTERS = 300  # bytes that the numbers of a thread take at most when it takes several at once


class Bound:
    """A cell with its inputs and starts, to be evaluated and tested in one launch.

    Parameters
    ----------
    kernels : ElementwiseCuda
    inputs : sequence of array
        In the order of the kernels, broadcasting to (T, *batch, *lanes, n).
    starts : Starts
    axes : Axes
    like : array
        Whose memory order F and the Jacobian take.

    Attributes
    ----------
    in_place : bool
        Whether it reads the arrays themselves, so that it sees what is written to them later.
    """

    def __init__(self, kernels: ElementwiseCuda, inputs: Sequence[Array], starts: Starts, axes: Axes, like: Array):
        xp, self.axes, self.kernels = namespace(starts.initial), axes, kernels
        self.xp, self.dtype = xp, starts.initial.dtype
        self.inputs = [aligned(x) for x in inputs]
        self.starts = [xp.ascontiguousarray(x).reshape(x.shape) for x in starts[:2]]
        self.reset = None if starts.reset is None else xp.ascontiguousarray(starts.reset)
        apart = any(x is not y for x, y in zip(self.inputs, inputs, strict=True))
        self.in_place = not apart and all(x is None or x.flags.c_contiguous for x in starts)
        self.order = memory_order(like, 1 + axes.batch)
        self.in_order = self.order == tuple(range(len(self.order)))
        self.steps: dict[Any, tuple[Step, list[tuple[int, int, int]], int] | None] = {}

    def empty(self, shape: tuple[int, ...]) -> Array:
        """Allocate an array whose first axes (T, *batch) are in the memory order of the drive."""
        order, before = self.order, len(self.order)
        if self.in_order:
            return self.xp.empty(shape, self.dtype)  # type: ignore[no-any-return]
        back = (*(order.index(axis) for axis in range(before)), *range(before, len(shape)))
        memory = [shape[axis] for axis in order]
        return self.xp.empty((*memory, *shape[before:]), self.dtype).transpose(back)  # type: ignore[no-any-return]

    def step(
        self, machine: Machine, storage: str, states: Array, values: Array, residual: Array, entries: Array | None
    ) -> tuple[Step, list[tuple[int, int, int]], int] | None:
        """Return a launch with all that is the same in every iteration; None if axes do not merge.

        With it, where results go: a place, whether in F or its Jacobian, and how far from its first number; and the
        bits of the addresses of inputs.
        """
        key = entries is None, states.strides
        if key not in self.steps:
            self.steps[key] = self._step(machine, storage, states, values, residual, entries)
        return self.steps[key]

    def _step(
        self, machine: Machine, storage: str, states: Array, values: Array, residual: Array, entries: Array | None
    ) -> tuple[Step, list[tuple[int, int, int]], int] | None:
        k, counts = self.axes.components, self.kernels.counts(entries is not None)
        rows, batch = int(k > 1), self.axes.batch
        out = [(0, x, address(x) - address(values)) for x in self.kernels.parts(values, batch)]
        if entries is not None:
            out += [(1, x, address(x) - address(entries)) for x in self.kernels.entries(entries, batch)]
        views = [("states", -1, states.strides, rows)]
        once = zip(("initial", "restart"), self.starts, strict=True)
        views += [(name, -1, (0, *x.strides), rows) for name, x in once]
        views += [("residual", -1, residual.strides, rows)]
        wide = (*self.axes.shape[: 1 + batch], *self.axes.shape[self.axes.event :])
        views += [("in", k + i, stretched(x.shape, x.strides, wide), 0) for i, x in enumerate(self.inputs)]
        views += [("out", i, x.strides, 0) for i, (_, x, _) in enumerate(out)]
        at = places("iterate/test", "Evaluation", **counts)
        try:
            laid = lay(
                "iterate/test", "Evaluation", tuple(counts.items()), self.axes, self.dtype.itemsize, 0, tuple(views)
            )
        except Unmergeable:
            return None
        if not takes_several(self.kernels, entries is not None):
            laid = laid._replace(at_once=min(laid.at_once, 1))
        job = "values" if entries is None else "partials"
        kernel = f"recsolve::evaluate_rows<recsolve::{job}, {k}, {storage}, {{}}>"
        step = Step(machine, laid, at, self.kernels.rows_code, kernel)
        bits = 0
        for place, x in zip(at["in"][k:], self.inputs, strict=True):
            step.p[place] = address(x)
            bits |= address(x)
        initial, restart = (address(x) for x in self.starts)
        step.fill(initial=initial, restart=restart, resets=0 if self.reset is None else address(self.reset))
        for _, _, far in out:
            bits |= far
        return step, [(at["out"][i], which, far) for i, (which, _, far) in enumerate(out)], bits | initial | restart


def takes_several(kernels: ElementwiseCuda, jacobian: bool) -> bool:
    """Return whether there are registers enough for a thread to take several numbers of a row at once."""
    return (sum(kernels.counts(jacobian).values()) + kernels.components) * ALIGNED <= _REGISTERS

"""Solves on the GPU of cells whose mixings are all diagonal, compiled from the function of the cell.

Two regimes, one of which is chosen by a model of their times. ``walk``: a thread walks through time for each lane
(batch x units). ``windows``: a block takes 32 lanes and solves window after window by multiple shooting. Where there
are few lanes, both do so for several segments of time in parallel: these start from guesses, and what the guesses left
wrong is solved again. What is returned follows step by step from its first state within the tolerance, whatever the
regime.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import cached_property
from typing import Any

import numpy as np

from recsolve.base.arrays import Array, empty_in_order, namespace, to_host
from recsolve.kernels.codegen.cuda_elementwise import elementwise_cell, module
from recsolve.kernels.codegen.cuda_structures import constants
from recsolve.kernels.codegen.numba_elementwise import inputs_of
from recsolve.kernels.gpu.cell.solve_plan import (
    FIELDS,
    Given,
    Plan,
    Regime,
    Sizes,
    Way,
    in_shape,
    plan,
    problem,
)
from recsolve.kernels.gpu.cell.stage_launches import ElementwiseCuda
from recsolve.kernels.gpu.device import Machine, on
from recsolve.kernels.gpu.views import address, aligned
from recsolve.kernels.registry import TracedCell, register
from recsolve.kernels.starts import Starts
from recsolve.symbolic.graph import Leaf, Node
from recsolve.symbolic.program import Program

_ROUGH, _MOST = 2, 12  # sweeps of a window: in low precision, and in all
_BACK_ROUGH = 1
_SOLVE, _CORRECT, _REPAIR = (constants("solve/problem")[name] for name in ("SOLVE", "CORRECT", "REPAIR"))
_BACK = 64  # rounding units within which adjoint variables agree at boundaries


class Outcome:
    """What happened during a solve; it is read from the device when it is asked for.

    Parameters
    ----------
    plan : Plan
    reports : array of int32, shape (blocks, FIELDS)
    sums : array of float64, shape (segments, sums, lanes)
    """

    def __init__(self, plan: Plan, reports: Array, sums: Array):
        self.plan, self.reports, self.sums = plan, reports, sums

    @cached_property
    def _told(self) -> Array:
        return to_host(self.reports)

    @property
    def windows(self) -> int:
        """Windows of 32 lanes that were solved; 0 for walks that need none."""
        return int(self._told[:, 0].sum())

    @property
    def sweeps(self) -> float:
        """Sweeps of a window on average."""
        return float(self._told[:, 1].sum() / max(self.windows, 1))

    @property
    def most_sweeps(self) -> int:
        """Sweeps of the window that took most of them."""
        return int(self._told[:, 2].max(initial=0))

    @property
    def walked(self) -> int:
        """Windows that were walked at last."""
        return int(self._told[:, 3].sum())

    @property
    def redone(self) -> int:
        """How often a segment of 32 lanes was solved again."""
        return int(self._told[:, 4].sum())

    @property
    def residual(self) -> float:
        """The largest defect of a state: those that are not at boundaries have none."""
        return float(self._told[:, 5].view(np.float32).max(initial=0))

    def __repr__(self) -> str:
        return (
            f"Outcome({self.plan.regime}, {self.plan.segments} segments: {self.windows} windows, {self.sweeps:.2f} "
            f"sweeps on average and {self.most_sweeps} at most, {self.walked} walked, {self.redone} segments redone, "
            f"residual {self.residual:.1e})"
        )


class FusedCuda:
    """The kernels of one cell.

    States are (T, *batch, [k], *lanes, n), inputs broadcast to (T, *batch, *lanes, n) and come in the order of
    :func:`recsolve.kernels.codegen.numba_elementwise.inputs_of`.

    Parameters
    ----------
    cell : str
        From :func:`recsolve.kernels.codegen.cuda_elementwise.elementwise_cell`.
    components, drives, constants : int
    operations : int
        Of a step with its partials.
    at_once : ElementwiseCuda
        f and its Jacobian at all t.
    machine : Machine, optional
        By default the device of the arrays, on its current stream.
    """

    def __init__(
        self,
        cell: str,
        components: int,
        drives: int,
        constants: int,
        operations: int,
        at_once: ElementwiseCuda,
        machine: Machine | None = None,
    ):
        self.code, self.drives = module(cell), drives
        self.sizes = Sizes(components, drives, constants, components, 0, operations)
        self.evaluate, self.linearise = at_once.evaluate, at_once.linearise
        self._machine = machine

    @classmethod
    def of(cls, program: Program, back: Mapping[Leaf, Node], machine: Machine | None = None) -> FusedCuda:
        """Return the kernels of a traced cell, and of :func:`recsolve.symbolic.tracing.trace_pullback` of it."""
        parts, drives, constants = len(program.components), len(program.drives), len(inputs_of(program))
        operations = program.operations().total()
        at_once = ElementwiseCuda(program, machine)
        return cls(elementwise_cell(program, back), parts, drives, constants - drives, operations, at_once, machine)

    def solve(
        self,
        inputs: Sequence[Array],
        states: Array,
        batch: int,
        starts: Starts,
        tol: tuple[float, float],
        *,
        regime: Regime | None = None,
        segments: int | None = None,
        burn: int | None = None,
        sweeps: tuple[int, int] = (_ROUGH, _MOST),
    ) -> Outcome:
        """Fill ``states``.

        Parameters
        ----------
        inputs : sequence of array
        states : array, shape (T, *batch, [k], *lanes, n)
        batch : int
            The number of batch axes.
        starts : Starts
        tol : tuple of float
            (atol, rtol) of the defect |f(h[t-1]) - h[t]| <= atol + rtol max(|h|, |f|).
        regime : {"walk", "windows"}, optional
            By default the fastest according to a model.
        segments, burn : int, optional
            Segments of time, and steps before each that guess its first state.
        sweeps : tuple of int
            Sweeps of a window in low precision, and in all before it is walked.

        Returns
        -------
        Outcome
        """
        axis = self._axis(batch)
        written = [Given(component, None) for component in self._components(states, axis)]
        return self._run("Forward", self.sizes, inputs, written, starts, axis, tol, regime, segments, burn, sweeps)

    def walk(self, inputs: Sequence[Array], states: Array, batch: int, starts: Starts, start: int = 0) -> None:
        """Fill the rows of ``states`` from ``start`` on, one after the other."""
        rest = [*(u[start : len(states)] if len(u) > 1 else u for u in inputs[: self.drives]), *inputs[self.drives :]]
        if states[start:].size:
            # Nothing but equality is accepted, so windows that repair a segment are walked at once.
            rows, following = states[start:], starts.rest(states, start)
            self.solve(rest, rows, batch, following, (0.0, 0.0), regime="walk", sweeps=(0, 1))

    def newton(
        self, inputs: Sequence[Array], states: Array, batch: int, starts: Starts, window: int, tol: tuple[float, float]
    ) -> tuple[int, float, dict[str, int]]:
        """Fill ``states`` in the regime that should be fastest; return the most sweeps of a window, and the mean.

        The third that is returned says what else happened: windows that were walked at last, and segments of time that
        were solved again. ``window`` is taken for the sake of the loops of the CPU. Reading the counts waits for the
        device.
        """
        if not states.size:
            return 0, 0.0, {}
        outcome = self.solve(inputs, states, batch, starts, tol)
        told = {"segments": outcome.plan.segments, "segments_redone": outcome.redone, "windows_walked": outcome.walked}
        return outcome.most_sweeps, outcome.sweeps or 1.0, told

    def adjoint(
        self,
        inputs: Sequence[Array],
        states: Array,
        cotangent: Array,
        batch: int,
        starts: Starts,
        *,
        regime: Regime | None = None,
        segments: int | None = None,
        burn: int | None = None,
    ) -> tuple[Array, list[Array], Array, Array]:
        """Return the adjoint variables, the gradients to the drives, those to constants, and those to initial states.

        Gradients to drives have the shape (T, *batch, *lanes, n). Those to constants (constants, *batch, *lanes, n) and
        to the initial state (k, *batch, *lanes, n) are float64, in which they are added up.
        """
        with on(states, self._machine):
            axis = self._axis(batch)
            xp, sizes = namespace(states), self.sizes.backward()
            result = empty_in_order(states.shape, states, 1 + batch)
            parts = [self._components(x, axis) for x in (states, cotangent, result)]
            gradients = [xp.empty_like(x) for x in [parts[2][0]] * self.drives]
            shape = parts[2][0].shape
            if not states.size:
                empty = xp.zeros((sizes.sums, *shape[1:]), np.float64)
                return result, gradients, empty[: sizes.constants], empty[sizes.constants :]
            before = [x[:-1] if len(x) > 1 else x for x in parts[0]]
            full = [xp.broadcast_to(u, shape)[::-1] for u in inputs[: self.drives]]
            drives = [*full, *(x[::-1] for x in (*before, *parts[1])), *inputs[self.drives :]]
            written = [Given(x[::-1]) for x in (*gradients, *parts[2])]
            back = Starts(starts.initial, starts.restart, None if starts.reset is None else starts.reset[::-1])
            tol = 0.0, _BACK * float(np.finfo(_number(states)).eps)
            outcome = self._run(
                "Backward", sizes, drives, written, back, axis, tol, regime, segments, burn, (_BACK_ROUGH, _MOST)
            )
            sums = in_shape(outcome.sums.sum(axis=0), written[-1].array)
            return result, gradients, sums[: sizes.constants], sums[sizes.constants :]

    def _axis(self, batch: int) -> int | None:
        return None if self.sizes.parts == 1 else 1 + batch

    def _components(self, states: Array, axis: int | None) -> list[Array]:
        if axis is None:
            return [states]
        before: Any = (slice(None),) * axis
        return [states[(*before, i)] for i in range(self.sizes.parts)]

    def _run(
        self,
        way: Way,
        sizes: Sizes,
        inputs: Sequence[Array],
        written: list[Given],
        starts: Starts,
        axis: int | None,
        tol: tuple[float, float],
        regime: Regime | None,
        segments: int | None,
        burn: int | None,
        sweeps: tuple[int, int],
    ) -> Outcome:
        """Lay the arrays out, and launch."""
        like = written[-1].array
        xp, shape = namespace(like), like.shape
        with on(like, self._machine) as machine:
            # On the way back the states before the steps are one fewer; kernels never look at the one that is missing.
            full = [aligned(x if x.shape[1:] == shape[1:] else xp.broadcast_to(x, shape)) for x in inputs]
            drives = [Given(x) for x in full[: sizes.drives]]
            constants = [Given(x[:1]) for x in full[sizes.drives :]]
            number = _number(like)
            others = {
                "initial": Given(aligned(starts.initial.astype(number, copy=False)[None]), axis),
                "restart": Given(aligned(starts.restart.astype(number, copy=False)[None]), axis),
            }
            if starts.reset is not None:
                mask = starts.reset.reshape(*starts.reset.shape, *(1,) * (len(shape) - starts.reset.ndim))
                others["cut"] = Given(xp.broadcast_to(mask, shape))
            filled = problem(sizes, drives, constants, written, others)
            p = filled[0]
            steps, lanes = int(p["steps"]), int(p["lanes"])
            cut = starts.reset is not None
            size, given = (sizes, steps, lanes, machine.processors), (regime, segments, burn, machine.shared)
            one = plan(way, like.dtype.name, cut, *size, *given)
            return _launched(machine, self.code, one, filled, xp, tol, sweeps)


def _number(x: Array) -> np.dtype[Any]:
    """Return the type of the arithmetic."""
    return np.dtype(np.float64 if x.dtype == np.float64 else np.float32)


def _launched(
    machine: Machine, code: str, one: Plan, filled: Array, xp: Any, tol: tuple[float, float], sweeps: tuple[int, int]
) -> Outcome:
    """Launch what a plan needs: for several segments one kernel after the other on the device."""
    p, k = filled[0], one.kernel
    lanes, groups, parts = int(p["lanes"]), int(p["groups"]), k.sizes.parts
    p["atol"], p["rtol"] = tol
    p["near"] = max(tol) ** -0.5 if max(tol) else 1.0
    p["rough"], p["most"] = sweeps
    p["segments"], p["span"], p["burn"] = one.segments, one.span, one.burn
    launches = [(k, one.blocks(k, groups), _SOLVE)]
    if one.segments > 1:
        launches += [(one.again, one.blocks(one.again, groups), _CORRECT)] * one.rounds
        launches.append((one.repair, one.blocks(one.repair, groups, last=True), _REPAIR))
    total = sum(blocks for _, blocks, _ in launches)
    reports = xp.zeros((total + one.rounds + 1, FIELDS), np.int32)
    told = None
    if one.segments > 1:
        each = 2 * one.segments * lanes * parts
        told = xp.empty(each * (2 if k.walks else 2 + parts), f"f{k.storage.number_bytes}")
        p["starts"], p["ends"] = address(told), address(told) + each * told.itemsize
        p["products"] = 0 if k.walks else p["ends"] + each * told.itemsize
        p["changed"] = address(reports) + 4 * FIELDS * total if k.walks else 0
    sums = xp.zeros((one.segments, k.sizes.sums, lanes), np.float64)
    p["sums"] = address(sums)
    first = 0
    for number, (launched, blocks, what) in enumerate(launches):
        p["pass"], p["round"], p["reports"] = what, number, address(reports) + first * FIELDS * 4
        machine.launch(launched.launch(code, blocks, filled.copy()))
        first += blocks
    return Outcome(one, reports[:total], sums)


@register("fused", "cuda")
def fused(traced: TracedCell, dtype: Any) -> FusedCuda:
    """Return the kernels of a cell whose mixings are all diagonal, which take any dtype."""
    return FusedCuda.of(traced.program, traced.back)

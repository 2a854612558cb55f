"""Solves on the GPU of cells whose mixings are all diagonal, compiled from the function of the cell.

A thread walks through time for each lane (batch x units). Where there are few lanes, it does so for several segments of
time in parallel: these start from guesses, and multiple shooting over all of them corrects what the guesses left wrong,
in one launch. What is returned follows step by step from its first state within the tolerance.
"""

from __future__ import annotations

from collections.abc import Hashable, Mapping, Sequence
from functools import partial
from itertools import chain
from math import prod
from typing import Any

import numpy as np

from recsolve.base.arrays import Array, address, empty_in_order, namespace
from recsolve.kernels.codegen.cuda_elementwise import elementwise_cell, module
from recsolve.kernels.codegen.cuda_structures import fields_at
from recsolve.kernels.codegen.numba_elementwise import inputs_of
from recsolve.kernels.gpu.cell.segment_sums import over_segments
from recsolve.kernels.gpu.cell.solve_layout import Arrays, Ready, components_of, in_shape, lay_out, problem
from recsolve.kernels.gpu.cell.solve_outcome import Outcome
from recsolve.kernels.gpu.cell.solve_plan import FIELDS, Sizes, Way, plan
from recsolve.kernels.gpu.cell.stage_launches import AtOnceCuda, ElementwiseCuda
from recsolve.kernels.gpu.device import Launch, Machine, on
from recsolve.kernels.gpu.views import aligned
from recsolve.kernels.held import where_and_how
from recsolve.kernels.registry import TracedCell, register
from recsolve.kernels.starts import Starts
from recsolve.symbolic.graph import Leaf, Node
from recsolve.symbolic.program import Program

_BACK = (
    64,
    12.0,
)  # rounding units within which adjoint variables agree: at least, and by the root of the steps multiplied
_SURE = 3  # sweeps after which nothing more is hoped for where only equality is accepted
_KEPT = 256  # shapes that are remembered


class FusedCuda:
    """The kernels of one cell.

    States are (T, *batch, [k], *lanes, n), inputs broadcast to (T, *batch, *lanes, n) and come in the order of
    :func:`recsolve.kernels.codegen.numba_elementwise.inputs_of`. What depends on how arrays lie alone is kept.

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
        self.elementwise = at_once
        self.evaluate, self.linearise = at_once.evaluate, at_once.linearise
        self._machine = machine
        self._known: dict[Hashable, Ready] = {}

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
        segments: int | None = None,
        burn: int | None = None,
        sweeps: int | None = None,
    ) -> Outcome:
        """Fill ``states``, in one launch.

        Parameters
        ----------
        inputs : sequence of array
        states : array, shape (T, *batch, [k], *lanes, n)
        batch : int
            The number of batch axes.
        starts : Starts
        tol : tuple of float
            (atol, rtol) of the defect |f(h[t-1]) - h[t]| <= atol + rtol max(|h|, |f|); with (0, 0) there is none.
        segments, burn : int, optional
            Segments of time, and steps before each that guess its first state; by default what a model finds fastest.
        sweeps : int, optional
            After how many sweeps segments are walked in order.

        Returns
        -------
        Outcome

        Raises
        ------
        ValueError
            For a number of segments below 1, of steps before them or of sweeps below 0.
        """
        axis = self._axis(batch)
        way = segments, burn, sweeps if sweeps is not None or max(tol) else _SURE
        if not states.size:
            plan("Forward", states.dtype.name, False, self.sizes, 1, 1, 1, *way)
            one = plan("Forward", states.dtype.name, False, self.sizes, 1, 1, 1)
            return Outcome(
                one, lambda: None, lambda: states, 0, lambda: states, namespace(states).zeros(FIELDS, np.int32)
            )
        return self._run("Forward", (inputs, [states], _given(starts, states), []), axis, tol, way)

    def at_once(self, inputs: Sequence[Array], shape: tuple[int, ...], batch: int) -> AtOnceCuda:
        """Return f at all t for components of this shape, (T, *batch, *lanes, n)."""
        return AtOnceCuda(self.elementwise, inputs, batch)

    def walk(self, inputs: Sequence[Array], states: Array, batch: int, starts: Starts, start: int = 0) -> None:
        """Fill the rows of ``states`` from ``start`` on, one after the other."""
        rest = [*(u[start : len(states)] if len(u) > 1 else u for u in inputs[: self.drives]), *inputs[self.drives :]]
        self.solve(rest, states[start:], batch, starts.rest(states, start), (0.0, 0.0))

    def adjoint(
        self,
        inputs: Sequence[Array],
        states: Array,
        cotangent: Array,
        batch: int,
        starts: Starts,
        incoming: Array | None = None,
        *,
        segments: int | None = None,
        burn: int | None = None,
    ) -> tuple[Array, list[Array], Array, Array]:
        """Return the adjoint variables, the gradients to the drives, those to constants, and those to initial states.

        ``incoming`` (*batch, [k], *lanes, n) is what steps after the last one hand to its state, beside ``cotangent``.
        Gradients to drives have the shape (T, *batch, *lanes, n). Those to constants (constants, *batch, *lanes, n) and
        to the initial state (k, *batch, *lanes, n) are added up in float64, and rounded where float32 has one sequence.
        """
        with on(states, self._machine) as machine:
            axis = self._axis(batch)
            xp, sizes = namespace(states), self.sizes.backward()
            result = empty_in_order(states.shape, states, 1 + batch)
            part = components_of(result, axis, self.sizes.parts)[-1]
            gradients = [xp.empty_like(part) for _ in range(self.drives)]
            if not states.size:
                empty = xp.zeros((sizes.sums, *part.shape[1:]), np.float64)
                return result, gradients, empty[: sizes.constants], empty[sizes.constants :]
            beyond = [] if incoming is None else [incoming.astype(_number(states), copy=False)]
            arrays = inputs, [states, cotangent, *gradients, result], _given(starts, states), beyond
            outcome = self._run("Backward", arrays, axis, None, (segments, burn, None))
            several = prod(states.shape[1 : 1 + batch]) > 1  # over which sums are added up before they are rounded
            kind = np.dtype(np.float64) if several else states.dtype
            sums = in_shape(over_segments(outcome.sums(), kind, machine), part[::-1])
            return result, gradients, sums[: sizes.constants], sums[sizes.constants :]

    def _axis(self, batch: int) -> int | None:
        return None if self.sizes.parts == 1 else 1 + batch

    def _run(
        self,
        way: Way,
        arrays: Arrays,
        axis: int | None,
        tol: tuple[float, float] | None,
        asked: tuple[int | None, int | None, int | None],
    ) -> Outcome:
        """Launch what is known for arrays that lie like these; without a tolerance rounding is what may be."""
        own = arrays[1]
        with on(own[0], self._machine) as machine:
            addresses, lie = zip(*map(where_and_how, arrays), strict=True)
            key = way, axis, asked, id(machine), lie
            ready = self._known.get(key)
            if ready is None:
                if len(self._known) >= _KEPT:
                    self._known.clear()
                ready = self._known[key] = self._made_ready(way, arrays, axis, asked, machine)
            if ready.unaligned:
                return self._run(way, self._aligned(way, arrays), axis, tol, asked)
            if tol is None:
                units = max(_BACK[0], _BACK[1] * ready.plan.span**0.5)
                tol = 0.0, units * float(np.finfo(_number(own[0])).eps)
            memory = namespace(own[0]).empty(ready.nbytes, np.uint8)
            filled = ready.filled([*chain(*addresses), address(memory)], tol)
            machine.clear(memory, ready.zeroed)
            machine.launch(ready.solve(filled))

        def judge(held: Arrays = arrays) -> None:
            with on(memory, self._machine) as machine:
                machine.launch(ready.check(filled))

        def report(held: Arrays = arrays) -> Array:
            with on(memory, self._machine) as machine:
                machine.launch(ready.check(filled))
                return machine.brought(memory, FIELDS)

        def sums() -> Array:
            size = 8 * prod(ready.sums)
            added: Array = memory[ready.added : ready.added + size].view(np.float64).reshape(ready.sums)
            return added

        told = memory[: 4 * FIELDS].view(np.int32)
        return Outcome(ready.plan, judge, report, ready.groups, sums, told)

    def _aligned(self, way: Way, arrays: Arrays) -> Arrays:
        """Return arrays whose numbers lie between those of an array of their dtype as copies, where they are read."""
        inputs, own, starts, beyond = arrays
        read = 0 if way == "Forward" else 2  # states and cotangents; what is written lies as this package has made it
        own = [*map(aligned, own[:read]), *own[read:]]
        return [*map(aligned, inputs)], own, [*map(aligned, starts)], [*map(aligned, beyond)]

    def _made_ready(
        self,
        way: Way,
        arrays: Arrays,
        axis: int | None,
        asked: tuple[int | None, int | None, int | None],
        machine: Machine,
    ) -> Ready:
        """Find out all that depends on how arrays lie."""
        bases, copies = ([x for group in groups for x in group] for groups in (arrays, self._aligned(way, arrays)))
        unaligned = any(x is not y for x, y in zip(bases, copies, strict=True))
        laid = lay_out(way == "Backward", arrays, axis, self.sizes)
        filled, places = problem(laid)
        p, sizes = filled[0], self.sizes if way == "Forward" else self.sizes.backward()
        steps, lanes, groups = int(p["steps"]), int(p["lanes"]), int(p["groups"])
        like = laid.written[-1].array
        one = plan(
            way, like.dtype.name, "cut" in laid.others, sizes, steps, lanes, machine.processors, *asked, machine.shared
        )
        p["segments"], p["span"], p["burn"], p["most"] = one.segments, one.span, one.burn, one.most
        p["parts"], p["sets"] = one.parts, one.sets
        sums = one.segments, sizes.sums, lanes
        parts = {  # by the field that has the address
            "counters": 4 * (FIELDS + one.blocks),
            "links": (one.most + 1) * one.blocks * one.kernel.link if one.parts > 1 else 0,
            "checks": 4 * one.segments * lanes,
            "sums": 8 * prod(sums),
        }
        room, nbytes = {}, 0
        for name, size in parts.items():
            room[name] = nbytes
            nbytes += -(-size // 256) * 256
        fields = fields_at(filled.dtype)
        named = [(at, g.base, address(g.array) - address(bases[g.base])) for at, g in places]
        named += [(fields[name], len(bases), begins) for name, begins in room.items()]
        at, owners, offsets = (np.array(x) for x in zip(*named, strict=True))
        numbers = np.array([fields[name] for name in ("atol", "rtol", "forgotten", "near", "exact", "ticket")])
        words, ends = filled.view(np.int64), (room["links"], room["sums"], nbytes)
        solve = partial(Launch, *one.launch(self.code, words)[:-1])
        check = partial(Launch, *one.check(self.code, groups, words)[:-1])
        return Ready(one, solve, check, groups, words, at, owners, offsets, numbers, unaligned, sums, *ends)


def _number(x: Array) -> np.dtype[Any]:
    """Return the type of the arithmetic."""
    return np.dtype(np.float64 if x.dtype == np.float64 else np.float32)


def _given(starts: Starts, like: Array) -> list[Array]:
    """Return the states that walks start from in the type of the arithmetic, and the resets if there are any."""
    number, held = _number(like), starts.held
    if starts.initial.dtype == starts.restart.dtype == number:
        return held
    return [*(x if x.dtype == number else x.astype(number) for x in held[:2]), *held[2:]]


@register("fused", "cuda")
def fused(traced: TracedCell, dtype: Any) -> FusedCuda:
    """Return the kernels of a cell whose mixings are all diagonal, which take any dtype."""
    return FusedCuda.of(traced.program, traced.back)

"""Solves of cells whose mixings are all diagonal, compiled whole from the function of the cell."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from functools import partial
from math import ceil, prod
from typing import Any, TypeAlias

import numpy as np

from recsolve.base.arrays import Array, broadcast
from recsolve.kernels.codegen.numba_elementwise import elementwise_module, inputs_of
from recsolve.kernels.cpu.cell import time_blocks
from recsolve.kernels.cpu.jit import module_cache
from recsolve.kernels.cpu.placement.rows import COTANGENT, JACOBIAN, SPREAD, Rows, States, X, Y
from recsolve.kernels.cpu.placement.start_rows import flat_starts
from recsolve.kernels.cpu.threads import spread, threads
from recsolve.kernels.registry import TracedCell, register
from recsolve.kernels.starts import Starts

_ROW = 1024  # lanes that make a row long enough
_NEWTON = 256  # lanes of a tile whose window stays in the nearest cache


Run: TypeAlias = Callable[[Callable[[int, int], None]], None]


class Fused:
    """The compiled loops of one cell and dtype.

    States are (T, *batch, [k], *lanes, n), inputs broadcast to (T, *batch, *lanes, n) and come in the order of
    :func:`recsolve.kernels.codegen.numba_elementwise.inputs_of`.

    Parameters
    ----------
    source : str
        From :func:`recsolve.kernels.codegen.numba_elementwise.elementwise_module`.
    name : str
        Of the cell.
    components, drives : int
    """

    def __init__(self, source: str, name: str, components: int, drives: int):
        self.loops: Any = module_cache.load(source, name)
        self.components, self.drives = components, drives

    def walk(self, inputs: Sequence[Array], states: Array, batch: int, starts: Starts, start: int = 0) -> bool:
        """Fill the rows of ``states`` from ``start`` on, one after the other; return whether these are all finite.

        ``batch`` is the number of batch axes.
        """
        inputs, states, starts = self._rest(inputs, states, batch, starts, start)
        if time_blocks.pays(self.component(states, batch).shape):
            time_blocks.walk(self, inputs, states, batch, starts)
            return bool(np.isfinite(states).all())
        return self.walk_in_order(inputs, states, batch, starts)

    def walk_in_order(self, inputs: Sequence[Array], states: Array, batch: int, starts: Starts, start: int = 0) -> bool:
        """Do the same without blocks of time."""
        inputs, states, starts = self._rest(inputs, states, batch, starts, start)
        if not states.size:
            return True
        walk = Walk(self, inputs, states, batch, starts)
        finite = walk.run()
        walk.finish()
        return finite

    def laid_out(self, inputs: Sequence[Array], states: Array, batch: int, starts: Starts) -> Walk:
        """Return these arrays laid out for walks."""
        return Walk(self, inputs, states, batch, starts)

    def _rest(
        self, inputs: Sequence[Array], states: Array, batch: int, starts: Starts, start: int
    ) -> tuple[Sequence[Array], Array, Starts]:
        """Return inputs, states and starts of the steps from ``start`` to the end of ``states``."""
        cut = slice(start, len(states))
        rest = [*(u[cut] for u in inputs[: self.drives]), *inputs[self.drives :]]
        return rest, states[cut], starts.rest(states, start)

    def newton(
        self, inputs: Sequence[Array], states: Array, batch: int, starts: Starts, window: int, tol: tuple[float, float]
    ) -> tuple[int, float, dict[str, int]]:
        """Fill ``states`` by Newton's method in windows; return how many iterations that took, and sweeps over a row.

        Iterations are those of the tile of lanes that took most of them, in all windows. The third result, other counts
        by name, is empty.

        A window that does not pass the test |r| <= atol + rtol max(|h|, |f|) has, after as many sweeps as it has steps,
        what the loop gives.
        """
        if not states.size:
            return 0, 0.0, {}
        result = States(states, self.axes(batch), True)
        rows = Rows(self.component(states, batch).shape, {Y: result}, inputs)
        window = min(window, len(states))
        g, run = self.sizes(rows, states.size, starts, window=window)
        flat = self.flat(rows, starts, batch)
        counts = np.zeros(self.tasks(rows, g), np.int64)
        atol, rtol = (states.dtype.type(x) for x in tol)
        places = rows.where, rows.by_time, g, atol, rtol, counts
        run(partial(self.loops.newton, rows.inputs, rows.bases[Y], *flat, *places))
        rows.finish()
        return int(counts.max()), float(counts.mean() / ceil(len(states) / window) + 1), {}

    def at_once(self, inputs: Sequence[Array], shape: tuple[int, ...], batch: int) -> AtOnce:
        """Return f at all t for components of this shape, (T, *batch, *lanes, n)."""
        return AtOnce(self, inputs, shape, batch)

    def adjoint(
        self,
        inputs: Sequence[Array],
        states: Array,
        cotangent: Array,
        batch: int,
        starts: Starts,
        incoming: Array | None = None,
    ) -> tuple[Array, list[Array], Array, Array]:
        """Return the adjoint variables, the gradients to the drives, those to constants, and those to initial states.

        ``incoming`` (*batch, [k], *lanes, n) is what steps after the last one hand to its state, beside ``cotangent``.
        Gradients to drives have the shape (T, *batch, *lanes, n). Those to constants (constants, *batch, *lanes, n) and
        to the initial state (k, *batch, *lanes, n) are float64, in which they are added up.
        """
        result = np.empty_like(states)
        drives = [np.empty_like(self.component(states, batch)) for _ in range(self.drives)]
        if not states.size:
            none = np.zeros((len(inputs) - self.drives + self.components, *drives[0].shape[1:]))
            return result, drives, none[: -self.components], none[-self.components :]
        columns = {X: States(states, self.axes(batch)), COTANGENT: States(cotangent, self.axes(batch))}
        columns[Y] = States(result, self.axes(batch), True)
        rows = Rows(self.component(states, batch).shape, columns, inputs, drives)
        totals = np.zeros((len(inputs) - self.drives, rows.number))
        into = np.zeros((self.components, rows.number))
        if incoming is not None:
            axes = tuple(axis - 1 for axis in self.axes(batch))
            into[...] = rows.component_rows(incoming, axes).reshape(into.shape)
        g, run = self.sizes(rows, states.size, starts)
        arrays = (rows.bases[X], rows.bases[COTANGENT], rows.bases[Y], rows.gradients, totals, into)
        flat = self.flat(rows, starts, batch)
        run(partial(self.loops.adjoint, rows.inputs, *arrays, *flat, rows.where, rows.by_time, g))
        rows.finish()
        return result, drives, rows.unflatten(totals), rows.unflatten(into)

    def axes(self, before: int, matrix: bool = False) -> tuple[int, ...]:
        """Return the axes of components in states with time and ``before`` axes first, or those of a Jacobian."""
        if self.components == 1:
            return ()
        return (1 + before, 2 + before) if matrix else (1 + before,)

    def component(self, states: Array, batch: int) -> Array:
        """Return the first component of states."""
        index: Any = (slice(None),) * (1 + batch) + (0,)
        return states if self.components == 1 else states[index]

    def sizes(self, rows: Rows, numbers: int, starts: Starts | None = None, window: int = 0) -> tuple[Any, Run]:
        """Return the sizes for the loops, and how to run a loop over all tasks."""
        workers = threads() if numbers >= SPREAD else 1
        width, bundle = rows.tile(workers)
        if window:  # a task is what stays in the nearest cache
            width, bundle = min(width, _NEWTON), 1

        def distance(column: int, axis: int = 0) -> int:
            strides = rows.distances.get(column, ())
            return strides[axis] if axis < len(strides) else 0

        g = self.loops.Sizes(
            steps=rows.shape[0],
            groups=rows.groups,
            inner=rows.inner,
            width=width,
            bundle=bundle,
            lanes=rows.number,
            components=self.components,
            x_c=distance(X),
            y_c=distance(Y),
            c_c=distance(COTANGENT),
            J_r=distance(JACOBIAN),
            J_c=distance(JACOBIAN, 1),
            has_resets=int(starts is not None and starts.has_resets),
            window=window,
        )
        return g, partial(spread, tasks=self.tasks(rows, g), workers=workers)

    def tasks(self, rows: Rows, g: Any) -> int:
        """Return how many tasks there are."""
        return ceil(rows.groups / int(g.bundle)) * ceil(rows.inner / int(g.width))

    def flat(self, rows: Rows, starts: Starts, batch: int) -> tuple[Array, Array, Array, Array]:
        """Return what a walk starts from as the loops take it."""
        return flat_starts(starts, rows, tuple(axis - 1 for axis in self.axes(batch)))


class Walk:
    """One recurrence laid out for walks through time.

    Parameters
    ----------
    loops : Fused
    inputs, states, batch, starts
        As :meth:`Fused.walk` takes them.
    """

    def __init__(self, loops: Fused, inputs: Sequence[Array], states: Array, batch: int, starts: Starts):
        self.loops = loops
        shape = loops.component(states, batch).shape
        self.rows = Rows(shape, {Y: States(states, loops.axes(batch), True)}, inputs)
        self.sizes, self._spread = loops.sizes(self.rows, states.size, starts)
        self._tasks = loops.tasks(self.rows, self.sizes)
        self._axes = tuple(axis - 1 for axis in loops.axes(batch))
        self._start, *self._resets = flat_starts(starts, self.rows, self._axes)

    def run(self, initial: Array | None = None, begin: int = 0) -> bool:
        """Walk to the end from the state before step ``begin``, by default the initial one.

        Return whether all states on the way are finite.
        """
        rows, (restart, row, resets) = self.rows, self._resets
        start = self._start if initial is None else rows.component_rows(initial, self._axes)
        g, where = self.sizes._replace(steps=self.sizes.steps - begin), rows.where + begin * rows.by_time
        starts = start, restart, row[begin:], resets
        bad = np.zeros(self._tasks, np.int64)
        self._spread(partial(self.loops.loops.walk, rows.inputs, rows.bases[Y], *starts, where, rows.by_time, g, bad))
        return not bad.any()

    def last(self) -> Array:
        """Return the last state (*batch, *event)."""
        return self.rows.last()

    def finish(self) -> None:
        """Put the states where they belong."""
        self.rows.finish()


class AtOnce:
    """f at all t: the inputs of one recurrence cut into rows, several times to a row where lanes are few.

    Parameters
    ----------
    loops : Fused
    inputs : sequence of array
    shape : tuple of int
        Of a component of the states, (T, *batch, *lanes, n).
    batch : int
        The number of batch axes.
    """

    def __init__(self, loops: Fused, inputs: Sequence[Array], shape: tuple[int, ...], batch: int):
        self.loops, self._axes = loops, {X: loops.axes(1 + batch), JACOBIAN: loops.axes(1 + batch, True)}
        steps, number = shape[0], prod(shape[1:])
        together = min(max(_ROW // max(number, 1), 1), max(steps, 1))
        full = [broadcast(x, shape) if x.ndim == len(shape) else x for x in inputs]
        whole = steps - steps % together
        bounds = [(0, whole, together), (whole, steps, 1)] if number else []
        self._parts = [_Part(full, shape, *bound) for bound in bounds if bound[0] < bound[1]]

    def evaluate(self, previous: Array, values: Array) -> None:
        """Fill ``values`` with f of the states ``previous``."""
        self._run(self.loops.loops.evaluate, {X: previous, Y: values})

    def linearise(self, previous: Array, values: Array, J: Array) -> None:
        """Fill ``values`` with f of the states, and J (T, *batch, [k, k], *lanes, n) with its Jacobian."""
        self._run(self.loops.loops.linearise, {X: previous, Y: values, JACOBIAN: J})

    def _run(self, loop: Any, columns: Mapping[int, Array]) -> None:
        for part in self._parts:
            states = {c: States(part.cut(x), self._axes.get(c, self._axes[X]), c != X) for c, x in columns.items()}
            rows = Rows(part.shape, states, part.inputs)
            g, run = self.loops.sizes(rows, prod(part.shape))
            run(partial(loop, rows.inputs, *[rows.bases[c] for c in columns], rows.where, rows.by_time, g))
            rows.finish()


class _Part:
    """Steps ``begin`` to ``end``, ``length`` of them to a row."""

    def __init__(self, inputs: Sequence[Array], shape: tuple[int, ...], begin: int, end: int, length: int):
        self.begin, self.end, self.length = begin, end, length
        self.shape = ((end - begin) // length, length, *shape[1:])
        constant = [x.ndim < len(shape) or not x.strides[0] for x in inputs]
        rows = [x if x.ndim < len(shape) else x[0] for x in inputs]
        self.inputs = [
            np.broadcast_to(row, self.shape) if alike else self.cut(x)
            for x, row, alike in zip(inputs, rows, constant, strict=True)
        ]

    def cut(self, x: Array) -> Array:
        """Return the steps of an array, several to a row."""
        return x[self.begin : self.end].reshape(-1, self.length, *x.shape[1:])


@register("fused", "numba")
def fused(traced: TracedCell, dtype: np.dtype[Any]) -> Fused:
    """Return the loops of a cell whose mixings are all diagonal."""
    program = traced.program
    source = elementwise_module(program, traced.back, dtype)
    assert [leaf.name for leaf in inputs_of(program)] == [*program.drives, *program.mixings, *program.parameters]
    return Fused(source, program.name, len(program.components), len(program.drives))

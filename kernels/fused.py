"""Solves of cells whose mixings are all diagonal, compiled whole from the function of the cell."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from functools import partial
from math import ceil, prod
from typing import Any, NamedTuple, TypeAlias

import numpy as np

from recsolve.arrays import Array
from recsolve.kernels import generated
from recsolve.kernels.rows import COTANGENT, JACOBIAN, Rows, States, X, Y
from recsolve.kernels.threads import spread, threads

_SPREAD = 20_000  # numbers from which on threads pay for waking them
_ROW = 1024  # lanes that make a row long enough
_NEWTON = 256  # lanes of a tile whose window stays in the nearest cache


Run: TypeAlias = Callable[[Callable[[int, int], None]], None]


class Chain(NamedTuple):
    """What a walk through time needs beside the drive.

    Attributes
    ----------
    initial, restart : array, shape (*batch, *event)
        What the first step starts from, and what a reset does.
    reset : array of bool or None
        (T, *batch).
    """

    initial: Array
    restart: Array
    reset: Array | None = None


class Fused:
    """The compiled loops of one cell and dtype.

    States are (T, *batch, [k], *lanes, n), inputs broadcast to (T, *batch, *lanes, n) and come in the order of
    :func:`recsolve.kernels.source.inputs_of`.

    Parameters
    ----------
    source : str
        From :func:`recsolve.kernels.source.elementwise_module`.
    name : str
        Of the cell.
    components, drives : int
    """

    def __init__(self, source: str, name: str, components: int, drives: int):
        self.loops: Any = generated.load(source, name)
        self.components, self.drives = components, drives

    def walk(self, inputs: Sequence[Array], states: Array, batch: int, chain: Chain) -> None:
        """Fill ``states`` one step after the other; ``batch`` is the number of batch axes."""
        if not states.size:
            return
        result = States(states, self._axes(batch), True)
        rows = Rows(self._component(states, batch).shape, {Y: result}, inputs)
        g, run = self._sizes(rows, states.size, chain)
        start, *cuts = self._chain(rows, chain, batch)
        run(partial(self.loops.walk, rows.inputs, rows.bases[Y], start, *cuts, rows.where, rows.by_time, g))
        rows.finish()

    def newton(
        self, inputs: Sequence[Array], states: Array, batch: int, chain: Chain, window: int, tol: tuple[float, float]
    ) -> int:
        """Fill ``states`` by Newton's method in windows; return the most iterations that a tile took in all of them.

        A window that does not pass the test |r| <= atol + rtol max(|h|, |f|) has, after as many sweeps as it has steps,
        what the loop gives.
        """
        if not states.size:
            return 0
        result = States(states, self._axes(batch), True)
        rows = Rows(self._component(states, batch).shape, {Y: result}, inputs)
        window = min(window, len(states))
        g, run = self._sizes(rows, states.size, chain, window=window)
        start, *cuts = self._chain(rows, chain, batch)
        counts = np.zeros(rows.groups * ceil(rows.inner / g.width), np.int64)
        atol, rtol = (states.dtype.type(x) for x in tol)
        places = rows.where, rows.by_time, g, atol, rtol, counts
        run(partial(self.loops.newton, rows.inputs, rows.bases[Y], start, *cuts, *places))
        rows.finish()
        return int(counts.max())

    def evaluate(self, inputs: Sequence[Array], previous: Array, values: Array, batch: int) -> None:
        """Fill ``values`` with f of the states ``previous`` at all t."""
        for part, rows in self._blocks(inputs, batch, {X: previous, Y: values}):
            g, run = self._sizes(rows, part)
            run(partial(self.loops.evaluate, rows.inputs, rows.bases[X], rows.bases[Y], rows.where, rows.by_time, g))
            rows.finish()

    def linearise(self, inputs: Sequence[Array], previous: Array, values: Array, J: Array, batch: int) -> None:
        """Fill ``values`` with f of the states, and J (T, *batch, [k, k], *lanes, n) with its Jacobian."""
        for part, rows in self._blocks(inputs, batch, {X: previous, Y: values, JACOBIAN: J}):
            g, run = self._sizes(rows, part)
            bases = (rows.bases[column] for column in (X, Y, JACOBIAN))
            run(partial(self.loops.linearise, rows.inputs, *bases, rows.where, rows.by_time, g))
            rows.finish()

    def adjoint(
        self, inputs: Sequence[Array], states: Array, cotangent: Array, batch: int, chain: Chain
    ) -> tuple[Array, list[Array], Array, Array]:
        """Return the adjoint variables, the gradients to the drives, those to constants, and those to initial states.

        Gradients to drives have the shape (T, *batch, *lanes, n). Those to constants (constants, *batch, *lanes, n) and
        to the initial state (k, *batch, *lanes, n) are float64, in which they are added up.
        """
        result = np.empty_like(states)
        drives = [np.empty_like(self._component(states, batch)) for _ in range(self.drives)]
        columns = {X: States(states, self._axes(batch)), COTANGENT: States(cotangent, self._axes(batch))}
        columns[Y] = States(result, self._axes(batch), True)
        rows = Rows(self._component(states, batch).shape, columns, inputs, drives)
        totals = np.zeros((len(inputs) - self.drives, rows.number))
        into = np.zeros((self.components, rows.number))
        if states.size:
            g, run = self._sizes(rows, states.size, chain)
            arrays = (rows.bases[X], rows.bases[COTANGENT], rows.bases[Y], rows.gradients, totals, into)
            chained = self._chain(rows, chain, batch)
            run(partial(self.loops.adjoint, rows.inputs, *arrays, *chained, rows.where, rows.by_time, g))
            rows.finish()
        return result, drives, rows.unflatten(totals), rows.unflatten(into)

    def _axes(self, before: int, matrix: bool = False) -> tuple[int, ...]:
        """Return the axes of components in states with time and ``before`` axes first, or those of a Jacobian."""
        if self.components == 1:
            return ()
        return (1 + before, 2 + before) if matrix else (1 + before,)

    def _component(self, states: Array, batch: int) -> Array:
        """Return the first component of states."""
        index: Any = (slice(None),) * (1 + batch) + (0,)
        return states if self.components == 1 else states[index]

    def _blocks(self, inputs: Sequence[Array], batch: int, columns: Mapping[int, Array]) -> Iterator[tuple[int, Rows]]:
        """Yield rows that cover all times, several times to a row where lanes are few."""
        shape = self._component(columns[Y], batch).shape
        number, steps = prod(shape[1:]), shape[0]
        if not number * steps:
            return
        together = min(max(_ROW // number, 1), steps)
        full = [np.broadcast_to(x, shape) for x in inputs]
        for begin, end, length in ((0, steps - steps % together, together), (steps - steps % together, steps, 1)):
            if begin == end:
                continue

            def cut(x: Array, begin: int = begin, end: int = end, length: int = length) -> Array:
                return x[begin:end].reshape(-1, length, *x.shape[1:])

            states = {
                column: States(cut(x), self._axes(1 + batch, column == JACOBIAN), column != X)
                for column, x in columns.items()
            }
            lanes = cut(self._component(columns[Y], batch)).shape
            yield prod(lanes), Rows(lanes, states, [_cut_broadcast(x, begin, end, length) for x in full])

    def _sizes(self, rows: Rows, numbers: int, chain: Chain | None = None, window: int = 0) -> tuple[Any, Run]:
        """Return the sizes for the loops, and how to run a loop over all tasks."""
        workers = threads() if numbers >= _SPREAD else 1
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
            cutting=int(chain is not None and chain.reset is not None and bool(chain.reset.any())),
            window=window,
        )
        return g, partial(spread, tasks=ceil(rows.groups / bundle) * ceil(rows.inner / width), workers=workers)

    def _chain(self, rows: Rows, chain: Chain, batch: int) -> tuple[Array, Array, Array, Array]:
        """Return the states to start and restart from, which row of the cuts each time has, and the cuts."""
        axes = tuple(axis - 1 for axis in self._axes(batch))
        start, restart = (rows.component_rows(x, axes) for x in (chain.initial, chain.restart))
        steps, row = rows.shape[0], np.full(rows.shape[0], -1, np.int32)
        if chain.reset is None:
            return start, restart, row, np.empty((0, rows.number), np.bool_)
        times = np.flatnonzero(chain.reset.reshape(steps, -1).any(axis=1))
        row[times] = np.arange(len(times))
        mask = chain.reset[times].reshape(len(times), *chain.reset.shape[1:], *(1,) * (len(rows.shape) - 1 - batch))
        cuts = rows.lanes.flatten(np.broadcast_to(mask, (len(times), *rows.shape[1:])), len(rows.shape) - 1)
        return start, restart, row, cuts


def _cut_broadcast(x: Array, begin: int, end: int, length: int) -> Array:
    """Return the steps of a broadcast array, ``length`` of them to a row, without writing out what is repeated."""
    if x.strides[0]:
        return x[begin:end].reshape(-1, length, *x.shape[1:])
    return np.broadcast_to(x[0], ((end - begin) // length, length, *x.shape[1:]))

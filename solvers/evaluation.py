"""Evaluation of a trajectory: f, the residual tested row by row, and counters of the work."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Sequence
from functools import cached_property
from math import prod
from typing import Any, Literal, NamedTuple, overload

import numpy as np

from recsolve.base.arrays import Array, namespace, to_host
from recsolve.base.tolerance import Tolerance
from recsolve.jacobians import Jacobian
from recsolve.kernels.gpu.cell.bound_cell import Bound
from recsolve.kernels.gpu.iterate import Iterations
from recsolve.kernels.gpu.judged import Judged, Report
from recsolve.kernels.graph_scan import graph_front
from recsolve.kernels.residual import front, hopeless, iterations, residual_of
from recsolve.recurrence.base import Recurrence
from recsolve.recurrence.engine import Engine
from recsolve.solvers.iterate import Iterate, Linearised, largest

_COUNTED = dict.fromkeys(("nfev", "njev", "njvp", "nscan", "rows"), 0)


class Direct(NamedTuple):
    """The result of compiled loops, found without the driver.

    Attributes
    ----------
    states : array, shape (T, *batch, *event)
    iterations : int
    values : array or None
        F of these states, same shape, where the loops have it anyway; otherwise the driver evaluates it.

    Examples
    --------
    A method that is done before the driver begins:

    >>> import numpy as np, recsolve as rs
    >>> class Known(rs.solvers.Newton):
    ...     name, cite = "known", "mine"
    ...     def direct(self, problem):
    ...         return rs.solvers.Direct(np.ones((50, 1)), iterations=0)
    >>> rec = rs.Recurrence.from_function(lambda h, u: h * u, inputs=np.ones((50, 1)), initial=np.ones(1))
    >>> rs.solve(rec, method=Known()).success
    True
    """

    states: Array
    iterations: int
    values: Array | None = None


class Settled:
    """A trajectory that compiled loops have tested in every entry; the rest of an iterate is evaluated when asked for.

    Parameters
    ----------
    evaluation : Evaluation
        The problem, whose tolerance every entry meets.
    states : array, shape (T, *batch, *event)
    worst : float
        max |r|.
    largest : float, optional
        max |h|, where it is known.

    Attributes
    ----------
    converged : array of bool, shape (T, *batch)
        True everywhere.
    progress : int
        The number of rows, over all sequences.
    """

    blocked = False

    def __init__(self, evaluation: Evaluation, states: Array, worst: float, largest: float | None = None):
        self.recurrence, self.tolerance = evaluation.recurrence, evaluation.tolerance
        self.largest = largest
        self.states, self.worst, self._engine, self._counts = states, worst, evaluation.engine, evaluation.counts

    def __getstate__(self) -> dict[str, Any]:
        """Return what can be pickled: an engine is bound anew."""
        return {**vars(self), "_engine": None}

    @cached_property
    def _judged(self) -> Iterate:
        evaluation = Evaluation(self.recurrence, self.tolerance, jacobian=False, engine=self._engine)
        evaluation.counts = self._counts
        return evaluation.evaluate(self.states)

    @property
    def values(self) -> Array:
        """F[t] = f(h[t-1], u[t]), shape (T, *batch, *event)."""
        return self._judged.values

    @property
    def residual(self) -> Array:
        """F - h, shape (T, *batch, *event)."""
        return self._judged.residual

    @property
    def converged(self) -> Array:
        rec = self.recurrence
        return namespace(self.states).ones((rec.length, *rec.batch), dtype=bool)  # type: ignore[no-any-return]

    @property
    def progress(self) -> int:
        return prod((self.recurrence.length, *self.recurrence.batch))


class Evaluation:
    """The part of a :class:`Problem` that makes iterates from trajectories."""

    def __init__(self, recurrence: Recurrence, tolerance: Tolerance, *, jacobian: bool, engine: Engine | None = None):
        self.recurrence, self.tolerance, self.jacobian = recurrence, tolerance, jacobian
        self.counts: Counter[str] = Counter()
        dict.update(self.counts, _COUNTED)  # Counter(_COUNTED) looks at more than that
        self.engine = engine or recurrence.bind()
        self.size = recurrence.length * prod(recurrence.batch)  # rows
        self.event_axes = tuple(range(1 + len(recurrence.batch), len(recurrence.shape)))

    @overload
    def evaluate(self, states: Array, *, pinned: Array | None = ..., jacobian: Literal[True]) -> Linearised: ...
    @overload
    def evaluate(
        self, states: Array, *, pinned: Array | None = ..., jacobian: bool | None = ..., chunk: int | None = ...
    ) -> Iterate: ...
    def evaluate(
        self,
        states: Array,
        *,
        pinned: Array | None = None,
        jacobian: bool | None = None,
        chunk: int | None = None,
    ) -> Iterate:
        """Evaluate F, the residual, and the tests of every row.

        Parameters
        ----------
        states : array, shape (T, *batch, *event), dtype and kind of the recurrence
            Kept by the iterate, not copied.
        pinned : array of bool, shape (T, *batch), optional
            Rows that are exact by construction.
        jacobian : bool, optional
            Whether the iterate carries it; default: as the solver needs.
        chunk : int, optional
            How many times to evaluate f at together, to save memory.

        Returns
        -------
        Iterate
            A :class:`Linearised` one where it carries the Jacobian.

        Examples
        --------
        >>> import numpy as np, recsolve as rs
        >>> rec = rs.Recurrence.from_function(lambda h, u: h / 2 + u, inputs=np.ones((4, 1)), initial=np.zeros(1))
        >>> problem = rs.solvers.Problem(rec, rs.solve(rec).tolerance, pin=True, jacobian=True)
        >>> iterate = problem.evaluate(np.array([[1.0], [1.5], [0.0], [0.0]]))
        >>> iterate.residual.ravel().tolist(), iterate.converged.tolist()
        ([0.0, 0.0, 1.75, 1.0], [True, True, False, False])
        """
        engine, J = self.engine, None
        self.count_evaluation()
        jacobian = self.jacobian if jacobian is None else jacobian
        self.counts["njev"] += jacobian
        if chunk is None and self._bound is not None and self.launched is not None:
            found = self.launched.evaluate(self._bound, states, self.tolerance, pinned, jacobian)
            if found is not None:
                values, J, judged = found
                return _iterate(states, values, J, self.tolerance, judged)
        if jacobian:
            values, J = engine.linearise(states)
        else:
            values = engine.evaluate(states) if chunk is None else self._by_chunks(states, chunk)
        return self.judge(states, values, J, pinned)

    def tested(self, states: Array) -> tuple[Array, Array, Array]:
        """Return F, where rows meet the tolerance, and max |r| of each; on a device nothing waits for them."""
        if self._bound is not None and self.launched is not None:
            found = self.launched.tested(self._bound, states, self.tolerance)
            if found is not None:
                return found
        values = self.engine.evaluate(states)
        _, converged, _, sizes = residual_of(states, values, self.tolerance, self.event_axes)
        return values, converged, sizes

    def judge(
        self,
        states: Array,
        values: Array,
        J: Jacobian | None = None,
        pinned: Array | None = None,
        tolerance: Tolerance | None = None,
    ) -> Iterate:
        """Return the iterate of states and F, without evaluating f.

        Parameters
        ----------
        states, values : array, shape (T, *batch, *event)
            h and F[t] = f(h[t-1], u[t]).
        J : Jacobian, optional
            d F[t] / d h[t-1], to be carried.
        pinned : array of bool, shape (T, *batch), optional
            Rows that are exact by construction, whatever their residual; not those whose residual is not finite.
        tolerance : Tolerance, optional
            The test; default: that of the problem.

        Returns
        -------
        Iterate
            A :class:`Linearised` one where ``J`` is given.

        Examples
        --------
        >>> import numpy as np, recsolve as rs
        >>> rec = rs.Recurrence.from_function(lambda h, u: h / 2 + u, inputs=np.ones((4, 1)), initial=np.zeros(1))
        >>> problem = rs.solvers.Problem(rec, rs.solve(rec).tolerance, pin=True, jacobian=True)
        >>> states = problem.guess()
        >>> problem.judge(states, rec.evaluate(states)).converged.tolist()  # f(h[0], u[t]) is right at the first step
        [True, False, False, False]
        """
        tolerance = tolerance or self.tolerance
        if self.launched is not None:
            return _iterate(states, values, J, tolerance, self.launched.judge(states, values, tolerance, pinned))
        residual, converged, exact, sizes = residual_of(states, values, tolerance, self.event_axes)
        if pinned is not None:
            exact = exact | (pinned & namespace(states).isfinite(sizes))
        leading, front = self.front(exact)
        worst = largest(sizes)
        blocked = not np.isfinite(worst) and self._blocked(states, values, converged)
        known = (states, values, residual, converged, tolerance, leading, front, worst, blocked)
        return Iterate(*known) if J is None else Linearised(*known, J)

    def judge_unread(self, states: Array, values: Array) -> tuple[Array, Callable[[Sequence[int]], Iterate]]:
        """Return a report of states and F, for which a device is asked and nothing waits, and the iterate, given it.

        Where no kernels test them the report is made of the iterate, and tells no more than other ranks look at.

        Returns
        -------
        report : array of int64
            The numbers of ``Report`` in ``recsolve.kernels.gpu.judged``. On a device the next test writes to it.
        finish : callable
            ``finish(numbers)`` returns what :meth:`judge` does.
        """
        if self.launched is not None:
            judged, report = self.launched.judge_unread(states, values, self.tolerance)
            return report, lambda told: _iterate(states, values, None, self.tolerance, judged.read(told))
        iterate, steps = self.judge(states, values), self.recurrence.length
        bits, failed = int(np.float64(iterate.worst).view(np.int64)), int((~iterate.converged).sum())
        said = Report(bits, failed, iterate.progress, unconverged=steps - iterate.converged_times)
        return namespace(states).array(said, dtype=np.int64), lambda _: iterate

    def guess(self) -> Array:
        """Return f(h[0], u[t]) at every t, shape (T, *batch, *event), and count it as an evaluation."""
        self.count_evaluation()
        return self.engine.guess()

    def count_evaluation(self) -> None:
        """Count an evaluation of f at all t."""
        self.counts["nfev"] += 1
        self.counts["rows"] += self.size

    def _by_chunks(self, states: Array, chunk: int) -> Array:
        """Return F, with the memory of one chunk beside it."""
        rec, values = self.recurrence, namespace(states).empty_like(states)
        for start in range(0, rec.length, chunk):
            stop = min(start + chunk, rec.length)
            values[start:stop] = rec.between(start, stop, states).evaluate(states[start:stop])
        return values  # type: ignore[no-any-return]

    def linearise(self, iterate: Iterate) -> Jacobian:
        """Return the Jacobian J[t] = d F[t] / d h[t-1] at an iterate that carries none, and count it.

        Raises
        ------
        TypeError, ValueError
            Where f cannot be differentiated, or its declared structure is not that of the derivative.
        """
        self.counts["njev"] += 1
        self.counts["rows"] += self.size
        return self.engine.linearise(iterate.states)[1]

    def _blocked(self, states: Array, values: Array, converged: Array) -> bool:
        """Return whether the first row of each segment to fail the tolerance equals a non-finite F."""
        _, stop = self.front(converged)
        return bool(stop.any()) and not bool((stop & ~hopeless(states, values, self.event_axes)).any())

    def front(self, good: Array) -> tuple[Array, Array]:
        """Return the leading good rows of every segment, and the row at which each stops.

        Parameters
        ----------
        good : array of bool, shape (T, *batch)

        Returns
        -------
        leading, stop : array of bool, shape (T, *batch)
            Good rows with only such rows before them, back to the start of the segment; the first row that is not.

        Examples
        --------
        >>> import numpy as np, recsolve as rs
        >>> rec = rs.Recurrence.from_function(lambda h, u: h / 2 + u, inputs=np.ones((4, 1)), initial=np.zeros(1))
        >>> problem = rs.solvers.Problem(rec, rs.solve(rec).tolerance, pin=True, jacobian=True)
        >>> leading, stop = problem.front(np.array([True, True, False, True]))
        >>> leading.tolist(), stop.tolist()
        ([True, True, False, False], [False, False, True, False])
        """
        if self.launched is not None:
            return self.launched.front(good)
        xp, graph = namespace(good), self.recurrence.graph
        host = to_host(good)
        leading, stop = front(host, self._starts) if graph is None else graph_front(host, graph)
        return xp.asarray(leading), xp.asarray(stop)

    @cached_property
    def starts(self) -> Array:
        """The first row of every sequence, and the rows of resets, (T, *batch)."""
        return self.recurrence.starts

    @cached_property
    def _starts(self) -> Array:
        return to_host(self.starts)

    @cached_property
    def launched(self) -> Iterations | None:
        """Kernels of iterations on a GPU; None where the forms of :mod:`recsolve.kernels.residual` do the work."""
        if self.recurrence.graph is not None:
            return None
        return iterations(self.starts, self.recurrence.layout, self.recurrence.dtype)

    @property
    def in_place(self) -> bool:
        """Whether another trajectory can be tested after arrays of the recurrence have been written to."""
        return self._bound is not None and self._bound.in_place

    @cached_property
    def _bound(self) -> Bound | None:
        """The cell as it is evaluated and tested in one launch; None where there are no such kernels for it."""
        return None if self.launched is None or self.tolerance.lanes is not None else self.engine.bound(self.launched)


def _iterate(states: Array, values: Array, J: Jacobian | None, tolerance: Tolerance, judged: Judged) -> Iterate:
    """Return an iterate of what kernels have found out about it."""
    rows = judged.converged, tolerance, judged.leading, judged.front, judged.worst, judged.blocked
    known = states, values, judged.residual, *rows
    return Iterate(*known, judged=judged) if J is None else Linearised(*known, J, judged=judged)

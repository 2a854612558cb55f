"""What a solver works on: the recurrence with its tolerance, its counters, and the guards that keep every step safe."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from typing import Any, Literal, NamedTuple, TypeVar, overload

import numpy as np

from recsolve.arrays import Array, namespace, to_host
from recsolve.jacobians import Jacobian, Zero
from recsolve.kernels.iterate import guard, largest_finite, residual_of
from recsolve.recurrence import Recurrence
from recsolve.scan import affine_scan
from recsolve.solvers.iterate import Iterate, Linearised, largest
from recsolve.tolerance import Tolerance

I = TypeVar("I", Iterate, Linearised)  # noqa: E741

_TOGETHER = 1 << 16  # rows whose segments are looked at together, to save memory where a state is one number


class Direct(NamedTuple):
    """What compiled loops find without the driver.

    Attributes
    ----------
    states : array, shape (T, *batch, *event)
    iterations : int
    values : array or None
        F of these states, same shape, where the loops have it anyway; otherwise the driver evaluates it.
    """

    states: Array
    iterations: int
    values: Array | None = None


class Problem:
    """A recurrence to solve: what a solver evaluates, corrects and advances its iterates with.

    Parameters
    ----------
    recurrence : Recurrence
        All of it, or the times and sequences that are left.
    tolerance : Tolerance
        The test that a row must meet.
    pin : bool
        Whether leading rows, which are exact, are left alone and the row after them takes F exactly. With the pin every
        causal method ends within T iterations, with the sequential loop's own numbers.
    jacobian : bool
        Whether iterates carry the Jacobian.

    Attributes
    ----------
    event_axes : tuple of int
        The axes of a trajectory after time and batch.
    counts : Counter
        ``nfev`` and ``njev`` (evaluations of f and of its Jacobian at all t still to be solved), ``njvp`` (products
        with a Jacobian that is not formed), ``nscan``, and ``rows``: at how many (t, sequence) f has been evaluated.
    starts : array of bool, shape (T, *batch)
        The first row of every sequence, and the rows of resets.
    horizon : int
        T of the whole, or the length of the window.

    Examples
    --------
    Newton's method by hand:

    >>> import numpy as np, recsolve as rs
    >>> u = np.random.default_rng(0).standard_normal((60, 2))
    >>> rec = rs.Recurrence.from_function(
    ...     lambda h, u: np.tanh(h + u), inputs=u, initial=np.zeros(2), structure="diagonal")
    >>> problem = rs.solvers.Problem(rec, rs.solve(rec).tolerance, pin=True, jacobian=True)
    >>> iterate = problem.evaluate(problem.guess())
    >>> while not iterate.converged.all():
    ...     iterate = problem.advance(iterate, problem.correct(iterate, iterate.jacobian))
    >>> problem.counts["nfev"] < 12
    True
    """

    def __init__(self, recurrence: Recurrence, tolerance: Tolerance, *, pin: bool, jacobian: bool):
        self.recurrence, self.tolerance, self.pin, self.jacobian = recurrence, tolerance, pin, jacobian
        self.counts: Counter[str] = Counter(nfev=0, njev=0, njvp=0, nscan=0, rows=0)
        self.starts = recurrence.starts
        self.horizon = recurrence.length  # of the whole, when this is a part
        self._known: Array | None = None  # the largest |h| that is known to be real, per sequence
        self.event_axes = tuple(range(1 + len(recurrence.batch), len(recurrence.shape)))
        self._starts = to_host(self.starts)

    def part(self, recurrence: Recurrence, place: tuple[Array, ...] | None = None) -> Problem:
        """Return the problem of a part, which counts into the same book.

        Parameters
        ----------
        recurrence : Recurrence
            Some of the times or sequences.
        place : tuple of array of int, optional
            The sequences, as an index of the batch; default: all.
        """
        part = Problem(recurrence, self.tolerance, pin=self.pin, jacobian=self.jacobian)
        part.counts, part.horizon, part._known = self.counts, self.horizon, self._known
        if part._known is not None and place is not None:
            index: Any = (slice(None), *place)
            part._known = part._known[index]
        return part

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
        """Evaluate F, the residual and what it says of every row.

        Parameters
        ----------
        states : array, shape (T, *batch, *event), dtype and kind of the recurrence
            Kept by the iterate, not copied.
        pinned : array of bool, shape (T, *batch), optional
            Rows that are exact by construction.
        jacobian : bool, optional
            Whether the iterate carries it; default: as the solver needs.
        chunk : int, optional
            Evaluate f at so many times together, to save memory.

        Returns
        -------
        Iterate
            A :class:`Linearised` one where it carries the Jacobian.

        Examples
        --------
        >>> import numpy as np, recsolve as rs
        >>> rec = rs.Recurrence.from_function(
        ...     lambda h, u: 0.5 * h + u, inputs=np.ones((4, 1)), initial=np.zeros(1), structure="diagonal")
        >>> problem = rs.solvers.Problem(rec, rs.solve(rec).tolerance, pin=True, jacobian=True)
        >>> iterate = problem.evaluate(np.array([[1.0], [1.5], [0.0], [0.0]]))
        >>> iterate.residual.ravel().tolist(), iterate.converged.tolist()
        ([0.0, 0.0, 1.75, 1.0], [True, True, False, False])
        """
        rec, J = self.recurrence, None
        self.count_evaluation()
        if self.jacobian if jacobian is None else jacobian:
            self.counts["njev"] += 1
            values, J = rec.linearise(states)
        else:
            values = rec.evaluate(states) if chunk is None else self._by_chunks(states, chunk)
        return self.judge(states, values, J, pinned)

    def judge(self, states: Array, values: Array, J: Jacobian | None = None, pinned: Array | None = None) -> Iterate:
        """Return what follows from states and F, without evaluating f.

        Parameters
        ----------
        states, values : array, shape (T, *batch, *event)
            h and F[t] = f(h[t-1], u[t]).
        J : Jacobian, optional
            d F[t] / d h[t-1], to be carried.
        pinned : array of bool, shape (T, *batch), optional
            Rows that are exact by construction, whatever their residual; not those whose residual is not finite.

        Returns
        -------
        Iterate
            A :class:`Linearised` one where ``J`` is given.

        Examples
        --------
        >>> import numpy as np, recsolve as rs
        >>> rec = rs.Recurrence.from_function(
        ...     lambda h, u: 0.5 * h + u, inputs=np.ones((4, 1)), initial=np.zeros(1), structure="diagonal")
        >>> problem = rs.solvers.Problem(rec, rs.solve(rec).tolerance, pin=True, jacobian=True)
        >>> states = problem.guess()
        >>> problem.judge(states, rec.evaluate(states)).converged.tolist()  # f(h[0], u[t]) is right at the first step
        [True, False, False, False]
        """
        residual, converged, exact, sizes = residual_of(states, values, self.tolerance, self.event_axes)
        if pinned is not None:
            exact = exact | (pinned & namespace(states).isfinite(sizes))
        leading, front = self.front(exact)
        worst = largest(sizes)
        blocked = not np.isfinite(worst) and self._blocked(states, values, converged)
        known = (states, values, residual, converged, leading, front, worst, blocked)
        return Iterate(*known) if J is None else Linearised(*known, J)

    def sweep(self, *, scanned: bool = True) -> Direct | None:
        """Return what :meth:`Recurrence.sweep` finds to this tolerance, and count its evaluations.

        Parameters
        ----------
        scanned : bool
            Whether sweeps carry corrections by the block part of J; otherwise they are Jacobi's.

        Returns
        -------
        Direct or None
            None where no sweeps are compiled for the recurrence.
        """
        found = self.recurrence.sweep((self.tolerance.atol, self.tolerance.rtol), scanned=scanned)
        if found is None:
            return None
        states, iterations, residual = found
        evaluations = iterations + 1
        self.counts.update(nfev=evaluations, rows=evaluations * self.starts.size)
        self.counts.update(dict.fromkeys(("njev", "nscan"), evaluations * scanned))
        return Direct(states, iterations, None if residual is None else states + residual)

    def guess(self) -> Array:
        """Return f(h[0], u[t]) at every t, shape (T, *batch, *event), and count it as an evaluation."""
        self.count_evaluation()
        return self.recurrence.guess()

    def count_evaluation(self) -> None:
        """Count an evaluation of f at all t."""
        self.counts["nfev"] += 1
        self.counts["rows"] += self.starts.size

    def _by_chunks(self, states: Array, chunk: int) -> Array:
        """Return F, with the memory of one chunk beside it."""
        rec, values = self.recurrence, namespace(states).empty_like(states)
        for start in range(0, rec.length, chunk):
            stop = min(start + chunk, rec.length)
            before = rec.wrap(states[start - 1].copy()) if start else None
            values[start:stop] = rec.window(start, stop, before).evaluate(states[start:stop])
        return values  # type: ignore[no-any-return]

    def linearise(self, iterate: Iterate) -> Jacobian:
        """Return the Jacobian J[t] = d F[t] / d h[t-1] at an iterate that carries none, and count it.

        Raises
        ------
        TypeError, ValueError
            Where f cannot be differentiated, or its declared structure is not that of the derivative.
        """
        self.counts["njev"] += 1
        self.counts["rows"] += self.starts.size
        return self.recurrence.linearise(iterate.states)[1]

    def _rows(self, entries: Array) -> Array:
        """Return the rows (T, *batch) of which every entry is true."""
        return entries.all(axis=self.event_axes)  # type: ignore[return-value]

    def _blocked(self, states: Array, values: Array, converged: Array) -> bool:
        """Return whether the first row of each segment to fail the tolerance equals a non-finite F."""
        xp = namespace(states)
        equal = (values == states) | ((values != values) & (states != states))
        hopeless = ~self._rows(xp.isfinite(values)) & self._rows(equal | xp.isfinite(values))
        _, front = self.front(converged)
        return bool(front.any()) and not bool((front & ~hopeless).any())

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
        >>> rec = rs.Recurrence.from_function(
        ...     lambda h, u: 0.5 * h + u, inputs=np.ones((4, 1)), initial=np.zeros(1), structure="diagonal")
        >>> problem = rs.solvers.Problem(rec, rs.solve(rec).tolerance, pin=True, jacobian=True)
        >>> leading, stop = problem.front(np.array([True, True, False, True]))
        >>> leading.tolist(), stop.tolist()
        ([True, True, False, False], [False, False, True, False])
        """
        xp, host = namespace(good), to_host(good)
        if not host.size:
            return good, good.copy()
        clean = np.empty(host.shape, bool)
        failure, start = (np.full((1, *host.shape[1:]), -1) for _ in range(2))
        rows = max(_TOGETHER // max(self._starts[0].size, 1), 1)
        for begin in range(0, len(host), rows):
            part = slice(begin, begin + rows)
            index = np.arange(begin, min(begin + rows, len(host))).reshape((-1,) + (1,) * (host.ndim - 1))
            failures, starts = (
                np.maximum.accumulate(np.concatenate([before, np.where(mask[part], index, -1)]), axis=0)
                for before, mask in ((failure, ~host), (start, self._starts))
            )
            clean[part] = failures[:-1] < starts[1:]
            failure, start = failures[-1:], starts[-1:]
        return xp.asarray(clean & host), xp.asarray(clean & ~host)

    def cut(self, iterate: Iterate) -> Array:
        """Return the rows (T, *batch) that take F without a correction from the row before.

        Starts of segments; with the pin also the leading rows, which are exact, and the row after them.
        """
        return self.starts | iterate.leading | iterate.front if self.pin else self.starts

    def correct(self, iterate: Iterate, A: Jacobian) -> Array:
        """Return F[t] + A[t] d[t-1], where d[t] = A[t] d[t-1] + r[t]: one scan.

        Rows that are cut from the one before (see :meth:`cut`) take F, and begin the scan anew with d = r. They are
        selected, not multiplied by zero, so that what is not finite before them does not reach them.

        Parameters
        ----------
        iterate : Iterate
        A : Jacobian
            The matrix that stands in for J, in any structure, over the times and sequences of the iterate.

        Returns
        -------
        array, shape (T, *batch, *event)
            A proposal for :meth:`advance`: neither guarded nor evaluated.

        Examples
        --------
        >>> import numpy as np, recsolve as rs
        >>> rec = rs.Recurrence.from_function(
        ...     lambda h, u: 0.5 * h + u, inputs=np.ones((4, 1)), initial=np.zeros(1), structure="diagonal")
        >>> problem = rs.solvers.Problem(rec, rs.solve(rec).tolerance, pin=True, jacobian=True)
        >>> iterate = problem.evaluate(problem.guess())
        >>> problem.correct(iterate, iterate.jacobian).ravel().tolist()  # Newton's step, exact for an affine f
        [1.0, 1.5, 1.75, 1.875]
        """
        if isinstance(A, Zero):
            return iterate.values
        self.counts["nscan"] += 1
        cut = self.recurrence.over_event(self.cut(iterate))
        d = affine_scan(A, iterate.residual, reset=cut)
        return iterate.values + self.carried(A.matvec, d, cut)

    def carried(self, product: Callable[[Array], Array], d: Array, cut: Array) -> Array:
        """Return A[t] d[t-1], and 0 in rows that are cut from the one before.

        Parameters
        ----------
        product : callable
            ``product(v)`` is A[t] v[t] at all t, as ``A.matvec`` is.
        d : array, shape (T, *batch, *event)
        cut : array of bool
            From :meth:`cut`, broadcast over the event (``recurrence.over_event``).

        Returns
        -------
        array, shape (T, *batch, *event)

        Examples
        --------
        >>> import numpy as np, recsolve as rs
        >>> rec = rs.Recurrence.from_function(
        ...     lambda h, u: 0.5 * h + u, inputs=np.ones((4, 1)), initial=np.zeros(1), structure="diagonal")
        >>> problem = rs.solvers.Problem(rec, rs.solve(rec).tolerance, pin=True, jacobian=True)
        >>> iterate = problem.evaluate(problem.guess())
        >>> cut = rec.over_event(problem.cut(iterate))
        >>> problem.carried(iterate.jacobian.matvec, np.ones((4, 1)), cut).ravel().tolist()
        [0.0, 0.0, 0.5, 0.5]
        """
        before = namespace(d).empty_like(d)
        before[1:], before[:1] = d[:-1], 0
        return namespace(d).where(cut, d.dtype.type(0), product(before))  # type: ignore[no-any-return]

    def advance(self, iterate: I, proposal: Array) -> I:
        """Guard and pin a proposal, and evaluate it.

        Parameters
        ----------
        iterate : Iterate or Linearised
            Where the proposal comes from.
        proposal : array, shape (T, *batch, *event)
            Any numbers, not finite ones included.

        Returns
        -------
        Iterate or Linearised
            The next iterate, with its Jacobian where the last one has it.

        Examples
        --------
        >>> import numpy as np, recsolve as rs
        >>> rec = rs.Recurrence.from_function(
        ...     lambda h, u: 0.5 * h + u, inputs=np.ones((4, 1)), initial=np.zeros(1), structure="diagonal")
        >>> problem = rs.solvers.Problem(rec, rs.solve(rec).tolerance, pin=True, jacobian=True)
        >>> iterate = problem.evaluate(problem.guess())
        >>> problem.advance(iterate, np.full((4, 1), np.nan)).states.ravel().tolist()  # F in place of junk
        [1.0, 1.5, 1.5, 1.5]
        """
        states, pinned = self.guarded(iterate, proposal), self.pinned(iterate)
        if isinstance(iterate, Linearised):
            return self.evaluate(states, pinned=pinned, jacobian=True)
        return self.evaluate(states, pinned=pinned, jacobian=False)

    def pinned(self, iterate: Iterate) -> Array | None:
        """Return the rows (T, *batch) that the pin makes exact in the next iterate; None without the pin."""
        return iterate.leading | iterate.front if self.pin else None

    def guarded(self, iterate: Iterate, proposal: Array) -> Array:
        """Return a proposal made safe.

        An entry that is not finite, or farther out than a recurrence with ||J|| <= 1 can come, takes the plain step F.
        The bound is 2 (T + 1) sqrt(N) times the largest number known of its sequence: of the first iterate and its F,
        of h[0] and of the rows solved since, but not of other iterates, whose junk would make room for more. Then the
        pin is applied: leading rows stay as they are, and the row after them takes F.

        Parameters
        ----------
        iterate : Iterate
            Where the proposal comes from.
        proposal : array, shape (T, *batch, *event)

        Returns
        -------
        array, shape (T, *batch, *event)
            A new array, or the proposal itself.

        Examples
        --------
        >>> import numpy as np, recsolve as rs
        >>> rec = rs.Recurrence.from_function(
        ...     lambda h, u: 0.5 * h + u, inputs=np.ones((4, 1)), initial=np.zeros(1), structure="diagonal")
        >>> problem = rs.solvers.Problem(rec, rs.solve(rec).tolerance, pin=True, jacobian=True)
        >>> iterate = problem.evaluate(problem.guess())
        >>> problem.guarded(iterate, np.array([[9.0], [9.0], [1.0], [1e9]])).ravel().tolist()
        [1.0, 1.5, 1.0, 1.5]
        """
        pins = (iterate.leading, iterate.front) if self.pin else None
        return guard(proposal, iterate.states, iterate.values, self._reach(iterate), pins, self.event_axes)

    def _reach(self, iterate: Iterate) -> Array:
        """Return the bound on |h| per sequence, shape (1, *batch, 1...)."""
        rec, xp = self.recurrence, namespace(iterate.states)
        if self._known is None:
            self._known = xp.maximum(self._largest(iterate.values), self._largest(rec.initial[None]))
            self._known = xp.maximum(self._known, self._largest(iterate.states))
        solved, _ = self.front(iterate.converged)
        if solved.any():
            self._known = xp.maximum(self._known, self._largest(iterate.states, solved))
        return 2.0 * (self.horizon + 1) * rec.layout.size**0.5 * self._known  # type: ignore[no-any-return]

    def _largest(self, x: Array, rows: Array | None = None) -> Array:
        """Return the largest finite |x| of each sequence, of some rows (T, *batch), shape (1, *batch, 1...)."""
        sizes = largest_finite(x, self.event_axes)
        if rows is not None:
            sizes = namespace(x).where(rows, sizes, sizes.dtype.type(0))
        if not sizes.size:
            sizes = namespace(x).zeros((1, *sizes.shape[1:]), sizes.dtype)
        return sizes.max(axis=0).reshape(1, *sizes.shape[1:], *(1,) * len(self.event_axes))  # type: ignore[no-any-return]

"""What a solver works on: a recurrence with its tolerance, its corrections, and the guards that keep steps safe."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, TypeAlias, TypeVar

import numpy as np

from recsolve.base.arrays import Array, is_discrete, namespace
from recsolve.base.tolerance import Tolerance
from recsolve.jacobians import Block, ByParent, Diagonal, Jacobian, Zero
from recsolve.kernels.affine_scan import affine_scan, carried
from recsolve.kernels.gpu.iterate import OF_BLOCK, OF_DIAGONAL, OF_PRODUCT, OF_PROPOSAL, OF_VALUES
from recsolve.kernels.residual import guard, largest_finite
from recsolve.recurrence.base import Recurrence
from recsolve.recurrence.engine import Engine
from recsolve.recurrence.scale import largest_together
from recsolve.solvers.evaluation import Evaluation
from recsolve.solvers.iterate import Iterate, Linearised

I = TypeVar("I", Iterate, Linearised)  # noqa: E741
Rounding: TypeAlias = Callable[[Recurrence, Array, Array], Array | None]


class Problem(Evaluation):
    """A recurrence to solve, with the methods by which a solver evaluates, corrects and advances its iterates.

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
    engine : Engine, optional
        What computes f; default: the one that the recurrence binds.
    rounding : callable, optional
        ``rounding(recurrence, states, rows)`` bounds the rounding of f in some rows (T, *batch), or is None where it is
        not known, the default.

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
    whole : tuple of int
        (T, *batch) of the recurrence that the user gave.
    index : tuple
        Which of these rows are left in ``recurrence``: an index of the axes (T, *batch), see :meth:`part_of`.

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

    def __init__(
        self,
        recurrence: Recurrence,
        tolerance: Tolerance,
        *,
        pin: bool,
        jacobian: bool,
        engine: Engine | None = None,
        rounding: Rounding | None = None,
    ):
        super().__init__(recurrence, tolerance, jacobian=jacobian, engine=engine)
        self.pin, self.rounding = pin, rounding
        self.horizon = recurrence.length  # of the whole, when this is a part
        self.whole: tuple[int, ...] = (recurrence.length, *recurrence.batch)
        self.index: tuple[Any, ...] = (slice(0, recurrence.length),)
        self._known: Array | None = None  # the largest |h| that is known to be real, per sequence

    def part(self, recurrence: Recurrence, place: tuple[Array, ...] | None = None) -> Problem:
        """Return the problem of a part, which shares the counters.

        Parameters
        ----------
        recurrence : Recurrence
            Some of the times or sequences.
        place : tuple of array of int, optional
            The sequences, as an index of the batch; default: all.
        """
        part = Problem(recurrence, self.tolerance, pin=self.pin, jacobian=self.jacobian, rounding=self.rounding)
        part.counts, part.horizon, part._known = self.counts, self.horizon, self._known
        part.whole = self.whole  # whoever cuts says what the index is
        if part._known is not None and place is not None:
            index: Any = (slice(None), *place)
            part._known = part._known[index]
        return part

    def part_of(self, x: Any) -> Any:
        """Return those rows of an array or a Jacobian of the whole that are left in this problem.

        Parameters
        ----------
        x : array or Jacobian, leading shape (T, *batch) of the whole

        Returns
        -------
        array or Jacobian
            Leading shape (T, *batch) of ``recurrence``.

        Examples
        --------
        >>> import numpy as np, recsolve as rs
        >>> u = np.random.default_rng(0).standard_normal((60, 4, 2))
        >>> rec = rs.Recurrence.from_function(
        ...     lambda h, u: 0.8 * np.tanh(h) + u, inputs=u, initial=np.zeros((4, 2)), structure="diagonal")
        >>> A = rs.jacobians.Diagonal(0.8 / np.cosh(u) ** 2, rec.layout)  # known before the solve
        >>> rs.solve(rec, method=rs.solvers.Newton(A=lambda problem, iterate: problem.part_of(A))).success
        True
        """
        return x[self.index]

    def fitting(self, A: Any, name: str) -> Jacobian:
        """Return the Jacobian that a user's callable has returned, cut to the rows that are left.

        Raises
        ------
        TypeError, ValueError
            For what is no Jacobian of these rows, nor of the whole, in the dtype of the recurrence.
        """
        rec = self.recurrence
        rows = (rec.length, *rec.batch)
        if not isinstance(A, Jacobian):
            raise TypeError(f"{name} returned {type(A).__name__}; wanted a Jacobian, as recsolve.jacobians has them")
        left: Jacobian = self.part_of(A) if A.leading == self.whole != rows else A
        if left.leading != rows or left.layout != rec.layout:
            raise ValueError(f"{name} returned {A}; wanted leading {rows}, the rows that are left, and {rec.layout}")
        dtype = getattr(getattr(left, "data", None), "dtype", rec.dtype)
        if dtype != rec.dtype:
            raise TypeError(f"{name} returned entries of dtype {dtype}; wanted {rec.dtype}")
        return left

    def by_definition(self) -> Problem:
        """Return the same problem with f as the methods of the recurrence define it, whatever has been compiled."""
        engine, rounding = Engine(self.recurrence), self.rounding
        plain = Problem(self.recurrence, self.tolerance, pin=self.pin, jacobian=False, engine=engine, rounding=rounding)
        plain.counts = self.counts
        return plain

    def excused(self, iterate: Iterate) -> Iterate:
        """Return an iterate that is right up to how f rounds among other rows, judged by a test that says so.

        Its rows were computed by f of single steps, or of fewer rows, and f of all together may round otherwise. Where
        that explains what they miss of the tolerance, they are tested with the least wider one that all of them meet
        (:meth:`recsolve.base.tolerance.Tolerance.widened`), which the iterate records; else it is returned as it is.

        Parameters
        ----------
        iterate : Iterate
            Of all t.

        Returns
        -------
        Iterate
        """
        if iterate.done or not np.isfinite(iterate.worst):
            return iterate
        states, values, rec = iterate.states, iterate.values, self.recurrence
        bound = None if self.rounding is None else self.rounding(rec, states, ~iterate.converged)
        wider = iterate.tolerance.widened(rec, states, values, bound)
        return iterate if wider is None else self.judge(states, values, tolerance=wider)

    def cut(self, iterate: Iterate) -> Array:
        """Return the rows (T, *batch) that take F without a correction from the row before.

        Starts of segments; with the pin also the leading rows, which are exact, and the row after them.
        """
        if not self.pin:
            return self.starts
        return self.starts | iterate.leading | iterate.front if iterate.judged is None else iterate.judged.cut

    def correct(self, iterate: Iterate, A: Jacobian) -> Array:
        """Return F[t] + A[t] d[t-1], where d[t] = A[t] d[t-1] + r[t]: one scan.

        Rows that are cut from the one before (see :meth:`cut`) take F, and begin the scan anew with d = r. They are
        selected, not multiplied by zero, so that values that are not finite do not pass through them.

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
        >>> rec = rs.Recurrence.from_function(lambda h, u: h / 2 + u, inputs=np.ones((4, 1)), initial=np.zeros(1))
        >>> problem = rs.solvers.Problem(rec, rs.solve(rec).tolerance, pin=True, jacobian=True)
        >>> iterate = problem.evaluate(problem.guess())
        >>> problem.correct(iterate, iterate.jacobian).ravel().tolist()  # Newton's step, exact for an affine f
        [1.0, 1.5, 1.75, 1.875]
        """
        if type(A) is Zero:
            return iterate.values
        cut = self.recurrence.over_event(self.cut(iterate))
        zero, product = iterate.values.dtype.type(0), self._product(iterate, A)
        return iterate.values + namespace(cut).where(cut, zero, product)  # type: ignore[no-any-return]

    def corrected(self, iterate: Iterate, A: Jacobian) -> Array:
        """Return the guarded correction, ``guarded(iterate, correct(iterate, A))``, which on a GPU is one launch more.

        Parameters
        ----------
        iterate : Iterate
        A : Jacobian
            As for :meth:`correct`.

        Returns
        -------
        array, shape (T, *batch, *event)
            The next states.

        Examples
        --------
        >>> import numpy as np, recsolve as rs
        >>> rec = rs.Recurrence.from_function(lambda h, u: h / 2 + u, inputs=np.ones((4, 1)), initial=np.zeros(1))
        >>> problem = rs.solvers.Problem(rec, rs.solve(rec).tolerance, pin=True, jacobian=True)
        >>> iterate = problem.evaluate(problem.guess())
        >>> problem.corrected(iterate, iterate.jacobian).ravel().tolist()
        [1.0, 1.5, 1.75, 1.875]
        """
        if self.launched is not None:
            if type(A) is Zero:
                return self._launched_guard(iterate, (OF_VALUES, None, None))
            if isinstance(A, (Diagonal, Block)):
                d = self.launched.scan(A, iterate.residual, self.cut(iterate))
                if d is not None:
                    self.counts["nscan"] += 1
                    what = OF_BLOCK if type(A) is Block else OF_DIAGONAL
                    return self._launched_guard(iterate, (what, d, A.data))
            return self._launched_guard(iterate, (OF_PRODUCT, self._product(iterate, A), None))
        return self.guarded(iterate, self.correct(iterate, A))

    def move(self, iterate: I, A: Jacobian) -> I:
        """Return the next iterate, ``advance(iterate, correct(iterate, A))``, which on a GPU is fewer launches.

        Parameters
        ----------
        iterate : Iterate or Linearised
        A : Jacobian
            As for :meth:`correct`.

        Returns
        -------
        Iterate or Linearised
            With its Jacobian where the last one has it.

        Examples
        --------
        >>> import numpy as np, recsolve as rs
        >>> rec = rs.Recurrence.from_function(lambda h, u: h / 2 + u, inputs=np.ones((4, 1)), initial=np.zeros(1))
        >>> problem = rs.solvers.Problem(rec, rs.solve(rec).tolerance, pin=True, jacobian=True)
        >>> iterate = problem.evaluate(problem.guess())
        >>> problem.move(iterate, iterate.jacobian).done
        True
        """
        return self._evaluated(iterate, self.corrected(iterate, A))

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
        >>> rec = rs.Recurrence.from_function(lambda h, u: h / 2 + u, inputs=np.ones((4, 1)), initial=np.zeros(1))
        >>> problem = rs.solvers.Problem(rec, rs.solve(rec).tolerance, pin=True, jacobian=True)
        >>> iterate = problem.evaluate(problem.guess())
        >>> cut = rec.over_event(problem.cut(iterate))
        >>> problem.carried(iterate.jacobian.matvec, np.ones((4, 1)), cut).ravel().tolist()
        [0.0, 0.0, 0.5, 0.5]
        """
        return namespace(d).where(cut, d.dtype.type(0), product(_before(d)))  # type: ignore[no-any-return]

    def _product(self, iterate: Iterate, A: Jacobian) -> Array:
        """Return A[t] d[t-1] with the scanned d, and anything in rows that are cut from the one before."""
        self.counts["nscan"] += 1
        cut = self.recurrence.over_event(self.cut(iterate))
        if self.recurrence.graph is not None and not isinstance(A, ByParent):
            raise TypeError(f"A is {type(A).__name__}; wanted ByParent, one matrix per parent of a node, on a graph")
        return carried(A, affine_scan(A, iterate.residual, reset=cut))

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
        >>> rec = rs.Recurrence.from_function(lambda h, u: h / 2 + u, inputs=np.ones((4, 1)), initial=np.zeros(1))
        >>> problem = rs.solvers.Problem(rec, rs.solve(rec).tolerance, pin=True, jacobian=True)
        >>> iterate = problem.evaluate(problem.guess())
        >>> problem.advance(iterate, np.full((4, 1), np.nan)).states.ravel().tolist()  # F in place of junk
        [1.0, 1.5, 1.5, 1.5]
        """
        return self._evaluated(iterate, self.guarded(iterate, proposal))

    def _evaluated(self, iterate: I, states: Array) -> I:
        """Return the iterate of states that come from another one.

        Where f has left its domain, F[t+1] is not finite though it was before, h[t] takes the plain step F[t] instead.
        """
        pinned = self.pinned(iterate)
        found = self._evaluated_as(iterate, states, pinned)
        inside = None if np.isfinite(found.worst) else self._back_inside(iterate, found, pinned)
        return found if inside is None else self._evaluated_as(iterate, inside, pinned)

    def _evaluated_as(self, iterate: I, states: Array, pinned: Array | None) -> I:
        """Return an iterate that carries its Jacobian if another one does."""
        if isinstance(iterate, Linearised):
            return self.evaluate(states, pinned=pinned, jacobian=True)
        return self.evaluate(states, pinned=pinned, jacobian=False)

    def _back_inside(self, iterate: Iterate, found: Iterate, pinned: Array | None) -> Array | None:
        """Return the states with plain steps where they have led f out of its domain; None where they have not.

        Where F was not finite before, no state may help: its drive may be NaN.
        """
        rec, xp, plain = self.recurrence, namespace(found.states), iterate.values
        left = xp.isfinite(plain) & ~xp.isfinite(found.values) & ~rec.over_event(self.starts)
        together = xp.broadcast_to(largest_together(rec, left), left.shape)
        outside = rec.seen_at(together) & xp.isfinite(plain) & (found.states != plain)
        if pinned is not None:
            outside &= ~rec.over_event(pinned)
        if not outside.any():
            return None
        states = xp.empty_like(found.states)  # in the same memory order
        states[...] = found.states
        xp.copyto(states, plain, where=outside)
        return states  # type: ignore[no-any-return]

    def pinned(self, iterate: Iterate) -> Array | None:
        """Return the rows (T, *batch) that the pin makes exact in the next iterate; None without the pin."""
        if not self.pin:
            return None
        return iterate.leading | iterate.front if iterate.judged is None else iterate.judged.pins

    def guarded(self, iterate: Iterate, proposal: Array) -> Array:
        """Return a proposal with unsafe entries replaced.

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
        >>> rec = rs.Recurrence.from_function(lambda h, u: h / 2 + u, inputs=np.ones((4, 1)), initial=np.zeros(1))
        >>> problem = rs.solvers.Problem(rec, rs.solve(rec).tolerance, pin=True, jacobian=True)
        >>> iterate = problem.evaluate(problem.guess())
        >>> problem.guarded(iterate, np.array([[9.0], [9.0], [1.0], [1e9]])).ravel().tolist()
        [1.0, 1.5, 1.0, 1.5]
        """
        if self.launched is not None:
            return self._launched_guard(iterate, (OF_PROPOSAL, proposal, None))
        if proposal is iterate.values:  # which is what an unsafe entry and the row after the leading ones take
            return self._plain(iterate)
        pins = (iterate.leading, iterate.front) if self.pin else None
        return guard(proposal, iterate.states, iterate.values, self._reach(iterate), pins, self.event_axes)

    def _plain(self, iterate: Iterate) -> Array:
        """Return a copy of F, with the leading rows as they are."""
        xp, values = namespace(iterate.values), iterate.values
        states = xp.empty_like(values)
        states[...] = values
        if self.pin:
            xp.copyto(states, iterate.states, where=self.recurrence.over_event(iterate.leading))
        return states  # type: ignore[no-any-return]

    def _launched_guard(self, iterate: Iterate, made: tuple[int, Array | None, Array | None]) -> Array:
        """Return the next states as kernels make them, of what a step is made of."""
        assert self.launched is not None
        judged = iterate.judged
        if judged is None:  # a part of an iterate
            judged = self.launched.judge(iterate.states, iterate.values, iterate.tolerance, iterate.leading)
        given = iterate.states, iterate.values, judged, made, self._per_known
        states, self._known = self.launched.guard(*given, self._known, self.recurrence.initial, self.pin)
        return states

    @property
    def _per_known(self) -> float:
        """The bound on |h| in units of the largest number known."""
        return 2.0 * (self.horizon + 1) * float(self.recurrence.layout.size**0.5)

    def _reach(self, iterate: Iterate) -> Array:
        """Return the bound on |h| per sequence, shape (1, *batch, 1...)."""
        rec, xp = self.recurrence, namespace(iterate.states)
        if is_discrete(rec.dtype):  # no number is farther out than another
            return xp.full((1, *rec.batch, *(1,) * len(self.event_axes)), np.inf)  # type: ignore[no-any-return]
        if self._known is None:
            self._known = xp.maximum(self._largest(iterate.values), self._largest(rec.initial[None]))
            self._known = xp.maximum(self._known, self._largest(iterate.states))
        solved, _ = self.front(iterate.converged)
        if solved.any():
            self._known = xp.maximum(self._known, self._largest(iterate.states, solved))
        return self._per_known * self._known

    def _largest(self, x: Array, rows: Array | None = None) -> Array:
        """Return the largest finite |x| of each sequence, of some rows (T, *batch), shape (1, *batch, 1...)."""
        sizes = largest_finite(x, self.event_axes)
        if rows is not None:
            sizes = namespace(x).where(rows, sizes, sizes.dtype.type(0))
        if not sizes.size:
            sizes = namespace(x).zeros((1, *sizes.shape[1:]), sizes.dtype)
        return sizes.max(axis=0).reshape(1, *sizes.shape[1:], *(1,) * len(self.event_axes))  # type: ignore[no-any-return]


def _before(d: Array) -> Array:
    """Return d[t-1] for every t, and 0 at the first."""
    before = namespace(d).empty_like(d)
    before[1:], before[:1] = d[:-1], 0
    return before  # type: ignore[no-any-return]

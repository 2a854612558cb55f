"""What a solver works on: a recurrence with its tolerance, and its corrections."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, TypeAlias

import numpy as np

from recsolve.base.arrays import Array, namespace
from recsolve.base.tolerance import Tolerance
from recsolve.jacobians import Block, ByParent, Diagonal, Jacobian, Zero
from recsolve.kernels.affine_scan import affine_scan, carried
from recsolve.kernels.gpu.iterate import OF_BLOCK, OF_DIAGONAL, OF_PRODUCT, OF_VALUES
from recsolve.recurrence.base import Recurrence, check_recurrence
from recsolve.recurrence.engine import Engine
from recsolve.solvers.guarded import Guarded, I
from recsolve.solvers.iterate import Iterate

Rounding: TypeAlias = Callable[[Recurrence, Array, Array], Array | None]


class Problem(Guarded):
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
        check_recurrence(recurrence)
        super().__init__(recurrence, tolerance, jacobian=jacobian, engine=engine)
        self.pin, self.rounding = pin, rounding
        self.horizon = recurrence.length  # of the whole, when this is a part
        self.whole: tuple[int, ...] = (recurrence.length, *recurrence.batch)
        self.index: tuple[Any, ...] = (slice(0, recurrence.length),)
        self._known = None

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

    def move(self, iterate: I, A: Jacobian, share: float = 1.0) -> I:
        """Return the next iterate, ``advance(iterate, correct(iterate, A))``, which on a GPU is fewer launches.

        Parameters
        ----------
        iterate : Iterate or Linearised
        A : Jacobian
            As for :meth:`correct`.
        share : float
            How much of the way from the states to the correction to go.

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
        if share == 1:
            return self._evaluated(iterate, self.corrected(iterate, A))
        return self.advance(iterate, toward(iterate.states, self.correct(iterate, A), share))

    def total(self, x: Array, axes: tuple[int, ...] = ()) -> Array:
        """Return the sum over all times, (1, *batch, ...), of numbers (T, *batch, ...), and over other axes of theirs.

        Where ranks share the time axis it is that of the whole, as :meth:`running_total` is: solvers that sum over
        time by these are ``rowwise``.

        Examples
        --------
        >>> import numpy as np, recsolve as rs
        >>> rec = rs.Recurrence.from_function(lambda h, u: h / 2 + u, inputs=np.ones((4, 1)), initial=np.zeros(1))
        >>> problem = rs.solvers.Problem(rec, rs.solve(rec).tolerance, pin=True, jacobian=True)
        >>> problem.total(np.arange(4.0)), problem.running_total(np.arange(4.0))
        (array([6.]), array([0., 1., 3., 6.]))
        """
        return x.sum(axis=(0, *axes), keepdims=True)  # type: ignore[no-any-return]

    def leading(self, good: Array) -> Array:
        """Return the good rows (T, *batch) with only such rows before them, back to the start of the segment."""
        return self.front(good)[0]

    @property
    def steps(self) -> int:
        """How many times :meth:`total` sums over."""
        return self.recurrence.length

    def running_total(self, x: Array) -> Array:
        """Return the sums over the times up to each, (T, *batch, ...)."""
        return x.cumsum(axis=0)

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


def toward(states: Array, proposal: Array, share: float) -> Array:
    """Return what lies between states and a proposal, and the proposal itself where all of the way is gone."""
    return proposal if share == 1 else states + share * (proposal - states)


def _before(d: Array) -> Array:
    """Return d[t-1] for every t, and 0 at the first."""
    before = namespace(d).empty_like(d)
    before[1:], before[:1] = d[:-1], 0
    return before  # type: ignore[no-any-return]

"""How a proposal becomes the next iterate: guards that keep steps safe, the pin of what is exact, and evaluation."""

from __future__ import annotations

from typing import TypeVar

import numpy as np

from recsolve.base.arrays import Array, is_discrete, namespace
from recsolve.kernels.gpu.iterate import OF_PROPOSAL
from recsolve.kernels.residual import guard, largest_finite
from recsolve.recurrence.scale import largest_together
from recsolve.solvers.evaluation import Evaluation
from recsolve.solvers.iterate import Iterate, Linearised

I = TypeVar("I", Iterate, Linearised)  # noqa: E741


class Guarded(Evaluation):
    """The part of a :class:`Problem` that takes proposals.

    Attributes
    ----------
    pin : bool
        Whether leading rows, which are exact, are left alone and the row after them takes F exactly.
    horizon : int
        T of the whole, or the length of the window.
    """

    pin: bool
    horizon: int
    _known: Array | None  # the largest |h| that is known to be real, per sequence

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
        solved = self.solved(iterate)
        if solved.any():
            self._known = xp.maximum(self._known, self._largest(iterate.states, solved))
        return self._per_known * self._known

    def solved(self, iterate: Iterate) -> Array:
        """Return the rows (T, *batch) that have converged, and only such rows before them."""
        return self.front(iterate.converged)[0]

    def _largest(self, x: Array, rows: Array | None = None) -> Array:
        """Return the largest finite |x| of each sequence, of some rows (T, *batch), shape (1, *batch, 1...)."""
        sizes = largest_finite(x, self.event_axes)
        if rows is not None:
            sizes = namespace(x).where(rows, sizes, sizes.dtype.type(0))
        if not sizes.size:
            sizes = namespace(x).zeros((1, *sizes.shape[1:]), sizes.dtype)
        return sizes.max(axis=0).reshape(1, *sizes.shape[1:], *(1,) * len(self.event_axes))  # type: ignore[no-any-return]

"""The part of the problem that is not solved yet, on which the driver works: solved rows cost nothing more."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, TypeAlias

import numpy as np

from recsolve.base.arrays import Array, is_discrete, namespace, same_bits, to_host
from recsolve.recurrence.base import Recurrence
from recsolve.solvers.acceptance import Acceptance
from recsolve.solvers.guarded import I
from recsolve.solvers.iterate import Iterate, largest, leading_times
from recsolve.solvers.problem import Problem
from recsolve.solvers.state import State

# The trajectory to begin with, a function that returns it of a window's recurrence, or None for the solver's own.
Guess: TypeAlias = Array | Callable[[Recurrence], Array] | None

# In the end f is evaluated once more at all t, so a small part is not worth setting aside.
_TIMES = 4  # leading times are set aside once they are 1 / _TIMES of all times left
_SEQUENCES = 2  # sequences once they are 1 / _SEQUENCES of those left, since the drive of the others is copied
_WINDOW = 4  # a window moves once 1 / _WINDOW of it is solved, since it is evaluated again then


@dataclass
class _Whole:
    """The whole trajectory, max |r| of its rows (inf: not evaluated), and whether they have converged."""

    states: Array
    sizes: Array
    converged: Array


class Active:
    """The part of a problem that is being solved, and the trajectory that it is a part of.

    Leading times at which every sequence is exact are set aside, and so are sequences that have converged. With
    ``window`` at most that many steps are looked at; the window moves on with the rows that have converged.

    Parameters
    ----------
    problem : Problem
        The whole.
    window : int or None
        How many steps to look at.
    acceptance : Acceptance, optional
        The rows that the user accepts, which are as good as solved.

    Attributes
    ----------
    problem : Problem
        The part.
    """

    def __init__(self, problem: Problem, window: int | None, acceptance: Acceptance | None = None):
        length = problem.recurrence.length
        self.problem, self._all, self._acceptance = problem, problem, acceptance
        self.window = None if window is None or window >= length else window
        self.start, self.stop = 0, length
        self._place: tuple[Array, ...] = ()  # the sequences of the part, an index of the batch
        self._may_narrow = self.window is None  # a window is narrow already
        self._whole: _Whole | None = None  # the trajectory, once iterates hold a part of it only
        self._given: Guess = None  # of the user

    # The whole -------------------------------------------------------------------------------------------------

    @property
    def narrowed(self) -> bool:
        """Whether iterates are only a part of the trajectory."""
        return self.problem is not self._all

    @property
    def complete(self) -> bool:
        """Whether no steps are left after the part."""
        return self.stop == self._all.recurrence.length

    @property
    def _index(self) -> tuple[Any, ...]:
        return (slice(self.start, self.stop), *self._place)

    def progress(self, iterate: Iterate) -> int:
        """Return how many rows are exact or set aside."""
        whole, part = self._all.recurrence, self.problem.recurrence
        sequences = math.prod(whole.batch)
        aside = self.start * sequences + (sequences - math.prod(part.batch)) * part.length
        return aside + iterate.progress

    def worst(self, iterate: Iterate) -> float:
        """Return max |r| of what has been evaluated: the part, and the rows set aside before it."""
        if not self.narrowed:
            return iterate.worst
        rows = self._kept.sizes.copy()
        rows[self._index] = 0
        return float(np.maximum(largest(rows[: self.stop]), iterate.worst))

    def states(self, iterate: Iterate) -> Array:
        """Return the whole trajectory."""
        return self._put(self._kept.states, iterate.states) if self.narrowed else iterate.states

    def sizes(self, iterate: Iterate) -> Array:
        """Return max |r| of every row, (T, *batch), on the host; inf where it has not been evaluated."""
        rows = self._row_sizes(iterate)
        return to_host(self._put(self._kept.sizes, rows) if self.narrowed else rows)

    def converged(self, iterate: Iterate) -> Array:
        """Return a copy of the rows within tolerance, (T, *batch), on the host."""
        rows = self._put(self._kept.converged, iterate.converged) if self.narrowed else iterate.converged.copy()
        return to_host(rows)

    def over_batch(self, per_sequence: Array, absent: float = np.nan) -> Array:
        """Return numbers (1, *batch, ...) of the part as (*batch,) of the whole, on the host."""
        host = to_host(per_sequence)
        host = host.reshape(host.shape[1 : 1 + len(self.problem.recurrence.batch)])
        out = np.full(self._all.recurrence.batch, absent)
        out[self._place or ...] = host
        return out

    def _put(self, whole: Any, part: Array) -> Array:
        full = whole.copy()
        full[self._index] = part
        return full  # type: ignore[no-any-return]

    def _row_sizes(self, iterate: Iterate) -> Array:
        r = abs(iterate.residual)
        return r.max(axis=self.problem.event_axes)  # type: ignore[no-any-return]

    def _keep(self, iterate: Iterate) -> None:
        """Write the part into the whole."""
        kept = self._kept
        kept.states[self._index] = iterate.states
        kept.sizes[self._index] = self._row_sizes(iterate)
        kept.converged[self._index] = iterate.converged

    @property
    def _kept(self) -> _Whole:
        if self._whole is None:
            rec = self._all.recurrence
            xp, rows = namespace(rec.initial), (rec.length, *rec.batch)
            states = rec.empty()
            states[...] = rec.initial if self._given is None or callable(self._given) else self._given
            sizes = xp.full(rows, np.inf, dtype=np.float64 if is_discrete(rec.dtype) else rec.dtype)
            self._whole = _Whole(states, sizes, xp.zeros(rows, dtype=bool))
        return self._whole

    def evaluate_whole(self, iterate: Iterate) -> Iterate:
        """Return the whole trajectory as an iterate, f evaluated afresh at all t.

        f may round otherwise at all t than among the rows that were left. If all rows met the tolerance when they were
        evaluated last and some miss it now, they are excused as far as rounding explains it.
        """
        if not self.narrowed:
            return iterate
        self._keep(iterate)
        kept, problem = self._kept, self._all
        whole = problem.evaluate(kept.states, jacobian=False, chunk=self.window)
        if self._acceptance is not None:
            whole = self._acceptance.freeze(problem, whole, anew=False)
        return problem.excused(whole) if bool(kept.converged.all()) else whole

    def resume(self, iterate: Iterate) -> Iterate:
        """Go on with the whole, which missed the tolerance although its parts met it: f is another function there."""
        self._may_narrow, self._place = False, ()
        if self.window is not None:
            return self._move(leading_times(self._solved(iterate)), self.window)
        self.problem, self.start = self._all, 0
        return self.frozen(self.problem.evaluate(iterate.states))

    def frozen(self, iterate: I) -> I:
        """Return an iterate of which rows that the user accepts lead, as exact ones do."""
        return iterate if self._acceptance is None else self._acceptance.freeze(self.problem, iterate)

    def accepted(self, iterate: Iterate) -> bool:
        """Return whether all rows have converged or are accepted, and some are the latter only."""
        return self._acceptance is not None and not iterate.done and bool(self._solved(iterate).all())

    def _solved(self, iterate: Iterate) -> Array:
        """Return the rows that need no more work."""
        return iterate.converged if self._acceptance is None else iterate.converged | iterate.leading

    # The part --------------------------------------------------------------------------------------------------

    def open(self, guess: Guess) -> Array | None:
        """Prepare for the first iterate, and return the rows of the guess that it begins with."""
        self._given = guess
        if self.window is not None:
            self._cut(0, self.window)
        return self._guessed()

    def _guessed(self) -> Array | None:
        """Return the rows of the user's guess that are looked at; None without."""
        if self._given is None or callable(self._given):
            return None if self._given is None else self._given(self.problem.recurrence)
        return self._given if self.window is None else self._given[self.start : self.stop].copy()

    def narrow(self, iterate: Iterate, state: State | None) -> tuple[Iterate, State | None]:
        """Set aside what is solved, and return what is left of the iterate and of the solver's state."""
        if not self._may_narrow:
            return iterate, state
        return self._drop_times(*self._drop_sequences(iterate, state))

    def _drop_times(self, iterate: Iterate, state: State | None) -> tuple[Iterate, State | None]:
        length = self.problem.recurrence.length
        exact = iterate.leading_times if self.problem.pin else 0
        if exact == 0 or exact * _TIMES < length or exact == length:
            return iterate, state
        self._keep(iterate)
        rest = self.problem.recurrence.between(exact, length, iterate.states)
        index = (slice(exact, None),)
        self.problem, self.start = self.problem.part(rest), self.start + exact
        self.problem.index = self._index
        return iterate.part(index), state and state.part(index)

    def _drop_sequences(self, iterate: Iterate, state: State | None) -> tuple[Iterate, State | None]:
        rec = self.problem.recurrence
        if iterate.judged is not None and iterate.judged.settled * _SEQUENCES < math.prod(rec.batch):
            return iterate, state
        left = ~to_host(self._solved(iterate)).all(axis=0).ravel()
        if left.all() or not left.any() or (~left).sum() * _SEQUENCES < left.size:
            return iterate, state
        chosen = np.flatnonzero(left)
        place = np.unravel_index(chosen, rec.batch)
        index = (slice(None), *place)
        part, rest = iterate.part(index), rec.sequences(chosen)
        if rest is None or not self._agrees(rest, part):
            self._may_narrow = False
            return iterate, state
        self._keep(iterate)
        self.problem = self.problem.part(rest, place)
        self._place = tuple(axis[chosen] for axis in self._place) if self._place else place
        self.problem.index = self._index
        return part, state and state.part(index)

    def _agrees(self, rest: Recurrence, part: Iterate) -> bool:
        self.problem.counts["rows"] += part.converged.size * rest.opaque
        return parted(rest, part.states, part.values, self._all.tolerance.unit)

    def slide(self, iterate: Iterate) -> Iterate | None:
        """Move the window on, past rows that have converged or cannot; return its new iterate, or None to stay."""
        solved = iterate.converged_times if self._acceptance is None else leading_times(self._solved(iterate))
        solved = self.problem.recurrence.length if iterate.blocked else solved
        if self.complete or self.window is None or solved * _WINDOW < self.window:
            return None
        self._keep(iterate)
        return self._move(self.start + solved, self.window)

    def _move(self, start: int, window: int) -> Iterate:
        """Return the iterate of the window at ``start``: rows seen before as they are, the others from the guess."""
        before = self.stop
        self._cut(start, window)
        seen = max(min(before, self.stop) - start, 0)
        guessed = self._guessed()
        states = self.problem.guess() if guessed is None else guessed
        states[:seen] = self._kept.states[start : start + seen]
        return self.frozen(self.problem.evaluate(states))

    def _cut(self, start: int, window: int) -> None:
        whole = self._all.recurrence
        self.start, self.stop = start, min(start + window, whole.length)
        self.problem = self._all.part(whole.between(start, self.stop, self._kept.states))
        self.problem.horizon, self.problem.index = self.stop - start, self._index


def parted(rest: Recurrence, states: Array, values: Array, unit: float) -> bool:
    """Return whether f of some sequences alone is what it was among all.

    A user's function may hold numbers of its own for every sequence, which cannot be selected from outside.

    Parameters
    ----------
    rest : Recurrence
        Of these sequences, as :meth:`recsolve.Recurrence.sequences` gives it.
    states, values : array, shape (T, sequences, *event)
        h, and F as it was among all.
    unit : float
        The size of the states.
    """
    if not rest.opaque:
        return True
    try:
        alone = rest.bind().evaluate(states)
    except Exception:  # a user's function may raise anything when shapes no longer fit
        return False
    if is_discrete(rest.dtype):
        return same_bits(alone, values)
    rtol = float(np.finfo(rest.dtype).eps) ** 0.5
    return bool(namespace(alone).isclose(alone, values, rtol=rtol, atol=1e-8 * unit, equal_nan=True).all())

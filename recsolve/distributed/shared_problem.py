"""The problem of the own steps of a rank while all ranks iterate together: its steps exchange what crosses from rank
to rank.

Before it steps, a rank has evaluated f and A at its own steps. Its message says what these do to a correction d that
comes in: the composed element of all steps but the last, and the last step itself. With that all ranks compute what
comes into each, and the next state of the last step of the rank before, by the same arithmetic as that rank does; so
the next residual is that of the whole trajectory. The first message of a step also says how far the rank is, and all
decide by it alike.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from functools import cached_property
from typing import Any

from recsolve.analysis.rounding_at import rounding_at
from recsolve.base.arrays import Array, is_discrete, namespace
from recsolve.base.tolerance import Tolerance
from recsolve.distributed.elements import as_sent
from recsolve.distributed.passing import Said, say
from recsolve.distributed.progress import BEGINS, FRONT, LEADS, RESETS, Progress, flags_of, leading_before, passing_of
from recsolve.distributed.rounds import before_each
from recsolve.distributed.task import Task
from recsolve.jacobians import Jacobian, Zero
from recsolve.kernels.affine_scan import affine_scan
from recsolve.kernels.residual import guard
from recsolve.recurrence.base import Recurrence
from recsolve.solvers.guarded import I
from recsolve.solvers.iterate import Iterate, leading_times
from recsolve.solvers.problem import Problem, toward


class NotComposable(Exception):
    """The matrices A of a rank do not compose in fixed size: all ranks learn of it by the same message."""


Decide = Callable[[Sequence[Progress], Array], None]


class SharedProblem(Problem):
    """The own steps of a rank, for solvers whose steps are ``rowwise``.

    Parameters
    ----------
    task : Task
    ends : sequence of array, each (*batch, *event)
        The last state of every rank in the order of steps, of the first iterate.
    jacobian : bool
        Whether iterates carry the Jacobian.
    decide : callable
        ``decide(progress, flags)`` of all ranks, at the first message of every step; it raises where there is no next
        iterate.

    Attributes
    ----------
    raw : Iterate
        What was evaluated last, with its leading rows as if all before them were exact.
    begun : Iterate
        The same of the iterate that a step began with, which ranks tell of and decide by: a step may evaluate others.
    ends : sequence of array
        The last state of every rank, of what was evaluated last.
    """

    raw: Any
    begun: Any

    def __init__(self, task: Task, ends: Sequence[Array], *, jacobian: bool, decide: Decide):
        self.task, self.ends, self._decide = task, ends, decide
        part, pin = self._part(), bool(task.driver["pin"])
        super().__init__(part, task.tolerance(), pin=pin, jacobian=jacobian, rounding=rounding_at)
        vars(self)["launched"] = None  # kernels of iterations take the first step for one that sees no other
        self.horizon = task.timeline.total
        none_before = not any(self._lengths[: self._place])
        self._leads_in = namespace(part.initial).full(part.batch, none_before, dtype=bool)
        self._first = True
        self._current: Iterate | None = None  # of which the others are still to be told
        self._stepped: tuple[Any, Any] = None, None  # the iterate of a step, and the same as it is known now
        self._flags: Array  # of all ranks, in the order of steps

    def begin(self, iterate: Iterate) -> None:
        """Say that a step begins."""
        self._current, self.begun = iterate, self.raw
        self._stepped = iterate, iterate

    @property
    def told(self) -> bool:
        """Whether the step has exchanged a message."""
        return self._current is None

    @property
    def _place(self) -> int:
        return self.task.timeline.place

    @property
    def _lengths(self) -> tuple[int, ...]:
        return self.task.timeline.ordered

    def _part(self) -> Recurrence:
        """Return the recurrence of the own steps, from the last state of the rank before."""
        return self.task.part(before_each(self.task, self.ends)[self._place])

    @cached_property
    def follows(self) -> Array:
        """The rows (T, *batch) that follow from the ranks before: those up to the first reset."""
        rec = self.recurrence
        xp = namespace(rec.initial)
        if rec.reset is None:
            return xp.ones((rec.length, *rec.batch), dtype=bool)  # type: ignore[no-any-return]
        return xp.cumsum(rec.reset, axis=0) == 0  # type: ignore[no-any-return]

    # What a problem of one device does otherwise ----------------------------------------------------------------

    def judge(
        self,
        states: Array,
        values: Array,
        J: Jacobian | None = None,
        pinned: Array | None = None,
        tolerance: Tolerance | None = None,
    ) -> Iterate:
        """Return the iterate, of which those rows alone lead whose ranks before are exact too."""
        self.raw = super().judge(states, values, J, pinned, tolerance)
        led: Iterate = self._led(self.raw, self.raw)
        return led

    def _led(self, iterate: I, raw: Iterate) -> I:
        """Return an iterate of which rows lead as far as is known of the ranks before."""
        free = self.follows & ~self._leads_in[None]
        return replace(iterate, leading=raw.leading & ~free, front=raw.front & ~free)

    @cached_property
    def begins(self) -> Array:
        """The rows (T, *batch) that do not see the one before, be it of the rank before."""
        starts = self.starts.copy()
        if self.task.timeline.start:
            starts[:1] &= ~self.follows[:1]
        return starts

    def cut(self, iterate: Iterate) -> Array:
        iterate = self._known_of(iterate)
        return self.begins | iterate.leading | iterate.front if self.pin else self.begins

    def pinned(self, iterate: Iterate) -> Array | None:
        return super().pinned(self._known_of(iterate))

    def guarded(self, iterate: Iterate, proposal: Array) -> Array:
        return super().guarded(self._known_of(iterate), proposal)

    def solved(self, iterate: Iterate) -> Array:
        return super().solved(iterate) & ~(self.follows & ~self._leads_in[None])  # type: ignore[no-any-return]

    def _reach(self, iterate: Iterate) -> Array:
        if self._known is None or self._current is not None or is_discrete(self.recurrence.dtype):
            return super()._reach(iterate)
        return self._per_known * self._known  # of all ranks, as the message of this step has told

    def _largest_known(self, iterate: Iterate) -> Array:
        """Return the largest number that is known of every sequence here, (1, *batch, 1...)."""
        rec = self.recurrence
        if rec.length and not is_discrete(rec.dtype):
            self._reach(iterate)
        none = namespace(rec.initial).zeros((1, *rec.batch, *(1,) * len(self.event_axes)), rec.dtype)
        return none if self._known is None else self._known

    def _known_of(self, iterate: Iterate) -> Iterate:
        """Return an iterate as it is known once the ranks before have told whether they are exact."""
        return self._stepped[1] if iterate is self._stepped[0] else iterate

    def correct(self, iterate: Iterate, A: Jacobian) -> Array:
        A = as_sent(A)
        return self._proposed(iterate, A, self._pass(iterate, A)[0])

    def move(self, iterate: I, A: Jacobian, share: float = 1.0) -> I:
        """Return the next iterate, with one message: what the last steps of all ranks become follows from it."""
        A = as_sent(A)
        correction, ends = self._pass(iterate, A, share)
        states = self.guarded(iterate, toward(iterate.states, self._proposed(iterate, A, correction), share))
        if len(states):
            states[-1] = ends[self._place]
        return self._follow(iterate, states, ends)

    def total(self, x: Array, axes: tuple[int, ...] = ()) -> Array:
        return self._sum(self._exchange([super().total(x, axes)])[0])

    def leading(self, good: Array) -> Array:
        own = super().leading(good)
        (flags,) = self._exchange([passing_of(self, own)])
        before = leading_before(self._lengths, flags)[self._place]
        return own & ~(self.follows & ~before[None])

    @property
    def steps(self) -> int:
        return self.horizon

    def running_total(self, x: Array) -> Array:
        (sums,) = self._exchange([super().total(x)])
        before = self._sum(sums[: self._place]) if self._place else x.dtype.type(0)
        return before + super().running_total(x)

    @staticmethod
    def _sum(parts: Array) -> Array:
        return sum(parts[1:], start=parts[0])  # type: ignore[no-any-return]

    def _evaluated(self, iterate: I, states: Array) -> I:
        """Return the iterate of states, with a message that says what the last ones are."""
        told = self.told
        (ends,) = self._exchange([states[-1] if len(states) else self.task.recurrence.initial])
        if not told:  # they have been pinned as was known before
            self._stepped = iterate, iterate
        return self._follow(iterate, states, list(ends))

    def _follow(self, iterate: I, states: Array, ends: Sequence[Array]) -> I:
        """Return the iterate of own states, given the last ones of all ranks."""
        self.ends = ends
        self.recurrence = self._part()
        self.engine = self.recurrence.bind()
        return super()._evaluated(iterate, states)

    # Messages ---------------------------------------------------------------------------------------------------

    def _exchange(self, arrays: Sequence[Array], able: bool = True) -> list[Array]:
        """Return the arrays of all ranks, (ranks, ...) each, in the order of steps.

        The first message of a step may end all of them.
        """
        axis, current = self.task.timeline, self._current
        first = () if current is None else self._progress(current)
        more = [] if current is None else [flags_of(self, self.begun), self._largest_known(current)]
        sent = axis.ranks.exchange([able, *first], [*more, *arrays])
        told, found = axis.in_order(sent.numbers()), [axis.in_order(x) for x in sent.arrays]
        if not told[:, 0].all():
            raise NotComposable
        if current is not None:
            self._current, self._flags = None, found[0]
            self._known = found[1].max(axis=0)
            self._leading = leading_before(self._lengths, self._flags)
            self._leads_in = self._leading[self._place]
            self._stepped = current, self._led(current, self.begun)
            self._decide([Progress(*progress) for progress in told[:, 1:].tolist()], self._flags)
        return found[len(more) :]

    def _progress(self, iterate: Iterate) -> Progress:
        mixes = False
        if self._first and self.recurrence.length:
            mixes = self.engine.step_that_differs(iterate.states, lambda: iterate.values) is not None
        self._first = False
        converged, exact = iterate.converged_times, leading_times(self.begun.leading)
        return Progress(iterate.done, iterate.worst, iterate.progress, converged, exact, mixes)

    # Corrections ------------------------------------------------------------------------------------------------

    def _pass(self, iterate: Iterate, A: Jacobian, share: float = 1.0) -> tuple[Array, list[Array]]:
        """Return the correction that comes in, and what the last state of every rank becomes."""
        row = namespace(iterate.values).zeros_like(self.recurrence.initial)
        cut = self.recurrence.over_event(self.cut(iterate))
        told, able = say(iterate, A, row, cut, self.task.timeline)
        arrays = self._exchange(told.flat(), able)
        correction, own, ends = row, row, []
        for place, length in enumerate(self._lengths):
            said = told.like([x[place] for x in arrays])
            own = correction if place == self._place else own
            ends.append(said.states)
            if length:
                correction, ends[-1] = self._after(iterate, A, said, place, correction, share)
        return own, ends

    def _proposed(self, iterate: Iterate, A: Jacobian, correction: Array) -> Array:
        """Return F[t] + A[t] d[t-1], given the correction that comes in."""
        if type(A) is Zero:
            return iterate.values
        xp, cut = namespace(correction), self.recurrence.over_event(self.cut(iterate))
        self.counts["nscan"] += 1
        d = affine_scan(A, iterate.residual, initial=correction, reset=cut)
        before = xp.concatenate([correction[None], d[:-1]])
        return iterate.values + xp.where(cut, d.dtype.type(0), A.matvec(before))  # type: ignore[no-any-return]

    def _after(
        self, iterate: Iterate, A: Jacobian, said: Said, place: int, correction: Array, share: float
    ) -> tuple[Array, Array]:
        """Return the correction and the state that come out of a rank, given the correction that comes into it."""
        xp, rec, flags = namespace(correction), self.recurrence, self._flags[place]
        if self._lengths[place] > 1:
            correction = said.before_last(iterate, A, correction)
        begins, leads, front, resets = ((flags & bit > 0)[None] for bit in (BEGINS, LEADS, FRONT, RESETS))
        known = resets | self._leading[place]
        pins = (leads & known, front & known) if self.pin else None
        cut = begins if pins is None else begins | pins[0] | pins[1]
        product = said.last_matrix(iterate, A).matvec(correction[None])
        product = xp.where(rec.over_event(cut), product.dtype.type(0), product)
        values, states = said.values[None], said.states[None]
        proposal = toward(states, values + product, share)
        after = guard(proposal, states, values, self._reach(iterate), pins, self.event_axes)
        return product[0] + said.residual, after[0]

"""Iterations over all steps of all ranks at once, with one message each: h[t] <- F[t] + A[t] d[t-1].

Every rank evaluates f and A at its own steps. Its message says what these do to a correction d that comes in: the
composed element of all steps but the last, and the last step itself. With that all ranks compute what comes into each,
and the last state of the rank before, by the same arithmetic as that rank does; so the next residual is that of the
whole trajectory. The message also says how far the rank is, and all take the same decision.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any, NamedTuple

import numpy as np

from recsolve.analysis.rounding_at import rounding_at
from recsolve.base.arrays import Array, namespace, same_bits
from recsolve.base.status import MIXES, Status
from recsolve.distributed.carries import Elements, arrays_of, element_of
from recsolve.distributed.rounds import before_each
from recsolve.distributed.task import Facts, Outcome, Task
from recsolve.guess import first_iterate
from recsolve.jacobians import Jacobian, Zero
from recsolve.kernels.affine_scan import affine_scan
from recsolve.kernels.backends import summarise
from recsolve.kernels.compile_clock import Stopwatch
from recsolve.kernels.monoids import MONOIDS
from recsolve.kernels.residual import guard, hopeless
from recsolve.kernels.summary import Summary
from recsolve.recurrence.binding import walking
from recsolve.solution import Solution
from recsolve.solvers.driver import History, status_of
from recsolve.solvers.iterate import Iterate, leading_times
from recsolve.solvers.method import CorrectionSolver
from recsolve.solvers.problem import Problem

_AFFINE = MONOIDS["affine"]
# What a message says of every sequence, as bits.
_CUT, _LEADS, _FRONT, _PASSES, _TAIL, _OPEN, _OPEN_AFTER, _STUCK, _STUCK_AFTER, _RESETS = (1 << i for i in range(10))


def can_sweep(solver: Any) -> bool:
    """Return whether a solver is its matrix A alone, so that one message an iteration is enough."""
    return isinstance(solver, CorrectionSolver) and type(solver).step is CorrectionSolver.step


class _Progress(NamedTuple):
    """The numbers of a message: how far a rank is."""

    length: float
    able: float  # whether its A composes
    done: float
    worst: float
    progress: float
    converged: float  # leading times at which all sequences have converged, are exact
    exact: float
    moved: float  # whether its last state is not what the others take it to be
    mixes: float  # whether f alone is another function than f of all steps


class _Said(NamedTuple):
    """The arrays of a message: what the own steps do to a correction that comes in, and to the state after them.

    ``composed``, ``after`` and ``cut`` are the summary of all steps but the last; ``matrix`` holds A of the last step,
    ``residual``, ``values`` and ``states`` are those of it; ``reach`` bounds the size of states, and ``flags`` are bits
    of every sequence.
    """

    composed: list[Array]
    after: Array
    cut: Array
    matrix: list[Array]
    residual: Array
    values: Array
    states: Array
    reach: Array
    flags: Array

    def flat(self) -> list[Array]:
        """Return all arrays one after the other."""
        return [*self.composed, self.after, self.cut, *self.matrix, *self[4:]]

    def like(self, arrays: Sequence[Array]) -> _Said:
        """Return what another rank has said, of its arrays one after the other."""
        count, given = len(self.composed), list(arrays)
        own = given[count + 2 : len(given) - 5]
        return _Said(given[:count], given[count], given[count + 1], own, *given[len(given) - 5 :])


class _All(NamedTuple):
    """What all ranks decide by, as the facts of one iterate."""

    done: bool
    blocked: bool
    worst: float
    progress: int


@dataclass
class _Own:
    """The own steps of a rank, as they are iterated.

    Attributes
    ----------
    problem : Problem
        Given the state that the rank before ends with now.
    raw, iterate : Iterate
        As if all were exact that comes before; with those rows leading alone that truly do.
    leads_in : array of bool, shape (*batch,)
        Whether all that comes before is exact.
    said : array
        What the other ranks take the last state to be.
    """

    task: Task
    solver: CorrectionSolver[Any]
    states: Array
    leads_in: Array
    said: Array | None
    problem: Problem | None = None
    raw: Any = None
    iterate: Any = None
    A: Any = None
    cut: Any = None

    def evaluate(self, boundary: Array) -> Problem:
        """Evaluate f and A at the own states, given the state before them."""
        task, before = self.task, self.problem
        problem = Problem(
            task.part(boundary), task.tolerance(), pin=bool(task.driver["pin"]), jacobian=self.solver.needs_jacobian,
            rounding=rounding_at,
        )  # fmt: skip
        vars(problem)["launched"] = None  # kernels of iterations take the first step for one that sees no other
        problem.horizon = task.timeline.total
        if before is not None:
            problem.counts, problem._known = before.counts, before._known
        self.problem = problem
        raw: Any = (
            problem.evaluate(self.states) if self.iterate is None else problem._evaluated(self.iterate, self.states)
        )
        free = self.follows & ~self.leads_in[None]
        self.raw, self.states = raw, raw.states
        self.iterate = replace(raw, leading=raw.leading & ~free, front=raw.front & ~free)
        self.cut = problem.recurrence.over_event(self._cuts(problem))
        self.A = self.solver.preconditioner(problem, self.iterate)
        return problem

    @property
    def follows(self) -> Array:
        """The rows (T, *batch) that follow from the ranks before: those up to the first reset."""
        rec = self.task.recurrence
        xp = namespace(rec.initial)
        if rec.reset is None:
            return xp.ones((rec.length, *rec.batch), dtype=bool)  # type: ignore[no-any-return]
        return xp.cumsum(rec.reset, axis=0) == 0  # type: ignore[no-any-return]

    def _cuts(self, problem: Problem) -> Array:
        """Return the rows (T, *batch) that take F without a correction from the row before."""
        starts = problem.starts.copy()
        if self.task.timeline.start:
            starts[:1] &= ~self.follows[:1]
        return starts | self.iterate.leading | self.iterate.front if problem.pin else starts

    # The message ------------------------------------------------------------------------------------------------

    def message(self, problem: Problem, *, first: bool) -> tuple[_Progress, _Said]:
        """Return what is said to all ranks."""
        rec, raw, n = problem.recurrence, self.raw, problem.recurrence.length
        xp, row = namespace(rec.initial), namespace(rec.initial).zeros_like(rec.initial)
        residual = self.iterate.residual
        _AFFINE.prepare((self.A, residual))
        elements = Elements(_AFFINE, (self.A, residual), row, self.cut, self.task.timeline)
        able = not n or elements.composable
        prefix: Summary | None = None
        last: Summary | None = None
        if n and able:
            last, before = Summary((self.A[n - 1 : n], residual[n - 1 : n])), slice(0, n - 1)
            prefix = summarise(_AFFINE, (self.A[before], residual[before]), reset=self.cut[before]) if n > 1 else None
        after, cut = row, xp.zeros(row.shape, bool)
        if prefix is not None and prefix.after is not None and prefix.cut is not None:
            after, cut = prefix.after[0], xp.broadcast_to(prefix.cut[0], row.shape).copy()
        rows = [x[n - 1] for x in (residual, self.iterate.values, self.states)] if n else [row] * 3
        reach = xp.zeros((1, *rec.batch, *(1,) * len(problem.event_axes)), rec.dtype)
        if n:
            reach = problem._reach(self.iterate).astype(rec.dtype)
        flags = self._flags(problem) if n else xp.zeros(rec.batch, np.int32)
        said = _Said(arrays_of(elements, prefix), after, cut, arrays_of(elements, last)[:-1], *rows, reach, flags)
        moved = n and not same_bits(self.states[-1], self.said)
        mixes = n and first and problem.engine.step_that_differs(self.states, lambda: raw.values) is not None
        exact = leading_times(raw.leading)
        return _Progress(
            n, able, raw.done, raw.worst, self.iterate.progress, raw.converged_times, exact, bool(moved), bool(mixes)
        ), said

    def _flags(self, problem: Problem) -> Array:
        raw, rec = self.raw, problem.recurrence
        follows, starts = self.follows, problem.starts
        xp, resets = namespace(starts), ~self.follows[-1]
        last = xp.cumsum(starts[::-1], axis=0)[::-1] - starts == 0  # rows after which no other segment starts
        stop = problem.front(raw.converged)[1]
        stuck = stop & hopeless(raw.states, raw.values, problem.event_axes)
        bits = {
            _CUT: self.cut[-1].reshape(rec.batch),
            _LEADS: self.iterate.leading[-1],
            _FRONT: self.iterate.front[-1],
            _PASSES: ~resets & raw.leading.all(axis=0),
            _TAIL: resets & (raw.leading | ~last).all(axis=0),
            _OPEN: (stop & ~stuck & follows).any(axis=0),
            _OPEN_AFTER: (stop & ~stuck & ~follows).any(axis=0),
            _STUCK: (stuck & follows).any(axis=0),
            _STUCK_AFTER: (stuck & last & ~follows).any(axis=0),
            _RESETS: resets,
        }
        total = xp.zeros(rec.batch, np.int32)
        for bit, holds in bits.items():
            total = total + bit * holds.astype(np.int32)
        return total  # type: ignore[no-any-return]

    # What follows from all messages -----------------------------------------------------------------------------

    def advance(self, problem: Problem, found: Sequence[tuple[_Progress, _Said]]) -> Array:
        """Take the next states, and return the state before them: what comes in is folded from all messages."""
        rec, place = problem.recurrence, self.task.timeline.place
        xp = namespace(rec.initial)
        correction, state = xp.zeros_like(rec.initial), self.task.recurrence.initial
        boundary, leads = state, xp.ones(rec.batch, dtype=bool)
        for i, (progress, said) in enumerate(found):
            if i == place:
                boundary, self.leads_in = state, leads
                if progress.length:
                    self.states = self._corrected(problem, correction)
            if progress.length:
                correction, state = self._passed(problem, progress, said, correction)
                leads = (said.flags & _TAIL > 0) | ((said.flags & _PASSES > 0) & leads)
                if i == place:
                    self.states[-1] = self.said = state
        return boundary

    def _corrected(self, problem: Problem, correction: Array) -> Array:
        """Return the own states after a step, given the correction that comes in."""
        xp, iterate, A = namespace(correction), self.iterate, self.A
        if type(A) is Zero:
            return problem.guarded(iterate, iterate.values)
        problem.counts["nscan"] += 1
        d = affine_scan(A, iterate.residual, initial=correction, reset=self.cut)
        before = xp.concatenate([correction[None], d[:-1]])
        product = xp.where(self.cut, d.dtype.type(0), A.matvec(before))
        return problem.guarded(iterate, iterate.values + product)

    def _passed(self, problem: Problem, progress: _Progress, said: _Said, correction: Array) -> tuple[Array, Array]:
        """Return the correction and the state that come out of a rank, given the correction that comes into it."""
        xp, rec, axes = namespace(correction), problem.recurrence, problem.event_axes
        pair = (self.A, self.iterate.residual)
        if progress.length > 1:
            composed = element_of(pair, said.composed)
            correction = xp.where(said.cut, said.after, _AFFINE.act(composed, correction[None])[0])
        matrix: Jacobian = element_of(pair, [*said.matrix, said.residual])[0]
        product = matrix.matvec(correction[None])[0]
        cut, leads, front = (rec.over_event((said.flags & bit > 0)[None]) for bit in (_CUT, _LEADS, _FRONT))
        product = xp.where(cut[0], product.dtype.type(0), product)
        pins = (leads.reshape(1, *rec.batch), front.reshape(1, *rec.batch)) if problem.pin else None
        proposal = (said.values + product)[None]
        state = guard(proposal, said.states[None], said.values[None], said.reach, pins, axes)[0]
        return product + said.residual, state

    def stay(self, found: Sequence[tuple[_Progress, _Said]]) -> Array:
        """Return the state that truly comes before the own ones, which are evaluated again as they are."""
        ends = [said.states for _, said in found]
        self.iterate, self.said = None, self.states[-1].copy() if len(self.states) else None
        return before_each(self.task, [progress.length for progress, _ in found], ends)[self.task.timeline.place]


def _decided(found: Sequence[tuple[_Progress, _Said]]) -> _All:
    """Return the facts of the whole iterate."""
    rows = np.array([progress for progress, _ in found])
    worst = float(rows[:, 3].max())
    done = bool(rows[:, 2].all()) and not rows[:, 7].any()
    return _All(done, not done and not np.isfinite(worst) and _blocked(found), worst, int(rows[:, 4].sum()))


def _blocked(found: Sequence[tuple[_Progress, _Said]]) -> bool:
    """Return whether all segments have converged, or have up to a row whose own F is not finite."""
    xp = namespace(found[0][1].flags)
    excused, open_ = (xp.zeros_like(found[0][1].flags, dtype=bool) for _ in range(2))
    for progress, said in found:
        if progress.length:
            holds = {bit: said.flags & bit > 0 for bit in (_OPEN, _OPEN_AFTER, _STUCK, _STUCK_AFTER, _RESETS)}
            open_ = open_ | holds[_OPEN_AFTER] | (holds[_OPEN] & ~excused)
            excused = xp.where(holds[_RESETS], holds[_STUCK_AFTER], excused | holds[_STUCK])
    return not bool(open_.any())


def solve_by_sweeps(task: Task, solver: CorrectionSolver[Any], limit: int, patience: int) -> Outcome | None:
    """Return the outcome, or None where A does not compose.

    Where the status is ``nonfinite``, steps after a number that is not finite have still to be followed.

    Parameters
    ----------
    task : Task
    solver : CorrectionSolver
    limit, patience : int
        As of the driver.
    """
    axis, watch = task.timeline, Stopwatch()
    history, nit = History(), 0
    history.begin()
    with np.errstate(all="ignore"), walking(False):
        own, boundary = _begun(task, solver)
        while True:
            problem = own.evaluate(boundary)
            progress, said = own.message(problem, first=nit == 0)
            messages = axis.in_order(axis.ranks.exchange(progress, said.flat()))
            found = [(_Progress(*m.numbers.tolist()), said.like(m.arrays)) for m in messages]
            if not all(p.able for p, _ in found):
                return None
            decided: Any = _decided(found)
            history.record(decided.worst, decided.progress)
            mixes = any(p.mixes for p, _ in found)
            status = Status.STALLED if mixes else status_of(decided, history, nit, limit, patience)
            if status is not None:
                break
            if any(p.moved for p, _ in found):
                boundary = own.stay(found)
            else:
                boundary, nit = own.advance(problem, found), nit + 1
    stats = {**problem.counts, "seconds": watch.seconds, "compile_seconds": watch.compile_seconds}
    iterate: Iterate = own.raw
    solution = Solution(
        problem.recurrence, solver, iterate, status, history.residuals, nit, {**stats, "completed_from": None},
        MIXES.format(step="of a rank") if mixes else "", iterate.tolerance,
    )  # fmt: skip
    tested = iterate.tolerance.atol, iterate.tolerance.rtol
    facts = [Facts(int(p.length), status, nit, p.worst, int(p.converged), int(p.exact), *tested) for p, _ in found]
    final = before_each(task, [p.length for p, _ in found], [said.states for _, said in found])[-1]
    return Outcome(solution, facts, final)


def _begun(task: Task, solver: CorrectionSolver[Any]) -> tuple[_Own, Array]:
    """Return the own steps with their first states, and the state before these."""
    axis, rec = task.timeline, task.recurrence
    xp, given = namespace(rec.initial), first_iterate(task.own_guess(), rec)
    states = given(rec) if callable(given) else given
    if states is None:
        states = rec.bind().guess() if rec.length else rec.empty()
    ends = axis.in_order(axis.ranks.exchange([rec.length], [states[-1] if rec.length else rec.initial]))
    boundary = before_each(task, [m.numbers[0] for m in ends], [m.arrays[0] for m in ends])[axis.place]
    leads = xp.full(rec.batch, not any(axis.ordered[: axis.place]), dtype=bool)
    return _Own(task, solver, states, leads, states[-1].copy() if rec.length else None), boundary

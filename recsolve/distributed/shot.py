"""The steps of a rank that compiled loops solve whole, of which the first ones are taken anew from what comes in."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np

from recsolve import solvers
from recsolve.analysis.rounding_at import rounding_at
from recsolve.base.arrays import Array, kind_of, namespace, same_bits, to_host
from recsolve.base.status import Status
from recsolve.distributed.messages import constant
from recsolve.distributed.own_steps import OwnSteps
from recsolve.distributed.task import Facts, Task
from recsolve.kernels.compile_clock import Stopwatch
from recsolve.kernels.gpu.cell.solve_plan import FIELDS
from recsolve.kernels.gpu.ranks import alike, joined, met_and_near
from recsolve.recurrence.binding import parts_as
from recsolve.recurrence.engine import Asked, Verdict
from recsolve.solution import Solution
from recsolve.solve import tolerance_of
from recsolve.solvers.evaluation import Settled
from recsolve.solvers.iterate import Iterate
from recsolve.solvers.problem import Problem

_WALKED = 4096  # of them at most that are walked by kernels that couple units, where sweeps may be faster
_MIXED = 64  # the last of them, which become those that are there step by step
FEWEST, _MORE = 256, 4  # steps that are taken anew: at least; then so many times as many
_SHARES = 128, 64  # which share of all it is, and where units do not couple


class Told(NamedTuple):
    """The numbers of a message: how well a rank has solved its steps, as far as its host knows."""

    good: float
    worst: float
    iterations: float
    largest: float
    stayed: float  # whether what comes out is what was told before
    segments: float = 0.0  # what it takes to say the rest, of all steps
    groups: float = 0.0
    segments_again: float = 0.0  # and of those taken anew
    groups_again: float = 0.0


def _whole(solver: Any, problem: Problem) -> bool:
    """Return whether a method takes what solves in windows."""
    return type(solver) is solvers.Auto or (
        type(solver) is solvers.Windowed and type(solver._chosen(problem)) is solvers.Newton
    )


class Shot:
    """The own steps of a rank, solved from the first state of all, and what becomes of them once another comes in.

    Attributes
    ----------
    able : bool
        Whether there is something compiled that solves them.
    states : array, shape (own steps, *batch, *event)
    met : array of bool, shape ()
        Whether the steps that were taken anew last meet those that are there.
    words : list of array
        What the device has told of them, as it came with the last message.
    """

    met: Any
    words: list[Array]

    def __init__(self, task: Task):
        self.task, self.own = task, OwnSteps.of(task.recurrence)
        self.rec = self.own.whole
        self.tolerance = tolerance_of(task.settings["tol"], task.driver, self.rec, scaled=False)
        self.problem = Problem(self.rec, self.tolerance, pin=True, jacobian=False, rounding=rounding_at)
        self.engine = self.problem.engine
        self.some, self.follows = 0, False  # whether steps have been taken anew since the last message
        self.start, self.upto = self.rec.initial, self.rec.length
        self.asked: Asked | None = None
        self.again: Asked | None = None
        self.found: Verdict | None = None
        self.known: list[Verdict] = []  # what has become of steps taken anew
        self.solved: Problem | None = None  # that of all steps, from what truly comes in
        self._solve()
        known = self.asked or self.found
        self.able, self.states = known is not None, self.rec.empty() if known is None else known.states

    def _solve(self) -> None:
        """Solve all steps as if the first state of all came in."""
        solver, direct = self.task.solver, type(self.task.solver).direct
        if self.task.guess is None and direct.__module__.startswith("recsolve."):
            if _whole(solver, self.problem):
                self.asked = self.engine.ask(self.tolerance)
            found = solver.direct(self.problem) if self.asked is None else None
            self.found = found if isinstance(found, Verdict) else None
        driven = kind_of(self.rec.initial) == "cupy" and self.engine.compiled
        if self.asked is None and self.found is None and driven:
            solution = self.task.solved(self.rec.initial, guess=self.task.own_guess())
            if solution.success:
                iterate = solution._iterate
                self.found = Verdict(iterate.states, solution.nit, values=iterate.values)
                self.problem.counts.update({name: solution.stats[name] for name in self.problem.counts})

    @property
    def end(self) -> Array:
        """What comes out."""
        return self.states[-1] if self.able else self.rec.initial

    def first_end(self) -> Array:
        """Return what comes out as it is told first."""
        self.met, self.near = self._nothing()
        return self.end

    # Steps taken anew -------------------------------------------------------------------------------------------

    def judge(self) -> None:
        """Have the device look at all steps once more, before any is written to."""
        if self.asked is not None:
            self.asked.judge()

    def taken_anew(self, start: Array, first: int = 0) -> Array:
        """Return some steps from ``first`` on, given the state before them."""
        self.follows = True
        if first == 0:
            self.start, self.back = start, 0
            self.some = max(FEWEST, self.rec.length // _SHARES[self.asked is not None])
        stop = self.upto = min(first + self.some, self.rec.length)
        self.some *= _MORE
        with parts_as(self.engine):
            if self.asked is None:
                engine = self.own.part(first, stop, start).bind()
                walks = engine.compiled and stop - first <= _WALKED
                found = None if walks else engine.solve("sweeps", self.tolerance)
                return engine.walk() if found is None else found.states
            self.again = self.own.engine(self.engine, first, stop).ask(self.tolerance, start)
            assert self.again is not None
            self.again.judge()
            return self.again.states

    def join(self, new: Array, first: int = 0) -> None:
        """Put in steps that have been taken anew, the last ones mixed with those that are there; test where they meet.

        Both meet the tolerance, and where weights fall slowly, so do means of them.
        """
        stop, xp = self.upto, namespace(new)
        mixed = min(_MIXED, len(new) // 2) if stop < self.rec.length else 0
        self.new = new[len(new) - mixed :]
        self.met, self.near = self._nothing()
        there, on_device = self.states[first:stop], kind_of(new) == "cupy"
        if on_device and alike(there, new):
            joined(there, new, mixed)
        else:
            rows, shape = self.states[stop - mixed : stop], (mixed, *(1,) * (new.ndim - 1))
            weights = xp.arange(mixed, 0, -1, dtype=new.dtype).reshape(shape) / new.dtype.type(mixed + 1)
            self.states[first : stop - mixed] = new[: len(new) - mixed]
            rows += weights * (self.new - rows)
        if self.asked is not None and on_device:
            if mixed:
                met, near = self.own.tested(self.engine, self.states, stop - mixed - 1, stop + 1, self.tolerance)
                self.met, self.near = met_and_near(xp.ascontiguousarray(met), xp.ascontiguousarray(near))
            return
        values = None if self.found is None else self.found.values
        begin, end = first - self.back if values is not None else stop - mixed, min(stop + 1, self.rec.length)
        if begin == end:
            return
        before = self.states[begin - 1] if begin else self.start
        problem = Problem(self.own.part(begin, end, before), self.tolerance, pin=True, jacobian=False)
        F, met, near = problem.tested(self.states[begin:end])
        if values is not None:
            values[begin:end] = F
        if mixed:
            self.met, self.near = xp.asarray(met.all()), xp.asarray(near.max(), self.rec.dtype)

    def _nothing(self) -> tuple[Array, Array]:
        """Return whether the steps taken anew meet the others, and how near, where there are none."""
        return constant(self.start, (), np.dtype(bool), 1), constant(self.start, (), self.rec.dtype, 0)

    def go_on(self, start: Array) -> None:
        """Take steps anew until they meet the others, from the first one if another state comes in."""
        self._note()
        if not same_bits(self.start, start):
            self.join(self.taken_anew(start))
        while self.upto < self.rec.length and not self.met:
            self._note()
            self.back = len(self.new)
            self.states[self.upto - self.back : self.upto] = self.new
            first = self.upto
            self.join(self.taken_anew(self.new[-1], first), first)
        self.prepare()

    def _note(self) -> None:
        """Read what has become of the steps that have been taken anew."""
        if self.again is not None:
            self.known.append(self.again.verdict(to_host(self.again.told), self.again.sizes))

    # What is told -----------------------------------------------------------------------------------------------

    def prepare(self) -> None:
        """Do what can be done before anything is known."""
        self.good, self.worst, self.largest, self.iterations = self.able, 0.0, 0.0, 0
        for verdict in self.known:
            self.good &= verdict.worst is not None
            self.worst, self.largest = max(self.worst, verdict.worst or 0.0), max(self.largest, verdict.largest or 0.0)
            self.iterations = max(self.iterations, verdict.iterations)
        if (
            self.able
            and self.engine.step_that_differs(self.states, lambda: self.engine.evaluate(self.states)) is not None
        ):
            self.good = False
        if self.found is not None:
            values, judged = self.found.values, self.conclude()
            iterate = judged.evaluate(self.states) if values is None else judged.judge(self.states, values)
            self.iterate: Iterate = iterate
            # The step where those taken anew meet the others is looked at by itself: more of them may be needed.
            self.good &= iterate.done or not bool(self.met)
            self.worst, self.iterations = iterate.worst, self.found.iterations
            few = self.states[:: max(self.rec.length // 4, 1)]
            self.largest = float(to_host(abs(few).max())) if few.size else 0.0

    def conclude(self) -> Problem:
        """Return the problem of all steps, from what truly comes in, which can wait until the others are told."""
        if self.solved is None or self.solved.recurrence.initial is not self.start:
            part = self.own.part(0, self.rec.length, self.start)
            self.solved = Problem(part, self.tolerance, pin=True, jacobian=False, rounding=rounding_at)
        return self.solved

    def numbers(self) -> Told:
        """Return the numbers of a message."""
        stayed = self.upto < self.rec.length or not self.follows
        self.follows = False
        told = Told(self.good, self.worst, self.iterations, self.largest, stayed)
        if self.asked is None:
            return told
        return Told(*told[:5], *self.asked.sizes, *(self.again or self.asked).sizes)

    def arrays(self) -> list[Array]:
        """Return the arrays of a message: what the device knows of the steps, and what comes out."""
        words = [constant(self.start, (FIELDS,), np.dtype(np.int32), 0)] * 2
        if self.asked is not None:
            words = [self.asked.told, (self.again or self.asked).told]
        return [self.met, self.near, *words, self.end]

    def completed(self, numbers: Array, arrays: Sequence[Array]) -> tuple[list[Told], list[bool]]:
        """Return what each rank and its device have told, and whether its steps meet, given these of all ranks."""
        met, near, *words = arrays
        self.words = [word[self.task.timeline.ranks.rank] for word in words]
        told = [Told(*row) for row in numbers.tolist()]
        for rank, (one, close) in enumerate(zip(told, near.tolist(), strict=True)):
            good, worst, iterations, largest = one.good, max(one.worst, close), one.iterations, one.largest
            for word, segments, groups in zip(words, one[5::2], one[6::2], strict=True):
                if self.asked is not None and segments:
                    brief = self.asked.brief(word[rank], (int(segments), int(groups)))
                    good, worst = good and brief.good, max(worst, brief.worst)
                    iterations, largest = max(iterations, brief.iterations), max(largest, brief.largest)
            told[rank] = Told(good, worst, iterations, largest, one.stayed)
        return told, met.tolist()

    def solution(self, fact: Facts, watch: Stopwatch) -> Solution:
        """Return the solution of the own steps."""
        largest, counts, solved = self.largest or None, self.problem.counts, self.conclude()
        iterate = Settled(solved, self.states, fact.worst, largest) if self.asked is not None else self.iterate
        for verdict in self._verdicts():
            for name, count in verdict.counts.items():
                counts[name] += count
        stats = {**counts, "seconds": watch.seconds, "compile_seconds": watch.compile_seconds, "completed_from": None}
        return Solution(
            solved.recurrence, self.task.solver, iterate, Status.CONVERGED, [fact.worst], fact.nit, stats, "",
            self.tolerance,
        )  # fmt: skip

    def _verdicts(self) -> list[Verdict]:
        """Return what has become of all that was solved here."""
        if self.asked is None:
            return [] if self.found is None else [self.found]
        asked = [self.asked] if self.again is None else [self.asked, self.again]
        return [*self.known, *(one.verdict(word, one.sizes) for one, word in zip(asked, self.words, strict=False))]

"""The own steps of a rank that compiled loops solve whole, the first ones taken anew from what comes in."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Sequence
from typing import Any, ClassVar, NamedTuple

import numpy as np

from recsolve.base.arrays import Array, kind_of, namespace, same_bits
from recsolve.base.status import Status
from recsolve.distributed.messages import constant
from recsolve.distributed.own_steps import OwnSteps
from recsolve.distributed.task import Facts, Task
from recsolve.kernels.compile_clock import Stopwatch
from recsolve.kernels.gpu.cell.solve_plan import FIELDS
from recsolve.kernels.gpu.judged import Report
from recsolve.kernels.gpu.ranks import alike, joined
from recsolve.recurrence.base import Recurrence
from recsolve.recurrence.engine import Verdict
from recsolve.solution import Solution
from recsolve.solvers.evaluation import Settled
from recsolve.solvers.iterate import Iterate
from recsolve.solvers.problem import Problem

_MIXED = 64  # the last steps taken anew, which become those that are there step by step
_FLAG, _WORD, _LONG = np.dtype(np.bool_), np.dtype(np.int32), np.dtype(np.int64)
_REPORTED = len(Report._fields)
FEWEST, _MORE = 256, 4  # steps that are taken anew: at least; then so many times as many


class Told(NamedTuple):
    """The numbers of a message: how well a rank has solved its steps, as far as its host knows."""

    good: float
    worst: float
    iterations: float
    largest: float
    stayed: float  # whether what comes out is what was told before
    rest: float = 0.0  # steps after those taken anew
    segments: float = 0.0  # what it takes to say what a device tells of a solve, of all steps
    groups: float = 0.0
    segments_again: float = 0.0  # and of those taken anew
    groups_again: float = 0.0


class Found(NamedTuple):
    """What a rank and its device have told: how well its steps are solved, and whether they meet."""

    good: bool
    worst: float
    iterations: float
    largest: float
    stayed: bool
    meets: bool


class Said(NamedTuple):
    """The arrays of a message: what a device knows of the steps of a rank, some for each kind of shot, and the end.

    Those that come to the host lack the end, and are of all ranks.
    """

    met: Array  # whether the steps that were taken anew last meet those that are there
    near: Array  # max |r| there
    solve: Array  # what the device tells of a solve: of all steps, and of those taken anew
    again: Array
    report: Array  # of a test of all steps
    end: Any = None


class Shot(ABC):
    """The own steps of a rank, solved from the first state of all, and what becomes of them once another comes in.

    Parameters
    ----------
    task : Task
    problem : Problem
        Of the own steps, from the first state of all.
    states : array, shape (own steps, *batch, *event)
        What solves it, which is written to.

    Attributes
    ----------
    able : bool
        Whether there was something compiled that solved them.
    share : int
        What part of all steps is taken anew at first.
    upto : int
        The first step that is not taken anew.
    """

    share: ClassVar[int]
    able: bool = True
    _said: Said  # what all ranks have told last, on the host

    def __init__(self, task: Task, problem: Problem, states: Array):
        self.task, self.problem, self.states = task, problem, states
        self.rec, self.engine, self.tolerance = problem.recurrence, problem.engine, problem.tolerance
        self.own = OwnSteps.of(task.recurrence)
        self.start, self.upto = self.rec.initial, self.rec.length
        self.some, self.mixed = 0, 0  # how many steps are taken anew next, and how many of the last ones are mixed
        self.follows = False  # whether steps were taken anew since the last message

    @property
    def end(self) -> Array:
        """What comes out."""
        return self.states[-1] if self.able else self.rec.initial

    # Steps taken anew -------------------------------------------------------------------------------------------

    @abstractmethod
    def judge(self) -> None:
        """Have the device look at all steps once more, before any is written to."""

    def taken_anew(self, start: Array, first: int = 0) -> Array:
        """Return some steps from ``first`` on, given the state before them."""
        self.follows = True
        if first == 0:
            self.start, self.some = start, max(FEWEST, self.rec.length // self.share)
        self.upto = min(first + self.some, self.rec.length)
        self.some *= _MORE
        return self._solved(start, first)

    def join(self, new: Array, first: int = 0) -> None:
        """Put in steps that have been taken anew, the last ones mixed with those that are there.

        Both meet the tolerance, and where weights fall slowly, so do means of them.
        """
        there = self.states[first : self.upto]
        mixed = self.mixed = min(_MIXED, len(new) // 2) if self.upto < self.rec.length else 0
        if kind_of(new) == "cupy" and alike(there, new):
            joined(there, new, mixed)
        else:
            kept, shape = len(new) - mixed, (mixed, *(1,) * (new.ndim - 1))
            weights = namespace(new).arange(mixed, 0, -1, dtype=new.dtype).reshape(shape) / new.dtype.type(mixed + 1)
            there[:kept] = new[:kept]
            there[kept:] += weights * (new[kept:] - there[kept:])
        self._joined(first)

    def go_on(self, start: Array) -> None:
        """Take steps anew until they meet the others, from the first one if another state comes in."""
        if not same_bits(self.start, start):
            self.join(self.taken_anew(start))
        while self.upto < self.rec.length and not self._meets():
            first = self.upto - self.mixed  # which follow from those before them, if these are not mixed
            self.join(self.taken_anew(self.states[first - 1], first), first)
        self.prepare()

    @abstractmethod
    def _solved(self, start: Array, first: int) -> Array:
        """Return the steps from ``first`` on to ``upto``, given the state before them."""

    @abstractmethod
    def _joined(self, first: int) -> None:
        """Ask the device what there is to know of steps that have been put in."""

    @abstractmethod
    def _meets(self) -> bool:
        """Return whether steps that have been taken anew meet those after them, for which the host waits."""

    # What is told -----------------------------------------------------------------------------------------------

    @abstractmethod
    def prepare(self) -> None:
        """Do what can be done before anything is known."""

    @abstractmethod
    def numbers(self) -> Told:
        """Return the numbers of a message."""

    @abstractmethod
    def _known(self) -> dict[str, Array]:
        """Return those of the arrays of a message that this kind of shot has."""

    @abstractmethod
    def _read(self, told: list[Told], said: Said) -> list[Found]:
        """Return what all ranks and their devices have told; one of another kind is not good."""

    @abstractmethod
    def _ended(self, worst: float) -> tuple[Recurrence, Iterate | Settled]:
        """Return the recurrence of the own steps, from what truly comes in, and its last iterate."""

    @abstractmethod
    def _verdicts(self) -> list[Verdict]:
        """Return what has become of all that was solved here."""

    @abstractmethod
    def conclude(self) -> None:
        """Do what can wait until the others are told."""

    def arrays(self) -> Said:
        """Return the arrays of a message."""
        known = self._known()
        nothing = {
            "met": ((), _FLAG, 1), "near": ((), self.rec.dtype, 0), "solve": ((FIELDS,), _WORD, 0),
            "again": ((FIELDS,), _WORD, 0), "report": ((_REPORTED,), _LONG, 0),
        }  # fmt: skip
        found = [known[name] if name in known else constant(self.start, *none) for name, none in nothing.items()]
        return Said._make([*found, self.end])

    def completed(self, numbers: Array, arrays: Sequence[Array]) -> list[Found]:
        """Return what has been told, in the order of steps, given numbers and arrays of all ranks."""
        self._said = Said(*arrays)
        return self.task.timeline.in_order(self._read([Told(*row) for row in numbers.tolist()], self._said))

    def _own(self, said: Array) -> Array:
        """Return what this rank has told."""
        return said[self.task.timeline.ranks.rank]  # type: ignore[no-any-return]

    def solution(self, fact: Facts, watch: Stopwatch) -> Solution:
        """Return the solution of the own steps."""
        (recurrence, iterate), counts = self._ended(fact.worst), self.problem.counts
        for verdict in self._verdicts():
            for name, count in verdict.counts.items():
                counts[name] += count
        stats = {**counts, "seconds": watch.seconds, "compile_seconds": watch.compile_seconds, "completed_from": None}
        return Solution(
            recurrence, self.task.solver, iterate, Status.CONVERGED, [fact.worst], fact.nit, stats, "", self.tolerance
        )

    def _repeats(self) -> bool:
        """Return whether f of single steps is that of all at once."""
        return self.engine.step_that_differs(self.states, lambda: self.engine.evaluate(self.states)) is None

    def _stayed(self) -> bool:
        """Return whether what comes out is what was told in the last message, and that another one follows."""
        stayed = self.upto < self.rec.length or not self.follows
        self.follows = False
        return stayed

"""Own steps that the host has waited for; those put in later are asked for, and a message brings a test of all."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from recsolve.base.arrays import Array, to_host
from recsolve.distributed.shot import Found, Said, Shot, Told
from recsolve.distributed.task import Task
from recsolve.kernels.gpu.judged import Report
from recsolve.recurrence.base import Recurrence
from recsolve.recurrence.engine import Engine, Verdict
from recsolve.recurrence.scale import largest_of_few
from recsolve.solvers.iterate import Iterate
from recsolve.solvers.problem import Problem

_WALKED = 4096  # steps at most that are walked by kernels that couple units, where sweeps may be faster


class FoundShot(Shot):
    """Own steps that compiled loops have solved, or nothing has.

    F of them is kept up as steps are put in, and one test of all steps says all there is to say.

    Parameters
    ----------
    task, problem
        As of every shot.
    found : Verdict or None
    """

    share = 128

    def __init__(self, task: Task, problem: Problem, found: Verdict | None):
        super().__init__(task, problem, problem.recurrence.empty() if found is None else found.states)
        self.able, self.found = found is not None, found
        if found is not None:
            problem.launched = self.own.iterations()
        self.values = None if found is None else found.values
        self.part: Engine | None = None  # of the steps taken anew last, and the one after them
        self.report: Array | None = None  # of a test of the steps as they are
        self.finish: Callable[[Sequence[int]], Iterate] | None = None  # gives their iterate

    def judge(self) -> None:
        """Do nothing: all steps are looked at once those taken anew are among them."""

    def conclude(self) -> None:
        """Do nothing."""

    def _solved(self, start: Array, first: int) -> Array:
        # One step more than is put in, which these are to meet: then one engine walks, and evaluates F afterwards.
        part = self.part = self.own.engine(self.engine, first, min(self.upto + 1, self.rec.length), start)
        walks = part.compiled and self.upto - first <= _WALKED
        found = None if walks else part.solve("sweeps", self.tolerance)
        return (part.walk() if found is None else found.states)[: self.upto - first]

    def _joined(self, first: int) -> None:
        self.report = None
        if self.values is not None:
            assert self.part is not None
            rows = slice(first, first + self.part.recurrence.length)
            self.values[rows] = self.part.evaluate(self.states[rows])

    def _tested(self) -> Array:
        """Return the report of a test of all steps, for which nothing waits on a device."""
        if self.report is None:
            if self.values is None:
                whole = self.own.engine(self.engine, 0, self.rec.length, self.start)
                self.values = whole.evaluate(self.states)
            self.report, self.finish = self.problem.judge_unread(self.states, self.values)
        return self.report

    def _meets(self) -> bool:
        return Report(*to_host(self._tested()).tolist()).unconverged < self.rec.length - self.upto

    def prepare(self) -> None:
        self.good = self.able and self._repeats()
        if self.able:
            self._tested()

    def numbers(self) -> Told:
        rest, stayed = self.rec.length - self.upto, self._stayed()
        if self.found is None:
            return Told(self.good, 0.0, 0, 0.0, stayed, rest)
        largest = largest_of_few(self.states) if self.found.largest is None else self.found.largest
        return Told(self.good, 0.0, self.found.iterations, largest, stayed, rest)

    def _known(self) -> dict[str, Array]:
        return {} if self.report is None else {"report": self.report}

    def _read(self, told: list[Told], said: Said) -> list[Found]:
        found = []
        for one, row in zip(told, said.report.tolist(), strict=True):
            report = Report(*row)
            # A step that fails where those taken anew meet the others is no fault: more of them may be needed.
            meets = not one.rest or report.unconverged < one.rest
            good = bool(one.good) and not one.segments and (not report.failed or not meets)
            found.append(Found(good, report.worst, one.iterations, one.largest, one.stayed > 0, meets))
        return found

    def _ended(self, worst: float) -> tuple[Recurrence, Iterate]:
        assert self.finish is not None
        return self.own.part(0, self.rec.length, self.start), self.finish(self._own(self._said.report).tolist())

    def _verdicts(self) -> list[Verdict]:
        return [] if self.found is None else [self.found]

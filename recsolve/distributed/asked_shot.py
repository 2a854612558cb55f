"""Own steps that a device has been asked for: it tells what has become of them, and the host waits for the message."""

from __future__ import annotations

from functools import cached_property

import numpy as np

from recsolve.analysis.rounding_at import rounding_at
from recsolve.base.arrays import Array, namespace, to_host
from recsolve.distributed.shot import Found, Said, Shot, Told
from recsolve.distributed.task import Task
from recsolve.kernels.gpu.ranks import met_and_near
from recsolve.recurrence.base import Recurrence
from recsolve.recurrence.engine import Asked, Verdict
from recsolve.solvers.evaluation import Settled
from recsolve.solvers.problem import Problem


class AskedShot(Shot):
    """Own steps whose units do not couple, on a device: kernels solve them, and those taken anew, and judge both.

    Parameters
    ----------
    task, problem
        As of every shot.
    asked : Asked
        The solve of all steps.
    """

    share = 64

    def __init__(self, task: Task, problem: Problem, asked: Asked):
        super().__init__(task, problem, asked.states)
        self.asked, self.again = asked, asked  # the solves of all steps, and of those taken anew last
        self.before: list[Verdict] = []  # what has become of steps taken anew before those
        self.where: dict[str, Array] = {}  # whether steps taken anew meet the others, and how near

    def judge(self) -> None:
        self.asked.judge()

    def _solved(self, start: Array, first: int) -> Array:
        if self.again is not self.asked:
            self.before.append(self.again.verdict(to_host(self.again.told), self.again.sizes))
        again = self.own.engine(self.engine, first, self.upto).ask(self.tolerance, start)
        assert again is not None
        self.again = again
        again.judge()
        return again.states

    def _joined(self, first: int) -> None:
        self.where = {}
        if self.mixed:
            xp, stop = namespace(self.states), self.upto
            found = self.own.tested(self.engine, self.states, stop - self.mixed - 1, stop + 1, self.tolerance)
            met, near = met_and_near(*map(xp.ascontiguousarray, found))
            self.where = {"met": met, "near": near}

    def _meets(self) -> bool:
        return not self.where or bool(self.where["met"])

    def prepare(self) -> None:
        self.good = all(verdict.worst is not None for verdict in self.before) and self._repeats()

    def numbers(self) -> Told:
        known = [(one.worst or 0.0, one.iterations, one.largest or 0.0) for one in self.before]
        worst, iterations, largest = map(max, zip((0.0, 0, 0.0), *known, strict=True))
        sizes = *self.asked.sizes, *self.again.sizes
        return Told(self.good, worst, iterations, largest, self._stayed(), 0.0, *sizes)

    def _known(self) -> dict[str, Array]:
        return {"solve": self.asked.told, "again": self.again.told, **self.where}

    def _read(self, told: list[Told], said: Said) -> list[Found]:
        sizes = [(one.segments, one.groups) for one in told]
        sizes += [(one.segments_again, one.groups_again) for one in told]
        briefs = self.asked.brief(np.concatenate((said.solve, said.again)), sizes)
        each, found = zip(told, briefs, briefs[len(told) :], said.met.tolist(), said.near.tolist(), strict=False), []
        for one, solve, again, meets, near in each:
            good = bool(one.good and one.segments) and solve.good and again.good
            worst, iterations, largest = map(max, one[1:4], solve[1:], again[1:])
            found.append(Found(good, max(worst, near), iterations, largest, one.stayed > 0, meets))
        return found

    @cached_property
    def _true(self) -> Problem:
        """The problem of all steps, from what truly comes in."""
        part = self.own.part(0, self.rec.length, self.start)
        return Problem(part, self.tolerance, pin=True, jacobian=False, rounding=rounding_at)

    def conclude(self) -> None:
        if self._true.recurrence.initial is not self.start:
            del self._true
        assert self._true

    def _ended(self, worst: float) -> tuple[Recurrence, Settled]:
        self.conclude()
        return self._true.recurrence, Settled(self._true, self.states, worst)

    def _verdicts(self) -> list[Verdict]:
        found = [*self.before, self.asked.verdict(self._own(self._said.solve), self.asked.sizes)]
        if self.again is not self.asked:
            found.append(self.again.verdict(self._own(self._said.again), self.again.sizes))
        return found

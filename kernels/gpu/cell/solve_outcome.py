"""What becomes of a fused solve: its verdict, which the device finds out and one small copy brings."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from operator import itemgetter
from typing import NamedTuple

import numpy as np

from recsolve.base.arrays import Array
from recsolve.kernels.codegen.cuda_structures import constants
from recsolve.kernels.gpu.cell.solve_plan import Plan

_FIELD = constants("solve/problem")
_TOLD = itemgetter(*(_FIELD[x] for x in ("ENDED", "WRONG", "NOT_FINITE", "UNMET", "SWEEPS", "REDONE", "WALKED")))
_WORST, _LARGEST = _FIELD["WORST"], _FIELD["LARGEST"]  # of float32


class Findings(NamedTuple):
    """What the device found out about a solve.

    Attributes
    ----------
    complete : bool
        Every row of every lane holds the bits that the kernel which tested it has written.
    finite : bool
        Every number that was written is finite.
    met : bool
        Every defect is within the tolerance.
    worst : float
        The largest defect |f(h[t-1]) - h[t]|. A step that was walked has none: these are those where segments begin.
    sweeps : int
        Walks of the segment that was walked most often, 1 where guesses were good enough.
    walked, redone : int
        How often segments of 32 lanes were walked in order because nothing else helped, and again in all.
    segments : int
        Of time.
    largest : float
        The largest |h|, rounded to float32.
    """

    complete: bool
    finite: bool
    met: bool
    worst: float
    sweeps: int
    walked: int
    redone: int
    segments: int
    largest: float


class Outcome:
    """A solve that has been launched.

    Parameters
    ----------
    plan : Plan
    judge : callable
        Launches what reads the states again.
    report : callable
        Does so too, and brings what is told of the solve to the host.
    groups : int
        Of 32 lanes.
    sums : callable
        Returns what was added up, float64 (segments, sums, lanes).
    told : array of int32
        What kernels tell of the solve, where it lies on the device.
    """

    def __init__(
        self,
        plan: Plan,
        judge: Callable[[], None],
        report: Callable[[], Array],
        groups: int,
        sums: Callable[[], Array],
        told: Array,
    ):
        self.plan, self.judge, self.report, self.groups, self.sums = plan, judge, report, groups, sums
        self.told = told
        self._found: Findings | None = None

    def verdict(self) -> Findings:
        """Return what became of the states as they are now; the first time waits for the device, and copies once."""
        if self._found is None:
            self._found = self._find()
        return self._found

    def _find(self) -> Findings:
        segments = self.plan.segments
        if not self.groups:
            return Findings(True, True, True, 0.0, 0, 0, 0, segments, 0.0)
        return findings(self.report(), segments, self.groups)

    def __repr__(self) -> str:
        return f"Outcome({self.verdict()})"


def findings(told: Array, segments: int, groups: int) -> Findings:
    """Return what the device found out about a solve of so many segments of groups of lanes, of what it has told."""
    ended, wrong, lost, unmet, sweeps, redone, walked = _TOLD(told.tolist())
    numbers = told.view(np.float32).tolist()
    complete = ended == segments * groups and not wrong
    return Findings(
        complete, not lost, not unmet, numbers[_WORST], max(sweeps, 1), walked, redone, segments, numbers[_LARGEST]
    )


def findings_of_all(told: Array, sizes: Sequence[tuple[float, float]]) -> list[tuple[bool, float, int, float]]:
    """Return of several solves whether each is complete, finite and met, its worst defect, sweeps and largest |h|.

    Parameters
    ----------
    told : array of int32, shape (solves, FIELDS)
        What the device has told of each.
    sizes : sequence of tuple
        The segments and groups of each.
    """
    found = []
    for (segments, groups), words, numbers in zip(sizes, told.tolist(), told.view(np.float32).tolist(), strict=True):
        ended, wrong, lost, unmet, sweeps, _, _ = _TOLD(words)
        good = ended == segments * groups and not (wrong or lost or unmet)
        found.append((good, numbers[_WORST], sweeps, numbers[_LARGEST]))
    return found

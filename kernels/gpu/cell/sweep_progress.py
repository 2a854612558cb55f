"""What the stages of sweeps report, and what follows from it: whether to go on, and with which products."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from recsolve.base.arrays import Array

_ROUGH = 2.0**-10  # what a rough product may lose, beside the largest correction that was taken through one
_PATIENCE = 12  # sweeps without progress
_PATIENCE_NEAR = 4  # so many where rounding may be what is left
_IMPROVED = 0.99  # max |r| must fall below this share of its best value to count as progress
_MOST = 400  # sweeps
_NEAR = 16.0  # tolerances within which rounding may be what is left, and another test may be passed


@dataclass(frozen=True)
class Report:
    """What a stage told: whether the test is passed, how many steps remain from the first that fails it, and sizes."""

    remaining: int
    finite: bool
    worst: float
    size: float

    @classmethod
    def of(cls, told: Array) -> Report:
        """Read it from the integers of ``cuda/stage/sweep.cuh``."""
        worst, size = (float(x) for x in told[2:].view(np.float32))
        return cls(int(told[0]), not told[1], worst, size)


class Progress:
    """What the reports say of a solve: whether it gets on, and how large the corrections in rough products were."""

    def __init__(self, tol: float, most: int | None = None) -> None:
        self.tol, self.most = tol, _MOST if most is None else most
        self.moves, self.since, self.best, self.remaining = 0, 0, np.inf, np.inf
        self.largest: float | None = None

    def ended(self, told: Report) -> bool:
        """Take a report; return whether there is no progress, or there were too many sweeps."""
        self.moves += told.remaining > 0
        improved = told.worst < _IMPROVED * self.best or told.remaining < self.remaining
        self.since = 0 if improved else self.since + 1
        self.best, self.remaining = min(self.best, told.worst), min(self.remaining, told.remaining)
        return self.since >= (_PATIENCE_NEAR if self.near(told) else _PATIENCE) or self.moves >= self.most

    def near(self, told: Report) -> bool:
        """Return whether another test, one that knows of lanes or rounds otherwise, might be passed."""
        return told.worst <= _NEAR * self.tol * max(1.0, told.size)

    def needs_fresh(self, told: Report, was_fresh: bool) -> bool:
        """Return whether the next product should be one in full precision."""
        if self.largest is None:
            self.largest = told.size  # the first product was one with the states themselves
        self.largest = told.worst if was_fresh else max(self.largest, told.worst)
        stuck = self.near(told) and self.since > 0
        return told.remaining == 0 or stuck or told.worst <= _ROUGH * self.largest

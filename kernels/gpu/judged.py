"""What kernels have told of an iterate."""

from __future__ import annotations

from collections.abc import Sequence
from math import isfinite

import numpy as np

from recsolve.base.arrays import Array

TOLD, CONVERGED, LEADING, FRONT, PINS, CUT, ROWS = range(7)  # what is told of rows, in bytes


class Judged:
    """What kernels have told of an iterate: of its rows on the device, in all on the host.

    Attributes
    ----------
    residual : array, shape (T, *batch, *event)
    converged, leading, front : array of bool, shape (T, *batch)
    pins, cut : array of bool, shape (T, *batch)
        The leading rows and the fronts; these and the starts.
    worst : float
    blocked, done : bool
        Whether no method can go on; whether all rows have converged.
    progress, leading_times, converged_times, settled : int
        Leading rows; times at which all sequences lead, or have converged, from the first one on; sequences that have
        converged.
    rows, numbers : array
        On the device: what is told of rows, and of sizes.
    """

    __slots__ = (
        *("residual", "rows", "numbers", "converged", "leading", "front"),
        *("worst", "blocked", "done", "progress", "leading_times", "converged_times", "settled"),
    )

    def __init__(self, residual: Array, rows: Array, numbers: Array):
        self.residual, self.rows, self.numbers = residual, rows, numbers
        self.converged, self.leading, self.front = rows[CONVERGED], rows[LEADING], rows[FRONT]

    def read(self, told: Sequence[int]) -> Judged:
        """Take in the report."""
        bits, failed, self.progress, unled, unconverged, fronts, still_open, self.settled = told
        self.worst, self.done = float(np.int64(bits).view(np.float64)), failed == 0
        self.blocked = not isfinite(self.worst) and fronts > 0 and still_open == 0
        steps = len(self.converged)
        self.leading_times, self.converged_times = steps - unled, steps - unconverged
        return self

    @property
    def pins(self) -> Array:
        return self.rows[PINS]  # type: ignore[no-any-return]

    @property
    def cut(self) -> Array:
        return self.rows[CUT]  # type: ignore[no-any-return]

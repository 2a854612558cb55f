"""What kernels have told of an iterate."""

from __future__ import annotations

from collections.abc import Sequence
from math import isfinite
from typing import NamedTuple

import numpy as np

from recsolve.base.arrays import Array

TOLD, CONVERGED, LEADING, FRONT, PINS, CUT, ROWS = range(7)  # what is told of rows, in bytes


class Report(NamedTuple):
    """What is told of an iterate in all, in the order of ``cuda/iterate/rows.cuh``.

    Attributes
    ----------
    bits : int
        Of the largest |r|, as a double.
    failed, led : int
        Rows that have not converged, and that lead.
    unled, unconverged : int
        Times from the first one on at which some sequence does not lead, or has not converged.
    fronts, open, settled : int
        Rows at which a segment stops converging, those of them from which a method can go on, and sequences that have
        converged.
    """

    bits: int = 0
    failed: int = 0
    led: int = 0
    unled: int = 0
    unconverged: int = 0
    fronts: int = 0
    open: int = 0
    settled: int = 0

    @property
    def worst(self) -> float:
        """The largest |r|."""
        return float(np.int64(self.bits).view(np.float64))


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
        report, steps = Report(*told), len(self.converged)
        self.worst, self.done = report.worst, report.failed == 0
        self.progress, self.settled = report.led, report.settled
        self.blocked = not isfinite(self.worst) and report.fronts > 0 and report.open == 0
        self.leading_times, self.converged_times = steps - report.unled, steps - report.unconverged
        return self

    @property
    def pins(self) -> Array:
        return self.rows[PINS]  # type: ignore[no-any-return]

    @property
    def cut(self) -> Array:
        return self.rows[CUT]  # type: ignore[no-any-return]

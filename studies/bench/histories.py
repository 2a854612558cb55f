"""Recurrences with growing history on the CPU, beside as many calls of F alone, and beside row after row."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace

import numpy as np

import recsolve as rs
from recsolve.base.arrays import Array
from recsolve.studies.bench.board import Config
from recsolve.studies.bench.harness import Bench
from recsolve.studies.bench.solves import BENCHES as SOLVES
from recsolve.studies.bench.solves import Race
from recsolve.studies.bench.table import Row

ATTENTION = (512, 32)  # steps, units


def rows(config: Config) -> Iterator[Row]:
    """Time the solves, one after the other."""
    rng = np.random.default_rng(config.seed)
    T, d = ATTENTION
    x, (Q, K, V) = rng.standard_normal(ATTENTION), rng.standard_normal((3, d, d)) / d**0.5
    mask = np.tri(T, T, -1, dtype=bool)

    def attend(y: Array, x: Array) -> Array:
        n = len(y)
        weight = np.where(mask[:n, :n], np.exp((x @ Q) @ (y @ K).T / d**0.5), 0.0)
        out: Array = x + 0.5 * (weight @ (y @ V)) / (weight.sum(axis=-1, keepdims=True) + 1.0)
        return out

    def row_after_row() -> Array:
        y = np.zeros_like(x)
        for t in range(T):
            y[t] = attend(y[: t + 1], x[: t + 1])[t]
        return y

    rec, truth = rs.Recurrence.from_history(attend, inputs=x), row_after_row()
    calls = rs.solve(rec, method="jacobi").stats["nfev"]

    def sweeps_alone() -> Array:
        y = x
        for _ in range(calls):
            y = attend(y, x)
        return y

    def by_jacobi() -> Array:
        states: Array = rs.solve(rec, method="jacobi").states
        return states

    for name, other in (("F as often", sweeps_alone), ("row after row", row_after_row)):
        yield Race("attention to outputs, jacobi", f"T{T} D{d}", by_jacobi, name, other, truth).row(config)


BENCHES = {"cpu": Bench(rows, replace(SOLVES["cpu"].table, title="histories, float64"))}

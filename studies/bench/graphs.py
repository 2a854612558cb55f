"""Recurrences on graphs on the CPU, beside loops over anti-diagonals, and over layers, as written by hand."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import replace
from typing import Any

import numpy as np

import recsolve as rs
from recsolve.base.arrays import Array
from recsolve.studies.bench.board import Config
from recsolve.studies.bench.harness import Bench
from recsolve.studies.bench.solves import BENCHES as SOLVES
from recsolve.studies.bench.solves import Race
from recsolve.studies.bench.table import Row

GRID = (64, 64, 32)
STACK = (4, 200, 8, 64)  # layers, steps, batch, units

Step = Callable[[Any, Any, Any], Any]


def rows(config: Config) -> Iterator[Row]:
    """Time the solves, one after the other."""
    rng = np.random.default_rng(config.seed)
    for race in (*_grids(rng), *_stacks(rng)):
        yield race.row(config)


def by_diagonals(step: Step, u: Array) -> Array:
    """Return h[x, y] = step(h[x-1, y], h[x, y-1], u[x, y]) from a border of 0, one anti-diagonal after the other."""
    X, Y, d = u.shape
    h = np.zeros((X + 1, Y + 1, d), u.dtype)
    for s in range(X + Y - 1):
        x = np.arange(max(0, s - Y + 1), min(s, X - 1) + 1)
        y = s - x
        h[x + 1, y + 1] = step(h[x, y + 1], h[x + 1, y], u[x, y])
    return h[1:, 1:]


def _grids(rng: np.random.Generator) -> Iterator[Race]:
    """Yield the grid of a linear recurrence, as those of pLSTM are, and of one that saturates."""
    X, Y, d = GRID
    u, (a, b) = rng.standard_normal(GRID), rng.uniform(0, 0.5, (2, d))

    def linear(left: Any, up: Any, u: Any) -> Any:
        return a * left + b * up + u

    def saturating(left: Any, up: Any, u: Any) -> Any:
        return np.tanh(a * left + b * up + u)

    for name, step in (("linear", linear), ("tanh", saturating)):
        rec = rs.Recurrence.from_graph(
            lambda h, u, step=step: step(*h, u), rs.graphs.grid((X, Y)),
            inputs=u, initial=np.zeros(d), structure="diagonal",
        )  # fmt: skip
        truth = by_diagonals(step, u)
        for method in ("sequential", "newton"):
            yield Race(
                f"{name} grid, {method}", f"{X} x {Y} x {d}",
                lambda rec=rec, method=method: rs.solve(rec, method=method).states,  # type: ignore[misc]
                "diagonals", lambda step=step: by_diagonals(step, u), truth,  # type: ignore[misc]
            )  # fmt: skip


def _stacks(rng: np.random.Generator) -> Iterator[Race]:
    """Yield LSTM layers over time, by levels and one layer after the other."""
    D, T, B, n = STACK
    below, before = (rng.uniform(-1, 1, (2, D, n, 4 * n)) / n**0.5).astype(np.float64)
    below[0] = 0
    x = np.zeros((D, T, B, 4 * n))
    x[0] = rng.standard_normal((T, B, 4 * n))
    layer = np.broadcast_to(np.arange(float(D))[:, None], (D, T))

    def cell(gates: Any, c: Any) -> Any:
        i, f, o = (0.5 + 0.5 * np.tanh(0.5 * gates[..., k * n : (k + 1) * n]) for k in range(3))
        c = f * c + i * np.tanh(gates[..., 3 * n :])
        return np.concatenate([c, o * np.tanh(c)], axis=-1)

    def by_levels(h: Any, u: Any) -> Any:
        own, under = h
        gates = rs.graphs.matmul(own[..., n:], before, u["layer"]) + rs.graphs.matmul(under[..., n:], below, u["layer"])
        return cell(gates + u["x"], own[..., :n])

    rec = rs.Recurrence.from_graph(
        by_levels, rs.graphs.layers(D, T), inputs={"x": x, "layer": layer}, initial=np.zeros((B, 2 * n))
    )

    def one_by_one() -> Array:
        drive, states = x[0], np.empty((D, T, B, 2 * n))
        for d in range(D):
            alone = rs.Recurrence.from_function(
                lambda h, u, d=d: cell(h[..., n:] @ before[d] + u, h[..., :n]),
                inputs=drive,
                initial=np.zeros((B, 2 * n)),
            )
            states[d] = rs.solve(alone, method="sequential").states
            drive = states[d, ..., n:] @ below[(d + 1) % D]
        return states

    yield Race(
        f"{D} LSTM layers by levels", f"T{T} B{B} D{n}", lambda: rs.solve(rec, method="sequential").states,
        "layer by layer", one_by_one, one_by_one(),
    )  # fmt: skip


BENCHES = {"cpu": Bench(rows, replace(SOLVES["cpu"].table, title="graphs, float64"))}

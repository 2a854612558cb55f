"""The benchmark of solves, on sizes at which only its numbers mean something."""

import json
import math
from itertools import islice

import numpy as np
import pytest

import recsolve as rs
from recsolve.studies.bench import by_hand
from recsolve.studies.bench.bench import BenchConfig
from recsolve.studies.bench.bench_solve import bench_solve
from recsolve.studies.command import warm

CONFIG = BenchConfig(repeats=1, numbers=1 << 14)


def test_rows_have_times_errors_and_ratios():
    rows = list(islice(bench_solve(CONFIG), 5))
    assert [row.solve for row in rows][:2] == ["GRU in order", "user's GRU in order"]
    for row in rows:
        found = json.loads(json.dumps(row.row(), allow_nan=False))
        assert found["median"] > 0
        assert found["reference_over_solve"] == pytest.approx(row.reference_median / row.median)
        assert row.error < 1e-5
        assert math.isfinite(row.reference_error)


@pytest.mark.parametrize("name", ["gru", "lstm"])
def test_loops_by_hand_are_what_the_library_computes(name):
    cell, rng = getattr(rs.cells, name.upper()), np.random.default_rng(0)
    u = {n: rng.standard_normal((20, 2, 3)) for n in cell.drives}
    w = {n: rng.standard_normal(3) for n in (*cell.mixings, *cell.parameters)}
    mixings = {n: rs.mixings.Diagonal(w[n]) for n in cell.mixings}
    parameters = {n: w[n] for n in cell.parameters}
    rec = cell.with_weights(mixings=mixings, parameters=parameters, hidden_size=3).recurrence(drive=u)
    solution = rs.solve(rec, method="sequential")
    states = getattr(by_hand, name)(u, w)
    np.testing.assert_allclose(states, solution.states, rtol=1e-12, atol=1e-12)
    cotangent = rng.standard_normal(rec.shape)
    g = rs.adjoint(solution, states=cotangent)
    found, gradients = getattr(by_hand, f"{name}_adjoint")(u, w, states, cotangent)
    np.testing.assert_allclose(found, g.states, rtol=1e-10, atol=1e-10)
    for n in cell.drives:
        np.testing.assert_allclose(gradients[n], g.drive[n], rtol=1e-10, atol=1e-10)
    for n in cell.mixings:
        np.testing.assert_allclose(gradients[f"w_{n}"].sum(axis=0), g.mixings[n], rtol=1e-10, atol=1e-10)


def test_warming_names_what_it_compiles(monkeypatch):
    monkeypatch.setattr(warm, "DTYPES", (np.float64,))
    monkeypatch.setattr(rs, "cells", type("Cells", (), {"Elman": rs.cells.Elman}))
    parts = list(warm.warm())
    assert parts == ["scans, float64", "elman diagonal, float64", "elman dense, float64", ""]

"""What is tested is what is stated, and what is trusted is as good as it says."""

import runpy
from pathlib import Path
from types import SimpleNamespace

import gallery
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

import recsolve as rs
from recsolve.analysis import finer

SOLVERS = sorted(rs.solvers.REGISTRY)
ASKED = (
    {},
    {"tol": 1e-5},
    {"options": {"atol": 1e-4}},
    {"options": {"rtol": 1e-3}},
    {"options": {"atol": 0.0, "rtol": 1e-6}},
)


def large(dtype, width):
    """A dense relu network with states that reach from 0 to thousands in one lane."""
    rng = np.random.default_rng(width)
    W = (rng.standard_normal((width, width)) / width**0.5).astype(dtype)
    u = (rng.standard_normal((60, 3, width)) * 10.0 ** rng.integers(-2, 4, width)).astype(dtype)
    return rs.Recurrence.from_function(
        lambda h, u: np.maximum(h @ W + u, 0), inputs=u, initial=np.zeros((3, width), dtype)
    )


KINDS = {
    "relu of many sizes": large,
    "dense gru": lambda dtype, width: gallery.recurrence("gru", "dense", units=width, gain=2.0, dtype=dtype),
    "diagonal lstm": lambda dtype, width: gallery.recurrence("lstm", "diagonal", units=width, dtype=dtype),
    "heads of an lstm": lambda dtype, width: gallery.recurrence("lstm", "heads", units=width, gain=2.0, dtype=dtype),
    "sines": lambda dtype, width: gallery.sine(1.5, T=60, seed=width, dtype=dtype),
}


@pytest.mark.parametrize("method", SOLVERS)
@given(
    kind=st.sampled_from(sorted(KINDS)),
    dtype=gallery.dtypes,
    width=st.sampled_from([8, 24]),
    asked=st.sampled_from(ASKED),
    maxiter=st.sampled_from([None, 3, 8]),
)
def test_rows_converge_exactly_where_the_stated_test_holds(method, kind, dtype, width, asked, maxiter):
    rec = KINDS[kind](dtype, width)
    sol = rs.solve(rec, method=method, maxiter=maxiter, **asked)
    met = gallery.rows_met(rec, sol.states, sol.tolerance)
    np.testing.assert_array_equal(sol.converged_rows, met)
    assert sol.success == met.all()
    assert sol.residuals[-1] == np.abs(rec.evaluate(sol.states) - sol.states).max()
    assert str(sol.tolerance) in repr(sol)


CALIBRATION = SimpleNamespace(**runpy.run_path(str(Path(__file__).parent.parent / "docs" / "calibration.py")))


def calibrated(seeds, families=CALIBRATION.FAMILIES):
    """Solve random, trained and chaotic problems, and demand what is stated of them as a whole."""
    found = [CALIBRATION.solved(family, seed) for seed in seeds for family in families]
    count = CALIBRATION.counts(found)["all"]
    assert count["beyond"] <= 0.001 * count["trusted"], [s for s in found if s.trusted and s.error > 10 * s.stated]
    assert count["trusted within"] >= 0.95 * count["within"], [s for s in found if s.error < 0.01 and not s.trusted]
    assert count["trusted"] > 0.5 * len(found)
    return found


def test_trust_is_calibrated():
    """At most 1 of 1000 is farther off than ten times what it states, and 95 % of what is within are trusted."""
    found = calibrated(range(12))
    assert any(s.success and not s.trusted for s in found)
    errors = np.array([s.error for s in found if s.trusted and s.dtype == "float32"])
    assert errors.max() > 1e-4  # far above kappa-free rounding, or the test would show little


def test_trust_is_calibrated_without_finer_arithmetic(monkeypatch):
    """As on a GPU: rounding then counts as the most that it can be, which costs some trust in the chaotic."""
    monkeypatch.setattr(finer, "_TERMS", -1)
    networks = [name for name in CALIBRATION.FAMILIES if "network" in name or "gru" in name]
    found = calibrated(range(1, 20, 2), networks)  # odd seeds are float64
    assert {s.dtype for s in found} == {"float64"}


def test_trust_needs_no_finer_type_that_f_refuses():
    """A function that takes its own dtype only is judged by its conditioning."""

    def strict(h, u):
        if getattr(h, "dtype", None) not in (np.float32, np.float64):
            raise TypeError("no such numbers")
        return 0.5 * np.sin(h) + u

    for dtype in gallery.DTYPES:
        sol = rs.solve(gallery.function(strict, np.ones((40, 2), dtype)))
        assert sol.trusted
        assert np.finfo(dtype).eps / 8 < sol.error_estimate < 100 * np.finfo(dtype).eps


def test_a_small_residual_that_is_not_small_for_its_states_earns_no_trust():
    """Units and sequences that do not couple are judged by their own sizes, not by those of others."""
    u = np.ones((60, 2, 3)) * np.array([1.0, 1e-9, 1.0])
    rec = gallery.function(lambda h, u: 0.9 * np.sin(h) + u, u)
    coarse, fine = rs.solve(rec, tol=1e-7, method="jacobi"), rs.solve(rec, tol=1e-16, method="jacobi")
    assert coarse.success
    assert not coarse.trusted
    assert "may be off by about" in coarse.message
    assert fine.trusted


def test_a_tolerance_below_rounding_earns_no_trust():
    """h = 2.5 sin h + u in float32: a residual of 0 and an error of the size of the states, whatever is asked for."""
    for T in (50, 60, 100):
        rec = gallery.sine(2.5, T=T)
        truth = gallery.loop(rec.astype(np.float64))
        assert T > 60 or rs.solve(rec, tol=1e-12).condition * 1e-12 <= 0.01 < rs.solve(rec).condition * 1e-7
        for sol in (rs.solve(rec, tol=1e-12), rs.solve(rec)):
            assert sol.success
            assert np.abs(sol.states - truth).max() > 0.01 * np.abs(sol.states).max()
            assert not sol.trusted

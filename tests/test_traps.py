"""Where published solvers report success on garbage."""

import gallery
import numpy as np
import pytest

import recsolve as rs
from recsolve.base.tolerance import Tolerance

SOLVERS = sorted(rs.solvers.REGISTRY)
FACTORS = (2.5, 6.0, 20.0)


@pytest.mark.sample(every=2)
@pytest.mark.parametrize("p", FACTORS)
@pytest.mark.parametrize("method", SOLVERS)
@pytest.mark.parametrize("maxiter", [3, 20, None])
def test_success_means_that_the_recomputed_residual_is_met(p, method, maxiter):
    rec = gallery.sine(p)
    sol = rs.solve(rec, method=method, maxiter=maxiter)
    met = gallery.residual_is_met(rec, sol.states, sol.tolerance)
    assert sol.success == met
    assert sol.success or maxiter is not None
    assert sol.residuals[-1] == np.abs(rec.evaluate(sol.states) - sol.states).max()


@pytest.mark.parametrize("p", FACTORS)
@pytest.mark.parametrize("pin", [True, False])
@pytest.mark.parametrize("method", SOLVERS)
def test_without_the_pin_too_success_is_never_claimed_falsely(p, pin, method):
    rec = gallery.sine(p, T=120)
    sol = rs.solve(rec, method=method, maxiter=100, options={"pin": pin})
    assert sol.success == gallery.residual_is_met(rec, sol.states, sol.tolerance)


@pytest.mark.parametrize("seed", range(3))
@pytest.mark.parametrize("p", FACTORS)
def test_newton_equals_the_loop_within_T_iterations(p, seed):
    rec = gallery.sine(p, seed=seed)
    sol = rs.solve(rec, method="newton")
    assert sol.success
    assert sol.nit <= rec.length + 2
    np.testing.assert_array_equal(sol.states, gallery.loop(rec))


@pytest.mark.parametrize("p", FACTORS)
@pytest.mark.parametrize("method", SOLVERS)
def test_the_sequential_fallback_is_right_whatever_the_method_did(p, method):
    rec = gallery.sine(p)
    sol = rs.solve(rec, method=method, maxiter=7, fallback="sequential")
    assert sol.success
    np.testing.assert_array_equal(sol.states, gallery.loop(rec))
    if method not in ("sequential", "auto", "adaptive_shooting"):  # which take the loop, the last one in the end
        assert sol.stats["completed_from"] >= 7
        assert "completed by the sequential loop" in sol.message


@pytest.mark.parametrize("p", FACTORS)
@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_chaos_is_not_trusted(p, dtype):
    sol = rs.solve(gallery.sine(p, dtype=dtype))
    assert sol.success
    assert not sol.trusted
    assert "kappa" in sol.message


def test_one_huge_entry_does_not_hide_the_others():
    """A global norm would accept: one unit is 1e12, the other has a residual of 1e-3 of its own size."""
    scale = np.array([1e12, 1.0])
    u = np.ones((50, 2)) * scale
    rec = gallery.function(lambda h, u: 0.9 * scale * np.sin(h / scale) + u, u)
    for method in SOLVERS:
        for k in range(6):
            sol = rs.solve(rec, method=method, maxiter=k, tol=1e-6)
            assert sol.success == gallery.residual_is_met(rec, sol.states, Tolerance(1e-6, 1e-6))


def test_overflow_in_the_drive_of_one_sequence():
    u = np.ones((40, 2, 3), np.float32)
    u[20, 0] = np.inf
    rec = gallery.function(lambda h, u: np.float32(0.5) * h + u, u)
    for method in SOLVERS:
        sol = rs.solve(rec, method=method)
        assert sol.status == "nonfinite"
        assert sol.converged_prefix == 20
        assert np.isinf(sol.states[20, 0]).all()
        np.testing.assert_allclose(sol.states[:, 1], gallery.loop(rec)[:, 1], rtol=1e-5)


def test_a_trajectory_that_itself_overflows_says_so():
    rec = rs.Recurrence.from_function(
        lambda h, u: h * h + u, inputs=np.full((40, 1), 2.0), initial=np.ones(1), structure="diagonal"
    )
    sol = rs.solve(rec)
    assert sol.status == "nonfinite"
    assert "although its drive is finite" in sol.message
    steps = gallery.loop(rec)
    assert sol.converged_prefix == np.isfinite(steps).sum()
    np.testing.assert_allclose(sol.states[: sol.converged_prefix], steps[: sol.converged_prefix], rtol=1e-13)

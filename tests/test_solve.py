"""solve(): statuses, fallbacks, callbacks, options, the Solution, and input that is wrong."""

import gallery
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

import recsolve as rs

SOLVERS = sorted(rs.solvers.REGISTRY)


def test_the_solution_says_all():
    rec = gallery.recurrence("lstm", "dense")
    sol = rs.solve(rec)
    text = repr(sol)
    for word in (
        "converged",
        "newton",
        "LSTM".lower(),
        "residual",
        "rows within tolerance",
        "evaluations",
        "sol.trusted",
    ):
        assert word in text
    assert sol.residuals.shape == (sol.nit + 1,)
    assert sol.residuals[-1] == np.abs(rec.evaluate(sol.states) - sol.states).max()
    assert sol.stats["nfev"] == sol.nit + 2  # the guess and every iterate
    assert sol.stats["njev"] == sol.nit + 1
    assert sol.stats["nscan"] == sol.nit
    assert sol.stats["completed_from"] is None
    assert sol.converged_prefix == rec.length
    assert 0 < sol.exact_prefix <= rec.length
    assert sol.converged_rows.shape == (60, 2)
    assert sol.trusted
    assert "error about" in repr(sol)
    np.testing.assert_array_equal(sol.output, sol.states[:, :, 0])
    assert sol.recurrence is rec


def test_maxiter_returns_the_iterate_it_speaks_of():
    rec = gallery.recurrence("gru", "dense")
    sol = rs.solve(rec, method="jacobi", maxiter=5)
    assert sol.status == "maxiter"
    assert not sol.success
    assert not sol.trusted
    assert "maxiter" in sol.message
    assert sol.nit == 5
    assert sol.converged_prefix >= 5
    assert sol.exact_prefix >= 5
    assert rs.solve(rec, maxiter=0).nit == 0


def test_fallbacks():
    rec = gallery.recurrence("gru", "dense")
    truth = gallery.loop(rec)
    sol = rs.solve(rec, method="jacobi", maxiter=5, fallback="sequential")
    np.testing.assert_allclose(sol.states, truth, rtol=0, atol=1e-15)
    assert sol.status == "converged"
    assert sol.stats["completed_from"] >= 5
    assert len(sol.residuals) == sol.nit + 2
    with pytest.raises(rs.ConvergenceError, match="maxiter") as caught:
        rs.solve(rec, method="jacobi", maxiter=5, fallback="raise")
    assert caught.value.solution.states.shape == rec.shape
    assert rs.solve(rec, fallback="raise").success


def test_the_fallback_leaves_what_is_not_finite():
    clean = gallery.recurrence("gru", "dense", T=40)
    x = np.random.default_rng(1).standard_normal((40, 2, 3))
    x[20, 0] = np.nan
    rec = clean.cell.recurrence(x)
    sol = rs.solve(rec, method="jacobi", fallback="sequential")
    assert sol.status == "nonfinite"
    np.testing.assert_allclose(sol.states, gallery.loop(rec), rtol=0, atol=1e-14)
    assert np.isnan(sol.states[20:, 0]).all()


def test_callback_sees_every_iterate_read_only_and_may_stop():
    rec = gallery.recurrence("gru", "dense")
    seen = []

    def watch(result):
        seen.append((result.nit, result.residual, result.converged_rows.sum()))
        assert result.states.shape == rec.shape
        with pytest.raises(ValueError, match="read-only"):
            result.states[0] = 0
        if result.nit == 2:
            raise StopIteration

    sol = rs.solve(rec, method="jacobi", callback=watch)
    assert [n for n, _, _ in seen] == [0, 1, 2]
    assert sol.status == "stopped"
    assert sol.nit == 2
    np.testing.assert_array_equal([r for _, r, _ in seen], sol.residuals)


@pytest.mark.parametrize("method", SOLVERS)
def test_a_guess_is_used_not_written_and_may_be_the_answer(method):
    rec = gallery.recurrence("gru", "dense")
    truth = gallery.loop(rec)
    truth.flags.writeable = False
    sol = rs.solve(rec, method=method, guess=truth)
    assert sol.nit == 0
    assert sol.success
    junk = np.full(rec.shape, np.nan)
    sol = rs.solve(rec, method=method, guess=junk)
    assert sol.success
    assert np.abs(sol.states - truth).max() <= gallery.bound(sol)
    assert np.isnan(junk).all()


def test_stalled_and_diverged_without_the_pin():
    options = {"pin": False, "patience": 5}

    class Backwards(rs.solvers.Newton):
        """Takes steps away from the solution."""

        def step(self, problem, iterate, state):
            return problem.advance(iterate, iterate.states - 2 * iterate.residual), state

    class Idle(rs.solvers.Newton):
        def step(self, problem, iterate, state):
            return iterate, state

    rec = gallery.recurrence("elman", "dense", T=30)
    sol = rs.solve(rec, method=Idle(), options=options)
    assert sol.status == "stalled"
    assert sol.nit == 5
    leaky = rs.Recurrence.from_function(
        lambda h, u: 0.9 * h + u, inputs=np.ones((1000, 16)), initial=np.ones(16), structure="diagonal"
    )
    sol = rs.solve(leaky, method=Backwards(), options={**options, "patience": 8})
    assert sol.status == "diverged"
    assert sol.residuals[-1] > 1e3 * sol.residuals[0]


def test_the_pin_rescues_a_solver_that_does_nothing():
    class Idle(rs.solvers.Newton):
        def step(self, problem, iterate, state):
            return problem.advance(iterate, iterate.states), state

    rec = gallery.recurrence("elman", "dense", T=30)
    sol = rs.solve(rec, method=Idle())
    assert sol.success
    assert sol.nit <= 30


@pytest.mark.parametrize("dtype", gallery.DTYPES)
def test_a_tolerance_below_rounding_ends_with_exact_rows(dtype):
    rec = gallery.recurrence("gru", "dense", T=40, dtype=dtype)
    sol = rs.solve(rec, tol=0.0)
    assert sol.success
    assert sol.exact_prefix == 40
    assert sol.residuals[-1] == 0


def dense_condition(rec, states):
    """The infinity norm of the inverse of the bidiagonal matrix, formed."""
    J = rec.linearise(states)[1].todense()
    T, N = rec.length, rec.layout.size
    worst = 0.0
    starts = rec.starts
    for b in range(rec.batch[0]):
        L = np.eye(T * N)
        for t in range(1, T):
            if not starts[t, b]:
                L[t * N : (t + 1) * N, (t - 1) * N : t * N] = -J[t, b]
        worst = max(worst, np.abs(np.linalg.inv(L)).sum(axis=1).max())
    return worst


@given(cell=gallery.cells, seed=gallery.seeds, gain=st.floats(0.3, 4.0), resets=st.booleans())
def test_the_condition_is_that_of_the_bidiagonal_system(cell, seed, gain, resets):
    reset = np.random.default_rng(seed).random((20, 2)) < 0.1 if resets else None
    rec = gallery.recurrence(*cell, T=20, units=4, gain=gain, seed=seed, reset=reset)
    sol = rs.solve(rec)
    exact = dense_condition(rec, sol.states)
    if cell[1] == "diagonal" and rec.layout.components == 1:
        assert sol.condition == pytest.approx(exact, rel=1e-10)
    else:
        assert exact / 3 <= sol.condition <= exact * (1 + 1e-10)


def test_trust_follows_the_error_and_not_the_worst_case_of_the_condition():
    keep = np.float32(0.99999)
    slow = gallery.function(lambda h, u: keep * h + u, np.ones((100_000, 1), np.float32))
    sol = rs.solve(slow)
    assert sol.success
    assert sol.condition == pytest.approx(63_000, rel=0.05)  # times the tolerance that is 0.03 of the states
    error = np.abs(sol.states - gallery.loop(slow.astype(np.float64))).max()
    assert sol.error_estimate == pytest.approx(error, rel=0.01)
    assert sol.trusted == (error < 0.01 * sol.states.max())
    far = rs.solve(slow, tol=1e-3, method="jacobi", guess=sol.states * np.float32(1.02))
    assert far.success
    assert not far.trusted
    assert "may be off by about 1.3e+03" in far.message
    assert rs.solve(gallery.recurrence("gru", "dense")).trusted


def test_from_function_forms():
    rng = np.random.default_rng(0)
    a, b = rng.standard_normal((2, 30, 4))
    by_tuple = rs.Recurrence.from_function(
        lambda h, u: np.tanh(h * u[0] + u[1]), inputs=(a, b), initial=np.zeros(4), structure="diagonal"
    )
    by_dict = rs.Recurrence.from_function(
        lambda h, u: np.tanh(h * u["a"] + u["b"]), inputs={"a": a, "b": b}, initial=np.zeros(4), structure="dense"
    )
    x, y = rs.solve(by_tuple), rs.solve(by_dict)
    np.testing.assert_allclose(x.states, y.states, atol=1e-14)


def test_states_that_are_one_number_per_step():
    u = np.linspace(0, 1, 40)
    rec = gallery.function(lambda h, u: 0.5 * np.sin(h) + u, u)
    for method in SOLVERS:
        sol = rs.solve(rec, method=method)
        assert sol.states.shape == (40,)
        assert sol.trusted
        np.testing.assert_allclose(sol.states, gallery.loop(rec), atol=1e-14)


def test_autonomous_recurrences_and_lists():
    logistic = rs.Recurrence.from_function(
        lambda h, u: 2.5 * h * (1 - h), initial=[0.3], structure="diagonal", length=50
    )
    sol = rs.solve(logistic)
    assert sol.success
    assert sol.final[0] == pytest.approx(0.6)


@pytest.mark.parametrize(
    ("structure", "jacobian"),
    [("diagonal", lambda h, u: 0.5 * np.cos(h)), ("dense", lambda h, u: 0.5 * np.cos(h)[..., None] * np.eye(3))],
)
def test_a_given_jacobian_is_used(structure, jacobian):
    u = np.random.default_rng(0).standard_normal((40, 3))
    rec = gallery.function(lambda h, u: 0.5 * np.sin(h) + u, u, structure, jacobian=jacobian)
    assert rs.solve(rec).nit <= 5
    assert rs.check_structure(rec)


def test_mixed_kinds():
    torch = pytest.importorskip("torch")
    cell = gallery.weighted("gru")
    x = torch.ones(5, 2, 3, dtype=torch.float64)
    with pytest.raises(TypeError, match="initial is numpy and the drive is torch"):
        cell.recurrence(x, initial=np.zeros(8))
    with pytest.raises(TypeError, match="kinds are mixed: initial is numpy, inputs is torch"):
        rs.Recurrence.from_function(lambda h, u: h, inputs=x, initial=np.zeros(3))
    with pytest.raises(TypeError, match="guess is numpy"):
        rs.solve(cell.recurrence(x), guess=np.zeros((5, 2, 8)))
    sol = rs.solve(cell.recurrence(x, initial=torch.zeros(8, dtype=torch.float64)))
    assert isinstance(sol.states, torch.Tensor)
    assert isinstance(sol.final, torch.Tensor)


def test_without_cupy_the_error_names_the_extra():
    pytest.importorskip("numpy")
    try:
        import cupy  # noqa: F401
    except ImportError:
        with pytest.raises(ImportError, match=r"recsolve\[cuda13\]"):
            gallery.weighted("gru").to("cupy")

"""The loop around the solvers: budgets, callbacks, stages, windows and counts keep their word."""

import time

import gallery
import numpy as np
import pytest
from gallery import function

import recsolve as rs
from recsolve.base.tolerance import tolerance_for

S = rs.solvers


def sines(p=0.5, T=1000, width=1):
    u = np.random.default_rng(0).standard_normal((T, width))
    return function(lambda h, u: p * np.sin(h) + u, u)


def test_a_callback_cannot_write_into_the_solve():
    def callback(result):
        result.converged_rows[...] = True

    rec = sines()
    sol = rs.solve(rec, callback=callback)
    assert sol.nit > 0
    assert gallery.residual_is_met(rec, sol.states, sol.tolerance)
    sol.converged_rows[...] = False
    assert sol.success


@pytest.mark.parametrize(
    ("seed", "n", "batch", "dtype", "method"),
    [(5, 32, 20, np.float64, "newton"), (2, 32, 4, np.float32, "jacobi"), (3, 32, 9, np.float32, "quasi_newton")],
)
def test_what_rounds_otherwise_in_parts_than_at_all_times_ends_within_T(seed, n, batch, dtype, method):
    """A matrix product rounds otherwise in another shape, here by more than the tolerance of a row."""
    rng = np.random.default_rng(seed)
    W = (2.5 * rng.standard_normal((n, n)) / np.sqrt(n)).astype(dtype)
    u = rng.standard_normal((80, batch, n)).astype(dtype)
    u[:, 1:] *= dtype(4)
    u[:, 0] *= dtype(0.1)
    rec = function(lambda h, u: np.tanh(h @ W + u), u, "dense")
    sol = rs.solve(rec, method=method)
    assert sol.success
    assert sol.nit <= 82
    assert gallery.residual_is_met(rec, sol.states, sol.tolerance)
    assert ("wider than asked" in sol.message) == (sol.tolerance != tolerance_for(rec))
    assert sol.residuals[-1] == np.abs(rec.evaluate(sol.states) - sol.states).max()


def test_a_stage_is_not_measured_against_the_progress_of_the_one_before():
    rng = np.random.default_rng(0)
    u = rng.standard_normal((300, 5, 1))
    p = np.array([2.5, 0.3, 0.3, 0.3, 0.3])[:, None] * np.ones((300, 1, 1))
    rec = rs.Recurrence.from_function(
        lambda h, x: x[0] * np.sin(h) + x[1], inputs=(p, u), initial=np.zeros((5, 1)), structure="diagonal"
    )
    assert rs.solve(rec, method=S.Chain(methods=("newton", S.Windowed(window=10)), iterations=5)).success


@pytest.mark.parametrize(
    "inner", ["sequential", "auto", S.Chain(methods=("jacobi", "sequential"), iterations=3)], ids=str
)
def test_windows_of_the_loop(inner):
    rec = sines()
    sol = rs.solve(rec, method=S.Windowed(solver=inner, window=50))
    assert sol.success
    np.testing.assert_allclose(sol.states, gallery.loop(rec), rtol=0, atol=1e-14)


def test_stopping_at_the_end_of_a_stage_returns_what_the_callback_saw():
    rec, last = sines(2.0, T=200, width=3), {}

    def callback(result):
        last["states"] = result.states.copy()
        if result.nit >= 3:
            raise StopIteration

    chain = S.Chain(methods=("jacobi", S.Windowed(window=10)), iterations=3)
    sol = rs.solve(rec, method=chain, callback=callback)
    assert sol.status == "stopped"
    np.testing.assert_array_equal(sol.states, last["states"])


@pytest.mark.parametrize("stop", range(6))
@pytest.mark.parametrize("method", ["newton", "windowed", "chain", "elk", "gauss_seidel"])
def test_stopping_anywhere_leaves_a_whole_solution(method, stop):
    def callback(result):
        if result.nit == stop:
            raise StopIteration

    rec = gallery.sine(2.5, T=300)
    sol = rs.solve(rec, method=method, callback=callback, options={"trace": True})
    assert sol.status in ("stopped", "converged")
    assert sol.nit <= stop
    assert len(sol.residuals) == len(sol.trace.residual) == sol.nit + 1
    assert sol.residuals[-1] == np.abs(rec.evaluate(sol.states) - sol.states).max()
    assert sol.trace.residual[-1].max() == sol.residuals[-1]


@pytest.mark.parametrize("maxiter", [0, 1, 2, 7])
def test_windows_keep_to_maxiter(maxiter):
    affine = function(lambda h, u: 0.5 * h + u, np.random.default_rng(0).standard_normal((1000, 1)))
    sol = rs.solve(affine, method=S.Windowed(window=50), maxiter=maxiter)
    assert sol.nit == maxiter
    assert sol.status == "maxiter"
    warm = rs.solve(affine, method=S.Windowed(window=50), maxiter=0, guess=rs.solve(affine))
    assert warm.nit == 0
    assert warm.success
    empty = gallery.recurrence("gru", T=40, batch=(0,))
    assert rs.solve(empty, method=S.Windowed(window=10), maxiter=0).nit == 0


def test_a_window_keeps_the_guess_where_it_has_not_come_to():
    rec = sines(2.0, T=200, width=3)
    close = gallery.loop(rec)
    close[0] += 1e-3
    sol = rs.solve(rec, method=S.Windowed(window=10), guess=close, maxiter=0)
    assert sol.residuals[-1] < 1e-2
    np.testing.assert_array_equal(sol.states, close)


@pytest.mark.parametrize("method", ["damped_newton", "elk", "levenberg_marquardt"])
def test_a_nan_at_the_end_does_not_stop_the_globalised_methods(method):
    u = np.random.default_rng(1).standard_normal((300, 1))
    clean = rs.solve(function(lambda h, x: 1.2 * np.sin(h) + x, u), method=method)
    u = u.copy()
    u[-1] = np.nan
    dirty = rs.solve(function(lambda h, x: 1.2 * np.sin(h) + x, u), method=method)
    assert dirty.status == "nonfinite"
    assert dirty.stats["nfev"] <= clean.stats["nfev"] + 3


def test_sequences_that_have_converged_ask_for_no_trials():
    rng = np.random.default_rng(3)
    W = rng.standard_normal((8, 8)) * 2.2 / np.sqrt(8)
    cell = rs.cells.Elman.with_weights(mixings={"h": rs.mixings.Dense(W)})
    drive = rng.standard_normal((150, 3, 8))
    drive[:, 0] *= 10.0  # saturated: it converges soon
    hard = rs.solve(cell.recurrence(drive={"h": drive[:, 1:]}), method="elk")
    all_three = rs.solve(cell.recurrence(drive={"h": drive}), method="elk")
    assert all_three.stats["nfev"] <= 1.1 * hard.stats["nfev"] + 5


@pytest.mark.parametrize("method", sorted(S.REGISTRY))
def test_after_a_nan_there_is_what_the_loop_gives(method):
    reset = np.zeros(90, bool)
    reset[80] = True
    x = np.random.default_rng(0).standard_normal((90, 3))
    x[50] = np.nan
    rec = gallery.weighted("gru").recurrence(x, reset=reset)
    truth = rs.solve(rec, method="sequential")
    assert np.isnan(truth.states[50:80]).all()
    sol = rs.solve(rec, method=method)
    assert sol.status == "nonfinite"
    assert sol.converged_prefix == 50
    np.testing.assert_allclose(sol.states, truth.states, rtol=0, atol=1e-13)


LOOKS = 3 + 3 + 16  # at single steps: does f repeat itself, is it f of all steps, how large is it


def counting(T=200, n=6, dense=True):
    """A recurrence, and the (t, sequence) at which its function has been evaluated."""
    rng, seen = np.random.default_rng(0), []
    W = 0.5 * rng.standard_normal((n, n)) / np.sqrt(n) if dense else None

    def f(h, u):
        seen.append(h.shape[0])
        return np.tanh((h @ W if dense else 0.5 * h) + u)

    return function(f, rng.standard_normal((T, n)), "dense" if dense else "diagonal"), seen


@pytest.mark.parametrize("method", [m for m in sorted(S.REGISTRY) if m not in ("auto", "newton_krylov")])
def test_rows_are_counted(method):
    """Every evaluation of f, but single steps: three before and three after, and 16 that show how large states are."""
    rec, seen = counting()
    sol = rs.solve(rec, method=method)
    assert sum(seen) == sol.stats["rows"] + LOOKS


def test_products_with_the_jacobian_are_counted():
    rec, seen = counting()
    sol = rs.solve(rec, method="newton_krylov")
    assert sum(seen) == sol.stats["rows"] + 200 * sol.stats["njvp"] + LOOKS


def test_the_fallback_is_counted():
    rec, seen = counting()
    sol = rs.solve(rec, method="jacobi", maxiter=2, fallback="sequential")
    assert sol.success
    assert sum(seen) <= sol.stats["rows"] + LOOKS


def test_auto_does_without_newton_where_f_cannot_be_differentiated():
    def f(h, u):
        time.sleep(1e-4)
        return np.sort(2 * np.sin(h) + u, axis=-1)

    rec = function(f, np.random.default_rng(0).standard_normal((500, 8)), "dense")
    assert rs.solve(rec, method="auto").success


def test_explain_hears_of_the_tolerance(capsys):
    u = np.random.default_rng(0).standard_normal((20_000, 4))
    rec = function(lambda h, u: np.tanh(0.97 * h + u), u)
    strict, lax = (rs.explain(rec, tol=tol).candidates_by_name for tol in (1e-13, 1e-2))
    assert lax["jacobi"].iterations < strict["jacobi"].iterations
    if "newton" in lax and "newton" in strict:
        assert lax["newton"].iterations < strict["newton"].iterations


@pytest.mark.parametrize("shape", [(1, 1), (1, 3), (2, 3)])
def test_shared_inputs_are_narrowed_too(shape):
    u = np.random.default_rng(0).standard_normal((200, *shape, 2))
    gain = np.where(np.arange(6).reshape(2, 3) == 0, 2.5, 0.1) * np.ones((200, 1, 1))
    rec = rs.Recurrence.from_function(
        lambda h, x: x["p"][..., None] * np.sin(h) + x["u"],
        inputs={"p": gain, "u": u},
        initial=np.zeros((2, 3, 2)),
        structure="diagonal",
    )
    sol = rs.solve(rec)
    assert sol.success
    assert sol.stats["rows"] < 0.3 * sol.stats["nfev"] * 200 * 6
    np.testing.assert_array_equal(sol.states[:, 0, 0], gallery.loop(rec)[:, 0, 0])


@pytest.mark.parametrize(("T", "width", "known"), [(10, 4, 3.0), (50, 1, 0.5)])
def test_the_guard_reaches_as_far_as_a_contraction_can_come(T, width, known):
    """2 (T + 1) sqrt(N) times the largest number known; what is farther out, or not finite, takes F."""
    rec = function(lambda h, u: 0.5 * h + u, np.full((T, width), known / 2))
    problem = S.Problem(rec, rs.solve(rec).tolerance, pin=False, jacobian=False)
    iterate = problem.evaluate(np.full((T, width), known))
    reach = 2 * (T + 1) * np.sqrt(width) * known
    for value, kept in ((0.99 * reach, True), (1.01 * reach, False), (np.inf, False), (np.nan, False)):
        for sign in (1, -1):
            proposal = np.full((T, width), sign * value)
            expected = proposal if kept else iterate.values
            np.testing.assert_array_equal(problem.guarded(iterate, proposal), expected)

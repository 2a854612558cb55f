"""Windows and chains: methods made of others."""

import gallery
import numpy as np
import pytest

import recsolve as rs

S = rs.solvers
INNER = ["newton", "quasi_newton", "jacobi", "broyden", "levenberg_marquardt", "multiple_shooting"]


@pytest.mark.parametrize("inner", INNER)
@pytest.mark.parametrize("window", [1, 7, 32, 100, 200])
def test_a_window_finds_the_same_answer(inner, window):
    reset = np.random.default_rng(2).random((100, 3)) < 0.05
    rec = gallery.recurrence("gru", "dense", T=100, batch=(3,), gain=2.0, reset=reset)
    sol = rs.solve(rec, method=S.Windowed(solver=inner, window=window))
    assert sol.success
    assert sol.nit <= 100
    assert np.abs(sol.states - gallery.loop(rec)).max() <= gallery.bound(sol)
    assert abs(sol.residuals[-1] - np.abs(rec.evaluate(sol.states) - sol.states).max()) <= 1e-15


def test_a_window_as_long_as_the_trajectory_is_the_solver_itself():
    rec = gallery.recurrence("lstm", "dense", T=60)
    for method in INNER:
        windowed, plain = rs.solve(rec, method=S.Windowed(solver=method, window=60)), rs.solve(rec, method=method)
        np.testing.assert_array_equal(windowed.states, plain.states)
        assert windowed.nit == plain.nit


def test_no_more_than_a_window_is_ever_linearised(monkeypatch):
    rec = gallery.recurrence("gru", "dense", T=500)
    seen = []
    original = type(rec).differentiate

    def watched(self, previous):
        seen.append(len(previous))
        return original(self, previous)

    monkeypatch.setattr(type(rec), "differentiate", watched)
    applied = []
    apply = type(rec).apply
    monkeypatch.setattr(
        type(rec), "apply", lambda self, previous: applied.append(len(previous)) or apply(self, previous)
    )
    with rs.backend("numpy"):
        sol = rs.solve(rec, method="windowed", options={"window": 50})
    assert sol.success
    assert max(seen) == 50
    assert max(applied) == 50
    assert sum(seen) < 12 * 500  # a few iterations of every window


def test_a_window_goes_on_past_a_sequence_that_is_not_finite():
    x = np.random.default_rng(0).standard_normal((120, 2, 3))
    cell = gallery.weighted("gru")
    truth = gallery.loop(cell.recurrence(x))
    x[30, 1] = np.nan
    sol = rs.solve(cell.recurrence(x), method="windowed", options={"window": 16})
    assert sol.status == "nonfinite"
    assert sol.converged_prefix == 30
    np.testing.assert_allclose(sol.states[:, 0], truth[:, 0], rtol=0, atol=1e-13)
    np.testing.assert_allclose(sol.states[:30, 1], truth[:30, 1], rtol=0, atol=1e-13)


def test_a_window_uses_the_rows_of_a_guess():
    rec = gallery.recurrence("gru", "dense", T=200)
    truth = rs.solve(rec, method="sequential")
    warm = rs.solve(rec, method="windowed", options={"window": 40}, guess=truth)
    assert warm.success
    assert warm.nit < rs.solve(rec, method="windowed", options={"window": 40}).nit / 2


def test_what_a_window_has_not_come_to_is_said_to_be_open():
    rec = gallery.recurrence("gru", "dense", T=200)
    sol = rs.solve(rec, method="windowed", options={"window": 20, "trace": True}, maxiter=5)
    assert sol.status == "maxiter"
    assert 0 < sol.converged_prefix < 100
    assert np.isinf(sol.trace.residual[-2, 150:]).all()
    assert sol.trace.residual[-1].max() == sol.residuals[-1]  # of f at all t, in the end
    np.testing.assert_array_equal(sol.states[150:], np.broadcast_to(rec.initial, sol.states[150:].shape))
    complete = rs.solve(rec, method="windowed", options={"window": 20}, maxiter=5, fallback="sequential")
    assert complete.success
    np.testing.assert_allclose(complete.states, gallery.loop(rec), rtol=0, atol=1e-13)


def test_a_chain_goes_on_where_a_method_has_ended():
    rec = gallery.sine(6.0, T=120)
    seen = []
    chain = S.Chain(methods=("jacobi", S.Windowed(window=16), "sequential"), iterations=10)
    sol = rs.solve(rec, method=chain, callback=lambda it: seen.append(it.states.copy()))
    assert sol.success
    assert sol.nit == 21  # ten of jacobi, ten of the window, one loop
    assert len(seen) == 22
    np.testing.assert_array_equal(sol.states, gallery.loop(rec))
    prefix = [int((s == sol.states).all(axis=1).argmin()) for s in seen[:-1]]
    assert prefix == sorted(prefix)


def test_a_chain_stops_at_the_first_method_that_converges():
    rec = gallery.recurrence("gru", "dense", T=60)
    chained, newton = rs.solve(rec, method="chain"), rs.solve(rec)
    np.testing.assert_array_equal(chained.states, newton.states)
    assert chained.nit == newton.nit


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: S.Windowed(solver="newtons"), "method is 'newtons'"),
        (lambda: S.Chain(methods="newton"), "methods is 'newton'"),
        (lambda: S.Chain(methods=()), r"methods is \(\)"),
        (lambda: S.Chain(methods=("newton", "magic")), "method is 'magic'"),
    ],
)
def test_methods_that_there_are_not(make, message):
    with pytest.raises(ValueError, match=message):
        make()

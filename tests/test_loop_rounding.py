"""The loop is the definition: it is doubted only where f for all t at once differs by more than rounding explains."""

import gallery
import numpy as np
import pytest

import recsolve as rs
from recsolve.analysis import rounding_at
from recsolve.analysis.enclosure import rounding_of_f
from recsolve.base.tolerance import tolerance_for


def aligned(dtype, product=np.matmul, n=96, T=60):
    """A user's network whose sums cancel what their terms have in common."""
    rng = np.random.default_rng(0)
    held = np.arange(n) < n // 2  # near 1, and summed up by all others
    W = np.where(held, np.abs(rng.standard_normal((n, n))) * ~held[:, None], rng.standard_normal((n, n)) / n**0.5)
    u = (rng.standard_normal((T, n)) + np.where(held, 9, -W[:, held].sum(axis=1))).astype(dtype)
    W = W.astype(dtype)
    return rs.Recurrence.from_function(lambda h, u: np.tanh(product(h, W.T) + u), inputs=u, initial=np.ones(n, dtype))


def summed(h, W):
    """The product by sums, which intervals do not follow, and which depend on what else is there, as BLAS does."""
    return np.einsum("tj,jk->tk", h[:, ::-1], W[::-1]) if len(h) > 1 else np.einsum("tj,jk->tk", h, W)


RECURRENCES = {
    "gru": gallery.trained_gru,
    "function": aligned,
    "sums": lambda dtype: aligned(dtype, summed),
}


@pytest.mark.parametrize("dtype", gallery.DTYPES)
@pytest.mark.parametrize("kind", sorted(RECURRENCES))
def test_a_right_loop_is_accepted_whatever_asks_for_it(kind, dtype):
    rec = RECURRENCES[kind](dtype)
    truth = gallery.loop(rec)
    assert not gallery.residual_is_met(rec, truth, tolerance_for(rec))  # or the rest would be as ever
    with rs.backend("numpy"):
        found = [
            rs.solve(rec, method="sequential"),
            rs.solve(rec, method="sequential", fallback="raise"),
            rs.solve(rec, method="sequential", tol=1e-30),
            rs.solve(rec, method="jacobi", maxiter=2, fallback="sequential"),
            rs.solve(rec, method=rs.solvers.Chain(methods=("jacobi", "sequential"), iterations=2)),
        ]
        assert rs.solve(rec, method="auto").success
    bound = gallery.bound(found[0])
    for sol in found:
        assert sol.success
        assert np.array_equal(sol.states, truth) == (sol.stats["completed_from"] is None)  # f of all t begins it
        assert np.abs(sol.states - truth).max() <= bound
        assert "rounds otherwise" in sol.message
        assert gallery.residual_is_met(rec, sol.states, sol.tolerance)
        assert sol.residuals[-1] == np.abs(rec.evaluate(sol.states) - sol.states).max()
    assert np.isfinite(rs.adjoint(found[0], states=np.ones_like(truth)).initial).all()


def test_a_trained_network_remembers():
    assert 1e3 < rs.solve(gallery.trained_gru(), method="sequential").condition < 1e4


@pytest.mark.parametrize("dtype", gallery.DTYPES)
@pytest.mark.parametrize("method", ["sequential", "jacobi"])
def test_an_f_that_mixes_times_by_more_than_rounding_is_not_accepted(method, dtype):
    more = dtype(40 * np.finfo(dtype).eps)
    u = np.random.default_rng(0).standard_normal((50, 3)).astype(dtype)
    rec = gallery.function(lambda h, u: np.tanh(h + u) + more * np.roll(u, 7, axis=0), u)
    sol = rs.solve(rec, method=method, maxiter=2, fallback="sequential")
    assert sol.status == "stalled"
    assert "more than its rounding" in sol.message


@pytest.mark.parametrize("finer", [True, False])
def test_what_no_interval_follows_is_excused_by_little_only(finer):
    def cumulative(size):
        def f(h, u):
            if h.dtype != np.float64 and not finer:
                raise TypeError("no such numbers")
            return np.tanh(h + u) + size * np.cumsum(u, axis=0)

        return gallery.function(f, np.random.default_rng(0).standard_normal((50, 3)))

    assert rs.solve(cumulative(1e-15), method="sequential").success == (not finer)  # the mixing is above rounding
    assert rs.solve(cumulative(1e-13), method="sequential").status == "stalled"


@pytest.mark.parametrize(("name", "mixing"), gallery.CELLS)
def test_the_rounding_of_f_is_bounded_and_not_by_far(name, mixing):
    rec = gallery.recurrence(name, mixing, dtype=np.float32)
    states = gallery.loop(rec)
    previous = rec.previous(states)
    drive = {k: u.astype(np.float64) for k, u in rec.drive.items()}
    fine = rec.cell.astype(np.float64).recurrence(drive=drive, initial=rec.initial.astype(np.float64))
    error = np.abs(rec.apply(previous) - fine.apply(previous.astype(np.float64)))
    bound = rounding_of_f(rec, previous)
    assert (error <= bound).all()
    assert bound.max() <= 300 * error.max() + 1e-37


@pytest.mark.parametrize("mixing", ["dense", "diagonal"])
@pytest.mark.parametrize("name", ["gru", "lstm", "minmax"])
def test_rounding_is_looked_at_in_the_rows_that_are_asked_for_alone(monkeypatch, name, mixing):
    """In training a few rows of thousands miss the test of a walk, and intervals over all of them take seconds."""
    rec = gallery.recurrence(name, mixing, T=60, batch=(3,), units=8, dtype=np.float32, reset=np.arange(60) == 30)
    states = gallery.loop(rec)
    rows = np.random.default_rng(0).random((60, 3)) < 0.1
    bound = rounding_at.rounding_at(rec, states, rows)
    looked = []
    monkeypatch.setattr(
        rounding_at, "rounding_of_f", lambda r, previous: looked.append(previous.shape) or rounding_of_f(r, previous)
    )
    np.testing.assert_array_equal(rounding_at.rounding_at(rec, states, rows), bound)
    assert looked == [(1, int(rows.sum()), *rec.layout.event)]
    whole = np.where(rec.over_event(rows), rounding_of_f(rec, rec.previous(states)), 0.0)
    np.testing.assert_allclose(bound, whole, rtol=1e-6)

"""What is tested is what is stated, and what is trusted is as good as it says."""

import gallery
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

import recsolve as rs

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


def exact_type(dtype):
    """A type whose rounding does not show in a loop of this dtype."""
    return np.longdouble if dtype is np.float64 else np.float64


FAMILIES = {  # f(h, u, p, W), and the range of the factor p on h: from contraction to chaos
    "sine": (lambda h, u, p, W: p * np.sin(h) + u, 0.3, 3.0),
    "affine": (lambda h, u, p, W: p * h + u, 0.3, 1.3),
    "logistic": (lambda h, u, p, W: p * h * (1 - h), 2.0, 4.0),
    "tanh network": (lambda h, u, p, W: np.tanh(p * (h @ W) + u), 0.3, 4.0),
    "relu network": (lambda h, u, p, W: np.maximum(p * (h @ W) + u, 0), 0.3, 1.5),
}


def random_problem(family, dtype, seed, p, T=120, n=6):
    """A recurrence, and its trajectory in a type so much finer that its error does not count."""
    f, low, high = FAMILIES[family]
    rng = np.random.default_rng(seed)
    W = (rng.standard_normal((n, n)) / n**0.5).astype(dtype)
    u = (10.0 ** rng.uniform(-1, 1) * rng.standard_normal((T, n))).astype(dtype)
    h = rng.uniform(0.1, 0.9, n).astype(dtype)
    p = dtype(low + (high - low) * p)
    structure = "dense" if "network" in family else "diagonal"
    rec = rs.Recurrence.from_function(lambda h, u: f(h, u, p, W), inputs=u, initial=h, structure=structure)
    state, fine = h.astype(exact_type(dtype)), exact_type(dtype)
    truth = np.empty((T, n), fine)
    with np.errstate(all="ignore"):
        for t in range(T):
            truth[t] = state = f(state, u[t].astype(fine), fine(p), W.astype(fine))
    return rec, truth


def trust(family, dtype, seed, p, tol, method="newton"):
    """Solve a random problem: whether it is trusted, and its error over that which is stated."""
    rec, truth = random_problem(family, dtype, seed, p)
    sol = rs.solve(rec, method=method, tol=tol)
    unit = max(sol.tolerance.atol, sol.tolerance.rtol, np.finfo(dtype).eps * max(1, rec.rounding))
    stated = sol.condition * unit * max(1.0, float(np.abs(sol.states).max()))
    assert sol.trusted == (sol.success and sol.condition * unit <= 0.01)
    return sol.trusted, float(np.abs(sol.states - truth).max() / stated)


@pytest.mark.parametrize("family", sorted(FAMILIES))
@given(
    dtype=gallery.dtypes,
    seed=gallery.seeds,
    p=st.floats(0, 1),
    tol=st.one_of(st.none(), st.floats(-14, -3).map(lambda x: 10.0**x)),
)
def test_what_is_trusted_is_no_farther_from_the_truth_than_ten_times_what_is_stated(family, dtype, seed, p, tol):
    trusted, ratio = trust(family, dtype, seed, p, tol)
    assert not trusted or ratio <= 10


def test_a_tolerance_below_rounding_earns_no_trust():
    """h = 2.5 sin h + u in float32: a residual of 0 and an error of the size of the states, whatever is asked for."""
    for T in (40, 50, 60):
        rec = gallery.sine(2.5, T=T)
        tight, usual = rs.solve(rec, tol=1e-12), rs.solve(rec)
        assert tight.success
        assert tight.condition * 1e-12 <= 0.01 < tight.condition * np.finfo(np.float32).eps
        assert not tight.trusted
        assert not usual.trusted

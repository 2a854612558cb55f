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

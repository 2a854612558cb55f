"""Gradients where derivatives are false, bend, or jump."""

import gallery
import numpy as np
import pytest
from test_gradients import solved

import recsolve as rs


@pytest.mark.parametrize(
    "wrong", [{"jacobian": lambda h, u: 0 * h}, {"f": lambda h, u: np.tanh(0.9 * h[..., ::-1] + u)}]
)
def test_a_derivative_that_is_not_one_is_refused(wrong):
    f = wrong.pop("f", lambda h, u: np.tanh(0.9 * h + u))
    u = np.random.default_rng(0).standard_normal((30, 4))
    sol = solved(rs.Recurrence.from_function(f, inputs=u, initial=np.zeros(4), structure="diagonal", **wrong))
    assert sol.success
    with pytest.raises(ValueError, match="is not the derivative of f"):
        rs.adjoint(sol, states=sol.states)
    with pytest.raises(ValueError, match="is not the derivative of f"):
        rs.tangent(sol, initial=np.ones(4))


@pytest.mark.parametrize("seed", range(3))
def test_gradients_of_functions_that_bend_within_steps_of_differences(seed):
    u = 10 * np.random.default_rng(seed).standard_normal((500, 3))
    rec = gallery.function(lambda h, u: 0.9 * h + 0.5 * np.sin(h) + u, u)
    sol = solved(rec)
    slopes = 0.9 + 0.5 * np.cos(rec.previous(sol.states)[-3:])
    g = rs.adjoint(sol, final=np.ones(3))
    np.testing.assert_allclose(g.states[-4], slopes.prod(axis=0), rtol=1e-12)
    assert rs.tangent(sol, initial=np.ones(3)).shape == rec.shape
    assert rs.check_structure(rec, states=sol.states)


@pytest.mark.parametrize("slope", [None, 0.5, 0.507, 0.51])
def test_gradients_at_a_kink(slope):
    given = None if slope is None else lambda h, u: np.full_like(h, slope)
    rec = gallery.function(lambda h, u: 0.5 * h + 0.01 * np.maximum(h, 0) + u, np.zeros((5, 2)), jacobian=given)
    sol = solved(rec)
    np.testing.assert_allclose(rs.adjoint(sol, final=np.ones(2)).initial, (slope or 0.51) ** 5)
    assert sol.trusted


@pytest.mark.parametrize("ties", [None, 0, 0.5])
def test_gradients_of_matrix_max_min_at_ties(ties):
    """h'[i] = max over j of min(A[i, j], h[j]), with numbers of which most are equal."""
    rng = np.random.default_rng(0)
    A, u = rng.integers(0, 3, (3, 3)) / 2, rng.integers(0, 3, (20, 3)) / 2

    def f(h, u):
        entries = np.minimum(A, h[..., None, :])
        return np.maximum(np.maximum(entries[..., 0], entries[..., 1]), np.maximum(entries[..., 2], u))

    sol = solved(rs.Recurrence.from_function(f, inputs=u, initial=np.ones(3), ties=ties))
    assert np.isfinite(rs.adjoint(sol, final=np.ones(3)).initial).all()
    assert sol.trusted

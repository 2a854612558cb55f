"""Where the bound on the error is infinite, and what it does not believe."""

import gallery
import numpy as np
import pytest
from test_bound import distance

import recsolve as rs
from recsolve.analysis import error_bound
from recsolve.symbolic import dual


def simple(f, **settings):
    arguments = {"inputs": np.full((300, 3), 0.1), "initial": np.zeros(3), "structure": "diagonal", **settings}
    return rs.solve(rs.Recurrence.from_function(f, **arguments)).error_bound


@pytest.mark.parametrize(
    "f",
    [
        lambda h, u: h.sum(axis=-1, keepdims=True) * 0 + u,  # not carried
        lambda h, u: np.abs(h) ** 0.3 * 0 + u,
        lambda h, u: np.array(h.value if isinstance(h, dual.Dual) else h) * 0 + u,
        lambda h, u: 0.5 * np.where(h > 0, h, -h) + 0 * u,  # undecided at its fixed point
        lambda h, u: np.sqrt(np.abs(h)) + 0 * u,  # infinite slope there
        lambda h, u: 1 / (h - h) * 0 + u,  # NaN
    ],
)
def test_what_cannot_be_proved_is_infinite(f):
    with np.errstate(all="ignore"):
        assert simple(f, structure="dense") == np.inf


def test_chaos_is_infinite():
    assert rs.solve(gallery.sine(20)).error_bound == np.inf


def test_states_that_are_not_finite():
    rec = gallery.recurrence("gru", "dense")
    sol = rs.solve(rec, guess=np.full(rec.shape, np.nan), maxiter=0)
    states = sol.states.copy()
    states[3] = np.nan
    assert error_bound.error_bound(rec, states) == np.inf


def test_declarations_are_not_believed():
    """A wrong jacobian or structure changes how states are found, not how they are judged."""
    wrong = {"jacobian": lambda h, u: 0 * h, "inputs": np.full((60, 3), 0.1)}
    assert 0 < simple(lambda h, u: 0.5 * np.sin(h) + u, **wrong) < 1e-14
    rec = gallery.function(
        lambda h, u: 0.9 * np.sin(np.roll(h, 1, axis=-1)) + u, np.random.default_rng(0).standard_normal((60, 3)), "zero"
    )
    sol = rs.solve(rec, tol=1e-2, maxiter=2)
    assert distance(sol.states, gallery.loop(rec)) <= sol.error_bound < np.inf

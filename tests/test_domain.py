"""Functions that have a domain: iterates that leave it are brought back at the cost of one evaluation."""

import gallery
import numpy as np
import pytest

import recsolve as rs
from recsolve.math import exp, expm1, log, log1p, sqrt

T, UNITS = 300, 4
FUNCTIONS = {  # of h >= 0, which stay there, while Newton's proposals do not
    "power": lambda h, u: 0.3 * h**1.5 + 0.1 * u,
    "square root": lambda h, u: 0.4 * h * sqrt(h) + 0.1 * u,
    "exponential": lambda h, u: 0.2 * expm1(h * sqrt(h)) + 0.1 * u,
    "logarithm": lambda h, u: 0.3 * exp(1.5 * log(h)) + 0.1 * u,
    "logarithm of 1 + h": lambda h, u: 0.3 * h * log1p(h) * sqrt(h) + 0.08 * u,
    "division": lambda h, u: 0.4 * h**2 / sqrt(h) + 0.1 * u,
    "quotient": lambda h, u: 0.6 * h**1.5 / (0.5 + h) + 0.05 * u,
}


def drive(batch=()):
    return np.abs(np.random.default_rng(0).standard_normal((T, *batch, UNITS)))


def of_function(f, u):
    return rs.Recurrence.from_function(f, inputs=u, initial=np.ones(u.shape[1:]), structure="diagonal")


def of_cell(f, u):
    cell = rs.Cell(lambda s, W, u, p: f(s.h, u.x), state=("h",), output="h").with_weights(hidden_size=UNITS)
    return cell.recurrence(drive={"x": u}, initial=np.ones(u.shape[1:]))


def of_components(f, u):
    """The second component leaves the domain with the first, and has another one of its own."""

    def both(s, W, u, p):
        return f(s.h, u.x), 0.2 * s.h + 0.3 * sqrt(s.h) * s.g

    cell = rs.Cell(both, state=("h", "g"), output="g").with_weights(hidden_size=UNITS)
    return cell.recurrence(drive={"x": u}, initial=np.ones((*u.shape[1:-1], 2, UNITS)))


def of_dense(f, u):
    """Whatever unit has left the domain, all that it is mixed with have."""
    rng = np.random.default_rng(1)
    W = np.abs(rng.standard_normal((UNITS, UNITS))) / 8 + 0.5 * np.eye(UNITS)
    cell = rs.Cell(lambda s, W, u, p: f(W.h(s.h), u.x), state=("h",), output="h")
    return cell.with_weights(mixings={"h": rs.mixings.Dense(W)}).recurrence(
        drive={"x": u}, initial=np.ones(u.shape[1:])
    )


FORMS = {"function": of_function, "cell": of_cell, "components": of_components, "dense": of_dense}
MOST = {"newton": 8, "quasi_newton": 16, "chord": 50}  # of 300 iterations that it took


@pytest.mark.parametrize("method", sorted(MOST))
@pytest.mark.parametrize("form", sorted(FORMS))
@pytest.mark.parametrize("name", sorted(FUNCTIONS))
def test_newton_outside_the_domain_is_no_loop(name, form, method):
    rec = FORMS[form](FUNCTIONS[name], drive())
    with rs.backend("numpy"):
        sol = rs.solve(rec, method=method)
        assert sol.trusted
        assert np.abs(sol.states - gallery.loop(rec)).max() <= gallery.bound(sol)
    assert sol.nit <= MOST[method]
    assert sol.stats["nfev"] <= 2 * sol.nit + 2


@pytest.mark.parametrize("method", sorted(rs.solvers.REGISTRY))
def test_every_method_ends_with_the_loop(method):
    rec = of_function(FUNCTIONS["power"], drive((2,)))
    sol = rs.solve(rec, method=method)
    assert sol.success
    assert sol.nit <= T
    assert np.abs(sol.states - gallery.loop(rec)).max() <= gallery.bound(sol)


@pytest.mark.parametrize("method", sorted(MOST))
@pytest.mark.parametrize("form", sorted(FORMS))
@pytest.mark.parametrize("bad", [np.nan, np.inf, -9.0])
def test_a_step_out_of_the_domain_disturbs_no_earlier_one_and_costs_no_more(form, method, bad):
    """The trajectory itself ends at one step, by its drive or because it leaves the domain; nothing changes before."""
    u = drive()
    whole = rs.solve(FORMS[form](FUNCTIONS["power"], u[:200]), method=method)
    u[200, 2] = bad
    rec = FORMS[form](FUNCTIONS["power"], u)
    with rs.backend("numpy"):
        sol, truth = rs.solve(rec, method=method), gallery.loop(rec)
    ends = 200 if bad != -9 else 201
    assert sol.status == "nonfinite"
    assert sol.converged_prefix == int(np.isfinite(truth).reshape(T, -1).all(axis=1).argmin()) == ends
    assert np.abs(sol.states[:200] - whole.states).max() <= 2 * gallery.bound(whole)
    assert sol.nit <= MOST[method] + 4
    assert sol.stats["nfev"] <= 2 * sol.nit + 4


def test_resets_keep_a_segment_from_what_is_behind_it():
    reset = np.zeros(T, bool)
    reset[[70, 71, 200]] = True
    f = FUNCTIONS["power"]
    rec = rs.Recurrence.from_function(f, inputs=drive(), initial=np.ones(UNITS), structure="diagonal", reset=reset)
    sol = rs.solve(rec)
    assert sol.nit <= MOST["newton"]
    assert np.abs(sol.states - gallery.loop(rec)).max() <= gallery.bound(sol)

"""What is known of an iterate, and what the next one may be: the pin, row by row."""

import gallery
import numpy as np
import pytest

import recsolve as rs

S = rs.solvers
T, KNOWN = 12, 4


@pytest.fixture(params=[True, False], ids=["pinned", "free"])
def given(request):
    """A problem, and states of which the first rows are those of the loop."""
    u = np.random.default_rng(0).standard_normal((T, 2))
    rec = gallery.function(lambda h, u: np.tanh(h) + u, u)
    solution = rs.solve(rec, method="sequential")
    states = np.where(np.arange(T)[:, None] < KNOWN, solution.states, 5.0)
    return S.Problem(rec, solution.tolerance, pin=request.param, jacobian=False), states


def test_rows_that_are_exact_lead_and_the_next_one_is_the_front(given):
    problem, states = given
    iterate = problem.evaluate(states)
    np.testing.assert_array_equal(iterate.leading, np.arange(T) < KNOWN)
    np.testing.assert_array_equal(iterate.front, np.arange(T) == KNOWN)


def test_the_pin_makes_the_front_exact_however_f_rounds_next_time(given):
    problem, states = given
    pinned = problem.pinned(problem.evaluate(states))
    if not problem.pin:
        assert pinned is None
        return
    np.testing.assert_array_equal(pinned, np.arange(T) <= KNOWN)
    states[KNOWN] += 1e-9  # as if f, for other rows at once, had rounded otherwise
    assert problem.evaluate(states, pinned=pinned).progress == KNOWN + 1
    assert problem.evaluate(states).progress == KNOWN


@pytest.mark.parametrize("bad", [np.nan, np.inf])
def test_no_pin_makes_exact_what_is_not_finite(given, bad):
    problem, states = given
    states[KNOWN - 1, 0] = bad
    iterate = problem.evaluate(states, pinned=np.arange(T) <= KNOWN)
    assert iterate.progress == KNOWN - 1
    assert not iterate.converged[KNOWN - 1]


def test_a_window_reaches_as_far_as_the_whole(given):
    """Its states are those of the whole trajectory, which may come farther than so few steps would."""
    problem, _ = given
    window = problem.part(problem.recurrence.window(0, 3))
    iterate = window.evaluate(np.full((3, 2), 7.0))
    reach = 2 * (T + 1) * np.sqrt(2) * 7.0
    near, far = (window.guarded(iterate, np.full((3, 2), share * reach)) for share in (0.99, 1.01))
    np.testing.assert_array_equal(near[1:], 0.99 * reach)  # the first row may be pinned
    np.testing.assert_array_equal(far, iterate.values)


def test_what_is_solved_widens_the_reach_and_what_is_not_does_not():
    u = np.ones((T, 1))
    rec = gallery.function(lambda h, u: 3 * h + u, u)
    truth = rs.solve(rec, method="sequential").states
    problem = S.Problem(rec, rs.solve(rec, maxiter=0).tolerance, pin=False, jacobian=False)
    reach = 2 * (T + 1)  # times the largest number known: at first u, as F of zeros is

    def kept(states, value):
        iterate = problem.evaluate(states)
        return bool((problem.guarded(iterate, np.full((T, 1), value)) == value).all())

    assert kept(np.zeros((T, 1)), 0.99 * reach)
    assert not kept(np.zeros((T, 1)), 1.01 * reach)
    assert not kept(np.full((T, 1), 1e6), 1.01 * reach)
    assert kept(truth, 0.99 * reach * truth.max())
    assert not kept(truth, 1.01 * reach * truth.max())


@pytest.mark.parametrize("backend", ["numpy", "numba"])
def test_nothing_meets_the_test_where_f_is_not_finite(backend):
    """inf <= inf holds, but states that are far from an infinite F are no solution."""
    u = np.zeros((T, 2))
    u[KNOWN, 0] = np.inf
    rec = gallery.function(lambda h, u: 0.5 * h + u, u)
    problem = S.Problem(rec, rs.solve(rec, maxiter=0).tolerance, pin=True, jacobian=False)
    with rs.backend(backend):
        iterate = problem.evaluate(np.zeros((T, 2)))
    np.testing.assert_array_equal(iterate.converged, np.arange(T) != KNOWN)


def test_what_is_exact_for_another_function_is_not_kept_by_the_fallback():
    """This one is not the same for all times at once as for one alone: the loop is followed from the first step on."""
    u = np.random.default_rng(0).standard_normal((40, 2))
    rec = gallery.function(lambda h, u: 0.5 * np.sin(h) + u * (1 + (len(h) > 1)), u)
    solution = rs.solve(rec, fallback="sequential")
    assert not solution.success
    assert solution.stats["completed_from"] == 0
    np.testing.assert_array_equal(solution.states, rs.solve(rec, method="sequential").states)


@pytest.mark.parametrize(
    "given", [{"tol": 1e-6}, {"options": {"atol": 1e-6}}, {"options": {"atol": 0.0, "rtol": 1e-9}}]
)
def test_an_absolute_tolerance_that_is_given_does_not_grow_with_the_lane(given):
    """Small entries beside large ones are held to it; by default they are not, where units couple."""
    cell = rs.cells.Elman.with_weights(mixings={"h": rs.mixings.Dense(np.diag([0.5, 0.0]))})
    rec = cell.recurrence(drive={"h": np.full((T, 2), [1e6, 0.0])})
    assert rs.solve(rec, **given).tolerance.lanes is None
    assert rs.solve(rec).tolerance.lanes is not None


@pytest.mark.parametrize("method", ["sequential", "newton", "windowed"])
def test_a_reset_in_a_window_goes_back_to_where_the_whole_begins(method):
    reset = np.zeros(T, bool)
    reset[8] = True
    u, initial = np.random.default_rng(0).standard_normal((T, 2)), np.full(2, 3.0)
    rec = rs.Recurrence.from_function(
        lambda h, u: np.tanh(h) + u, inputs=u, initial=initial, structure="diagonal", reset=reset
    )
    whole = rs.solve(rec, method="sequential").states
    np.testing.assert_array_equal(whole[8], np.tanh(initial) + u[8])
    window = rec.window(5, T, whole[4])
    np.testing.assert_array_equal(window.evaluate(whole[5:]), whole[5:])
    options = {"window": 5} if method == "windowed" else None
    np.testing.assert_allclose(rs.solve(rec, method=method, options=options).states, whole, rtol=0, atol=1e-14)

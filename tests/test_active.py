"""What is solved stops costing work: counted row evaluations, and answers that do not change for it."""

import gallery
import numpy as np
import pytest

import recsolve as rs
from recsolve.solvers.active import Active

SOLVERS = [name for name in sorted(rs.solvers.REGISTRY) if name != "sequential"]


def mixed_batch(T=256, batch=4, seed=0):
    """One chaotic sequence and others that contract quickly, told apart by their drive alone."""
    rng = np.random.default_rng(seed)
    gain = np.where(np.arange(batch) == 0, 2.5, 0.1)[:, None]
    u = rng.standard_normal((T, batch, 1))
    p = np.broadcast_to(gain, (T, batch, 1))
    return rs.Recurrence.from_function(
        lambda h, d: d["p"] * np.sin(h) + d["u"],
        inputs={"u": u, "p": np.ascontiguousarray(p)},
        initial=np.zeros((batch, 1)),
        structure="diagonal",
    )


@pytest.mark.parametrize("method", SOLVERS)
def test_sequences_and_times_that_are_solved_cost_nothing_more(method):
    rec = mixed_batch()
    T, batch = 256, 4
    sol = rs.solve(rec, method=method)
    assert sol.success
    np.testing.assert_allclose(sol.states[:, 1:], gallery.loop(rec)[:, 1:], rtol=0, atol=1e-13)
    assert np.array_equal(sol.states[:, 0], gallery.loop(rec)[:, 0]) or not sol.trusted
    # The chaotic sequence takes many iterations, the others a few (but with picard). All rows every time would be
    # nfev T batch; the chaotic one alone, its leading times set aside as they are solved, is about half of nfev T.
    share = {"picard": 0.65, "chain": 0.4}.get(method, 0.2)  # every method of a chain begins with all rows
    assert sol.stats["rows"] < (share * sol.stats["nfev"] + 6) * T * batch


@pytest.mark.parametrize("method", SOLVERS)
def test_setting_aside_changes_no_answer(method, monkeypatch):
    reset = np.random.default_rng(3).random((120, 2, 3)) < 0.03
    rec = gallery.recurrence("lstm", "heads", T=120, batch=(2, 3), reset=reset, gain=3.0)
    narrowed = rs.solve(rec, method=method)
    monkeypatch.setattr(Active, "narrow", lambda self, iterate, state: (iterate, state))
    plain = rs.solve(rec, method=method)
    assert narrowed.success
    assert plain.success
    assert narrowed.stats["rows"] <= plain.stats["rows"] + 120 * 6  # f at all t, in the end
    assert np.abs(narrowed.states - plain.states).max() <= 2 * gallery.bound(plain)


def test_the_callback_sees_whole_trajectories_and_rows():
    rec = mixed_batch(T=64)
    seen = []
    sol = rs.solve(rec, callback=seen.append)
    assert len(seen) == sol.nit + 1
    assert all(it.states.shape == rec.shape and it.converged_rows.shape == (64, 4) for it in seen)
    np.testing.assert_array_equal(seen[-1].states, sol.states)
    assert seen[-1].converged_rows.all()
    prefix = [it.converged_rows[:, 0].argmin() for it in seen[:-1]]
    assert prefix == sorted(prefix)
    np.testing.assert_array_equal(sol.residuals[:-1], [it.residual for it in seen[:-1]])


def test_a_function_with_numbers_of_its_own_for_every_sequence_is_left_whole():
    gain = np.array([[2.5], [0.1], [0.1], [0.1]])
    u = np.random.default_rng(0).standard_normal((100, 4, 1))
    rec = gallery.function(lambda h, u: gain * np.sin(h) + u, u)
    sol = rs.solve(rec)
    assert sol.success
    np.testing.assert_array_equal(sol.states[:, 0], gallery.loop(rec)[:, 0])


def test_sequences_of_a_cell_and_of_a_function():
    for rec in (gallery.recurrence("lstm", T=10, batch=(2, 3), reset=np.eye(10, 6, dtype=bool).reshape(10, 2, 3)),):
        part = rec.sequences(np.array([1, 5]))
        assert part.batch == (2,)
        truth = gallery.loop(rec).reshape(10, 6, *rec.layout.event)[:, [1, 5]]
        np.testing.assert_array_equal(gallery.loop(part), truth)
    shared = rs.Recurrence.from_function(
        lambda h, u: 0.5 * h + u[:, :, None], inputs=np.ones((10, 1)), initial=np.ones((3, 2)), structure="diagonal"
    )
    assert shared.sequences(np.array([2])).shape == (10, 1, 2)
    odd = rs.Recurrence.from_function(
        lambda h, u: 0.5 * h + u[:, None, :], inputs=np.ones((10, 2)), initial=np.ones((3, 2)), structure="diagonal"
    )
    assert odd.sequences(np.array([2])) is None


def test_a_trace_keeps_the_whole_story():
    rec = mixed_batch(T=64)
    sol = rs.solve(rec, options={"trace": True})
    trace, n = sol.trace, sol.nit + 1
    assert trace.residual.shape == (n, 64, 4)
    np.testing.assert_array_equal(np.nanmax(trace.residual, axis=(1, 2)), sol.residuals)
    assert trace.converged_prefix.shape == (n, 4)
    assert (trace.converged_prefix[-1] == 64).all()
    assert (np.diff(trace.converged_prefix[:, 0]) >= 0).all()
    assert trace.counts["rows"][0] == 2 * 64 * 4  # the guess is f too
    assert (np.diff(trace.counts["rows"]) > 0).all()
    assert trace.counts["rows"][-1] <= sol.stats["rows"]
    assert trace.settings == {}
    assert rs.solve(rec).trace is None
    with pytest.raises(ValueError, match="trace is 1"):
        rs.solve(rec, options={"trace": 1})


def nearly_solved(rec):
    """An iterate with the rows of sequence 0 within tolerance, of which none is exact."""
    problem = rs.solvers.Problem(rec, rs.solve(rec, tol=1e-6).tolerance, pin=True, jacobian=False)
    states = gallery.loop(rec) + 1e-8
    states[:, 1] += 1
    iterate = problem.evaluate(states)
    assert iterate.converged[:, 0].all()
    assert not iterate.leading.any()
    return problem, iterate


def test_sequences_are_set_aside_when_they_have_converged_exact_or_not():
    problem, iterate = nearly_solved(mixed_batch(T=40, batch=2))
    active = Active(problem, None)
    active.open(None)
    part, _ = active.narrow(iterate, None)
    assert active.narrowed
    np.testing.assert_array_equal(part.states, iterate.states[:, 1:])


@pytest.mark.parametrize("solved", [9, 10, 17])
def test_a_window_moves_past_rows_that_have_converged_exact_or_not(solved):
    rec = mixed_batch(T=100, batch=2)
    problem, _ = nearly_solved(rec)
    active = Active(problem, 40)
    active.open(None)
    states = gallery.loop(rec)[:40] + 1e-8
    states[solved:] += 1
    moved = active.slide(active.problem.evaluate(states))
    assert (moved is not None) == (solved >= 10)  # a quarter of the window
    assert active.start == (solved if solved >= 10 else 0)

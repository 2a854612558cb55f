"""auto and explain on the gallery: never wrong, and the reasons are true; predicted counts against actual ones."""

from types import SimpleNamespace

import gallery
import numpy as np
import pytest

import recsolve as rs
from recsolve.kernels import compile_clock
from recsolve.recurrence.cell_recurrence import CellRecurrence
from recsolve.recurrence.engine import Engine
from recsolve.recurrence.function import FunctionRecurrence
from recsolve.recurrence.function_engine import FunctionEngine
from recsolve.solvers.choice import Candidate, Choice
from recsolve.studies.problems.gallery import PROBLEMS

S = rs.solvers
CONTRACTIVE = ("contractive", "near_critical", "resets")


def test_there_are_twelve_problems_and_each_says_what_it_is():
    assert len(PROBLEMS) == 12
    assert all(make.__doc__ for make in PROBLEMS.values())


@pytest.mark.parametrize("seed", [0, 1])
@pytest.mark.parametrize("name", sorted(PROBLEMS))
def test_auto_is_never_wrong(name, seed):
    rec = PROBLEMS[name](seed)
    sol = rs.solve(rec, method="auto")
    assert sol.success
    assert "auto took" in sol.message
    truth = gallery.loop(rec)
    # Where nothing can be trusted the states are still the loop's own or a trajectory of small residual.
    assert not sol.trusted or np.abs(sol.states - truth).max() <= gallery.bound(sol)
    with np.errstate(over="ignore"):  # a sigmoid of -1e3
        assert gallery.residual_is_met(rec, sol.states, sol.tolerance)


@pytest.fixture
def clock(monkeypatch):
    """A clock by which a call of f takes a millisecond, whether for a step or for all of them, and all else nothing."""
    now = [0.0]

    def slow(call):
        def counted(*args):
            now[0] += 1e-3
            return call(*args)

        return counted

    monkeypatch.setattr(compile_clock, "time", SimpleNamespace(perf_counter=lambda: now[0]))
    for kind in (CellRecurrence, FunctionRecurrence):
        for name in ("step", "apply", "differentiate"):
            monkeypatch.setattr(kind, name, slow(getattr(kind, name)))
    monkeypatch.setattr(FunctionEngine, "_follow", Engine._follow)  # which calls step
    with rs.backend("numpy"):
        yield now


@pytest.mark.parametrize("name", ["lorenz96", "long_memory"])
def test_auto_takes_the_loop_where_nothing_can_beat_it(clock, name, capsys):
    rec = PROBLEMS[name](0)
    choice = rs.explain(rec)
    assert [candidate.label for candidate in choice.candidates] == ["sequential"]
    assert choice.chosen.seconds == pytest.approx(1e-3 * rec.length)
    printed = capsys.readouterr().out
    assert printed.startswith("auto takes sequential.\n")
    assert "do not die out" in printed
    assert "walks time as the loop does" in printed


def test_auto_does_not_take_the_loop_where_perturbations_are_forgotten_at_once(clock, capsys):
    choice = rs.explain(PROBLEMS["minmax_ties"](0))
    assert choice.chosen.method.name == "jacobi"
    assert choice.candidates_by_name["jacobi"].iterations <= 10
    assert choice.chosen.seconds < choice.candidates_by_name["sequential"].seconds
    assert "fall below the tolerance in" in capsys.readouterr().out
    assert repr(choice) == f"Choice({choice.chosen.label})"


def test_the_memory_of_a_linear_recurrence_is_that_of_its_eigenvalue():
    u = np.random.default_rng(0).standard_normal((40_000, 4))
    rec = gallery.function(lambda h, u: 0.9 * h + u, u)
    choice = rs.explain(rec, tol=1e-6)
    expected = np.log(1e-6) / np.log(0.9)
    assert choice.candidates_by_name["jacobi"].iterations == pytest.approx(expected, rel=0.25)


def test_shooting_is_considered_where_newton_is_lost_although_perturbations_die_out(clock):
    u = np.random.default_rng(0).standard_normal((3000, 64))
    tame, lost, chaotic = (
        rs.explain(gallery.function(f, u)).candidates_by_name
        for f in (
            lambda h, u: 0.5 * np.tanh(h) + u,
            lambda h, u: 1.5 * np.tanh(3 * h) + u,
            lambda h, u: 6 * np.sin(h) + u,
        )
    )
    assert lost["adaptive_shooting"].seconds > 0
    assert "newton" not in lost
    assert "adaptive_shooting" not in {**tame, **chaotic}


@pytest.mark.parametrize("T", [0, 1, 100])
def test_few_steps_are_not_measured(T):
    choice = rs.explain(gallery.recurrence("gru", T=T))
    assert choice.chosen.method.name == "sequential"
    assert f"{T} steps are too few" in str(choice)


def test_a_prediction_that_fails_costs_time_not_the_answer(monkeypatch):
    wrong = Choice([Candidate(S.Sequential(), "sequential", 0, 1.0), Candidate(S.Jacobi(), "jacobi", 3, 0.1)])
    monkeypatch.setattr("recsolve.solvers.auto.choose", lambda recurrence, tolerance, engine: wrong)
    rec = gallery.sine(6.0, T=200)
    sol = rs.solve(rec, method="auto")
    assert sol.success
    assert sol.nit == 3 * 3 // 2 + 5 + 1
    assert "auto took jacobi, but ended with the sequential loop" in sol.message
    np.testing.assert_array_equal(sol.states, gallery.loop(rec))


def test_explain_wants_a_recurrence():
    with pytest.raises(TypeError, match="recurrence is int"):
        rs.explain(3)


@pytest.mark.parametrize("name", CONTRACTIVE)
def test_predicted_counts_on_the_contractive_problems(name):
    """Within a factor of 1.5, or of one iteration; docs/gallery.md has the solvers that take too long for a test."""
    rec = PROBLEMS[name](0)
    slow = ("levenberg_marquardt", "elk", "picard", "diagonal_broyden", "relaxed_newton", "scaled_newton")
    quick = [m for m in rs.solvers.REGISTRY if m not in (*slow, "sequential", "auto")]
    predicted = rs.diagnose(rec, methods=quick, budget=600).predicted
    for method, count in predicted.items():
        actual = rs.solve(rec, method=method).nit
        assert abs(count - actual) <= 1 or 1 / 1.5 <= count / actual <= 1.5, (method, count, actual)


@pytest.mark.parametrize("method", ["newton", "jacobi", "windowed", "chain", "auto"])
@pytest.mark.parametrize("T", [0, 1, 2, 50])
def test_a_coarse_guess(method, T):
    rec = gallery.recurrence("lstm", "dense", T=T, reset=np.random.default_rng(0).random((T, 2)) < 0.1)
    sol = rs.solve(rec, method=method, guess="coarse")
    assert sol.success
    assert np.abs(sol.states - gallery.loop(rec)).max(initial=0.0) <= gallery.bound(sol)


def test_a_coarse_guess_is_closer_where_the_drive_hardly_changes():
    u = 1 + 0.1 * np.sin(np.linspace(0, 6, 900))[:, None]
    rec = gallery.function(lambda h, u: 0.9 * h + 0.1 * np.tanh(u), u)
    first, truth = {}, gallery.loop(rec)
    for guess in ("step", "zeros", "coarse"):
        rs.solve(rec, guess=guess, maxiter=0, callback=lambda it, g=guess: first.setdefault(g, it.states.copy()))
    error = {guess: np.abs(states - truth).mean() for guess, states in first.items()}
    assert error["coarse"] < 0.5 * min(error["step"], error["zeros"])

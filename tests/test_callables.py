"""Settings that are the user's functions: what stands in for J, the guess, and which rows are accepted."""

import gallery
import numpy as np
import pytest

import recsolve as rs
from recsolve.base.status import Status


def uneven(T=200, batch=(6,), gain=1.3, **given):
    """Sequences that are solved at different iterations, so that times and sequences are set aside."""
    rng = np.random.default_rng(0)
    g = np.linspace(0.1, gain, batch[0])[:, None] if batch else gain
    u = {"u": 0.5 * rng.standard_normal((T, *batch, 2)), "g": np.broadcast_to(g, (T, *batch, 2)).copy()}
    return rs.Recurrence.from_function(
        lambda h, u: np.tanh(u["g"] * h + u["u"]),
        inputs=u,
        initial=np.zeros((*batch, 2)),
        structure="diagonal",
        **given,
    )


def slope(rec, states):
    """The derivative of the whole at some states, damped: what stands in for J."""
    return rs.jacobians.Diagonal(0.9 * rec.linearise(states)[1].data, rec.layout)


class Seen:
    """A as a callable, which keeps what it was asked for."""

    def __init__(self, rec, form):
        self.A, self.form, self.sizes = slope(rec, gallery.loop(rec)), form, []

    def __call__(self, problem, iterate):
        self.sizes.append(problem.part_of(np.empty(problem.whole)).shape)
        assert self.sizes[-1] == iterate.converged.shape == (problem.recurrence.length, *problem.recurrence.batch)
        if self.form == "whole":
            return self.A
        if self.form == "part":
            return problem.part_of(self.A)
        previous = problem.recurrence.previous(iterate.states)  # made afresh of the rows that are left
        u = problem.recurrence.inputs
        return rs.jacobians.Diagonal(0.9 * u[1] / np.cosh(u[1] * previous + u[0]) ** 2, problem.recurrence.layout)


@pytest.mark.parametrize("form", ["whole", "part", "own"])
@pytest.mark.parametrize("window", [None, 50])
def test_what_stands_in_for_J_sees_the_rows_that_are_left(form, window):
    rec = uneven()
    seen = Seen(rec, form)
    method = rs.solvers.Newton(A=seen)
    sol = rs.solve(rec, method=method if window is None else rs.solvers.Windowed(solver=method, window=window))
    assert sol.trusted
    assert sol.stats["njev"] == 0
    np.testing.assert_allclose(sol.states, gallery.loop(rec), atol=1e-12)
    lengths, sequences = zip(*seen.sizes, strict=True)
    assert min(lengths) < 200
    assert window is not None or min(sequences) < 6


def test_an_approximation_of_the_whole_is_cut_to_the_rows_that_are_left():
    rec = uneven()
    A = slope(rec, gallery.loop(rec))
    sol = rs.solve(rec, method=rs.solvers.QuasiNewton(approximation=lambda J: A))
    assert sol.trusted
    same = rs.solve(rec, method=rs.solvers.Newton(A=lambda problem, iterate: problem.part_of(A)))
    assert same.nit == sol.nit
    np.testing.assert_array_equal(same.states, sol.states)


def test_J_itself_in_the_place_of_J():
    rec = uneven()
    exact = rs.solvers.Newton(A=lambda problem, iterate: problem.linearise(iterate))
    one, other = rs.solve(rec, method=exact), rs.solve(rec)
    assert one.nit == other.nit
    np.testing.assert_array_equal(one.states, other.states)


@pytest.mark.parametrize(
    ("given", "error", "words"),
    [
        (lambda J: J.data, TypeError, "returned ndarray; wanted a Jacobian"),
        (lambda J: J[1:], ValueError, r"returned Diagonal\(leading \(199, 6\), .* wanted leading \(200, 6\)"),
        (
            lambda J: rs.jacobians.Diagonal(J.data[..., :1], rs.Layout(units=1)),
            ValueError,
            "returned .* wanted leading",
        ),
        (lambda J: rs.jacobians.Diagonal(J.data.astype("f"), J.layout), TypeError, "returned entries of dtype float32"),
    ],
)
def test_what_is_no_matrix_of_the_rows_is_refused(given, error, words):
    rec = uneven()
    with pytest.raises(error, match=f"A {words}"):
        rs.solve(rec, method=rs.solvers.Newton(A=lambda problem, iterate: given(problem.linearise(iterate))))
    with pytest.raises(error, match=f"approximation {words}"):
        rs.solve(rec, method=rs.solvers.QuasiNewton(approximation=given))
    with pytest.raises(TypeError, match=r"A is .*; wanted .*A\(problem, iterate\)|A takes"):
        rs.solvers.Newton(A=3)


# guess ---------------------------------------------------------------------------------------------------------------


def test_a_guess_is_called_of_every_window_with_the_state_before_it():
    rec, calls = uneven(), []
    truth = gallery.loop(rec)

    def draft(window):
        calls.append((window.length, window.initial.copy()))
        return window.evaluate(window.guess())

    sol = rs.solve(rec, method=rs.solvers.Windowed(solver="jacobi", window=50), guess=draft)
    assert sol.trusted
    assert len(calls) > 4
    assert max(length for length, _ in calls) == 50
    assert all((abs(start - truth).max(axis=(1, 2)) < 1e-12).any() for _, start in calls[1:])
    whole = rs.solve(rec, method="jacobi", guess=draft)
    assert calls[-1][0] == 200
    np.testing.assert_array_equal(whole.states, rs.solve(rec, method="jacobi", guess=draft(rec)).states)


@pytest.mark.parametrize("method", rs.solvers.REGISTRY)
def test_every_method_takes_a_guess_that_is_called(method):
    rec = uneven(T=40)
    truth = gallery.loop(rec)
    sol = rs.solve(rec, method=method, guess=lambda part: truth[: part.length], fallback="sequential")
    assert sol.trusted
    np.testing.assert_allclose(sol.states, truth, atol=1e-12)


def test_bad_guesses_that_are_called():
    rec = uneven()
    for guess, error, words in (
        (lambda part: np.zeros(7), ValueError, r"guess\(recurrence\) has shape \(7,\)"),
        (lambda part: np.zeros(2, "f"), TypeError, r"guess\(recurrence\) has dtype float32"),
        (lambda: 0, TypeError, r"guess\(recurrence\)"),
    ):
        with pytest.raises(error, match=words):
            rs.solve(rec, guess=guess)


# accept --------------------------------------------------------------------------------------------------------------


def changes(problem, iterate):
    """Rows whose next change is small beside them."""
    size = abs(iterate.states).max(axis=problem.event_axes)
    return abs(iterate.residual).max(axis=problem.event_axes) <= 1e-3 * size


@pytest.mark.parametrize("method", rs.solvers.REGISTRY)
def test_accepted_rows_freeze_and_the_status_says_so(method):
    """Every row is accepted or within tolerance; nothing is called a success that is not."""
    rec = uneven(reset=np.arange(200) % 70 == 69)
    for accept in (changes, 1e-3, np.full(200, 1e-3), np.full((200, 6), 1e-3)):
        sol = rs.solve(rec, method=method, options={"accept": accept})
        if sol.status is Status.CONVERGED:
            assert sol.converged_rows.all()
            continue
        assert sol.status == "accepted", sol.message
        assert not sol.success
        assert not sol.trusted
        missed = ~sol.converged_rows
        if sol.status is Status.ACCEPTED:
            assert f"{missed.sum()} of 1200 rows were accepted" in sol.message
            residual = abs(rec.evaluate(sol.states) - sol.states).max(axis=-1)
            limit = 1e-3 * abs(sol.states).max(axis=-1) if accept is changes else 1e-3
            assert (residual <= limit * (1 + 1e-9)).all()
            assert abs(sol.states - gallery.loop(rec)).max() < 0.1


def test_work_that_is_accepted_is_saved():
    rec = uneven()
    full, early = (rs.solve(rec, method="jacobi", options=options) for options in ({}, {"accept": 1e-3}))
    assert early.nit < 0.6 * full.nit
    assert early.stats["rows"] < 0.6 * full.stats["rows"]


def test_frozen_rows_are_kept_to_the_last_bit():
    rec, kept = uneven(), {}

    def accept(problem, iterate):
        mask = changes(problem, iterate)
        whole = np.zeros(problem.whole, bool)
        whole[problem.index] = problem.front(iterate.leading | mask)[0]
        states = np.zeros((*problem.whole, 2))
        states[problem.index] = iterate.states
        for place in zip(*np.nonzero(whole), strict=True):
            kept.setdefault(place, states[place].copy())
        return mask

    sol = rs.solve(rec, method="quasi_newton", options={"accept": accept, "approximation": lambda J: J.scale(0.5)})
    assert sol.status == "accepted"
    assert len(kept) == 1200
    np.testing.assert_array_equal(sol.states, np.array([kept[p] for p in np.ndindex(200, 6)]).reshape(rec.shape))


def test_windows_move_over_accepted_rows():
    rec = uneven(T=400)
    sol = rs.solve(rec, method=rs.solvers.Windowed(solver="jacobi", window=50), options={"accept": 1e-4})
    assert sol.status == "accepted", sol.message
    assert abs(rec.evaluate(sol.states) - sol.states).max() <= 1e-4


def test_a_draft_is_verified_token_by_token():
    """Rows that agree with the draft to its grid are accepted: a draft that is right takes no step at all."""
    rec = uneven(batch=())
    truth = gallery.loop(rec)
    draft = np.round(truth, 3)
    sol = rs.solve(rec, method="jacobi", guess=lambda part: draft, options={"accept": 5e-3})
    assert sol.nit == 0
    assert sol.status == "accepted"
    np.testing.assert_array_equal(sol.states, draft)
    draft[120] += 0.5
    sol = rs.solve(rec, method="jacobi", guess=draft, options={"accept": 5e-3})
    assert sol.nit > 0
    np.testing.assert_array_equal(sol.states[:120], draft[:120])


def test_nothing_is_accepted_that_is_not_finite_and_fallbacks_say_what_they_do():
    u = np.zeros((30, 1))
    u[12] = np.inf
    rec = gallery.function(lambda h, u: 0.5 * h + u, u)
    sol = rs.solve(
        rec, method="jacobi", options={"accept": lambda problem, iterate: np.ones(iterate.converged.shape, bool)}
    )
    assert sol.status == "nonfinite"
    rec = uneven()
    assert rs.solve(rec, options={"accept": 1e-3}, method="jacobi", fallback="sequential").status == "accepted"
    with pytest.raises(rs.ConvergenceError, match="accepted"):
        rs.solve(rec, options={"accept": 1e-3}, method="jacobi", fallback="raise")


@pytest.mark.parametrize(
    ("accept", "error", "words"),
    [
        ("all", TypeError, "accept is 'all'; wanted a callable"),
        (np.ones(7), ValueError, r"accept has shape \(7,\); wanted \(T, \*batch\) = \(200, 6\)"),
        (lambda problem, iterate: 1.0, TypeError, "accept returned dtype float64; wanted bool"),
        (lambda problem, iterate: np.ones(3, bool), ValueError, r"accept returned shape \(3,\); wanted \(200, 6\)"),
        (lambda iterate: True, TypeError, r"accept\(problem, iterate\)"),
    ],
)
def test_bad_rules(accept, error, words):
    with pytest.raises(error, match=words):
        rs.solve(uneven(), options={"accept": accept})
    with pytest.raises(ValueError, match="accept is given and pin is False"):
        rs.solve(uneven(), options={"accept": 1.0, "pin": False})

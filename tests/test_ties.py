"""The derivative at ties is a setting per operation: what it selects, that no answer changes, which choice wins."""

import importlib.util
import threading
from pathlib import Path

import gallery
import numpy as np
import pytest

import recsolve as rs
from recsolve.base.ties import DEFAULT, at_tie, check_ties, ties_in_force
from recsolve.math import absolute, clip, maximum, minimum, relu
from recsolve.recurrence.function_tangent import Tangent
from recsolve.symbolic.dual import ONE, Dual

PATH = Path(__file__).parent.parent / "docs" / "ties.py"
WEIGHTS = [0.0, 0.25, 0.5, 1.0]
X = np.array([-1.0, 0.0, 1.0])  # the tie with 0 is in the middle


@pytest.fixture(scope="module")
def study():
    spec = importlib.util.spec_from_file_location("ties", PATH)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def slopes(f, ties, x=X):
    """Return d f / d x as a Dual finds it, having asked a Tangent for the same."""
    with ties_in_force(check_ties(ties)):
        out = f(Dual(x, {0: ONE}))
        pushed = f(Tangent.seeded(x, np.stack([np.ones_like(x), 3 * np.ones_like(x)])))
    np.testing.assert_array_equal(pushed.directions, [out.partials[0], 3 * out.partials[0]])
    return out.partials[0]


@pytest.mark.parametrize("w", WEIGHTS)
@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_the_share_of_the_operand_that_depends_on_the_state(w, dtype):
    x, zero = X.astype(dtype), np.zeros(3, dtype)
    for f in (relu, lambda x: maximum(x, zero), lambda x: maximum(zero, x), lambda x: clip(x, 0.0, 5.0)):
        np.testing.assert_array_equal(slopes(f, {"maximum": w}, x), [0, w, 1])
        np.testing.assert_array_equal(slopes(f, {"minimum": w}, x), [0, 1, 1])
    for f in (lambda x: minimum(x, 0.0), lambda x: minimum(zero, x), lambda x: clip(x, -5.0, 0.0)):
        np.testing.assert_array_equal(slopes(f, {"minimum": w}, x), [1, w, 0])
        np.testing.assert_array_equal(slopes(f, {"maximum": w}, x), [1, 1, 0])
    assert slopes(relu, w, x).dtype == dtype


@pytest.mark.parametrize("c", [-1.0, -0.5, 0.0, 0.5, 1.0])
def test_the_slope_of_absolute(c):
    np.testing.assert_array_equal(slopes(absolute, {"absolute": c}), [-1, c, 1])
    np.testing.assert_array_equal(slopes(absolute, {"minimum": 0.5, "maximum": 0.5}), [-1, 0, 1])


@pytest.mark.parametrize("w", WEIGHTS)
def test_where_both_operands_depend_the_second_gets_the_rest(w):
    other = np.zeros(3)
    with ties_in_force(check_ties(w)):
        high = maximum(Dual(X, {"x": ONE}), Dual(other, {"y": ONE}))
        low = minimum(Dual(X, {"x": ONE}), Dual(other, {"y": ONE}))
    np.testing.assert_array_equal(high.partials["x"], [0, w, 1])
    np.testing.assert_array_equal(high.partials["y"], [1, 1 - w, 0])
    np.testing.assert_array_equal(low.partials["x"], [1, w, 0])
    np.testing.assert_array_equal(low.partials["y"], [0, 1 - w, 1])
    np.testing.assert_array_equal(slopes(lambda x: maximum(2 * x, 5 * x), w), [2, 2 * w + 5 * (1 - w), 5])


@pytest.mark.parametrize("w", WEIGHTS)
def test_infinities_and_nan_are_selected_not_multiplied(w):
    x = np.array([0.0, 1.0, np.inf, np.nan])
    with np.errstate(all="ignore"):
        clamped = slopes(lambda x: maximum(np.log(x), 0.0), w, x)  # d log is inf at 0, where the constant wins
        steep = slopes(lambda x: maximum(np.sqrt(x), 0.0), w, x[:1])  # d sqrt is inf at the tie
        at_infinity = slopes(lambda x: minimum(x, np.inf), w, x)
    np.testing.assert_array_equal(clamped, [0, w, 0, 0])
    np.testing.assert_array_equal(steep, [np.inf if w else 0])
    np.testing.assert_array_equal(at_infinity, [1, 1, w, 0])


CHOICES = [None, 0.0, 0.5, 1.0, {"minimum": 1.0, "maximum": 0.0}, {"minimum": 0.0, "maximum": 1.0}, {"absolute": 0.5}]
T, UNITS = 60, 3


def drives(seed=0):
    """Bounds s < r of a clamp. At s = h = r it is flat, and a product of two slopes at ties need not be 0."""
    rng = np.random.default_rng(seed)
    s = rng.integers(0, 3, (T, UNITS)).astype(float)
    return {"r": s + rng.integers(1, 3, s.shape), "s": s}


def as_cell(ties, seed=0):
    return rs.cells.MinMax.with_weights(hidden_size=UNITS).recurrence(drive=drives(seed), ties=ties)


def as_function(ties, seed=0, structure="diagonal"):
    def clamp(h, u):
        return maximum(minimum(u["r"], h), u["s"])

    return rs.Recurrence.from_function(
        clamp, inputs=drives(seed), initial=np.zeros(UNITS), structure=structure, ties=ties
    )


@pytest.mark.parametrize("ties", CHOICES)
def test_cells_and_functions_have_the_same_jacobian(ties):
    cell, function = as_cell(ties), as_function(ties)
    assert cell.ties == function.ties == check_ties(ties)
    states = cell.guess()
    J, K = cell.linearise(states)[1], function.linearise(states)[1]
    L = as_function(ties, structure="dense").linearise(states)[1]
    v = np.random.default_rng(0).standard_normal(states.shape)
    np.testing.assert_array_equal(J.matvec(v), K.matvec(v))
    np.testing.assert_allclose(J.matvec(v), L.matvec(v), rtol=1e-15)


@pytest.mark.parametrize("build", [as_cell, as_function])
def test_the_choice_reaches_the_jacobian_and_windows_keep_it(build):
    ones = np.ones((T, UNITS))
    by_choice = []
    for ties in (0.0, 0.5, 1.0):
        rec = build(ties)
        part = rec.window(7, 40)
        assert part.ties == part.window(1, 5).ties == rec.ties
        states = rec.guess()
        by_choice.append(rec.linearise(states)[1].matvec(ones))
        inside = part.linearise(states[7:40])[1].matvec(ones[7:40])
        np.testing.assert_array_equal(inside[1:], by_choice[-1][8:40])
    assert (by_choice[0] < by_choice[1]).any()
    assert (by_choice[1] < by_choice[2]).any()
    np.testing.assert_array_equal(build(None).linearise(states)[1].matvec(ones), by_choice[2])  # the default


def rectified(ties, seed=0):
    rng = np.random.default_rng(seed)
    weight, x = rng.integers(-1, 2, (UNITS, UNITS)) / 2.0, rng.integers(-1, 2, (T, UNITS)).astype(float)

    def f(s, W, u, p):
        h = W.h(s.h)
        return relu(h + u.x) - absolute(minimum(h, u.x))

    cell = rs.Cell(f, state=("h",), output="h").with_weights(mixings={"h": rs.mixings.Dense(weight)})
    return cell.recurrence(drive={"x": x}, ties=ties)


@pytest.mark.parametrize("build", [as_cell, as_function, rectified])
@pytest.mark.parametrize("ties", CHOICES)
def test_every_choice_ends_at_the_answer_of_the_loop(build, ties):
    for seed in range(3):
        rec = build(ties, seed)
        sol = rs.solve(rec, method="newton")
        assert sol.success
        np.testing.assert_allclose(sol.states, rs.solve(rec, method="sequential").states, atol=1e-12)


@pytest.mark.parametrize("w", WEIGHTS)
def test_the_adjoint_and_the_tangent_use_the_same_element(w):
    cell = rs.Cell(lambda s, W, u, p: relu(s.h + u.x), state=("h",), output="h").with_weights(hidden_size=1)
    at_ties = cell.recurrence(drive={"x": np.zeros((3, 1))}, ties=w)
    sol = rs.solve(at_ties, method="sequential")
    g = rs.adjoint(sol, final=np.ones(1))
    np.testing.assert_array_equal(g.initial, [w**3])
    np.testing.assert_array_equal(g.drive.x[:, 0], [w**3, w**2, w])
    np.testing.assert_array_equal(rs.tangent(sol, initial=np.ones(1))[:, 0], [w, w**2, w**3])


@pytest.mark.parametrize("ties", CHOICES)
def test_what_the_state_leaves_goes_to_the_drive(ties):
    """Raising h[0] and both bounds raises all states alike, so shares must add up to 1 at every tie."""
    cell, function = as_cell(ties), as_function(ties)
    sol = rs.solve(cell, method="sequential")
    ones = np.ones((T, UNITS))
    moved = rs.tangent(sol, initial=ones[0], drive={"r": ones, "s": ones})
    np.testing.assert_allclose(moved, ones, rtol=1e-14)
    cotangent = np.random.default_rng(0).standard_normal(ones.shape)
    g = rs.adjoint(sol, states=cotangent)
    f = rs.adjoint(rs.solve(function, method="sequential"), states=cotangent)
    np.testing.assert_allclose(g.initial.sum() + g.drive.r.sum() + g.drive.s.sum(), cotangent.sum(), rtol=1e-12)
    np.testing.assert_allclose(f.initial, g.initial, rtol=1e-12)
    for name in ("r", "s"):
        np.testing.assert_allclose(f.inputs[name], g.drive[name], rtol=1e-12)


def test_a_mixing_of_the_drive_does_not_depend_on_the_state():
    def f(s, W, u, p):
        return maximum(W.a(u.x), W.b(s.h))

    weights = {name: rs.mixings.Dense(np.eye(2)) for name in "ab"}
    cell = rs.Cell(f, state=("h",), output="h").with_weights(mixings=weights)
    sol = rs.solve(cell.recurrence(drive={"x": np.zeros((4, 2))}, ties=0.75), method="sequential")
    g = rs.adjoint(sol, final=np.ones(2))
    np.testing.assert_array_equal(g.drive.x[:, 0], 0.25 * 0.75 ** np.arange(3, -1, -1))
    np.testing.assert_array_equal(g.initial, [0.75**4] * 2)


def test_gradients_of_inputs_leave_functions_with_a_declared_jacobian_alone():
    """Such a function may use the state in ways that automatic differentiation does not carry."""
    rec = gallery.function(
        lambda h, u: np.sort(h, axis=-1) * 0 + np.tanh(u),
        np.ones((4, 2)),
        "dense",
        jacobian=lambda h, u: np.zeros((4, 2, 2)),
        ties=0.0,
    )
    g = rs.adjoint(rs.solve(rec, method="sequential"), final=np.ones(2))
    np.testing.assert_allclose(g.inputs[-1], 1 - np.tanh(1.0) ** 2)


def test_a_choice_is_in_force_in_its_own_thread_until_the_end_even_of_a_failure():
    seen = []

    def look():
        seen.append(at_tie("minimum"))

    def fail():
        with ties_in_force(check_ties(0.25)):
            thread = threading.Thread(target=look)
            thread.start()
            thread.join()
            look()
            raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        fail()
    look()
    assert seen == [1.0, 0.25, 1.0]
    assert check_ties(None) == check_ties({}) == DEFAULT


@pytest.mark.parametrize("build", [as_cell, as_function])
@pytest.mark.parametrize(
    ("ties", "error", "words"),
    [
        (1.5, ValueError, r"ties is 1.5; wanted a number in \[0, 1\]"),
        (-0.5, ValueError, r"ties is -0.5; wanted a number in \[0, 1\]"),
        (np.nan, ValueError, "ties is nan"),
        ("state", TypeError, "ties is 'state'; wanted None, a number, or a mapping from .*'minimum'"),
        (True, TypeError, "ties is True"),
        ([0.5], TypeError, r"ties is \[0.5\]"),
        ({"median": 0.5}, ValueError, r"ties has the operations \['median'\]; wanted some of .*'minimum'"),
        ({"minimum": -1}, ValueError, r"ties\['minimum'\] is -1; wanted a number in \[0, 1\]"),
        ({"absolute": -2}, ValueError, r"ties\['absolute'\] is -2; wanted a number in \[-1, 1\]"),
        ({"maximum": None}, TypeError, r"ties\['maximum'\] is None; wanted a number"),
    ],
)
def test_bad_choices_are_named(build, ties, error, words):
    with pytest.raises(error, match=words):
        build(ties)


def test_every_problem_of_the_study_has_its_winner_by_a_clear_margin(study):
    for problem, (winner, _) in study.PROBLEMS.items():
        counts = {choice: study.counts(problem, choice) for choice in study.CHOICES}
        best = counts[winner]
        for choice, other in counts.items():
            # The same iterates: the choices differ in an operation that the problem does not have.
            assert other == best or np.median(other) >= 1.5 * np.median(best), (problem.__name__, choice)
    assert {winner for winner, _ in study.PROBLEMS.values()} == {*list(study.CHOICES)[:4]}


def test_the_problems_have_the_same_answer_with_every_choice(study):
    for problem in study.PROBLEMS:
        truth = rs.solve(problem(0), method="sequential").states
        for ties in study.CHOICES.values():
            np.testing.assert_allclose(rs.solve(problem(0, ties), method="newton").states, truth, atol=1e-12)


def test_the_table_lists_every_problem(study):
    rows = [line.split("|")[1].strip() for line in PATH.with_suffix(".md").read_text().splitlines() if line[:1] == "|"]
    assert rows[2:] == [problem.__name__ for problem in study.PROBLEMS]

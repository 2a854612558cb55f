"""Every error names the argument, says what was seen, and what is wanted."""

import numpy as np
import pytest

import recsolve as rs

X = np.ones((9, 2, 3))
CELL = rs.cells.GRU.random(input_size=3, hidden_size=4, rng=0)
RECURRENCE = CELL.recurrence(X)
SOLUTION = rs.solve(RECURRENCE)

TAKES_RECURRENCE = {"solve": rs.solve, "explain": rs.explain, "diagnose": rs.diagnose, "check": rs.check_structure}
TAKES_SOLUTION = {"adjoint": rs.adjoint, "tangent": rs.tangent}
TAKES_SEED = {
    "random": lambda rng: rs.cells.GRU.random(input_size=3, hidden_size=4, rng=rng),
    "diagnose": lambda rng: rs.diagnose(RECURRENCE, rng=rng),
    "check_structure": lambda rng: rs.check_structure(RECURRENCE, rng=rng),
}


@pytest.mark.parametrize("name", TAKES_RECURRENCE)
@pytest.mark.parametrize("wrong", [CELL, SOLUTION, X, None], ids=lambda x: type(x).__name__)
def test_what_is_no_recurrence(name, wrong):
    with pytest.raises(TypeError, match=f"^recurrence is {type(wrong).__name__}; wanted a Recurrence"):
        TAKES_RECURRENCE[name](wrong)


@pytest.mark.parametrize("name", TAKES_SOLUTION)
@pytest.mark.parametrize("wrong", [RECURRENCE, X, None], ids=lambda x: type(x).__name__)
def test_what_is_no_solution(name, wrong):
    with pytest.raises(TypeError, match=f"^solution is {type(wrong).__name__}; wanted a Solution"):
        TAKES_SOLUTION[name](wrong)


@pytest.mark.parametrize("name", TAKES_SEED)
@pytest.mark.parametrize("wrong", ["a", -1, 0.5])
def test_what_is_no_seed(name, wrong):
    with pytest.raises((TypeError, ValueError), match=f"^rng is {wrong!r}; wanted an integer >= 0"):
        TAKES_SEED[name](wrong)


def from_function(f, **more):
    return rs.Recurrence.from_function(f, inputs=X, initial=np.zeros((2, 3)), structure="diagonal", **more)


WRONG = {
    "no function": (lambda: from_function(3), r"f is int; wanted a callable f\(h_prev, u_t\)"),
    "too few arguments": (lambda: from_function(lambda h: h), r"f takes \(h\); wanted a callable f\(h_prev, u_t\)"),
    "no jacobian": (lambda: from_function(np.add, jacobian=X), "jacobian is ndarray; wanted a callable jacobian"),
    "no cell": (lambda: rs.Cell(3, state=("h",), output="h"), r"function is int; wanted a callable f\(s, W, u, p\)"),
    "a cell of three": (
        lambda: rs.Cell(lambda s, W, u: u.h, state=("h",), output="h"),
        r"function takes \(s, W, u\); wanted a callable f\(s, W, u, p\)",
    ),
    "a callback of two": (lambda: rs.solve(RECURRENCE, callback=lambda a, b: 0), r"callback takes \(a, b\); wanted"),
    "no mixing": (
        lambda: rs.cells.Elman.with_weights(mixings={"h": np.eye(3)}),
        r"mixings\['h'\] is ndarray; wanted a Mixing",
    ),
    "no projection": (
        lambda: rs.cells.MinMax.with_weights(projection=X),
        "projection is ndarray; wanted a Projection",
    ),
    "one array": (lambda: rs.scan("affine", (X,)), r"a pair \(A, b\); got 1 array$"),
    "no file": (lambda: rs.load({"weight_hh_l0": X}), "path is dict; wanted the name of a file"),
    "no input": (lambda: CELL.recurrence(), "neither x nor drive is given; wanted one of them"),
    "two inputs": (lambda: CELL.recurrence(X, drive={}), "both x and drive are given; wanted one of them"),
    "drives of another width": (
        lambda: CELL.recurrence(drive=dict.fromkeys("rzn", X)),
        r"wanted shapes that broadcast to \(T, \*batch, 4\)",
    ),
}


@pytest.mark.parametrize("name", WRONG)
def test_wrong_arguments_are_named(name):
    call, words = WRONG[name]
    with pytest.raises((TypeError, ValueError), match=words):
        call()


def test_functions_with_defaults_and_methods_are_taken():
    assert from_function(lambda h, u, gain=0.5: gain * h + u).length == 9
    assert from_function(lambda *parts: 0.5 * parts[0] + parts[1]).length == 9
    assert from_function(np.add).length == 9

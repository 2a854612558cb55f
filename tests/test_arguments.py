"""Every error names the argument, says what was seen, and what is wanted."""

import math

import gallery
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


Y = np.ones((5, 2, 3))


def bad_function(**overrides):
    settings = {"inputs": np.ones((5, 2)), "initial": np.zeros(2), "structure": "diagonal", **overrides}
    f = settings.pop("f", lambda h, u: 0.5 * h + u)
    return rs.solve(rs.Recurrence.from_function(f, **settings))


def gru(**arguments):
    return gallery.weighted("gru").recurrence(**arguments)


@pytest.mark.parametrize(
    ("build", "error", "words"),
    [
        (lambda: rs.solve(gru(x=Y), method="newt"), ValueError, "method is 'newt'; wanted one of sequential"),
        (lambda: rs.solve(gru(x=Y), method=3), TypeError, "method is int"),
        (lambda: rs.solve(gru(x=Y), maxiter=-1), ValueError, "maxiter is -1; wanted an integer >= 0"),
        (lambda: rs.solve(gru(x=Y), maxiter=2.5), ValueError, "maxiter is 2.5"),
        (lambda: rs.solve(gru(x=Y), tol=-1.0), ValueError, "tol is -1.0; wanted a finite number >= 0"),
        (lambda: rs.solve(gru(x=Y), tol=np.nan), ValueError, "tol is nan"),
        (lambda: rs.solve(gru(x=Y), options={"atol": "x"}), ValueError, "atol is 'x'"),
        (lambda: rs.solve(gru(x=Y), options={"speed": 9}), ValueError, r"unknown \['speed'\].*'pin'"),
        (lambda: rs.solve(gru(x=Y), method="damped_newton", options={"shrink": 2}), ValueError, "shrink is 2"),
        (lambda: rs.solve(gru(x=Y), method=rs.solvers.Newton(), options={"shrink": 1}), ValueError, "solver object"),
        (lambda: rs.solve(gru(x=Y), options={"patience": 0}), ValueError, "patience is 0"),
        (lambda: rs.solve(gru(x=Y), fallback="pray"), ValueError, "fallback is 'pray'"),
        (lambda: rs.solve(gru(x=Y), callback=3), TypeError, "callback is int"),
        (lambda: rs.solve(gru(x=Y), guess=np.ones(3)), ValueError, r"guess has shape \(3,\); wanted \(5, 2, 8\)"),
        (lambda: rs.solve(gru(x=Y), guess=np.ones((5, 2, 8), "f4")), TypeError, "guess has dtype float32"),
        (lambda: gru(x=Y[..., :2]), ValueError, r"x has shape \(5, 2, 2\); wanted \(T, \*batch, 3\)"),
        (lambda: gru(x=np.ones(3)), ValueError, "x has shape"),
        (lambda: gru(x=Y.astype(int)), TypeError, "x has dtype int64; wanted float32 or float64"),
        (lambda: gru(x=Y.astype(np.float16)), TypeError, "x has dtype float16"),
        (lambda: gru(x=Y.astype(np.float32)), TypeError, r"dtypes are mixed: x is float32.*cell.astype"),
        (lambda: gru(x=[[1.0], [1.0, 2.0]]), ValueError, "x is not a rectangular array"),
        (lambda: gru(x=Y, initial=np.ones(7)), ValueError, r"initial has shape \(7,\); wanted .* \(2, 8\)"),
        (lambda: gru(x=Y, initial=np.ones(8, "f4")), TypeError, "initial has dtype float32"),
        (lambda: gru(x=Y, initial={"c": np.ones(8)}), ValueError, r"initial has components \('c',\); wanted \('h',\)"),
        (lambda: gru(x=Y, reset=np.ones(4, bool)), ValueError, r"reset has shape .*wanted .*\(5, 2\)"),
        (lambda: gru(x=Y, reset=np.ones(5)), TypeError, "reset has dtype float64; wanted bool"),
        (lambda: gru(drive={"r": Y}), ValueError, r"drive of gru has names \('r',\)"),
        (lambda: rs.cells.get("gruu"), ValueError, "cell is 'gruu'; wanted one of elman"),
        (lambda: rs.cells.GRU.random(input_size=0, hidden_size=3), ValueError, "input_size is 0"),
        (lambda: rs.cells.GRU.random(input_size=1, hidden_size=3, mixing="x"), ValueError, "mixing is 'x'"),
        (lambda: rs.cells.GRU.random(input_size=1, hidden_size=6, mixing="heads"), ValueError, "heads is 4"),
        (lambda: rs.cells.GRU.random(input_size=1, hidden_size=6, heads=2), ValueError, "heads is 2 with mixing"),
        (lambda: rs.cells.MinMax.random(input_size=1, hidden_size=6, gain=2), ValueError, "gain is 2"),
        (lambda: rs.cells.GRU.random(input_size=1, hidden_size=6, gain=np.nan), ValueError, "gain is nan"),
        (lambda: rs.cells.GRU.with_weights(), ValueError, "mixings of gru has names"),
        (lambda: rs.mixings.Dense(np.ones((2, 3))), ValueError, r"weight of a dense mixing has shape \(2, 3\)"),
        (lambda: rs.Cell(lambda s, W, u, p: s.h, state=("h",), output="x"), ValueError, "output is 'x'"),
        (lambda: rs.Cell(lambda s, W, u, p: (s.h, s.h), state=("h",), output="h"), ValueError, "returns 2 components"),
        (lambda: rs.Cell(lambda s, W, u, p: s.q, state=("h",), output="h"), AttributeError, "no component 'q'"),
        (lambda: gru(x=Y, reset=np.full(5, 2)), ValueError, "reset has values from 2 to 2; wanted bool, or integers 0"),
        (lambda: rs.packed_resets([3, -1]), ValueError, "lengths is"),
        (lambda: bad_function(structure="sparse"), ValueError, "structure is 'sparse'; wanted one of zero"),
        (lambda: bad_function(initial=np.array(0.0), structure="dense"), ValueError, "initial has shape"),
        (lambda: bad_function(initial=np.zeros((1, 2)), structure="block"), ValueError, "k >= 2"),
        (lambda: bad_function(initial=np.zeros(2, "f4")), TypeError, "dtypes are mixed"),
        (lambda: bad_function(inputs=(np.ones((5, 2)), np.ones((4, 2)))), ValueError, "lengths along time"),
        (lambda: bad_function(inputs=None), ValueError, "length is None"),
        (lambda: bad_function(f=lambda h, u: h[..., :1]), ValueError, r"f returned shape \(5, 1\)"),
        (lambda: bad_function(f=lambda h, u: h.astype("f4")), TypeError, "f returned dtype float32"),
        (lambda: bad_function(jacobian=lambda h, u: np.ones(7)), ValueError, r"jacobian returned shape \(7,\)"),
        (lambda: bad_function(f=lambda h, u: h if h > 0 else u), TypeError, "branches in Python"),
        (lambda: rs.solve(gru(x=Y), method=rs.solvers.Newton), TypeError, r"Newton\(\)"),
        (lambda: rs.solve(gru(x=Y), options="x"), TypeError, "options is str"),
        (lambda: rs.solve(gru(x=Y), options={"pin": "no"}), ValueError, "pin is 'no'"),
        (lambda: rs.Cell(lambda s, W, u, p: [u.x], state=("h",), output="h"), ValueError, "returns a list"),
        (lambda: rs.Cell(lambda s, W, u, p: s.h, state=("h",), output="h"), ValueError, "uses no drive"),
        (lambda: rs.Cell(lambda s, W, u, p: u.keys + s.h, state=("h",), output="h"), ValueError, "'keys'"),
        (lambda: rs.cells.GRU.random(input_size=1, hidden_size="8"), ValueError, "hidden_size is '8'"),
        (lambda: rs.cells.GRU.random(input_size=1, hidden_size=8, gain="a"), ValueError, "gain is 'a'"),
        (lambda: bad_function(inputs=None, length=5.0), ValueError, "length is 5.0"),
        (lambda: bad_function(initial=None), TypeError, "initial is None"),
        (lambda: bad_function(f=lambda h, u: [h]), TypeError, "f returned list"),
        (lambda: bad_function(f=lambda h, u: math.tanh(h)), TypeError, "np.tanh not math.tanh"),
        (lambda: gru(x=np.ones((7, 4, 3)), reset=np.ones(4, bool)), ValueError, "reset has shape"),
    ],
)
def test_bad_input_names_argument_seen_and_wanted(build, error, words):
    with pytest.raises(error, match=words):
        build()


def test_packed_sequences_without_steps_have_no_rows():
    for lengths in ([2, 0, 3], [0, 2, 3, 0], np.array([2, 3], np.uint8)):
        np.testing.assert_array_equal(rs.packed_resets(lengths), [True, False, True, False, False])
    for lengths in ([], [0], [0, 0]):
        assert rs.packed_resets(lengths).shape == (0,)
    cuts = rs.packed_resets([2, 3])
    np.testing.assert_array_equal(gru(x=Y, reset=cuts.astype(int)).reset, gru(x=Y, reset=cuts).reset)

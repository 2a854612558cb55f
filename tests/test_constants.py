"""Constants of NumPy in cells and functions: one rule for all arithmetic, on every backend and in every solver."""

import operator

import gallery
import numpy as np
import pytest

import recsolve as rs
from recsolve import math
from recsolve.gradients.function_gradients import push_function
from recsolve.symbolic.constants import state_dtype

FLOATS = ("float32", "float64")
NUMBERS = {
    "Python float": lambda x: x,
    "Python int": lambda x: round(4 * x),
    "numpy.float64": np.float64,
    "numpy.float32": np.float32,
    "numpy.float16": np.float16,
    "numpy.int64": lambda x: np.int64(round(4 * x)),
    "numpy.bool": lambda x: np.bool_(True),
    "float64 of no axes": lambda x: np.array(x, "f8"),
    "float32 of no axes": lambda x: np.array(x, "f4"),
}
BINARY = {
    "add": operator.add,
    "subtract": operator.sub,
    "multiply": operator.mul,
    "divide": operator.truediv,
    "power": lambda a, b: abs(a) ** abs(b),
    "minimum": np.minimum,
    "maximum": np.maximum,
    "logaddexp": np.logaddexp,
    "arctan2": np.arctan2,
    "where": lambda a, b: np.where(np.greater(a, b), a, b),
}
NUMBER = 0.7  # no float exactly: what is rounded, and to which dtype, is seen


def cell_of(op, constant, side):
    def function(s, W, u, p):
        x = W.h(s.h) + u.h
        return 0.5 * math.tanh(op(constant, x) if side == "left" else op(x, constant))

    return rs.Cell(function, state=("h",), output="h")


def recurrence(cell, dtype, mixing="diagonal", T=9):
    weighted = cell.random(input_size=2, hidden_size=3, mixing=mixing, rng=0, dtype=dtype)
    return weighted.recurrence(np.random.default_rng(0).normal(size=(T, 2)).astype(dtype))


@pytest.mark.parametrize("side", ["left", "right"])
@pytest.mark.parametrize("dtype", FLOATS)
@pytest.mark.parametrize("name", BINARY)
def test_states_have_the_dtype_of_the_state_whatever_the_constant(name, dtype, side):
    """On NumPy: every number as the Python number that it is, to the last bit, states and Jacobians."""
    for make in NUMBERS.values():
        number = make(NUMBER)
        alike = number if type(number) in (int, float) else number.item()
        rec, same = (recurrence(cell_of(BINARY[name], c, side), dtype) for c in (number, alike))
        with rs.backend("numpy"):
            sol, exact = rs.solve(rec, method="sequential"), rs.solve(same, method="sequential")
            assert sol.states.dtype == rec.guess().dtype == rec.step(rec.initial, 0).dtype == dtype
            np.testing.assert_allclose(sol.states, exact.states, rtol=4 * np.finfo(dtype).eps, atol=1e-300)
            values, J = rec.linearise(sol.states)
            assert values.dtype == J.todense().dtype == dtype
            np.testing.assert_array_equal(values, rec.evaluate(sol.states))
            np.testing.assert_allclose(J.todense(), same.linearise(sol.states)[1].todense(), rtol=1e-5)
            g = rs.adjoint(sol, states=np.ones_like(sol.states), unconverged=True)
            assert g.initial.dtype == g.drive.h.dtype == dtype


@pytest.mark.parametrize("dtype", FLOATS)
def test_compiled_loops_give_what_numpy_gives(dtype):
    """One cell with all operations, for compiling takes long."""

    def function(s, W, u, p):
        x = W.h(s.h) + u.h
        total = 0.0 * x
        for op in BINARY.values():
            total = total + math.tanh(op(x, np.float64(NUMBER))) + math.tanh(op(np.array(NUMBER, "f4"), x))
        return 0.02 * total

    states = {}
    rec = recurrence(rs.Cell(function, state=("h",), output="h"), dtype, T=40)
    for backend in ("numpy", "numba"):
        with rs.backend(backend):
            states[backend] = rs.solve(rec, method="sequential").states
            values, J = rec.linearise(states["numpy"])
            assert values.dtype == J.todense().dtype == states[backend].dtype == dtype
    np.testing.assert_allclose(states["numba"], states["numpy"], rtol=0, atol=50 * np.finfo(dtype).eps)


@pytest.mark.parametrize("mixing", ["diagonal", "dense", "heads"])
@pytest.mark.parametrize("method", sorted(rs.solvers.REGISTRY))
def test_every_solver_takes_them(method, mixing):
    cell = cell_of(operator.mul, np.sqrt(2) / 3, "right")
    weighted = cell.random(input_size=2, hidden_size=4, mixing=mixing, rng=0, dtype="float32")
    rec = weighted.recurrence(np.ones((9, 2), "f4"))
    with rs.backend("numpy"):
        sol = rs.solve(rec, method=method)
        assert sol.states.dtype == np.float32
        np.testing.assert_allclose(sol.states, rs.solve(rec, method="sequential").states, atol=1e-5)


def test_comparisons_see_the_constant_that_loops_see():
    """float32(0.1) > float64(0.1): a constant is rounded before it is compared."""
    cell = rs.Cell(lambda s, W, u, p: math.where(u.h > np.float64(0.1), s.h + 1, s.h), state=("h",), output="h")
    weighted = cell.random(input_size=1, hidden_size=1, rng=0, dtype="float32")
    rec = weighted.recurrence(drive={"h": np.full((40, 1), 0.1, "f4")})
    for backend in ("numpy", "numba"):
        with rs.backend(backend):
            assert rs.solve(rec, method="sequential").states.max() == 0


def test_results_that_are_constants_or_truth_values():
    cell = rs.Cell(lambda s, W, u, p: (s.a * 0.5 + u.a, np.float64(0.3), s.a > 0.1), state=("a", "b", "c"), output="a")
    rec = recurrence(cell, "float32")
    states = {}
    for backend in ("numpy", "numba"):
        with rs.backend(backend):
            states[backend] = rs.solve(rec, method="sequential").states
            assert states[backend].dtype == rec.linearise(states[backend])[0].dtype == np.float32
    np.testing.assert_allclose(states["numba"], states["numpy"], rtol=1e-6)


@pytest.mark.parametrize("dtype", FLOATS)
def test_a_choice_between_two_numbers_has_the_dtype_of_the_state(dtype):
    def function(s, W, u, p):
        sign = math.where(s.h > 0, 1.0, -1.0)
        return 0.5 * W.h(s.h) + NUMBER * sign * u.h, math.where(s.h > u.h, np.float64(NUMBER), 0)

    def of_arrays(h, u):
        return 0.5 * h + math.where(u > 0, NUMBER, -1) * math.where(h > 0, 1.0, -1.0)

    cell = rs.Cell(function, state=("h", "c"), output="h")
    u = np.random.default_rng(0).standard_normal((40, 3)).astype(dtype)
    for rec in (recurrence(cell, dtype, T=40), gallery.function(of_arrays, u)):
        with rs.backend("numpy"):
            sol = rs.solve(rec, method="sequential")
            assert sol.states.dtype == rec.linearise(sol.states)[0].dtype == dtype
            assert sol.trusted
            assert rs.adjoint(sol, states=sol.states).initial.dtype == dtype
        with rs.backend("numba" if dtype == "float32" else "numpy"):  # for compiling takes long
            compiled = rs.solve(rec, method="sequential").states
        np.testing.assert_allclose(compiled, sol.states, rtol=0, atol=1e-6)
        with state_dtype(np.dtype(dtype)):
            for a, b in ((1, 0), (True, 0.5), (np.array(2), np.float32(1))):
                assert math.where(np.array([True, False]), a, b).dtype == dtype
            assert math.where(np.array([True, False]), True, False).dtype == bool
            assert math.where(np.array([True, False]), np.arange(2), 0).dtype == int
    assert math.where(np.array([True]), 1.0, NUMBER).dtype == np.float64  # as NumPy does where there is no state


def test_numpys_choice_between_two_numbers_is_refused_with_the_way_out():
    cell = rs.Cell(lambda s, W, u, p: np.where(s.h > u.h, 1.0, -1.0), state=("h",), output="h")
    with rs.backend("numpy"), pytest.raises(TypeError, match=r"recsolve\.math\.where"):
        rs.solve(recurrence(cell, "float32"))


REFUSED = {
    "float64 array": (np.full(3, 0.5), "float64; wanted float32"),
    "int64 array": (np.arange(3), "int64; wanted float32"),
    "float16 array": (np.full(3, 0.5, "f2"), "float16; wanted float32"),
    "complex": (0.5j, "complex128; wanted a real number"),
    "numpy.complex64": (np.complex64(0.5), "complex64; wanted a real number"),
}


@pytest.mark.parametrize("seen", REFUSED)
def test_other_constants_are_refused_alike_on_every_way(seen):
    constant, words = REFUSED[seen]
    rec = recurrence(cell_of(operator.mul, constant, "left"), "float32")
    states = np.zeros((9, 3), "f4")
    with rs.backend("numpy"):
        ways = [lambda: rec.step(states[0], 0), lambda: rec.evaluate(states), lambda: rec.linearise(states), rec.guess]
        ways += [lambda m=m: rs.solve(rec, method=m) for m in ("sequential", "jacobi", "newton", "quasi_newton")]
        for way in ways:
            with pytest.raises(TypeError, match=words):
                way()


@pytest.mark.parametrize("structure", ["dense", "diagonal", "zero"])
def test_a_function_that_promotes_is_refused_alike_on_every_way(structure):
    """The function is the user's own NumPy: the message says what promotes."""
    u = np.ones((9, 3), "f4")
    rec = gallery.function(lambda h, u: np.tanh(h * np.sqrt(2)) + u, u, structure)
    ways = [lambda: rec.step(u[0], 0), lambda: rec.evaluate(u), lambda: rec.linearise(u), rec.guess]
    ways += [lambda: push_function(rec, u, {("input", 0): u}), lambda: rec.operator(u)[0](u)]
    ways += [lambda m=m: rs.solve(rec, method=m) for m in sorted(rs.solvers.REGISTRY)]
    for way in ways:
        with pytest.raises(TypeError, match=r"f returned dtype float64; wanted float32.*NumPy number"):
            way()

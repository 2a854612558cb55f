"""Recurrences, cells and projections of one's own: what they override is never replaced by what their class is."""

import gallery
import numpy as np
import pytest
from test_exact_types import BACKENDS, UNITS, T

import recsolve as rs
from recsolve.recurrence.cell_recurrence import CellRecurrence


class Doubled(CellRecurrence):
    """Overrides one of the two that define f."""

    factor = 1.0

    def step(self, state, t):
        return self.factor * super().step(state, t)


class DoubledAtOnce(CellRecurrence):
    factor = 1.0

    def apply(self, previous):
        return self.factor * super().apply(previous)


class Differentiated(DoubledAtOnce):
    def differentiate(self, previous):
        values, J = CellRecurrence.differentiate(self, previous)
        return self.factor * values, J.scale(self.factor)


def recurrence_of(kind, mixing, factor=0.5):
    cell = gallery.weighted("gru", mixing, units=UNITS)
    rec = cell.recurrence(np.random.default_rng(0).standard_normal((T, 2, 3)))
    own = kind(rec.cell, rec.drive, None, None, "numpy", rec.x)
    own.factor = factor
    state, wanted = np.zeros(rec.shape[1:]), np.empty(rec.shape)
    for t in range(T):
        wanted[t] = state = factor * rec.step(state, t)
    return own, wanted


@pytest.mark.parametrize("backend", BACKENDS)
@pytest.mark.parametrize("mixing", ["diagonal", "dense"])
@pytest.mark.parametrize("kind", [Doubled, DoubledAtOnce, Differentiated])
def test_a_recurrence_that_overrides_f(kind, mixing, backend):
    own, wanted = recurrence_of(kind, mixing)
    methods = ("sequential", "jacobi", "gauss_seidel", "anderson")
    with rs.backend(backend):
        for method in (*methods, "newton", "windowed", "newton_krylov") if kind is Differentiated else methods:
            sol = rs.solve(own, method=method, options={"chunk": 7} if method == "gauss_seidel" else None)
            assert sol.success, (method, sol.message)
            np.testing.assert_allclose(sol.states, wanted, rtol=1e-9, atol=1e-10)
        if kind is Differentiated:
            g = rs.adjoint(sol, final=np.ones(own.shape[1:]))
            assert np.isfinite(g.initial).all()
            with pytest.raises(TypeError, match=r"Differentiated overrides .*how f depends on"):
                g.drive  # noqa: B018
        else:
            with pytest.raises(TypeError, match=f"{kind.__name__} overrides step or apply and no differentiate"):
                rs.solve(own, method="newton")
    assert type(own.window(3, 9)) is kind
    assert type(own.sequences(np.array([1]))) is kind


def test_a_function_recurrence_that_overrides_f():
    class Shifted(type(gallery.sine(1.0))):
        def apply(self, previous):
            return super().apply(previous) + 1

    u = np.random.default_rng(0).standard_normal((50, 2))
    rec = Shifted(lambda h, u: 0.5 * np.sin(h) + u, inputs=u, initial=np.zeros(2), structure="diagonal")
    states = np.zeros(2)
    for t in range(50):
        states = 0.5 * np.sin(states) + u[t] + 1
    for method in ("sequential", "jacobi"):
        np.testing.assert_allclose(rs.solve(rec, method=method).final, states, rtol=1e-12)
    with pytest.raises(TypeError, match="no differentiate"):
        rs.solve(rec)


def test_a_recurrence_without_a_hash_is_solved():
    class Equal(CellRecurrence):
        def __eq__(self, other):
            return isinstance(other, Equal)

    rec = gallery.weighted("gru", "dense").recurrence(np.ones((T, 2, 3)))
    own = Equal(rec.cell, rec.drive, None, None, "numpy")
    for backend in BACKENDS:
        with rs.backend(backend):
            np.testing.assert_allclose(rs.solve(own).states, gallery.loop(rec), rtol=1e-12, atol=1e-14)


@pytest.mark.parametrize("name", ["previous", "starts", "from_initial", "evaluate"])
def test_what_all_solvers_take_for_granted_is_not_overridden(name):
    with pytest.raises(TypeError, match=f"overrides {name}"):
        type("Odd", (CellRecurrence,), {name: None})


def test_cells_and_weighted_cells_of_ones_own_are_left_to_numpy():
    cell = gallery.weighted("gru", "diagonal")
    x = np.ones((T, 2, 3))

    class Own(type(cell)):
        def stack_components(self, parts, like):
            return super().stack_components([0.5 * part for part in parts], like)

    own = Own(cell.cell, cell.mixings, cell.parameters, cell.projection, cell.hidden_size)
    assert type(own.astype(np.float32)) is Own
    with rs.backend("numpy"):
        wanted = gallery.loop(own.recurrence(x))
    with rs.backend("numba"):
        np.testing.assert_array_equal(rs.solve(own.recurrence(x), method="sequential").states, wanted)
    sol = rs.solve(own.recurrence(x), method="jacobi")
    assert sol.success
    assert not sol.trusted  # its Jacobian is that of the class it changes
    with pytest.raises(ValueError, match="not the derivative"):
        rs.adjoint(sol, final=sol.final)

    class OwnCell(rs.Cell):
        pass

    with rs.backend("numba"):
        other = OwnCell(cell.cell.function, state=("h",), output="h").random(input_size=3, hidden_size=4)
        assert not other.recurrence(x).compiled


def test_a_projection_that_overrides_its_product_refuses_derivatives():
    cell = gallery.weighted("gru", "diagonal", units=UNITS)

    class Doubling(type(cell.projection)):
        def __call__(self, x):
            return super().__call__(2 * x)

    own = Doubling(cell.projection.weights, cell.projection.biases)
    cell = cell.cell.with_weights(mixings=cell.mixings, parameters=cell.parameters, projection=own)
    x = np.random.default_rng(0).standard_normal((T, 3))
    sol = rs.solve(cell.recurrence(x))
    np.testing.assert_array_equal(rs.solve(cell.astype(np.float64).recurrence(x)).states, sol.states)
    g = rs.adjoint(sol, final=np.ones(UNITS))
    for ask in (lambda: g.inputs, lambda: g.projection, lambda: rs.tangent(sol, inputs=x)):
        with pytest.raises(TypeError, match="Doubling overrides __call__"):
            ask()

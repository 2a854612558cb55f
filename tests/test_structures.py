"""Structured Jacobians against their dense form, and factored ones against finite differences."""

import gallery
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

import recsolve as rs
from recsolve import jacobians
from recsolve.jacobians import Block, Diagonal, LowRank
from recsolve.jacobians.factored import Factored

LAYOUTS = [
    rs.Layout(units=5),
    rs.Layout(units=None),
    rs.Layout(lanes=(2,), units=3),
    rs.Layout(components=2, units=4),
    rs.Layout(components=3, lanes=(2, 2), units=2),
]
LEADING = (4, 2)
OTHERS = jacobians.Jacobian, jacobians.ByParent, jacobians.Pairs  # which belong to graphs and to named states
KINDS = [x for x in vars(jacobians).values() if isinstance(x, type) and x not in OTHERS]


PAIRS = [(kind, layout) for layout in LAYOUTS for kind in KINDS if kind is not Block or layout.components > 1]


def dense_product(matrix, v, layout):
    flat = v.reshape(*LEADING, layout.size)
    return (matrix @ flat[..., None])[..., 0].reshape(v.shape)


@pytest.mark.parametrize(("kind", "layout"), PAIRS)
@given(seed=gallery.seeds)
def test_products_agree_with_the_dense_form(kind, layout, seed):
    rng = np.random.default_rng(seed)
    J = gallery.structure(kind, layout, LEADING, rng)
    v = rng.standard_normal(LEADING + layout.event)
    dense = J.todense()
    assert dense.shape == (*LEADING, layout.size, layout.size)
    assert J.leading == LEADING
    np.testing.assert_allclose(J.matvec(v), dense_product(dense, v, layout), atol=1e-12)
    np.testing.assert_allclose(J.rmatvec(v), dense_product(dense.swapaxes(-1, -2), v, layout), atol=1e-12)
    np.testing.assert_array_equal(J.transpose().todense(), dense.swapaxes(-1, -2))
    np.testing.assert_array_equal(J[1:3].todense(), dense[1:3])
    np.testing.assert_array_equal(J[2].matvec(v[2]), J.matvec(v)[2])


@pytest.mark.parametrize("layout", LAYOUTS)
@given(a=st.sampled_from(KINDS), b=st.sampled_from(KINDS), c=st.sampled_from(KINDS), seed=gallery.seeds)
def test_composition_is_the_dense_product_and_associative(layout, a, b, c, seed):
    rng = np.random.default_rng(seed)
    kinds = [Diagonal if kind is Block and layout.components == 1 else kind for kind in (a, b, c)]
    A, B, C = (gallery.structure(kind, layout, LEADING, rng) for kind in kinds)
    np.testing.assert_allclose(A.compose(B).todense(), A.todense() @ B.todense(), atol=1e-12)
    np.testing.assert_allclose(A.compose(B).compose(C).todense(), A.compose(B.compose(C)).todense(), atol=1e-11)


@pytest.mark.parametrize(("kind", "layout"), PAIRS)
def test_conversions_keep_what_the_structure_holds(kind, layout):
    J = gallery.structure(kind, layout, LEADING, np.random.default_rng(0))
    dense, N = J.todense(), layout.size
    diagonal = np.eye(N, dtype=bool)
    rounding = 1e-13 if kind is LowRank else 0.0  # of the sums of its products
    np.testing.assert_allclose(J.diagonal().todense(), np.where(diagonal, dense, 0), rtol=rounding, atol=rounding)
    np.testing.assert_array_equal(J.lane_dense().todense(), dense)
    unit = np.arange(N).reshape(layout.event) % max(N // layout.components, 1)
    same_unit = unit.ravel()[:, None] == unit.ravel()[None, :]
    np.testing.assert_allclose(J.block().todense(), np.where(same_unit, dense, 0), rtol=rounding, atol=rounding)


def numeric_jacobian(rec, previous, step=1e-6):
    """Central differences of f at every row, (T, *batch, N, N)."""
    N, event = rec.layout.size, rec.layout.event
    columns = []
    for j in range(N):
        unit = np.zeros(N)
        unit[j] = step
        delta = np.broadcast_to(unit.reshape(event), rec.shape)
        difference = rec.apply(previous + delta) - rec.apply(previous - delta)
        columns.append((difference / (2 * step)).reshape(rec.length, *rec.batch, N))
    return np.stack(columns, axis=-1)


@pytest.mark.parametrize("cell", gallery.CELLS, ids="-".join)
@given(seed=gallery.seeds, gain=st.floats(0.5, 3.0))
def test_partials_of_every_cell_against_finite_differences(cell, seed, gain):
    rec = gallery.recurrence(*cell, T=3, batch=(2,), units=4, seed=seed, gain=gain)
    previous = np.random.default_rng(seed).standard_normal(rec.shape)
    F, J = rec.differentiate(previous)
    np.testing.assert_array_equal(F, rec.apply(previous))
    numeric = numeric_jacobian(rec, previous)
    np.testing.assert_allclose(J.todense(), numeric, atol=3e-8)
    v = np.random.default_rng(seed + 1).standard_normal(rec.shape)
    flat = v.reshape(*rec.shape[:2], -1)
    np.testing.assert_allclose(J.matvec(v).reshape(flat.shape), (numeric @ flat[..., None])[..., 0], atol=1e-6)
    np.testing.assert_allclose(
        J.rmatvec(v).reshape(flat.shape), (numeric.swapaxes(-1, -2) @ flat[..., None])[..., 0], atol=1e-6
    )


@pytest.mark.parametrize("cell", gallery.CELLS, ids="-".join)
def test_block_and_diagonal_of_a_factored_jacobian_are_exact(cell):
    rec = gallery.recurrence(*cell, T=5, units=4, gain=2.0)
    J = rec.linearise(gallery.loop(rec))[1]
    assert isinstance(J, Factored) == (cell[1] != "diagonal" and cell[0] != "minmax")
    np.testing.assert_allclose(J.block().todense(), J.lane_dense().block().todense(), atol=1e-14)
    np.testing.assert_allclose(J.diagonal().todense(), J.lane_dense().diagonal().todense(), atol=1e-14)
    np.testing.assert_allclose(J.transpose().block().todense(), J.block().todense().swapaxes(-1, -2), atol=1e-14)


@pytest.mark.parametrize("mixing", ["dense", "heads", "diagonal"])
def test_three_nested_mixings(mixing):
    def deep(s, W, u, p):
        return np.tanh(W.a(s.x * np.tanh(W.b(s.y * np.tanh(W.c(s.x) + u.a))))), W.a(s.x) * 0.3

    cell = rs.Cell(deep, state=("x", "y"), output="x")
    rec = cell.random(input_size=2, hidden_size=4, mixing=mixing, heads=2 if mixing == "heads" else None, rng=0)
    rec = rec.recurrence(np.random.default_rng(0).standard_normal((4, 2, 2)))
    previous = np.random.default_rng(1).standard_normal(rec.shape)
    J = rec.differentiate(previous)[1]
    np.testing.assert_allclose(J.todense(), numeric_jacobian(rec, previous), atol=1e-8)
    np.testing.assert_allclose(J.block().todense(), J.lane_dense().block().todense(), atol=1e-14)
    assert rs.solve(rec, method="quasi_newton").success


def test_newton_on_a_factored_jacobian_forms_no_dense_matrix(monkeypatch):
    monkeypatch.setattr(Factored, "lane_dense", lambda self: pytest.fail("formed a dense Jacobian"))
    for method in ("newton", "quasi_newton", "damped_newton"):
        sol = rs.solve(gallery.recurrence("cho_gru", "dense"), method=method)
        assert sol.trusted

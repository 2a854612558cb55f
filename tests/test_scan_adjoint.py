"""Gradients of scans: every monoid against differences, structures, cuts, kinds and ties."""

from itertools import product

import gallery
import monoid_gallery
import numpy as np
import pytest
import torch
from test_structures import KINDS

import recsolve as rs
from recsolve.base.overriding import changed
from recsolve.jacobians import Block, Diagonal, LaneDense, Scalar
from recsolve.kernels.monoids import MONOIDS

DIFFERENTIABLE = sorted(set(MONOIDS) - {"finite_map"})
SEMIRINGS = ("max_min", "max_plus", "min_plus")


class Cubes(rs.Monoid):
    """x -> x + b, b the cube of an element: elementwise, without a derivative of its own."""

    letters = ("a",)

    def act(self, elements, states):
        return states + elements[0] ** 3

    def compose(self, later, earlier):
        return (np.cbrt(earlier[0] ** 3 + later[0] ** 3),)

    def identity(self, elements):
        return (np.zeros_like(elements[0]),)

    def constant(self, elements, initial):
        return elements[0] ** 3


def problems(T):
    """Yield a name or a class, elements and a state; no two numbers are equal."""
    rng = np.random.default_rng(T)
    for name in DIFFERENTIABLE:
        elements = monoid_gallery.elements(name, T, (2, 3), rng, size=2)
        yield name, elements, monoid_gallery.state(name, elements, rng) + 0.1
    for name in SEMIRINGS:
        elements = rng.standard_normal((T, 2, 3, 3)), rng.standard_normal((T, 2, 3))
        yield name, elements, rng.standard_normal((2, 3))
    yield Cubes, (rng.standard_normal((T, 2, 3)),), rng.standard_normal((2, 3))


def ways(T, restarts, state):
    rng = np.random.default_rng(T)
    some, all_time = rng.random((T, 2)) < 0.2, rng.random(T) < 0.2
    for given in ({}, {"reset": some}, {"reset": all_time, "reverse": True}, {"reverse": True}):
        for initial in (state,) if restarts else (None, state):
            yield {**given, "initial": initial}


def slope(monoid, elements, cotangent, directions, way, along):
    """Return the derivative of <cotangent, y> along directions, by differences."""

    def value(h):
        moved = tuple(e + h * d for e, d in zip(elements, directions, strict=True))
        initial = None if way["initial"] is None else way["initial"] + h * along
        return (cotangent * rs.scan(monoid, moved, **{**way, "initial": initial})).sum()

    return (value(1e-6) - value(-1e-6)) / 2e-6


@pytest.mark.parametrize("T", [1, 2, 40])
def test_gradients_agree_with_differences(T):
    for monoid, elements, state in problems(T):
        rng = np.random.default_rng(1)
        restarts = (MONOIDS[monoid] if isinstance(monoid, str) else monoid()).restarts
        for way in ways(T, restarts, state):
            y = rs.scan(monoid, elements, **way)
            c, along = rng.standard_normal(y.shape), rng.standard_normal(state.shape)
            directions = [rng.standard_normal(e.shape) for e in elements]
            g = rs.scan_adjoint(monoid, elements, y, c, **way)
            found = sum((a * d).sum() for a, d in zip(g.elements, directions, strict=True))
            assert [a.shape for a in g.elements] == [e.shape for e in elements]
            assert (g.initial is None) == (way["initial"] is None)
            found += 0 if g.initial is None else (g.initial * along).sum()
            wanted = slope(monoid, elements, c, directions, way, along)
            assert found == pytest.approx(wanted, rel=1e-5, abs=1e-6 * abs(c).sum()), (monoid, list(way))


@pytest.mark.parametrize("kind", KINDS)
def test_gradients_of_the_entries_of_structures(kind):
    layout, rng = rs.Layout(components=2, lanes=(2,), units=3), np.random.default_rng(0)
    A = gallery.structure(kind, layout, (9, 2), rng, gain=0.3)
    b, start = rng.standard_normal((9, 2, *layout.event)), rng.standard_normal((2, *layout.event))
    way = {"initial": start, "reset": np.arange(9) == 4, "reverse": True}
    c, d = rng.standard_normal((2, *b.shape))
    g = rs.scan_adjoint("affine", (A, b), rs.scan("affine", (A, b), **way), c, **way)
    if not hasattr(A, "data") or g.elements[0] is None:
        along, moved = 0.0, lambda h: A
    else:
        e = rng.standard_normal(A.data.shape)
        along, moved = (g.elements[0].data * e).sum(), lambda h: changed(A, data=A.data + h * e)
    value = lambda h: (c * rs.scan("affine", (moved(h), b + h * d), **way)).sum()  # noqa: E731
    found = along + (g.elements[1] * d).sum()
    assert found == pytest.approx((value(1e-6) - value(-1e-6)) / 2e-6, rel=1e-6)


def test_what_is_the_same_at_all_times_gets_the_sum():
    rng = np.random.default_rng(0)
    b, c = rng.standard_normal((2, 20, 3, 4))
    A, start = 0.3 * rng.standard_normal((1, 1, 4, 4)), rng.standard_normal(4)
    full, starts = np.broadcast_to(A, (20, 3, 4, 4)), np.broadcast_to(start, (3, 4))
    y = rs.scan("affine", (A, b), initial=start)
    np.testing.assert_allclose(y, rs.scan("affine", (full, b), initial=starts))
    g = rs.scan_adjoint("affine", (A, b), y, c, initial=start)
    one = rs.scan_adjoint("affine", (full, b), y, c, initial=starts)
    np.testing.assert_allclose(g.elements[0], one.elements[0].sum(axis=(0, 1), keepdims=True))
    np.testing.assert_allclose(g.initial, one.initial.sum(axis=0))
    structured = rs.scan_adjoint("affine", (rs.jacobians.LaneDense(full, rs.Layout(units=4)), b), y, c, initial=starts)
    np.testing.assert_allclose(structured.elements[0].data, one.elements[0])
    with_cuts = {"initial": start, "reset": np.arange(20) % 6 == 2, "reverse": True}
    y = rs.scan("affine", (A, b), **with_cuts)
    g = rs.scan_adjoint("affine", (A, b), y, c, **with_cuts)
    one = rs.scan_adjoint("affine", (full, b), y, c, **{**with_cuts, "initial": starts})
    np.testing.assert_allclose(g.elements[0], one.elements[0].sum(axis=(0, 1), keepdims=True))
    a = rs.scan_adjoint("affine", (0.5, b), rs.scan("affine", (0.5, b)), c).elements[0]
    each = rs.scan_adjoint("affine", (np.full_like(b, 0.5), b), rs.scan("affine", (0.5, b)), c).elements[0]
    assert a.shape == ()
    np.testing.assert_allclose(a, each.sum())


def test_complex_gradients_are_those_of_torch():
    rng = np.random.default_rng(0)
    a, b, c = 0.5 * (rng.standard_normal((3, 6, 2)) + 1j * rng.standard_normal((3, 6, 2)))
    for A in (a, a.real.copy()):
        y = rs.scan("affine", (A, b))
        g = rs.scan_adjoint("affine", (A, b), y, c)
        At, bt = torch.tensor(A, requires_grad=True), torch.tensor(b, requires_grad=True)
        h, loss = torch.zeros(2, dtype=torch.complex128), 0.0
        for t in range(6):
            h = At[t] * h + bt[t]
            loss = loss + (torch.tensor(c[t]).conj() * h).real.sum()
        loss.backward()
        np.testing.assert_allclose(g.elements[0], At.grad.numpy(), atol=1e-14)
        np.testing.assert_allclose(g.elements[1], bt.grad.numpy(), atol=1e-14)


class Lengths(Cubes):
    """x -> x + |b|, which has no complex derivative."""

    dtypes = (np.dtype(complex),)

    def act(self, elements, states):
        return states + abs(elements[0])

    def constant(self, elements, initial):
        return abs(elements[0]) + 0j


def test_complex_numbers_of_other_monoids():
    z, c = np.array([1.0, 2j, -3.0]), np.array([0.0, 1j, 1.0])
    g = rs.scan_adjoint("addition", (z,), rs.scan("addition", (z,), initial=1.0), c, initial=1.0)
    np.testing.assert_array_equal(g.elements[0], [1 + 1j, 1 + 1j, 1])
    assert g.initial == 1
    with pytest.raises(TypeError, match="the Lengths monoid has no derivative of complex numbers"):
        rs.scan_adjoint(Lengths, (z,), rs.scan(Lengths, (z,)), c)


def test_a_mask_in_the_shape_of_the_states_cuts_as_one_of_time():
    rng = np.random.default_rng(0)
    elements, cuts = (rng.standard_normal((20, 3)), rng.standard_normal((20, 3))), np.arange(20) % 7 == 3
    y = rs.scan("logsumexp", elements, reset=cuts)
    c = rng.standard_normal(y.shape)
    full = np.broadcast_to(cuts[:, None, None], y.shape)
    for a, b in zip(
        *(rs.scan_adjoint("logsumexp", elements, y, c, reset=x).elements for x in (cuts, full)), strict=True
    ):
        np.testing.assert_array_equal(a, b)


def test_kinds_dtypes_and_axes():
    rng = np.random.default_rng(0)
    m, v, c = rng.standard_normal((5, 40)), rng.standard_normal((5, 40, 2)), rng.standard_normal((5, 40, 3))
    elements, turned = (-0.1, m, v), (-0.1, m.T, v.swapaxes(0, 1))
    y = rs.scan("weighted_logsumexp", turned)
    wanted = rs.scan_adjoint("weighted_logsumexp", turned, y, c.swapaxes(0, 1))
    g = rs.scan_adjoint("weighted_logsumexp", elements, y.swapaxes(0, 1), c, axis=1)
    np.testing.assert_allclose(g.elements[1], wanted.elements[1].T)
    np.testing.assert_allclose(g.elements[2], wanted.elements[2].swapaxes(0, 1))
    tensors = tuple(torch.from_numpy(x) if np.ndim(x) else x for x in elements)
    t = rs.scan_adjoint("weighted_logsumexp", tensors, rs.scan("weighted_logsumexp", tensors, axis=1),
                        torch.from_numpy(c), axis=1)  # fmt: skip
    np.testing.assert_array_equal(t.elements[2].numpy(), g.elements[2])
    assert isinstance(t.elements[0], torch.Tensor)
    for dtype, rtol in ((np.float32, 1e-4), (np.float16, 2e-2)):
        low = tuple(x.astype(dtype) for x in turned[1:])
        z = rs.scan("weighted_logsumexp", (-0.1, *low))
        found = rs.scan_adjoint("weighted_logsumexp", (-0.1, *low), z, c.swapaxes(0, 1).astype(dtype)).elements[1]
        assert found.dtype == dtype
        np.testing.assert_allclose(found, wanted.elements[1], rtol=rtol, atol=rtol * abs(wanted.elements[1]).max())


def test_ties_pass_to_the_state_unless_told_otherwise():
    b, start = np.zeros(3), 0.0
    c = np.array([0.0, 0.0, 1.0])
    for name in ("max_plus", "min_plus"):
        y = rs.scan(name, (0.0, b), initial=start)
        for ties, wanted in ((None, 1.0), (0.0, 0.0), (0.5, 0.125)):
            g = rs.scan_adjoint(name, (0.0, b), y, c, initial=start, ties=ties)
            assert g.initial == wanted
    y = rs.scan("logsumexp", (b, 1.0))  # whichever passes, log of the sum has its derivative
    for ties in (0.0, 0.5, 1.0):
        into = rs.scan_adjoint("logsumexp", (b, 1.0), y, np.array([[0, 0], [0, 0], [1, 1 / 3]]), ties=ties).elements[0]
        np.testing.assert_allclose(into, np.full(3, 1 / 3))


def test_what_is_not_finite_does_not_come_back_through_a_cut():
    b, a = np.ones(6), np.full(6, 0.5)
    b[1] = np.nan
    cuts = np.arange(6) == 3
    y = rs.scan("affine", (a, b), reset=cuts)
    g = rs.scan_adjoint("affine", (a, b), y, np.ones(6), reset=cuts)
    assert np.isfinite(g.elements[1]).all()
    np.testing.assert_array_equal(np.isnan(g.elements[0]), [False, False, True, False, False, False])


def test_nothing_to_do():
    for name in DIFFERENTIABLE:
        for T, shape in ((0, (2, 3)), (3, (0, 3))):
            elements = monoid_gallery.elements(name, T, shape, np.random.default_rng(0))
            start = monoid_gallery.state(name, elements, np.random.default_rng(0))
            y = rs.scan(name, elements, initial=start)
            g = rs.scan_adjoint(name, elements, y, y, initial=start)
            assert [a.shape for a in g.elements] == [e.shape for e in elements]
            assert g.initial.shape == start.shape
            assert not g.initial.any()


def test_gradients_of_no_matrices_have_their_shape():
    rng, layout = np.random.default_rng(0), rs.Layout(components=2, units=3)
    for kind, leading in product((Scalar, Diagonal, Block, LaneDense), [(0, 2), (5, 0)]):
        A, b = gallery.structure(kind, layout, leading, rng), np.zeros((*leading, *layout.event))
        found = rs.scan_adjoint("affine", (A, b), rs.scan("affine", (A, b)), b).elements[0]
        assert found.data.shape == A.data.shape, kind


def test_a_subclass_that_acts_otherwise_does_not_inherit_a_derivative():
    class Doubled(type(MONOIDS["addition"])):
        def act(self, elements, states):
            return states + 2 * elements[0]

        def constant(self, elements, initial):
            return 3 * elements[0]

    class Shifted(type(MONOIDS["logsumexp"])):
        def act(self, elements, states):
            return super().act(elements, states) + 1

    b, c = np.ones(3), np.array([0.0, 0.0, 1.0])
    g = rs.scan_adjoint(Doubled, (b,), rs.scan(Doubled, (b,)), c)
    np.testing.assert_array_equal(g.elements[0], [3, 2, 2])
    y = rs.scan(Shifted, (b, b))
    with pytest.raises(TypeError, match="the logsumexp monoid has no derivative"):
        rs.scan_adjoint(Shifted, (b, b), y, y)


class Coupling(Cubes):
    def act(self, elements, states):
        return states.sum(axis=-1, keepdims=True) + elements[0]


@pytest.mark.parametrize(
    ("monoid", "elements", "arguments", "error", "words"),
    [
        ("finite_map", (np.zeros((3, 2), int),), {"initial": 0}, TypeError, "no derivative"),
        (
            Coupling,
            (np.ones((3, 2)),),
            {},
            TypeError,
            "the Coupling monoid has no derivative: its maps are not element",
        ),
        ("addition", (np.ones(3),), {"cotangent": np.ones(4)}, ValueError, "cotangent has shape"),
        ("addition", (np.ones(3),), {"cotangent": np.ones(3, np.float32)}, TypeError, "cotangent has dtype float32"),
        ("addition", (np.ones(3),), {"cotangent": torch.ones(3)}, TypeError, "cotangent is torch"),
        (
            "logsumexp",
            (np.ones((3, 2)),) * 2,
            {"reset": np.arange(12).reshape(3, 2, 2) == 5},
            ValueError,
            "cuts some of the",
        ),
    ],
)
def test_bad_arguments(monoid, elements, arguments, error, words):
    cotangent = arguments.pop("cotangent", None)
    y = rs.scan(monoid, elements, **arguments)
    with pytest.raises(error, match=words):
        rs.scan_adjoint(monoid, elements, y, y if cotangent is None else cotangent, **arguments)

"""Scans of every structure and monoid against the loop."""

import gallery
import monoid_gallery
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from test_structures import KINDS, build

import recsolve as rs
from recsolve.jacobians import Block, Diagonal
from recsolve.kernels import registry
from recsolve.kernels.affine_scan import affine_scan
from recsolve.kernels.monoids.monoid import MONOIDS
from recsolve.kernels.registry import get, register, registered

LENGTHS = (0, 1, 2, 31, 32, 33, 64, 97, 128, 1009)


def reference(A, b, initial, reset, reverse):
    y, state = np.empty_like(b), initial
    steps = range(len(b))[::-1] if reverse else range(len(b))
    for t in steps:
        y[t] = b[t] if state is None else A[t].matvec(state) + b[t]
        if reset is not None:
            y[t] = np.where(reset[t], b[t], y[t])
        state = y[t]
    return y


@pytest.mark.parametrize("T", LENGTHS)
@pytest.mark.parametrize("reverse", [False, True])
@pytest.mark.parametrize("kind", KINDS)
def test_affine_scans_equal_the_loop(kind, reverse, T, monkeypatch):
    layout = rs.Layout(components=2, lanes=(2,), units=3)
    rng = np.random.default_rng(T)
    monkeypatch.setattr("test_structures.LEADING", (T, 2))
    A = build(kind, layout, rng)
    if hasattr(A, "data"):
        A.data *= 0.3
    b = rng.standard_normal((T, 2, *layout.event))
    for initial in (None, rng.standard_normal(b.shape[1:])):
        for reset in (None, rng.random((T, 2)).reshape(T, 2, 1, 1, 1) < 0.05):
            y = affine_scan(A, b, initial=initial, reset=reset, reverse=reverse)
            np.testing.assert_allclose(y, reference(A, b, initial, reset, reverse), rtol=1e-12, atol=1e-12)


@given(seed=gallery.seeds, T=st.integers(1, 400), chunk=st.integers(1, 50), dtype=gallery.dtypes)
def test_any_chunk_length_gives_the_loop(seed, T, chunk, dtype):
    rng = np.random.default_rng(seed)
    A = Diagonal(rng.uniform(-1.05, 1.05, (T, 3)).astype(dtype), rs.Layout(units=3))
    b = rng.standard_normal((T, 3)).astype(dtype)
    y = get("scan")(MONOIDS["affine"], (A, b), chunk=chunk)
    expected = reference(A, b, None, None, False)
    assert np.abs(y - expected).max() <= 100 * np.finfo(dtype).eps * np.abs(expected).max()


@pytest.mark.parametrize("T", LENGTHS)
@given(seed=gallery.seeds, dtype=gallery.dtypes, reverse=st.booleans())
def test_clamp_scans_equal_the_loop_bit_for_bit(T, seed, dtype, reverse):
    rng = np.random.default_rng(seed)
    r, s, start = (rng.standard_normal(shape).astype(dtype) for shape in ((T, 2), (T, 2), (2,)))
    reset = rng.random(T) < 0.1
    y, state = np.empty_like(r), start
    for t in range(T)[::-1] if reverse else range(T):
        state = np.maximum(np.minimum(r[t], start if reset[t] else state), s[t])
        y[t] = state
    np.testing.assert_array_equal(rs.scan("clamp", (r, s), initial=start, reset=reset, reverse=reverse), y)


@pytest.mark.parametrize("name", sorted(MONOIDS))
@given(seed=gallery.seeds)
def test_law_4_monoids(name, seed):
    """Associative, with an identity, and composing then acting is acting twice."""
    monoid, rng = MONOIDS[name], np.random.default_rng(seed)
    a, b, c = (monoid.prepare(monoid_gallery.elements(name, 5, (3,), rng, size=2)) for _ in range(3))
    h = np.stack([monoid_gallery.state(name, a, rng) for _ in range(5)])

    def same(x, y):
        np.testing.assert_allclose(monoid.act(x, h), monoid.act(y, h), rtol=1e-12, atol=1e-12)

    same(monoid.compose(monoid.compose(c, b), a), monoid.compose(c, monoid.compose(b, a)))
    same(monoid.compose(a, monoid.identity(a)), a)
    same(monoid.compose(monoid.identity(a), a), a)
    np.testing.assert_allclose(
        monoid.act(monoid.compose(b, a), h), monoid.act(b, monoid.act(a, h)), rtol=1e-12, atol=1e-12
    )


@pytest.mark.parametrize("T", [40, 400])
@pytest.mark.parametrize("bad", [np.inf, np.nan])
def test_what_is_not_finite_moves_forward_only_and_stops_at_resets(T, bad):
    rng = np.random.default_rng(0)
    A, b = rng.uniform(-1, 1, (T, 2)), rng.standard_normal((T, 2))
    clean = rs.scan("affine", (A, b))
    t0, t1 = T // 2, 3 * T // 4
    for array in (A, b):
        dirty = array.copy()
        dirty[t0] = bad
        elements = (dirty, b) if array is A else (A, dirty)
        reset = np.zeros(T, bool)
        reset[t1] = True
        y = rs.scan("affine", elements, reset=reset)
        np.testing.assert_array_equal(y[:t0], clean[:t0])
        np.testing.assert_allclose(y[t1:], rs.scan("affine", (A[t1:], b[t1:])), rtol=1e-13, atol=1e-13)
        assert not np.isfinite(y[t0]).any()


def test_float32_keeps_the_accuracy_of_the_loop_where_products_grow():
    """|A| = 1.05, T = 1024: tree scans lose every digit here."""
    A, b = np.full((1024, 1), 1.05), np.ones((1024, 1))
    exact = rs.scan("affine", (A, b))
    y = rs.scan("affine", (A.astype(np.float32), b.astype(np.float32)))
    assert np.abs(y / exact - 1).max() < 64 * np.finfo(np.float32).eps * 10  # |A| itself is rounded: 1024 eps / 2


def test_work_is_linear_in_T():
    """Count the rows that a scan touches: composing and stepping each see every row about once."""

    class Counting(type(MONOIDS["affine"])):
        rows = 0

        def act(self, elements, states):
            Counting.rows += states.shape[0] if states.ndim > 1 else 1
            return super().act(elements, states)

        def compose(self, later, earlier):
            Counting.rows += later[1].shape[0]
            return super().compose(later, earlier)

    for T in (1_000, 4_000, 16_000):
        Counting.rows = 0
        A = Diagonal(np.full((T, 1), 0.5), rs.Layout(units=1))
        get("scan")(Counting(), (A, np.ones((T, 1))))
        assert Counting.rows <= 2.5 * T


def test_axis_kinds_and_layout():
    A, b = np.full((3, 50), 0.5), np.ones((3, 50))
    np.testing.assert_array_equal(rs.scan("affine", (A, b), axis=1), rs.scan("affine", (A.T, b.T)).T)
    bt = np.ones((4, 50, 2)).swapaxes(0, 1)  # (T, B, n) over (B, T, n) memory
    y = rs.scan("affine", (0.5 * bt, bt))
    assert y.swapaxes(0, 1).flags.c_contiguous


@pytest.mark.parametrize(
    ("arguments", "error", "words"),
    [
        ({"monoid": "max", "elements": (1, 2)}, ValueError, "monoid is 'max'"),
        ({"monoid": "affine", "elements": np.ones(3)}, ValueError, "elements"),
        ({"monoid": "affine", "elements": (np.ones(3), np.ones(4))}, ValueError, r"\(3,\) and \(4,\)"),
        ({"monoid": "affine", "elements": (np.ones(3, int), np.ones(3))}, TypeError, r"elements\[0\] has dtype int"),
        ({"monoid": "clamp", "elements": (np.ones((3, 1)), np.ones((3, 1)))}, ValueError, "initial is None"),
        ({"monoid": "affine", "elements": (np.ones(3), np.ones(3)), "reset": np.ones(3)}, TypeError, "wanted bool"),
        ({"monoid": "affine", "elements": (np.ones((3, 2)),) * 2, "initial": np.ones(5)}, ValueError, "initial has"),
        ({"monoid": "affine", "elements": (np.ones(3),) * 2, "reset": np.ones(4, bool)}, ValueError, "reset has shape"),
    ],
)
def test_bad_arguments(arguments, error, words):
    monoid, elements = arguments.pop("monoid"), arguments.pop("elements")
    with pytest.raises(error, match=words):
        rs.scan(monoid, elements, **arguments)


def test_the_registry_of_kernels():
    assert registered() == {"scan": ["cuda", "numba", "numpy"]}
    with pytest.raises(ValueError, match="no kernel 'scan' on backend 'abacus'"):
        get("scan", "abacus")

    @register("scan", "abacus")
    def kernel():
        """A sibling."""

    try:
        assert get("scan", "abacus") is kernel
    finally:
        del registry._REGISTRY["scan", "abacus"]


def test_block_needs_components():
    A = Block(np.ones((5, 2, 2, 3)), rs.Layout(components=2, units=3))
    with pytest.raises(ValueError, match="b has shape"):
        rs.scan("affine", (A, np.ones((5, 3))))

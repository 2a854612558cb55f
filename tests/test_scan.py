"""Scans of every structure and monoid against the loop."""

from importlib import import_module

import gallery
import monoid_gallery
import numpy as np
import pytest
from hypothesis import given
from test_structures import KINDS

import recsolve as rs
from recsolve.jacobians import Block, Diagonal, Jacobian
from recsolve.kernels import registry
from recsolve.kernels.affine_scan import affine_scan
from recsolve.kernels.monoids.monoid import MONOIDS
from recsolve.kernels.registry import get, register, registered

scans = import_module("recsolve.scan")  # whose name is the function in the package
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
def test_affine_scans_equal_the_loop(kind, reverse, T):
    layout = rs.Layout(components=2, lanes=(2,), units=3)
    rng = np.random.default_rng(T)
    A = gallery.structure(kind, layout, (T, 2), rng, gain=0.3)
    b = rng.standard_normal((T, 2, *layout.event))
    for initial in (None, rng.standard_normal(b.shape[1:])):
        for reset in (None, rng.random((T, 2)).reshape(T, 2, 1, 1, 1) < 0.05):
            y = affine_scan(A, b, initial=initial, reset=reset, reverse=reverse)
            np.testing.assert_allclose(y, reference(A, b, initial, reset, reverse), rtol=1e-12, atol=1e-12)


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
    assert registered()["scan"] == ["cuda", "numba", "numpy"]
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


def test_numbers_and_axes_of_length_1_are_the_same_everywhere():
    """They repeat with stride 0, on every backend, and give what full arrays do."""
    rng = np.random.default_rng(0)
    b = rng.standard_normal((3000, 4, 3))
    for A in (
        0.5,
        0.9 * rng.random((1, 1, 3)),
        0.3 * rng.standard_normal((1, 1, 3, 3)),
        0.9 * rng.random((3000, 1, 1)),
    ):
        shape = b.shape if np.ndim(A) < 4 else (*b.shape, 3)
        full = np.ascontiguousarray(np.broadcast_to(A, shape))
        for backend in ("numpy", "numba"):
            with rs.backend(backend):
                y = rs.scan("affine", (A, b))
                np.testing.assert_allclose(y, rs.scan("affine", (full, b)), rtol=1e-12, atol=1e-12)
                back = rs.scan("affine", (A, b), reverse=True, reset=np.arange(3000) % 9 == 0)
                wanted = rs.scan("affine", (full, b), reverse=True, reset=np.arange(3000) % 9 == 0)
                np.testing.assert_allclose(back, wanted, rtol=1e-12, atol=1e-12)
                low = rs.scan("clamp", (2.0, b), initial=0.0)
                np.testing.assert_array_equal(low, rs.scan("clamp", (np.full_like(b, 2.0), b), initial=0.0))
    A = 0.3 * rng.standard_normal((1, 3, 3))
    y = rs.scan("affine", (A, b[:, 0]), initial=b[0, 0])
    with pytest.raises(ValueError, match=r"wanted A of \(3000, 3\) or \(3000, 3, 3\)"):
        rs.scan("affine", (A[0], b[:, 0]))
    turned = rs.scan("affine", (A.swapaxes(0, 1), b[:, 0].T), initial=b[0, 0], axis=1)
    np.testing.assert_allclose(turned.T, y)
    np.testing.assert_allclose(y[1], A[0] @ y[0] + b[1, 0])


def test_complex_and_real_numbers_together():
    rng = np.random.default_rng(0)
    a, b = rng.random((300, 2)), rng.standard_normal((300, 2))
    z = b * np.exp(1j * b)
    for A, B, start in ((a, z, None), (0.5 * z, b, None), (0.5j, b, None), (a, b, 1j), (a, b, z[0]), (z / 9, b, b[0])):
        full = np.broadcast_to(A, b.shape).astype(complex), B.astype(complex)
        row = None if start is None else np.broadcast_to(start, (2,)).astype(complex)
        y = rs.scan("affine", (A, B), initial=start)
        assert y.dtype == complex
        np.testing.assert_array_equal(y, rs.scan("affine", full, initial=row))
    single = rs.scan("affine", (a.astype(np.float32), z.astype(np.complex64)))
    assert single.dtype == np.complex64
    J = Diagonal(a, rs.Layout(units=2))
    np.testing.assert_array_equal(rs.scan("affine", (J, z)), rs.scan("affine", (a, z)))
    np.testing.assert_allclose(rs.scan("addition", (z,), initial=1.0), 1 + np.cumsum(z, axis=0))
    for arguments in ({"elements": (a.astype(np.float32), z)}, {"elements": (a, b), "initial": np.complex64(1j) * b}):
        arguments = {k: v.astype(np.complex64) if k == "initial" else v for k, v in arguments.items()}
        with pytest.raises(TypeError):
            rs.scan("affine", **arguments)
    with pytest.raises(TypeError, match="initial is 1j; wanted a number of dtype float64"):
        rs.scan("max_plus", (a, b), initial=1j)


def test_masks_of_0_and_1():
    a, b = np.full((2, 50, 3), 0.5)
    cuts = np.arange(50) % 7 == 3
    for dtype in (np.uint8, np.int64):
        np.testing.assert_array_equal(
            rs.scan("affine", (a, b), reset=cuts.astype(dtype)), rs.scan("affine", (a, b), reset=cuts)
        )
    with pytest.raises(ValueError, match="reset has values from 0 to 2; wanted bool, or integers 0 and 1"):
        rs.scan("affine", (a, b), reset=2 * cuts)
    with pytest.raises(TypeError, match=r"initial is 0\.5; wanted a number of dtype int64"):
        rs.scan("finite_map", (np.zeros((3, 2), int),), initial=0.5)


def test_what_could_be_read_in_two_ways_is_refused():
    A, b = np.ones((5, 3, 3)), np.ones((5, 3))
    for name in ("affine", "max_plus"):
        with pytest.raises(ValueError, match="wanted an array for b, not a number"):
            rs.scan(name, (A, 1.0))
        for wrong in (np.ones((2, 3)), np.ones((5, 3, 1)), np.ones((5, 2, 3)), np.ones(3)):
            with pytest.raises(ValueError, match=r"wanted A of \(5, 3\) or \(5, 3, 3\) \(or a number"):
                rs.scan(name, (wrong, b))
    with pytest.raises(ValueError, match="wanted an array with an axis of time"):
        rs.scan("affine", (0.5, 1.0))


class _Foreign:
    """What NumPy can make an array of, and has no dtype, as a table of another library."""

    ndim, shape = 2, (6, 2)

    def __init__(self, x):
        self.x = x

    def __array__(self, dtype=None, copy=None):
        return self.x

    def __len__(self):
        return len(self.x)


def _given():
    """Elements and initial states that scans take, or refuse, each in its own way."""
    import torch

    x, z = np.linspace(0, 0.9, 12).reshape(6, 2), np.ones((6, 2), np.complex64)
    f, t = x.astype(np.float32), torch.from_numpy(x)
    masked, text = np.ma.masked_array(x, x > 0.5), np.array(["a"] * 6, object)
    foreign, loose = _Foreign(x), memoryview(x)
    pairs = [
        *((foreign, foreign), (foreign, x), (loose, loose)),
        *((x, x), (x[::-1], x), (f, f), (x, f), (x.astype(np.float16),) * 2, (x[:1], x), (x[:, :1], x), (x[:0], x[:0])),
        *((z, z), (x, z), (z.astype(np.complex128),) * 2, (x, z.astype(np.complex128)), (0.5, x), (x, 0.5), (0.5, 0.5)),
        *((x[0, 0], x), (x, np.float64(0.5)), (x, np.array(0.5)), (x.astype(int),) * 2, (x > 0.5,) * 2),
        *((t, t), (t, x), (t, t.float()), (t.bfloat16(),) * 2, (t, t[0, 0]), (t.to("meta"), t), (masked, masked)),
        *((x.tolist(), x), (text, text), (x.astype(">f8"),) * 2, (Diagonal(x, rs.Layout(units=2)), x), (x, x[:5])),
        *((x,), (), (x, x, x), [x, x], (x[:, 0], x[:, 0]), (np.stack([x, x], axis=-1), x)),
    ]
    for elements in pairs:
        for initial in (None, 1, 1.0, 1j, x[0], f[0], z[0], t[0], t[0].float(), x[:, 0], [1.0, 2.0], np.float64(1)):
            for axis in (0, -1):
                yield elements, initial, axis


def test_arrays_alike_are_read_as_all_others_are(monkeypatch):
    def read(monoid, elements, initial, axis):
        try:
            found = scans.read(monoid, elements, initial=initial, reset=None, reverse=False, axis=axis)
        except Exception as error:
            return type(error), str(error)
        arrays = [e.data if isinstance(e, Jacobian) else e for e in found.elements]
        arrays += [] if found.initial is None else [found.initial]
        shown = [(type(x), x.dtype, x.shape, x.strides, x.tolist()) for x in arrays]
        return shown, found.monoid, [type(e) for e in found.elements], found.kind, found.axis, found.alone

    alike, quick = scans._alike, 0
    for elements, initial, axis in _given():
        for monoid in ("affine", "clamp", "logsumexp", "addition"):
            one = elements[:1] if monoid == "addition" else elements
            found = read(monoid, one, initial, axis)
            with monkeypatch.context() as patch:
                patch.setattr(scans, "_alike", lambda *given: None)
                assert read(monoid, one, initial, axis) == found
        try:
            quick += alike(MONOIDS["affine"], elements, initial, axis) is not None
        except Exception:
            continue
    assert quick > 30

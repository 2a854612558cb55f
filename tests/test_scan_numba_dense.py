"""Compiled scans of dense matrices and of factored Jacobians, and scans of float16."""

import gallery
import numpy as np
import pytest
from monoid_gallery import stays_where_it_is
from test_scan_numba import AFFINE, CLAMP, LENGTHS, affine, close, loop, numba_scan, numpy_scan, views

import recsolve as rs
from recsolve.jacobians import Block, Diagonal, Identity, LaneDense, Scalar, Zero
from recsolve.jacobians.factored import Call, Factored
from recsolve.kernels.affine_scan import affine_scan, reverse_solve
from recsolve.kernels.cpu.scan import dense as scan_dense
from recsolve.kernels.cpu.scan import factored_scan as scan_factored
from recsolve.kernels.cpu.scan import scan_numba
from recsolve.mixings import Dense, Heads

LAYOUTS = (
    rs.Layout(units=None),
    rs.Layout(units=2),
    rs.Layout(units=9),
    rs.Layout(lanes=(3,), units=4),
    rs.Layout(components=2, units=5),
    rs.Layout(components=2, lanes=(2, 2), units=3),
)


def matrices(T, layout, batch=(2,), dtype=np.float64, seed=0):
    rng = np.random.default_rng(seed)
    A = gallery.structure(LaneDense, layout, (T, *batch), rng, dtype, gain=0.6 / layout.lane_width)
    return A, rng.standard_normal((T, *batch, *layout.event)).astype(dtype)


def factored(T, layout, batch=(2,), dtype=np.float64, seed=0):
    """A graph of three calls: the second sees the first, the third sees nothing."""
    rng, k, n = np.random.default_rng(seed), layout.components, layout.units
    kind, lanes = (Heads, layout.lanes) if len(layout.lanes) == 1 else (Dense, ())

    def partials(*leaves):
        full = (T, *batch, *layout.lanes, n)
        shapes = [full, (T, *(1 for _ in batch), *layout.lanes, n), (1,) * (len(full) - 1) + (n,)]
        return {
            leaf: np.broadcast_to(rng.uniform(-1, 1, shapes[i % 3]).astype(dtype), full)
            for i, leaf in enumerate(leaves)
        }

    def mixing():
        return kind(rng.uniform(-1, 1, (*lanes, n, n)).astype(dtype) / dtype(n))

    calls = [Call(mixing(), partials(*range(k))), Call(mixing(), partials(k, 0)), Call(mixing(), {})]
    outputs = [partials(k + 1, k, 0), partials(), partials(k + 2, 1)][:k]
    leading = (T, *batch)
    return Factored(calls, outputs, layout, leading), rng.standard_normal((*leading, *layout.event)).astype(dtype) / 4


FACTORED = (
    rs.Layout(units=9),
    rs.Layout(components=3, units=4),
    rs.Layout(components=2, lanes=(3,), units=5),
    rs.Layout(lanes=(2, 2), units=3),
)


def masks(b, rng):
    """No reset, whole steps, sequences, single numbers, and all of the first step."""
    T, ones = len(b), (1,) * (b.ndim - 1)
    first = np.zeros((T, *ones), bool)
    first[:1] = True
    yield from (None, rng.random((T, *ones)) < 0.05, rng.random(b.shape) < 0.05, first)
    if b.ndim > 2:
        yield rng.random((*b.shape[:2], *ones[1:])) < 0.05


@pytest.mark.sample(every=2)  # one dtype each: all of both take long to compile
@pytest.mark.parametrize("dtype", [np.float32, np.float64])
@pytest.mark.parametrize(
    ("make", "layout"), [(matrices, layout) for layout in LAYOUTS] + [(factored, layout) for layout in FACTORED]
)
def test_scans_and_their_transposes(make, layout, dtype):
    for T in LENGTHS:
        rng = np.random.default_rng(T)
        for batch in ((2,), (), (2, 0), (3, 2)) if T == 33 else ((2,),):
            A, b = make(T, layout, batch, dtype)
            start = rng.standard_normal(b.shape[1:]).astype(dtype)
            for J in (A, A.transpose()):
                assert scan_numba.carries(AFFINE, (J, b))
                for reset in masks(b, rng) if T < 1000 else (None, rng.random(b.shape) < 0.01):
                    for initial in (None, start):
                        y = numba_scan(AFFINE, (J, b), initial=initial, reset=reset)
                        assert y.dtype == dtype
                        close(y, numpy_scan(AFFINE, (J, b), initial=initial, reset=reset))
            starts = rng.random((T, *(1 for _ in b.shape[1:]))) < 0.1
            with rs.backend("numba"), np.errstate(all="raise"):
                back, adjoint = affine_scan(A, b, initial=start, reverse=True), reverse_solve(A, starts, b)
            with rs.backend("numpy"):
                close(back, affine_scan(A, b, initial=start, reverse=True))
                close(adjoint, reverse_solve(A, starts, b))


@pytest.mark.parametrize("cell", ["GRU", "LSTM", "Elman"])
@pytest.mark.parametrize("mixing", ["dense", "heads"])
def test_jacobians_of_cells(cell, mixing):
    rng = np.random.default_rng(0)
    net = getattr(rs.cells, cell).random(input_size=3, hidden_size=12, mixing=mixing, rng=0).astype(np.float64)
    for order in ((120, 4), (4, 120)):
        x = rng.standard_normal((*order, 3))
        x = x if order[0] == 120 else x.swapaxes(0, 1)
        h = rng.standard_normal((120, 4, *net.layout.event))
        F, J = net.recurrence(x).linearise(h)
        for matrix in (J, J.transpose(), J.lane_dense()):
            y = numba_scan(AFFINE, (matrix, F), reset=np.arange(120).reshape(120, *(1,) * (F.ndim - 1)) == 0)
            close(y, loop(AFFINE, (matrix, F)))
            assert y.strides == np.empty_like(F).strides


@pytest.mark.parametrize("make", [matrices, factored])
@pytest.mark.parametrize("bad", [np.inf, np.nan])
def test_what_is_not_finite_moves_forward_only_and_stops_at_resets(make, bad):
    A, b = make(60, rs.Layout(components=2, lanes=(3,), units=5))
    reset = (np.arange(60) == 50).reshape(60, 1, 1, 1, 1)
    for t0 in (0, 30):
        for initial in (None, np.full(b.shape[1:], bad)):
            given = {"initial": initial, "reset": reset}
            scan, judge = (lambda arrays, f=f: f(AFFINE, (A, arrays[0]), **given) for f in (numba_scan, loop))  # noqa: B023
            stays_where_it_is(scan, judge, (b,), bad, t0, 1, 50)


@pytest.mark.parametrize("shape", [(40, 3, 5), (33, 1, 2), (9, 4, 17)])
def test_any_strides(shape):
    rng = np.random.default_rng(0)
    T, B, n = shape
    layout = rs.Layout(units=n)
    A, b = matrices(T, layout, (B,))
    expected = loop(AFFINE, (A, b))
    for rows in views(A.data.reshape(T, B, n * n), rng):
        A_view = LaneDense(rows.reshape(T, B, n, n), layout)
        for b_view in views(b, rng):
            close(numba_scan(AFFINE, (A_view, b_view)), expected)
    for data in (np.asfortranarray(A.data), A.data[..., ::-1].copy()[..., ::-1],
                 np.broadcast_to(A.data[:1], A.data.shape), np.repeat(A.data, 2, axis=-1)[..., ::2]):  # fmt: skip
        matrix = LaneDense(data, layout)
        close(numba_scan(AFFINE, (matrix, b)), loop(AFFINE, (matrix, b)))


def test_results_do_not_depend_on_the_number_of_threads(crowd, monkeypatch):
    cases = [matrices(700, rs.Layout(units=12), (7,)), factored(700, rs.Layout(units=12), (7,))]
    monkeypatch.setattr(scan_factored, "_SPREAD", 0)
    cases += [factored(700, rs.Layout(lanes=(9,), units=8), (2,)), matrices(300, rs.Layout(lanes=(9,), units=8), (2,))]
    for A, b in cases:
        monkeypatch.setattr(scan_numba, "threads", lambda: 1)
        crowd.clear()
        alone = numba_scan(AFFINE, (A, b))
        assert not crowd
        for workers in (2, 3, 7):
            crowd.clear()
            monkeypatch.setattr(scan_numba, "threads", lambda workers=workers: workers)
            np.testing.assert_array_equal(numba_scan(AFFINE, (A, b)), alone)
            assert crowd
        with monkeypatch.context() as patch:
            patch.setattr(scan_dense, "_AHEAD", range(0))
            patch.setattr(scan_factored, "_BUFFER", 5000)
            np.testing.assert_array_equal(numba_scan(AFFINE, (A, b)), alone)


def test_large_products_stay_with_blas():
    A, _ = factored(3, rs.Layout(units=20), (5,))
    assert scan_factored.walks(A, np.dtype(np.float64))
    assert not scan_factored.walks(A, np.dtype(np.float32))
    large, _ = factored(1, rs.Layout(units=256), (64,), np.float32)
    assert not scan_factored.walks(large, np.dtype(np.float32))


def halves(kind, T, units, rng):
    """Elements of a structure in float16, and the same numbers in float32."""
    A, b = affine(kind, T, np.float32, rng, units=units)
    stored = b.astype(np.float16)
    if kind in (Zero, Identity):
        return (kind(stored, A.layout), stored), (kind(b, A.layout), stored.astype(np.float32))
    data = A.data.astype(np.float16)
    wide = kind(data.astype(np.float32), A.layout), stored.astype(np.float32)
    return (kind(data, A.layout), stored), wide


@pytest.mark.parametrize("backend", ["numpy", "numba"])
@pytest.mark.parametrize("T", LENGTHS)
@pytest.mark.parametrize("kind", [Zero, Identity, Scalar, Diagonal, Block, LaneDense])
def test_float16_is_a_way_to_store_numbers(kind, T, backend, monkeypatch):
    """The scan is that of the float32 numbers, rounded once, whatever window of time is widened at once."""
    monkeypatch.setattr(scan_numba, "_WINDOW", 3000)
    rng = np.random.default_rng(T)
    for units in (1, 3, 30) if kind is not LaneDense else (1, 4):
        half, wide = halves(kind, T, units, rng)
        start = rng.standard_normal(wide[1].shape[1:]).astype(np.float32)
        for reset in (None, rng.random((T, 2)) < 0.05, rng.random(half[1].shape) < 0.01):
            for initial in (None, start):
                for reverse in (False, True):
                    options = {"initial": initial, "reset": reset, "reverse": reverse}
                    with rs.backend(backend):
                        y = rs.scan("affine", half, **options)
                        expected = rs.scan("affine", wide, **options)
                    assert y.dtype == np.float16
                    with np.errstate(over="ignore"):
                        np.testing.assert_array_equal(y, expected.astype(np.float16))


@pytest.mark.parametrize("backend", ["numpy", "numba"])
def test_float16_clamps_and_arrays(backend, monkeypatch):
    monkeypatch.setattr(scan_numba, "_WINDOW", 3000)
    rng = np.random.default_rng(0)
    r, s = rng.standard_normal((2, 700, 40)).astype(np.float16)
    start, reset = rng.standard_normal(40).astype(np.float16), rng.random((700, 40)) < 0.02
    wide = r.astype(np.float32), s.astype(np.float32), start.astype(np.float32)
    with rs.backend(backend):
        y = rs.scan("clamp", (r, s), initial=start, reset=reset)
        np.testing.assert_array_equal(y, loop(CLAMP, wide[:2], wide[2], reset).astype(np.float16))
        y = rs.scan("affine", (r.T, s.T), initial=start, axis=1)
        np.testing.assert_array_equal(
            y, rs.scan("affine", (wide[0].T, wide[1].T), initial=wide[2], axis=1).astype(y.dtype)
        )
        torch = pytest.importorskip("torch")
        tensor = rs.scan("affine", (torch.from_numpy(r), torch.from_numpy(s)))
        assert tensor.dtype == torch.float16
        np.testing.assert_array_equal(tensor.numpy(), rs.scan("affine", (r, s)))


def test_float16_adds_up_in_float32():
    """2048 + 1 is 2048 in float16."""
    y = rs.scan("affine", (np.ones((4096, 1), np.float16), np.ones((4096, 1), np.float16)))
    assert y[-1, 0] == 4096


@pytest.mark.parametrize(
    ("monoid", "elements", "options", "words"),
    [
        (
            "riccati",
            (np.ones((3, 2, 2), np.float16),) * 3,
            {},
            r"elements\[0\] has dtype float16; wanted float32 or float64",
        ),
        ("affine", (np.ones(3, np.float16),) * 2, {"initial": np.ones((), np.float64)}, "initial has dtype float64"),
        ("affine", (np.ones(3, np.float16), np.ones(3)), {}, "dtypes are mixed"),
    ],
)
def test_bad_float16(monoid, elements, options, words):
    with pytest.raises(TypeError, match=words):
        rs.scan(monoid, elements, **options)


def test_float16_tensors_get_gradients_of_their_dtype():
    torch = pytest.importorskip("torch")
    a, b = (torch.full((3,), 0.5, dtype=torch.float16, requires_grad=True) for _ in range(2))
    y = rs.scan("affine", (a, b))
    y.sum().backward()
    assert y.dtype == a.grad.dtype == torch.float16
    assert a.grad.tolist() == [0.0, 0.75, 0.75]
    assert b.grad.tolist() == [1.75, 1.5, 1.0]

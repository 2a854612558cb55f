"""The compiled scan against the NumPy one and a literal loop."""

import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from functools import partial

import gallery
import numpy as np
import pytest
from monoid_gallery import stays_where_it_is

import recsolve as rs
from recsolve.jacobians import Block, Diagonal, Identity, LaneDense, Scalar, Zero
from recsolve.kernels import backends
from recsolve.kernels.affine_scan import affine_scan
from recsolve.kernels.monoids.monoid import MONOIDS
from recsolve.kernels.registry import get

LENGTHS = (0, 1, 31, 32, 33, 1000, 4099)
LONG = 500  # steps from which on not every combination is tried
AFFINE, CLAMP = MONOIDS["affine"], MONOIDS["clamp"]
numba_scan, numpy_scan = get("scan", "numba"), get("scan", "numpy")


def affine(kind, T, dtype, rng, k=2, batch=(2,), units=3, gain=0.4):
    """Random elements of a structure."""
    layout = rs.Layout(components=k, units=units)
    gain = gain / (k * units) ** 0.5 if kind is LaneDense else gain
    b = rng.standard_normal((T, *batch, *layout.event)).astype(dtype)
    return gallery.structure(kind, layout, (T, *batch), rng, dtype, gain), b


@np.errstate(all="ignore")
def loop(monoid, elements, initial=None, reset=None):
    y, state = np.empty_like(monoid.like(elements)), initial
    for t in range(len(y)):
        e = monoid.take(elements, t)
        y[t] = monoid.constant(e, initial) if state is None else monoid.act(e, state)
        if reset is not None:
            y[t] = np.where(reset[t], monoid.constant(e, initial), y[t])
        state = y[t]
    return y


def spoilt_scan(A, scan):
    """Return a scan as a function of the entries of A, and of b."""
    return lambda arrays: scan((type(A)(arrays[0], A.layout), arrays[1]))


def close(y, expected):
    scale = max(np.abs(expected).max(initial=0), 1)
    np.testing.assert_allclose(y, expected, rtol=0, atol=200 * np.finfo(y.dtype).eps * scale)


@pytest.mark.sample(every=2)  # one dtype each: all of both take long to compile
@pytest.mark.parametrize("dtype", [np.float32, np.float64])
@pytest.mark.parametrize(
    ("kind", "k"),
    [(Zero, 2), (Identity, 2), (Scalar, 2), (Diagonal, 2), (Block, 2), (Block, 3), (Block, 4), (LaneDense, 2)],
)
def test_affine_scans(kind, k, dtype):
    for T in LENGTHS:
        rng = np.random.default_rng(T)
        for units in (1, 3, 40) if kind is not LaneDense else (1, 3, 6):
            A, b = affine(kind, T, dtype, rng, k, units=units)
            initials = (None, rng.standard_normal(b.shape[1:]).astype(dtype))
            resets = (None, rng.random((T, 2, 1, 1)) < 0.02)
            at_once = LONG < T  # the loop in Python takes longest of all
            for initial in initials[at_once:]:
                for reset in resets[at_once:]:
                    with rs.backend("numba"), np.errstate(all="raise"):
                        y = affine_scan(A, b, initial=initial, reset=reset)
                        back = affine_scan(A, b, initial=initial, reset=reset, reverse=True)
                    assert y.dtype == dtype
                    close(y, loop(AFFINE, (A, b), initial, reset))
                    close(y, numpy_scan(AFFINE, (A, b), initial=initial, reset=reset))
                    flipped = None if reset is None else reset[::-1]
                    close(back, loop(AFFINE, (A[::-1], b[::-1]), initial, flipped)[::-1])


@pytest.mark.sample(every=2)
@pytest.mark.parametrize("T", LENGTHS)
@pytest.mark.parametrize("dtype", [np.float32, np.float64])
@pytest.mark.parametrize("shape", [(), (1,), (3,), (2, 40), (5, 300)])
def test_clamps_equal_the_loop_bit_for_bit(shape, dtype, T):
    rng = np.random.default_rng(T)
    r, s = (rng.standard_normal((T, *shape)).astype(dtype) for _ in range(2))
    start = rng.standard_normal(shape).astype(dtype)
    for array, bad in ((r, np.nan), (s, np.nan), (r, np.inf), (s, -np.inf)):
        array[rng.random(array.shape) < 0.001] = bad
    for reset in (None, np.broadcast_to((rng.random(T) < 0.01).reshape(T, *(1,) * len(shape)), r.shape)):
        expected = loop(CLAMP, (r, s), start, reset)
        np.testing.assert_array_equal(numba_scan(CLAMP, (r, s), initial=start, reset=reset), expected)
        for chunk in (1, 7, 64):
            np.testing.assert_array_equal(numba_scan(CLAMP, (r, s), initial=start, reset=reset, chunk=chunk), expected)


@pytest.mark.parametrize("T", [1, 33, 1000])
def test_many_lanes_equal_the_loop_bit_for_bit(T):
    """No products are fused with sums, and lanes walk as the loop does."""
    rng = np.random.default_rng(T)
    for kind, k in ((Scalar, 2), (Diagonal, 2), (Block, 2), (Block, 3)):
        A, b = affine(kind, T, np.float32, rng, k, units=64)
        reset = rng.random((T, 2, 1, 1)) < 0.05
        np.testing.assert_array_equal(numba_scan(AFFINE, (A, b), reset=reset), loop(AFFINE, (A, b), reset=reset))


def views(x, rng):
    """The same numbers (T, B, D) in memory of other shapes."""
    T, B, D = x.shape
    yield x.swapaxes(0, 1).copy().swapaxes(0, 1)
    yield np.asfortranarray(x)
    yield x[::-1].copy()[::-1]
    yield x[:, ::-1, ::-1].copy()[:, ::-1, ::-1]
    wide = rng.standard_normal((2 * T, B, 3 * D)).astype(x.dtype)
    wide[::2, :, 1::3] = x
    yield wide[::2, :, 1::3]
    record = np.zeros(x.shape, dtype=[("tag", np.int8), ("x", x.dtype)])  # strides that are no multiple of an entry
    record["x"] = x
    yield record["x"]
    frozen = x.copy()
    frozen.flags.writeable = False
    yield frozen


@pytest.mark.parametrize("shape", [(40, 3, 5), (2500, 1, 3), (300, 4, 50), (7, 40, 1)])
def test_any_strides(shape):
    rng = np.random.default_rng(0)
    a, b, x = rng.uniform(-1, 1, shape), rng.standard_normal(shape), rng.standard_normal(shape[1:])
    expected, clamped = loop(AFFINE, AFFINE.prepare((a, b)), x), loop(CLAMP, (a, b), x)
    for a_view in views(a, rng):
        for b_view in views(b, rng):
            y = numba_scan(AFFINE, AFFINE.prepare((a_view, b_view)), initial=x)
            close(y, expected)
            order = [sorted(range(3), key=lambda axis: -abs(z.strides[axis])) for z in (y, np.empty_like(b_view))]
            assert order[0] == order[1]
        np.testing.assert_array_equal(numba_scan(CLAMP, (a_view, b), initial=x), clamped)
    np.testing.assert_array_equal(numba_scan(CLAMP, (a, b), initial=np.broadcast_to(x[:1, :1], shape[1:])),
                                  loop(CLAMP, (a, b), np.broadcast_to(x[:1, :1], shape[1:])))  # fmt: skip


@pytest.mark.parametrize("T", [33, 3000])
def test_strided_blocks(T):
    rng = np.random.default_rng(0)
    A, b = affine(Block, T, np.float64, rng, k=3, batch=(2, 2), units=4)
    expected = loop(AFFINE, (A, b))
    transposed = Block(A.data.swapaxes(3, 4).copy().swapaxes(3, 4), A.layout)
    for data in (transposed.data, np.asfortranarray(A.data), A.data[::-1].copy()[::-1]):
        for f in (b, np.asfortranarray(b), b[..., ::-1].copy()[..., ::-1]):
            close(numba_scan(AFFINE, (Block(data, A.layout), f)), expected)


@pytest.mark.parametrize("chunk", [1, 3, 64, 500])
@pytest.mark.parametrize(("kind", "k"), [(Diagonal, 2), (Scalar, 2), (Block, 2), (Block, 4), (LaneDense, 2)])
def test_any_block_length(kind, k, chunk):
    rng = np.random.default_rng(chunk)
    A, b = affine(kind, 1100, np.float64, rng, k)
    for reset in (None, rng.random((1100, 2, 1, 1)) < 0.02, rng.random(b.shape) < 0.02):
        for scan in (numba_scan, numpy_scan):  # masks that cut a part of a unit make both of them walk
            close(scan(AFFINE, (A, b), reset=reset, chunk=chunk), loop(AFFINE, (A, b), reset=reset))


@pytest.mark.parametrize("T", [64, 1000])
@pytest.mark.parametrize("kind", [Block, LaneDense])
def test_masks_that_cut_a_part_of_a_unit(kind, T):
    rng = np.random.default_rng(T)
    A, b = affine(kind, T, np.float64, rng)
    reset = rng.random(b.shape) < 0.05
    for reverse in (False, True):
        y = rs.scan("affine", (A, b), reset=reset, reverse=reverse)
        order = slice(None, None, -1 if reverse else 1)
        close(y, loop(AFFINE, (A[order], b[order]), reset=reset[order])[order])


@pytest.mark.parametrize("T", [50, 5000])
@pytest.mark.parametrize("bad", [np.inf, np.nan])
@pytest.mark.parametrize(("kind", "k"), [(Diagonal, 1), (Block, 2), (Block, 3), (LaneDense, 2)])
def test_what_is_not_finite_moves_forward_only_and_stops_at_resets(kind, k, bad, T):
    A, b = affine(kind, T, np.float64, np.random.default_rng(0), k)
    reset = np.zeros((T,) + (1,) * (b.ndim - 1), bool)
    reset[-1] = True
    for t0 in (0, T // 2, T - 2):
        for t1, given in ((T, {}), (T - 1, {"initial": np.ones(b.shape[1:]), "reset": reset})):
            scan, judge = (spoilt_scan(A, partial(f, AFFINE, **given)) for f in (numba_scan, loop))
            stays_where_it_is(scan, judge, (A.data, b), bad, t0, 1, t1)


@pytest.mark.parametrize(("kind", "k"), [(Diagonal, 1), (Block, 2)])
def test_products_that_overflow_are_walked(kind, k):
    """40^49 has no float32; the states, which get their inputs just before A is zero again, have."""
    rng = np.random.default_rng(0)
    A, b = affine(kind, 6000, np.float32, rng, k, batch=(), units=2, gain=0)
    data = A.data if k == 1 else np.moveaxis(A.data[:, range(2), range(2)], 1, -1)
    data[...] = 40
    data[::50] = 0
    b[...] = 1e-30
    b[np.arange(len(b)) % 50 < 45] = 0
    expected = loop(AFFINE, (A, b))
    y = numba_scan(AFFINE, (A, b))
    assert np.isfinite(expected).all()
    np.testing.assert_allclose(y, expected, rtol=1e-5)


def test_results_do_not_depend_on_the_number_of_threads(crowd):
    rng = np.random.default_rng(0)
    for T, units in ((200, 2000), (300_000, 1), (40_000, 7), (500, 1100)):
        b, a = rng.standard_normal((T, units)), rng.uniform(-1, 1, (T, units))
        for monoid, elements in ((AFFINE, AFFINE.prepare((a, b))), (CLAMP, (a, b))):
            results = []
            for threads in (1, 3):
                crowd.clear()
                with rs.backend("numba", threads=threads):
                    results.append(backends.scan(monoid, elements, initial=b[0]))
                assert bool(crowd) == (threads > 1)
            np.testing.assert_array_equal(*results)
            close(results[0], loop(monoid, elements, b[0]))


def test_python_threads_may_call_in():
    rng = np.random.default_rng(0)
    elements = AFFINE.prepare((rng.uniform(-1, 1, (400, 1000)), rng.standard_normal((400, 1000))))
    expected = numba_scan(AFFINE, elements)
    with ThreadPoolExecutor(4) as pool:
        for y in pool.map(lambda _: numba_scan(AFFINE, elements), range(8)):
            np.testing.assert_array_equal(y, expected)


@pytest.mark.skipif(sys.platform == "win32", reason="no fork")
def test_a_forked_child_may_scan():
    code = (
        "import multiprocessing as mp, numpy as np, recsolve as rs\n"
        "x = np.full((400, 1000), 0.5)\n"
        "run = lambda: float(rs.scan('affine', (x, x))[-1, -1])\n"
        "def child(queue): queue.put(run())\n"
        "run(); context = mp.get_context('fork'); queue = context.Queue()\n"
        "worker = context.Process(target=child, args=(queue,)); worker.start()\n"
        "print(queue.get(timeout=60)); worker.join(60); print(worker.exitcode)"
    )
    done = subprocess.run([sys.executable, "-P", "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.split() == ["1.0", "0"]

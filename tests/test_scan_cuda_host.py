"""The CUDA scans on the host: the same sources, with threads, barriers and concurrent blocks emulated.

Sanitizers: ``cd tests && python -m cuda_host address`` (or ``thread``). With RECSOLVE_SLOW=1 every variant is also
compiled by nvcc for sm_90, and must not spill registers.
"""

import mmap
import re
import sys
from functools import partial
from itertools import product

import cuda_host
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from monoid_gallery import remembered, stays_where_it_is
from numpy.lib.stride_tricks import as_strided
from test_scan_numba import AFFINE, CLAMP, LENGTHS, LONG, affine, close, loop, spoilt_scan, views

from recsolve.base.layout import Layout
from recsolve.jacobians import Block, Diagonal, Identity, LaneDense, Scalar, Zero
from recsolve.kernels.gpu.scan import scan_cuda
from recsolve.kernels.gpu.scan.variants import REGIMES, WALKS
from recsolve.kernels.monoids.monoid import MONOIDS
from recsolve.kernels.registry import get

needs_compiler = pytest.mark.skipif(cuda_host.compiler() is None, reason="needs g++")
ALWAYS_WALKS = ("registers", "streamed")
TILES = tuple(regime for regime in REGIMES if regime not in WALKS)


def run(host, monoid, elements, **kwargs):
    with np.errstate(all="raise"):
        return scan_cuda.scan(monoid, elements, machine=host, **kwargs)


def ways(regimes=REGIMES):
    """Regimes, tiles with few and with many lanes."""
    for regime in regimes:
        for width in (None,) if regime in WALKS else (None, 1, 32):
            yield {"regime": regime, "width": width}


@pytest.mark.sample(every=2)  # one dtype each: all of both take long to compile
@needs_compiler
@pytest.mark.parametrize("dtype", [np.float32, np.float64])
@pytest.mark.parametrize(
    ("kind", "k"),
    [(Zero, 2), (Identity, 2), (Scalar, 2), (Diagonal, 2), (Block, 2), (Block, 3), (Block, 4), (LaneDense, 1)],
)
def test_affine_scans(host, kind, k, dtype):
    for T in LENGTHS:
        rng = np.random.default_rng(T)
        A, b = affine(kind, T, dtype, rng, k, units=3)
        x, mask = rng.standard_normal(b.shape[1:]).astype(dtype), rng.random((T, 2, *[1] * (b.ndim - 2))) < 0.02
        for initial, reset in ((None, None), (None, mask), (x, None), (x, mask))[3 * (T > LONG) :]:
            expected = loop(AFFINE, (A, b), initial, reset)
            for way in ways():
                y = run(host, AFFINE, (A, b), initial=initial, reset=reset, **way)
                assert y.dtype == dtype
                if way["regime"] in ALWAYS_WALKS and kind is not LaneDense:  # a lane walks as the loop does
                    np.testing.assert_array_equal(y, expected)
                else:
                    close(y, expected)


def rotations(T, k, rng):
    """Matrices that forget nothing: signs for k = 1, else rotations and reflections."""
    if k == 1:
        return Diagonal(rng.choice([-1.0, 1.0], (T, 2, 3)), Layout(units=3))
    matrices = np.linalg.qr(rng.standard_normal((T, 2, 3, k, k)))[0]
    return Block(np.moveaxis(matrices, 2, -1), Layout(components=k, units=3))


@needs_compiler
@pytest.mark.parametrize("k", [1, 2, 3, 4])
def test_long_memory(host, k):
    """Contractive maps would hide that one is composed twice, or left out."""
    rng = np.random.default_rng(k)
    for T in (33, 1000, 4099):
        A = rotations(T, k, rng)
        b = rng.standard_normal((T, 2, *A.layout.event))
        expected = loop(AFFINE, (A, b), b[0])
        for way in ways():
            np.testing.assert_allclose(run(host, AFFINE, (A, b), initial=b[0], **way), expected, atol=1e-11)


class Watched:
    """A machine that notes what it launches."""

    def __init__(self, host):
        self.host, self.kind, self.processors, self.shared = host, host.kind, host.processors, host.shared
        self.kernels = []

    def launch(self, launch):
        self.kernels.append(launch.kernel)
        self.host.launch(launch)

    def clear(self, report):
        self.host.clear(report)


@needs_compiler
@pytest.mark.parametrize(("dtype", "vector"), [(np.float32, 4), (np.float64, 2), (np.float16, 8)])
def test_times_that_are_nearest_in_memory(host, dtype, vector):
    """Forwards, backwards, and one array in either direction; at once where rows begin at multiples of 16 bytes. Some
    runs wait for the run before them."""
    rng = np.random.default_rng(0)
    for T, fits in ((3, False), (8 * vector, True), (701, False), (704, True)):
        a, b = (x.astype(dtype) for x in (rng.uniform(-1, 1, (2, 35, T)), rng.standard_normal((2, 35, T))))
        for flips in ((1, 1), (-1, -1), (1, -1)):
            A, f = (np.moveaxis(x.copy(), -1, 0)[::flip] for x, flip in zip((a, b), flips, strict=True))
            A[299:501:201, 0, 1] = 0  # between which states are 0, and maps overflow
            A[300:500, 0, 1], f[299:500, 0, 1] = 1e4, 0
            reset = rng.random((T, 2, 1)) < 0.02
            count = vector if fits else 2 if vector == 8 and T % 2 == 0 else 1
            expected = get("scan", "numpy")(AFFINE, AFFINE.prepare((A, f)), reset=reset, chunk=T)
            watched = Watched(host)
            y = run(watched, AFFINE, AFFINE.prepare((A, f)), reset=reset, regime="streamed")
            np.testing.assert_array_equal(y, expected)
            y = run(watched, AFFINE, AFFINE.prepare((A, f)), reset=reset, regime="chained", width=1)
            streamed, chained = watched.kernels
            assert re.search(rf"recsolve::Along<\d+, \d+, {count}>>$", streamed)
            assert re.search(rf", {count}, {'true' if count > 1 else 'false'}, \d+, \d+>$", chained)
            np.testing.assert_allclose(y, expected, rtol=10 * np.finfo(dtype).eps, atol=10 * np.finfo(dtype).eps)


@needs_compiler
@pytest.mark.parametrize("T", [1, 33, 1000])
@pytest.mark.parametrize("kind", [Scalar, Diagonal, Block])
def test_reverse(host, kind, T):
    rng = np.random.default_rng(T)
    A, b = affine(kind, T, np.float64, rng)
    reset = rng.random((T, 2, 1, 1)) < 0.02
    expected = loop(AFFINE, (A[::-1], b[::-1]), b[0], reset[::-1])
    for way in ways():
        close(run(host, AFFINE, (A[::-1], b[::-1]), initial=b[0], reset=reset[::-1], **way), expected)


@needs_compiler
@pytest.mark.parametrize("shape", [(40, 3, 5), (2500, 1, 3), (300, 4, 50), (7, 40, 1)])
def test_any_strides(host, shape):
    rng = np.random.default_rng(0)
    a, b, x = rng.uniform(-1, 1, shape), rng.standard_normal(shape), rng.standard_normal(shape[1:])
    reset = rng.random((*shape[:2], 1)) < 0.05
    expected = loop(AFFINE, AFFINE.prepare((a, b)), x, reset)
    for i, a_view in enumerate(views(a, rng)):
        for j, b_view in enumerate(views(b, rng)):
            for way in ways() if i == j else ({"regime": REGIMES[(i + j) % len(REGIMES)]},):
                y = run(host, AFFINE, AFFINE.prepare((a_view, b_view)), initial=x, reset=reset, **way)
                close(y, expected)
    blocks, drive = affine(Block, 150, np.float64, rng, 2, batch=(2, 3), units=5)
    expected = loop(AFFINE, (blocks, drive))
    moved = Block(np.asfortranarray(blocks.data), blocks.layout), np.moveaxis(np.moveaxis(drive, 3, 0).copy(), 0, 3)
    for way in ways():
        close(run(host, AFFINE, moved, **way), expected)


@needs_compiler
@given(data=st.data())
def test_any_problem(host, data):
    """Structure, shape, layout, regime and width at random."""
    draw = lambda options: data.draw(st.sampled_from(options))  # noqa: E731
    kind, dtype, regime = draw([Scalar, Diagonal, Block, Identity]), draw([np.float32, np.float64]), draw(REGIMES)
    T, k = data.draw(st.integers(0, 700)), draw([2, 3, 4])
    batch = tuple(data.draw(st.lists(st.integers(0, 4), max_size=3)))
    rng = np.random.default_rng(data.draw(st.integers(0, 9)))
    A, b = affine(kind, T, dtype, rng, k, batch=batch, units=draw([1, 2, 37]))
    if batch and draw([True, False]):  # (B, ..., T, D)
        b = np.moveaxis(np.moveaxis(b, 0, len(batch)).copy(), len(batch), 0)
    initial = draw([None, rng.standard_normal(b.shape[1:]).astype(dtype)])
    reset = draw([None, rng.random((T, *batch, 1, 1)) < 0.1])
    width = draw([None, 1, 2, 4, 8, 16, 32])
    y = run(host, AFFINE, (A, b), initial=initial, reset=reset, regime=regime, width=width)
    close(y, loop(AFFINE, (A, b), initial, reset))


@needs_compiler
@pytest.mark.parametrize("bad", [np.nan, np.inf])
@pytest.mark.parametrize(("kind", "k"), [(Diagonal, 2), (Block, 2), (Block, 4)])
def test_what_is_not_finite_stays_in_its_lane_and_after_its_time(host, kind, k, bad):
    A, b = affine(kind, 1600, np.float32, np.random.default_rng(0), k, units=3)
    reset = np.zeros((1600, 2, 1, 1), bool)
    reset[1550] = True
    judge = remembered(spoilt_scan(A, partial(loop, AFFINE, reset=reset)))
    for way, t0 in product(ways(), (0, 1, 130, 1500)):
        scan = spoilt_scan(A, partial(run, host, AFFINE, reset=reset, **way))
        # A lane that is walked rounds otherwise than one whose maps are composed.
        stays_where_it_is(scan, judge, (A.data, b), bad, t0, 1, 1550, rtol=1e-4)


@needs_compiler
@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_products_may_overflow_where_steps_do_not(host, dtype):
    """The state is 0 or small where matrices are large, in some lanes only."""
    rng = np.random.default_rng(0)
    T = 3000
    a, b = rng.uniform(-1, 1, (T, 5)).astype(dtype), rng.standard_normal((T, 5)).astype(dtype)
    a[:, 1], b[:, 1] = 1e20, 0
    a[:, 2] = np.where(np.arange(T) % 100 < 50, 1e3, 1e-3)  # up to 1e150 and back, whereas the state is 0 until t = 60
    b[:, 2] = 0
    a[500:900, 3], b[499:900, 3], a[499, 3] = 1e10, 0, 0
    a[900, 3] = 0
    elements = AFFINE.prepare((a, b))
    expected = loop(AFFINE, elements)
    assert np.isfinite(expected).all()
    for way in ways():
        close(run(host, AFFINE, elements, **way), expected)
    growing = AFFINE.prepare((np.full((T, 2), dtype(1.5)), np.ones((T, 2), dtype)))
    expected = loop(AFFINE, growing)
    for way in ways():
        y = run(host, AFFINE, growing, **way)
        finite = np.isfinite(expected)
        np.testing.assert_array_equal(np.isfinite(y), finite)
        np.testing.assert_allclose(y[finite], expected[finite], rtol=T * np.finfo(dtype).eps)


@needs_compiler
@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="reserves addresses as Linux does")
def test_distances_beyond_32_bits(host):
    """Numbers 2^31 + 7 apart in memory that is reserved only."""
    apart, T, lanes = (1 << 31) + 7, 3, 5
    flags = mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS | getattr(mmap, "MAP_NORESERVE", 0x4000)
    try:
        memory = mmap.mmap(-1, 4 * (T * apart + 1000), flags=flags)
    except (OSError, ValueError):
        pytest.skip("cannot reserve 26 GB of addresses")
    rng = np.random.default_rng(0)
    for strides in ((4 * apart, 4), (4, 4 * apart // 2)):
        b = as_strided(np.frombuffer(memory, np.float32, 1), (T, lanes), strides, writeable=True)
        b[...] = rng.standard_normal(b.shape)
        for elements in (AFFINE.prepare((b, b)), AFFINE.prepare((b, np.ascontiguousarray(b)))):
            expected = loop(AFFINE, (Diagonal(b.copy(), Layout(units=lanes)), b.copy()))
            for way in ways():
                close(run(host, AFFINE, elements, **way), expected)


@needs_compiler
def test_cuts_are_selected_and_not_multiplied(host):
    rng = np.random.default_rng(0)
    for kind, k in ((Diagonal, 1), (Block, 3)):
        A, b = affine(kind, 2000, np.float64, rng, k)
        reset = rng.random((2000, 2, *[1] * (b.ndim - 2))) < 0.01
        A.data[np.broadcast_to(reset if kind is Diagonal else reset[..., None], A.data.shape)] = np.inf
        A.data[0] = np.nan
        expected = loop(AFFINE, (A, b), None, reset)
        assert np.isfinite(expected).all()
        for way in ways():
            close(run(host, AFFINE, (A, b), reset=reset, **way), expected)


@needs_compiler
def test_results_do_not_depend_on_who_comes_first(host):
    rng = np.random.default_rng(0)
    alone = cuda_host.Host(workers=1)
    crowd = cuda_host.Host(workers=8)
    for kind, k in ((Diagonal, 2), (Block, 2)):
        A, b = affine(kind, 5000, np.float32, rng, k, units=20)
        A.data[2000] = 1e30  # some maps overflow
        for width in (1, 8, 32):
            results = [
                run(machine, AFFINE, (A, b), regime="chained", width=width) for machine in (alone, host, crowd, crowd)
            ]
            for y in results[1:]:
                np.testing.assert_array_equal(y, results[0])


@needs_compiler
@pytest.mark.parametrize(("k", "T"), [(1, 5000), (2, 2500)])
def test_looking_far_back(host, k, T):
    """States come so late that many tiles wait, and fetch the maps between in several batches."""
    late = cuda_host.Host(flags=("-DRECSOLVE_LATE_STATES=300",), workers=60)
    A = rotations(T, k, np.random.default_rng(k))
    b = np.random.default_rng(0).standard_normal((T, 2, *A.layout.event))
    A.data[T // 2] *= 1e200
    A.data[T // 2 + 1] *= 1e-200
    y = run(late, AFFINE, (A, b), initial=b[0], regime="chained", width=32)
    np.testing.assert_array_equal(y, run(host, AFFINE, (A, b), initial=b[0], regime="chained", width=32))
    np.testing.assert_allclose(y, loop(AFFINE, (A, b), b[0]), rtol=1e-9, atol=1e-9)


@needs_compiler
def test_what_is_not_carried_goes_to_numpy(host):
    rng = np.random.default_rng(0)
    gains = (np.full((40, 2, 2), 0.1),) * 3
    np.testing.assert_array_equal(run(host, MONOIDS["riccati"], gains), get("scan", "numpy")(MONOIDS["riccati"], gains))
    A, b = affine(Block, 50, np.float64, rng)
    apart = np.zeros(b.shape, bool)
    apart[10, :, 0] = True
    np.testing.assert_array_equal(run(host, AFFINE, (A, b), reset=apart), loop(AFFINE, (A, b), None, apart))
    narrow = affine(LaneDense, 50, np.float64, rng, k=1, units=1)
    assert scan_cuda.carries(AFFINE, narrow, kind="numpy")
    close(run(host, AFFINE, narrow, regime="chained"), loop(AFFINE, narrow))
    wide = affine(LaneDense, 50, np.float64, rng, k=2, units=3)
    assert not scan_cuda.carries(AFFINE, wide, kind="numpy")
    assert not scan_cuda.carries(AFFINE, affine(Diagonal, 50, np.float64, rng))  # NumPy arrays are not CuPy's
    assert not scan_cuda.carries(CLAMP, (b, b), kind="numpy")
    assert not scan_cuda.carries(AFFINE, AFFINE.prepare((b, b)), b[0].astype(np.float32), kind="numpy")
    with pytest.raises(ValueError, match="regime is 'abacus'"):
        run(host, AFFINE, AFFINE.prepare((b, b)), regime="abacus")
    with pytest.raises(ValueError, match="width is 5"):
        run(host, AFFINE, AFFINE.prepare((b, b)), width=5)


@needs_compiler
@pytest.mark.parametrize("shape", [(0, 2, 3), (5, 0, 3), (5, 2, 0), (0, 0), (0,)])
def test_nothing_to_do(host, shape):
    empty = np.empty(shape)
    assert run(host, AFFINE, AFFINE.prepare((empty, empty))).shape == shape

"""The CUDA scans of matrices with 5 to 32 rows, on the host.

With RECSOLVE_SLOW=1 nvcc compiles the kernels for all rows and types, which must not spill registers.
"""

import os
import shutil
from functools import partial

import cuda_host
import monoid_gallery as gallery
import numpy as np
import pytest
from cuda_host.nvcc import spills
from gallery import structure
from test_scan_numba import AFFINE, close, loop, spoilt_scan

from recsolve.base.layout import Layout
from recsolve.jacobians import LaneDense
from recsolve.kernels.gpu.scan import scan_cuda, variants
from recsolve.kernels.gpu.scan.dense_plan import dense_variant, dense_vector
from recsolve.kernels.monoids.monoid import MONOIDS

needs_compiler = pytest.mark.skipif(cuda_host.compiler() is None, reason="needs g++")
LENGTHS = (0, 1, 31, 32, 33, 1000)
ROWS = (5, 8, 13, 32)


def matrices(n, T, dtype, batch=(3,), lanes=()):
    rng = np.random.default_rng(n + T)
    layout = Layout(lanes=lanes, units=n)
    A = structure(LaneDense, layout, (T, *batch), rng, dtype, gain=0.7 / n**0.5)
    b = rng.standard_normal((T, *batch, *lanes, n)).astype(dtype)
    return A, b, rng.random((T, *batch)) < 0.02


def cuts_of(reset, b):
    return reset.reshape(reset.shape + (1,) * (b.ndim - reset.ndim))


def transposed(A):
    return LaneDense(A.data.swapaxes(-1, -2).copy().swapaxes(-1, -2), A.layout)


def scans(machine, n, dtype):
    """Yield scans and what they should give, in all layouts."""
    for T in LENGTHS if n in (5, 32) else (33,):
        A, b, reset = matrices(n, T, dtype)
        cuts = cuts_of(reset, b)
        for elements, initial in (((A, b), None), ((A, b), b[:1].sum(axis=0)), ((transposed(A), b), None)):
            yield run(machine, *elements, initial, cuts), elements, initial, cuts
        yield run(machine, A[::-1], b[::-1], None, cuts[::-1]), (A[::-1], b[::-1]), None, cuts[::-1]
    A, b, reset = matrices(n, 20, dtype, (2, 2), (3,))
    yield run(machine, A, b, None, cuts_of(reset, b)), (A, b), None, cuts_of(reset, b)


def run(machine, A, b, initial=None, reset=None):
    elements = AFFINE.prepare((A, b))
    assert scan_cuda.carries(AFFINE, elements, initial, kind="numpy")
    with np.errstate(all="raise"):
        return scan_cuda.scan(AFFINE, elements, initial=initial, reset=reset, machine=machine)


def semirings(machine):
    for name in ("max_min", "max_plus"):
        rng = np.random.default_rng(0)
        elements = gallery.matrices(name, 100, (3,), rng, np.float32, size=6)
        monoid, reset = MONOIDS[name], rng.random((100, 3)) < 0.05
        y = scan_cuda.scan(monoid, monoid.prepare(elements), reset=reset[..., None], machine=machine)
        yield y, gallery.loop(name, elements, None, reset)


@pytest.fixture(scope="module")
def host():
    machine = cuda_host.Host()
    yield machine
    assert {cuda_host.template(kernel) for _, kernel in machine.kernels} <= {"dense"}


@needs_compiler
@pytest.mark.parametrize("dtype", [np.float32, np.float64])
@pytest.mark.parametrize("n", ROWS)
def test_scans_equal_the_loop(host, n, dtype):
    for y, elements, initial, reset in scans(host, n, dtype):
        assert y.dtype == dtype
        close(y, loop(AFFINE, elements, initial, reset))


@needs_compiler
def test_halves_are_stored_and_floats_are_carried(host):
    for y, (A, b), initial, reset in scans(host, 8, np.float16):
        wide = LaneDense(A.data.astype(np.float32), A.layout), b.astype(np.float32)
        start = None if initial is None else initial.astype(np.float32)
        np.testing.assert_allclose(y, loop(AFFINE, wide, start, reset), rtol=1e-3, atol=1e-3)


@needs_compiler
def test_semirings_equal_the_loop_bit_for_bit(host):
    for y, expected in semirings(host):
        np.testing.assert_array_equal(y, expected)


@needs_compiler
@pytest.mark.parametrize("bad", [np.nan, np.inf])
def test_what_is_not_finite_stays_in_its_lane_and_after_its_time(host, bad):
    A, b, reset = matrices(5, 300, np.float64)
    reset[:] = False
    reset[250] = True
    cuts = cuts_of(reset, b)
    scan = spoilt_scan(A, lambda elements: run(host, *elements, None, cuts))
    gallery.stays_where_it_is(scan, spoilt_scan(A, partial(loop, AFFINE, reset=cuts)), (A.data, b), bad, 150, 1, 250)


@pytest.mark.skipif(not os.environ.get("RECSOLVE_SLOW"), reason="takes a minute: set RECSOLVE_SLOW=1")
@pytest.mark.skipif(shutil.which("nvcc") is None, reason="needs nvcc")
def test_nothing_spills(tmp_path):
    found = [
        dense_variant(monoid, n, dtype, cut=True, vector=vector)
        for monoid in ("affine", "max_plus")
        for dtype in variants.STORAGE
        for n in (5, 8, 13, 16, 24, 32)
        for vector in ({1, dense_vector(dtype)} if n % 8 == 0 else {1})
    ]
    assert set(spills("dense", found, tmp_path)) == {("0", "0", "0")}

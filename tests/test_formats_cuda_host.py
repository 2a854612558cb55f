"""Numbers of 16 bits in the CUDA scans, on the host."""

import cuda_host
import numpy as np
import pytest
from test_scan_cuda_host import ALWAYS_WALKS, needs_compiler, run, ways
from test_scan_numba import AFFINE, affine, loop

from recsolve.jacobians import Block, Diagonal, Scalar
from recsolve.kernels.registry import get


@needs_compiler
@pytest.mark.parametrize("T", [1, 33, 1000])
def test_halves_are_stored_and_floats_are_carried(host, T):
    rng = np.random.default_rng(T)
    for kind, k in ((Scalar, 1), (Diagonal, 1), (Block, 2)):
        A, b = affine(kind, T, np.float16, rng, k)
        x = rng.standard_normal(b.shape[1:]).astype(np.float32)
        expected = get("scan", "numpy")(AFFINE, (A, b), initial=x, chunk=T)
        for way in ways():
            y = run(host, AFFINE, (A, b), initial=x, **way)
            assert y.dtype == np.float16
            np.testing.assert_allclose(y, expected, rtol=1e-3, atol=1e-6)
            if way["regime"] in ALWAYS_WALKS:
                np.testing.assert_array_equal(y, expected)


def as_bfloat(x):
    bits = np.ascontiguousarray(x, np.float32).view(np.uint32)
    return ((bits + 0x7FFF + (bits >> 16 & 1)) >> 16).astype(np.uint16).view(np.float16)


def from_bfloat(x):
    return (x.view(np.uint16).astype(np.uint32) << 16).view(np.float32)


@needs_compiler
def test_bfloats():
    """NumPy has none: bits of bfloat16 pass as float16."""

    class Disguise(cuda_host.Host):
        def launch(self, launch):
            super().launch(launch._replace(kernel=launch.kernel.replace("Half", "Bfloat")))

    rng = np.random.default_rng(0)
    a, b = (as_bfloat(x) for x in (rng.uniform(-1, 1, (700, 3)), rng.standard_normal((700, 3))))
    expected = loop(AFFINE, AFFINE.prepare((from_bfloat(a), from_bfloat(b))))
    for way in ways():
        y = from_bfloat(run(Disguise(), AFFINE, AFFINE.prepare((a, b)), **way))
        np.testing.assert_allclose(y, expected, rtol=2**-8, atol=1e-5)


def test_half_conversions():
    """Of the host, against NumPy's: every half, and floats between them."""
    if cuda_host.compiler() is None:
        pytest.skip("needs g++")
    library = cuda_host.conversions()
    bits = np.arange(1 << 16, dtype=np.uint16)
    expected = bits.view(np.float16)
    out = np.empty(len(bits), np.float32)
    library.from_halves(bits.ctypes.data, out.ctypes.data, len(bits))
    np.testing.assert_array_equal(out, expected.astype(np.float32))
    with np.errstate(invalid="ignore"):
        floats = np.concatenate([out, np.nextafter(out, np.float32(1e9)), out * np.float32(1.00048828125)])
    floats = np.concatenate(
        [floats, np.random.default_rng(0).integers(0, 1 << 32, 100_000).astype(np.uint32).view("f4")]
    )
    back = np.empty(len(floats), np.uint16)
    library.to_halves(floats.ctypes.data, back.ctypes.data, len(floats))
    with np.errstate(over="ignore"):
        np.testing.assert_array_equal(back.view(np.float16), floats.astype(np.float16))

"""What the scans of a GPU plan: regimes by shape, kernels that fit, and what nvcc says of them."""

import os
import shutil

import pytest
from cuda_host.nvcc import spills

from recsolve.kernels.gpu import views as cuda_geometry
from recsolve.kernels.gpu.device import LITTLE, SHARED
from recsolve.kernels.gpu.scan import scan_plan, variants
from recsolve.kernels.gpu.scan.variants import REGIMES, WALKS


@pytest.mark.parametrize(
    ("shape", "regime"),
    [
        ((512, 8, 1024), "streamed"),
        ((2048, 8, 1024), "streamed"),
        ((16384, 8, 1024), "streamed"),
        ((16384, 1, 256), "chained"),
        ((131072, 1, 256), "chained"),
        ((2048, 32, 2048), "registers"),
        ((1_000_003, 1, 64), "chained"),
        ((5000, 4, 768), "chained"),
        ((1000, 1, 4), "tiny"),
    ],
)
def test_the_choice(shape, regime):
    """On a device of 132 multiprocessors."""
    T, B, D = shape

    def chosen(*strides):
        layout = cuda_geometry.Strides(strides[0], 0, 0, strides[1:])
        asked = scan_plan.Scan("affine", 1, "float32", T, (B, D), tuple((name, layout) for name in ("y", "in0", "in1")))
        return scan_plan.plan(asked, 132).variant.regime

    assert chosen(B * D, D, 1) == regime
    assert chosen(1, D * T, T) != "registers"  # (B, D, T): it would read a sector for a number


def test_variants():
    names = [variant.expression for variant in variants.variants()]
    assert len(set(names)) == len(names)
    for variant in variants.variants():
        for width in (1, 2, 4, 8, 16, 32):
            fit = variant if variant.regime in WALKS else variants.fitted(variant, width)
            shared = fit.shared(width, variants.pitch_of(width, by_time=fit.vector == 1))
            assert shared == 0 if variant.regime == "registers" else LITTLE < shared <= SHARED


@pytest.mark.parametrize("room", [48 << 10, 99 << 10, SHARED])
@pytest.mark.parametrize("dtype", ["float16", "float32", "float64"])
def test_every_plan_fits_the_device(room, dtype):
    taken = set()
    for parts in (1, 4):
        for T, lanes in ((100, 3), (5000, 3000), (100_000, 64)):
            strides = cuda_geometry.Strides(lanes, 0, 0, (1,))
            asked = scan_plan.Scan("affine", parts, dtype, T, (lanes,), (("y", strides), ("in0", strides)))
            for regime in (None, *REGIMES):
                try:
                    one = scan_plan.plan(asked, 132, regime, room=room)
                except ValueError:
                    assert regime is not None
                    continue
                assert one.launch.shared <= room
                taken.add(one.variant.regime)
    assert taken >= {"registers", "tiny"}
    assert room < SHARED or taken == set(REGIMES)


@pytest.mark.skipif(not os.environ.get("RECSOLVE_SLOW"), reason="takes minutes: set RECSOLVE_SLOW=1")
@pytest.mark.skipif(shutil.which("nvcc") is None, reason="needs nvcc")
@pytest.mark.parametrize("regime", REGIMES)
def test_nothing_spills(regime, tmp_path):
    assert set(spills(regime, variants.variants(), tmp_path)) == {("0", "0", "0")}

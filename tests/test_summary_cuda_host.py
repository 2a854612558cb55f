"""The CUDA summaries on the host: the same sources, with threads and barriers emulated, against the loop and the tree.

With RECSOLVE_SLOW=1 their kernels are also compiled by nvcc for sm_90, and must not spill registers.
"""

import os
import shutil

import cuda_host
import monoid_gallery as gallery
import numpy as np
import pytest
from cuda_host.nvcc import spills
from test_monoids_cuda_host import CASES, HALVES, IDS, MAPS
from test_scan_numba import affine, close, views
from test_summary import check_summary, loop, masks, out

from recsolve.jacobians import Block, Diagonal, Identity, LaneDense, Scalar
from recsolve.kernels.gpu.scan import summary_cuda, variants
from recsolve.kernels.gpu.scan.maps import cuda_map
from recsolve.kernels.gpu.scan.operands import operands
from recsolve.kernels.monoids.monoid import MONOIDS

needs_compiler = pytest.mark.skipif(cuda_host.compiler() is None, reason="needs g++")
AFFINE = MONOIDS["affine"]


class Watched:
    """A machine that notes what it launches."""

    def __init__(self, host):
        self.host, self.kind, self.processors, self.shared, self.kernels = host, host.kind, 2, host.shared, []

    def launch(self, launch):
        self.kernels.append(cuda_host.template(launch.kernel))
        self.host.launch(launch)


def taken(monoid, elements):
    """Whether there are kernels for elements."""
    given = operands(monoid, elements)
    return given is not None and cuda_map(given.map).composes(given.parts)


MAPPED = [(Diagonal, 1), (Scalar, 2), (Identity, 2), (Block, 3), (Block, 4), (LaneDense, 1), (Block, 2)]
TYPED = [(*one, np.float32) for one in MAPPED] + [(*one, np.float64) for one in reversed(MAPPED)]


@needs_compiler
@pytest.mark.sample(every=7)  # each takes seconds to compile
@pytest.mark.parametrize(("kind", "k", "dtype"), TYPED)
def test_affine_maps(host, kind, k, dtype):
    for T in (1, 33, 4099):
        rng = np.random.default_rng(T)
        A, b = affine(kind, T, dtype, rng, k, units=3 if kind is not LaneDense else 1, gain=1 / k)
        state = rng.standard_normal(b.shape[1:]).astype(dtype)
        for reset in masks(b, rng, together=(2,) if kind is Block else ()):
            watched = Watched(host)
            check_summary(summary_cuda.summarise, AFFINE, (A, b), state, reset, close, machine=watched)
            assert watched.kernels[:1] == ["summary"]


@needs_compiler
@pytest.mark.sample(every=14)
@pytest.mark.parametrize("case", CASES, ids=IDS)
def test_every_map_that_composes(host, case):
    """The law, with blocks that take ranges of tiles; bit for bit where nothing rounds."""
    monoid = MONOIDS[case.name]
    for T in (1, 2500):
        elements, state, reset = case.problem(T)
        prepared = monoid.prepare(elements)
        like = monoid.like(prepared)
        if case.dtype == "float16":
            prepared, like, state = tuple(x.astype(np.float16) for x in prepared), like, state.astype(np.float32)
        wide = tuple(x.astype(np.float32) for x in prepared) if case.dtype == "float16" else prepared
        mask = reset.reshape(reset.shape + (1,) * (like.ndim - reset.ndim))
        for cuts in (None, mask):
            watched = Watched(host)
            found = summary_cuda.summarise(monoid, prepared, initial=state, reset=cuts, machine=watched)
            gallery.agree(case.name, out(monoid, found, state), loop(monoid, wide, state, cuts)[-1])
            assert bool(watched.kernels) == taken(monoid, prepared)


@needs_compiler
def test_any_strides(host):
    """Lanes of any order, times that are nearest in memory and run backwards; one range of tiles and several."""
    rng = np.random.default_rng(0)
    a, b = rng.uniform(-1, 1, (900, 3, 10)), rng.standard_normal((900, 3, 10))
    for a_view, b_view in zip(views(a, rng), views(b, rng), strict=True):
        given = AFFINE.prepare((a_view, b_view))
        check_summary(summary_cuda.summarise, AFFINE, given, b[0], None, close, machine=Watched(host))
    rows = [np.moveaxis(rng.uniform(-1, 1, (2, 1024)), -1, 0)[::-1] for _ in range(2)]
    check_summary(summary_cuda.summarise, AFFINE, AFFINE.prepare(rows), np.ones(2), None, close, machine=Watched(host))


@needs_compiler
def test_steps_are_composed_once_and_in_order(host):
    """Signs that remember would show a step that is left out, or taken twice."""
    rng = np.random.default_rng(0)
    A, b = rng.choice([-1.0, 1.0], (9011, 30)), rng.integers(-9, 9, (9011, 30)).astype(float)
    watched = Watched(host)
    found = summary_cuda.summarise(AFFINE, AFFINE.prepare((A, b)), machine=watched)
    assert watched.kernels == ["summary", "together"]
    np.testing.assert_array_equal(found.element[0].data[0], A.prod(axis=0))
    np.testing.assert_array_equal(found.element[1][0], loop(AFFINE, AFFINE.prepare((A, b)), np.zeros(30))[-1])


@pytest.mark.skipif(not os.environ.get("RECSOLVE_SLOW"), reason="takes minutes: set RECSOLVE_SLOW=1")
@pytest.mark.skipif(shutil.which("nvcc") is None, reason="needs nvcc")
def test_nothing_spills(tmp_path):
    found = variants.variants(regimes=("summary",))
    found += variants.variants([m for m in MAPS if m[0] != "affine:complex"], ("float32", "float64"), ("summary",))
    found += variants.variants(HALVES, ("float16",), ("summary",))
    assert set(spills("summary", found, tmp_path)) == {("0", "0", "0")}

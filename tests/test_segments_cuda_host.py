"""Segments of time of the CUDA scans, on the host: what is launched, what is lost, and what is met again."""

import ctypes
import re

import cuda_host
import numpy as np
import pytest
from test_scan_cuda_host import needs_compiler, run
from test_scan_numba import AFFINE, affine, close, loop

from recsolve.jacobians import Block, Diagonal
from recsolve.kernels.gpu import views as cuda_geometry
from recsolve.kernels.registry import get


class Watched:
    """A machine that notes what it launches."""

    def __init__(self, host):
        self.host, self.kind, self.processors, self.shared = host, host.kind, host.processors, host.shared
        self.kernels = []

    @property
    def seen(self):
        return [cuda_host.template(kernel) for kernel in self.kernels]

    def launch(self, launch):
        self.kernels.append(launch.kernel)
        self.host.launch(launch)


@needs_compiler
@pytest.mark.parametrize("k", [1, 2])
def test_segments_are_the_loop_where_maps_forget(host, k):
    """To the last bit, also where a guess was wrong and the segment meets what it led to."""
    rng = np.random.default_rng(k)
    A, b = affine(Block if k > 1 else Diagonal, 4099, np.float64, rng, k, units=3)
    A.data[1000:1500] = np.eye(k)[:, :, None] if k > 1 else 1.0  # here nothing is forgotten
    for reset in (None, rng.random((4099, 2, *[1] * (b.ndim - 2))) < 0.01):
        watched = Watched(host)
        y = run(watched, AFFINE, (A, b), initial=b[0], reset=reset, regime="segments")
        expected = loop(AFFINE, (A, b), b[0], reset)
        assert watched.seen == ["segments", "segments_again", "chained"]
        np.testing.assert_allclose(y, expected, rtol=1e-9, atol=1e-9)
        A.data[1000:1500] *= 0.5
        y = run(watched, AFFINE, (A, b), initial=b[0], reset=reset, regime="segments")
        np.testing.assert_array_equal(y, loop(AFFINE, (A, b), b[0], reset))


class Flagged(Watched):
    """A machine that notes the flags that are set when segments have been looked at again."""

    def launch(self, launch):
        super().launch(launch)
        if cuda_host.template(launch.kernel) == "segments_again":
            (p,) = launch.problem.view(cuda_geometry.PROBLEM)
            self.segments, self.span, self.burn = (int(p[name]) for name in ("segments", "span", "burn"))
            self.lost = ctypes.c_int.from_address(int(p["changed"])).value
            self.broken = list((ctypes.c_int * int(p["tiles_of_lanes"])).from_address(int(p["broken"])))


@needs_compiler
@pytest.mark.parametrize("bad", [np.nan, np.inf, -np.inf])
def test_a_segment_that_is_lost_is_noticed_and_one_that_was_given_what_is_not_finite_is_not_lost(host, bad):
    """NaN equals NaN here: a segment that starts from the NaN it was given is not walked once more."""
    rng, flagged = np.random.default_rng(0), Flagged(host)
    A, b = affine(Diagonal, 4099, np.float64, rng, units=3)

    def flags(at, value=0.0):
        drive = b.copy()
        drive[at].flat[0] = value
        y = run(flagged, AFFINE, (A, drive), initial=b[0], regime="segments")
        expected = loop(AFFINE, (A, drive), b[0])
        np.testing.assert_array_equal(np.isnan(y), np.isnan(expected))
        close(y[np.isfinite(y)], expected[np.isfinite(y)])
        return flagged.lost, flagged.broken

    assert flags(0) == (0, [0] * len(flagged.broken))
    assert flagged.segments > 3
    assert 0 < flagged.burn < flagged.span
    # In the steps that lead to the last segment but one: it is given what it starts from, and the last one has no next.
    lost, broken = flags((flagged.segments - 2) * flagged.span - 1, bad)
    assert (lost, broken) == (0, [0] * len(broken))
    # Before the steps that lead to any other segment: the next one starts otherwise than it was given.
    lost, broken = flags(flagged.span + 1, bad)
    assert (lost, max(broken)) == (0, flagged.segments - 2)
    # A segment that forgets nothing ends otherwise than the next was given, in numbers.
    A.data[flagged.span - flagged.burn : 3 * flagged.span] = 1.0
    assert flags(0)[0] == 1


@needs_compiler
@pytest.mark.parametrize(("dtype", "vector"), [(np.float32, 4), (np.float64, 2), (np.float16, 8)])
def test_times_that_are_nearest_in_memory(host, dtype, vector):
    """Forwards, backwards, and one array in either direction; at once where rows begin at multiples of 16 bytes."""
    rng = np.random.default_rng(0)
    for T, fits in ((3, False), (8 * vector, True), (701, False), (704, True)):
        a, b = (x.astype(dtype) for x in (rng.uniform(-1, 1, (2, 35, T)), rng.standard_normal((2, 35, T))))
        for flips in ((1, 1), (-1, -1), (1, -1)):
            A, f = (np.moveaxis(x, -1, 0)[::flip] for x, flip in zip((a, b), flips, strict=True))
            reset = rng.random((T, 2, 1)) < 0.02
            for regime in ("streamed", "segments"):
                watched = Watched(host)
                y = run(watched, AFFINE, AFFINE.prepare((A, f)), reset=reset, regime=regime)
                count = vector if fits else 2 if vector == 8 and T % 2 == 0 else 1
                walks = [one for one in watched.kernels if not one.startswith("recsolve::chained")]
                assert walks
                assert all(re.search(rf"recsolve::Along<\d+, \d+, {count}>>$", one) for one in walks)
                expected = get("scan", "numpy")(AFFINE, AFFINE.prepare((A, f)), reset=reset, chunk=T)
                np.testing.assert_array_equal(y, expected)

"""The CUDA scans of all monoids on the host.

With RECSOLVE_SLOW=1 all kernels of these maps are also compiled by nvcc for sm_90, and must not spill registers.
"""

import os
import shutil
from functools import partial
from typing import NamedTuple

import cuda_host
import monoid_gallery as gallery
import numpy as np
import pytest
from cuda_host.nvcc import spills

from recsolve.base.overriding import stated
from recsolve.kernels.gpu.scan import scan_cuda, variants
from recsolve.kernels.gpu.scan.maps import map_type
from recsolve.kernels.gpu.scan.operands import operands
from recsolve.kernels.gpu.scan.variants import REGIMES, WALKS
from recsolve.kernels.monoids.monoid import MONOIDS
from recsolve.kernels.registry import get

needs_compiler = pytest.mark.skipif(cuda_host.compiler() is None, reason="needs g++")
CARRIED = [name for name, monoid in MONOIDS.items() if stated(monoid, "cuda")]
LENGTHS = (0, 1, 31, 32, 33, 1000, 4099)
LANES = 5


class Case(NamedTuple):
    """A monoid in one type; ``size`` is that of matrices or of a finite set."""

    name: str
    dtype: str
    size: int = 0

    @property
    def exact(self):
        return self.name in gallery.WHOLE

    def problem(self, T, lanes=LANES, seed=0):
        """Return elements, a state and resets."""
        rng = np.random.default_rng(T + seed)
        dtype = np.dtype(self.dtype).type
        if self.name in ("max_min", "max_plus", "min_plus") and self.size:
            elements = gallery.matrices(self.name, T, (lanes,), rng, dtype, self.size)
        elif self.dtype.startswith("complex"):
            a = 0.9 * np.exp(1j * rng.uniform(0, 6, (T, lanes)))
            elements = a.astype(dtype), (rng.standard_normal((2, T, lanes)) * [[[1]], [[1j]]]).sum(axis=0).astype(dtype)
        else:
            elements = gallery.elements(self.name, T, (lanes,), rng, dtype, self.size, whole=self.exact)
        state = gallery.state(self.name, elements, rng)
        return elements, state, rng.random((T, lanes)) < 0.02


CASES = [
    Case("clamp", "float64"),
    Case("clamp", "float32"),
    Case("addition", "float64"),
    Case("addition", "float32"),
    Case("addition", "float16"),
    Case("saturating_add", "float64"),
    Case("saturating_add", "float32"),
    Case("max_min", "float64"),
    Case("max_min", "float32", 3),
    Case("max_plus", "float32"),
    Case("max_plus", "float64", 2),
    Case("min_plus", "float64"),
    Case("logsumexp", "float64"),
    Case("logsumexp", "float32"),
    Case("moebius", "float64"),
    Case("moebius", "float32"),
    Case("riccati", "float64", 1),
    Case("affine", "complex128"),
    Case("affine", "complex64"),
    Case("finite_map", "int64", 3),
    Case("finite_map", "uint8", 16),
    Case("finite_map", "int32", 32),
]
CASES += [Case(name, MONOIDS[name].dtypes[-1].name) for name in CARRIED if name not in {case.name for case in CASES}]
IDS = ["-".join(map(str, case)) for case in CASES]


def ways():
    for regime in REGIMES:
        yield {"regime": regime, "width": None if regime in WALKS else 4}


def run(machine, case, elements, *, initial=None, reset=None, **way):
    monoid = MONOIDS[case.name]
    prepared = monoid.prepare(elements)
    if reset is not None:
        reset = reset.reshape(reset.shape + (1,) * (monoid.like(prepared).ndim - reset.ndim))
    assert scan_cuda.carries(monoid, prepared, initial, kind="numpy")
    with np.errstate(all="raise"):
        return scan_cuda.scan(monoid, prepared, initial=initial, reset=reset, machine=machine, **way)


@needs_compiler
@pytest.mark.parametrize("case", CASES, ids=IDS)
def test_scans_equal_the_loop(host, case):
    for T in LENGTHS:
        elements, state, reset = case.problem(T)
        starts = (state, None) if T == 33 and case.name not in gallery.RESTARTING else (state,)
        for initial in starts:
            wide = [e.astype(np.float32) for e in elements] if case.dtype == "float16" else elements
            at = initial.astype(np.float32) if case.dtype == "float16" and initial is not None else initial
            expected = gallery.loop(case.name, wide, at, reset).astype(MONOIDS[case.name].like(elements).dtype)
            for way in ways():
                gallery.agree(case.name, run(host, case, elements, initial=at, reset=reset, **way), expected)


@needs_compiler
@pytest.mark.parametrize("case", CASES, ids=IDS)
def test_reverse_and_strides(host, case):
    """Time runs backwards in memory, lanes are every other one, of a Fortran-ordered array."""
    T = 200
    elements, state, reset = case.problem(T, 2 * LANES)
    elements = tuple(np.asfortranarray(e)[::-1, ::2] for e in elements)
    state, reset = state[::2], reset[::-1, ::2]
    if case.dtype == "float16":
        state = state.astype(np.float32)
    wide = tuple(e.astype(np.float32) if case.dtype == "float16" else e for e in elements)
    expected = gallery.loop(case.name, wide, state, reset).astype(MONOIDS[case.name].like(elements).dtype)
    for way in ways():
        gallery.agree(case.name, run(host, case, elements, initial=state, reset=reset, **way), expected)


@needs_compiler
@pytest.mark.parametrize("bad", [np.nan, np.inf, -np.inf])
@pytest.mark.parametrize("case", [case for case in CASES if case.dtype in ("float64", "complex128")], ids=str)
def test_what_is_not_finite_stays_in_its_lane_and_after_its_time(host, case, bad):
    elements, state, reset = case.problem(1500)
    reset[:] = False
    reset[1400] = True
    judge = gallery.remembered(partial(gallery.loop, case.name, initial=state, reset=reset))
    for way in ways():
        scan = partial(run, host, case, initial=state, reset=reset, **way)
        gallery.stays_where_it_is(scan, judge, elements, bad, 700, 1, 1400)


@needs_compiler
@pytest.mark.parametrize("case", [case for case in CASES if case.dtype == "float64"], ids=str)
def test_cuts_are_selected_and_not_multiplied(host, case):
    """Before cuts all is NaN."""
    elements, state, reset = case.problem(1000)
    reset[:] = False
    reset[::50] = True
    for e in elements:
        e[49::50] = np.nan
    expected = gallery.loop(case.name, elements, state, reset)
    assert np.isfinite(expected[:49]).all()
    for way in ways():
        y = run(host, case, elements, initial=state, reset=reset, **way)
        np.testing.assert_array_equal(np.isnan(y), np.isnan(expected))
        gallery.agree(case.name, y[50:99], expected[50:99])


@needs_compiler
@pytest.mark.parametrize(
    ("case", "numbers"),
    [
        (Case("clamp", "float64"), (10.0, -10.0)),
        (Case("saturating_add", "float64"), (0.0, -10.0, 10.0)),
        (Case("moebius", "float64"), (1.0, 0.0, 0.0, 1.0)),
        (Case("finite_map", "int64", LANES), (np.arange(LANES),)),
    ],
    ids=str,
)
def test_a_cut_with_which_a_piece_of_time_begins_is_remembered(host, case, numbers):
    """Maps that change nothing give the initial state from one cut to the next."""
    elements = [np.broadcast_to(x, (1500, LANES, *np.shape(x))).astype(case.dtype) for x in numbers]
    state = np.arange(LANES).astype(case.dtype)
    reset = np.arange(1500)[:, None] % 2 ** np.arange(3, 3 + LANES) == 0
    for way in ways():
        y = run(host, case, elements, initial=state, reset=reset, **way)
        np.testing.assert_array_equal(y, np.broadcast_to(state, y.shape))


@needs_compiler
def test_sums_may_overflow_where_steps_do_not(host):
    T = 900
    d = np.where(np.arange(T) % 4 < 2, 1e308, -1e308)[:, None] * np.ones(LANES)
    bound = np.full_like(d, 1.7e308)
    no_cuts = np.zeros((T, LANES), bool)
    for case, elements, start in (
        (Case("saturating_add", "float64"), (d, -bound, bound), -1e308),
        (Case("min_plus", "float64"), (d, bound), -1.5e308),
        (Case("addition", "float64"), (d,), -1e308),
    ):
        state = np.full(LANES, start)
        expected = gallery.loop(case.name, elements, state)
        assert np.isfinite(expected).all()
        for way in ways():
            np.testing.assert_array_equal(run(host, case, elements, initial=state, reset=no_cuts, **way), expected)


@needs_compiler
def test_special_points(host):
    """A pole of a Moebius map; weights of zero, and none at all, in sums of exponentials."""
    T, no_cuts = 500, np.zeros((500, LANES), bool)
    a, b, c, d = np.zeros((4, T, LANES))
    b[:], c[:] = -1, 1
    case = Case("moebius", "float64")
    state = np.zeros(LANES)
    expected = gallery.loop("moebius", (a, b, c, d), state)
    assert np.isinf(expected).any()
    for way in ways():
        np.testing.assert_array_equal(run(host, case, (a, b, c, d), initial=state, reset=no_cuts, **way), expected)
    case = Case("logsumexp", "float64")
    (m, s), _, _ = case.problem(T)
    m[::3], m[:100] = -np.inf, -np.inf
    expected = gallery.loop("logsumexp", (m, s))
    for way in ways():
        gallery.agree(case.name, run(host, case, (m, s), reset=no_cuts, **way)[100:], expected[100:])


def in_other_layouts():
    """Lanes that are copied several at a time, and several batch axes in memory of another order."""
    for case in (Case("saturating_add", "float32"), Case("finite_map", "int32", 32), Case("logsumexp", "float64")):
        elements, state, _ = case.problem(100, 8)
        yield case, elements, state
        extra = [e.reshape(100, 2, 4, *e.shape[2:]) for e in elements]
        moved = tuple(np.moveaxis(np.moveaxis(e, 0, 1).copy(), 1, 0) for e in extra)
        yield case, moved, state.reshape(2, 4, *state.shape[1:])


@needs_compiler
def test_layouts(host):
    for case, elements, state in in_other_layouts():
        expected = gallery.loop(case.name, elements, state)
        cuts = np.zeros((len(expected), *[1] * (expected.ndim - 1)), bool)
        for way in ways():
            gallery.agree(case.name, run(host, case, elements, initial=state, reset=cuts, **way), expected)


@needs_compiler
def test_what_is_not_carried_goes_to_numpy():
    machine = cuda_host.Host()
    rng = np.random.default_rng(0)
    for name, elements in (
        ("riccati", gallery.elements("riccati", 40, (2,), rng, size=2)),
        ("max_plus", gallery.matrices("max_plus", 40, (2,), rng, size=33)),
        ("finite_map", gallery.elements("finite_map", 40, (2,), rng, size=33)),
        ("finite_map", gallery.elements("finite_map", 40, (2,), rng, np.int16, size=3)),
    ):
        monoid, state = MONOIDS[name], gallery.state(name, elements, rng)
        y = scan_cuda.scan(monoid, monoid.prepare(elements), initial=state, machine=machine)
        np.testing.assert_array_equal(y, get("scan")(monoid, monoid.prepare(elements), initial=state))
    assert not machine.kernels


@needs_compiler
@pytest.mark.parametrize("name", CARRIED)
def test_a_header_has_what_its_monoid_says_and_includes_what_it_uses(name):
    """As it is compiled for a kernel: without the headers of other monoids."""
    unit = [variants.text("registers", name)]
    for case in [case for case in CASES if case.name == name] or [Case(name, "float64")]:
        read = operands(MONOIDS[name], MONOIDS[name].prepare(case.problem(3)[0]))
        for number in ("int",) if case.dtype in variants.INTEGERS else ("float", "double"):
            found = map_type(read.map, read.parts, number)
            unit += [f"template struct {found.name};"]
            planes = f"recsolve::Planes<{found.name}>"
            unit += [f"static_assert({found.name}::size == {found.size} && {found.name}::parts == {read.parts});"]
            unit += [f"static_assert({planes}::COUNT == {found.numbers} && {planes}::ARRAYS == {len(read.inputs)});"]
    cuda_host.load("\n".join(dict.fromkeys(unit)))


MAPS = [(name, 1) for name in ("addition", "saturating_add", "moebius", "riccati", "max_min", "max_plus")]
MAPS += [("logsumexp", 2), ("affine:complex", 2), ("max_plus", 2), ("max_min", 2)]
HALVES = [("addition", 1), ("saturating_add", 1), ("max_plus", 1), ("logsumexp", 2)]
FINITE = [(f"finite_map:{n}", 1) for n in (3, 16, 17, 32)]


@pytest.mark.skipif(not os.environ.get("RECSOLVE_SLOW"), reason="takes minutes: set RECSOLVE_SLOW=1")
@pytest.mark.skipif(shutil.which("nvcc") is None, reason="needs nvcc")
@pytest.mark.parametrize("regime", REGIMES)
def test_nothing_spills(regime, tmp_path):
    found = variants.variants(MAPS, ("float32", "float64")) + variants.variants(HALVES, ("float16",))
    found += variants.variants(FINITE, variants.INTEGERS)
    assert set(spills(regime, found, tmp_path)) == {("0", "0", "0")}

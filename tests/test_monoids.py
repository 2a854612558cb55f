"""Every monoid: the scan against the loop, bit for bit where nothing rounds; cuts, directions, what is not finite."""

import sys
from functools import partial
from types import ModuleType

import monoid_gallery as gallery
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

import recsolve as rs
from recsolve.kernels import monoids
from recsolve.kernels.gpu.scan.operands import operands
from recsolve.kernels.monoids import MONOIDS
from recsolve.kernels.registry import get

NAMES = sorted(MONOIDS)
SEMIRINGS = ("max_min", "max_plus", "min_plus")


def problem(name, T, seed, dtype=np.float64, shape=(2, 3)):
    rng = np.random.default_rng(seed)
    elements = gallery.elements(name, T, shape, rng, dtype, whole=name in gallery.WHOLE)
    return elements, gallery.state(name, elements, rng), rng.random((T, *shape[:1])) < 0.05


OWN = """
from recsolve.kernels.monoids.clamp import Clamp

class Unnamed(Clamp):
    pass

class Halving(Clamp):
    name, place = "halving", 0

    def act(self, elements, states):
        return super().act(elements, states / 2)
"""


def test_a_file_in_the_folder_is_a_monoid(tmp_path, monkeypatch):
    """A class that inherits its name is none, and one that acts otherwise does not inherit a map for GPUs."""
    (tmp_path / "halving.py").write_text(OWN)
    package = ModuleType("more_monoids")
    package.__path__ = [str(tmp_path)]
    monkeypatch.setitem(sys.modules, package.__name__, package)
    found = monoids.found_in(package.__name__, [str(tmp_path)])
    assert list(found) == ["halving"]
    monkeypatch.setitem(MONOIDS, "halving", found["halving"])
    elements = np.full((2, 3), 9.0), np.zeros((2, 3))
    np.testing.assert_array_equal(rs.scan("halving", elements, initial=4.0), [[2.0] * 3, [1.0] * 3])
    assert operands(found["halving"], elements) is None
    assert operands(MONOIDS["clamp"], elements) is not None


def test_monoids_are_listed_by_place():
    places = [monoid.place for monoid in MONOIDS.values()]
    assert places == sorted(places)
    assert list(MONOIDS)[:4] == ["affine", "clamp", "addition", "saturating_add"]


def test_elements_that_are_missing_from_the_gallery_are_said_to_be(monkeypatch):
    class Pairs(type(MONOIDS["addition"])):
        def prepare(self, elements):
            raise ValueError("wanted pairs")

    monkeypatch.setitem(MONOIDS, "pairs", Pairs())
    with pytest.raises(NotImplementedError, match="no elements for the monoid 'pairs'"):
        gallery.elements("pairs", 3, (2,), np.random.default_rng(0))


@pytest.mark.parametrize("T", [0, 1, 2, 31, 32, 33, 97, 1009])
@pytest.mark.parametrize("name", NAMES)
def test_scans_equal_the_loop(name, T):
    for dtype in (np.float32, np.float64):
        elements, start, reset = problem(name, T, T, dtype)
        for initial in (start,) if name in gallery.RESTARTING else (None, start):
            for cuts in (None, reset, np.broadcast_to(reset[:, :1], reset.shape)[:, 0]):
                for reverse in (False, True):
                    y = rs.scan(name, elements, initial=initial, reset=cuts, reverse=reverse)
                    gallery.agree(name, y, gallery.loop(name, elements, initial, cuts, reverse))


@pytest.mark.parametrize("name", NAMES)
@given(seed=st.integers(0, 99), T=st.integers(1, 300), chunk=st.integers(1, 50))
def test_any_chunk_length_gives_the_loop(name, seed, T, chunk):
    elements, start, _ = problem(name, T, seed)
    if name == "riccati":
        elements, start = tuple(e[..., :1, :1] for e in elements), start[..., :1, :1]
    y = get("scan")(MONOIDS[name], MONOIDS[name].prepare(elements), initial=start, chunk=chunk)
    gallery.agree(name, y, gallery.loop(name, elements, start))


@pytest.mark.parametrize("name", SEMIRINGS)
@given(seed=st.integers(0, 99), T=st.integers(0, 200))
def test_matrices_over_semirings(name, seed, T):
    """A composition equals acting twice; a diagonal written as a matrix acts as the diagonal."""
    rng, monoid = np.random.default_rng(seed), MONOIDS[name]
    elements = gallery.matrices(name, T, (2,), rng)
    x = gallery.state(name, elements, rng)
    for initial in (None, x):
        np.testing.assert_array_equal(rs.scan(name, elements, initial=initial), gallery.loop(name, elements, initial))
    later, earlier = (gallery.matrices(name, 4, (2,), rng) for _ in range(2))
    states = np.rint(3 * rng.standard_normal((4, 2, 3)))
    np.testing.assert_array_equal(
        monoid.act(monoid.compose(later, earlier), states), monoid.act(later, monoid.act(earlier, states))
    )
    np.testing.assert_array_equal(monoid.act(monoid.identity(later), states), states)
    a, b = rng.standard_normal((2, T, 3))
    written = np.where(np.eye(3, dtype=bool), a[..., None], monoid.zero)
    np.testing.assert_array_equal(rs.scan(name, (written, b)), gallery.loop(name, (a, b)))


@pytest.mark.parametrize("bad", [np.nan, np.inf, -np.inf])
@pytest.mark.parametrize("name", [name for name in NAMES if name not in ("finite_map", "riccati")])
def test_what_is_not_finite_moves_forward_only_and_stops_at_resets(name, bad):
    elements, start, _ = problem(name, 300, 0)
    cuts = np.arange(300) == 220
    scan, judge = (partial(f, name, initial=start, reset=cuts) for f in (rs.scan, gallery.loop))
    rtol = 0.0 if name in gallery.WHOLE else 1e-13  # a chunk in which a map overflows is walked, which rounds otherwise
    gallery.stays_where_it_is(scan, judge, elements, bad, 150, 1, 220, rtol)


def test_sums_may_overflow_where_steps_do_not():
    """1e308 up twice, from the bottom: the loop stops at the bounds, or stays within them."""
    T = 400
    d = np.where(np.arange(T) % 4 < 2, 1e308, -1e308)
    lo, hi = np.full(T, -1.7e308), np.full(T, 1.7e308)
    y = rs.scan("saturating_add", (d, lo, hi), initial=-1e308)
    np.testing.assert_array_equal(y, gallery.loop("saturating_add", (d, lo, hi), -1e308))
    for name, sign in (("max_plus", 1), ("min_plus", -1)):
        elements = -sign * d, np.full(T, -sign * 1.7e308)
        y = rs.scan(name, elements, initial=sign * 1.5e308)
        np.testing.assert_array_equal(y, gallery.loop(name, elements, sign * 1.5e308))


def test_logsumexp_is_the_softmax():
    """Scores of 1e3, of which no exponential is finite, and weights that are masked out."""
    rng = np.random.default_rng(0)
    m, v = 1e3 * rng.standard_normal((500, 2)), rng.standard_normal((500, 2))
    m[::7] = -np.inf
    M, S = np.moveaxis(rs.scan("logsumexp", (m, np.ones_like(m))), -1, 0)
    N, C = np.moveaxis(rs.scan("logsumexp", (m, v)), -1, 0)
    np.testing.assert_array_equal(M, N)
    weights = np.exp(m[:400] - m[:400].max(axis=0))
    np.testing.assert_allclose((C / S)[399], (weights * v[:400]).sum(axis=0) / weights.sum(axis=0), rtol=1e-12)
    np.testing.assert_allclose((M + np.log(S))[1:], np.logaddexp.accumulate(m)[1:], rtol=1e-13)


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_weighted_logsumexp_is_causal_softmax_attention(dtype):
    """Scores of 1e3, of which no exponential is finite, and what is masked out; split in two it goes on."""
    rng = np.random.default_rng(0)
    scores, values = (1e3 * rng.standard_normal((300, 2))).astype(dtype), rng.standard_normal((300, 2, 4)).astype(dtype)
    scores[5::7] = -np.inf
    elements = scores, np.concatenate([np.ones_like(values[..., :1]), values], axis=-1)
    y = rs.scan("weighted_logsumexp", (0.0, *elements))
    assert y.dtype == dtype
    lower = np.where(np.tril(np.ones((300, 300), bool))[..., None], scores.astype(float), -np.inf)  # (t, s, batch)
    attention = np.exp(lower - lower.max(axis=1, keepdims=True))
    attention /= attention.sum(axis=1, keepdims=True)
    wanted = np.einsum("tsb,sbd->tbd", attention, values.astype(float))
    np.testing.assert_allclose(y[..., 2:] / y[..., 1:2], wanted, rtol=0, atol=100 * np.finfo(dtype).eps)
    first = rs.scan("weighted_logsumexp", (0.0, *(e[:99] for e in elements)))
    rest = rs.scan("weighted_logsumexp", (0.0, *(e[99:] for e in elements)), initial=first[-1])
    np.testing.assert_allclose(rest, y[99:], rtol=1e-4 if dtype == np.float32 else 1e-12)
    pair = rs.scan("logsumexp", (scores, values[..., 0]))
    np.testing.assert_allclose(y[..., [0, 2]], pair, rtol=1e-4 if dtype == np.float32 else 1e-12)


def test_weighted_logsumexp_has_the_gates_of_the_mlstm():
    """Large forget and input gates, the memory (d, d) and normaliser (d,) in one vector; against the quadratic form."""
    rng = np.random.default_rng(0)
    T, d = 200, 3
    forget, write = -np.logaddexp(0, -20 * rng.standard_normal(T)), 300 * rng.standard_normal(T)
    k, v = rng.standard_normal((2, T, d))
    memory = np.concatenate([k, (k[:, :, None] * v[:, None, :]).reshape(T, d * d)], axis=1)
    y = rs.scan("weighted_logsumexp", (forget, write, memory))
    total = np.cumsum(forget)
    decay = np.where(np.tril(np.ones((T, T), bool)), total[:, None] - total[None, :] + write[None, :], -np.inf)
    m = decay.max(axis=1)
    np.testing.assert_allclose(y[:, 0], m, rtol=1e-12)
    np.testing.assert_allclose(y[:, 1:], np.exp(decay - m[:, None]) @ memory, rtol=1e-8, atol=1e-10)


def test_moebius_passes_through_its_pole():
    """x -> -1 / x from 0: infinity, which is a point like others, and 0 again."""
    a, b, c, d = np.zeros((4, 64))
    b[:], c[:] = -1, 1
    y = rs.scan("moebius", (a, b, c, d), initial=0.0)
    np.testing.assert_array_equal(np.isinf(y), np.arange(64) % 2 == 0)
    np.testing.assert_array_equal(y[1::2], 0)


def test_moebius_products_do_not_overflow():
    """A continued fraction: 1 + 1 / (1 + 1 / ...), entries of products grow as Fibonacci's numbers."""
    one, zero = np.ones(10_000, np.float32), np.zeros(10_000, np.float32)
    y = rs.scan("moebius", (one, one, one, zero), initial=np.float32(1))
    assert y[-1] == pytest.approx((1 + 5**0.5) / 2, rel=1e-6)


@pytest.mark.parametrize("dtype", [np.uint8, np.int16, np.int32, np.int64])
def test_finite_maps_of_any_integers(dtype):
    rng = np.random.default_rng(0)
    elements = gallery.elements("finite_map", 500, (3,), rng, dtype, size=5)
    y = rs.scan("finite_map", elements, initial=2)
    assert y.dtype == dtype
    np.testing.assert_array_equal(y, gallery.loop("finite_map", elements, np.full(3, 2, dtype)))


def test_complex_numbers():
    rng = np.random.default_rng(0)
    for dtype in (np.complex64, np.complex128):
        a = np.exp(1j * rng.uniform(0, 6, (500, 3))).astype(dtype)
        b = (rng.standard_normal((500, 3)) + 1j * rng.standard_normal((500, 3))).astype(dtype)
        y = rs.scan("affine", (a, b), initial=b[0], reset=rng.random(500) < 0.01)
        assert y.dtype == dtype
        np.testing.assert_allclose(rs.scan("affine", (a, b)), gallery.loop("affine", (a, b)), rtol=1e-4)


def test_time_on_other_axes():
    rng = np.random.default_rng(0)
    m, s = rng.standard_normal((2, 40, 3))
    y = rs.scan("logsumexp", (m, s))
    np.testing.assert_array_equal(rs.scan("logsumexp", (m.T, s.T), axis=1), y.swapaxes(0, 1))
    np.testing.assert_array_equal(rs.scan("logsumexp", (m.T, s.T), axis=-1), y.swapaxes(0, 1))
    A, b = gallery.matrices("max_min", 40, (2,), rng)
    y = rs.scan("max_min", (A, b))
    np.testing.assert_array_equal(rs.scan("max_min", (A.swapaxes(0, 1), b.swapaxes(0, 1)), axis=1), y.swapaxes(0, 1))


def test_a_mask_that_cuts_a_part_of_what_is_mixed():
    rng = np.random.default_rng(0)
    m, s = rng.standard_normal((2, 200, 3))
    cuts = rng.random((200, 3, 2)) < 0.1
    np.testing.assert_array_equal(
        rs.scan("logsumexp", (m, s), reset=cuts), gallery.loop("logsumexp", (m, s), reset=cuts)
    )


@pytest.mark.parametrize("shape", [(0,), (0, 3), (2, 0)])
@pytest.mark.parametrize("name", NAMES)
def test_nothing_to_do_and_read_only_arrays(name, shape):
    for T in (0, 5, 100):
        elements = gallery.elements(name, T, shape, np.random.default_rng(0))
        for e in elements:
            e.flags.writeable = False
        start = gallery.state(name, elements, np.random.default_rng(0))
        y = rs.scan(name, elements, initial=start, reset=np.zeros(T, bool), reverse=True)
        assert y.shape == (T, *start.shape)


@pytest.mark.parametrize(
    ("monoid", "elements", "kwargs", "error", "words"),
    [
        ("addition", (np.ones(3), np.ones(3)), {}, ValueError, r"a tuple \(b,\); got 2 arrays"),
        ("saturating_add", (np.ones(3),) * 3, {}, ValueError, "initial is None; the saturating_add monoid"),
        ("saturating_add", (np.ones(3), np.ones(3), np.ones(4)), {"initial": 0.0}, ValueError, "wanted equal shapes"),
        ("max_plus", (np.ones((3, 2)), np.ones((3, 4))), {}, ValueError, r"wanted A of \(3, 4\) or \(3, 4, 4\)"),
        ("moebius", (np.ones(3),) * 3, {"initial": 1.0}, ValueError, r"\(a, b, c, d\); got 3 arrays"),
        ("moebius", (np.ones(3, np.float16),) * 4, {"initial": 1.0}, TypeError, "wanted float32 or float64"),
        ("finite_map", (np.ones((3, 2)),), {"initial": 0}, TypeError, "wanted uint8 or int8"),
        ("finite_map", (np.full((3, 2), 2),), {"initial": 0}, ValueError, "states from 2 to 2; wanted 0 to 1"),
        ("finite_map", (np.zeros((3, 2), int),), {"initial": -1}, ValueError, "initial has states from -1"),
        ("finite_map", (np.zeros(3, int),), {"initial": 0}, ValueError, r"has shape \(3,\); wanted \(T, ..., n\)"),
        ("weighted_logsumexp", (np.ones(3),) * 3, {}, ValueError, r"wanted f and m \(T, ...\) .* and v \(T, ..., d\)"),
        ("riccati", (np.ones((3, 2, 2)), np.ones(3), np.ones((3, 2, 2))), {}, ValueError, r"C has shape \(3,\)"),
        ("clamp", (np.ones(3, complex),) * 2, {"initial": 0.0}, TypeError, "dtype complex128"),
    ],
)
def test_bad_arguments(monoid, elements, kwargs, error, words):
    with pytest.raises(error, match=words):
        rs.scan(monoid, elements, **kwargs)

"""Monoids of the user's: scans of them, and the check of laws, which passes on all of this package and finds faults."""

import monoid_gallery
import numpy as np
import pytest
import torch

import recsolve as rs
from recsolve.kernels import backends
from recsolve.kernels.monoids import MONOIDS
from recsolve.kernels.monoids.addition import Addition
from recsolve.kernels.monoids.clamp import Clamp


class LogAddExp(rs.Monoid):
    """x -> log(e^x + e^b); a cut step gives b."""

    letters = ("b",)

    def act(self, elements, states):
        return np.logaddexp(states, elements[0])

    def compose(self, later, earlier):
        return (np.logaddexp(earlier[0], later[0]),)

    def identity(self, elements):
        return (np.full_like(elements[0], -np.inf),)

    def constant(self, elements, initial):
        return elements[0]


class Concatenation(rs.Monoid):
    letters, dtypes = ("items",), (np.dtype(object),)

    def act(self, elements, states):
        return states + elements[0]

    def compose(self, later, earlier):
        return (earlier[0] + later[0],)

    def identity(self, elements):
        return (np.full_like(elements[0], ""),)


def objects(items):
    found = np.empty(len(items), object)
    found[:] = items
    return found


@pytest.mark.parametrize("name", sorted(MONOIDS))
def test_the_monoids_of_the_package_keep_the_laws(name):
    rng = np.random.default_rng(0)
    elements = monoid_gallery.elements(name, 24, (2, 3), rng, size=2)
    start = monoid_gallery.state(name, elements, rng)
    rs.testing.check_monoid(name, elements, start)
    if not MONOIDS[name].restarts:
        rs.testing.check_monoid(name, elements)


def test_matrices_and_monoids_of_users_keep_the_laws():
    rng = np.random.default_rng(0)
    for name in ("max_min", "max_plus", "min_plus"):
        rs.testing.check_monoid(name, monoid_gallery.matrices(name, 24, (2,), rng))
    rs.testing.check_monoid("affine", (0.3 * rng.standard_normal((24, 3, 3)), rng.standard_normal((24, 3))))
    for dtype in (np.float32, np.float64):
        rs.testing.check_monoid(LogAddExp, (rng.standard_normal((24, 3)).astype(dtype),))
    rs.testing.check_monoid(Concatenation(), (objects(list("a law of scans of any objects")),), initial="")


def broken(**methods):
    """Return a monoid that adds, with some methods in place of its own."""
    own = {name: getattr(Addition, name) for name in ("act", "compose", "identity", "constant")} | methods
    return type("Broken", (rs.Monoid,), {"letters": ("b",), **own})


def write(self, elements, states):
    elements[0][...] += 1
    return states + elements[0]


@pytest.mark.parametrize(
    ("law", "monoid"),
    [
        ("states: Broken has dtype float64", broken(act=lambda self, e, x: (x + e[0]).astype(np.float64))),
        ("states: Broken raises ValueError", broken(act=lambda self, e, x: (x + e[0]).sum(axis=-1))),
        ("states", broken(act=lambda self, e, x: x + e[0] - x.mean(axis=0))),
        ("inputs: Broken writes", broken(act=write)),
        ("associativity", broken(act=lambda self, e, x: e[0] - x, compose=lambda self, b, a: (b[0] - a[0],))),
        ("identity", broken(identity=lambda self, e: (np.ones_like(e[0]),))),
        ("composition", broken(act=lambda self, e, x: x + e[0] ** 2)),
        ("cut", broken(constant=lambda self, e, initial: e[0] + (0 if e[0].shape[0] == 1 else 1))),
        ("chunks of", broken(like=lambda self, e: e[0], take=lambda self, e, i: (
            e[0][i] + (i.step or 0) % 2 if isinstance(i, slice) else e[0][i],))),
        ("reversal", broken(take=lambda self, e, i: (e[0][i] + (isinstance(i, slice) and i.step == -1),))),
        ("derivative: Broken is", broken(linearise=lambda self, e, x: (
            rs.jacobians.Diagonal(0 * x, rs.Layout(units=3)), lambda g: (g,)))),
    ],
    ids=lambda x: x if isinstance(x, str) else "",
)  # fmt: skip
def test_a_law_that_does_not_hold_is_named(law, monoid):
    dtype = np.float64 if law.startswith("derivative") else np.float32
    elements = (np.random.default_rng(0).standard_normal((24, 3)).astype(dtype),)
    with pytest.raises(AssertionError, match=law):
        rs.testing.check_monoid(monoid, elements, initial=np.zeros(3, dtype))


class Forgetful(Addition):
    """x -> x + scale b, whose pickle has lost the scale."""

    def __init__(self, scale):
        self.scale = scale

    def act(self, elements, states):
        return states + self.scale * elements[0]

    def __reduce__(self):
        return Forgetful, (1.0,)


def test_a_pickle_that_is_another_monoid_is_found():
    rs.testing.check_monoid(Forgetful(1.0), (np.arange(9.0),), initial=0.0)
    with pytest.raises(AssertionError, match="pickling: addition is off"):
        rs.testing.check_monoid(Forgetful(2.0), (np.arange(9.0),), initial=0.0)


def test_too_little_to_check():
    with pytest.raises(ValueError, match="elements have 2 steps; wanted at least 3"):
        rs.testing.check_monoid("addition", (np.ones(2),))
    with pytest.raises(TypeError, match="elements have dtype float16, which scans widen"):
        rs.testing.check_monoid("addition", (np.ones(5, np.float16),))
    with pytest.raises(ValueError, match="initial is None; the clamp monoid needs a state"):
        rs.testing.check_monoid("clamp", (np.ones(5), np.zeros(5)))


@pytest.mark.parametrize("T", [0, 1, 2, 33, 200])
def test_scans_of_a_monoid_of_the_users(T):
    b = np.random.default_rng(T).standard_normal((T, 3))
    cuts = np.arange(T) % 60 == 50
    for reverse in (False, True):
        way = {"reverse": reverse, "reset": cuts}
        y = rs.scan(LogAddExp, (b,), **way)
        for t in range(T)[::-1] if reverse else range(T):
            before = t + 1 if reverse else t - 1
            wanted = b[t] if cuts[t] or not 0 <= before < T else np.logaddexp(y[before], b[t])
            np.testing.assert_allclose(y[t], wanted, rtol=1e-13)
    frozen = b.copy()
    frozen.flags.writeable = False
    np.testing.assert_array_equal(rs.scan(LogAddExp(), (frozen,)), rs.scan(LogAddExp, (b,)))
    tensor = rs.scan(LogAddExp, (torch.from_numpy(b.T.copy()),), axis=1)
    np.testing.assert_array_equal(tensor.numpy(), rs.scan(LogAddExp, (b,)).T)


def test_a_monoid_of_the_users_is_in_no_registry_and_no_compiled_scan():
    class Own(Clamp):
        def act(self, elements, states):
            return super().act(elements, states) / 2

    elements = np.full((3000, 20), 2.0), np.zeros((3000, 20))
    known = dict(MONOIDS)
    with rs.backend("numba"):
        y = rs.scan(Own, elements, initial=1.0)
    assert known == MONOIDS
    np.testing.assert_array_equal(y[:3, 0], [0.5, 0.25, 0.125])
    assert backends.chosen(Own(), elements, np.ones(20)) == "numpy"
    with pytest.raises(ValueError, match=r"monoid is 'Own'; wanted one of affine, .*, or a Monoid"):
        rs.scan("Own", elements, initial=1.0)
    for wrong in (Own(), Clamp(), MONOIDS["clamp"]):
        assert type(rs.scan(wrong, elements, initial=1.0)) is np.ndarray
    for wrong in (np.maximum, 3, list):
        with pytest.raises(TypeError, match="wanted a name, or a Monoid"):
            rs.scan(wrong, elements)
    with pytest.raises(TypeError, match="abstract"):
        rs.scan(type("Half", (rs.Monoid,), {"letters": ("b",)}), (np.ones(3),))


def test_lists_of_any_length():
    """One list a step, or several; cuts and reversed time."""
    items = [(i,) * (i % 3) for i in range(300)]
    empty = np.empty((), object)
    empty[()] = ()
    y = rs.scan(Concatenation, (objects(items),), initial=empty)
    assert y[-1] == sum(items, ())
    cuts = np.arange(300) % 100 == 0
    y = rs.scan(Concatenation, (objects(items),), initial=empty, reset=cuts, reverse=True)
    assert y[201] == sum(items[:200:-1], ())
    assert y[100] == items[100]
    two = np.stack([objects(items), objects(items[::-1])], axis=1)
    both = rs.scan(Concatenation, (two,), initial=empty)
    assert both.shape == (300, 2)
    assert both[-1, 1] == sum(items[::-1], ())

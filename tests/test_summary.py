"""What a range of steps does to the state before it: its summary acts as the scan does."""

import monoid_gallery as gallery
import numpy as np
import pytest
from test_scan_numba import affine, close, loop

from recsolve.jacobians import Block, Diagonal, Identity, LaneDense, Scalar
from recsolve.kernels.monoids.monoid import MONOIDS
from recsolve.kernels.registry import get, registered

AFFINE, CLAMP = MONOIDS["affine"], MONOIDS["clamp"]
by_tree = get("summary", "numpy")


def out(monoid, summary, state):
    """What comes out of a range if a state comes in."""
    y = monoid.act(summary.element, state[None])
    return (y if summary.after is None else np.where(summary.cut, summary.after, y))[0]


def check_summary(summarise, monoid, elements, state, reset, agree, **way):
    """A summary acts as the loop does, and has the form of that of the reference."""
    like = monoid.like(elements)
    found = summarise(monoid, elements, initial=state, reset=reset, **way)
    reference = by_tree(monoid, elements, initial=state, reset=reset)
    agree(out(monoid, found, state), loop(monoid, elements, state, reset)[-1])
    assert (found.after is None) == (found.cut is None) == (reset is None)
    for mine, its in zip(found.element, reference.element, strict=True):
        assert type(mine) is type(its)
        if type(mine) is Identity:
            continue
        mine, its = (x if isinstance(x, np.ndarray) else x.data for x in (mine, its))
        assert (type(mine), mine.shape, mine.dtype) == (np.ndarray, its.shape, its.dtype)
    if reset is not None:
        np.testing.assert_array_equal(
            np.broadcast_to(found.cut[0], like.shape[1:]), np.broadcast_to(reset, like.shape).any(axis=0)
        )
        assert found.after.shape == reference.after.shape == (1, *like.shape[1:])
    return found


def masks(like, rng, *, together=()):
    """No mask, one that cuts some lanes, and one that cuts nothing but the first step of all."""
    some = rng.random(like.shape) < 1 / len(like)
    for axis in together:
        some = some.any(axis=axis, keepdims=True)
    first = np.zeros_like(some)
    first[0] = True
    return None, some, first


STRUCTURES = [(Scalar, 2), (Diagonal, 2), (Identity, 2), (Block, 2), (Block, 3), (Block, 4)]


@pytest.mark.sample(every=2)
@pytest.mark.parametrize("dtype", [np.float32, np.float64])
@pytest.mark.parametrize(("kind", "k"), STRUCTURES)
def test_compiled_loops_on_affine_maps(kind, k, dtype):
    """Few lanes and many, lengths that blocks of time divide and do not."""
    for T, batch in ((1, 2), (260, 1), (331, 6), (130, 400)):
        rng = np.random.default_rng(T)
        A, b = affine(kind, T, dtype, rng, k, (batch,), gain=1 / k)
        state = rng.standard_normal(b.shape[1:]).astype(dtype)
        for reset in masks(b, rng, together=(2,) if kind is Block else ()):
            check_summary(get("summary", "numba"), AFFINE, (A, b), state, reset, close)


@pytest.mark.parametrize("T", [1, 640, 1003])
@pytest.mark.parametrize("lanes", [(), (3,), (2, 40)])
def test_compiled_loops_on_clamps_are_exact(T, lanes):
    rng = np.random.default_rng(T)
    r, s = 3 * rng.standard_normal((2, T, *lanes))
    state = rng.standard_normal(lanes)
    for elements in ((r, s), (np.asfortranarray(r)[::-1], s)):
        for reset in masks(r, rng):
            check_summary(get("summary", "numba"), CLAMP, elements, state, reset, np.testing.assert_array_equal)


def test_steps_are_composed_once_and_in_order():
    """Rotations and matrices that remember would show one that is left out, or taken twice."""
    rng = np.random.default_rng(0)
    A = rng.choice([-1.0, 1.0], (997, 33))
    b = rng.integers(-9, 9, (997, 33)).astype(float)
    found = get("summary", "numba")(AFFINE, AFFINE.prepare((A, b)))
    np.testing.assert_array_equal(found.element[0].data[0], A.prod(axis=0))
    np.testing.assert_array_equal(found.element[1][0], loop(AFFINE, AFFINE.prepare((A, b)), np.zeros(33))[-1])


@pytest.mark.parametrize("name", list(MONOIDS))
def test_every_backend_has_the_law(name):
    """All monoids, bit for bit where nothing rounds; what a backend has no loops for goes to the tree."""
    monoid, rng = MONOIDS[name], np.random.default_rng(0)
    assert registered()["summary"] == ["cuda", "numba", "numpy"]
    for T in (1, 2, 37):
        elements = gallery.elements(name, T, (3,), rng, np.int64 if name == "finite_map" else np.float64, 3, whole=True)
        state, prepared = gallery.state(name, elements, rng), monoid.prepare(elements)
        like = monoid.like(prepared)
        mask = rng.random((T, 3)) < 0.1
        for reset in (None, mask.reshape(T, 3, *[1] * (like.ndim - 2))):
            for backend in registered()["summary"]:
                found = get("summary", backend)(monoid, prepared, initial=state, reset=reset)
                gallery.agree(name, out(monoid, found, state), loop(monoid, prepared, state, reset)[-1])


def test_lane_matrices_and_halves_go_to_the_tree():
    rng = np.random.default_rng(0)
    A, b = affine(LaneDense, 40, np.float64, rng)
    check_summary(get("summary", "numba"), AFFINE, (A, b), b[0], None, close)
    halves = AFFINE.prepare(tuple(rng.uniform(-1, 1, (2, 40, 3)).astype(np.float16)))
    found = get("summary", "numba")(AFFINE, halves)
    assert found.element[1].dtype == np.float32

"""Every derivative rule against finite differences; what is not differentiable is named."""

import gallery
import numpy as np
import pytest

import recsolve as rs
from recsolve.math import relu, sigmoid, softplus, where
from recsolve.recurrence.function_tangent import Tangent
from recsolve.symbolic import dual
from recsolve.symbolic.dual import ONE, Dual

POINTS = np.array([0.3, 0.7, 1.3, 2.1])
EVALUATE = {"sigmoid": sigmoid, "softplus": softplus}


def function(name):
    return EVALUATE.get(name) or getattr(np, name)


@pytest.mark.parametrize("name", sorted(dual.UNARY))
def test_unary_rules(name):
    f, h = function(name), 1e-6
    out = f(Dual(POINTS, {0: ONE}))
    np.testing.assert_array_equal(out.value, f(POINTS))
    slope = out.partials.get(0, 0 * POINTS)  # steps have none
    np.testing.assert_allclose(slope, (f(POINTS + h) - f(POINTS - h)) / (2 * h), rtol=1e-7, atol=1e-9)


@pytest.mark.parametrize("name", sorted([*dual.BINARY, "maximum", "minimum"]))
def test_binary_rules(name):
    f, h, other = function(name), 1e-6, POINTS[::-1].copy()
    out = f(Dual(POINTS, {0: ONE}), Dual(other, {1: ONE}))
    np.testing.assert_allclose(
        out.partials[0], (f(POINTS + h, other) - f(POINTS - h, other)) / (2 * h), rtol=1e-7, atol=1e-9
    )
    np.testing.assert_allclose(
        out.partials[1], (f(POINTS, other + h) - f(POINTS, other - h)) / (2 * h), rtol=1e-7, atol=1e-9
    )
    for constant_first in (False, True):
        args = (other, Dual(POINTS, {0: ONE})) if constant_first else (Dual(POINTS, {0: ONE}), other)
        assert set(f(*args).partials) == {0}


def test_selection_does_not_multiply():
    """0 * inf is NaN: the branch not taken must leave no trace."""
    x = Dual(np.array([0.0, 1.0]), {0: ONE})
    with np.errstate(all="ignore"):
        out = where(x > 0, np.log(x), x)
        clamped = np.maximum(np.log(x), -5.0)
    np.testing.assert_array_equal(out.partials[0], [1.0, 1.0])
    np.testing.assert_array_equal(clamped.partials[0], [0.0, 1.0])
    np.testing.assert_array_equal(np.clip(x, 0.5, 2.0).partials[0], [0.0, 1.0])


def test_ties_pass_to_the_operand_that_depends_on_the_state():
    x = Dual(np.zeros(2), {0: ONE})
    for out in (relu(x), np.maximum(0.0, x), np.minimum(x, np.zeros(2)), np.minimum(np.zeros(2), x)):
        np.testing.assert_array_equal(out.partials[0], [1.0, 1.0])
    both = np.maximum(x, Dual(np.zeros(2), {1: ONE}))
    np.testing.assert_array_equal(both.partials[0], [1.0, 1.0])
    np.testing.assert_array_equal(both.partials[1], [0.0, 0.0])


def test_limits():
    extreme = np.array([-np.inf, -1000.0, 0.0, 1000.0, np.inf, np.nan])
    with np.errstate(all="ignore"):
        np.testing.assert_array_equal(sigmoid(extreme), [0, 0, 0.5, 1, 1, np.nan])
        slope = sigmoid(Dual(extreme, {0: ONE})).partials[0]
        assert np.isnan(np.maximum(extreme, 0.0)[-1])
    np.testing.assert_array_equal(slope, [0, 0, 0.25, 0, 0, np.nan])
    for dtype in (np.float32, np.float64):
        assert sigmoid(np.ones(2, dtype)).dtype == dtype
        assert np.tanh(Dual(np.ones(2, dtype), {0: ONE})).partials[0].dtype == dtype


@pytest.mark.parametrize(
    ("f", "words"),
    [
        (lambda x: x.sum(), "sum"),
        (lambda x: np.sum(x), "numpy.sum"),
        (lambda x: x[..., 0], "indexing"),
        (lambda x: x @ np.eye(3), "numpy.matmul"),
        (lambda x: np.cumsum(x), "numpy.cumsum"),
        (lambda x: np.fmax(x, 0), "numpy.fmax"),
        (lambda x: x if x else -x, "where"),
        (lambda x: float(x), "float"),
        (lambda x: np.asarray(x), "plain array"),
    ],
)
def test_what_a_cell_cannot_use_is_named(f, words):
    with pytest.raises((TypeError, AttributeError), match=words):
        f(Dual(np.ones((2, 3)), {0: ONE}))


def tangent(x, seed=0):
    direction = np.random.default_rng(seed).standard_normal((2, *x.shape))
    return Tangent.seeded(x, direction), direction


W = np.random.default_rng(5).standard_normal((3, 3))
USER_FUNCTIONS = {
    "dense": lambda h: np.tanh(h @ W.T + 0.1),
    "einsum": lambda h: np.einsum("ij,tbj->tbi", W, np.sin(h)),
    "left": lambda h: np.matmul(W, h[..., None])[..., 0],
    "roll": lambda h: (np.roll(h, -1, -1) - np.roll(h, 2, axis=-1)) * np.roll(h, 1, axis=-1) - h,
    "index": lambda h: np.stack([h[..., 1] * h[..., 2], -h[..., 0], h[..., 0] ** 2], axis=-1),
    "mean": lambda h: h - h.mean(axis=-1, keepdims=True) + np.sum(h**2, axis=-1, keepdims=True),
    "concatenate": lambda h: np.concatenate([h[..., 1:] * 2, np.zeros_like(h[..., :1])], axis=-1),
    "where": lambda h: np.where(h > 0, h, 0.1 * h) + np.clip(h, -0.5, 0.5),
    "reshape": lambda h: (h.reshape(*h.shape[:-1], 1, 3) * np.ones((2, 1))).sum(axis=-2),
    "broadcast": lambda h: np.array([1.0, 2.0, 3.0]) * h + np.float64(2.0),
    "rank": lambda h: np.tanh(h[..., :1]) * h,
    "outer": lambda h: np.tensordot(h, W, axes=([-1], [1])),
    "constant": lambda h: np.ones_like(h) + 0 * h,
}


@pytest.mark.parametrize("name", sorted(USER_FUNCTIONS))
def test_tangents_through_user_functions(name):
    f = USER_FUNCTIONS[name]
    x = np.random.default_rng(1).standard_normal((4, 2, 3))
    lifted, direction = tangent(x)
    out = f(lifted)
    np.testing.assert_array_equal(out.value, f(x))
    for j in range(2):
        numeric = (f(x + 1e-6 * direction[j]) - f(x - 1e-6 * direction[j])) / 2e-6
        np.testing.assert_allclose(np.broadcast_to(out.directions[j], x.shape), numeric, atol=1e-8)


@pytest.mark.parametrize(
    ("f", "words"),
    [
        (lambda h: np.linalg.svd(h[..., None])[0][..., 0], "numpy.svd"),
        (lambda h: np.fmax(h, 2), "numpy.fmax"),
        (lambda h: np.linalg.norm(h, ord=0, axis=-1, keepdims=True) * h, "numpy.norm.*ord=0"),
        (lambda h: np.linalg.norm(h[..., None] * h[..., None, :], ord=2, axis=(-1, -2))[..., None] * h, "matrices"),
        (lambda h: np.max(h * 1j, axis=-1).real[..., None] + h, "numpy.max of complex"),
        (lambda h: np.maximum(h * 1j, h).real + h, "numpy.maximum of complex"),
        (lambda h: np.minimum(h, 1j).real + h, "numpy.minimum of complex"),
        (lambda h: np.logaddexp.reduce(h, axis=(0, 1)) + h, "numpy.reduce with these arguments"),
        (lambda h: np.sum(h, axis=-1, initial=h[0, 0])[..., None] + h, "numpy.sum with another argument"),
        (lambda h: np.full_like(h, h[0, 0]), "numpy.full_like"),
        (lambda h: np.add.reduceat(h, [0, 1], axis=-1).sum() + h, "numpy.add.reduceat"),
        (lambda h: np.array([h, h])[0], "plain array"),
    ],
)
def test_what_a_user_function_cannot_use_is_named_with_the_way_out(f, words):
    rec = gallery.function(lambda h, u: f(h) + u, np.ones((5, 3)), "dense")
    with pytest.raises(TypeError, match=words) as caught:
        rs.solve(rec)
    assert "jacobian=" in str(caught.value)


def test_a_python_branch_names_the_way_to_write_it():
    def leaky(s, W, u, p):
        h = W.h(s.h) + u.h
        return h if h.max() > 0 else 0.1 * h

    def branching(s, W, u, p):
        h = W.h(s.h) + u.h
        if h > 0:
            return h
        return 0.1 * h

    cell = rs.Cell(branching, state=("h",), output="h").random(input_size=2, hidden_size=3, rng=0)
    with pytest.raises(TypeError, match=r"branches in Python.*where"):
        rs.solve(cell.recurrence(np.ones((5, 2))))
    cell = rs.Cell(leaky, state=("h",), output="h").random(input_size=2, hidden_size=3, rng=0)
    with pytest.raises((TypeError, AttributeError), match="max"):
        rs.solve(cell.recurrence(np.ones((5, 2))))


def test_a_python_flag_chooses_a_branch_with_its_derivative():
    x = Dual(POINTS, {0: ONE})
    np.testing.assert_array_equal(where(True, 2 * x, 3 * x).partials[0], 2 * np.ones(4))
    np.testing.assert_array_equal(where(False, 2 * x, 3 * x).partials[0], 3 * np.ones(4))

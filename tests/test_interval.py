"""The rules of intervals."""

import numpy as np
import pytest
from hypothesis import strategies as st
from test_bound import DOUBLE, SINGLE, function

from recsolve.analysis import interval
from recsolve.analysis.interval import Interval
from recsolve.analysis.rounding import magnitude
from recsolve.symbolic import dual

WHOLE = st.floats(-20, 20)


BINARY = ["add", "subtract", "multiply", "divide", "maximum", "minimum", "logaddexp", "arctan2", "hypot"]


UNARY = sorted(set(interval.RULES) & set(dual.UNARY) | {"sigmoid", "softplus"})


TRUTHS = ["greater", "greater_equal", "less", "less_equal", "equal", "not_equal"]


def sample(rng, dtype, T=400):
    """Intervals, narrow and wide, and a point of dtype inside each."""
    point = (rng.standard_normal(T) * 10.0 ** rng.integers(-6, 2, T)).astype(dtype)
    point[rng.random(T) < 0.1] = 0
    radius = 10.0 ** rng.integers(-9, 2, T) * (rng.random(T) < 0.8)
    centre = point + radius * rng.uniform(-0.9, 0.9, T)
    return Interval.around(centre, radius, np.dtype(dtype)), point


def assert_holds(enclosure, *values):
    for value in values:
        known = ~np.isnan(value)
        assert (enclosure.lower[known] <= value[known]).all()
        assert (value[known] <= enclosure.upper[known]).all()
        assert np.isinf(magnitude(enclosure)[~known]).all()


@pytest.mark.parametrize("dtype", [np.float64, np.float32])
@pytest.mark.parametrize("name", [*UNARY, *BINARY, *TRUTHS])
def test_the_value_at_a_point_is_in_the_value_at_its_interval(name, dtype):
    f = function(name)
    for seed in range(10):
        rng = np.random.default_rng(seed)
        pairs = [sample(rng, dtype) for _ in range(1 if name in UNARY else 2)]
        intervals, points = zip(*pairs, strict=True)
        with np.errstate(all="ignore"):
            assert_holds(f(*intervals), f(*points), f(*(p.astype(np.longdouble) for p in points)))


@pytest.mark.parametrize("exponent", [0, 1, 2, 3, 4, 0.5, 1.5, -1, -2, -0.5, -3])
def test_powers(exponent):
    for seed in range(10):
        x, point = sample(np.random.default_rng(seed), np.float64)
        with np.errstate(all="ignore"):
            assert_holds(x**exponent, point**exponent, point.astype(np.longdouble) ** exponent)


def test_selection_matrices_and_moves():
    for seed in range(20):
        rng = np.random.default_rng(seed)
        (c, at_c), (a, at_a), (b, at_b) = (sample(rng, np.float64) for _ in range(3))
        assert_holds(np.where((c > 0) & ~(a > b), a, b), np.where((at_c > 0) & ~(at_a > at_b), at_a, at_b))
        assert_holds(np.where((c > 0) | (a > b), a, 1.0), np.where((at_c > 0) | (at_a > at_b), at_a, 1.0))
        A, B = a.reshape(20, 20), np.transpose(b.reshape(20, 20))
        at_A, at_B = at_a.reshape(20, 20), at_b.reshape(20, 20).T
        assert_holds(A @ B, at_A @ at_B, at_A.astype(np.longdouble) @ at_B)
        assert_holds(at_A @ B, at_A @ at_B)
        assert_holds(np.stack([a, at_b, b])[1:], np.stack([at_b, at_b]))


def test_intervals_are_not_wider_than_they_must_be():
    x = Interval.around(np.array([0.3, -2.0, 1.5]), np.array([0.1, 0.5, 0.2]), DOUBLE)
    for name in UNARY:
        if name in ("log", "log1p", "sqrt", "sign", "floor", "ceil", "rint", "tan"):
            continue
        f, fine = function(name), np.linspace(x.lower, x.upper, 2001)
        y, values = f(x), f(fine)
        np.testing.assert_allclose(y.lower, values.min(axis=0), atol=1e-5)
        np.testing.assert_allclose(y.upper, values.max(axis=0), atol=1e-5)


def test_intervals_know_the_numbers_of_their_dtype():
    x = Interval.of(np.float32(1), SINGLE)
    assert abs(float((0.9 * x).centre) - float(np.float32(0.9))) < 1e-12
    assert np.isinf((x * 1e30 * 1e30).upper)  # float32 overflows
    with pytest.raises(TypeError, match="Python branch"):
        bool(x > 0)
    with pytest.raises(TypeError, match="no rule for intervals"):
        np.sort(x)

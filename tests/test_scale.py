"""The default absolute tolerance follows the size of the states: tiny and huge ones are solved as others are."""

from functools import cache

import gallery
import numpy as np
import pytest

import recsolve as rs

SOLVERS = sorted(rs.solvers.REGISTRY)
POWERS = (-66, 66)  # 1.4e-20 and 7.4e19


def relu_network(h, u):
    return np.maximum(h @ WEIGHT.astype(h.dtype).T + u, 0)


WEIGHT = 0.5 * np.random.default_rng(5).standard_normal((6, 6))
HOMOGENEOUS = {  # f(s h, s u) = s f(h, u)
    "relu": (lambda h, u: np.maximum(0.5 * u - 0.75 * h, 0.25 * h), "diagonal"),
    "norm": (lambda h, u: 0.5 * np.abs(h - u) + 0.25 * np.maximum(h, u), "diagonal"),
    "relu network": (relu_network, "dense"),
}


@cache
def homogeneous(kind, dtype, power, T=50):
    f, structure = HOMOGENEOUS[kind]
    u = np.random.default_rng(1).standard_normal((T, 2, 6))
    h = np.random.default_rng(2).standard_normal((2, 6))

    def made(factor):
        inputs, initial = (factor * u).astype(dtype), (factor * h).astype(dtype)
        return rs.Recurrence.from_function(f, inputs=inputs, initial=initial, structure=structure)

    return made(2.0**40 / made(2.0**40).state_scale * 2.0**power)  # a size of 1, where it counts as 1 anyway


@pytest.mark.parametrize("kind", sorted(HOMOGENEOUS))
@pytest.mark.parametrize("dtype", gallery.DTYPES)
@pytest.mark.parametrize("method", SOLVERS)
def test_scaled_recurrences_take_the_same_iterations(method, dtype, kind):
    plain = rs.solve(homogeneous(kind, dtype, 0), method=method)
    assert plain.success
    for power in POWERS:
        scaled = rs.solve(homogeneous(kind, dtype, power), method=method)
        assert scaled.success
        assert scaled.nit == plain.nit
        np.testing.assert_array_equal(scaled.states * dtype(2.0**-power), plain.states)
        np.testing.assert_array_equal(scaled.residuals * 2.0**-power, plain.residuals)
        assert scaled.trusted == plain.trusted


@pytest.mark.parametrize("backend", ["numpy", "numba"])
@pytest.mark.parametrize("mixing", ["diagonal", "dense"])
@pytest.mark.parametrize("method", ["newton", "windowed", "jacobi"])
def test_backends_agree_on_what_is_tiny_or_huge(method, mixing, backend):
    rec = gallery.recurrence("elman_relu", mixing, dtype=np.float32, units=4)
    size = 2.0**40 / rec.cell.recurrence(drive={"h": rec.drive.h * np.float32(2.0**40)}).state_scale
    found = []
    for power in (0, *POWERS):
        drive = {"h": rec.drive.h * np.float32(size * 2.0**power)}
        with rs.backend(backend):
            found.append(rs.solve(rec.cell.recurrence(drive=drive), method=method))
    for sol, power in zip(found, (0, *POWERS), strict=True):
        assert sol.trusted
        assert sol.nit == found[0].nit
        np.testing.assert_array_equal(sol.states * np.float32(2.0**-power), found[0].states)
        assert gallery.residual_is_met(sol.recurrence, sol.states, sol.tolerance)


@pytest.mark.parametrize("size", [1e-20, 1e-42, 1e-310])
@pytest.mark.parametrize("dtype", gallery.DTYPES)
@pytest.mark.parametrize("method", ["newton", "jacobi", "sequential", "windowed", "auto"])
def test_tiny_states_are_solved_to_their_own_digits(method, dtype, size):
    """h = 0.9 sin h + 1e-20 converged at once, to a tenth of the solution, and was trusted."""
    u = np.full((200, 1), max(size, 1e-42) if dtype is np.float32 else size, dtype)
    factor = dtype(0.9)
    rec = gallery.function(lambda h, u: factor * np.sin(h) + u, u)
    sol, truth = rs.solve(rec, method=method), gallery.loop(rec)
    assert sol.trusted
    assert np.abs(sol.states - truth).max() <= 0.01 * truth.max()


def test_a_tolerance_of_the_user_stays_as_it_is():
    rec = homogeneous("relu network", np.float64, -66)
    for given in ({"tol": 1e-9}, {"options": {"atol": 1e-9, "rtol": 1e-9}}):
        sol = rs.solve(rec, **given)
        assert (sol.tolerance.atol, sol.tolerance.rtol, sol.tolerance.unit) == (1e-9, 1e-9, 1.0)
        assert sol.nit == 0
        assert not sol.trusted
    assert rs.solve(rec, options={"rtol": 1e-3}).tolerance.unit == 2.0**-66


def test_ordinary_sizes_count_as_one_and_nothing_counts_as_nothing():
    def scale(u, h=0.0):
        u = np.asarray(u, float) * np.ones((70, 2))
        return rs.Recurrence.from_function(
            lambda h, u: 0.5 * h + u, inputs=u, initial=np.full(2, h), structure="diagonal"
        ).state_scale

    assert [scale(u) for u in (0.0, 0.01, 1.0, 100.0, np.nan, [1e-9, 1.0], [1e12, 1.0])] == [1.0] * 7
    assert scale(1e-9) == scale(0.0, h=1e-9) == 2.0**-30
    assert scale([1e-9, 1e-14]) == 2.0**-30  # what is smaller yet is not trusted
    assert scale(1e9) == 2.0**30
    assert scale([1e9, 1e4]) == 2.0**20  # the small ones are solved to as many digits but two
    assert scale([1e9, np.inf]) == 2.0**30
    assert scale(1.0, h=1e10) == 1.0  # which is forgotten
    assert scale(0.0, h=1e10) == 2.0**33
    assert scale(1e-20, h=1e-9) == 2.0**-66


def test_a_tiny_sequence_beside_an_ordinary_one_is_not_trusted_unless_it_is_right():
    u = np.ones((200, 2, 1)) * np.array([[1.0], [1e-20]])
    rec = gallery.function(lambda h, u: 0.9 * np.sin(h) + u, u)
    coarse = rs.solve(rec, method="jacobi")
    assert coarse.success
    assert not coarse.trusted
    assert rs.solve(rec, method="jacobi", options={"atol": 1e-36}).trusted


@pytest.mark.parametrize("size", [1.0, 2.0**-66, 2.0**66])
@pytest.mark.parametrize("method", ["newton", "jacobi", "sequential"])
def test_an_f_that_mixes_times_is_noticed_whatever_its_size(method, size):
    u = size * np.random.default_rng(0).standard_normal((50, 3))
    rec = gallery.function(lambda h, u: 0.5 * np.abs(h - u) + 1e-3 * np.cumsum(u, axis=0), u)
    sol = rs.solve(rec, method=method)
    assert sol.status == "stalled"
    assert "f mixes" in sol.message

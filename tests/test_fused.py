"""Solves compiled from the function of a cell, against NumPy and its loop."""

import os
import subprocess
import sys
import textwrap
import tracemalloc

import numpy as np
import pytest
from gallery import COMPILE_LIKE_OTHERS

import recsolve as rs
from recsolve.math import maximum, tanh, where
from recsolve.mixings import Diagonal

CELLS = {cell.name: cell for cell in vars(rs.cells).values() if isinstance(cell, rs.Cell)}
DTYPES = (np.float32, np.float64)
LENGTHS = (0, 1, 31, 32, 33, 1000, 4099)


def leaky(s, W, u, p):
    """A user's cell, with a condition and a parameter that is one number."""
    h = p.tau * s.h + (1 - p.tau) * tanh(W.h(s.h) + u.x)
    return where(h > u.top, u.top, maximum(h, -1.0))


LEAKY = rs.Cell(leaky, state=("h",), output="h")


def drives(cell, shape, dtype, rng):
    return {name: rng.standard_normal(shape).astype(dtype) for name in cell.drives}


def weights(cell, units, dtype, rng, gain=0.7):
    mixings = {name: Diagonal((gain * rng.standard_normal(units)).astype(dtype)) for name in cell.mixings}
    parameters = {name: (0.3 * rng.standard_normal(units)).astype(dtype) for name in cell.parameters}
    return cell.with_weights(mixings=mixings, parameters=parameters, hidden_size=units)


def recurrence(cell, T, batch, units, dtype, resets=True, seed=0):
    rng = np.random.default_rng(seed)
    weighted = weights(cell, units, dtype, rng)
    reset = rng.random((T, *batch)) < 0.1 if resets else None
    initial = rng.standard_normal((*batch, *weighted.layout.event)).astype(dtype)
    return weighted.recurrence(drive=drives(cell, (T, *batch, units), dtype, rng), initial=initial, reset=reset)


def both(compute):
    """Return what NumPy and the compiled loops compute."""
    found = []
    for backend in ("numpy", "numba"):
        with rs.backend(backend):
            found.append(compute())
    return found


def close(x, y, ulps=200):
    assert x.shape == y.shape
    assert x.dtype == y.dtype
    scale = max(np.abs(x).max(initial=0), 1)
    np.testing.assert_allclose(y, x, rtol=0, atol=ulps * np.finfo(x.dtype).eps * scale)


@pytest.mark.sample(every=2, name=COMPILE_LIKE_OTHERS)
@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("name", CELLS)
def test_every_cell_is_solved_as_by_numpy(name, dtype):
    rec = recurrence(CELLS[name], 40, (3,), 5, dtype)
    cotangent = np.random.default_rng(1).standard_normal(rec.shape).astype(dtype)

    def compute():
        solution = rs.solve(rec, method="sequential")
        assert solution.success
        newton = rs.solve(rec, method="newton")
        assert newton.success
        g = rs.adjoint(solution, states=cotangent)
        gradients = [g.states, g.initial, *g.drive.values(), *g.parameters.values(), *g.mixings.values()]
        return [solution.states, newton.states, *gradients]

    for x, y in zip(*both(compute), strict=True):
        close(x, y)


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("T", LENGTHS)
@pytest.mark.parametrize(("batch", "units"), [((), 1), ((2,), 3), ((2, 1), 70), ((0,), 3)])
def test_any_shape(T, batch, units, dtype):
    rec = recurrence(LEAKY, T, batch, units, dtype)
    walked = both(lambda: rs.solve(rec, method="sequential").states)
    close(*walked)
    previous = rec.previous(walked[0])
    (values, J), (compiled, J_compiled) = both(lambda: rec.bind().differentiate(previous))
    close(values, compiled)
    close(J.data, J_compiled.data)


def layouts(x):
    """The same numbers in other places of memory."""
    yield "as batch first", np.ascontiguousarray(x.swapaxes(0, 1)).swapaxes(0, 1)
    yield "Fortran order", np.asfortranarray(x)
    yield "every other", np.repeat(x, 2, axis=-1)[..., ::2]
    yield "backwards", x[::-1].copy()[::-1]
    yield "gates side by side", np.concatenate([x, x], axis=-1)[..., : x.shape[-1]]
    yield "off its alignment", np.frombuffer(b"0" + x.tobytes(), x.dtype, offset=1, count=x.size).reshape(x.shape)


@pytest.mark.parametrize("units", [3, 80])
@pytest.mark.parametrize("name", ["gru", "lstm"])
def test_any_place_in_memory(name, units):
    rec = recurrence(CELLS[name], 20, (3,), units, np.float32)
    with rs.backend("numba"):
        expected = rs.solve(rec, method="sequential").states
    for layout in ("as batch first", "Fortran order", "every other", "backwards", "gates side by side"):
        moved = {n: dict(layouts(u))[layout] for n, u in rec.drive.items()}
        for u in moved.values():
            u.flags.writeable = False
        other = rec.cell.recurrence(drive=moved, initial=rec.initial, reset=rec.reset)
        with rs.backend("numba"):
            solution = rs.solve(other, method="sequential")
            g = rs.adjoint(solution, states=np.ones_like(solution.states))
        np.testing.assert_array_equal(solution.states, expected, layout)
        with rs.backend("numpy"):
            close(rs.adjoint(solution, states=np.ones_like(expected)).states, g.states)


def test_what_is_broadcast_stays_so():
    rng = np.random.default_rng(0)
    cell = weights(CELLS["gru"], 4, np.float64, rng)
    drive = {
        "r": rng.standard_normal((50, 3, 4)),
        "z": rng.standard_normal((50, 1, 4)),
        "n": rng.standard_normal((50, 3, 1)),
    }
    rec = cell.recurrence(drive=drive)

    def compute():
        solution = rs.solve(rec, method="sequential")
        return [solution.states, *rs.adjoint(solution, states=np.ones_like(solution.states)).drive.values()]

    for x, y in zip(*both(compute), strict=True):
        close(x, y)


@pytest.mark.sample(name=COMPILE_LIKE_OTHERS)
@pytest.mark.parametrize(("place", "name"), list(enumerate(CELLS)))
def test_a_cell_rounds_alike_in_all_loops(place, name):
    """Steps one by one, all at once, with partials beside them and from a state in between: the same bits."""
    dtype = DTYPES[place % 2]  # in turn, as above: these loops are compiled
    rec = recurrence(CELLS[name], 300, (2,), 33, dtype)
    with rs.backend("numba"):
        states = rs.solve(rec, method="sequential").states
        previous = rec.previous(states)
        engine = rec.bind()
        np.testing.assert_array_equal(engine.apply(previous), states)
        np.testing.assert_array_equal(engine.differentiate(previous)[0], states)
        again = engine.walk(states, 100)
        np.testing.assert_array_equal(again, states)
        with rs.backend("numba", threads=1):
            np.testing.assert_array_equal(rs.solve(rec, method="sequential").states, states)


def test_min_max_equals_the_loop_bit_for_bit():
    rec = recurrence(CELLS["minmax"], 500, (2,), 40, np.float32)
    np.testing.assert_array_equal(*both(lambda: rs.solve(rec, method="sequential").states))


@pytest.mark.parametrize("bad", [np.nan, np.inf])
def test_what_is_not_finite_reaches_neither_the_past_nor_other_lanes(bad):
    rec = recurrence(CELLS["lstm"], 60, (3,), 4, np.float64, resets=False)
    drive = {name: u.copy() for name, u in rec.drive.items()}
    drive["g"][30, 1, 2] = bad
    drive["i"][30, 1, 2] = -bad if np.isinf(bad) else bad
    other = rec.cell.recurrence(drive=drive, initial=rec.initial)
    with rs.backend("numba"):
        good, spoilt = (rs.solve(r, method="sequential").states for r in (rec, other))
    untouched = np.ones(good.shape, bool)
    untouched[30:, 1, :, 2] = False
    np.testing.assert_array_equal(good[untouched], spoilt[untouched])
    if np.isnan(bad):
        assert np.isnan(spoilt[30:, 1, :, 2]).all()


@pytest.mark.parametrize("name", ["gru", "lstm"])
def test_gradients_pass_finite_differences(name):
    rec = recurrence(CELLS[name], 12, (2,), 3, np.float64)
    cotangent = np.random.default_rng(2).standard_normal(rec.shape)
    with rs.backend("numba"):
        g = rs.adjoint(rs.solve(rec, method="sequential"), states=cotangent)

    def value(**changed):
        given = {"drive": dict(rec.drive), "initial": rec.initial} | changed
        other = rec.cell.recurrence(drive=given["drive"], initial=given["initial"], reset=rec.reset)
        with rs.backend("numba"):
            return float((rs.solve(other, method="sequential").states * cotangent).sum())

    rng, eps = np.random.default_rng(3), 1e-6
    direction = rng.standard_normal(rec.initial.shape)
    slope = (value(initial=rec.initial + eps * direction) - value(initial=rec.initial - eps * direction)) / (2 * eps)
    assert slope == pytest.approx((g.initial * direction).sum(), rel=1e-6, abs=1e-8)
    for n, u in rec.drive.items():
        direction = rng.standard_normal(u.shape)
        ends = [value(drive={**rec.drive, n: u + sign * eps * direction}) for sign in (1, -1)]
        slope = (ends[0] - ends[1]) / (2 * eps)
        assert slope == pytest.approx((g.drive[n] * direction).sum(), rel=1e-6, abs=1e-8)


def test_a_cell_that_cannot_be_traced_is_evaluated_by_numpy_unless_numba_is_asked_for():
    def branching(s, W, u, p):
        return s.h * float(np.mean(np.shape(u.x)) > 0) + u.x if np.ndim(u.x) else np.sum(u.x)

    cell = rs.Cell(branching, state=("h",), output="h").with_weights(hidden_size=2)
    rec = cell.recurrence(drive={"x": np.ones((5000, 2))})
    assert not rec.compiled
    with rs.backend("numba"), pytest.raises(TypeError, match=r"branching cannot be traced at line .*np.sum"):
        rec.bind()


def test_small_problems_stay_with_numpy():
    assert not recurrence(LEAKY, 100, (2,), 3, np.float64).compiled
    assert recurrence(LEAKY, 5000, (2,), 3, np.float64).compiled
    with rs.backend("numpy"):
        assert not recurrence(LEAKY, 5000, (2,), 3, np.float64).compiled


def test_a_second_process_finds_the_loops_on_disk(tmp_path):
    code = textwrap.dedent(
        """
        import time
        import numpy as np, recsolve as rs
        from numba.core import event
        cell = rs.cells.Elman.random(input_size=2, hidden_size=3, mixing="diagonal", rng=0)
        rec = cell.recurrence(np.ones((5000, 2)))
        with event.install_recorder("numba:compile") as compiled:
            assert rs.solve(rec, method="sequential").success
        names = {e.data["dispatcher"].py_func.__name__ for _, e in compiled.buffer if e.is_start}
        print(sorted(names & {"walk", "evaluate"}))
        """
    )
    environment = {**os.environ, "RECSOLVE_CACHE": str(tmp_path)}
    runs = [
        subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, env=environment, check=True)
        for _ in range(2)
    ]
    assert [run.stdout.strip() for run in runs] == ["['evaluate', 'walk']", "[]"]


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("T", [0, 1, 31, 33, 300])
@pytest.mark.parametrize("window", [1, 16, 256])
def test_newton_in_windows_finds_the_loop(window, T, dtype):
    rec = recurrence(CELLS["lstm"], T, (2,), 20, dtype)
    options = {"solver": "newton", "window": window}
    with rs.backend("numba"):
        solution = rs.solve(rec, method="windowed", options=options, tol=20 * np.finfo(dtype).eps)
        expected = rs.solve(rec, method="sequential").states
    assert solution.success
    assert solution.nit <= T + 1
    close(expected, solution.states, ulps=2000)


def test_newton_in_windows_ends_on_what_is_not_finite():
    rec = recurrence(CELLS["gru"], 60, (3,), 4, np.float64, resets=False)
    drive = {name: u.copy() for name, u in rec.drive.items()}
    drive["n"][30, 1, 2] = np.nan
    other = rec.cell.recurrence(drive=drive, initial=rec.initial)
    with rs.backend("numba"):
        solution = rs.solve(other, method="windowed")
        expected = rs.solve(other, method="sequential").states
    assert solution.status is rs.Status.NONFINITE
    np.testing.assert_array_equal(np.isnan(solution.states), np.isnan(expected))
    close(np.nan_to_num(expected), np.nan_to_num(solution.states))


def test_newton_in_windows_is_the_drivers_where_someone_looks():
    rec, seen = recurrence(CELLS["gru"], 60, (2,), 4, np.float64), []
    with rs.backend("numba"):
        solution = rs.solve(rec, method="windowed", callback=lambda result: seen.append(result.nit))
    assert len(seen) == solution.nit + 1


def test_memory_of_a_windowed_solve_does_not_grow_with_the_number_of_steps():
    peaks = []
    for T in (1 << 8, 1 << 11, 1 << 14):
        units = (1 << 18) // T
        rng = np.random.default_rng(0)
        weighted = weights(CELLS["gru"], units, np.float32, rng)
        rec = weighted.recurrence(drive=drives(CELLS["gru"], (T, units), np.float32, rng))
        with rs.backend("numba"):
            rs.solve(rec, method="windowed", tol=1e-5)
            tracemalloc.start()
            assert rs.solve(rec, method="windowed", tol=1e-5).success
            peaks.append(tracemalloc.get_traced_memory()[1] / (4 * T * units))
            tracemalloc.stop()
    assert max(peaks) < 4  # trajectories: states, F, residual, and a few numbers of every row

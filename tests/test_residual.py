"""Iterates are tested and guarded by compiled loops as by NumPy."""

import numpy as np
import pytest
from test_fused import DTYPES, both

import recsolve as rs
from recsolve.base.tolerance import Tolerance
from recsolve.kernels import residual
from recsolve.kernels.residual import guard, largest_finite, residual_of


def iterates(shape, axes, dtype, rng):
    """States and F that agree in some rows and not in others, with a few entries that are not finite."""
    states = rng.standard_normal(shape).astype(dtype)
    values = states + (rng.random(shape) * rng.choice([0, 1, 20], shape[:-axes] + (1,) * axes)).astype(dtype) * 1e-6
    for x in (states, values):
        x[rng.random(shape) < 0.02] = rng.choice([np.nan, np.inf, -np.inf])
    return states, values


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("batch_first", [False, True])
@pytest.mark.parametrize(
    ("layout", "batch"), [(rs.Layout(1, (), 5), (3,)), (rs.Layout(2, (), 3), ()), (rs.Layout(1, (2,), 4), (2, 2))]
)
@pytest.mark.parametrize("coupled", [False, True])
def test_iterates_are_tested_and_guarded_as_by_numpy(coupled, layout, batch, batch_first, dtype):
    rng, axes = np.random.default_rng(0), len(layout.event)
    shape = (40, *batch, *layout.event)
    if batch_first and batch:
        shape = (batch[0], 40, *shape[2:])
    states, values = iterates(shape, axes, dtype, rng)
    proposal = (states * rng.choice([1, 1, 50], shape)).astype(dtype)
    if batch_first and batch:
        states, values, proposal = (x.swapaxes(0, 1) for x in (states, values, proposal))
    tolerance, event = Tolerance(1e-6, 1e-7, layout if coupled else None), tuple(range(states.ndim - axes, states.ndim))
    reach = (1 + 40 * rng.random((1, *batch, *(1,) * axes))).astype(dtype)
    pins = rng.random((2, 40, *batch)) < 0.2

    def compute():
        tested = residual_of(states, values, tolerance, event)
        return [*tested, largest_finite(states, event), guard(proposal, states, values, reach, tuple(pins), event)]

    with np.errstate(all="ignore"):
        for x, y in zip(*both(compute), strict=True):
            np.testing.assert_array_equal(x, y)
            assert x.strides == y.strides or x.ndim == 1 + len(batch)


@pytest.mark.parametrize(
    ("steps", "backend", "compiled"),
    [(1 << 12, "auto", True), (1 << 9, "auto", False), (1 << 12, "numpy", False), (1 << 9, "numba", True)],
)
def test_large_iterates_take_the_compiled_loops(monkeypatch, steps, backend, compiled):
    """They are read once; of 2^15 numbers each call would cost more than it saves."""
    ran, run = [], residual._Rows.run
    monkeypatch.setattr(residual._Rows, "run", lambda rows, loop: (ran.append(loop), run(rows, loop)))
    states, layout = np.zeros((steps, 64), np.float32), rs.Layout(1, (), 64)
    with rs.backend(backend):
        tested = residual_of(states, states, Tolerance(1e-6, 1e-6, layout), (1,))
        guard(states, states, states, np.full((1, 1), 1, np.float32), None, (1,))
        largest_finite(states, (1,))
    assert tested.exact.all()
    assert len(ran) == (3 if compiled else 0)


@pytest.mark.parametrize("dtype", ["f8", "f4", "i8", "bool"])
@pytest.mark.parametrize(("batch", "event"), [((), (3,)), ((2,), (2, 3)), ((2, 3), ()), ((0,), (3,))])
def test_values_that_are_the_states_are_tested_as_others_are(dtype, batch, event):
    """The test is not computed where all residuals are 0; one number that is not, or not finite, makes it computed."""
    T, axes = 9, tuple(range(1 + len(batch), 1 + len(batch) + len(event)))
    states = np.random.default_rng(0).integers(0, 2, (T, *batch, *event)).astype(dtype)
    tolerance = Tolerance(0.0, 0.0)
    same = residual_of(states, states.copy(), tolerance, axes)
    pairs = [(0, 1)] if states.dtype.kind in "ib" else [(0, 1), (0, np.nan), (np.inf, np.inf)]
    for h, f in pairs if states.size else []:
        moved, values = states.copy(), states.copy()
        moved[4].flat[0], values[4].flat[0] = h, f
        with np.errstate(all="ignore"):
            found = residual_of(moved, values, tolerance, axes)
        others = np.arange(T) != 4
        for one, other in zip(same, found, strict=True):
            assert (one.shape, one.dtype) == (other.shape, other.dtype)
            np.testing.assert_array_equal(one[others], other[others])
        assert not found.converged[4].all()
        assert not found.exact[4].all()
    assert same.converged.all()
    assert same.exact.all()
    assert not same.worst.any()

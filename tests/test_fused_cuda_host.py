"""Fused solves of the GPU, built for the host: every regime against the loop, and what segments of time may do."""

import cuda_host
import numpy as np
import pytest
from cuda_host.solves import kernels_of

import recsolve as rs
from recsolve.kernels.gpu.cell.solve_plan import Sizes, plan
from recsolve.kernels.gpu.device import LITTLE, SHARED
from recsolve.kernels.starts import Starts
from recsolve.math import sin
from recsolve.mixings import Diagonal

pytestmark = pytest.mark.skipif(cuda_host.compiler() is None, reason="needs g++")


def sine(s, W, u, p):
    return sin(W.h(s.h) + u.h)


CELLS = {
    "gru": rs.cells.GRU,
    "lstm": rs.cells.LSTM,
    "minmax": rs.cells.MinMax,
    "slstm": rs.cells.SLSTM,
    "sine": rs.Cell(sine, state=("h",), output="h"),
}
WAYS = [
    {"regime": "walk"},
    {"regime": "walk", "segments": 4, "burn": 16},
    {"regime": "walk", "segments": 7, "burn": 0},
    {"regime": "windows"},
    {"regime": "windows", "segments": 3},
    {"regime": "windows", "sweeps": (1, 1)},
]
KERNELS = {}


def fused(name):
    return KERNELS.setdefault(name, kernels_of(CELLS[name]))


def recurrence(name, T, B=2, D=5, dtype="float64", order="TBD", gain=0.5, reset=False, seed=0):
    """A recurrence, and its drives, weights and parameters in the order of kernels."""
    cell, rng = CELLS[name], np.random.default_rng(seed)
    drives = [rng.standard_normal((B, T, D) if order == "BTD" else (T, B, D)).astype(dtype) for _ in cell.drives]
    drives = [u.transpose(1, 0, 2) for u in drives] if order == "BTD" else drives
    weights = [(3.0 * np.ones(D) if name == "sine" else gain * rng.standard_normal(D)) for _ in cell.mixings]
    weights = [w.astype(dtype) for w in weights]
    parameters = [(0.3 * rng.standard_normal(D)).astype(dtype) for _ in cell.parameters]
    shape = (B, D) if len(cell.state) == 1 else (B, len(cell.state), D)
    initial = (np.abs(rng.standard_normal(shape)) + 0.1).astype(dtype)
    mask = rng.random((T, B)) < 0.05 if reset else None
    weighted = cell.with_weights(
        mixings={n: Diagonal(w) for n, w in zip(cell.mixings, weights, strict=True)},
        parameters=dict(zip(cell.parameters, parameters, strict=True)),
        hidden_size=D,
    )
    rec = weighted.recurrence(drive=dict(zip(cell.drives, drives, strict=True)), initial=initial, reset=mask)
    return rec, [*drives, *weights, *parameters], Starts(initial, initial, mask)


def solved(name, rec, inputs, starts, tol=None, **way):
    states = rec.empty()
    states[...] = 7
    eps = np.finfo(states.dtype).eps
    with np.errstate(all="ignore"):
        outcome = fused(name).solve(inputs, states, 1, starts, tol or (4 * eps, 4 * eps), **way)
    return states, outcome


def loop(rec):
    with rs.backend("numpy"), np.errstate(all="ignore"):
        return rs.solve(rec, method="sequential").states


def near(found, exact, units=400):
    scale = max(1.0, np.abs(exact).max(initial=0))
    assert np.abs(found - exact).max(initial=0) <= units * np.finfo(found.dtype).eps * scale


@pytest.mark.parametrize("way", WAYS, ids=str)
@pytest.mark.parametrize("name", ["gru", "lstm", "minmax", "slstm"])
def test_every_regime_is_the_loop(name, way):
    for T in (1, 31, 33, 300):
        for order, reset in (("TBD", False), ("BTD", True)) if name in ("gru", "slstm") else (("BTD", False),):
            rec, inputs, starts = recurrence(name, T, order=order, reset=reset)
            near(solved(name, rec, inputs, starts, **way)[0], loop(rec))


@pytest.mark.parametrize("way", WAYS, ids=str)
def test_many_lanes_in_float32(way):
    rec, inputs, starts = recurrence("gru", 150, B=3, D=37, dtype="float32")
    near(solved("gru", rec, inputs, starts, **way)[0], loop(rec))


def test_segments_follow_where_states_are_remembered():
    """Gates that hardly let go: no guess is right, and every end moves on to the next segment."""
    rec, inputs, starts = recurrence("gru", 300, gain=0.5)
    z = list(rec.drive).index("z")
    inputs[z] += 12
    exact = loop(rec)
    for segments in (3, 9):
        states, outcome = solved("gru", rec, inputs, starts, regime="walk", segments=segments, burn=0)
        near(states, exact)
        assert outcome.redone >= segments
    assert outcome.windows > 0  # what the rounds left
    _, easy = solved("gru", *recurrence("gru", 300), regime="walk", segments=3, burn=64)
    assert easy.redone == easy.windows == 0


def test_what_was_written_before_a_segment_is_met_within_the_tolerance():
    rec, inputs, starts = recurrence("gru", 400)
    for tol in (1e-3, 1e-8):
        states, outcome = solved("gru", rec, inputs, starts, tol=(tol, 0.0), regime="walk", segments=4, burn=0)
        previous = np.concatenate([starts.initial[None], states[:-1]])
        defect = np.abs(rec.apply(previous) - states).max()
        assert defect <= tol * (1 + 1e-6)
        assert outcome.residual == pytest.approx(defect, rel=1e-3, abs=1e-12)
        assert outcome.redone > 0


@pytest.mark.parametrize("way", WAYS, ids=str)
@pytest.mark.parametrize("bad", [np.nan, np.inf])
def test_what_is_not_finite_stays_in_its_lane_and_after_its_time(way, bad):
    rec, inputs, starts = recurrence("gru", 200, D=3)
    clean = loop(rec)
    inputs[0][100, 1, 2] = bad
    states, _ = solved("gru", rec, inputs, starts, **way)
    np.testing.assert_array_equal(np.isnan(states), np.isnan(loop(rec)))
    near(states[:100], clean[:100])
    near(np.delete(states.reshape(200, -1), 5, axis=1), np.delete(clean.reshape(200, -1), 5, axis=1))


@pytest.mark.parametrize("regime", ["walk", "windows"])
def test_a_segment_that_starts_from_nan_and_was_given_nan_is_not_solved_again(regime):
    """NaN equals NaN between segments; one that was given a number, and follows from NaN, is lost."""
    way = {"regime": regime, "segments": 3, "burn": 128}
    T, redone = 768, {}
    for at in (None, 2 * T // 3 - 1, T // 3 + 1):
        rec, inputs, chain = recurrence("gru", T)
        if at is not None:
            inputs[0][at, 1, 2] = np.nan
        states, outcome = solved("gru", rec, inputs, chain, **way)
        np.testing.assert_array_equal(np.isnan(states), np.isnan(loop(rec)))
        assert outcome.plan.segments * outcome.plan.span == T
        redone[at] = outcome.redone
    assert list(redone.values()) == [0, 0, 1]


@pytest.mark.parametrize(
    ("name", "way"), [("gru", w) for w in WAYS if "sweeps" not in w] + [("lstm", WAYS[1]), ("lstm", WAYS[4])], ids=str
)
def test_adjoint(name, way):
    for T, order, reset in ((1, "TBD", False), (33, "TBD", False), (33, "BTD", True), (150, "TBD", True)):
        rec, inputs, starts = recurrence(name, T, order=order, reset=reset)
        with rs.backend("numpy"):
            solution = rs.solve(rec, method="sequential")
            cotangent = np.random.default_rng(5).standard_normal(solution.states.shape)
            exact = rs.adjoint(solution, states=cotangent)
        adjoint, drives, totals, initial = fused(name).adjoint(inputs, solution.states, cotangent, 1, starts, **way)
        near(adjoint, exact.states, 5000)
        near(initial[0] if initial.shape[0] == 1 else np.moveaxis(initial, 0, 1), exact.initial, 5000)
        for found, wanted in zip(drives, exact.drive.values(), strict=True):
            near(found, wanted, 5000)
        constants = [*exact.mixings.values(), *exact.parameters.values()]
        for found, wanted in zip(totals.sum(axis=1), constants, strict=True):
            near(found, wanted, 5000)


def test_steps_that_are_cut_wait_for_what_comes_back_to_them():
    """Resets where chunks and segments begin: what such a step writes on the way back depends on the steps after it."""
    rec, inputs, starts = recurrence("gru", 256)
    reset = np.zeros((256, 2), bool)
    reset[(255 - np.arange(16, 256, 8), 1)] = True
    rec = rec.cell.recurrence(drive=rec.drive, initial=rec.initial, reset=reset)
    with rs.backend("numpy"):
        solution = rs.solve(rec, method="sequential")
        cotangent = np.random.default_rng(5).standard_normal(solution.states.shape)
        exact = rs.adjoint(solution, states=cotangent)
    starts = Starts(starts.initial, starts.initial, reset)
    for way in WAYS[:5]:
        adjoint, *_ = fused("gru").adjoint(inputs, solution.states, cotangent, 1, starts, **way)
        near(adjoint, exact.states, 5000)


def test_adjoint_variables_that_overflow_are_not_met_by_finite_ones():
    """Chaos: the loop's adjoint is inf after some hundred steps, but that of a segment that was led into is not."""
    rec, inputs, starts = recurrence("sine", 900, B=1, D=3, dtype="float32")
    with rs.backend("numpy"), np.errstate(all="ignore"):
        solution = rs.solve(rec, method="sequential")
        cotangent = np.ones_like(solution.states)
        exact = rs.adjoint(solution, states=cotangent).states
    assert not np.isfinite(exact[:100]).any()
    for way in WAYS[:5]:
        with np.errstate(all="ignore"):
            adjoint, *_ = fused("sine").adjoint(inputs, solution.states, cotangent, 1, starts, **way)
        assert (np.isfinite(adjoint) != np.isfinite(exact)).sum() <= 6  # a step on either side, where they round apart


@pytest.mark.parametrize("room", [99 << 10, SHARED])
@pytest.mark.parametrize("dtype", ["float32", "float64"])
@pytest.mark.parametrize("way", ["Forward", "Backward"])
def test_every_plan_fits(dtype, way, room):
    for parts in range(1, 9):
        for drives in (1, 3, 8, 16, 32):
            sizes = Sizes(parts, drives, 4, parts, 0, 60)
            counts = sizes if way == "Forward" else sizes.backward()
            one = plan(way, dtype, True, counts, 4096, 256, 132, room=room)
            kernels = [one.kernel] if one.segments == 1 else [one.kernel, one.again, one.repair]
            assert all(LITTLE < kernel.shared <= room for kernel in kernels)


def test_half_storage():
    rec, inputs, starts = recurrence("gru", 200, dtype="float32")
    exact, halves = loop(rec), [x.astype(np.float16) for x in inputs]
    for way in WAYS[1:5:2]:
        states = np.empty(rec.shape, np.float16)
        fused("gru").solve(halves, states, 1, starts, (1e-3, 1e-3), **way)
        assert np.abs(states - exact).max() < 2e-2


def test_nothing_to_do():
    for T, B, D in ((0, 2, 3), (4, 0, 3)):
        rec, inputs, starts = recurrence("gru", T, B, D)
        assert fused("gru").newton(inputs, rec.empty(), 1, starts, 64, (1e-12, 1e-12)) == (0, 0.0, {})
        fused("gru").walk(inputs, rec.empty(), 1, starts)


@pytest.mark.parametrize(
    ("steps", "lanes", "regime", "several"),
    [(512, 8192, "walk", True), (16384, 256, "walk", True), (2048, 65536, "walk", False), (31, 40, "walk", False)],
)
def test_the_choice(steps, lanes, regime, several):
    """On a device of 132 multiprocessors."""
    one = plan("Forward", "float32", False, fused("gru").sizes, steps, lanes, 132)
    assert one.regime == regime
    assert (one.segments > 1) == several
    assert one.segments * one.span >= steps > (one.segments - 1) * one.span


@pytest.mark.parametrize(("name", "value"), [("regime", "shooting"), ("segments", 0), ("burn", -1)])
def test_bad_settings(name, value):
    rec, inputs, starts = recurrence("gru", 10)
    with pytest.raises(ValueError, match=f"{name} is {value!r}; wanted"):
        solved("gru", rec, inputs, starts, **{name: value})

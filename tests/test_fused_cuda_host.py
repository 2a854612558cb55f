"""Fused solves of the GPU, built for the host: segments of time against the loop, and what is told of a solve."""

import cuda_host
import numpy as np
import pytest
from cuda_host.solves import kernels_of

import recsolve as rs
from recsolve.kernels.codegen.cuda_structures import constants
from recsolve.kernels.gpu.cell.segment_sums import over_segments
from recsolve.kernels.gpu.cell.solve_plan import Sizes, plan
from recsolve.kernels.gpu.device import LITTLE, SHARED
from recsolve.kernels.starts import Starts
from recsolve.math import sin
from recsolve.mixings import Diagonal

pytestmark = pytest.mark.skipif(cuda_host.compiler() is None, reason="needs g++")


def sine(s, W, u, p):
    return sin(W.h(s.h) + u.h)


def total(s, W, u, p):
    return W.h(s.h) + u.h


CELLS = {
    "gru": rs.cells.GRU,
    "lstm": rs.cells.LSTM,
    "minmax": rs.cells.MinMax,
    "slstm": rs.cells.SLSTM,
    "sum": rs.Cell(total, state=("h",), output="h"),
    "sine": rs.Cell(sine, state=("h",), output="h"),
}
WAYS = [
    {"segments": 1},
    {"segments": 4, "burn": 16},
    {"segments": 7, "burn": 0},
    {"segments": 20, "burn": 8},  # in several blocks
    {"segments": 20, "burn": 0, "sweeps": 1},  # the rest in order
]
KERNELS = {}


def fused(name):
    return KERNELS.setdefault(name, kernels_of(CELLS[name]))


def recurrence(name, T, B=2, D=5, dtype="float64", order="TBD", gain=0.5, reset=False, seed=0):
    """A recurrence, and its drives, weights and parameters in the order of kernels."""
    cell, rng = CELLS[name], np.random.default_rng(seed)
    drives = [rng.standard_normal((B, T, D) if order == "BTD" else (T, B, D)).astype(dtype) for _ in cell.drives]
    drives = [u.transpose(1, 0, 2) for u in drives] if order == "BTD" else drives
    weights = [
        {"sine": 3.0, "sum": 1.0}.get(name, 0.0) * np.ones(D)
        + (name not in ("sine", "sum")) * gain * rng.standard_normal(D)
        for _ in cell.mixings
    ]
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
def test_every_way_is_the_loop(name, way):
    for T in (1, 31, 33, 300):
        for order, reset in (("TBD", False), ("BTD", True)) if name in ("gru", "slstm") else (("BTD", False),):
            rec, inputs, starts = recurrence(name, T, order=order, reset=reset)
            near(solved(name, rec, inputs, starts, **way)[0], loop(rec))


@pytest.mark.parametrize("way", WAYS, ids=str)
def test_many_lanes_in_float32(way):
    rec, inputs, starts = recurrence("gru", 150, B=3, D=37, dtype="float32")
    near(solved("gru", rec, inputs, starts, **way)[0], loop(rec))


@pytest.mark.parametrize(("name", "gate", "most"), [("gru", "z", 6), ("lstm", "f", 10)])
def test_segments_follow_whatever_is_remembered(name, gate, most):
    """Gates that let go in three steps, in hundreds, and hardly ever: some sweeps suffice, and none is in order."""
    for bias in (0, 2, 4, 6, 12) if name == "gru" else (0, 2, 6):
        rec, inputs, starts = recurrence(name, 1200, gain=0.5, dtype="float32")
        inputs[list(rec.drive).index(gate)][...] += bias
        exact = loop(rec)
        tol = 1e-6 * max(1.0, float(np.abs(exact).max()))
        for segments, burn in ((8, 64), (30, 16)):
            states, outcome = solved(name, rec, inputs, starts, tol=(tol, tol), segments=segments, burn=burn)
            told = outcome.verdict()
            near(states, exact, 4000)
            assert told.complete
            assert told.finite
            assert told.met
            assert told.walked == 0
            assert told.largest == np.float32(np.abs(states).max())
            assert told.sweeps <= most
            assert (told.sweeps == 1) == (told.redone == 0) == (bias == 0 and burn == 64)


def test_it_makes_no_difference_how_many_blocks_run_at_a_time():
    """One after the other, or all at once: blocks wait for what was before them alone, and find the same."""
    rec, inputs, starts = recurrence("gru", 900, B=3, D=40, dtype="float32", gain=1.0)
    inputs[list(rec.drive).index("z")][...] += 4
    found = []
    for workers in (1, 2, 12):
        states, kernels = rec.empty(), kernels_of(CELLS["gru"], machine=cuda_host.Host(workers))
        outcome = kernels.solve(inputs, states, 1, starts, (1e-6, 1e-6), segments=60, burn=8)
        assert outcome.plan.parts > 5
        found.append((states, outcome.verdict()))
    for states, told in found:
        np.testing.assert_array_equal(states, found[0][0])
        assert told == found[0][1]
        assert told.redone > told.segments


def test_affine_recurrences_take_one_correction():
    """Sums of all that has come, far beyond what any segment has seen by itself, and products that are not finite."""
    rec, inputs, starts = recurrence("sum", 640)
    states, outcome = solved("sum", rec, inputs, starts, segments=20, burn=0)
    near(states, loop(rec), 4000)
    assert outcome.verdict().sweeps <= 4
    assert outcome.verdict().walked == 0


def test_chaos_ends_in_a_walk_in_order_and_says_so():
    for burn in (0, 64):
        rec, inputs, starts = recurrence("sine", 900, dtype="float32")
        states, outcome = solved("sine", rec, inputs, starts, segments=30, burn=burn)
        told, tol = outcome.verdict(), 4 * np.finfo(np.float32).eps
        assert told.walked > 0
        assert told.complete
        assert told.met
        assert defect(rec, starts, states) <= tol * (1 + np.abs(states).max())
        exact, _ = solved("sine", rec, inputs, starts, segments=1)
        np.testing.assert_array_equal(states[:60], exact[:60])


def defect(rec, starts, states):
    previous = np.concatenate([starts.initial[None], states[:-1]])
    return np.abs(rec.apply(previous) - states).max()


def test_where_segments_begin_the_tolerance_is_met_by_what_was_written():
    rec, inputs, starts = recurrence("gru", 400)
    for tol in (1e-3, 1e-8):
        states, outcome = solved("gru", rec, inputs, starts, tol=(tol, 0.0), segments=12, burn=8)
        found = defect(rec, starts, states)
        assert found <= tol * (1 + 1e-6)
        assert outcome.verdict().worst == pytest.approx(found, rel=1e-3, abs=1e-12)
        assert outcome.verdict().met


def test_a_last_segment_of_one_step_misses_the_tolerance_once():
    """Not by what its first step may miss, and by what its last one may."""
    for seed in range(3):
        rec, inputs, starts = recurrence("gru", 841, dtype="float32", gain=2.5, seed=seed)
        inputs[list(rec.drive).index("z")][...] += 5
        inputs[list(rec.drive).index("n")][...] *= 30
        states, outcome = solved("gru", rec, inputs, starts, tol=(1e-3, 1e-3))
        assert 841 % outcome.plan.span == 1
        found, told = defect(rec, starts, states), outcome.verdict()
        assert told.met
        assert found <= 1e-3 * (1 + np.abs(states).max())
        assert told.worst == pytest.approx(found, rel=1e-2)


FAULTS = {
    "a bit": lambda x: x.view(np.uint64).__setitem__((123, 1, 2), x.view(np.uint64)[123, 1, 2] ^ np.uint64(1)),
    "a high bit": lambda x: x.view(np.uint64).__setitem__((0, 0, 0), x.view(np.uint64)[0, 0, 0] ^ np.uint64(1 << 40)),
    "a NaN": lambda x: x.__setitem__((399, 0, 0), np.nan),
    "an infinity": lambda x: x.__setitem__((5, 1, 4), -np.inf),
    "a segment": lambda x: x.__setitem__(slice(64, 128), 7.0),
    "the segment before": lambda x: x.__setitem__(slice(64, 128), x[:64].copy()),
    "two lanes": lambda x: x.__setitem__((slice(64, 128), 0, [0, 1]), x[64:128, 0, [1, 0]]),
    "two steps": lambda x: x.__setitem__([70, 71], x[[71, 70]]),
}


@pytest.mark.parametrize("fault", FAULTS)
@pytest.mark.parametrize("segments", [1, 3, 25])
def test_what_was_not_written_by_the_kernel_is_seen(fault, segments):
    rec, inputs, starts = recurrence("gru", 400)
    _, outcome = solved("gru", rec, inputs, starts, segments=segments)
    told = outcome.verdict()
    assert told.complete
    assert told.finite
    states, outcome = solved("gru", rec, inputs, starts, segments=segments)
    FAULTS[fault](states)
    told = outcome.verdict()
    assert not told.complete
    assert told.finite == ("NaN" not in fault and "infinity" not in fault)


def test_a_segment_that_was_never_written_is_seen():
    """Also where the memory still holds the states, and the checksums, of the solve before it."""
    rec, inputs, starts = recurrence("gru", 400)
    solved("gru", rec, inputs, starts, segments=3)

    class Loses(type(fused("gru")._machine)):
        def launch(self, launch):
            if "solve" not in launch.kernel:
                super().launch(launch)

    kernels = kernels_of(CELLS["gru"], machine=Loses())
    for _ in range(2):
        told = kernels.solve(inputs, rec.empty(), 1, starts, (1e-9, 1e-9), segments=3).verdict()
        assert not told.complete


@pytest.mark.parametrize("name", ["gru", "lstm", "slstm", "sine"])
def test_random_problems_end_within_the_tolerance_and_are_said_to(name):
    """From forgetting to chaotic, with resets, in all shapes: states follow step by step, and equal the loop's."""
    rng = np.random.default_rng(sum(map(ord, name)))
    for seed in range(12):
        T, B, D = int(rng.integers(1, 700)), int(rng.integers(1, 4)), int(rng.integers(1, 40))
        rec, inputs, starts = recurrence(
            name, T, B, D, gain=rng.choice([0.3, 1.0, 2.5]), reset=bool(rng.random() < 0.4), seed=seed,
            order=str(rng.choice(["TBD", "BTD"])),
        )  # fmt: skip
        inputs[rng.integers(len(rec.drive))][...] += rng.choice([0, 2, 5, 8])
        way = {"segments": int(rng.integers(1, 40)), "burn": int(rng.choice([0, 8, 64]))}
        states, outcome = solved(name, rec, inputs, starts, tol=(1e-10, 1e-10), **way)
        told, exact = outcome.verdict(), loop(rec)
        assert told.complete
        assert told.met
        assert told.finite == np.isfinite(states).all()
        assert told.worst <= 1e-10 * (1 + np.abs(states).max())
        condition = rs.solve(rec, method="sequential").condition
        assert np.abs(states - exact).max() <= 1e-9 * condition * (1 + np.abs(exact).max())


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


def test_what_is_not_finite_spreads_in_few_sweeps():
    """Segments that follow one that ends in NaN take that for granted, until a reset; none is walked in order."""
    for reset in (False, True):
        rec, inputs, starts = recurrence("gru", 1600, reset=reset)
        inputs[0][100, 1, 2] = np.nan
        states, outcome = solved("gru", rec, inputs, starts, segments=50, burn=16)
        np.testing.assert_array_equal(np.isnan(states), np.isnan(loop(rec)))
        told = outcome.verdict()
        assert told.complete
        assert not told.finite
        assert told.walked == 0
        assert told.sweeps <= 5


@pytest.mark.parametrize(
    ("name", "way"), [("gru", w) for w in WAYS[:4]] + [("lstm", WAYS[1]), ("lstm", WAYS[3])], ids=str
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


@pytest.mark.parametrize("name", ["gru", "lstm"])
@pytest.mark.parametrize("way", [WAYS[0], WAYS[1], WAYS[3]], ids=str)
def test_what_later_steps_hand_to_the_last_one_is_added_to_its_cotangent(name, way):
    """On a device and on the host, resets included, and where walks before a segment begin at the last step."""
    for T, reset in ((1, False), (33, True), (150, True)):
        rec, inputs, starts = recurrence(name, T, reset=reset)
        states, rng = loop(rec), np.random.default_rng(T)
        cotangent, incoming = rng.standard_normal(rec.shape), np.asfortranarray(rng.standard_normal(rec.initial.shape))
        added = cotangent.copy()
        added[-1] += incoming
        for x in (states, cotangent, incoming):
            x.flags.writeable = False
        with rs.backend("numba"):
            loops = rec.bind().loops
        for adjoint, how in ((fused(name).adjoint, way), (loops.adjoint, {})):
            found, wanted = (
                adjoint(inputs, states, *given, **how)
                for given in ((cotangent, 1, starts, incoming), (added, 1, starts))
            )
            for x, y in zip((found[0], *found[1], *found[2:]), (wanted[0], *wanted[1], *wanted[2:]), strict=True):
                near(x, y, 5000)
            np.testing.assert_array_equal(found[0][-1], added[-1])
        lost = incoming.copy()
        lost.flat[-1] = np.nan
        ours, theirs = (
            adjoint(inputs, states, cotangent, 1, starts, lost, **how)
            for adjoint, how in ((fused(name).adjoint, way), (loops.adjoint, {}))
        )
        assert np.isnan(theirs[0]).any()
        np.testing.assert_array_equal(np.isnan(ours[0]), np.isnan(theirs[0]))


@pytest.mark.parametrize("dtype", ["float16", "float32", "float64"])
def test_what_segments_have_added_up_is_rounded_once(dtype):
    for shape in [(1, 3, 5), (7, 1, 1), (53, 4, 33)]:
        sums = np.random.default_rng(0).standard_normal(shape)
        kept, kind = sums.copy(), np.dtype("float32" if dtype == "float32" else "float64")
        found = over_segments(sums, np.dtype(dtype), cuda_host.Host())
        assert found.dtype == kind
        exact, order = kept.sum(axis=0), len(sums) * np.finfo(float).eps * abs(kept).sum(axis=0)
        assert (abs(found - exact) <= order + np.finfo(kind).eps / 2 * abs(exact)).all()


def test_sums_of_one_sequence_have_the_dtype_of_the_states():
    rec, inputs, starts = recurrence("gru", 150, B=2, D=9, dtype="float32")
    states, c = loop(rec), np.random.default_rng(5).standard_normal((150, 2, 9)).astype(np.float32)
    wanted = fused("gru").adjoint(inputs, states, c, 1, starts, segments=5)
    assert wanted[2].dtype == wanted[3].dtype == np.float64
    for batch, one in ((1, slice(0, 1)), (0, 0)):
        flat, start = [x[:, one] if x.ndim == 3 else x for x in inputs], Starts(*(x[one] for x in starts[:2]))
        found = fused("gru").adjoint(flat, states[:, one], c[:, one], batch, start, segments=5)
        for x, y in zip((found[0], *found[1], *found[2:]), (wanted[0], *wanted[1], *wanted[2:]), strict=True):
            assert x.dtype == np.float32
            np.testing.assert_array_equal(x, y[:, one].astype(np.float32))


class Counts(cuda_host.Host):
    """A machine that shows the counters of what it has solved last."""

    def clear(self, report, size=None):
        super().clear(report, size)
        self.report = report[:size]

    def __getitem__(self, name):
        return int(self.report.view(np.int32)[constants("solve/problem")[name]])


def test_the_way_back_is_linear_so_that_one_correction_suffices():
    """Also where adjoint variables are near 0 and cotangents are not, so that few of their digits are known."""
    machine = Counts()
    kernels = kernels_of(CELLS["gru"], machine=machine)
    for bias in (0, 8):
        rec, inputs, starts = recurrence("gru", 3000, B=1, D=256, dtype="float32")
        inputs[list(rec.drive).index("z")][...] += bias
        states = rec.empty()
        cotangent = np.random.default_rng(1).standard_normal(states.shape).astype(np.float32)
        kernels.solve(inputs, states, 1, starts, (1e-6, 1e-6), segments=1)
        found = kernels.adjoint(inputs, states, cotangent, 1, starts, segments=34)
        assert machine["ENDED"] > 8 * 30
        assert machine["WALKED"] == machine["UNMET"] == 0
        assert machine["SWEEPS"] <= (4 if bias else 1)
        assert machine["REDONE"] <= (1.1 * machine["ENDED"] if bias else 0)
        exact = kernels.adjoint(inputs, states, cotangent, 1, starts, segments=1)
        for x, y in zip((found[0], *found[1], *found[2:]), (exact[0], *exact[1], *exact[2:]), strict=True):
            assert np.abs(x - y).max() <= 1e-4 * np.abs(y).max()


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
    for way in WAYS[:4]:
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
    for way in WAYS[:4]:
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
            for segments in (None, 1, 9):
                one = plan(way, dtype, True, counts, 4096, 256, 132, segments, room=room)
                assert LITTLE < one.kernel.shared <= room
                assert one.segments * one.span >= 4096 > (one.segments - 1) * one.span


def test_half_storage():
    rec, inputs, starts = recurrence("gru", 200, dtype="float32")
    exact, halves = loop(rec), [x.astype(np.float16) for x in inputs]
    for way in WAYS[1:4:2]:
        states = np.empty(rec.shape, np.float16)
        fused("gru").solve(halves, states, 1, starts, (1e-3, 1e-3), **way)
        assert np.abs(states - exact).max() < 2e-2


def test_nothing_to_do():
    for T, B, D in ((0, 2, 3), (4, 0, 3)):
        rec, inputs, starts = recurrence("gru", T, B, D)
        told = fused("gru").solve(inputs, rec.empty(), 1, starts, (1e-12, 1e-12)).verdict()
        assert (told.complete, told.finite, told.met, told.sweeps) == (True, True, True, 0)
        fused("gru").walk(inputs, rec.empty(), 1, starts)


@pytest.mark.parametrize(
    ("steps", "lanes", "segments"), [(512, 8192, 8), (16384, 256, 128), (2048, 65536, 1), (31, 40, 1), (2048, 8192, 8)]
)
def test_the_choice(steps, lanes, segments):
    """On a device of 132 multiprocessors."""
    one = plan("Forward", "float32", False, fused("gru").sizes, steps, lanes, 132)
    assert one.segments == segments
    assert one.blocks <= 264 or segments == 1


@pytest.mark.parametrize(("name", "value"), [("segments", 0), ("burn", -1), ("sweeps", -1)])
def test_bad_settings(name, value):
    for T in (0, 10):
        rec, inputs, starts = recurrence("gru", T)
        with pytest.raises(ValueError, match=f"{name} is {value!r}; wanted"):
            solved("gru", rec, inputs, starts, **{name: value})

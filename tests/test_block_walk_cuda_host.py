"""Walks of cells whose mixings couple units, and scans of their Jacobians, by blocks of CUDA threads on the host."""

import os
import re
import shutil
import subprocess
from unittest import mock

import cuda_host
import gallery
import numpy as np
import pytest
from conftest import SLOW
from gallery import COMPILE_LIKE_OTHERS, weighted
from test_fused_mixing import COUPLED, drives, mixed
from test_scan_numba import AFFINE, close, loop
from test_scan_numba_dense import FACTORED, factored, masks
from test_stages_cuda_host import kinds, order, same

import recsolve as rs
from recsolve.jacobians.factored import Call, Factored
from recsolve.kernels.codegen.cuda_elementwise import OPTIONS
from recsolve.kernels.codegen.cuda_walk import walk_cell
from recsolve.kernels.gpu import block_walk
from recsolve.kernels.gpu.cell.mixing_walk import MixingWalkCuda
from recsolve.kernels.gpu.device import CLUSTER, SHARED
from recsolve.kernels.gpu.scan import scan_cuda
from recsolve.kernels.gpu.scan.factored_walk import scan_factored
from recsolve.math import maximum, tanh
from recsolve.mixings import Dense
from recsolve.recurrence import staged_engine
from recsolve.recurrence.staged_engine import StagedEngine
from recsolve.symbolic.tracing import trace_cell

needs_compiler = pytest.mark.skipif(cuda_host.compiler() is None, reason="needs g++")
# How blocks may share the work: blocks of a cluster, threads of a row, sequences of a block, weights in registers.
WAYS = [(1, 2, 4, True), (3, 4, 2, True), (4, 1, 2, False)]


@pytest.fixture(scope="module")
def host():
    return cuda_host.Host(workers=4, processors=4)


@pytest.fixture
def forced(monkeypatch):
    """Return a function that forces a way to share the work."""

    def force(blocks, width, sequences, resident):
        def plan(cell, number, cut, units, *device):
            return block_walk.Plan(cell, number, cut, units, min(blocks, units), width, sequences, resident, 3)

        monkeypatch.setattr(block_walk, "plan", plan)

    return force


def bound(machine, rec):
    """Return the engine of a recurrence that walks by blocks."""
    walk = MixingWalkCuda(trace_cell(rec.cell.cell, kinds(rec), rec.ties), machine)
    with mock.patch.object(staged_engine, "kernel_of", side_effect=[walk, mock.Mock(), mock.Mock()]):
        return StagedEngine(rec, mock.Mock(), "cuda")


def agree(machine, rec):
    """Check the walk by blocks against the literal loop, and return it."""
    states = bound(machine, rec).walk()
    same(states, gallery.loop(rec), rec.dtype)
    return states


def recurrences(cell, seed=0):
    """Yield recurrences of a cell: lengths, batches, initial states, resets, both memory orders."""
    rng = np.random.default_rng(seed)
    for T, batch in [(33, (3,)), (6, ()), (1, (1,)), (9, (2, 2)), (0, (2,)), (5, (0,))]:
        drive = drives(cell, T, batch, cell.dtype)
        initial = rng.uniform(0.5, 1.5, (*batch, *cell.layout.event)).astype(cell.dtype)
        yield order(cell.recurrence(drive=drive, initial=initial), T == 33)
        if T > 1:
            yield cell.recurrence(drive=drive, reset=rng.random((T, *batch)) < 0.3)


@needs_compiler
@pytest.mark.sample(every=2, name=COMPILE_LIKE_OTHERS)
@pytest.mark.parametrize("mixing", ["dense", "heads"])
@pytest.mark.parametrize(("place", "name"), list(enumerate(COUPLED)))
def test_walks_follow_the_loop(host, place, name, mixing):
    dtype = np.float64 if place // 2 % 2 else np.float32
    for rec in recurrences(weighted(name, mixing, units=20, dtype=dtype, gain=0.9)):
        agree(host, rec)


@needs_compiler
@pytest.mark.parametrize("way", WAYS, ids=str)
def test_walks_follow_the_loop_however_blocks_share_the_work(host, forced, way):
    forced(*way)
    for cell in (mixed(13, np.float32), weighted("lstm", "heads", units=20)):
        found = list(recurrences(cell))
        for rec in found[:2] + found[6:7]:
            agree(host, rec)


@needs_compiler
def test_walks_read_arrays_where_they_lie_and_go_on_from_the_middle(host):
    cell = weighted("gru", "heads", units=20, dtype=np.float32)
    plain = drives(cell, 33, (3,), np.float32)
    gates = np.ascontiguousarray(np.stack(list(plain.values()), axis=2))
    shared = dict(plain, r=plain["r"][:, :, :1], z=plain["z"][:, :1], n=plain["n"][..., :1])
    layouts = [
        {k: gates[:, :, i] for i, k in enumerate(plain)},
        {k: np.asfortranarray(u) for k, u in plain.items()},
        {k: np.ascontiguousarray(u[::-1])[::-1] for k, u in plain.items()},
        {k: np.repeat(u, 2, axis=-1)[..., ::2] for k, u in plain.items()},
    ]
    wanted = agree(host, cell.recurrence(drive=plain))
    for drive in layouts:
        np.testing.assert_array_equal(agree(host, cell.recurrence(drive=drive)), wanted)
    agree(host, cell.recurrence(drive=shared))
    again = bound(host, cell.recurrence(drive=plain)).walk(wanted, 10)
    np.testing.assert_array_equal(again, wanted)


@needs_compiler
def test_nan_stays_in_its_sequence_and_ends_at_a_reset(host, forced):
    forced(1, 2, 4, True)  # all sequences in one block
    cell = weighted("gru", "dense", units=20, dtype=np.float32)
    drive = drives(cell, 33, (4,), np.float32)
    reset = np.zeros((33, 4), bool)
    reset[30, 2] = True
    clean = agree(host, cell.recurrence(drive=drive, reset=reset))
    drive["n"][10, 2, 3] = np.nan
    dirty = agree(host, cell.recurrence(drive=drive, reset=reset))
    np.testing.assert_array_equal(dirty[:, [0, 1, 3]], clean[:, [0, 1, 3]])
    assert np.isnan(dirty[11:30, 2]).all()
    assert np.isfinite(dirty[30:, 2]).all()


def random_cell(seed):
    """A cell with random mixings of the state, of what is computed from it, and of drives."""
    rng, names = np.random.default_rng(seed), iter("abcdef")
    k = int(rng.integers(1, 4))
    joins = [np.add, np.multiply, np.subtract, lambda a, b: np.where(a > b, a, 0.5 * b), maximum]

    def tree(depth):
        """Return a function of the state, mixings and drives that nests so many operations."""
        if depth == 0:
            j = int(rng.integers(k))
            return (lambda s, W, u: u.v) if rng.random() < 0.3 else (lambda s, W, u: s[f"h{j}"])
        inner, what = tree(depth - 1), rng.random()
        name = next(names, None) if what < 0.5 else None
        if name is not None:
            used.append(name)
            return lambda s, W, u: W[name](inner(s, W, u))
        if what < 0.75:
            return lambda s, W, u: tanh(inner(s, W, u))
        join, other = joins[rng.integers(len(joins))], tree(depth - 1)
        return lambda s, W, u: join(inner(s, W, u), other(s, W, u))

    used = [next(names)]
    parts = [tree(int(rng.integers(2, 5))) for _ in range(k)]

    def f(s, W, u, p):
        s = {f"h{j}": getattr(s, f"h{j}") for j in range(k)}
        W = {name: getattr(W, name) for name in used}
        new = [tanh(part(s, W, u)) for part in parts]
        new[0] = 0.5 * new[0] + W["a"](s["h0"]) + u.v
        return tuple(new)

    cell = rs.Cell(f, state=tuple(f"h{j}" for j in range(k)), output="h0")
    mixings = {name: Dense(rng.uniform(-0.3, 0.3, (6, 6))) for name in cell.mixings}
    return cell.with_weights(mixings=mixings)


@needs_compiler
@pytest.mark.parametrize("seed", range(24 if SLOW else 4))
def test_random_cells_and_their_jacobians(host, seed):
    cell = random_cell(seed)
    rec = cell.recurrence(drive=drives(cell, 9, (2,), np.float64), reset=np.arange(9) == 5)
    states = agree(host, rec)
    with rs.backend("numpy"):
        F, J = rec.linearise(states)
    if type(J) is Factored:
        for A in (J, J.transpose()):
            close(scanned(host, A, F)[0], loop(AFFINE, (A, F)))


def scanned(machine, A, b, initial=None, reset=None):
    """Return a scan, and whether blocks walk it."""
    y = scan_factored(A, b, machine, initial=initial, reset=reset)
    if y is not None:
        return y, True
    with np.errstate(all="ignore"):
        return scan_cuda.scan(AFFINE, (A, b), initial=initial, reset=reset, machine=machine), False


@needs_compiler
@pytest.mark.parametrize(("place", "layout"), list(enumerate(FACTORED)))
def test_scans_and_their_transposes(host, place, layout):
    dtype = np.float64 if place % 2 else np.float32
    for T, batch in [(33, (2,)), (33, ()), (0, (2,)), (3, (2, 0))]:
        rng = np.random.default_rng(T)
        A, b = factored(T, layout, batch, dtype)
        start = rng.standard_normal(b.shape[1:]).astype(dtype)
        for J in (A, A.transpose()):
            for reset in masks(b, rng):
                for initial in (None, start):
                    y, walked = scanned(host, J, b, initial, reset)
                    apart = reset is not None and layout.components > 1 and reset.shape[1 + len(batch)] > 1
                    assert walked == (not apart)  # components that are cut apart are left to NumPy
                    assert y.dtype == dtype
                    close(y, loop(AFFINE, (J, b), initial, reset))
            close(scanned(host, J[::-1], b[::-1])[0], loop(AFFINE, (J[::-1], b[::-1])))


@needs_compiler
@pytest.mark.parametrize("way", WAYS, ids=str)
def test_scans_of_cells_however_blocks_share_the_work(host, forced, way):
    forced(*way)
    cell = mixed(13, np.float32)
    rec = order(cell.recurrence(drive=drives(cell, 33, (3,), np.float32)), True)
    with rs.backend("numpy"):
        F, J = rec.linearise(gallery.loop(rec))
    for A in (J, J.transpose()):
        y, walked = scanned(host, A, F)
        assert walked
        assert y.strides == np.empty_like(F).strides
        close(y, loop(AFFINE, (A, F)))


@needs_compiler
def test_what_is_not_finite_moves_forward_only_and_stops_at_resets(host):
    A, b = factored(33, rs.Layout(components=2, lanes=(3,), units=5))
    clean = scanned(host, A, b)[0]
    reset = np.zeros((33, 1, 1, 1, 1), bool)
    reset[20] = True
    for bad in (np.inf, np.nan):
        f = b.copy()
        f[9, 1] = bad
        for initial in (None, np.full(b.shape[1:], bad)):
            y, _ = scanned(host, A, f, initial, reset)
            np.testing.assert_array_equal(np.isfinite(y), np.isfinite(loop(AFFINE, (A, f), initial, reset)))
        np.testing.assert_array_equal(scanned(host, A, f)[0][:, 0], clean[:, 0])


@needs_compiler
def test_scans_of_what_is_not_known_are_left_to_numpy(host):
    class Own(Dense):
        def matvec(self, x):
            return 2 * super().matvec(x)

    rng = np.random.default_rng(0)
    one = {0: np.ones((9, 4))}
    weight, b = rng.standard_normal((4, 4)) / 4, rng.standard_normal((9, 4))
    known = Factored([Call(Dense(weight), one)], [{1: one[0]}], rs.Layout(units=4), (9,))
    unread = Factored([Call(Dense(weight), one)], [{0: one[0]}], rs.Layout(units=4), (9,))
    own = Factored([Call(Own(weight), one)], [{1: one[0]}], rs.Layout(units=4), (9,))
    narrow = Factored([Call(Dense(weight.astype(np.float32)), one)], [{1: one[0]}], rs.Layout(units=4), (9,))
    for A, walked in [(known, True), (unread, False), (own, False), (narrow, False)]:
        y, taken = scanned(host, A, b)
        assert taken == walked
        close(y, loop(AFFINE, (A, b)))
    launched = len(host.kernels)
    fresh = Factored([Call(Dense(weight), one), Call(Dense(weight), one)], [{1: one[0], 2: one[0]}], known.layout, (9,))
    close(scan_cuda.scan(AFFINE, (fresh, b), machine=host), loop(AFFINE, (fresh, b)))
    assert len(host.kernels) > launched


def plan_of(name, units, batch, *, number="float", lanes=1, room=SHARED, most=CLUSTER):
    cell = walk_cell(trace_cell(rs.cells.get(name), "dense"))
    return block_walk.plan(cell, number, False, units, batch, lanes, 132, most, room)


def test_weights_stay_in_registers_where_they_fit():
    assert plan_of("elman_relu", 96, 8).blocks == plan_of("lstm", 96, 8).blocks == 1
    assert plan_of("lstm", 256, 8).blocks == 8
    assert plan_of("elman_relu", 256, 8).blocks == 4  # two would do, of more threads
    assert plan_of("elman_relu", 256, 60).blocks == 2
    for name, units, resident in [("lstm", 96, True), ("lstm", 256, True), ("lstm", 1024, False)]:
        for number in ("float", "double"):
            p = plan_of(name, units, 8, number=number)
            assert p.resident == (resident and not (units == 256 and number == "double"))
    assert not plan_of("lstm", 256, 8, most=1).resident  # on a device without clusters
    assert plan_of("lstm", 5000, 1) is None


def test_sequences_share_a_block_where_there_are_more_than_multiprocessors():
    assert plan_of("gru", 64, 132).sequences == 1
    assert plan_of("gru", 64, 264).sequences == 2
    assert plan_of("gru", 16, 100, lanes=4).sequences == 4
    assert plan_of("lstm", 16, 100_000).sequences == 4  # with more, a thread would add up too much at a time
    assert plan_of("elman", 16, 100_000).sequences == 8
    deep = plan_of("elman", 96, 8, room=4000)
    assert deep.depth < plan_of("elman", 96, 8).depth
    assert deep.shared <= 4000


@pytest.mark.skipif(not os.environ.get("RECSOLVE_SLOW"), reason="takes a minute: set RECSOLVE_SLOW=1")
@pytest.mark.skipif(shutil.which("nvcc") is None, reason="needs nvcc")
@pytest.mark.parametrize("name", COUPLED)
def test_nothing_spills(name, tmp_path):
    asked = [(96, 8, "float"), (96, 8, "double"), (256, 8, "float"), (128, 256, "float"), (512, 8, "float")]
    plans = [plan_of(name, units, batch, number=number) for units, batch, number in asked]
    kernels = [p.launch("", 1, None).kernel for p in plans]
    code = tmp_path / "kernels.cu"
    taken = "\n".join(f"auto* kernel_{i} = &{kernel};" for i, kernel in enumerate(kernels))
    code.write_text(f"{block_walk.text(plans[0].cell)}\n{taken}\n")
    command = ["nvcc", *OPTIONS, "-arch=sm_90", "-cubin", "-Xptxas", "-v", str(code), "-o", os.devnull]
    told = subprocess.run(command, capture_output=True, text=True, check=True).stderr
    numbers = r"(\d+) bytes stack frame, (\d+) bytes spill stores, (\d+) bytes spill loads"
    spills = re.findall(rf"properties for (\w+)\n\s*{numbers}", told)
    assert len(spills) == len(kernels)
    assert sum("Lb1EEEv" in kernel for kernel, *_ in spills) == sum(p.resident for p in plans)
    for kernel, *spilled in spills:  # those that read weights from the cache may, a few numbers
        assert max(map(int, spilled)) <= (0 if "Lb1EEEv" in kernel else 16), kernel

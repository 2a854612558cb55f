"""Compiled walks of cells with dense and heads mixings against the NumPy loop."""

import numpy as np
import pytest
from gallery import COMPILE_LIKE_OTHERS, weighted

import recsolve as rs
from recsolve.kernels.cpu.jit.panel_packing import packed, vector_shape
from recsolve.math import maximum, sigmoid, tanh
from recsolve.mixings import Dense, Diagonal
from recsolve.solvers.sequential import loop

pytest.importorskip("numba")

LENGTHS = (0, 1, 2, 31, 33, 200)
BATCHES = ((), (1,), (3,), (5,), (2, 2), (0,))


def minimal(s, W, u, p):
    """Nested mixings, one whose input is no state, a constant, and a diagonal one beside them."""
    f = sigmoid(W.f(s.h) + u.f + p.b * s.c)
    c = f * s.c + (1 - f) * tanh(W.h(f * s.h) + W.x(u.f) + W.own(s.c))
    return maximum(c, W.f(c) - 1.0), c


MINIMAL = rs.Cell(minimal, state=("h", "c"), output="h")


def mixed(units, dtype, seed=0):
    """The cell with nested mixings, of which one is diagonal."""
    rng = np.random.default_rng(seed)

    def draw(*shape):
        return (rng.uniform(-1, 1, shape) / np.sqrt(units)).astype(dtype)

    mixings = {name: Dense(draw(units, units)) for name in ("f", "h", "x")} | {"own": Diagonal(draw(units))}
    return MINIMAL.with_weights(mixings=mixings, parameters={"b": draw(units)})


def drives(cell, T, batch, dtype, seed=1):
    rng = np.random.default_rng(seed)
    event = cell.layout.event[-(len(cell.layout.lanes) + 1) :]
    return {name: rng.standard_normal((T, *batch, *event)).astype(dtype) for name in cell.cell.drives}


def agree(rec, start=0):
    """Check the compiled walk against the steps of NumPy, and return it."""
    with rs.backend("numpy"):
        wanted = loop(rec)
    with rs.backend("numba"):
        found = loop(rec, known=wanted, start=start)
    assert found.shape == wanted.shape
    assert found.strides == wanted.strides
    tol = 400 * np.finfo(rec.dtype).eps
    np.testing.assert_allclose(found, wanted, rtol=tol, atol=tol)
    return found


COUPLED = [name for name, cell in rs.cells.REGISTRY.items() if cell.mixings]


@pytest.mark.sample(every=2, name=COMPILE_LIKE_OTHERS)
@pytest.mark.parametrize("mixing", ["dense", "heads"])
@pytest.mark.parametrize(("place", "name"), list(enumerate(COUPLED)))
def test_every_cell(place, name, mixing):
    dtype = np.float64 if place // 2 % 2 else np.float32  # in turn: to compile one takes seconds
    cell = weighted(name, mixing, units=20, dtype=dtype, gain=0.9)
    for T, batch in [(33, (3,)), (200, ()), (2, (5,))]:
        x = np.random.default_rng(T).standard_normal((T, *batch, cell.input_size)).astype(dtype)
        agree(cell.recurrence(x))


@pytest.mark.sample(every=2)
@pytest.mark.parametrize("dtype", [np.float64, np.float32])
def test_nested_and_diagonal_mixings(dtype):
    for units in (1, 7, 16, 40):
        cell = mixed(units, dtype)
        for T, batch in [(31, (5,)), (33, ()), (1, (1,))]:
            agree(cell.recurrence(drive=drives(cell, T, batch, dtype)))


@pytest.mark.parametrize("T", LENGTHS)
@pytest.mark.parametrize("batch", BATCHES)
def test_lengths_and_batches(T, batch):
    for cell in (weighted("gru", "dense", units=20, dtype=np.float32), weighted("lstm", "heads", units=20)):
        dtype = cell.dtype
        rng = np.random.default_rng(T)
        reset = rng.random((T, *batch)) < 0.2
        initial = rng.standard_normal((*batch, *cell.layout.event)).astype(dtype)
        rec = cell.recurrence(drive=drives(cell, T, batch, dtype), initial=initial, reset=reset)
        agree(rec)
        if T > 2:
            agree(rec, start=2)
            agree(rec.window(1, T - 1, initial=rec.initial + 1))


def test_layouts_are_read_in_place_or_copied():
    cell = weighted("gru", "heads", units=96, dtype=np.float32)
    T, B, event = 33, 5, cell.layout.event
    plain = drives(cell, T, (B,), np.float32)
    wanted = agree(cell.recurrence(drive=plain))
    gates = np.ascontiguousarray(np.stack(list(plain.values()), axis=2))  # (T, B, gates, H, n)
    layouts = {
        "batch first": {k: np.ascontiguousarray(u.swapaxes(0, 1)).swapaxes(0, 1) for k, u in plain.items()},
        "gates together": {k: gates[:, :, i] for i, k in enumerate(plain)},
        "Fortran": {k: np.asfortranarray(u) for k, u in plain.items()},
        "backwards": {k: np.ascontiguousarray(u[::-1])[::-1] for k, u in plain.items()},
        "heads last": {k: np.ascontiguousarray(u.swapaxes(2, 3)).swapaxes(2, 3) for k, u in plain.items()},
        "every other unit": {k: np.repeat(u, 2, axis=-1)[..., ::2] for k, u in plain.items()},
    }
    for drive in layouts.values():
        for u in drive.values():
            u.flags.writeable = False
        np.testing.assert_array_equal(agree(cell.recurrence(drive=drive)), wanted)
    shared = dict(plain, r=plain["r"][:, :, :1], z=plain["z"][:, :1], n=plain["n"][..., :1])
    assert shared["r"].shape != (T, B, *event)
    agree(cell.recurrence(drive=shared))


def test_results_do_not_depend_on_threads_or_on_what_else_is_in_the_batch(crowd):
    for cell in (weighted("gru", "dense", units=40, dtype=np.float32), weighted("lstm", "heads", units=20)):
        drive = drives(cell, 200, (13,), cell.dtype)
        results = []
        for threads in (1, 2):
            crowd.clear()
            with rs.backend("numba", threads=threads):
                results.append(loop(cell.recurrence(drive=drive)))
            assert bool(crowd) == (threads > 1)
        np.testing.assert_array_equal(*results)
        with rs.backend("numba"):
            for b in range(13):
                alone = loop(cell.recurrence(drive={name: u[:, b] for name, u in drive.items()}))
                np.testing.assert_array_equal(alone, results[0][:, b])


def test_nan_stays_in_its_sequence_and_in_the_future():
    cell = weighted("gru", "dense", units=20, dtype=np.float32)
    drive = drives(cell, 33, (6,), np.float32)
    with rs.backend("numba"):
        clean = loop(cell.recurrence(drive=drive))
        drive["n"][10, 2, 3], drive["r"][20, 4, 0] = np.nan, np.inf
        reset = np.zeros((33, 6), bool)
        reset[30, 2] = True
        dirty = loop(cell.recurrence(drive=drive, reset=reset))
    others = [0, 1, 3, 5]
    np.testing.assert_array_equal(dirty[:, others], clean[:, others])
    np.testing.assert_array_equal(dirty[:10], clean[:10])
    assert np.isnan(dirty[10, 2, 3])
    assert np.isnan(dirty[11:30, 2]).all()
    assert np.isfinite(dirty[30:, 2]).all()


def test_a_start_at_infinity_is_left_by_a_reset_alone():
    cell = weighted("elman", "dense", units=20, dtype=np.float32)
    drive = drives(cell, 33, (2,), np.float32)
    initial = np.zeros((2, 20), np.float32)
    initial[0, 0] = np.inf
    agree(cell.recurrence(drive=drive, initial=initial, reset=np.arange(33) == 7))


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_panels_hold_the_transposed_matrices(dtype):
    vector, vectors = vector_shape(np.dtype(dtype))
    weights = np.random.default_rng(0).standard_normal((3, 2, 5, 5)).astype(dtype)
    width = vector * vectors
    flat = packed(weights, vector, width)
    assert flat.ctypes.data % 64 == 0
    each = -(-5 // vector) * vector
    rows = flat.reshape(2, -1, 5, width).swapaxes(1, 2).reshape(2, 5, -1)
    for call in range(3):
        np.testing.assert_array_equal(rows[:, :, call * each : call * each + 5], weights[call].swapaxes(-1, -2))
    assert np.count_nonzero(rows) == weights.size


def same_linearisation(rec):
    """Check f at all t and its Jacobian, both compiled, against NumPy's."""
    rng = np.random.default_rng(3)
    states, v = (rng.standard_normal(rec.shape).astype(rec.dtype) for _ in range(2))
    found = []
    for name in ("numpy", "numba"):
        with rs.backend(name):
            F, J = rec.linearise(states)
            found.append((F, rec.evaluate(states), J.matvec(v), J.rmatvec(v), type(J)))
    assert found[0][-1] is found[1][-1]
    tol = 400 * np.finfo(rec.dtype).eps
    for wanted, got in zip(found[0][:-1], found[1][:-1], strict=True):
        assert got.shape == wanted.shape
        assert got.dtype == wanted.dtype
        np.testing.assert_allclose(got, wanted, rtol=tol, atol=tol)
    np.testing.assert_array_equal(found[1][0], found[1][1])  # f rounds alike whether it is differentiated or not


@pytest.mark.sample(every=2, name=COMPILE_LIKE_OTHERS)
@pytest.mark.parametrize("mixing", ["dense", "heads"])
@pytest.mark.parametrize(("place", "name"), list(enumerate(COUPLED)))
def test_every_linearisation(place, name, mixing):
    divides = name == "slstm"  # by a state, which is sometimes near 0 here
    dtype = np.float64 if divides or place // 2 % 2 else np.float32
    cell = weighted(name, mixing, units=20, dtype=dtype, gain=0.9)
    for T, batch in [(33, (3,)), (200, ()), (0, (2,)), (1, (2, 2))]:
        x = np.random.default_rng(T).standard_normal((*batch[::-1], T, cell.input_size)).astype(dtype)
        same_linearisation(cell.recurrence(np.moveaxis(x, -2, 0)))


def test_linearisation_of_nested_and_diagonal_mixings():
    cell = mixed(20, np.float64)
    same_linearisation(cell.recurrence(drive=drives(cell, 31, (5,), np.float64)))


def ties(s, W, u, p):
    """Components that are equal, swapped or constant, and a tie."""
    h = maximum(W.h(s.a), u.h)
    return h, h, s.a, 0.5 * s.b + maximum(s.c, s.c + 0.0 * u.h)


def test_components_that_need_no_loop_and_ties():
    cell = rs.Cell(ties, state=("a", "b", "c", "d"), output="a")
    weight = Dense(np.zeros((3, 3), np.float32))
    drive = {"h": np.zeros((33, 2, 3), np.float32)}
    for tie in (0.0, 1.0):
        rec = cell.with_weights(mixings={"h": weight}).recurrence(drive=drive, ties=tie)
        same_linearisation(rec)
        agree(rec)


@pytest.mark.parametrize("order", ["time first", "batch first"])
def test_evaluation_gives_the_bits_of_the_walk(order):
    for cell in (weighted("gru", "dense", units=40, dtype=np.float32), weighted("lstm", "heads", units=20)):
        drive = drives(cell, 200, (7,), cell.dtype)
        if order == "batch first":
            drive = {k: np.ascontiguousarray(u.swapaxes(0, 1)).swapaxes(0, 1) for k, u in drive.items()}
        rec = cell.recurrence(drive=drive)
        with rs.backend("numba"):
            states = loop(rec)
            np.testing.assert_array_equal(rec.evaluate(states), states)
            np.testing.assert_array_equal(rec.linearise(states)[0], states)
            np.testing.assert_array_equal(rec.window(31, 64, initial=states[30]).evaluate(states[31:64]), states[31:64])


def branching(s, W, u, p):
    return W.h(s.h) + u.h if float(np.sum(u.h)) > 0 else W.h(s.h) - u.h


def test_long_walks_are_compiled_and_short_ones_are_not():
    cell = weighted("gru", "dense", units=16, dtype=np.float32)
    for T, compiled in [(100, False), (2048, True)]:
        rec = cell.recurrence(drive=drives(cell, T, (1,), np.float32))
        with rs.backend("auto"):
            assert rec.compiled is compiled
        with rs.backend("numpy"):
            assert not rec.compiled


def test_a_cell_that_cannot_be_traced_is_left_to_numpy_unless_compiling_is_forced():
    cell = rs.Cell(branching, state=("h",), output="h").with_weights(mixings={"h": Dense(0.5 * np.eye(3))})
    rec = cell.recurrence(drive={"h": np.ones((2048, 3))})
    with rs.backend("auto"):
        assert not rec.compiled
        assert loop(rec).shape == (2048, 3)
    with rs.backend("numba"), pytest.raises(TypeError, match="cannot be traced at line"):
        loop(rec)

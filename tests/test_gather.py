"""Gathers inside cells: an index of its own at every step, and what it does to Jacobians, gradients and errors."""

import pickle

import gallery
import numpy as np
import pytest
from test_mixings import METHODS

import recsolve as rs
from recsolve.jacobians.factored import Factored
from recsolve.math import gather, sigmoid, tanh, total

UNITS = 5


def routed(s, W, u, p):  # a gather of a mixed state, and of a parameter
    return tanh(0.6 * gather(s.h, u.index) + W.h(gather(p.a * s.h, u.index)) / 2 + gather(p.a, u.index) + u.x)


def pointed(s, W, u, p):  # two indices, a gather of a gather, and a sum beside them
    c = sigmoid(u.f) * gather(gather(s.c, u.i), u.j) + 0.5 * s.h
    return tanh(W.h(s.h) + gather(c, u.i) - total(s.c) / 20), c


CELLS = {"routed": rs.Cell(routed, state=("h",), output="h"), "pointed": rs.Cell(pointed, state=("h", "c"), output="c")}
CASES = [(name, lanes) for name in CELLS for lanes in ((), (2,))]


def recurrence(name, lanes=(), T=30, dtype=np.float64, reset=None, put=np.asarray):
    rng, cell, event = np.random.default_rng(0), CELLS[name], (*lanes, UNITS)
    draw = lambda *shape: rng.standard_normal(shape).astype(dtype)  # noqa: E731
    kind = rs.mixings.Heads if lanes else rs.mixings.Dense
    weighted = cell.with_weights(
        mixings={n: kind(put(0.3 * draw(*event, UNITS))) for n in cell.mixings},
        parameters={n: put(0.5 + 0.1 * draw(*event)) for n in cell.parameters},
    )
    drive = {n: put(rng.integers(0, UNITS, (T, 2, *event)) if n in cell.indices else draw(T, 2, *event))
             for n in cell.drives}  # fmt: skip
    drive = {n: u[:, :1] if n == "j" else u for n, u in drive.items()}  # one for all sequences
    initial = 0.1 * draw(*((len(cell.state),) if len(cell.state) > 1 else ()), *event)
    return weighted.recurrence(drive=drive, initial=put(initial), reset=reset)


def by_hand(rec):
    """The loop of a cell without lanes, written with NumPy's indexing."""
    W, h, out = rec.cell.mixings["h"].weight, rec.initial if rec.layout.components == 1 else None, []
    u = {n: np.broadcast_to(x, (rec.length, 2, UNITS)) for n, x in rec.drive.items()}
    rows = np.arange(2)[:, None]
    c = None if h is not None else rec.initial[:, 1]
    h = rec.initial[:, 0] if h is None else h
    for t in range(rec.length):
        if c is None:
            a, i = rec.cell.parameters["a"], u["index"][t]
            h = np.tanh(0.6 * h[rows, i] + (a * h)[rows, i] @ W.T / 2 + a[i] + u["x"][t])
            out.append(h)
            continue
        new = c[rows, u["i"][t]][rows, u["j"][t]] / (1 + np.exp(-u["f"][t])) + 0.5 * h
        h, c = np.tanh(h @ W.T + new[rows, u["i"][t]] - c.sum(axis=-1, keepdims=True) / 20), new
        out.append(np.stack([h, c], axis=1))
    return np.stack(out)


@pytest.mark.parametrize(("name", "lanes"), CASES)
def test_solves_and_gradients(name, lanes):
    reset = np.zeros((30, 2), bool)
    reset[13, 1] = bool(lanes)
    rec = recurrence(name, lanes, reset=reset)
    wanted = gallery.loop(rec)
    if not lanes:
        np.testing.assert_allclose(wanted, by_hand(rec), atol=1e-12)
    for method in METHODS if lanes else rs.solvers.REGISTRY:
        sol = rs.solve(rec, method=method)
        assert sol.success, (method, sol.message)
        assert np.abs(sol.states - wanted).max() <= gallery.bound(sol), method
    assert sol.trusted
    assert sol.error_bound == np.inf
    again = pickle.loads(pickle.dumps(rec))
    np.testing.assert_array_equal(again.apply(wanted), rec.apply(wanted))
    J = rec.linearise(wanted)[1]
    np.testing.assert_array_equal(pickle.loads(pickle.dumps(J)).matvec(wanted), J.matvec(wanted))
    differentiated(rec, sol)


def differentiated(rec, sol):
    """Compare the adjoint with the tangent, and the tangent with differences of the loop."""
    rng, cell = np.random.default_rng(5), rec.cell
    c = rng.standard_normal(rec.shape)
    g = rs.adjoint(sol, states=c)
    floats = [n for n in rec.drive if n not in cell.cell.indices]
    moved = {
        "drive": {n: rng.standard_normal(rec.drive[n].shape) for n in floats},
        "mixings": {n: rng.standard_normal(m.weight.shape) for n, m in cell.mixings.items()},
        "parameters": {n: rng.standard_normal(p.shape) for n, p in cell.parameters.items()},
    }
    initial = rng.standard_normal(rec.initial.shape)
    tangent = rs.tangent(sol, initial=initial, **moved)
    products = [(getattr(g, kind)[n] * x).sum() for kind, given in moved.items() for n, x in given.items()]
    np.testing.assert_allclose((tangent * c).sum(), sum(products) + (g.initial * initial).sum(), rtol=1e-9)
    for n in cell.cell.indices:
        assert g.drive[n].dtype == rec.dtype
        assert g.drive[n].shape == rec.drive[n].shape
        assert not g.drive[n].any()

    def states(step):
        other = cell.cell.with_weights(
            mixings={n: type(m)(m.weight + step * moved["mixings"][n]) for n, m in cell.mixings.items()},
            parameters={n: p + step * moved["parameters"][n] for n, p in cell.parameters.items()},
        )
        drive = {n: u + step * moved["drive"][n] if n in floats else u for n, u in rec.drive.items()}
        return gallery.loop(other.recurrence(drive=drive, initial=rec.initial + step * initial, reset=rec.reset))

    np.testing.assert_allclose(tangent, (states(1e-6) - states(-1e-6)) / 2e-6, rtol=1e-5, atol=1e-7)


@pytest.mark.parametrize(("name", "lanes"), CASES)
def test_the_jacobian_and_its_parts(name, lanes):
    rec = recurrence(name, lanes, T=12)
    at, v = (np.random.default_rng(seed).standard_normal(rec.shape) for seed in (2, 3))
    J, step = rec.linearise(at)[1], 1e-6
    assert type(J) is Factored
    dense, before = J.lane_dense(), rec.previous(at)
    slope = (rec.apply(before + step * v) - rec.apply(before - step * v)) / (2 * step)
    np.testing.assert_allclose(J.matvec(v), slope, rtol=1e-6, atol=1e-7)
    np.testing.assert_allclose(J.matvec(v), dense.matvec(v), atol=1e-11)
    np.testing.assert_allclose(J.rmatvec(v), dense.transpose().matvec(v), atol=1e-11)
    np.testing.assert_allclose(J.block().data, dense.block().data, atol=1e-11)
    for part in (slice(3, 9), slice(2, 2), np.array([7, 1]), (slice(None), np.array([1])), 4):
        np.testing.assert_allclose(J[part].matvec(v[part]), dense[part].matvec(v[part]), atol=1e-11)
        np.testing.assert_allclose(J[part].diagonal().data, dense.diagonal().data[part], atol=1e-11)


@pytest.mark.parametrize(("T", "dtype"), [(0, np.float64), (1, np.float32), (1500, np.float64), (1500, np.float32)])
def test_compiled_backends_leave_it_to_numpy(T, dtype):
    rec, found = recurrence("routed", T=T, dtype=dtype), []
    for backend in ("numpy", "numba"):
        with rs.backend(backend):
            sol = rs.solve(rec, method="newton")
            g = rs.adjoint(sol, states=np.ones(rec.shape, dtype))
            found.append((sol.states, g.mixings.h, g.parameters.a))
            assert sol.success
            assert sol.states.dtype == g.parameters.a.dtype == dtype
    for x, y in zip(*found, strict=True):
        np.testing.assert_allclose(x, y, rtol=1e-3 if dtype == np.float32 else 1e-9, atol=1e-4)


def test_windows_and_sequences_keep_their_indices():
    rec = recurrence("pointed")
    states = gallery.loop(rec)
    for method in ("newton", "windowed"):
        sol = rs.solve(rec, method=method, options={"window": 7} if method == "windowed" else {})
        np.testing.assert_allclose(sol.states, states, atol=1e-8)
    part = rec.between(11, 20, states).sequences(np.array([1]))
    np.testing.assert_allclose(gallery.loop(part)[:, 0], states[11:20, 1], atol=1e-12)


def test_an_index_stands_beside_an_input_and_is_not_projected():
    cell = CELLS["routed"].random(input_size=3, hidden_size=UNITS, rng=0)
    rng = np.random.default_rng(1)
    x, index = rng.standard_normal((20, 2, 3)), rng.integers(0, UNITS, (20, 2, UNITS)).astype(np.int32)
    rec = cell.recurrence(x, drive={"index": index})
    other = cell.recurrence(drive={**cell.drive(x), "index": index})
    sol, same = rs.solve(rec), rs.solve(other)
    np.testing.assert_array_equal(sol.states, same.states)
    g = rs.adjoint(sol, output=sol.output)
    assert g.inputs.shape == x.shape
    assert list(g.projection.weights) == ["x"]
    np.testing.assert_allclose(g.drive.x, rs.adjoint(same, output=sol.output).drive.x)
    for wrong, words in (({}, r"drive of routed has names \(\); wanted \('index',\)"), (dict(cell.drive(x)), "names")):
        with pytest.raises(ValueError, match=words):
            cell.recurrence(x, drive=wrong)


def test_ensembles_and_cells_that_hold_their_state_gather_too():
    members = [CELLS["routed"].random(input_size=3, hidden_size=UNITS, rng=seed) for seed in range(3)]
    rng = np.random.default_rng(1)
    x, index = rng.standard_normal((20, 2, 3)), rng.integers(0, UNITS, (20, 2, UNITS))
    together = rs.solve(rs.cells.ensemble(members).recurrence(x, drive={"index": index[..., None, :]}), method="newton")
    alone = [rs.solve(cell.recurrence(x, drive={"index": index}), method="newton") for cell in members]
    for e, sol in enumerate(alone):
        np.testing.assert_allclose(together.output[:, :, e], sol.output, atol=1e-8)
    cell = rs.cells.holding(members[0])
    assert cell.cell.indices == ("index",)
    given = np.ones((20, 2, 1))
    given[5:9] = 0
    held = rs.solve(cell.recurrence(drive={**members[0].drive(x), "index": index, "given": given}))
    np.testing.assert_array_equal(held.states[5:9], np.broadcast_to(held.states[4], (4, 2, UNITS)))


def test_all_drives_may_be_indices():
    def walk(s, W, u, p):
        return 0.9 * gather(s.h, u.i) + p.b

    b = np.arange(3, dtype=np.float32)
    cell = rs.Cell(walk, state=("h",), output="h").with_weights(parameters={"b": b}, hidden_size=3)
    rec = cell.recurrence(drive={"i": np.array([[1, 2, 0]] * 9)})
    sol = rs.solve(rec, method="newton")
    assert sol.trusted
    assert sol.states.dtype == np.float32
    np.testing.assert_allclose(sol.states, gallery.loop(rec), rtol=1e-5)
    for state in (("h",), {"h": ("n",)}):  # and no weights, whose dtype states would have
        alone = rs.Cell(lambda s, W, u, p: (0.5 * gather(s.h, u.i),), state=state, output="h").with_weights(
            hidden_size=3 if type(state) is tuple else {"n": 3}
        )
        states = rs.solve(alone.recurrence(drive={"i": np.array([[1, 2, 2]] * 2)}, initial=8.0)).states
        assert states.tolist() == [[4.0] * 3, [2.0] * 3]


@pytest.mark.parametrize(("index", "error", "words"), [
    (np.full((9, 2, 3), 0.0), TypeError, "drive i has dtype float64; wanted int32 or int64"),
    (np.where(np.arange(9)[:, None, None] == 4, 3, np.zeros((9, 2, 3), int)), ValueError,
     r"drive i is 3 at t = 4, at \(0, 0\); wanted units 0 to 2"),
    (np.where(np.arange(9)[:, None, None] == 7, -1, np.zeros((9, 2, 3), int)), ValueError, r"-1 at t = 7"),
    (np.zeros((9, 2, 4), int), ValueError, "drives have shapes"),
])  # fmt: skip
def test_wrong_indices_are_refused(index, error, words):
    cell = rs.Cell(lambda s, W, u, p: gather(s.h, u.i) + u.x, state=("h",), output="h").with_weights(hidden_size=3)
    with pytest.raises(error, match=words):
        cell.recurrence(drive={"i": index, "x": np.ones((9, 2, 3))})
    rec = cell.recurrence(drive={"i": np.zeros((9, 1, 3), int), "x": np.ones((9, 2, 3))})
    with pytest.raises(ValueError, match=r"drive\['i'\] is given, but that drive is int64"):
        rs.tangent(rs.solve(rec), drive={"i": np.ones((9, 1, 3))})


@pytest.mark.parametrize(("function", "words"), [
    (lambda s, W, u, p: gather(s.h, u.i) * u.i, "computes with an index of gather"),
    (lambda s, W, u, p: gather(s.h, u.i - 1), "gathers by what is no drive u.name"),
    (lambda s, W, u, p: gather(s.h, np.array([1, 0])) + u.x, "gathers by what is no drive u.name"),
])  # fmt: skip
def test_an_index_is_a_drive_and_nothing_else(function, words):
    with pytest.raises(ValueError, match=words):
        rs.Cell(function, state=("h",), output="h")


@pytest.mark.parametrize(("index", "error", "words"), [
    ([0, 3, 1], ValueError, "index is 3 at place = 1; wanted units 0 to 2"),
    ([0, -1, 1], ValueError, "index is -1 at place = 1"),
    ([], TypeError, "index has dtype float64"),
    (1, ValueError, r"index has shape \(\); wanted \(\*lanes, n\)"),
    (np.zeros((2, 0), int), ValueError, r"index has shape \(2, 0\)"),
])  # fmt: skip
def test_fixed_indices_are_checked(index, error, words):
    with pytest.raises(error, match=words):
        rs.mixings.Gather(index)


def test_an_index_has_all_axes_of_what_it_gathers():
    def rows(s, W, u, p):
        return {"C": gather(s.C, u.i)}

    given = {"state": {"C": ("k", "v")}, "output": "C"}
    with pytest.raises(ValueError, match=r"index of gather has shape \(1, 1\), and x has shape \(1, 1, 1\); wanted"):
        rs.Cell(rows, axes={"i": ("v",)}, **given)
    cell = rs.Cell(rows, axes={"i": ("k", "v")}, **given).with_weights()
    rec = cell.recurrence(drive={"i": np.array([[[1, 1], [1, 0]]] * 2)}, initial={"C": np.eye(2)})
    assert rs.solve(rec).states.tolist() == [[0, 0, 1, 0], [0, 0, 0, 1]]
    C, i = np.zeros((2, 2, 2)), np.zeros((2, 2), int)
    with pytest.raises(ValueError, match="index of gather has shape"):
        gather(C, i)


def test_functions_gather_too():
    u, index = np.random.default_rng(0).standard_normal((30, 4)), np.random.default_rng(1).integers(0, 4, (30, 4))
    rec = rs.Recurrence.from_function(
        lambda h, u: tanh(gather(h, u[1]) / 2 + u[0]), inputs=(u, index), initial=np.zeros(4)
    )
    sol = rs.solve(rec, method="newton")
    assert sol.trusted
    np.testing.assert_allclose(sol.states, gallery.loop(rec), rtol=1e-10)
    assert rs.adjoint(sol, output=u).inputs[0].shape == u.shape


@pytest.mark.gpu
@pytest.mark.parametrize("name", CELLS)
def test_on_the_gpu(name):
    cupy = pytest.importorskip("cupy")
    here, there = (rs.solve(recurrence(name, put=put), method="newton") for put in (np.asarray, cupy.asarray))
    np.testing.assert_allclose(there.states.get(), here.states, atol=1e-10)
    c = np.random.default_rng(0).standard_normal(here.states.shape)
    wanted, found = rs.adjoint(here, states=c), rs.adjoint(there, states=cupy.asarray(c))
    np.testing.assert_allclose(found.mixings.h.get(), wanted.mixings.h, atol=1e-9)

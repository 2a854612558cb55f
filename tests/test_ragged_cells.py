"""Cells whose components have shapes of their own: what they compute, their gradients, and what they refuse."""

import pickle

import gallery
import numpy as np
import pytest
from scipy.sparse import csr_array

import recsolve as rs
from recsolve.mixings import Dense, Diagonal, Heads, Masked, Sparse

SIZES = {"k": 2, "v": 3, "n": 2}
METHODS = ("sequential", "newton", "quasi_newton")


def attend(s, W, u, p):
    """A number, a number and a vector, each with the largest score so far."""
    m = np.maximum(s.m, u.score)
    kept, new = np.exp(s.m - m), np.exp(u.score - m)
    return {"m": m, "c": kept * s.c + new, "a": kept[..., None] * s.a + new[..., None] * u.v}


def memory(s, W, u, p):
    """A matrix that is written to and mixed by rows, and a vector that reads it; a number for all of it."""
    read = np.einsum("...kv,...k->...v", s.C, u.k)
    h = np.tanh(W.h(s.h) + read + u.h * p.gain)
    C = np.tanh(p.decay * W.C(s.C) + u.k[..., :, None] * h[..., None, :])
    return {"C": C, "h": h, "g": 0.5 * s.g + h.mean(axis=-1)}


def headed(s, W, u, p):
    """Heads of a vector, with one gate for each head."""
    g = np.tanh(s.g + u.g)
    return g, np.tanh(g[..., None] * W.h(W.h(s.h)) + u.x + p.b)


CELLS = {
    "attend": rs.Cell(attend, state={"m": (), "c": (), "a": ("v",)}, output="a", axes={"score": ()},
                      structure=dict.fromkeys([*((n, n) for n in "mca"), ("c", "m"), ("a", "m")], "diagonal")),
    "memory": rs.Cell(memory, state={"C": ("k", "v"), "h": ("v",), "g": ()}, output="h",
                      axes={"C": ("k", "v"), "k": ("k",), "decay": ()}),
    "headed": rs.Cell(headed, state={"g": ("n",), "h": ("n", "v")}, output="h", axes={"g": ("n",)},
                      structure={("g", "g"): "diagonal", ("h", "g"): "diagonal", ("h", "h"): ("n",)}),
}  # fmt: skip
ALL = sorted(CELLS)


def weighted(name, dtype=np.float64, gain=0.5):
    cell = CELLS[name]
    sizes = {
        a: n for a, n in SIZES.items() if any(a in axes for axes in (*cell.components.values(), *cell.axes.values()))
    }
    gain = gain if cell.mixings else 1.0
    kind = "heads" if name == "headed" else "dense"
    return cell.random(input_size=3, hidden_size=sizes, mixing=kind, gain=gain, rng=0, dtype=dtype)


def recurrence(name, T=24, batch=(2,), dtype=np.float64, reset=None, readout=None, put=np.asarray):
    cell, rng = weighted(name, dtype), np.random.default_rng(1)
    cell = cell if put is np.asarray else cell.map(put)
    x = put(rng.standard_normal((T, *batch, 3)).astype(dtype))
    shapes = {n: tuple(SIZES[a] for a in axes) for n, axes in cell.cell.components.items()}
    initial = {n: put((0.3 * rng.standard_normal((*batch, *shape))).astype(dtype)) for n, shape in shapes.items()}
    return cell.recurrence(x, initial=initial, reset=reset, readout=readout)


def by_hand(rec):
    """The loop, one step and one sequence at a time, on plain dicts."""
    cell, drive = rec.cell, rec.cell.drive(rec.x)

    class Named(dict):
        __getattr__ = dict.__getitem__

    def matrices(m):
        return lambda x: np.einsum("...ij,...j->...i", m.dense(), x)

    W, p, out = Named({n: matrices(m) for n, m in cell.mixings.items()}), Named(cell.parameters), np.empty(rec.shape)
    for b in np.ndindex(*rec.batch):
        first = {n: x[b] for n, x in rec.named(rec.initial).items()}
        s = dict(first)
        for t in range(rec.length):
            s = dict(first) if rec.reset is not None and rec.reset[(t, *b)] else s
            u = Named({n: x[(t, *b)] for n, x in drive.items()})
            new = cell.cell.function(Named(s), W, u, p)
            s = new if isinstance(new, dict) else dict(zip(cell.cell.state, new, strict=True))
            out[(t, *b)] = np.concatenate([np.ravel(s[n]) for n in cell.cell.state])
    return out


@pytest.mark.parametrize("batch", [(), (2,), (2, 3)])
@pytest.mark.parametrize("name", ALL)
def test_all_methods_find_what_the_loop_does(name, batch):
    reset = np.zeros((24, *batch), bool)
    reset[11] = len(batch) != 1
    rec = recurrence(name, batch=batch, reset=reset)
    wanted = by_hand(rec)
    np.testing.assert_allclose(gallery.loop(rec), wanted, atol=1e-12)
    for method in rs.solvers.REGISTRY if batch == (2,) else METHODS:
        sol = rs.solve(rec, method=method)
        assert sol.success, (method, sol.message)
        assert np.abs(sol.states - wanted).max() <= gallery.bound(sol), method
    assert sol.trusted
    assert rs.check_structure(rec).ok
    for n, axes in rec.cell.cell.components.items():
        assert sol.named[n].shape == (24, *batch, *(SIZES[a] for a in axes))
    np.testing.assert_array_equal(sol.output, sol.named[rec.cell.cell.output])


def moved_by(cell, x, rng):
    """Random tangents of all that a cell depends on."""
    draw = rng.standard_normal
    return {
        "mixings": {n: draw(m.weight.shape) for n, m in cell.mixings.items()},
        "parameters": {n: draw(p.shape) for n, p in cell.parameters.items()},
        "inputs": draw(x.shape),
    }


@pytest.mark.parametrize("name", ALL)
def test_gradients_are_slopes_of_the_loop(name):
    rec, rng = recurrence(name), np.random.default_rng(3)
    sol, cell = rs.solve(rec, method="newton"), rec.cell
    c = rng.standard_normal(rec.shape)
    g, moved, initial = rs.adjoint(sol, states=c), moved_by(cell, rec.x, rng), rng.standard_normal(rec.initial.shape)
    tangent = rs.tangent(sol, initial=initial, **moved)
    products = [
        (g.inputs * moved["inputs"]).sum(),
        sum((g.initial[n] * x).sum() for n, x in rec.named(initial).items()),
    ]
    products += [(getattr(g, kind)[n] * x).sum() for kind in ("mixings", "parameters") for n, x in moved[kind].items()]
    np.testing.assert_allclose((tangent * c).sum(), sum(products), rtol=1e-9)
    assert list(g.parameters) == list(cell.cell.parameters)
    drives = {n: rng.standard_normal(u.shape) for n, u in rec.drive.items()}
    along = rs.tangent(sol, drive=drives)
    np.testing.assert_allclose((along * c).sum(), sum((g.drive[n] * u).sum() for n, u in drives.items()), rtol=1e-9)
    weights = {n: rng.standard_normal(w.shape) for n, w in cell.projection.weights.items()}
    slope = sum((g.projection.weights[n] * w).sum() for n, w in weights.items())

    def states(step, *, projected=0.0, driven=0.0):
        other = cell.cell.with_weights(
            mixings={n: type(m)(m.weight + step * moved["mixings"][n]) for n, m in cell.mixings.items()},
            parameters={n: p + step * moved["parameters"][n] for n, p in cell.parameters.items()},
            projection=rs.Projection(
                {n: w + projected * weights[n] for n, w in cell.projection.weights.items()}, cell.projection.biases
            ),
            hidden_size=cell.hidden_size,
        )
        drive = {n: u + driven * drives[n] for n, u in other.drive(rec.x + step * moved["inputs"]).items()}
        return gallery.loop(other.recurrence(drive=drive, initial=rec.initial + step * initial))

    e = 1e-6
    np.testing.assert_allclose(tangent, (states(e) - states(-e)) / (2 * e), rtol=1e-5, atol=1e-7)
    np.testing.assert_allclose(along, (states(0, driven=e) - states(0, driven=-e)) / (2 * e), rtol=1e-5, atol=1e-7)
    change = (states(0, projected=e) - states(0, projected=-e)) / (2 * e)
    np.testing.assert_allclose((change * c).sum(), slope, rtol=1e-5)


@pytest.mark.parametrize("dtype", gallery.DTYPES)
@pytest.mark.parametrize("T", [0, 1, 40])
@pytest.mark.parametrize("name", ALL)
def test_both_dtypes_and_short_ones(name, T, dtype):
    rec = recurrence(name, T=T, dtype=dtype)
    for backend in ("numpy", "numba") if T == 40 and dtype == np.float64 else ("numpy",):  # compiled loops decline
        with rs.backend(backend):
            sol = rs.solve(rec, method="newton")
            assert sol.success
            assert sol.states.dtype == dtype
            np.testing.assert_allclose(sol.states, by_hand(rec), atol=1e-4 if dtype == np.float32 else 1e-9)
            g = rs.adjoint(sol, output=np.ones_like(sol.output))
    assert g.inputs.shape == rec.x.shape
    assert g.inputs.dtype == dtype
    assert {n: w.shape for n, w in g.mixings.items()} == {n: m.weight.shape for n, m in rec.cell.mixings.items()}


@pytest.mark.parametrize("name", ALL)
def test_windows_sequences_and_copies(name):
    rec = recurrence(name, batch=(3,))
    states = gallery.loop(rec)
    part = rec.between(7, 15, states).sequences(np.array([2, 0]))
    np.testing.assert_allclose(gallery.loop(part), states[7:15, [2, 0]], atol=1e-12)
    np.testing.assert_array_equal(part.x, rec.x[7:15, [2, 0]])
    g = rs.adjoint(rs.solve(part), states=np.ones(part.shape))
    assert g.inputs.shape == part.x.shape
    again = pickle.loads(pickle.dumps(rec))
    np.testing.assert_array_equal(gallery.loop(again), states)
    double = rec.cell.astype(np.float32).astype(np.float64)
    assert double.hidden_size == rec.cell.hidden_size
    assert double.dtype == np.float64


def test_a_readout_gets_names_and_has_gradients():
    readout = lambda s, u, p: np.einsum("...kv,...k->...v", s.C, u.k) * p.gain + s.g[..., None]  # noqa: E731
    rec = recurrence("memory", readout=readout)
    sol = rs.solve(rec, method="newton")
    c = np.random.default_rng(0).standard_normal(sol.output.shape)
    assert c.shape == (24, 2, 3)
    g, e = rs.adjoint(sol, output=c), 1e-6
    for change, slope in (("gain", g.parameters.gain), ("decay", g.parameters.decay)):

        def shown(step, change=change):
            p = {n: x + step * (n == change) for n, x in rec.cell.parameters.items()}
            cell = rec.cell.cell.with_weights(mixings=rec.cell.mixings, parameters=p, projection=rec.cell.projection)
            other = cell.recurrence(rec.x, initial=rec.initial, readout=readout)
            return other.output(gallery.loop(other))

        np.testing.assert_allclose(((shown(e) - shown(-e)) * c).sum() / (2 * e), slope.sum(), rtol=1e-5)


def test_a_readout_may_have_drives_of_its_own():
    def write(s, W, u, p):
        return {"C": 0.9 * s.C + u.k[..., :, None] * u.v[..., None, :]}

    def ask(s, u, p):
        return np.einsum("...kv,...k->...v", s.C, u.q)

    cell = rs.Cell(write, state={"C": ("k", "v")}, output="C", axes={"k": ("k",), "v": ("v",), "q": ("k",)},
                   structure="scalar").random(input_size=3, hidden_size={"k": 2, "v": 3}, rng=0)  # fmt: skip
    assert cell.cell.drives == ("k", "v", "q")
    rec = cell.recurrence(np.random.default_rng(0).standard_normal((30, 2, 3)), readout=ask)
    sol = rs.solve(rec)
    np.testing.assert_allclose(sol.output, np.einsum("tbkv,tbk->tbv", sol.named.C, rec.drive.q))
    g = rs.adjoint(sol, output=np.ones_like(sol.output))
    np.testing.assert_allclose(g.drive.q, sol.named.C.sum(axis=-1))
    assert g.projection.weights.q.any()


@pytest.mark.parametrize("made", [
    lambda w: Sparse(csr_array(w * (abs(w) > 0.2))),
    lambda w: Masked(Dense(w), abs(w) > 0.2),
    lambda w: Diagonal(w[0]),
    lambda w: rs.mixings.Gather(np.array([2, 0, 0])),
])  # fmt: skip
def test_any_mixing_acts_on_the_last_axis(made):
    cell, w = weighted("memory"), np.random.default_rng(0).uniform(-0.5, 0.5, (3, 3))
    mixings = {"h": made(w), "C": made(w.T)}
    other = cell.cell.with_weights(mixings=mixings, parameters=cell.parameters, projection=cell.projection)
    rec = other.recurrence(np.random.default_rng(1).standard_normal((30, 2, 3)))
    sol = rs.solve(rec, method="newton")
    np.testing.assert_allclose(sol.states, by_hand(rec), atol=1e-8)
    c = np.ones(rec.shape)
    g, rng = rs.adjoint(sol, states=c), np.random.default_rng(2)
    moved = {n: rng.standard_normal(m.weight.shape) for n, m in mixings.items()}
    slope = sum((g.mixings[n] * x).sum() for n, x in moved.items())
    np.testing.assert_allclose((rs.tangent(sol, mixings=moved) * c).sum(), slope, rtol=1e-9, atol=1e-12)


def test_units_are_gathered_by_a_drive():
    def moved(s, W, u, p):
        return {"h": np.tanh(rs.math.gather(s.h, u.index) + s.m[..., None]), "m": 0.5 * s.m + u.x}

    cell = rs.Cell(moved, state={"h": ("d",), "m": ()}, output="h", axes={"x": ()})
    assert cell.indices == ("index",)
    index = np.random.default_rng(0).integers(0, 4, (20, 2, 4))
    drive = {"index": index, "x": np.ones((20, 2))}
    rec = cell.with_weights().recurrence(drive=drive, initial={"m": 0.1})
    sol = rs.solve(rec, method="newton")
    np.testing.assert_allclose(sol.states, gallery.loop(rec), atol=1e-9)
    assert rs.adjoint(sol, output=sol.output).drive.x.shape == (20, 2)
    index[3, 1, 2] = 4
    with pytest.raises(ValueError, match=r"drive index is 4 at t = 3, at \(1, 2\); wanted units 0 to 3"):
        cell.with_weights().recurrence(drive=drive)


def test_torch_tensors_come_back():
    torch = pytest.importorskip("torch")
    here, cell = recurrence("memory"), weighted("memory")
    initial = {n: torch.from_numpy(np.array(x)) for n, x in here.named(here.initial).items()}
    rec = cell.recurrence(torch.from_numpy(here.x), initial=initial)
    sol = rs.solve(rec)
    np.testing.assert_allclose(sol.named.C.numpy(), rs.solve(here).named.C, atol=1e-12)
    g = rs.adjoint(sol, output=sol.output)
    assert all(isinstance(x, torch.Tensor) for x in (g.mixings.h, g.inputs, g.drive.k, g.projection.weights.k))


@pytest.mark.gpu
@pytest.mark.parametrize("name", ALL)
def test_on_the_gpu(name):
    cupy = pytest.importorskip("cupy")
    here, there = (rs.solve(recurrence(name, put=put), method="newton") for put in (np.asarray, cupy.asarray))
    np.testing.assert_allclose(there.states.get(), here.states, atol=1e-10)
    wanted, found = (rs.adjoint(sol, output=sol.output) for sol in (here, there))
    np.testing.assert_allclose(found.inputs.get(), wanted.inputs, atol=1e-9)


def test_sizes_come_from_what_shows_them():
    cell = CELLS["attend"]
    assert cell.with_weights().hidden_size == {}
    drive = {"score": np.ones((9, 2)), "v": np.ones((9, 1, 5))}  # a batch of the first alone
    rec = cell.with_weights().recurrence(drive=drive, initial={"m": -np.inf})
    assert rec.shape == (9, 2, 7)
    np.testing.assert_allclose(rs.solve(rec).named.a[-1], 9.0)
    own = rs.Cell(lambda s, W, u, p: {"C": 0.5 * s.C + u.x[..., None, None]}, state={"C": ("k", "v")}, output="C",
                  axes={"x": ()})  # fmt: skip
    assert own.with_weights(hidden_size={"k": 2, "v": 3}).recurrence(drive={"x": np.ones(4)}).shape == (4, 6)
    assert own.with_weights().recurrence(drive={"x": np.ones(4)}, initial={"C": np.ones((2, 3))}).shape == (4, 6)
    with pytest.raises(ValueError, match=r"sizes of the axes \('k', 'v'\) of <lambda> are not known; give them by"):
        own.with_weights().recurrence(drive={"x": np.ones(4)})


STATE = {"m": (), "C": ("k", "v")}


def step(s, W, u, p):
    return {"m": s.m + u.x, "C": W.C(s.C) * p.a}


def routed(s, W, u, p):
    return rs.math.gather(s.m, u.x), s.C


@pytest.mark.parametrize(("given", "error", "words"), [
    ({"state": ("m", "C"), "axes": {"x": ()}}, ValueError, "axes and structure belong to components with axes"),
    ({"axes": {"x": "k"}}, TypeError, "axes has 'x': 'k'; wanted a dict from names to tuples"),
    ({"state": {**STATE, "h": ()}}, ValueError, r"step returns components \('m', 'C'\); wanted \('m', 'C', 'h'\)"),
    ({"state": {"m": (), "C": ["k"]}}, TypeError, "state has 'C'"),
    ({"output": "h"}, ValueError, "output is 'h'"),
    ({"function": routed, "axes": {"x": ()}}, ValueError, r"axes of the indices \['x'\] are \(\)"),
])  # fmt: skip
def test_wrong_definitions_are_refused(given, error, words):
    with pytest.raises(error, match=words):
        rs.Cell(**{"function": step, "state": STATE, "output": "C", **given})


CELL = rs.Cell(step, state=STATE, output="C", axes={"x": ()})
WEIGHTS = {"mixings": {"C": Dense(np.eye(3))}, "parameters": {"a": np.ones((2, 3))}}


@pytest.mark.parametrize(("given", "error", "words"), [
    ({"hidden_size": 3}, TypeError, r"hidden_size is 3; wanted a dict of the sizes of axes \('k', 'v'\)"),
    ({"hidden_size": {"d": 3}}, ValueError, "hidden_size has 'd': 3; wanted positive integers for axes"),
    ({"hidden_size": {"k": 0}}, ValueError, "hidden_size has 'k': 0"),
    ({"hidden_size": {"v": 4}}, ValueError, "axis 'v' has size 3 in mixing C and 4 in hidden_size"),
    ({"parameters": {"a": np.ones((2, 4))}}, ValueError, "axis 'v' has size 4 in parameter a and 3 in mixing C"),
    ({"parameters": {"a": np.ones(3)}}, ValueError, r"parameter a has shape \(3,\); wanted \(k, v\)"),
    ({"mixings": {"C": rs.mixings.SharedHead(np.eye(3), (2, 2))}}, ValueError, "mixing C acts on axes of sizes"),
    ({"parameters": {}}, ValueError, "parameters of step has names"),
    ({"projection": rs.Projection({"x": np.ones((2, 3))}, {"x": np.ones(2)})}, ValueError,
     r"projection x has shape \(2,\); wanted \(\)"),
])  # fmt: skip
def test_wrong_weights_are_refused(given, error, words):
    with pytest.raises(error, match=words):
        CELL.with_weights(**{**WEIGHTS, **given})


@pytest.mark.parametrize(("given", "words"), [
    ({"initial": {"n": 0.0}}, r"initial has components \['n'\]; wanted some of \('m', 'C'\)"),
    ({"initial": {"C": np.ones((2, 4))}}, r"axis 'v' has size 4 in initial\['C'\] and 3 in mixing C"),
    ({"initial": {"C": np.ones(3)}}, r"initial\['C'\] has shape \(3,\); wanted \(\*batch, k, v\)"),
    ({"drive": {"x": np.ones(())}}, r"drives have \(T, \*batch\) of"),
    ({"drive": {"y": np.ones(3)}}, "drive of step has names"),
    ({"reset": np.zeros(7, bool)}, "reset has shape"),
])  # fmt: skip
def test_wrong_arguments_of_a_recurrence_are_refused(given, words):
    with pytest.raises(ValueError, match=words):
        CELL.with_weights(**WEIGHTS).recurrence(**{"drive": {"x": np.ones(9)}, **given})
    with pytest.raises(ValueError, match=r"hidden_size has no \['k'\]; wanted sizes for \('k', 'v'\)"):
        CELL.random(input_size=3, hidden_size={"v": 2})


def test_what_needs_equal_components_says_so():
    cell = weighted("headed")
    with pytest.raises(TypeError, match=r"cells\[0\] is RaggedCell; wanted a WeightedCell"):
        rs.cells.ensemble([cell])
    with pytest.raises(TypeError, match="cell is RaggedCell; wanted a WeightedCell"):
        rs.cells.holding(cell)
    with pytest.raises(TypeError, match=r"directions\[0\] has \['RaggedCell'\]; wanted objects of WeightedCell"):
        rs.Layers([[cell]])
    assert rs.solve(recurrence("headed")).error_bound == np.inf
    assert rs.solve(recurrence("memory")).error_bound == np.inf
    assert repr(cell) == "RaggedCell(headed, {'g': ('n',), 'h': ('n', 'v')}, mixings {'h': 'heads'}, float64)"
    with pytest.raises(AttributeError, match="there are"):
        _ = cell.recurrence(np.ones((3, 3))).drive.z
    assert isinstance(cell.mixings["h"], Heads)


def test_a_projection_may_have_drives_of_several_shapes_that_other_cells_refuse():
    x, draw = np.random.default_rng(0).standard_normal((5, 3)), np.random.default_rng(1).standard_normal
    weights = {"a": draw((2, 4, 3)), "b": draw(3), "c": draw((4, 3))}
    biases = {"a": draw((2, 4)), "b": np.array(0.5), "c": draw(4)}
    project = rs.Projection(weights, biases)
    found = project(x)
    for n, w in weights.items():
        np.testing.assert_allclose(found[n], np.einsum("...i,ti->t...", w, x) + biases[n], atol=1e-12)
    g = {n: draw(u.shape) for n, u in found.items()}
    moved = sum((project.push(x)[n] * g[n]).sum() for n in g)
    np.testing.assert_allclose((project.pull(g) * x).sum(), moved)
    by_weight, by_bias = project.weight_cotangents(g, x)
    np.testing.assert_allclose(sum((by_weight[n] * weights[n]).sum() for n in g), moved)
    assert {n: b.shape for n, b in by_bias.items()} == project.events
    with pytest.raises(ValueError, match=r"projection has drives of shapes .* wanted \(\*lanes, n\), all alike"):
        rs.Cell(lambda s, W, u, p: s.h + u.a + u.b + u.c, state=("h",), output="h").with_weights(projection=project)
    with pytest.raises(ValueError, match="projection has weights of shapes"):
        rs.Projection({"a": np.ones((2, 3))}, {"a": np.ones(3)})
    with pytest.raises(ValueError, match="with one input"):
        rs.Projection({"a": np.ones((2, 3)), "b": np.ones((2, 4))}, {"a": np.ones(2), "b": np.ones(2)})

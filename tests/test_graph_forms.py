"""Recurrences on graphs with named states, readouts and Jacobians of the user's, against a literal loop over nodes."""

import pickle
from itertools import product

import cuda_host
import gallery
import numpy as np
import pytest
from cuda_host import simulated
from test_gradients import check_slope, solved
from test_graphs import APPLY, GRAPHS

import recsolve as rs
from recsolve.kernels.graph_scan import graph_scan, reverse_graph_scan

K, V = 2, 3
SIZES = {"k": K, "v": V}
NAMES = ("grid", "layers", "random", "tree", "one node", "no nodes")


def memory(h, u, p):
    """A number that decides, a matrix that remembers, and a vector that sees all of it."""
    m = np.tanh(sum(0.6 * s.m for s in h) + u["v"].sum(axis=-1) * p.gain)
    kept = sum(p.decay * s.C for s in h) * np.cos(m)[..., None, None]
    C = np.tanh(kept + u["k"][..., :, None] * u["v"][..., None, :])
    return {"m": m, "C": C, "h": np.tanh(h[-1].h[..., ::-1] * p.decay + C.sum(axis=-2))}


def weights(h, u, p):
    """A circle of dependence, as fast weights have it."""
    W = sum(0.4 * s.W for s in h) + 0.1 * np.sin(h[0].x)[..., None, :] * u["k"][..., :, None]
    return np.tanh(np.einsum("...kv,...v->...v", W, h[-1].x) + p.decay * u["v"]), W


STATES = {
    memory: {"m": (), "C": ("k", "v"), "h": ("v",)},
    weights: {"x": ("v",), "W": ("k", "v")},
}
PAIRS = {
    memory: {
        ("m", "m"): "diagonal", ("C", "m"): "dense", ("C", "C"): "diagonal", ("h", "h"): "dense", ("h", "C"): ("v",),
        ("h", "m"): "dense",
    },
    weights: {("x", "x"): "diagonal", ("x", "W"): ("v",), ("W", "W"): "diagonal", ("W", "x"): ("v",)},
}  # fmt: skip


def query(s, u, p):
    """What a key reads out of a state, weighted by a parameter."""
    C = s["C"] if "C" in s else s["W"]
    return np.einsum("...kv,...k->...v", C, u["k"])[..., :2] * p.gain + p.decay[:2]


def arrays(f, name, batch=(2,), dtype=np.float64, **moved):
    """Draw inputs in the layout of the nodes, h[0] and parameters, each moved by what is given under its name."""
    rng, nodes = np.random.default_rng(0), GRAPHS[name][0].shape

    def draw(name, *shape):
        return (rng.standard_normal(shape) + moved.get(name, 0.0)).astype(dtype)

    inputs = {"k": draw("k", *nodes, *batch, K), "v": draw("v", *nodes, *batch, V)}
    initial = {n: draw(n, *batch, *(SIZES[a] for a in axes)) for n, axes in STATES[f].items()}
    return inputs, initial, {"decay": 0.5 * draw("decay", V), "gain": draw("gain")}


def made(f, name, structure="pairs", kind=lambda x: x, given=None, **options):
    inputs, initial, parameters = ({n: kind(x) for n, x in group.items()} for group in arrays(f, name, **options))
    return rs.Recurrence.from_graph(
        f, GRAPHS[name][0], inputs=inputs, initial=initial, parameters=parameters, state=STATES[f], readout=query,
        structure=PAIRS[f] if structure == "pairs" else structure, **given or {},
    )  # fmt: skip


class Entries(dict):
    """Entries by name, as attributes too: what a function sees, without the library."""

    __getattr__ = dict.__getitem__


def literal(f, name, **options):
    """Return the states of every node by name, found one node after the other, and what is read out of them."""
    inputs, initial, parameters = arrays(f, name, **options)
    graph, parents = GRAPHS[name]
    flat = {n: u.reshape(len(parents), *u.shape[len(graph.shape) :]) for n, u in inputs.items()}
    found, shown, p = {}, {}, Entries(parameters)
    while len(found) < len(parents):
        for i, seen in enumerate(parents):
            if i in found or any(q >= 0 and q not in found for q in seen):
                continue
            u = {n: x[i : i + 1] for n, x in flat.items()}
            h = tuple(Entries({n: (found[q] if q >= 0 else initial)[n][None] for n in initial}) for q in seen)
            out = f(h, u, p)
            parts = out if isinstance(out, dict) else dict(zip(STATES[f], out, strict=True))
            found[i] = {n: x[0] for n, x in parts.items()}
            shown[i] = query(Entries(parts), u, p)[0]

    def laid(rows, like):
        return np.array([rows[i] for i in range(len(parents))], like.dtype).reshape(*graph.shape, *like.shape)

    batch = initial[next(iter(initial))].shape[: len(options.get("batch", (2,)))]
    states = {n: laid({i: found[i][n] for i in found}, x) for n, x in initial.items()}
    return states, laid(shown, np.zeros((*batch, 2), inputs["k"].dtype))


@pytest.mark.parametrize("f", STATES)
@pytest.mark.parametrize("name", NAMES)
def test_every_method_equals_the_loop_over_nodes(name, f):
    for batch, dtype in (((2,), np.float64), ((), np.float32), ((2, 1), np.float64)):
        states, shown = literal(f, name, batch=batch, dtype=dtype)
        rec = made(f, name, batch=batch, dtype=dtype)
        for method in APPLY if batch == (2,) else ("newton", "sequential", "jacobi"):
            sol = rs.solve(rec, method=method)
            assert sol.success, (method, sol)
            for n, x in states.items():
                assert sol.named[n].shape == x.shape
                assert sol.named[n].dtype == dtype
                assert np.abs(sol.named[n] - x).max(initial=0) <= gallery.bound(sol)
            assert sol.output.shape == shown.shape
            np.testing.assert_allclose(sol.output, shown, rtol=0, atol=20 * gallery.bound(sol))
            assert method != "newton" or sol.trusted


@pytest.mark.parametrize("f", STATES)
@pytest.mark.parametrize("structure", ["dense", "pairs"])
def test_each_slot_has_the_structure(f, structure):
    for name in ("grid", "random"):
        rec = made(f, name, structure)
        sol = solved(rec)
        J = rec.linearise(rec.in_order(sol.states, "states"))[1]
        assert {type(A).__name__ for A in J.slots} == {"Pairs" if structure == "pairs" else "LaneDense"}
        np.testing.assert_allclose(
            J.todense(), made(f, name, "dense").linearise(rec.in_order(sol.states, "states"))[1].todense(), atol=1e-14
        )
        report = rs.check_structure(rec)
        assert report.ok, report
        assert rs.check_structure(rec, states=sol.states).ok
    fewer = {pair: how for pair, how in PAIRS[f].items() if pair != next(reversed(PAIRS[f]))}
    false = made(f, "grid", fewer)
    assert not rs.check_structure(false).ok
    assert str(next(reversed(PAIRS[f]))) in rs.check_structure(false).message
    assert not solved(false).trusted


@pytest.mark.parametrize("f", STATES)
@pytest.mark.parametrize("name", NAMES)
def test_gradients_are_those_of_differences(f, name):
    rng, batch = np.random.default_rng(1), (2,)
    sol = solved(made(f, name))
    first = next(iter(STATES[f]))
    c, at = rng.standard_normal(sol.output.shape), rng.standard_normal(sol.named[first].shape)
    g = rs.adjoint(sol, output=c, states={first: at})

    def loss(**moved):
        states, shown = literal(f, name, batch=batch, **moved)
        return float((shown * c).sum() + (states[first] * at).sum())

    for n, gradient in (*g.inputs.items(), *g.initial.items(), *g.parameters.items()):
        scale = 0.5 if n == "decay" else 1.0  # of what is drawn
        check_slope(scale * gradient, lambda d, n=n: loss(**{n: d}), rng)
    v = {n: rng.standard_normal(x.shape) for n, x in (*g.inputs.items(), *g.initial.items(), *g.parameters.items())}
    groups = {
        "inputs": {n: v[n] for n in g.inputs},
        "initial": {n: v[n] for n in g.initial},
        "parameters": {n: v[n] for n in g.parameters},
    }
    along = sol.recurrence.named(rs.tangent(sol, **groups))[first]
    back = rs.adjoint(sol, states={first: at})
    wanted = sum(
        float((group[n] * v[n]).sum()) for group in (back.inputs, back.initial, back.parameters) for n in group
    )
    assert float((along * at).sum()) == pytest.approx(wanted, rel=1e-10, abs=1e-12)


@pytest.mark.parametrize("backend", ["numpy", "numba"])
@pytest.mark.parametrize("f", STATES)
def test_scans_take_components_in_order(f, backend):
    rng = np.random.default_rng(4)
    for name in ("grid", "random", "no nodes"):
        rec = made(f, name)
        J = rec.linearise(0.3 * rng.standard_normal(rec.shape))[1]
        if name == "random":  # nodes that several see in the same slot
            J = rs.jacobians.ByParent(J.slots, rs.graphs.Graph(np.minimum(np.arange(17)[:, None], [1, 3, 2]) - 1))
        D = J.lane_dense()
        b, c = rng.standard_normal((2, *rec.shape))
        every = rng.random((*rec.shape[:-1], 1)) < 0.2
        with rs.backend(backend):
            for cut in (None, every, np.array(np.broadcast_to(every, rec.shape))):
                d, g = graph_scan(J, b, cut), reverse_graph_scan(J, cut, c)
                np.testing.assert_allclose(d, graph_scan(D, b, cut), atol=1e-12)
                np.testing.assert_allclose(g, reverse_graph_scan(D, cut, c), atol=1e-12)
                np.testing.assert_allclose((c * d).sum(), (g * b).sum(), rtol=1e-10, atol=1e-12)


# Jacobians of the user's ----------------------------------------------------------------------------------------------


def plain(structure, slots):
    """Return f of a structure with parameters, its Jacobian, and the event."""

    def linear(h, u, p):
        return np.tanh(sum(a * x for a, x in zip(p.a, h, strict=True)) + u)

    def slope(h, u, p):
        return 1 - linear(h, u, p) ** 2

    def dense(h, u, p):
        return np.tanh(sum(x @ W.T for W, x in zip(p.W, h, strict=True)) + u)

    if structure == "diagonal":
        return linear, lambda h, u, p: tuple(slope(h, u, p) * a for a in p.a), (3,)
    if structure == "scalar":
        return (
            lambda h, u, p: sum(a[0] * x for a, x in zip(p.a, h, strict=True)) + u,
            lambda h, u, p: [a[0] for a in p.a],  # the same at all nodes
            (3,),
        )
    if structure == "low_rank":  # W = a I + b b^T
        return (
            lambda h, u, p: sum(a[0] * x + (x @ a)[..., None] * a for a, x in zip(p.a, h, strict=True)) + u,
            lambda h, u, p: tuple((a[:1] + 0 * a, a[:, None], a[:, None]) for a in p.a),
            (3,),
        )
    return dense, lambda h, u, p: tuple((1 - dense(h, u, p) ** 2)[..., None] * W for W in p.W), (3,)


@pytest.mark.parametrize("structure", ["scalar", "diagonal", "dense", "low_rank"])
def test_a_jacobian_of_the_users_is_taken_slot_by_slot(structure):
    rng = np.random.default_rng(2)
    for name, dtype in product(("grid", "random", "one node", "no nodes"), gallery.DTYPES):
        graph = GRAPHS[name][0]
        f, jacobian, event = plain(structure, graph.slots)
        u = rng.standard_normal((*graph.shape, 2, *event)).astype(dtype)
        weights = {
            "a": 0.5 * rng.standard_normal((graph.slots, 3)),
            "W": 0.4 * rng.standard_normal((graph.slots, 3, 3)),
        }
        given = {
            "inputs": u, "initial": rng.standard_normal((2, *event)).astype(dtype),
            "parameters": {n: w.astype(dtype) for n, w in weights.items()},
        }  # fmt: skip
        rec = rs.Recurrence.from_graph(f, graph, structure=structure, jacobian=jacobian, **given)
        automatic = rs.Recurrence.from_graph(f, graph, **given)
        h = rec.guess()
        np.testing.assert_allclose(
            rec.linearise(h)[1].todense(), automatic.linearise(h)[1].todense(), atol=10 * np.finfo(dtype).eps
        )
        for method in ("newton", "quasi_newton", "sequential"):
            sol, wanted = rs.solve(rec, method=method), rs.solve(automatic, method="sequential")
            assert sol.success
            assert np.abs(sol.states - wanted.states).max(initial=0) <= gallery.bound(sol)
        sol = rs.solve(rec)
        assert sol.trusted
        c = rng.standard_normal(u.shape).astype(dtype)
        for found, other in zip(*(rs.adjoint(s, states=c).parameters.values() for s in (sol, wanted)), strict=True):
            np.testing.assert_allclose(found, other, rtol=1e-3 if dtype == np.float32 else 1e-9, atol=1e-4)


def test_a_jacobian_of_named_states_and_a_false_one():
    def f(h, u):
        return {"a": 0.5 * h[0].a + 0.25 * h[1].a + u, "b": 0.5 * h[1].b * u}

    def jacobian(h, u):
        zero, half = 0 * h[0].a, 0 * h[0].a + 0.5
        return np.stack([half, zero], axis=-1), np.stack([0.5 * half, 0.5 * u * (1 + zero)], axis=-1)

    u = np.random.default_rng(0).standard_normal((4, 5))
    given = {"inputs": u, "state": {"a": (), "b": ()}, "initial": {"a": np.array(1.0), "b": np.array(2.0)}}
    grid = rs.graphs.grid((4, 5))
    rec = rs.Recurrence.from_graph(f, grid, structure="diagonal", jacobian=jacobian, **given)
    sol = rs.solve(rec)
    assert sol.nit == 1
    assert sol.trusted
    np.testing.assert_allclose(sol.states, rs.solve(rec, method="sequential").states, atol=1e-14)
    false = rs.Recurrence.from_graph(f, grid, structure="diagonal", jacobian=lambda h, u: jacobian(h, u)[::-1], **given)
    sol = rs.solve(false)
    assert sol.success
    assert not sol.trusted
    with pytest.raises(ValueError, match="not the derivative"):
        rs.adjoint(sol, states=np.ones_like(sol.states))


def test_a_jacobian_may_stand_where_there_is_no_automatic_one():
    """It is not known to be the derivative, so that nothing is trusted; gradients take it as it is."""

    def f(h, u):
        return 0.5 * np.sinc(h[0]) + 0.2 * h[1] + u

    def jacobian(h, u):
        x = h[0]
        slope = np.where(x == 0, 0.0, (np.cos(np.pi * x) - np.sinc(x)) / np.where(x == 0, 1.0, x))
        return 0.5 * slope, 0 * x + 0.2

    u = np.random.default_rng(0).standard_normal((4, 5, 2))
    grid, given = rs.graphs.grid((4, 5)), {"initial": np.ones(2), "structure": "diagonal"}
    sol = solved(rs.Recurrence.from_graph(f, grid, inputs=u, jacobian=jacobian, **given))
    assert not sol.trusted
    assert "no automatic derivative" in sol.message
    c = np.random.default_rng(1).standard_normal(u.shape)

    def loss(d):
        rec = rs.Recurrence.from_graph(f, grid, inputs=u, initial=np.ones(2) + d, structure="none")
        return float((rs.solve(rec, method="sequential").states * c).sum())

    check_slope(rs.adjoint(sol, states=c).initial, loss, np.random.default_rng(2))


# Parts, copies and kinds ----------------------------------------------------------------------------------------------


def test_they_follow_into_parts_pickles_dtypes_and_guesses():
    rec = made(memory, "layers")
    sol = solved(rec)
    copied = pickle.loads(pickle.dumps(sol))
    np.testing.assert_array_equal(copied.output, sol.output)
    np.testing.assert_array_equal(copied.named.C, sol.named.C)
    one = solved(rec.sequences(np.array([1])))
    np.testing.assert_allclose(one.output[:, :, 0], sol.output[:, :, 1], atol=1e-12)
    single = solved(rec.astype(np.float32))
    assert single.output.dtype == np.float32
    np.testing.assert_allclose(single.output, sol.output, atol=1e-5)
    states = rec.in_order(sol.states, "states")
    part = rec.between(4, 11, states)
    np.testing.assert_allclose(part.bind().walk(), states[4:11], atol=1e-14)
    np.testing.assert_allclose(part.output(states[4:11]), rec.output(states)[4:11], atol=1e-14)
    begun = rec.window(0, 4, initial=dict(rec.named(rec.initial)))
    np.testing.assert_allclose(begun.bind().walk(), states[:4], atol=1e-14)
    assert rs.solve(rec, guess=dict(sol.named)).nit == 0
    windowed = rs.solve(rec, method=rs.solvers.Windowed(solver="newton", window=4))
    np.testing.assert_allclose(windowed.output, sol.output, atol=1e-12)


def test_readouts_are_evaluated_in_windows_of_nodes(monkeypatch):
    monkeypatch.setattr("recsolve.recurrence.readout.NUMBERS", 40)
    monkeypatch.setattr("recsolve.gradients.function_gradients._RECORDED", 40)
    rec = made(memory, "grid from another corner")
    sol = solved(rec)
    shown = literal(memory, "grid from another corner")[1]
    np.testing.assert_allclose(sol.output, shown, atol=1e-12)
    rng = np.random.default_rng(3)
    c = rng.standard_normal(shown.shape)
    g = rs.adjoint(sol, output=c)
    check_slope(
        g.inputs["k"],
        lambda d: float((literal(memory, "grid from another corner", k=d)[1] * c).sum()),
        rng,
    )


def test_tokens_on_a_tree_are_read_out_as_numbers():
    E = np.random.default_rng(0).standard_normal((7, 2))
    graph, parents = GRAPHS["tree"]

    def f(h, u):
        return {"n": h[0].n + h[1].n + 1, "sum": (h[0].sum + h[1].sum + u) % 7}

    value = np.arange(7)
    rec = rs.Recurrence.from_graph(
        f, graph, inputs=value, state={"n": (), "sum": ()}, initial={"n": np.array(0), "sum": np.array(0)},
        structure="none", readout=lambda s, u: E[s.sum],
    )  # fmt: skip
    sizes, sums = np.zeros((2, 7), int)
    for i, seen in enumerate(parents):
        sizes[i] = 1 + sum(sizes[q] for q in seen if q >= 0)
        sums[i] = (value[i] + sum(sums[q] for q in seen if q >= 0)) % 7
    for method in ("jacobi", "sequential", "windowed"):
        sol = rs.solve(rec, method=method)
        assert sol.trusted
        np.testing.assert_array_equal(sol.named.n, sizes)
        np.testing.assert_array_equal(sol.output, E[sums])
    assert rs.check_structure(rec).ok
    with pytest.raises(TypeError, match="structure is 'none'"):
        rec.differentiate(rec.previous(rec.guess()))


def test_tensors_give_tensors():
    torch = pytest.importorskip("torch")
    sol = solved(made(memory, "grid", kind=torch.as_tensor))
    g = rs.adjoint(sol, output=torch.ones_like(sol.output))
    for x in (sol.output, sol.named.C, g.initial.h, g.inputs["k"], g.parameters.decay):
        assert isinstance(x, torch.Tensor)
    np.testing.assert_allclose(sol.output.numpy(), solved(made(memory, "grid")).output, atol=1e-13)


# Wrong arguments ------------------------------------------------------------------------------------------------------

GIVEN = {
    "f": lambda h, u: {"a": 0.5 * h[0].a + u, "b": h[1].b},
    "parents": rs.graphs.grid((3, 2)),
    "inputs": np.ones((3, 2)),
    "state": {"a": (), "b": ("d",)},
    "initial": {"a": np.array(0.0), "b": np.zeros(2)},
}
FLAT = GIVEN | {
    "f": lambda h, u: 0.5 * h[0] + u[..., None],
    "state": None,
    "initial": np.zeros(2),
    "structure": "diagonal",
}


@pytest.mark.parametrize(
    ("given", "error", "words"),
    [
        (GIVEN | {"state": ["a"]}, TypeError, "state is "),
        (GIVEN | {"initial": {"a": np.array(0.0)}}, ValueError, r"components \('a',\); wanted \('a', 'b'\)"),
        (GIVEN | {"initial": np.zeros(3)}, TypeError, "initial is ndarray; wanted a dict of components"),
        (GIVEN | {"structure": {("a", "q"): "dense"}}, ValueError, r"structure has the pair \('a', 'q'\)"),
        (GIVEN | {"structure": {}, "jacobian": lambda h, u: h}, ValueError, "jacobian is given with a structure"),
        (GIVEN | {"f": lambda h, u: h[0].a}, TypeError, r"f returned ndarray; wanted a dict or tuple of components"),
        (GIVEN | {"f": lambda h, u: (h[0].a, h[0].a)}, ValueError, r"f returned component 'b' of shape \(\d+,\)"),
        (GIVEN | {"readout": 3}, TypeError, "readout is int"),
        (GIVEN | {"readout": lambda s: s.a}, TypeError, r"wanted a callable readout\(h, u_t\)"),
        (GIVEN | {"readout": lambda s, u: s.b.sum(axis=0)}, ValueError, r"returned shape \(2,\); wanted \(6,\)"),
        (GIVEN | {"readout": lambda s, u: s.a.astype("f4")}, TypeError, "readout returned dtype float32"),
        (FLAT | {"jacobian": 3}, TypeError, "jacobian is int"),
        (FLAT | {"jacobian": lambda h: h}, TypeError, r"wanted a callable jacobian\(h_prev, u_t\)"),
        (FLAT | {"jacobian": lambda h, u: h[0]}, TypeError, "jacobian returned ndarray; wanted a tuple of 2"),
        (FLAT | {"jacobian": lambda h, u: h[:1]}, ValueError, "jacobian returned 1 of them; wanted a tuple of 2"),
        (FLAT | {"jacobian": lambda h, u: (h[0], np.ones(5))}, ValueError, r"returned shape \(5,\); wanted \(6, 2\)"),
        (FLAT | {"jacobian": lambda h, u: (h[0], np.ones(2, "f4"))}, TypeError, "jacobian returned dtype float32"),
        (FLAT | {"jacobian": lambda h, u: np.multiply(h, 2, out=h[0])}, ValueError, "read-only"),
        (FLAT | {"structure": "low_rank"}, ValueError, "structure is 'low_rank' without jacobian"),
    ],
)  # fmt: skip
def test_bad_arguments(given, error, words):
    given = dict(given)
    with pytest.raises(error, match=words):
        _ = rs.solve(rs.Recurrence.from_graph(given.pop("f"), given.pop("parents"), **given), method="newton").output


def test_a_cotangent_of_the_output_has_the_users_layout():
    sol = solved(made(memory, "grid"))
    with pytest.raises(ValueError, match=r"output has shape \(20, 2, 2\); wanted \(4, 5, 2, 2\)"):
        rs.adjoint(sol, output=np.ones((20, 2, 2)))
    with pytest.raises(ValueError, match=r"states\['C'\] has shape \(20, 2\); wanted \(4, 5, 2, 2, 3\)"):
        rs.adjoint(sol, states={"C": np.ones((20, 2))})


# On a GPU -------------------------------------------------------------------------------------------------------------


@pytest.mark.skipif(cuda_host.compiler() is None, reason="needs g++")
def test_arrays_on_a_gpu():
    with simulated.gpu() as put:
        on_a_device(put)


@pytest.mark.gpu
def test_arrays_on_a_device():
    import cupy

    on_a_device(cupy.asarray)


def on_a_device(put):
    """Solve and differentiate there, and compare with the host."""
    here, there = solved(made(memory, "grid")), made(memory, "grid", kind=put)
    c = np.random.default_rng(1).standard_normal(here.output.shape)
    wanted = rs.adjoint(here, output=c)
    for method in ("newton", "sequential", "jacobi"):
        sol = rs.solve(there, method=method)
        assert sol.success
        np.testing.assert_allclose(sol.output.get(), here.output, rtol=1e-12, atol=1e-12)
        np.testing.assert_allclose(sol.named.C.get(), here.named.C, rtol=1e-12, atol=1e-12)
    found = rs.adjoint(sol, output=put(c))
    for group in ("inputs", "initial", "parameters"):
        for n, x in getattr(found, group).items():
            np.testing.assert_allclose(x.get(), getattr(wanted, group)[n], rtol=1e-10, atol=1e-12)

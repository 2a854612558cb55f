"""Recurrences on graphs, over a registry of small graphs, against a literal loop over the nodes."""

import pickle
from functools import cache

import cuda_host
import gallery
import numpy as np
import pytest
from cuda_host import simulated

import recsolve as rs
from recsolve.analysis.finer import Finer
from recsolve.base.arrays import freeze
from recsolve.kernels.graph_scan import graph_carry, graph_front, graph_scan, reverse_graph_scan
from recsolve.recurrence import function as function_module
from recsolve.recurrence.graph_recurrence import Slots

graphs = rs.graphs


def neighbours(shape, offsets):
    """The parents of every node of a grid, written out."""
    places = np.arange(int(np.prod(shape))).reshape(shape)
    parents = []
    for node in np.ndindex(*shape):
        at = [tuple(i + d for i, d in zip(node, move, strict=True)) for move in offsets]
        inside = [all(0 <= i < n for i, n in zip(a, shape, strict=True)) for a in at]
        parents.append([int(places[a]) if good else -1 for a, good in zip(at, inside, strict=True)])
    return parents


def random_parents(N=17, P=3, seed=0):
    """The parents of a random graph whose nodes are numbered in no order."""
    rng = np.random.default_rng(seed)
    name, parents = rng.permutation(N), np.full((N, P), -1)
    for n in range(N):
        for p in range(P):
            if n and rng.random() < 0.7:
                parents[name[n], p] = name[rng.integers(n)]
    return parents.tolist()


ABOVE = [4, 4, 5, 5, 6, 6, -1]  # a tree of seven nodes and its root
GRAPHS = {
    "chain": (graphs.Graph([[n - 1] for n in range(9)]), [[n - 1] for n in range(9)]),
    "grid": (graphs.grid((4, 5)), neighbours((4, 5), [(-1, 0), (0, -1)])),
    "grid from another corner": (graphs.grid((4, 3), directions=(1, -1)), neighbours((4, 3), [(-1, 0), (0, 1)])),
    "columns": (graphs.grid((3, 4), directions=(-1, 0)), neighbours((3, 4), [(1, 0)])),
    "across": (
        graphs.grid((3, 4), offsets=[(-1, 0), (0, -1), (-1, -1)]),
        neighbours((3, 4), [(-1, 0), (0, -1), (-1, -1)]),
    ),
    "cube": (graphs.grid((3, 2, 3)), neighbours((3, 2, 3), [(-1, 0, 0), (0, -1, 0), (0, 0, -1)])),
    "layers": (graphs.layers(3, 5), neighbours((3, 5), [(0, -1), (-1, 0)])),
    "random": (graphs.Graph(random_parents()), random_parents()),
    "tree": (graphs.tree(ABOVE), [[-1, -1]] * 4 + [[0, 1], [2, 3], [4, 5]]),
    "both ways": (
        graphs.together(graphs.grid(6), graphs.grid(6, directions=(-1,))),
        [[n - 1] for n in range(6)] + [[n + 1] if n < 11 else [-1] for n in range(6, 12)],
    ),
    "one node": (graphs.grid((1, 1)), [[-1, -1]]),
    "no nodes": (graphs.grid((0, 3)), []),
}
APPLY = [name for name, method in rs.solvers.REGISTRY.items() if method.graphs and name != "chain"]
REFUSED = sorted(set(rs.solvers.REGISTRY) - set(APPLY))
n = 3
EVENTS = {"diagonal": (n,), "scalar": (n,), "block": (2, n), "heads": (2, n), "dense": (n,)}


def function(structure, slots, dtype, gain=1.0):
    """A function of this structure with another weight in each slot."""
    rng = np.random.default_rng(slots)
    if structure == "scalar":
        a = [float(x) for x in gain * rng.uniform(0.2, 0.8, slots)]
        return lambda h, u: sum(x * y for x, y in zip(a, h, strict=True)) + u
    shape = {"diagonal": (n,), "block": (2, 2, n), "heads": (2, n, n), "dense": (n, n)}[structure]
    W = (gain * rng.uniform(-0.6, 0.8, (slots, *shape))).astype(dtype)
    if structure == "diagonal":
        return lambda h, u: np.tanh(sum(w * x for w, x in zip(W, h, strict=True)) + u)
    if structure == "block":
        product = "ijn,...jn->...in"
    else:
        product = "hij,...hj->...hi" if structure == "heads" else "ij,...j->...i"
    return lambda h, u: np.tanh(sum(np.einsum(product, w, x) for w, x in zip(W, h, strict=True)) + u)


def problem(name, structure="diagonal", batch=(2,), dtype=np.float64, seed=0, gain=1.0):
    graph, parents = GRAPHS[name]
    rng, event = np.random.default_rng(seed), EVENTS[structure]
    u = rng.standard_normal((*graph.shape, *batch, *event)).astype(dtype)
    initial = rng.standard_normal((*batch, *event)).astype(dtype)
    f = function(structure, graph.slots, dtype, gain)
    rec = rs.Recurrence.from_graph(f, graph, inputs=u, initial=initial, structure=structure)
    return rec, f, parents, u, initial


def literal(f, parents, u, initial):
    """Every node by itself, once its parents are there."""
    flat = u.reshape(len(parents), *initial.shape)
    states, done = np.empty_like(flat), set()
    while len(done) < len(parents):
        ready = [i for i, seen in enumerate(parents) if i not in done and all(p in done for p in seen if p >= 0)]
        for i in ready:
            states[i] = f(tuple((states[p] if p >= 0 else initial)[None] for p in parents[i]), flat[i][None])[0]
        done |= set(ready)
    return states.reshape(u.shape)


@cache
def solved(name, structure="diagonal", dtype=np.float64):
    given = problem(name, structure, dtype=dtype)
    return given[0], literal(*given[1:])


def level_of(parents):
    """The longest path that leads to each node."""
    level = [0] * len(parents)
    for _ in parents:
        level = [max((level[p] + 1 for p in seen if p >= 0), default=0) for seen in parents]
    return np.array(level, int)


@pytest.mark.parametrize("method", APPLY)
@pytest.mark.parametrize("name", GRAPHS)
def test_every_method_equals_the_loop_over_nodes(name, method):
    for dtype in gallery.DTYPES:
        rec, truth = solved(name, dtype=dtype)
        sol = rs.solve(rec, method=method)
        assert sol.success, sol
        assert sol.states.dtype == dtype
        assert sol.states.shape == truth.shape
        assert np.abs(sol.states - truth).max(initial=0) <= gallery.bound(sol)
        assert sol.exact_prefix <= sol.converged_prefix == rec.graph.depth
        if method != "windowed":
            assert sol.nit <= rec.graph.depth


@pytest.mark.parametrize("structure", EVENTS)
def test_every_structure(structure):
    for name in ("across", "random", "no nodes"):
        rec, truth = solved(name, structure)
        for method in ("newton", "quasi_newton", "sequential"):
            sol = rs.solve(rec, method=method)
            assert sol.success
            assert sol.trusted, sol.message
            assert np.abs(sol.states - truth).max(initial=0) <= gallery.bound(sol)
        J = rec.linearise(rec.guess())[1]
        assert {type(A).__name__.lower() for A in J.slots} == {
            structure if structure in ("scalar", "diagonal", "block") else "lanedense"
        }


@pytest.mark.parametrize("method", REFUSED)
def test_methods_along_time_are_refused(method):
    with pytest.raises(TypeError, match=r"wanted one of anderson, chord, .* one axis of time"):
        rs.solve(solved("grid")[0], method=method)


def test_what_belongs_to_time_is_refused():
    rec, _ = solved("grid")
    sol = rs.solve(rec)
    for call in (rs.diagnose, rs.explain):
        with pytest.raises(TypeError, match="wanted one along time"):
            call(rec)
    with pytest.raises(AttributeError, match="a graph has none"):
        sol.final  # noqa: B018
    with pytest.raises(TypeError, match="no last step"):
        rs.adjoint(sol, final=rec.initial)
    with pytest.raises(ValueError, match="'coarse'"):
        rs.solve(rec, guess="coarse")
    with pytest.raises(TypeError, match="ByParent, of a graph"):
        rs.scan("affine", (rec.linearise(rec.guess())[1], rec.guess()))
    assert sol.error_bound == np.inf  # nothing is proved

    class Along(rs.solvers.CorrectionSolver):
        name, matrix = "along", "I along the nodes"

        def preconditioner(self, problem, iterate):
            return rs.jacobians.Identity(iterate.values, problem.recurrence.layout)

    with pytest.raises(TypeError, match="wanted ByParent"):
        rs.solve(rec, method=Along())


@pytest.mark.parametrize("name", ["grid", "random", "tree", "both ways"])
def test_a_sweep_makes_one_more_level_exact(name):
    rec, f, parents, u, initial = problem(name)
    truth, level = literal(f, parents, u, initial), level_of(parents)
    for k in range(rec.graph.depth):
        sol = rs.solve(rec, method="jacobi", maxiter=k, tol=0.0, options={"pin": False, "patience": 99})
        right = (sol.states == truth).reshape(len(parents), -1).all(axis=1)
        assert right[level <= k].all()
        assert sol.exact_prefix >= min(k, rec.graph.depth)
    assert rec.graph.depth == level.max() + 1


@pytest.mark.parametrize("name", GRAPHS)
def test_large_states_are_evaluated_part_by_part(name, monkeypatch):
    """What nodes see is put together for some of them at a time, of a part of a graph too."""
    rec = problem(name, batch=(2,))[0]
    states = np.random.default_rng(3).standard_normal(rec.shape)
    parts = [rec, *(rec.between(k, rec.length, states) for k in (1, rec.length // 2) if k <= rec.length)]
    wanted = [part.bind().evaluate(states[rec.length - part.length :]) for part in parts]
    monkeypatch.setattr(function_module, "_LARGE", 1)
    monkeypatch.setattr(function_module, "_TOGETHER", 4 * 2 * n)
    seen, seen_by = [], type(rec).seen_by
    monkeypatch.setattr(type(rec), "seen_by", lambda r, nodes, s: seen.append(nodes) or seen_by(r, nodes, s))
    for part, whole in zip(parts, wanted, strict=True):
        np.testing.assert_array_equal(part.bind().evaluate(states[rec.length - part.length :]), whole)
    assert all(nodes.stop - nodes.start <= 4 for nodes in seen)
    assert sum(nodes.stop - nodes.start for nodes in seen) == sum(part.length for part in parts)


@pytest.mark.parametrize("last", [lambda h: h.astype("f4"), lambda h: h[..., :1], lambda h: None, lambda h: h.fill(0)])
def test_the_loop_over_levels_refuses_what_the_reference_refuses(last):
    def f(h, u):
        return last(h[0]) if (u == 7).any() else h[0] + u

    u = np.repeat(np.arange(12.0)[:, None], 2, axis=1)
    rec = rs.Recurrence.from_graph(f, [[t - 1] for t in range(12)], inputs=u, initial=np.zeros(2))
    with pytest.raises((TypeError, ValueError)) as wanted:
        rec._call(Slots((freeze(rec.initial[None]),)), slice(7, 8))
    with pytest.raises(wanted.type) as found:
        rec.bind().walk()
    assert str(found.value) == str(wanted.value)


def test_an_affine_recurrence_takes_one_update():
    rec, truth = solved("cube", "scalar")
    for method in ("newton", "chord", "quasi_newton"):
        sol = rs.solve(rec, method=method, tol=1e-12)
        assert sol.nit == 1
        assert np.abs(sol.states - truth).max() <= gallery.bound(sol)


def test_a_chain_is_what_a_function_is():
    rec, f, _, u, initial = problem("chain", "dense")
    along = rs.Recurrence.from_function(lambda h, u: f((h,), u), inputs=u, initial=initial)
    for method in APPLY:
        one, other = rs.solve(rec, method=method), rs.solve(along, method=method)
        assert np.abs(one.states - other.states).max() <= gallery.bound(other)
        assert one.nit == other.nit
    np.testing.assert_allclose(one.condition, other.condition, rtol=1e-12)
    c = np.random.default_rng(1).standard_normal(u.shape)
    found, wanted = rs.adjoint(one, states=c), rs.adjoint(other, states=c)
    for part in ("initial", "inputs", "states"):
        np.testing.assert_allclose(getattr(found, part), getattr(wanted, part), rtol=1e-12, atol=1e-12)


@pytest.mark.parametrize("structure", ["diagonal", "dense", "block"])
def test_gradients_are_those_of_differences(structure):
    for name in ("across", "random", "layers", "tree", "one node", "no nodes"):
        rec, f, parents, u, initial = problem(name, structure)
        sol, rng, e = rs.solve(rec), np.random.default_rng(2), 1e-6
        c, du, dh = (rng.standard_normal(x.shape) for x in (u, u, initial))
        g = rs.adjoint(sol, states=c)
        ahead, behind = (literal(f, parents, u + s * e * du, initial + s * e * dh) for s in (1, -1))
        wanted = (c * (ahead - behind)).sum() / (2 * e)
        np.testing.assert_allclose((g.inputs * du).sum() + (g.initial * dh).sum(), wanted, rtol=1e-6, atol=1e-9)
        added = rng.standard_normal(u.shape)
        moved = rs.tangent(sol, states=added, initial=dh)
        np.testing.assert_allclose((c * moved).sum(), (g.states * added).sum() + (g.initial * dh).sum(), atol=1e-10)


def test_the_condition_is_that_of_the_matrix():
    for name, structure in (("across", "diagonal"), ("random", "dense")):
        rec, _ = solved(name, structure)
        rec = rec.sequences(np.array([0]))
        sol = rs.solve(rec)
        J, N = rec.linearise(rec.in_order(sol.states, "states"))[1].todense()[:, :, 0], rec.length
        matrix = np.zeros((N, n, N, n))
        matrix[np.arange(N), :, np.arange(N)] = np.eye(n)
        for i, seen in enumerate(rec.graph.parents):
            for p, parent in enumerate(seen):
                if parent >= 0:
                    matrix[i, :, parent] -= J[i, p]
        exact = np.linalg.norm(np.linalg.inv(matrix.reshape(N * n, N * n)), np.inf)
        assert exact / 3 <= sol.condition <= exact * (1 + 1e-12)


@pytest.mark.parametrize("method", APPLY)
def test_a_nan_reaches_descendants_alone(method):
    _, f, parents, u, initial = problem("grid")
    u = u.copy()
    u[2, 1, 0] = np.nan
    sol = rs.solve(
        rs.Recurrence.from_graph(f, GRAPHS["grid"][0], inputs=u, initial=initial, structure="diagonal"), method=method
    )
    truth = literal(f, parents, u, initial)
    assert sol.status is rs.Status.NONFINITE
    assert "inf or NaN at node (2, 1) of sequence (0,)" in sol.message
    np.testing.assert_allclose(sol.states, truth, rtol=1e-13)
    assert np.array_equal(sol.converged_entries, np.isfinite(truth))


def test_missing_parents_are_selected():
    """The state before the border may be infinite, and so may be the derivative there."""
    graph, u = graphs.grid((4, 5)), np.random.default_rng(0).standard_normal((4, 5, 2))

    def f(h, u):
        return np.log(np.exp(h[0] + u) + np.exp(h[1] - u) + 1)

    rec = rs.Recurrence.from_graph(f, graph, inputs=u, initial=np.full(2, -np.inf), structure="diagonal")
    for method in APPLY:
        sol = rs.solve(rec, method=method)
        assert sol.success
        assert np.isfinite(sol.states).all()


def test_windows_and_sequences_are_set_aside():
    graph, rng = graphs.grid((9, 8)), np.random.default_rng(0)
    u = rng.standard_normal((9, 8, 6, n))
    u[:, :, 1:] = 0  # five sequences are solved at once

    def f(h, u):
        return 0.9 * np.sin(h[0] + h[1] + u)

    rec = rs.Recurrence.from_graph(f, graph, inputs=u, initial=np.zeros((6, n)), structure="diagonal")
    truth = literal(f, neighbours((9, 8), [(-1, 0), (0, -1)]), u, np.zeros((6, n)))
    for method in (
        "newton",
        "jacobi",
        rs.solvers.Windowed(solver="newton", window=20),
        rs.solvers.Windowed(solver="jacobi", window=5),
    ):
        sol = rs.solve(rec, method=method)
        assert sol.success
        assert np.abs(sol.states - truth).max() <= gallery.bound(sol)
        assert sol.stats["rows"] < 0.8 * (sol.nit + 1) * 72 * 6


def test_arrays_go_in_and_out_as_the_graph_lays_them_out():
    rec, truth = solved("grid from another corner")
    seen = []
    sol = rs.solve(rec, guess=truth, callback=lambda now: seen.append((now.states, now.converged_rows)))
    assert sol.nit == 0
    np.testing.assert_array_equal(seen[0][0], truth)
    assert seen[0][1].shape == truth.shape[:-1]
    assert rs.solve(rec, guess=sol).nit == 0
    assert sol.converged_rows.all()
    with pytest.raises(ValueError, match="wanted the nodes first"):
        rs.solve(rec, guess=truth[0])
    with pytest.raises(ValueError, match=r"inputs has shape .* wanted the nodes first, \(4, 5\)"):
        rs.Recurrence.from_graph(lambda h, u: u, graphs.grid((4, 5)), inputs=np.ones((20, n)), initial=np.zeros(n))


def test_torch_tensors():
    torch = pytest.importorskip("torch")
    _, f, _, u, initial = problem("grid")
    rec = rs.Recurrence.from_graph(
        lambda h, u: f(h, u["x"]), graphs.grid((4, 5)), inputs={"x": torch.tensor(u)}, initial=torch.tensor(initial),
        structure="diagonal",
    )  # fmt: skip
    sol = rs.solve(rec)
    np.testing.assert_allclose(sol.states.numpy(), solved("grid")[1], rtol=1e-12)
    assert rs.adjoint(sol, states=torch.ones_like(sol.states)).inputs["x"].shape == u.shape


def test_a_false_structure_is_not_trusted():
    rec, f, _, u, initial = problem("grid", "dense")
    false = rs.Recurrence.from_graph(f, rec.graph, inputs=u, initial=initial, structure="diagonal")
    sol = rs.solve(false)
    assert sol.success
    assert not sol.trusted
    with pytest.raises(ValueError, match="not the derivative"):
        rs.adjoint(sol, states=np.ones_like(u))
    zero = rs.Recurrence.from_graph(f, rec.graph, inputs=u, initial=initial, structure="zero")
    assert not rs.solve(zero).trusted


def test_nodes_of_several_kinds():
    rng = np.random.default_rng(0)
    W, x = rng.uniform(-0.5, 0.5, (3, 2, n, n)), rng.standard_normal((3, 5, 2, n))
    kind = np.broadcast_to(np.arange(3.0)[:, None], (3, 5))
    f = graphs.by_kind([lambda h, u, w=w: np.tanh(h[0] @ w[0] + h[1] @ w[1] + u["x"]) for w in W])
    rec = rs.Recurrence.from_graph(f, graphs.layers(3, 5), inputs={"x": x, "kind": kind}, initial=np.zeros((2, n)))
    states = np.zeros((3, 5, 2, n))
    for layer in range(3):
        for t in range(5):
            before = states[layer, t - 1] if t else np.zeros((2, n))
            below = states[layer - 1, t] if layer else np.zeros((2, n))
            states[layer, t] = np.tanh(before @ W[layer, 0] + below @ W[layer, 1] + x[layer, t])
    for method in ("newton", "sequential"):
        sol = rs.solve(rec, method=method)
        assert sol.trusted
        np.testing.assert_allclose(sol.states, states, rtol=0, atol=gallery.bound(sol))
    g = rs.adjoint(sol, states=np.ones_like(states))
    assert not g.inputs["kind"].any()
    for inputs, message in (({"x": x}, "'kind'"), ({"x": x, "kind": kind + 1}, "wanted 0 to 2")):
        with pytest.raises((TypeError, ValueError), match=message):
            rs.solve(rs.Recurrence.from_graph(f, graphs.layers(3, 5), inputs=inputs, initial=np.zeros((2, n))))


def test_compiled_loops_equal_the_levels_and_their_transpose():
    rng = np.random.default_rng(0)
    for name in ("across", "tree", "random"):  # in a tree from the root nodes share a parent
        graph = graphs.Graph(np.array(ABOVE)[:, None]) if name == "tree" else GRAPHS[name][0]
        for dtype in gallery.DTYPES:
            leading, layout = (graph.size, 2), rs.Layout(units=4)
            slots = [gallery.structure(rs.jacobians.Diagonal, layout, leading, rng, dtype) for _ in range(graph.slots)]
            slots[0] = rs.jacobians.Zero(slots[0].data, layout) if graph.slots > 2 else slots[0]
            J = rs.jacobians.ByParent(slots, graph)
            b, c = rng.standard_normal((2, *leading, 4)).astype(dtype)
            cut = rng.random((*leading, 1)) < 0.2
            good = rng.random(leading) < 0.8
            found = []
            for backend in ("numpy", "numba"):
                with rs.backend(backend):
                    found.append(
                        (
                            graph_scan(J, b, cut),
                            reverse_graph_scan(J, cut, c),
                            graph_carry(J, b),
                            *graph_front(good, graph),
                        )
                    )
            for one, other in zip(*found, strict=True):
                np.testing.assert_allclose(one, other, rtol=20 * np.finfo(dtype).eps, atol=20 * np.finfo(dtype).eps)
            d, g = found[0][:2]
            np.testing.assert_allclose((c * d).sum(), (g * b).sum(), rtol=1e-3 if dtype == np.float32 else 1e-10)


def double(h, u):
    return np.tanh(0.5 * h[0] + 0.5 * h[1] + u)


def test_pickles():
    u = np.random.default_rng(0).standard_normal((4, 5, n))
    u.flags.writeable = False
    rec = rs.Recurrence.from_graph(double, graphs.grid((4, 5)), inputs=u, initial=np.zeros(n), structure="diagonal")
    sol = pickle.loads(pickle.dumps(rs.solve(rec)))
    np.testing.assert_array_equal(rs.solve(pickle.loads(pickle.dumps(rec))).states, sol.states)
    assert sol.trusted


def test_a_subclass_keeps_its_function():
    class Doubled(type(solved("grid")[0])):
        def apply(self, previous):
            return 2 * super().apply(previous)

    class ByNode(type(solved("grid")[0])):
        def step(self, state, t):
            return 2 * super().step(state, t)

    rec, f, parents, u, initial = problem("grid")
    truth = literal(lambda h, u: 2 * f(h, u), parents, u, initial)
    for kind in (Doubled, ByNode):
        for method in ("jacobi", "sequential"):
            sol = rs.solve(kind(f, rec.graph, inputs=u, initial=initial, structure="diagonal"), method=method)
            assert sol.success
            np.testing.assert_allclose(sol.states, truth, rtol=1e-12)
            assert not sol.trusted
            assert np.isnan(sol.condition)

    class Derived(Doubled):
        def differentiate(self, previous):
            values, J = super(Doubled, self).differentiate(previous)
            return 2 * values, J.scale(2.0)

    sol = rs.solve(Derived(f, rec.graph, inputs=u, initial=initial, structure="diagonal"))
    np.testing.assert_allclose(sol.states, truth, rtol=1e-12)
    assert not sol.trusted  # its derivative is compared with nothing


def test_states_that_lead_out_of_the_domain_take_the_plain_step():
    u = np.random.default_rng(0).uniform(0, 1, (14, 14, 2))
    rec = rs.Recurrence.from_graph(
        lambda h, u: 0.3 * h[0] ** 1.5 + 0.3 * h[1] ** 1.5 + 0.1 * u, graphs.grid((14, 14)),
        inputs=u, initial=np.full(2, 0.5), structure="diagonal",
    )  # fmt: skip
    moved = np.zeros(u.shape, bool)
    moved[1, 1, 0] = True
    seen = rec.as_given(rec.seen_at(rec.in_order(moved, "moved")))
    assert np.argwhere(seen).tolist() == [[0, 1, 0], [1, 0, 0]]
    sol = rs.solve(rec)
    assert sol.success
    assert sol.nit < 12


def test_the_estimated_error_is_that_of_finer_arithmetic():
    rec, f, parents, u, initial = problem("across", dtype=np.float32)
    sol = rs.solve(rec, tol=1e-4)
    exact = literal(f, parents, u.astype(np.float64), initial.astype(np.float64))
    finer = Finer(rec).values(rec.in_order(sol.states, "states"))
    assert finer.dtype == np.float64
    error = np.abs(sol.states - exact).max()
    assert error / 3 < sol.error_estimate < 3 * error


def test_what_f_raises_is_told():
    given = {"inputs": np.ones((4, 5, n)), "initial": np.zeros(n)}
    for f, message in [
        (lambda h, u: h[0] + np.ones(n + 1), "could not be broadcast"),
        (lambda h, u: h[0][..., :1], r"f returned shape \(.*, 1\); wanted that of h_prev"),
        (lambda h, u: np.multiply(h[0], 2, out=h[0]), "writes into its arguments"),
        (lambda h, u: (h[0] + u).astype(np.float32), "f returned dtype float32"),
    ]:
        rec = rs.Recurrence.from_graph(f, graphs.grid((4, 5)), **given)
        for method in ("sequential", "newton"):
            with pytest.raises((ValueError, TypeError), match=message):
                rs.solve(rec, method=method)


@pytest.mark.parametrize(
    ("parents", "error", "message"),
    [
        ([[1], [2], [0]], ValueError, "cycle, node 0 sees node 1 sees node 2 sees node 0"),
        ([[0]], ValueError, "cycle, node 0 sees node 0"),
        ([[3], [-1]], ValueError, "parents has 3"),
        ([[-2], [-1]], ValueError, "parents has -2"),
        ([[0.0], [1.0]], TypeError, "dtype float64"),
        ([0, -1], ValueError, "P >= 1"),
    ],
)
def test_parents_are_checked(parents, error, message):
    with pytest.raises(error, match=message):
        graphs.Graph(parents)


def test_makers_of_graphs_check_their_arguments():
    for call, message in [
        (lambda: graphs.grid((3, 3), directions=(1,)), "directions"),
        (lambda: graphs.grid((3, 3), directions=(0, 0)), "directions"),
        (lambda: graphs.grid((3, -1)), "shape"),
        (lambda: graphs.grid((3, 3), offsets=[(0, 0)]), "offsets"),
        (lambda: graphs.grid(3, offsets=[(1,), (-1,)]), "cycle"),
        (lambda: graphs.grid((3, 3), offsets=[(1,)]), "offsets"),
        (lambda: graphs.from_edges(2, [(0, 2)]), "edges"),
        (lambda: graphs.tree([1, 0]), "cycle"),
        (lambda: graphs.together(), "graphs"),
        (lambda: graphs.by_kind([]), "functions"),
    ]:
        with pytest.raises((ValueError, TypeError), match=message):
            call()


def test_products_with_the_matrix_of_a_kind():
    rng = np.random.default_rng(0)
    W = rng.standard_normal((3, 4, 5))
    for kinds in ([0, 1, 2], [2, 0], [1], [], [0, 2, 1, 0, 2], [0, 0, 1, 2, 2], [1, 1, 1, 1]):
        for batch in ((), (2,), (2, 3), (0,)):
            x, kind = rng.standard_normal((len(kinds), *batch, 4)), np.array(kinds, float)
            wanted = np.stack([a @ W[k] for a, k in zip(x, kinds, strict=True)]) if kinds else np.empty((0, *batch, 5))
            np.testing.assert_allclose(graphs.matmul(x, W, kind), wanted, rtol=1e-12, atol=1e-12)

    def f(h, u):
        return np.tanh(graphs.matmul(h[0], W[..., :4], u["layer"]) + graphs.matmul(h[1], W[..., 1:], u["layer"]))

    layer = np.broadcast_to(np.arange(3.0)[:, None], (3, 5))
    rec = rs.Recurrence.from_graph(f, graphs.layers(3, 5), inputs={"layer": layer}, initial=rng.standard_normal((2, 4)))
    sol = rs.solve(rec)
    assert sol.trusted
    np.testing.assert_allclose(sol.states, rs.solve(rec, method="sequential").states, atol=gallery.bound(sol))
    with pytest.raises(ValueError, match="kinds are"):
        graphs.matmul(np.ones((2, 4)), W, np.array([0.0, 3.0]))


def halves(h, u):
    return np.tanh(sum(0.5 * x for x in h) + u)


@pytest.mark.skipif(cuda_host.compiler() is None, reason="needs g++")
def test_arrays_on_a_gpu():
    with simulated.gpu() as put:
        on_a_device(graphs.grid((4, 5), directions=(1, -1)), put)


@pytest.mark.gpu
def test_arrays_on_a_device():
    import cupy

    for graph in (graphs.grid((4, 5), directions=(1, -1)), graphs.Graph(np.array(ABOVE)[:, None])):
        on_a_device(graph, cupy.asarray)


def on_a_device(graph, put):
    """Solve and differentiate there, and compare with the host."""
    u, c = np.random.default_rng(0).standard_normal((2, *graph.shape, 2, n))
    given = {"structure": "diagonal"}
    here = rs.solve(rs.Recurrence.from_graph(halves, graph, inputs=u, initial=np.ones((2, n)), **given))
    wanted = rs.adjoint(here, states=c)
    rec = rs.Recurrence.from_graph(halves, graph, inputs=put(u), initial=put(np.ones((2, n))), **given)
    for method in ("newton", "sequential", "jacobi", "picard", "windowed"):
        sol = rs.solve(rec, method=method)
        assert sol.success
        np.testing.assert_allclose(sol.states.get(), here.states, rtol=1e-12)
    assert sol.trusted
    found = rs.adjoint(sol, states=put(c))
    np.testing.assert_allclose(found.inputs.get(), wanted.inputs, rtol=1e-10, atol=1e-12)
    np.testing.assert_allclose(found.initial.get(), wanted.initial, rtol=1e-10, atol=1e-12)


def test_parameters_tokens_and_tangents_in_the_users_layout():
    rng = np.random.default_rng(3)
    x, c = rng.standard_normal((2, 4, 3, 2, 3))
    weights = {"W": 0.4 * rng.standard_normal((2, 3, 3)), "E": rng.standard_normal((5, 3))}
    inputs = {"token": rng.integers(0, 5, (4, 3, 2)), "x": x}

    def f(h, u, p):
        return np.tanh(h[0] @ p.W[0] + h[1] @ p.W[1] + p.E[u["token"]] + u["x"])

    def recurrence(**moved):
        given = {name: w + moved.get(name, 0) for name, w in weights.items()}
        u = inputs | {"x": x + moved.get("x", 0)}
        return rs.Recurrence.from_graph(f, rs.graphs.grid((4, 3)), inputs=u, initial=np.zeros((2, 3)), parameters=given)

    rec = recurrence()
    sol = rs.solve(rec)
    assert sol.trusted
    single = rec.astype(np.float32)  # tokens stay what they are
    np.testing.assert_allclose(rs.solve(single).states, sol.states, atol=1e-5)
    g = rs.adjoint(sol, states=c)
    d = {name: rng.standard_normal(w.shape) for name, w in {**weights, "x": x}.items()}
    along = rs.tangent(sol, inputs={"token": None, "x": d["x"]}, parameters={n: d[n] for n in weights})
    wanted = sum((d[n] * g.parameters[n]).sum() for n in weights) + (d["x"] * g.inputs["x"]).sum()
    assert (along * c).sum() == pytest.approx(wanted, rel=1e-12)
    up, down = (rs.solve(recurrence(**{n: s * 1e-6 * v for n, v in d.items()})).states for s in (1, -1))
    np.testing.assert_allclose(along, (up - down) / 2e-6, atol=1e-8)
    with pytest.raises(ValueError, match=r"inputs\['x'\] has shape \(12, 2, 3\); wanted \(4, 3, 2, 3\)"):
        rs.tangent(sol, inputs={"token": None, "x": x.reshape(12, 2, 3)})

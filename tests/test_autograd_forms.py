"""Gradients through torch of what has names, shapes or windows of its own: ragged cells, graphs, histories, gathers."""

import copy
import pickle

import gallery
import numpy as np
import pytest
import test_gather
import test_graph_forms
import test_history_forms
import test_ragged_cells
import torch
from test_autograd import METHOD, fast, leaf, of_all, remade
from test_mixings import made
from torch.autograd import forward_ad, gradcheck, gradgradcheck

import recsolve as rs
from recsolve.base import links
from recsolve.interop.autograd import CellSpec, solve_cell


def twice(function, tensors):
    """Check first derivatives, both ways, and second ones."""
    one, numbers = of_all(function, tensors)
    ways = {"fast_mode": True, "eps": 1e-6}
    assert gradcheck(one, numbers, check_forward_ad=True, atol=1e-6, **ways)
    return gradgradcheck(one, numbers, check_fwd_over_rev=True, atol=1e-5, **ways)


def drawn(*shape, scale=0.5, seed=0):
    return leaf(scale * np.random.default_rng(seed).standard_normal(shape))


def solves(rec, **options):
    return rs.solve(rec, **(METHOD | options))


# Ragged cells -------------------------------------------------------------------------------------------------------


def ragged(name, tensors, reset=None, readout=None):
    """Return the recurrence of a ragged cell whose weights, input and initial state are tensors, by leaf."""
    model = test_ragged_cells.weighted(name)
    kinds = {n: type(m) for n, m in model.mixings.items()}
    P = model.projection
    moved = model.cell.with_weights(
        mixings={n: kinds[n](tensors["mixing", n]) for n in model.mixings},
        parameters={n: tensors["parameter", n] for n in model.parameters},
        projection=rs.Projection(
            {n: tensors["weight", n] for n in P.weights}, {n: tensors["bias", n] for n in P.biases}
        ),
        hidden_size=model.hidden_size,
    )
    initial = {n: tensors["initial", n] for n in model.cell.components}
    return moved.recurrence(tensors["input", 0], initial=initial, reset=reset, readout=readout)


def leaves_of_ragged(name, T=3):
    model = test_ragged_cells.weighted(name)
    found = {key: leaf(x) for key, x in {**model.leaves(), **model.projection.leaves()}.items()}
    axes = model.cell.components
    found |= {("initial", n): drawn(2, *(model.sizes.known[a] for a in axes[n]), seed=i) for i, n in enumerate(axes)}
    return found | {("input", 0): drawn(T, 2, 3, scale=1.0)}


@pytest.mark.parametrize("shown", [None, "readout"])
@pytest.mark.parametrize("name", test_ragged_cells.ALL)
def test_gradcheck_of_ragged_cells(name, shown):
    given, reset = leaves_of_ragged(name), torch.tensor([[False, False], [False, True], [False, False]])
    first = next(iter(test_ragged_cells.CELLS[name].components))
    readout = None
    if shown:

        def readout(s, u, p):
            total = np.tanh(s[first]).reshape(*s[first].shape[:2], -1).sum(axis=-1)
            return total * sum(x.reshape(*x.shape[:2], -1).sum(axis=-1) for x in u.values())

    def solved(*tensors):
        sol = solves(ragged(name, dict(zip(given, tensors, strict=True)), reset, readout))
        return sol.output, sol.final, sol.named[first]

    assert twice(solved, tuple(given.values()))


@pytest.mark.parametrize(
    "name", [n for n, m in made().items() if not isinstance(m, (rs.mixings.Gather, rs.mixings.Sparse))]
)
def test_gradcheck_of_every_mixing_in_a_ragged_cell(name):
    mixing = made()[name]
    event = (*mixing.lanes, mixing.units)
    axes = tuple("abc"[: len(event)])

    def mixed(s, W, u, p):
        h = np.tanh(W.h(s.h) + u.x)
        return {"h": h, "n": 0.5 * s.n + W.h(h * p.a).reshape(*h.shape[: -len(event)], -1).sum(axis=-1)}

    cell = rs.Cell(mixed, state={"h": axes, "n": ()}, output="h")

    def solved(weight, x, a):
        model = cell.with_weights(mixings={"h": remade(mixing, weight)}, parameters={"a": a})
        return solves(model.recurrence(drive={"x": x})).states

    assert twice(solved, (leaf(0.5 * mixing.weight), drawn(3, 2, *event), drawn(*event)))


def test_drives_of_ragged_cells_are_followed_and_indices_have_no_gradient():
    def routed(s, W, u, p):
        return {"h": np.tanh(W.h(rs.math.gather(s.h, u.at)) + u.x), "n": 0.5 * s.n + s.h.sum(axis=-1)}

    cell = rs.Cell(routed, state={"h": ("d",), "n": ()}, output="h")
    at = torch.from_numpy(np.random.default_rng(0).integers(0, 3, (4, 2, 3)))

    def solved(x, W, h):
        model = cell.with_weights(mixings={"h": rs.mixings.Dense(W)})
        sol = solves(model.recurrence(drive={"at": at, "x": x}, initial={"h": h}))
        return sol.output, sol.named_final.n

    given = drawn(4, 1, 3), drawn(3, 3), drawn(3)
    assert twice(solved, given)
    solved(*given)[0].sum().backward()
    assert given[0].grad.shape == (4, 1, 3)
    assert at.grad is None


def test_ragged_cells_of_linked_tensors_are_severed_and_pickle():
    tensors = leaves_of_ragged("memory")
    rec = ragged("memory", tensors)
    assert set(links.linked(rec, "torch")) == {k for k in tensors if k[0] != "initial"} | {("initial", None)}
    with pytest.raises(TypeError, match="was computed of a tensor"):
        solves(rec.window(1, 3))
    with pytest.raises(TypeError, match=r"weight k was computed"):
        solves(rec.cell.astype(np.float32).recurrence(tensors["input", 0].detach().float()))
    sol = solves(rec)
    again = pickle.loads(pickle.dumps(sol))
    torch.testing.assert_close(again.states, sol.states.detach())
    with torch.no_grad():
        tensors["mixing", "h"].mul_(0.5)
    with pytest.raises(ValueError, match="mixing h was changed in place"):
        solves(rec.cell.recurrence(tensors["input", 0]))


# Graphs and histories -----------------------------------------------------------------------------------------------


def of_groups(module, *args, **options):
    """Return the arrays of a test's recurrence as tensors, and what puts tensors back into their groups."""
    groups = module.arrays(*args, **options)
    flat = [leaf(x) for group in groups if group is not None for x in _values(group)]

    def back(tensors):
        rest = iter(tensors)
        return [
            None if g is None else {n: next(rest) for n in g} if isinstance(g, dict) else next(rest) for g in groups
        ]

    return flat, back


def _values(group):
    return group.values() if isinstance(group, dict) else [group]


@pytest.mark.parametrize("f", test_graph_forms.STATES)
@pytest.mark.parametrize("name", ["grid", "tree"])
def test_gradcheck_of_graphs_with_named_states_parameters_and_a_readout(name, f):
    given, back = of_groups(test_graph_forms, f, name, batch=())

    def solved(*tensors):
        inputs, initial, parameters = back(tensors)
        sol = solves(
            rs.Recurrence.from_graph(
                f, test_graph_forms.GRAPHS[name][0], inputs=inputs, initial=initial, parameters=parameters,
                state=test_graph_forms.STATES[f], readout=test_graph_forms.query,
            )
        )  # fmt: skip
        return sol.output, sol.states.sin()

    assert twice(solved, given)


def test_gradcheck_of_a_graph_with_a_jacobian_of_the_users_own():
    def jacobian(h, u, p):
        y = np.tanh(p.a * h[0] + 0.3 * h[1] + u)
        return p.a * (1 - y * y), 0.3 * (1 - y * y)

    def solved(u, h, a):
        rec = rs.Recurrence.from_graph(
            lambda h, u, p: np.tanh(p.a * h[0] + 0.3 * h[1] + u), rs.graphs.grid((3, 2)), inputs=u, initial=h,
            parameters={"a": a}, structure="diagonal", jacobian=jacobian,
        )  # fmt: skip
        return solves(rec, method="newton").states

    assert twice(solved, (drawn(3, 2, 2), drawn(2), drawn(2)))


@pytest.mark.parametrize("name", test_history_forms.HISTORIES)
def test_gradcheck_of_histories_with_named_states_parameters_and_a_readout(name):
    given, back = of_groups(test_history_forms, name, T=4, batch=(1,))
    state = {} if name == "attention" else {"state": test_history_forms.STATE}

    def solved(*tensors):
        inputs, initial, parameters = back(tensors)
        sol = solves(
            rs.Recurrence.from_history(
                test_history_forms.HISTORIES[name], inputs=inputs, initial=initial, parameters=parameters,
                readout=test_history_forms.mixing, **state,
            )
        )  # fmt: skip
        return sol.output, sol.states.sin(), sol.final

    assert twice(solved, given)


def test_a_history_whose_pullback_has_no_parameters_says_so():
    class F:
        def __call__(self, y, u, p):
            return u + p.w * (np.tri(len(y), k=-1) @ y)

        def pull(self, y, u, g):
            return None

    class Pulled(F):
        def pull(self, y, u, g, p):
            return p.w * (np.tri(len(y), k=-1).T @ g), g

    u, w = drawn(4, 2), leaf(0.3)
    sol = solves(rs.Recurrence.from_history(Pulled(), inputs=u, parameters={"w": w}))
    with pytest.raises(TypeError, match="cotangents of y and u alone"):
        sol.states.sum().backward()
    sol = solves(rs.Recurrence.from_history(Pulled(), inputs=u, parameters={"w": w.detach()}))
    sol.states.sum().backward()
    assert u.grad.shape == u.shape


# Gathers ------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("name", "lanes"), test_gather.CASES)
def test_gradcheck_of_cells_that_gather(name, lanes):
    rec = test_gather.recurrence(name, lanes, T=3)
    cell, kinds = rec.cell.cell, {n: type(m) for n, m in rec.cell.mixings.items()}
    theta = {key: leaf(x) for key, x in rec.leaves().items() if x.dtype.kind == "f"}
    indices = {n: torch.from_numpy(np.array(rec.drive[n])) for n in cell.indices}

    def solved(*tensors):
        found = dict(zip(theta, tensors, strict=True))
        model = cell.with_weights(
            mixings={n: kinds[n](found["mixing", n]) for n in cell.mixings},
            parameters={n: found["parameter", n] for n in cell.parameters},
        )
        drive = {n: indices[n] if n in indices else found["drive", n] for n in cell.drives}
        moved = model.recurrence(
            drive=drive, initial=found["initial", None], readout=lambda s, u, p: s[cell.output] * 2
        )
        sol = solves(moved)
        return sol.output, sol.final

    assert twice(solved, tuple(theta.values()))


def test_solve_cell_takes_indices_beside_an_input():
    rec, rng = test_gather.recurrence("pointed", T=3), np.random.default_rng(0)
    cell, n = rec.cell.cell, test_gather.UNITS
    fixed = {f"drive.{name}": torch.from_numpy(np.array(rec.drive[name])) for name in cell.indices}
    moved = {"x": drawn(3, 2, 2)} | {f"mixing.{name}": leaf(m.weight) for name, m in rec.cell.mixings.items()}
    moved |= {f"parameter.{name}": leaf(p) for name, p in rec.cell.parameters.items()}
    moved |= {f"weight.{name}": leaf(rng.standard_normal((n, 2))) for name in cell.projected}
    moved |= {f"bias.{name}": leaf(rng.standard_normal(n)) for name in cell.projected}
    spec = CellSpec(cell, settings=METHOD)

    def solved(*tensors):
        return solve_cell(spec, fixed | dict(zip(moved, tensors, strict=True)))

    assert twice(solved, tuple(moved.values()))


def test_layers_and_solve_cell_refuse_cells_of_components_with_axes():
    cell = test_ragged_cells.CELLS["memory"]
    for make in (lambda: CellSpec(cell), lambda: rs.nn.Recurrent(cell, 3, test_ragged_cells.SIZES)):
        with pytest.raises(TypeError, match="memory, whose components have axes of their own"):
            make()
    with pytest.raises(TypeError, match="drive of pointed has names"):
        rs.nn.Recurrent(test_gather.CELLS["pointed"], 3, 4)


# Windows ------------------------------------------------------------------------------------------------------------


def gated(h, u, p):
    return np.tanh(p.a * h + u["x"])


def compare(make, given, every, shown=lambda sol: [sol.output, sol.final]):
    """Assert that gradients of a solve in windows are those of the whole, of output, ends and final state."""
    found = []
    for L in (None, every):
        tensors = {n: x.detach().clone().requires_grad_() for n, x in given.items()}
        rec = make(tensors)
        sol = solves(rec, every=L)
        rows = np.minimum(np.arange(0, rec.length, every) + every, rec.length) - 1
        ends = sol.states[rows] if L is None else sol.ends
        loss = sum(x.sin().sum() * (i + 1) for i, x in enumerate([*shown(sol), ends]))
        loss.backward()
        found.append({n: x.grad for n, x in tensors.items()})
    for n in given:
        torch.testing.assert_close(found[1][n], found[0][n], rtol=1e-9, atol=1e-11)


@pytest.mark.parametrize("cell", gallery.CELLS[::3], ids="-".join)
@pytest.mark.parametrize("every", [3, 20])
def test_windows_of_cells_give_the_gradients_of_the_whole(cell, every):
    model = gallery.weighted(*cell, units=4, channels=2, seed=3)
    rng = np.random.default_rng(0)
    theta = {key: leaf(x) for key, x in {**model.leaves(), **model.projection.leaves()}.items()}
    theta["input", 0] = leaf(rng.standard_normal((7, 2, 2)))
    theta["initial", None] = leaf(0.5 * rng.standard_normal((2, *model.layout.event)) + 0.1)
    reset = torch.from_numpy(rng.random((7, 2)) < 0.2)

    def make(t):
        P = model.projection
        moved = model.cell.with_weights(
            mixings={n: type(m)(t["mixing", n]) for n, m in model.mixings.items()},
            parameters={n: t["parameter", n] for n in model.parameters},
            projection=rs.Projection({n: t["weight", n] for n in P.weights}, {n: t["bias", n] for n in P.biases}),
        )
        return moved.recurrence(t["input", 0], initial=t["initial", None], reset=reset)

    compare(make, theta, every)


def test_windows_of_functions_and_ragged_cells_give_the_gradients_of_the_whole():
    rec = gallery.memory().window(0, 7)
    initial = rec.named(rec.initial)
    given = {"u": leaf(rec.inputs[0]), "W": leaf(rec.parameters.W), **{n: leaf(x) for n, x in initial.items()}}

    def make(t):
        return rs.Recurrence.from_function(
            rec.f, inputs=(t["u"],) if rec._container is tuple else t["u"], state=rec.state.axes,
            initial={n: t[n] for n in initial}, parameters={"W": t["W"]}, structure="dense", readout=rec.readout,
        )  # fmt: skip

    compare(make, given, 3)
    for name in test_ragged_cells.ALL:
        compare(lambda t, name=name: ragged(name, t), leaves_of_ragged(name, T=5), 2)


def test_a_solve_in_windows_is_one_node_that_is_checked_and_let_go():
    def solved(u, h, a):
        rec = rs.Recurrence.from_function(
            gated, inputs={"x": u}, initial=h, parameters={"a": a},
            structure="diagonal",
        )  # fmt: skip
        return solves(rec, every=2)

    given = drawn(5, 2), drawn(2), drawn(2)
    assert fast(lambda *t: (solved(*t).output, solved(*t).final), given)
    sol = solved(*given)
    assert sol.output.grad_fn is sol.final.grad_fn is sol.ends.grad_fn
    with torch.no_grad():
        plain = solved(*given)
    assert not plain.output.requires_grad
    for other in (pickle.loads(pickle.dumps(sol)), copy.copy(sol)):
        assert not other.output.requires_grad
    found = rs.adjoint(sol, output=2 * sol.output.detach())
    torch.testing.assert_close(
        found.inputs["x"], torch.autograd.grad(sol.output.square().sum(), given[0], retain_graph=True)[0]
    )
    (g,) = torch.autograd.grad(sol.output.sum(), given[0], create_graph=True)
    with pytest.raises(TypeError, match="second derivatives of a solve with every="):
        g.sum().backward()
    empty = solved(drawn(0, 2), *given[1:])
    torch.autograd.grad(empty.final.sum() + empty.output.sum(), given[1])
    u, *others = (x.detach() for x in given)
    with forward_ad.dual_level(), pytest.raises(TypeError, match="forward derivatives of a solve with every="):
        solved(forward_ad.make_dual(u, u), *others)
    bad = rs.Recurrence.from_function(lambda h, u: np.tanh(3 * h + u), inputs=given[0], initial=given[1])
    with pytest.raises(ValueError, match="fallback='sequential'"):
        rs.solve(bad, method="jacobi", maxiter=1, every=4).output.sum().backward()


def test_a_projected_lstm_in_windows_is_refused_by_name():
    module = torch.nn.LSTM(3, 4, proj_size=2).double()
    rec = rs.cells.LSTM.from_torch(module).recurrence(torch.ones(6, 1, 3, dtype=torch.float64))
    with pytest.raises(TypeError, match=r"every is given.*weight_hr"):
        rs.solve(rec, every=3)


@pytest.mark.gpu
@pytest.mark.parametrize("every", [None, 2])
@pytest.mark.parametrize("name", test_ragged_cells.ALL)
def test_gradients_of_ragged_cells_on_a_gpu_are_those_of_the_host(name, every):
    found = []
    for device in ("cpu", "cuda"):
        tensors = {n: x.detach().to(device).requires_grad_() for n, x in leaves_of_ragged(name, T=5).items()}
        sol = solves(ragged(name, tensors), every=every)
        twice = every is None
        first = torch.autograd.grad(
            sol.output.sin().sum() + sol.final.sum(), list(tensors.values()), create_graph=twice
        )
        second = torch.autograd.grad(sum(g.square().sum() for g in first), tensors["input", 0]) if twice else ()
        found.append([x.detach().cpu() for x in (*first, *second)])
    for there, here in zip(*found, strict=True):
        torch.testing.assert_close(there, here)

"""Solves and scans as nodes of torch's autograd: gradcheck over the registries, and what is linked to what."""

import copy
import gc
import pickle

import gallery
import numpy as np
import pytest
import torch
from test_mixings import made
from test_scan_adjoint import SEMIRINGS, problems
from torch.autograd import gradcheck, gradgradcheck

import recsolve as rs
from recsolve.base import links
from recsolve.interop.autograd import CellSpec, solve_cell

METHOD = {"method": "sequential", "fallback": "sequential"}


def leaf(x):
    return torch.tensor(np.array(x), requires_grad=True)


def tensors_of(cell):
    """Return the weights of a cell as tensors, by the names of ``solve_cell``."""
    found = {f"mixing.{n}": m.weight for n, m in cell.mixings.items()}
    found |= {f"parameter.{n}": p for n, p in cell.parameters.items()}
    found |= {f"weight.{n}": w for n, w in cell.projection.weights.items()}
    found |= {f"bias.{n}": b for n, b in cell.projection.biases.items()}
    return {name: leaf(x) for name, x in found.items()}


def as_spec(cell):
    return CellSpec(cell.cell, {n: type(m) for n, m in cell.mixings.items()}, METHOD)


def of_all(function, tensors):
    """Return a function of all numbers of several tensors in one, and these: a check costs a few calls then."""
    shapes = [x.shape for x in tensors]

    def one(numbers):
        parts = numbers.split([shape.numel() for shape in shapes])
        return function(*(x.reshape(shape) for x, shape in zip(parts, shapes, strict=True)))

    return one, (torch.cat([x.detach().ravel() for x in tensors]).requires_grad_(),)


def fast(function, tensors):
    return gradcheck(*of_all(function, tensors), fast_mode=True, eps=1e-6, atol=1e-6)


def twice(function, tensors):
    """Check first and second derivatives."""
    one, numbers = of_all(function, tensors)
    return fast(function, tensors) and gradgradcheck(one, numbers, fast_mode=True, eps=1e-6, atol=1e-5)


@pytest.mark.parametrize("cell", gallery.CELLS, ids="-".join)
def test_gradcheck_of_every_cell(cell):
    model = gallery.weighted(*cell, units=4, channels=2, seed=3)
    rng, spec = np.random.default_rng(0), as_spec(model)
    given = {"x": leaf(rng.standard_normal((3, 2, 2))), **tensors_of(model)}
    given["initial"] = leaf(0.5 * rng.standard_normal((2, *model.layout.event)) + 0.1)
    names, reset = list(given), torch.tensor([[False, False], [False, True], [False, False]])

    def both(*tensors):
        y, final = solve_cell(spec, {**dict(zip(names, tensors, strict=True)), "reset": reset})
        return torch.cat([y.sin().sum(dim=(0, 1)).ravel(), final.exp().ravel()])

    assert twice(both, tuple(given.values()))


def remade(mixing, weight):
    """Return a mixing with a tensor for its weight."""
    if isinstance(mixing, rs.mixings.Masked):
        return rs.mixings.Masked(remade(mixing.within, weight), torch.tensor(mixing.mask))
    if isinstance(mixing, rs.mixings.LowRank):
        r = mixing.rank
        d = weight[:, 2 * r] if weight.shape[1] > 2 * r else None
        return rs.mixings.LowRank(weight[:, :r], weight[:, r : 2 * r], d)
    if isinstance(mixing, rs.mixings.Permutation):
        return rs.mixings.Permutation(mixing.index, weight)
    if isinstance(mixing, rs.mixings.SharedHead):
        return rs.mixings.SharedHead(weight, mixing.heads)
    if isinstance(mixing, rs.mixings.Conv):
        return rs.mixings.Conv(weight, mixing.grid, mixing.boundary)
    return type(mixing)(weight)


# A gather has no weight; the entries of a sparse one come from SciPy.
TRAINED = [n for n, m in made().items() if not isinstance(m, (rs.mixings.Gather, rs.mixings.Sparse))]


@pytest.mark.parametrize("name", TRAINED)
def test_gradcheck_of_every_mixing(name):
    mixing, rng, cell = made()[name], np.random.default_rng(0), rs.cells.get("cho_gru")
    event = (*mixing.lanes, mixing.units)
    parameters = {n: np.full(event, 0.1) for n in cell.parameters}

    def solved(weight, *drives):
        moved = cell.with_weights(mixings={n: remade(mixing, weight) for n in cell.mixings}, parameters=parameters)
        return rs.solve(moved.recurrence(drive=dict(zip(cell.drives, drives, strict=True))), **METHOD).output

    drives = [leaf(rng.standard_normal((3, 2, *event))) for _ in cell.drives]
    assert twice(solved, (leaf(mixing.weight), *drives))


def test_gradcheck_of_named_states_parameters_and_a_readout():
    rec = gallery.memory().window(0, 4)
    u, initial = rec.inputs[0], rec.named(rec.initial)

    def memory(u, m, C, h, W):
        sol = rs.solve(
            rs.Recurrence.from_function(
                rec.f, inputs=u, state=rec.state.axes, initial={"m": m, "C": C, "h": h}, parameters={"W": W},
                structure="dense", readout=rec.readout,
            )
        )  # fmt: skip
        return sol.output, sol.named.C, sol.named_final.h, sol.final

    assert twice(memory, (leaf(u), leaf(initial.m), leaf(initial.C), leaf(initial.h), leaf(rec.parameters.W)))


def test_gradcheck_of_a_function_of_several_inputs_with_resets():
    rng = np.random.default_rng(0)
    reset, kind = torch.tensor([[0, 0], [0, 1], [0, 0], [1, 0]]).bool(), torch.tensor([0, 1, 1, 0])

    def f(h, u, p):
        return np.tanh(p.W * h + u["x"]) + np.where(u["kind"] == 1, 0.3, -0.1)[:, None, None] * u["y"][:, None]

    def solved(h, x, y, W):
        rec = rs.Recurrence.from_function(
            f, inputs={"x": x, "kind": kind, "y": y}, initial=h, parameters={"W": W}, structure="diagonal", reset=reset
        )
        return rs.solve(rec).states

    assert twice(solved, [leaf(rng.standard_normal(s)) for s in ((2, 3), (4, 2, 3), (4, 3), (3,))])


def test_gradcheck_of_a_graph_in_the_layout_of_its_nodes():
    rng, grid = np.random.default_rng(0), rs.graphs.grid((3, 2), directions=(-1, 1))

    def solved(u, h, W):
        rec = rs.Recurrence.from_graph(
            lambda h, u, p: np.tanh(h[0] @ p.W + 0.3 * h[1] + u), grid, inputs=u, initial=h, parameters={"W": W}
        )
        return rs.solve(rec).states.sin()

    assert twice(solved, [leaf(rng.standard_normal(s)) for s in ((3, 2, 2), (2,), (2, 2))])


def test_gradcheck_of_a_history():
    def F(y, u):
        before = np.concatenate([np.zeros_like(u[:1]), y[:-1]])
        return np.tanh(u + 0.5 * before * (np.tril(np.ones((len(u), len(u)))) @ before))

    def solved(u):
        return rs.solve(rs.Recurrence.from_history(F, inputs=u), method="jacobi", fallback="sequential").states

    assert twice(solved, (leaf(np.random.default_rng(0).standard_normal((5, 2))),))


def scan_of(monoid, elements, initial, **way):
    """Return a scan as a function of its initial state and elements, and these."""

    def scanned(initial, *elements):
        return rs.scan(monoid, elements, initial=initial, **way)

    return scanned, [leaf(initial), *map(leaf, elements)]


def test_gradcheck_of_every_scan():
    ways = {}, {"reset": torch.arange(4) == 2, "reverse": True}
    for monoid, elements, state in problems(4):
        unknown = monoid == "riccati" or (monoid in SEMIRINGS and elements[0].ndim == 4)
        for way in ways:
            scanned, tensors = scan_of(monoid, elements, state, **way)
            if not unknown:
                assert twice(scanned, tensors), monoid
                continue
            assert fast(scanned, tensors), monoid
            (first,) = torch.autograd.grad(scanned(*tensors).sin().sum(), tensors[0], create_graph=True)
            with pytest.raises(TypeError, match="second derivatives"):
                first.sum().backward()


@pytest.mark.parametrize(
    "form", ["matrices", "the same matrix at all times", "along the last axis", "one number a step"]
)
def test_gradcheck_of_affine_scans_of_every_form(form):
    rng, way = np.random.default_rng(0), {"reset": torch.arange(5) == 3}
    shapes = {
        "matrices": [(2, 3), (5, 2, 3, 3), (5, 2, 3)],
        "the same matrix at all times": [(2, 3), (1, 1, 3, 3), (5, 2, 3)],
        "along the last axis": [(2, 3), (2, 3, 5), (2, 3, 1)],
        "one number a step": [(), (5,), (5,)],
    }[form]
    way |= {"axis": 2, "reverse": True} if form == "along the last axis" else {}
    initial, *elements = (0.5 * rng.standard_normal(shape) for shape in shapes)
    assert twice(*scan_of("affine", elements, initial, **way))


def test_gradcheck_of_a_scan_without_an_initial_state():
    a, b = (leaf(np.random.default_rng(0).standard_normal((4, 2))) for _ in range(2))
    assert twice(lambda a, b: rs.scan("affine", (a, b)), (a, b))
    assert twice(lambda b: rs.scan("affine", (0.5, b), reset=torch.arange(4) == 1), (b,))


def test_complex_scans_are_differentiated_as_torch_does():
    rng = np.random.default_rng(0)
    a, b, h = (leaf(rng.standard_normal(s) + 1j * rng.standard_normal(s)) for s in ((5, 2), (5, 2), (2,)))
    assert gradcheck(lambda a, b, h: rs.scan("affine", (a, b), initial=h, axis=0), (a, b, h))


def test_both_ways_through_one_node_add_up_and_every_result_shares_it():
    model = torch.nn.LSTM(3, 4).double()
    x = torch.randn(6, 2, 3, dtype=torch.float64, requires_grad=True)
    sol = rs.solve(rs.cells.LSTM.from_torch(model).recurrence(x))
    assert sol.states.grad_fn is sol.output.grad_fn is sol.final.grad_fn
    y, (_, c) = model(x)
    ours = sol.output.sin().sum() + sol.named_final.c.exp().sum() + sol.named.c[2].sum()
    theirs = y.sin().sum() + c.exp().sum() + model(x[:3])[1][1].sum()
    wanted = torch.autograd.grad(theirs, (x, *model.parameters()))
    for found, known in zip(torch.autograd.grad(ours, (x, *model.parameters())), wanted, strict=True):
        torch.testing.assert_close(found, known)


def test_initial_states_by_name_and_ties_and_kinks():
    model = gallery.weighted("lstm", "dense", units=3, channels=2)
    x, h, c = (leaf(np.random.default_rng(i).standard_normal(s)) for i, s in enumerate(((4, 2, 2), (2, 3), (3,))))

    def solved(x, h, c):
        return rs.solve(model.recurrence(x, initial={"h": h, "c": c}), **METHOD).named_final.c

    assert twice(solved, (x, h, c))  # that of c is broadcast over sequences
    at_kink, u = leaf(np.zeros(2)), torch.zeros(3, 2, dtype=torch.float64)
    cell = rs.cells.get("elman_relu").with_weights(mixings={"h": rs.mixings.Diagonal(np.ones(2))})
    for share in (0.25, 1.0):
        sol = rs.solve(cell.recurrence(drive={"h": u}, initial=at_kink, ties=share))
        (g,) = torch.autograd.grad(sol.final.sum(), at_kink)
        assert g.tolist() == [share**3] * 2


def test_one_weight_in_two_places_gets_both_gradients():
    W, u = leaf(0.3 * np.eye(3)), torch.ones(5, 3, dtype=torch.float64)

    def solved(W):
        cell = rs.cells.GRU.with_weights(mixings={n: rs.mixings.Dense(W.T) for n in "rzn"}, parameters={"b_n": W[0]})
        return rs.solve(cell.recurrence(drive=dict.fromkeys("rzn", u))).output

    assert gradcheck(solved, (W,))


def test_members_of_an_ensemble_get_gradients():
    W, u = [leaf(0.3 * np.eye(3)), leaf(np.full((3, 3), 0.1))], torch.ones(4, 2, 3, dtype=torch.float64)

    def solved(*W):
        members = [rs.cells.get("elman").with_weights(mixings={"h": rs.mixings.Dense(w)}) for w in W]
        return rs.solve(rs.cells.ensemble(members).recurrence(drive={"h": u})).output

    assert gradcheck(solved, W)


def elman(W, x, **given):
    return rs.cells.get("elman").with_weights(mixings={"h": rs.mixings.Dense(W)}).recurrence(drive={"h": x}, **given)


def test_nothing_is_recorded_without_need():
    W, x = leaf(0.3 * np.eye(2)), torch.ones(5, 2, dtype=torch.float64)
    for context in (torch.no_grad(), torch.inference_mode()):
        with context:
            sol = rs.solve(elman(W, x))
            assert not any(x.requires_grad for x in (sol.states, sol.output, sol.final))
            assert not rs.scan("affine", (leaf(np.ones(3)), leaf(np.ones(3)))).requires_grad
    assert not rs.solve(elman(W.detach(), x)).states.requires_grad
    assert isinstance(rs.solve(elman(W, x.numpy())).states, np.ndarray)
    assert rs.solve(elman(W, x)).states.requires_grad  # though the cell may have been made elsewhere
    with torch.no_grad():
        rec = elman(W, x, initial=leaf(np.ones(2)))
    assert rs.solve(rec).states.requires_grad
    sol = rs.solve(rec)
    with torch.no_grad():
        assert sol.states.requires_grad  # what counts is where it was solved


def test_layers_of_cells_of_a_live_module_record_nothing():
    module = torch.nn.GRU(3, 4)
    sol = rs.Layers([[rs.cells.GRU.from_torch(module)]]).solve(torch.ones(6, 2, 3))
    assert not sol.output.requires_grad
    torch.testing.assert_close(sol.output, module(torch.ones(6, 2, 3))[0].detach())


def test_what_cannot_go_back_is_refused_and_named():
    W, x = leaf(0.3 * np.eye(2)), leaf(np.ones((5, 2)))
    bad = rs.solve(elman(W, x), method="jacobi", maxiter=1)
    with pytest.raises(ValueError, match=r"maxiter.*fallback='sequential'"):
        bad.output.sum().backward()
    with pytest.raises(TypeError, match=r"drive h was computed .*torch.no_grad"):
        rs.solve(elman(W, x).window(1, 3))
    history = rs.Recurrence.from_history(lambda y, u: 0.5 * np.cumsum(y, axis=0) - 0.5 * y + u, inputs=x)
    with pytest.raises(TypeError, match="input 0 was computed"):
        rs.solve(history.window(0, 3), method="jacobi")
    graph = rs.Recurrence.from_graph(lambda h, u: h[0] * u, rs.graphs.grid(5), inputs=x, initial=x[0].detach())
    with pytest.raises(TypeError, match="input 0 was computed"):
        rs.solve(graph.between(1, 3, np.ones((5, 2))))
    with pytest.raises(TypeError, match="input 0 was computed"):
        rs.solve(history.astype(np.float32), method="jacobi")
    cell = elman(W, x).cell
    with pytest.raises(TypeError, match="mixing h was computed"):
        rs.solve(cell.map(lambda w: 2 * w).recurrence(drive={"h": x.detach()}))
    with pytest.raises(TypeError, match="requires grad"):
        rs.adjoint(rs.solve(elman(W, x)), states=x)
    kept = rs.solve(elman(W, x))
    with torch.no_grad():
        W.mul_(0.5)
    with pytest.raises(ValueError, match="mixing h was changed in place"):
        rs.solve(cell.recurrence(drive={"h": x}))
    with pytest.raises(RuntimeError, match="modified by an inplace operation"):
        kept.states.sum().backward()
    other = rs.solve(elman(W, x))
    with torch.no_grad():
        other.final.zero_()
    with pytest.raises(RuntimeError, match="modified by an inplace operation"):
        other.states.sum().backward()


@pytest.mark.parametrize("device", ["cpu", pytest.param("cuda", marks=pytest.mark.gpu)])
@pytest.mark.parametrize("every", [None, 2])
@pytest.mark.parametrize("trained", ["W", "x", "initial"])
def test_what_has_no_gradient_may_not_change_before_the_backward_either(every, trained, device):
    for changed in {"W", "x"} - {trained}:  # an initial state is copied
        given = {
            "W": torch.tensor(0.3 * np.eye(3), device=device),
            "x": torch.ones(5, 2, 3, device=device).double(),
            "initial": torch.ones(3, device=device).double(),
        }
        given[trained].requires_grad_()
        sol = rs.solve(elman(given["W"], given["x"], initial=given["initial"]), every=every)
        sol.output.sum().backward(retain_graph=True)
        with torch.no_grad():
            given[changed].mul_(0.5)
        with pytest.raises(RuntimeError, match="modified by an inplace operation"):
            sol.output.sum().backward()


@pytest.mark.parametrize("kind", ["mask", "permutation", "gather"])
def test_masks_and_indices_are_kept_as_they_were(kind):
    W, x = leaf(np.full((3, 3), 0.1)), leaf(np.arange(12.0).reshape(4, 3))
    constant = torch.ones(3, 3, dtype=torch.bool) if kind == "mask" else torch.tensor([1, 2, 0])
    mixing = {
        "mask": lambda: rs.mixings.Masked(rs.mixings.Dense(W), constant),
        "permutation": lambda: rs.mixings.Permutation(constant, W[0]),
        "gather": lambda: rs.mixings.Gather(constant),
    }[kind]()
    y = rs.solve(rs.cells.get("elman").with_weights(mixings={"h": mixing}).recurrence(drive={"h": x})).output
    (before,) = torch.autograd.grad(y.sum(), x, retain_graph=True)
    constant.zero_()
    (after,) = torch.autograd.grad(y.sum(), x)
    assert torch.equal(before, after)


@pytest.mark.parametrize("name", TRAINED)
def test_transposes_of_trained_mixings_are_refused(name):
    mixing, cell = made()[name], rs.cells.get("elman")
    trained = remade(mixing, leaf(mixing.weight))
    drive = {"h": torch.ones(3, 2, *mixing.lanes, mixing.units).double()}
    for other in (trained.transpose(), trained.hadamard_transpose(trained)):
        if other is not trained:
            with pytest.raises(TypeError, match="mixing h was computed of a tensor"):
                rs.solve(cell.with_weights(mixings={"h": other}).recurrence(drive=drive))


def test_tensors_on_two_devices_are_refused_by_name():
    x, h = torch.ones(5, 2), torch.ones(2, device="meta")
    with pytest.raises(TypeError, match="initial is on meta, inputs is on cpu"):
        rs.Recurrence.from_function(lambda h, u: h + u, inputs=x, initial=h)
    with pytest.raises(TypeError, match="x is on cpu, initial is on meta"):
        rs.cells.get("elman").random(input_size=2, hidden_size=2, dtype="float32").recurrence(x, initial=h)


@pytest.mark.parametrize("T", [0, 1])
def test_short_and_empty_sequences(T):
    W, x, h = leaf(0.3 * np.eye(2)), leaf(np.ones((T, 3, 2))), leaf(np.ones((3, 2)))
    sol = rs.solve(elman(W, x, initial=h))
    (sol.output.sum() + sol.final.sum()).backward()
    assert (x.grad.shape, h.grad.shape) == (x.shape, h.shape)
    assert bool((h.grad == 1).all()) == (T == 0)


def test_states_and_weights_keep_their_memory_apart():
    """Gradients may be added to in place: none is a view of another."""
    a, b = leaf(np.full(2, 0.5)), leaf(np.full(2, 0.5))
    x = leaf(np.ones((5, 2)))
    cell = rs.cells.get("gru").with_weights(
        mixings={n: rs.mixings.Diagonal(w) for n, w in zip("rzn", (a, b, b), strict=True)}, parameters={"b_n": a}
    )
    rs.solve(cell.recurrence(drive=dict.fromkeys("rzn", x))).output.sum().backward()
    known = x.grad.clone()
    for g in (a.grad, b.grad):
        g += 1
    assert torch.equal(x.grad, known)


def test_solutions_and_recurrences_of_linked_tensors_pickle_and_are_let_go():
    gc.collect()
    before = set(links._LINKS)
    W, x = leaf(0.3 * np.eye(2)), leaf(np.ones((5, 2)))
    sol = rs.solve(elman(2 * W, 2 * x))
    sol.states.sum().backward()
    for back in (pickle.loads(pickle.dumps(sol)), copy.deepcopy(sol)):
        assert not back.states.requires_grad
        torch.testing.assert_close(back.states, sol.states.detach())
    assert len(links._LINKS) == len(before) + 2
    del sol, back
    assert set(links._LINKS) == before


def test_an_lstm_with_a_projection_trains_it():
    model = torch.nn.LSTM(3, 4, proj_size=2).double()
    x = torch.randn(6, 2, 3, dtype=torch.float64, requires_grad=True)
    sol = rs.solve(rs.cells.LSTM.from_torch(model).recurrence(x))
    wanted = torch.autograd.grad(model(x)[0].sin().sum(), (x, *model.parameters()))
    for found, known in zip(torch.autograd.grad(sol.output.sin().sum(), (x, *model.parameters())), wanted, strict=True):
        torch.testing.assert_close(found, known)

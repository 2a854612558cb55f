"""solve_cell: what layers call, under torch.compile, torch.func, autocast and with clamped adjoints."""

import copy
import gc
import pickle
import weakref

import numpy as np
import pytest
import torch
from torch.func import functional_call, grad, hessian, jacfwd, jacrev, jvp, vmap

import recsolve as rs
from recsolve.interop import autograd_ops
from recsolve.interop.autograd import CellSpec, solve_cell

METHOD = {"method": "newton"}


class Layer(torch.nn.Module):
    """A GRU or LSTM of the tests: an input projection and mixings of one kind."""

    def __init__(self, cell="gru", d=3, n=4, mixing="dense", dtype=torch.float64, **given):
        super().__init__()
        generator = torch.Generator().manual_seed(0)
        self.spec, definition = CellSpec(cell, settings=METHOD, **given), rs.cells.get(cell)

        def draw(*shape):
            return torch.nn.Parameter((0.5 * torch.randn(shape, generator=generator, dtype=torch.float64)).to(dtype))

        names = {f"weight.{g}": (n, d) for g in definition.drives} | {f"bias.{g}": (n,) for g in definition.drives}
        names |= {f"mixing.{g}": (n, n) if mixing == "dense" else (n,) for g in definition.mixings}
        names |= {f"parameter.{g}": (n,) for g in definition.parameters}
        self.names = tuple(names)
        self.weights = torch.nn.ParameterList([draw(*shape) for shape in names.values()])

    def forward(self, x, initial=None, reset=None):
        known = dict(zip(self.names, self.weights, strict=True))
        return solve_cell(self.spec, {"x": x, "initial": initial, "reset": reset, **known})


def draw(*shape, seed=0):
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


@pytest.fixture
def layer():
    return Layer()


@pytest.mark.parametrize(("cell", "mixing"), [("gru", "dense"), ("lstm", "diagonal")])
def test_compiled_models_have_no_graph_break_and_the_same_gradients(cell, mixing):
    torch._dynamo.reset()
    first, last = Layer(cell, mixing=mixing), torch.nn.Linear(4, 2).double()

    def model(x, h):
        y, final = first(x.tanh(), initial=h, reset=torch.arange(6) == 3)
        return last(y).sum() + final.square().sum()

    h = draw(*((2, 2, 4) if cell == "lstm" else (2, 4)))
    compiled = torch.compile(model, fullgraph=True, backend="aot_eager")
    for x in (draw(6, 2, 3), draw(2, 6, 3).transpose(0, 1)):  # also batch-first in memory
        given = [leaf.clone().requires_grad_() for leaf in (x, h)]
        found = torch.autograd.grad(compiled(*given), [*given, *first.parameters()])
        wanted = torch.autograd.grad(model(*given), [*given, *first.parameters()])
        for a, b in zip(found, wanted, strict=True):
            torch.testing.assert_close(a, b)


def test_operations_keep_the_rules_of_torch_library(layer):
    tensors = [draw(5, 2, 3).requires_grad_(), *(w.detach().clone().requires_grad_() for w in layer.weights)]
    names = ",".join(("x", *layer.names))
    tests = ("test_schema", "test_autograd_registration", "test_faketensor")
    torch.library.opcheck(autograd_ops._solve, (tensors, names, layer.spec.key), test_utils=tests)
    plain = [x.detach() for x in tensors]
    states, met = autograd_ops._solve(plain, names, layer.spec.key)
    needed = [True, *(i % 2 == 0 for i in range(len(layer.names)))]
    args = (torch.ones_like(states), states, met, plain, names, layer.spec.key, needed)
    torch.library.opcheck(autograd_ops._pull, args, test_utils=("test_schema", "test_faketensor"))


def test_gradients_of_torch_func_are_those_of_autograd(layer):
    x, params = draw(6, 2, 3), {k: v.detach() for k, v in layer.named_parameters()}

    def loss(params, x):
        return functional_call(layer, params, (x,)).output.sin().sum()

    wanted = torch.autograd.grad(layer(x).output.sin().sum(), list(layer.parameters()))
    for found, known in zip(grad(loss)(params, x).values(), wanted, strict=True):
        torch.testing.assert_close(found, known)


def test_samples_are_mapped_over_beside_the_sequences(layer):
    many, h = draw(5, 4, 2, 3), draw(5, 4)
    solves = []
    layer.spec = CellSpec("gru", settings=METHOD, observe=solves.append)
    y, final = vmap(lambda x, h: layer(x, initial=h))(many, h)
    assert len(solves) == 1
    for i in range(5):
        torch.testing.assert_close((y[i], final[i]), tuple(layer(many[i], initial=h[i])))
    reset = torch.arange(4) % 2 == torch.arange(5)[:, None] % 2
    found = vmap(lambda x, reset: layer(x, reset=reset).output, in_dims=(None, 0))(many[0], reset)
    for i in range(5):
        torch.testing.assert_close(found[i], layer(many[0], reset=reset[i]).output)


@pytest.mark.parametrize("dims", [(None, 0), (0, None), (0, 0)])
def test_gradients_of_every_sample_and_of_every_member_of_an_ensemble(layer, dims):
    params = {k: v.detach() for k, v in layer.named_parameters()}
    several = {k: torch.stack([v * (1 + 0.1 * i) for i in range(3)]) for k, v in params.items()}
    x, xs = draw(4, 2, 3), draw(3, 4, 2, 3, seed=1)

    def loss(params, x):
        return functional_call(layer, params, (x,)).output.sin().sum()

    given = (params if dims[0] is None else several, x if dims[1] is None else xs)
    found = vmap(grad(loss, argnums=(0, 1)), in_dims=dims)(*given)
    for i in range(3):
        one = params if dims[0] is None else {k: v[i] for k, v in several.items()}
        weights, inputs = grad(loss, argnums=(0, 1))(one, x if dims[1] is None else xs[i])
        torch.testing.assert_close(found[1][i], inputs)
        for k, known in weights.items():
            torch.testing.assert_close(found[0][k][i], known)


def test_products_with_second_derivatives(layer):
    x, v = draw(3, 2, 3), draw(3, 2, 3, seed=1)
    f = lambda x: layer(x).output.sin().sum() + layer(x).final.exp().sum()  # noqa: E731
    H = torch.autograd.functional.hessian(f, x)
    product = (H * v).sum(dim=(3, 4, 5))
    near = (grad(f)(x + 1e-5 * v) - grad(f)(x - 1e-5 * v)) / 2e-5
    torch.testing.assert_close(product, near, rtol=1e-6, atol=1e-8)
    torch.testing.assert_close(torch.autograd.functional.hvp(f, x, v)[1], product)
    torch.testing.assert_close(grad(lambda x: (grad(f)(x) * v).sum())(x), product)
    for way in (lambda f: jacrev(jacrev(f)), lambda f: jacfwd(jacrev(f)), lambda f: jacrev(jacfwd(f))):
        torch.testing.assert_close(way(f)(x[:1]), torch.autograd.functional.hessian(f, x[:1]))
    leaf = x.clone().requires_grad_()
    assert torch.autograd.gradgradcheck(f, leaf, check_fwd_over_rev=True, fast_mode=True)


def test_mixed_derivatives_by_what_an_inner_transform_does_not_need(layer):
    x, v, params = draw(3, 2, 3), draw(3, 2, 3, seed=1), {k: p.detach() for k, p in layer.named_parameters()}

    def by_weights(x):
        return grad(lambda p: functional_call(layer, p, (x,)).output.sin().sum())(params)["weights.0"]

    near = (by_weights(x + 1e-5 * v) - by_weights(x - 1e-5 * v)) / 2e-5
    torch.testing.assert_close(jvp(by_weights, (x,), (v,))[1], near, rtol=1e-6, atol=1e-8)
    torch.testing.assert_close((jacrev(by_weights)(x) * v).sum(dim=(2, 3, 4)), near, rtol=1e-6, atol=1e-8)


def test_forward_derivatives_are_tangents(layer):
    x, v = draw(4, 2, 3), draw(4, 2, 3, seed=1)
    (y, final), (dy, dfinal) = jvp(lambda x: tuple(layer(x)), (x,), (v,))
    near = (layer(x + 1e-6 * v).output - layer(x - 1e-6 * v).output) / 2e-6
    torch.testing.assert_close(dy, near, rtol=1e-6, atol=1e-8)
    torch.testing.assert_close((y, final, dfinal), (*layer(x), dy[-1]))
    a, b = draw(4, 2).requires_grad_(), draw(4, 2, seed=1).requires_grad_()
    assert torch.autograd.gradcheck(lambda a, b: rs.scan("affine", (a, b)), (a, b), check_forward_ad=True)
    model, x = rs.cells.get("lstm").random(input_size=3, hidden_size=4, rng=0), x.requires_grad_()
    solved = lambda x: rs.solve(model.recurrence(x)).named.c  # noqa: E731
    assert torch.autograd.gradcheck(solved, x, check_forward_ad=True, fast_mode=True)


def test_third_derivatives_are_refused(layer):
    x = draw(3, 2, 3).requires_grad_()
    (first,) = torch.autograd.grad(layer(x).output.sin().sum(), x, create_graph=True)
    (second,) = torch.autograd.grad(first.square().sum(), x, create_graph=True)
    with pytest.raises(TypeError, match="third derivatives"):
        second.sum().backward()
    f = lambda x: layer(x).output.sin().sum()  # noqa: E731
    for way in (lambda f: grad(lambda x: hessian(f)(x).sum()), lambda f: jacfwd(hessian(f))):
        with pytest.raises(TypeError, match=r"third derivatives|forward derivative"):
            way(f)(x.detach()[:1])
    with pytest.raises(TypeError, match="jacfwd"):
        jacfwd(jacfwd(f))(x.detach()[:1])


def test_recurrences_under_torch_func_are_refused_with_advice():
    cell, x = rs.cells.get("gru").random(input_size=3, hidden_size=4, rng=0), draw(2, 4, 2, 3)
    for way in (grad(lambda x: rs.solve(cell.recurrence(x)).output.sum()), vmap(lambda x: cell.recurrence(x))):
        with pytest.raises(TypeError, match=r"x is a tensor under torch.func, .* take recsolve.interop.autograd"):
            way(x)


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_halves_are_solved_in_float32_and_returned_as_they_came(dtype):
    module, x = Layer(dtype=dtype), draw(7, 2, 3).to(dtype)
    solves = []
    module.spec = CellSpec("gru", settings=METHOD, observe=solves.append)
    y, final = module(x)
    assert (y.dtype, final.dtype, solves[0].recurrence.dtype) == (dtype, dtype, np.float32)
    y.sum().backward()
    assert all(p.grad.dtype == dtype and bool(p.grad.isfinite().all()) for p in module.parameters())
    exact = copy.deepcopy(module).double()
    torch.testing.assert_close(exact(x.double()).output.to(dtype), y)


def test_autocast_returns_what_torch_returns():
    module, theirs = Layer(dtype=torch.float32), torch.nn.GRU(3, 4)
    for x in (draw(5, 2, 3).float(), draw(5, 2, 3).bfloat16()):
        with torch.autocast("cpu", dtype=torch.bfloat16):
            y, final = module(x)
            known = theirs(x)
        assert (y.dtype, final.dtype) == (known[0].dtype, known[1].dtype)
    with pytest.raises(TypeError, match=r"x is torch.bfloat16, weight.r is torch.float32.*torch.autocast"):
        module(x)
    with torch.autocast("cpu", dtype=torch.bfloat16), pytest.raises(TypeError, match="dtypes are mixed"):
        module(x.double())


def clamped_loop(cell, x, c, clamp):
    """Return the gradients of <c, states>, the adjoint variables limited at every step of a literal loop."""
    rec = cell.recurrence(x)
    states = rs.solve(rec, method="sequential").states
    J = rec.differentiate(rec.previous(states))[1].todense()
    g, after = np.zeros_like(states), np.zeros(states.shape[1:])
    for t in reversed(range(len(states))):
        g[t] = np.clip(c[t] + after, -clamp, clamp)
        after = np.einsum("bij,bi->bj", J[t], g[t])
    return g


def test_adjoint_variables_are_limited_step_by_step():
    rng = np.random.default_rng(0)
    cell = rs.cells.get("elman").random(input_size=3, hidden_size=4, gain=4.0, rng=0)
    x, c = rng.standard_normal((30, 2, 3)), rng.standard_normal((30, 2, 4))
    sol = rs.solve(cell.recurrence(x), method="sequential")
    free = rs.adjoint(sol, states=c).states
    limit = float(np.quantile(abs(free), 0.9))
    np.testing.assert_allclose(
        rs.adjoint(sol, states=c, clamp=limit).states, clamped_loop(cell, x, c, limit), atol=1e-12
    )
    np.testing.assert_allclose(rs.adjoint(sol, states=c, clamp=1e9).states, free, atol=1e-12)
    assert abs(free).max() > 1.5 * limit
    for bad in (0, -1.0, "a", True, np.nan):
        with pytest.raises(ValueError, match=r"clamp is .*; wanted a number above 0"):
            rs.adjoint(sol, states=c, clamp=bad)
    module = Layer(cell="elman", mixing="diagonal", clamp=1e-3)
    module(torch.tensor(x)).output.sum().backward()
    assert float(module.weights[1].grad.abs().max()) <= 60 * 1e-3
    (first,) = torch.autograd.grad(module(torch.tensor(x)).output.sum(), module.weights[0], create_graph=True)
    with pytest.raises(TypeError, match="clamp is given"):
        first.sum().backward()


def test_what_was_not_met_is_completed_or_refused():
    seen = []
    module = Layer(cell="elman")
    module.spec = CellSpec("elman", settings={"method": "jacobi", "maxiter": 1}, observe=seen.append)
    y = module(draw(9, 2, 3)).output
    assert seen[0].success
    assert seen[0].stats["completed_from"] is not None
    y.sum().backward()
    module.spec = CellSpec("elman", settings={"method": "jacobi", "maxiter": 1, "fallback": "none"})
    with pytest.raises(ValueError, match="not converged"):
        module(draw(9, 2, 3)).output.sum().backward()


def test_drives_are_kept_or_projected_anew(layer, monkeypatch):
    made, x = [], draw(4, 2, 3)
    real = autograd_ops.recurrence_of
    monkeypatch.setattr(autograd_ops, "recurrence_of", lambda *args: made.append(1) or real(*args))
    found = []
    for spec in (layer.spec, CellSpec("gru", settings=METHOD, recompute=True)):
        layer.spec = spec
        found.append(torch.autograd.grad(layer(x).output.sum(), list(layer.parameters())))
    assert len(made) == 3
    for a, b in zip(*found, strict=True):
        torch.testing.assert_close(a, b, rtol=0, atol=0)


def test_specifications_copy_and_pickle_and_must_live(layer):
    y = Layer()(draw(4, 2, 3)).output  # a node keeps its own
    gc.collect()
    y.sum().backward()
    for other in (copy.deepcopy(layer), pickle.loads(pickle.dumps(layer))):
        assert other.spec.key != layer.spec.key
        torch.testing.assert_close(other(draw(4, 2, 3)).output, layer(draw(4, 2, 3)).output)
    with pytest.raises(RuntimeError, match="CellSpec none-0 is gone"):
        autograd_ops._solve([draw(3)], "x", "none-0")


@pytest.mark.parametrize("T", [0, 1])
@pytest.mark.parametrize("batch", [(), (0,), (2, 2)])
def test_shapes_of_few_steps_and_sequences(layer, T, batch):
    x = draw(T, *batch, 3).requires_grad_()
    y, final = layer(x, initial=draw(4))
    assert (y.shape, final.shape) == ((T, *batch, 4), (*batch, 4))
    (y.sum() + final.sum()).backward()
    assert x.grad.shape == x.shape


@pytest.mark.parametrize("shape", [(4,), (4, 4), (2, 3, 3)])
@pytest.mark.parametrize("name", ["gru", "lstm"])
def test_lanes_are_seen_from_mixings_where_drives_are_given(name, shape):
    definition, event = rs.cells.get(name), shape[:1] if len(shape) < 3 else shape[:2]
    tensors = {f"mixing.{n}": 0.3 * draw(*shape) for n in definition.mixings}
    tensors |= {f"drive.{n}": draw(5, 2, *event) for n in definition.drives}
    parameters = {n: torch.zeros(event, dtype=torch.float64) for n in definition.parameters}
    y, final = solve_cell(CellSpec(name), tensors | {f"parameter.{n}": p for n, p in parameters.items()})
    kinds = rs.mixings.Diagonal, rs.mixings.Dense, rs.mixings.Heads
    mixings = {n: kinds[len(shape) - 1](tensors[f"mixing.{n}"]) for n in definition.mixings}
    cell = definition.with_weights(mixings=mixings, parameters=parameters)
    sol = rs.solve(cell.recurrence(drive={n: tensors[f"drive.{n}"] for n in definition.drives}))
    torch.testing.assert_close((y, final), (sol.output, sol.final))


def test_bad_tensors_are_named(layer):
    u = draw(4, 2, 3)
    for tensors, message in (
        ({"y": u}, r"tensors has 'y'; wanted some of x, initial"),
        ({"x": u, "weight.r": draw(4, 3)}, "weights of"),
        ({"reset": torch.ones(3, dtype=torch.bool)}, "wanted x or drive.NAME"),
        ({"mixing.r": draw(4, 4)}, "wanted x or drive.NAME"),
        ({"drive.r": u, "mixing.r": draw(3, 3), "mixing.z": draw(3, 3), "mixing.n": draw(3, 3)}, "parameters of gru"),
    ):
        with pytest.raises(ValueError, match=message):
            solve_cell(layer.spec, tensors)
    with pytest.raises(TypeError, match=r"x is on cpu, mixing.r is on meta"):
        solve_cell(layer.spec, {"x": u, "mixing.r": draw(4, 4).to("meta")})
    with pytest.raises(ValueError, match=r"give CellSpec\(event"):
        solve_cell(CellSpec("elman", {"h": rs.mixings.Dense}), {"drive.h": u, "mixing.h": draw(3, 3)})
    spec = CellSpec("elman", {"h": lambda w: rs.mixings.SharedHead(w, 2)}, event=(2, 3))
    assert solve_cell(spec, {"drive.h": draw(4, 2, 3), "mixing.h": draw(3, 3)}).final.shape == (2, 3)


@pytest.mark.gpu
@pytest.mark.parametrize("mixing", ["dense", "diagonal"])
@pytest.mark.parametrize("cell", ["gru", "lstm"])
def test_first_and_second_derivatives_on_a_gpu_are_those_of_the_host(cell, mixing):
    here, x, v = Layer(cell, mixing=mixing), draw(9, 2, 3), draw(9, 2, 3, seed=1)
    there = copy.deepcopy(here).cuda()

    def product(layer, x, v):
        def loss(x, *weights):
            known = dict(zip(layer.names, weights, strict=True))
            return solve_cell(layer.spec, {"x": x, **known}).output.sin().sum()

        given = [x, *layer.weights]
        leaves = [leaf.detach().clone().requires_grad_() for leaf in given]
        first = torch.autograd.grad(loss(*leaves), leaves, create_graph=True)
        return [*first, *torch.autograd.grad((first[0] * v).sum() + first[-1].square().sum(), leaves)]

    for found, known in zip(product(there, x.cuda(), v.cuda()), product(here, x, v), strict=True):
        torch.testing.assert_close(found.cpu(), known)
    with torch.no_grad():
        assert not there(x.cuda()).output.requires_grad


@pytest.mark.gpu
def test_a_solve_of_cuda_tensors_records_a_node():
    module, x = torch.nn.GRU(3, 4).double().cuda(), draw(9, 2, 3).cuda().requires_grad_()
    sol = rs.solve(rs.cells.GRU.from_torch(module).recurrence(x))
    found = torch.autograd.grad(sol.output.sin().sum() + sol.final.sum(), [x, *module.parameters()])
    y, h = module(x)
    wanted = torch.autograd.grad(y.sin().sum() + h.sum(), [x, *module.parameters()])
    for a, b in zip(found, wanted, strict=True):
        torch.testing.assert_close(a, b)
    a, b = (leaf.cuda().requires_grad_() for leaf in (draw(5, 2), draw(5, 2, seed=1)))
    assert torch.autograd.gradcheck(lambda a, b: rs.scan("affine", (a, b)), (a, b))
    assert torch.autograd.gradgradcheck(lambda a, b: rs.scan("affine", (a, b)), (a, b))


def test_nothing_of_a_run_is_kept_after_its_backward(monkeypatch):
    """A loss that is kept to be logged holds its nodes, which must not hold the drives of all steps."""
    made, make = [], autograd_ops.recurrence_of

    def noted(*given):
        recurrence = make(*given)
        made.append(weakref.ref(recurrence))
        return recurrence

    monkeypatch.setattr(autograd_ops, "recurrence_of", noted)
    u, a = torch.ones(9, 2, 4), torch.full((4,), 0.5, requires_grad=True)
    loss = solve_cell(CellSpec("elman"), {"drive.h": u, "mixing.h": a}).output.sum()
    loss.backward()
    gc.collect()
    assert len(made) == 1  # the way back takes that of the run
    assert made[0]() is None
    assert loss.grad_fn is not None


def test_releases_of_torch_that_do_not_tell_of_packing_take_the_way_back_too(monkeypatch):
    """Before 2.8 there is no such function; ``recsolve[torch]`` takes releases from 2.4 on."""

    def gradient():
        u, a = torch.ones(9, 2, 4), torch.full((4,), 0.5, requires_grad=True)
        return torch.autograd.grad(solve_cell(CellSpec("elman"), {"drive.h": u, "mixing.h": a}).output.sum(), a)[0]

    wanted = gradient()
    monkeypatch.delattr(torch._C._autograd, "_top_saved_tensors_default_hooks")
    assert torch.equal(gradient(), wanted)

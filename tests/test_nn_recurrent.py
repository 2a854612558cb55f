"""recsolve.nn.Recurrent: layers of any cell and mixing; what layers count, and what keeps their solves short."""

import copy
import dataclasses
import pickle

import numpy as np
import pytest

import recsolve as rs
from recsolve.math import sigmoid, tanh, total

torch = pytest.importorskip("torch")
prune = pytest.importorskip("torch.nn.utils.prune")
torch.set_num_threads(1)  # what is computed here is small

T, B, D, N = 12, 4, 3, 8


def highway(s, W, u, p):
    """A cell of a user's own."""
    f = sigmoid(W.f(s.h) + u.f + p.b)
    return f * s.h + (1 - f) * tanh(W.h(s.h) + u.h)


HIGHWAY = rs.Cell(highway, state=("h",), output="h")


def conv(draw):
    return rs.mixings.Conv(draw((3, 3, 2, 2)), grid=(2, 2))


def masked(draw):
    return rs.mixings.Masked(rs.mixings.Dense(draw((N, N))), np.tri(N, dtype=bool))


def low_rank(draw):
    return rs.mixings.LowRank(draw((N, 2)), draw((N, 2)))


def layer(cell, *, seed=0, **options):
    torch.manual_seed(seed)
    return rs.nn.Recurrent(cell, D, N, **{"dtype": torch.float64, **options})


def data(steps=T, dtype=torch.float64, first=False):
    rng = torch.Generator().manual_seed(1)
    return torch.randn(*((B, steps) if first else (steps, B)), D, dtype=dtype, generator=rng)


def by_hand(module, x, name):
    """Return the states of one direction by the sequential loop of its cell, on NumPy arrays."""
    weights = {key: p.detach().numpy() for key, p in module._modules[name].named_parameters()}
    direction, lanes = module._modules[name](), module._modules[name].event
    made = module.cell.with_weights(
        mixings={n: direction.mixings[n](torch.tensor(weights[f"mixing_{n}"])) for n in module.cell.mixings},
        parameters={n: weights[f"parameter_{n}"] for n in module.cell.parameters},
        hidden_size=N,
    )
    rows = x.numpy() @ weights["weight_ih"].T + weights["bias_ih"]
    drives = rows.reshape(*x.shape[:-1], len(direction.drives), *lanes)
    drive = {n: np.ascontiguousarray(drives[:, :, i]) for i, n in enumerate(direction.drives)}
    mixings = {n: type(m)(m.weight) if type(m) in PLAIN else m for n, m in made.mixings.items()}
    made = rs.WeightedCell(module.cell, mixings, made.parameters, None, N)
    return rs.solve(made.recurrence(drive=drive), method="sequential")


PLAIN = (rs.mixings.Dense, rs.mixings.Diagonal, rs.mixings.Heads)


@pytest.mark.parametrize("mixing", ["dense", "diagonal", "heads", conv, masked, low_rank])
@pytest.mark.parametrize("cell", [*rs.cells.REGISTRY, HIGHWAY], ids=str)
@pytest.mark.sample(every=2)
def test_every_cell_is_solved_as_its_loop_and_differentiated(cell, mixing):
    module, x = layer(cell, mixing=mixing, bidirectional=True), data().requires_grad_()
    y, final = module(x)
    for reverse, suffix in enumerate(("", "_reverse")):
        sol = by_hand(module, (x.flip(0) if reverse else x).detach(), f"{module.cell.name}_l0{suffix}")
        shown = sol.output.reshape(T, B, N)[:: -1 if reverse else 1].copy()
        assert np.allclose(y[..., reverse * N : (reverse + 1) * N].detach(), shown, rtol=1e-11, atol=1e-12)
        ends = final if isinstance(final, tuple) else (final,)
        for name, end in zip(module.cell.state, ends, strict=True):
            assert np.allclose(
                end[reverse].detach(), getattr(sol.named, name)[-1].reshape(B, N), rtol=1e-11, atol=1e-12
            )
    direction = torch.randn_like(y)
    gradients = torch.autograd.grad((y * direction).sum(), [x, *module.parameters()])
    with torch.no_grad():  # along one direction of all weights together
        moves, values = [torch.randn_like(p) for p in module.parameters()], [p.clone() for p in module.parameters()]
        along = []
        for sign in (1, -1):
            for p, value, move in zip(module.parameters(), values, moves, strict=True):
                p.copy_(value + sign * 1e-6 * move)
            along.append((module(x)[0] * direction).sum())
        expected = (along[0] - along[1]) / 2e-6
    found = sum((g * move).sum() for g, move in zip(gradients[1:], moves, strict=True))
    assert abs(found - expected) < 1e-6 * (1 + abs(expected))


@pytest.mark.parametrize("norm", [False, "layer", "rms"])
@pytest.mark.parametrize("residual", [False, True])
def test_norms_and_residuals_lie_between_layers(norm, residual):
    module = layer("gru", mixing="diagonal", num_layers=3, norm=norm, residual=residual, batch_first=True)
    x = data(first=True)
    y = x
    for number in range(3):
        alone = layer("gru", mixing="diagonal", batch_first=True) if number == 0 else None
        alone = alone or rs.nn.Recurrent("gru", N, N, mixing="diagonal", batch_first=True, dtype=torch.float64)
        alone.gru_l0.load_state_dict(module._modules[f"gru_l{number}"].state_dict())
        out = alone(module._modules[f"norm_l{number}"](y) if norm else y)[0]
        y = y + out if residual and number else out
    assert torch.allclose(module(x)[0], y, atol=1e-13)
    assert module.solving.method == "auto"


def test_initial_weights_are_those_of_random_cells_and_follow_the_seed_of_torch():
    first, again, other = layer("lstm"), layer("lstm"), layer("lstm", seed=1)
    for name, p in first.named_parameters():
        assert torch.equal(p, again.get_parameter(name))
        assert not torch.equal(p, other.get_parameter(name))
        assert 0.5 < float(p.detach().abs().max()) * N**0.5 <= 1
    state = {name: p.clone() for name, p in first.state_dict().items()}
    first.reset_parameters()
    assert all(not torch.equal(p, state[name]) for name, p in first.state_dict().items())


@pytest.mark.parametrize("cell", ["gru", "slstm", HIGHWAY], ids=str)
def test_copies_checkpoints_and_casts_show_the_same(cell, tmp_path):
    from safetensors.torch import load_file, save_file

    module, x = layer(cell, mixing="heads", heads=2, num_layers=2, norm=True), data()
    wanted, _ = module(x)
    save_file(module.state_dict(), tmp_path / "weights.safetensors")
    fresh = layer(cell, seed=5, mixing="heads", heads=2, num_layers=2, norm=True)
    fresh.load_state_dict(load_file(tmp_path / "weights.safetensors"))
    for other in (fresh, copy.deepcopy(module), pickle.loads(pickle.dumps(module))):
        assert torch.equal(other(x)[0], wanted)
    before = module.counters.solves
    copy.deepcopy(module)(x)
    assert module.counters.solves == before  # a copy counts for itself
    assert torch.allclose(module.float()(x.float())[0].double(), wanted, atol=1e-5)
    assert torch.allclose(module.bfloat16()(x.bfloat16())[0].double(), wanted, atol=0.1)


def test_weights_that_are_computed_are_seen_and_trained():
    module, x = layer("gru", mixing="diagonal"), data()
    plain = copy.deepcopy(module)
    torch.nn.utils.parametrize.register_parametrization(module.gru_l0, "mixing_r", torch.nn.Tanh())
    with torch.no_grad():
        plain.gru_l0.mixing_r.tanh_()
    assert torch.allclose(module(x)[0], plain(x)[0], atol=1e-14)
    module(x)[0].sum().backward()
    assert module.gru_l0.parametrizations.mixing_r.original.grad.abs().sum() > 0


def test_states_that_are_handed_on_continue_the_sequence():
    for cell in ("slstm", "gru"):
        module, x = layer(cell, mixing="heads", num_layers=2), data()
        y, final = module(x)
        first, middle = module(x[:5])
        second, last = module(x[5:], middle)
        assert torch.allclose(torch.cat([first, second]), y, atol=1e-13)
        for a, b in zip(last, final, strict=True):
            assert torch.allclose(a, b, atol=1e-13)


# What a solve that is not met leads to -------------------------------------------------------------------------


def test_what_is_not_met_is_completed_and_counted_or_raised_or_warned_of():
    module, x = layer("gru"), data()
    exact = module(x)[0]
    short = {"method": "jacobi", "maxiter": 2}
    loop, raising, warning = (layer("gru", on_failure=way, **short) for way in ("loop", "raise", "warn"))
    assert torch.allclose(loop(x)[0], exact, atol=1e-13)
    assert (loop.counters.completed, loop.counters.unmet, loop.counters.iterations) == (1, 0, 2)
    with pytest.raises(rs.ConvergenceError):
        raising(x)
    assert (raising.counters.solves, raising.counters.unmet) == (1, 1)
    with pytest.warns(rs.nn.ConvergenceWarning, match="a layer of gru goes on with .*maxiter"):
        rough = warning(x)[0]
    assert (warning.counters.completed, warning.counters.unmet) == (0, 1)
    assert 1e-6 < (rough - exact).abs().max() < 0.5
    rough.sum().backward()  # as if they were met
    assert warning.gru_l0.mixing_n.grad.isfinite().all()
    again = copy.deepcopy(warning)
    again.solving = dataclasses.replace(again.solving, maxiter=None)
    assert torch.allclose(again(x)[0], exact, atol=1e-13)


def test_cotangents_are_limited_on_demand():
    x = data()
    free, loose, tight = (layer("gru", cotangent_clamp=size) for size in (None, 1e3, 1e-3))
    found = []
    for module in (free, loose, tight):
        module(x)[0].sum().backward()
        found.append(module.gru_l0.bias_ih.grad)
    assert torch.allclose(found[0], found[1], atol=1e-12)
    assert found[2].abs().max() <= 1e-3 * T * B
    assert found[0].abs().max() > 1


def test_layers_count_and_a_model_reports(capsys):
    model = torch.nn.ModuleDict({"a": layer("gru", kappa=True, method="newton"), "b": layer("lstm", num_layers=2)})
    for module in model.values():
        module(data())
    found = rs.nn.report(model)
    shown = capsys.readouterr().out.splitlines()
    assert found["a"]["solves"] == 1
    assert found["a"]["iterations"] == found["a"]["worst"] > 1
    assert found["a"]["kappa"] > 1
    assert found["b"]["solves"] == 2
    assert np.isnan(found["b"]["kappa"])
    assert shown[0].split()[:2] == ["layer", "solves"]
    assert [line.split()[:2] for line in shown[1:]] == [["a", "1"], ["b", "2"]]
    rs.nn.reset_counters(model)
    assert model["a"].counters == rs.nn.Counters() or np.isnan(model["a"].counters.kappa)
    assert rs.nn.report(model, show=False)["b"]["solves"] == 0
    with pytest.raises(TypeError, match=r"model is int; wanted a torch\.nn\.Module"):
        rs.nn.report(3)


# What keeps solves short -----------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("module", "wanted"),
    [
        (lambda: rs.nn.RNN(D, N, 2, bidirectional=True), -0.3),
        (lambda: layer("gru", mixing="diagonal", dtype=torch.float32), -0.2),
        (lambda: layer("lstm", mixing="heads", heads=2, dtype=torch.float32), -0.05),
    ],
)
def test_weights_are_scaled_to_a_wished_exponent(module, wanted):
    torch.manual_seed(0)
    module, x = module(), data(100, torch.float32)
    assert rs.nn.init_lyapunov_(module, x, wanted) is module
    assert np.allclose(rs.nn.exponents(module, x), wanted, atol=0.01)
    if isinstance(module, rs.nn.RNN):
        rec = rs.cells.Elman.from_torch(torch_twin(module)).recurrence(x)
        assert abs(rs.diagnose(rec, methods=["newton"]).lyapunov[0] - wanted) < 0.01


def torch_twin(module):
    twin = torch.nn.RNN(D, N, 2, bidirectional=True)
    twin.load_state_dict(module.state_dict())
    return twin


def test_an_exponent_that_no_scale_gives_leaves_weights_as_they_were():
    module, x = layer("gru"), data(50)
    before = {name: p.clone() for name, p in module.state_dict().items()}
    with pytest.raises(ValueError, match=r"exponent is -5\.0; the .* of layer 0 give -0.[0-9]+ to "):
        rs.nn.init_lyapunov_(module, x, -5.0)
    assert all(torch.equal(p, before[name]) for name, p in module.state_dict().items())


def test_the_penalty_lowers_the_exponent_until_it_costs_nothing():
    torch.manual_seed(0)
    module, x = rs.nn.RNN(D, 16), data(60, torch.float32)
    rs.nn.init_lyapunov_(module, x, -0.02)
    optimizer, costs = torch.optim.SGD(module.parameters(), lr=0.5), []
    for _ in range(12):
        optimizer.zero_grad()
        cost = rs.nn.lyapunov_penalty(module, x, ceiling=-0.2)
        cost.backward()
        optimizer.step()
        costs.append(cost.item())
    assert costs[0] > 0.02 > 0.005 > costs[-1]
    assert rs.nn.exponents(module, x)[0] < -0.1
    assert rs.nn.lyapunov_penalty(module, x, ceiling=1.0) == 0
    with torch.no_grad():
        module.weight_hh_l0.zero_()  # nothing is left of a perturbation
    module.zero_grad()
    rs.nn.lyapunov_penalty(module, x).backward()
    assert module.weight_hh_l0.grad.abs().max() == 0
    with pytest.raises(ValueError, match="x has 60 steps; wanted more than steps = 64"):
        rs.nn.lyapunov_penalty(module, x, steps=64)
    with pytest.raises(ValueError, match="steps is 3 and windows 8"):
        rs.nn.lyapunov_penalty(module, x, steps=3)


def test_the_gradient_of_the_penalty_is_that_of_differences():
    module, x = layer("gru", seed=3), data(40)

    def cost():
        torch.manual_seed(7)  # of directions
        return rs.nn.lyapunov_penalty(module, x, ceiling=-2.0)

    (gradient,) = torch.autograd.grad(cost(), module.gru_l0.mixing_n)
    move = torch.randn_like(gradient)
    with torch.no_grad():
        module.gru_l0.mixing_n += 1e-4 * move
        after = cost()
        module.gru_l0.mixing_n -= 2e-4 * move
        before = cost()
    assert abs((gradient * move).sum() - (after - before) / 2e-4) < 0.02 * abs((after - before) / 2e-4)


@pytest.mark.parametrize("mixing", ["dense", "diagonal", "heads"])
def test_recurrent_weights_are_bounded(mixing):
    module = layer("gru", mixing=mixing, gain=20.0, num_layers=2)
    small = module.gru_l1.mixing_r.detach() / 100
    with torch.no_grad():
        module.gru_l1.mixing_r.copy_(small)
    rs.nn.clip_recurrent_(module, 0.5)
    for name in ("r", "z", "n"):
        weight = module.gru_l0.get_parameter(f"mixing_{name}")
        norm = weight.abs().max() if mixing == "diagonal" else torch.linalg.matrix_norm(weight, 2)
        assert torch.allclose(norm, torch.full_like(norm, 0.5))
    assert torch.equal(module.gru_l1.mixing_r, small)
    lstm = rs.nn.LSTM(D, N, proj_size=2, bidirectional=True)
    with torch.no_grad():
        lstm.weight_hh_l0_reverse.mul_(30)
    rs.nn.clip_recurrent_(lstm, 0.5)
    for gate in lstm.weight_hh_l0_reverse.split(N):
        assert abs(torch.linalg.matrix_norm(gate, 2) - 0.5) < 1e-5
    with pytest.raises(ValueError, match="max_norm is 0"):
        rs.nn.clip_recurrent_(lstm, 0)
    with pytest.raises(TypeError, match="another form"):
        rs.nn.clip_recurrent_(layer("gru", mixing=low_rank), 0.5)


@pytest.mark.gpu
@pytest.mark.parametrize("mixing", ["dense", "diagonal", "heads"])
@pytest.mark.parametrize("cell", ["gru", "slstm", HIGHWAY], ids=str)
def test_on_a_gpu_a_layer_does_as_on_the_cpu(cell, mixing):
    module, x = layer(cell, mixing=mixing, num_layers=2, bidirectional=True, norm=True), data()
    there, on_gpu = copy.deepcopy(module).cuda(), x.cuda()
    for one, given in ((module, x), (there, on_gpu)):
        one(given, lengths=[12, 0, 3, 7])[0].square().sum().backward()
    for a, b in zip(module.parameters(), there.parameters(), strict=True):
        assert torch.allclose(a.grad, b.grad.cpu(), rtol=1e-9, atol=1e-9)
    assert np.allclose(rs.nn.exponents(module, x), rs.nn.exponents(there, on_gpu), atol=1e-8)
    rs.nn.clip_recurrent_(there, 0.5)
    assert rs.nn.lyapunov_penalty(there, on_gpu, steps=4, ceiling=-9.0).item() > 0
    assert there.counters.completed == there.counters.unmet == 0


# Bad input -------------------------------------------------------------------------------------------------------


def branches(s, W, u, p):
    return W.h(s.h) + u.h if s.h.sum() > 0 else u.h


def couples(s, W, u, p):
    return np.cumsum(W.h(s.h), axis=-1) + u.h


def test_bad_arguments_are_named():
    for cell, error, message in [
        ("grue", ValueError, "cell is 'grue'; wanted one of elman"),
        (3, TypeError, "cell is int; wanted the name of a built-in cell, or a Cell"),
        (rs.Cell(branches, state=("h",), output="h"), TypeError, "cell is branches, which cannot be solved: "),
        (rs.Cell(couples, state=("h",), output="h"), TypeError, "cell is couples, which .*couples entries"),
    ]:
        with pytest.raises(error, match=message):
            layer(cell)
    for options, message in [
        ({"mixing": "sparse"}, "mixing is 'sparse'"),
        ({"mixing": "heads", "heads": 3}, "heads is 3; wanted a divisor of hidden_size 8"),
        ({"norm": "batch"}, "norm is 'batch'; wanted False, True, 'layer' or 'rms'"),
        ({"num_layers": 0}, "num_layers is 0"),
        ({"dropout": 2}, "dropout is 2"),
    ]:
        with pytest.raises(ValueError, match=message):
            layer("gru", **options)


def test_a_checkpoint_of_another_cell_is_refused_although_shapes_fit():
    with pytest.raises(RuntimeError, match=r"Missing key.*cho_gru_l0.weight_ih"):
        layer("cho_gru").load_state_dict(layer("pararnn_gru").state_dict())
    with pytest.raises(RuntimeError, match=r"size mismatch for gru_l0\.mixing_r"):
        layer("gru").load_state_dict(layer("gru", mixing="diagonal").state_dict())


def test_sums_over_units_are_carried():
    def centred(s, W, u, p):
        h = W.h(s.h)
        return tanh(h - total(h) / N + u.h)

    module, x = layer(rs.Cell(centred, state=("h",), output="h")), data().requires_grad_()
    module(x)[0].sum().backward()
    assert x.grad.isfinite().all()


def test_watching_a_layer_leaves_every_module_in_its_mode():
    layer = rs.nn.Recurrent("gru", 3, 4, norm=True)
    layer.norm_l0.eval()
    for still in (True, False):
        with rs.nn.watched(layer, still=still):
            assert layer.training is not still
            assert not layer.norm_l0.training
        assert layer.training
        assert not layer.norm_l0.training


def test_layers_are_made_without_memory_and_drawn_later():
    with torch.device("meta"):
        layer = rs.nn.Recurrent("gru", 3, 4, num_layers=2)
    layer.to_empty(device="cpu").reset_parameters()
    assert layer(torch.ones(5, 2, 3))[0].isfinite().all()


@pytest.mark.parametrize(
    "change", [rs.nn.clip_recurrent_, lambda m, _: rs.nn.init_lyapunov_(m, torch.ones(9, 2, 3), -1)]
)
def test_what_changes_weights_names_layers_of_others(change):
    with pytest.raises(TypeError, match=r"layer is GRU; wanted one of recsolve\.nn"):
        change(torch.nn.GRU(3, 4), 1.0)


# What mixings hold besides their weights -----------------------------------------------------------------------


class Turned(rs.mixings.Mixing):
    """A rotation of the user's own, of numbers that are drawn, not trained."""

    linear = True

    def __init__(self, weight, turn):
        super().__init__(weight)
        self.turn = turn

    def matvec(self, x):
        return self.weight * (x @ self.turn.astype(x.dtype))

    def weight_cotangent(self, g, x):
        return (g * (x @ self.turn.astype(x.dtype))).reshape(-1, N).sum(axis=0)


def drawn_mask(draw):
    return rs.mixings.Masked(rs.mixings.Dense(draw((N, N))), draw((N, N)) > 0)


def drawn_heads(draw):
    return rs.mixings.Masked(rs.mixings.Masked(rs.mixings.Heads(draw((2, 4, 4))), draw((2, 4, 4)) > -0.2),
                             draw((2, 4, 4)) < 0.2)  # fmt: skip


def drawn_order(draw):
    return rs.mixings.Permutation(np.argsort(draw((N,))), draw((N,)))


def drawn_places(draw):
    return rs.mixings.Gather(np.argsort(draw((N,))), draw((N,)).dtype)


def drawn_sparse(draw):
    from scipy.sparse import csr_array

    columns = np.argsort(draw((N, N)))[:, :2]
    return rs.mixings.Sparse(csr_array((draw((N, 2)).ravel(), columns.ravel(), np.arange(0, 2 * N + 1, 2)), (N, N)))


def drawn_turn(draw):
    return Turned(draw((N,)), draw((N, N)))


DRAWN = [drawn_mask, drawn_heads, drawn_order, drawn_places, drawn_sparse, drawn_turn]


@pytest.mark.parametrize("mixing", DRAWN)
def test_a_checkpoint_holds_what_mixings_have_drawn(mixing, tmp_path):
    from safetensors.torch import load_file, save_file

    options = {"mixing": mixing, "num_layers": 2, "bidirectional": True}
    module, x = layer("cho_gru", **options), data()
    wanted = module(x)[0]
    save_file(module.state_dict(), tmp_path / "weights.safetensors")
    fresh = [layer("cho_gru", seed=5, **options) for _ in range(4)]
    fresh[1] = copy.deepcopy(fresh[1])
    state = load_file(tmp_path / "weights.safetensors")
    for other, load in zip(fresh, [{}, {}, {"assign": True}, {"strict": False}], strict=True):
        assert not torch.equal(other(x)[0], wanted)
        other.load_state_dict(state, **load)
        assert torch.equal(other(x)[0], wanted)
    with torch.no_grad():  # as broadcasts of buffers do
        for here, there in zip(fresh[0].buffers(), layer("cho_gru", seed=7, **options).buffers(), strict=True):
            here.copy_(there)
    assert not torch.equal(fresh[0](x)[0], wanted)
    fresh[2].reset_parameters()
    assert not torch.equal(fresh[2](x)[0], wanted)
    assert torch.equal(fresh[1](x)[0], wanted)


def test_older_checkpoints_load_and_say_that_masks_are_missing():
    module, other, x = layer("gru", mixing=masked), layer("gru", seed=5, mixing=masked), data()
    state = {name: p for name, p in module.state_dict().items() if "fixed" not in name}
    with pytest.warns(UserWarning, match="the checkpoint has no gru_l0.fixed_r_mask, as older ones"):
        assert str(other.load_state_dict(state)) == "<All keys matched successfully>"
    assert torch.equal(other(x)[0], module(x)[0])  # since this mask is not drawn
    with pytest.raises(RuntimeError, match=r"Missing key.*mixing_r"):
        other.load_state_dict({name: p for name, p in state.items() if "mixing_r" not in name})


def test_layers_that_are_compiled_see_masks_that_are_loaded(monkeypatch):
    """Where ``torch.compile`` looks at a layer, nobody looks whether buffers have changed."""
    module, other, x = layer("gru", mixing=drawn_mask), layer("gru", seed=5, mixing=drawn_mask), data()
    monkeypatch.setattr(torch.compiler, "is_compiling", lambda: True)
    module.load_state_dict(other.state_dict())
    assert torch.equal(module(x)[0], other(x)[0])


@pytest.mark.parametrize("mixing", ["dense", drawn_mask])
def test_buffers_of_others_are_no_masks(mixing):
    """Pruning registers its own mask as a buffer, and a hook that masks the weights before they are used."""
    module, other, x = layer("gru", mixing=mixing), layer("gru", mixing=mixing), data()
    prune.l1_unstructured(module.gru_l0, "mixing_r", 0.5)
    with torch.no_grad():
        other.gru_l0.mixing_r.mul_(module.gru_l0.mixing_r_mask)
    assert torch.equal(module(x)[0], other(x)[0])
    module(x)[0].sum().backward()
    assert not module.gru_l0.mixing_r_orig.grad[module.gru_l0.mixing_r_mask == 0].any()
    fresh = layer("gru", seed=5, mixing=mixing)
    prune.l1_unstructured(fresh.gru_l0, "mixing_r", 0.5)
    fresh.load_state_dict(module.state_dict())
    assert torch.equal(fresh(x)[0], other(x)[0])
    with pytest.raises(RuntimeError, match=r"Missing key.*mixing_r_mask"):
        fresh.load_state_dict({n: p for n, p in module.state_dict().items() if n != "gru_l0.mixing_r_mask"})


def test_masks_of_inference_mode_are_followed():
    """Their tensors have no versions, so nothing tells whether they were written to."""
    wanted, x = layer("gru", mixing=drawn_mask), data()
    with torch.inference_mode():
        module = layer("gru", seed=5, mixing=drawn_mask)
        module(x)
        for here, there in zip([*module.parameters(), *module.buffers()],
                               [*wanted.parameters(), *wanted.buffers()], strict=True):  # fmt: skip
            here.copy_(there)
        assert torch.equal(module(x)[0], wanted(x)[0])
    with torch.no_grad():
        assert torch.equal(module(x)[0], wanted(x)[0])


def test_layers_without_masks_have_parameters_alone():
    for mixing in ("dense", "heads", conv, low_rank):
        assert not list(layer("gru", mixing=mixing).buffers())


def test_masks_that_differ_under_vmap_are_refused_and_one_mask_is_taken():
    models = [layer("gru", seed=seed, mixing=masked) for seed in range(2)]
    parameters, buffers = torch.func.stack_module_state(models)
    one, x = {name: b[0] for name, b in buffers.items()}, data()

    def show(p, b):
        return torch.func.functional_call(models[0], (p, b), (x,))[0]

    found = torch.func.vmap(show, in_dims=(0, None))(parameters, one)
    assert torch.allclose(found, torch.stack([model(x)[0] for model in models]), atol=1e-13)
    with pytest.raises(TypeError, match="fixed_r_mask differs between models under vmap"):
        torch.func.vmap(show)(parameters, buffers)

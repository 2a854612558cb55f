"""Law 5: gradients against finite differences, against torch, and tangent against adjoint."""

from itertools import combinations

import gallery
import numpy as np
import pytest
from hypothesis import given
from test_laws import STRUCTURES, affine

import recsolve as rs
from recsolve.gradients.solved import cotangent_of

SOLVERS = sorted(rs.solvers.REGISTRY)


def solved(rec, method="newton"):
    return rs.solve(rec, method=method, fallback="sequential")


def difference(loss, direction, step=1e-6):
    return (loss(step * direction) - loss(-step * direction)) / (2 * step)


def check_slope(gradient, loss, rng):
    """Compare a gradient with differences of the loss along a random direction; steep ones bend within longer steps."""
    direction = rng.standard_normal(gradient.shape)
    expected = difference(loss, direction, 1e-7)
    assert float((gradient * direction).sum()) == pytest.approx(expected, rel=2e-6, abs=1e-6)


def moved_cell(cell, group, name, delta):
    """Return the cell with one of its weights moved."""
    mixings = {n: type(m)(m.weight + delta) if (group, n) == ("mixings", name) else m for n, m in cell.mixings.items()}
    parameters = {n: p + delta if (group, n) == ("parameters", name) else p for n, p in cell.parameters.items()}
    P = cell.projection
    weights = {n: w + delta if (group, n) == ("weights", name) else w for n, w in P.weights.items()}
    biases = {n: b + delta if (group, n) == ("biases", name) else b for n, b in P.biases.items()}
    return cell.cell.with_weights(
        mixings=mixings, parameters=parameters, projection=rs.Projection(weights, biases), hidden_size=cell.hidden_size
    )


@pytest.mark.parametrize("cell", gallery.CELLS, ids="-".join)
@given(seed=gallery.seeds)
def test_every_gradient_of_every_cell(cell, seed):
    rng = np.random.default_rng(seed)
    model = gallery.weighted(*cell, units=4, seed=seed, gain=1.5)
    x, reset = rng.standard_normal((12, 2, 3)), rng.random((12, 2)) < 0.15
    initial = rng.standard_normal((2, *model.layout.event))
    rec = model.recurrence(x, initial=initial, reset=reset)
    cotangent = rng.standard_normal(rec.shape)
    g = rs.adjoint(solved(rec), states=cotangent)

    def loss(model=model, x=x, initial=initial):
        return float((cotangent * gallery.loop(model.recurrence(x, initial=initial, reset=reset))).sum())

    check_slope(g.initial, lambda d: loss(initial=initial + d), rng)
    check_slope(g.inputs, lambda d: loss(x=x + d), rng)
    groups = {"mixings": g.mixings, "parameters": g.parameters, **g.projection}
    for group, gradients in groups.items():
        for name, gradient in gradients.items():
            check_slope(gradient, lambda d, group=group, name=name: loss(model=moved_cell(model, group, name, d)), rng)


@pytest.mark.parametrize("cell", gallery.CELLS, ids="-".join)
@given(seed=gallery.seeds)
def test_tangent_and_adjoint_are_transposes(cell, seed):
    """<c, T v> = <T* c, v> for every kind of tangent at once, resets included."""
    rng = np.random.default_rng(seed)
    reset = rng.random((30, 2)) < 0.1
    rec = gallery.recurrence(*cell, T=30, units=4, seed=seed, reset=reset)
    sol = solved(rec)
    model = rec.cell
    v = {
        "initial": rng.standard_normal((2, *model.layout.event)),
        "inputs": rng.standard_normal((30, 2, 3)),
        "drive": {n: rng.standard_normal(u.shape) for n, u in rec.drive.items()},
        "parameters": {n: rng.standard_normal(p.shape) for n, p in model.parameters.items()},
        "mixings": {n: rng.standard_normal(m.weight.shape) for n, m in model.mixings.items()},
    }
    c = rng.standard_normal(rec.shape)
    forward = float((c * rs.tangent(sol, **v)).sum())
    g = rs.adjoint(sol, states=c)
    backward = float((g.initial * v["initial"]).sum() + (g.inputs * v["inputs"]).sum())
    for group in ("drive", "parameters", "mixings"):
        backward += sum(float((gradient * v[group][n]).sum()) for n, gradient in getattr(g, group).items())
    assert forward == pytest.approx(backward, rel=1e-10, abs=1e-10)


@pytest.mark.parametrize("method", SOLVERS)
def test_gradients_do_not_depend_on_the_solver(method):
    """Quasi-Newton too differentiates with the true Jacobian."""
    rec = gallery.recurrence("gru", "dense", gain=2.0)
    c = np.random.default_rng(0).standard_normal(rec.shape)
    reference, other = (rs.adjoint(solved(rec, m), states=c) for m in ("sequential", method))
    np.testing.assert_allclose(other.inputs, reference.inputs, atol=1e-11)
    np.testing.assert_allclose(other.mixings.n, reference.mixings.n, atol=1e-10)


@pytest.mark.parametrize("backend", ["numpy", "numba"])
@pytest.mark.parametrize("own", [False, True])
def test_the_initial_state_of_a_window_is_not_what_its_resets_go_back_to(own, backend):
    cell = rs.cells.Elman.with_weights(mixings={"h": rs.mixings.Diagonal(np.full(2, 0.5))})
    drive = {"h": np.random.default_rng(0).standard_normal((12, 2))}
    initial, reset = np.array([0.7, -0.2]), np.arange(12) == 8
    whole = cell.recurrence(drive=drive, initial=initial if not own else np.full(2, 0.3), reset=reset)

    def total(h):
        moved = whole if own else cell.recurrence(drive=drive, initial=h, reset=reset)
        return rs.solve(moved.window(4, 12, h if own else None))

    with rs.backend(backend):
        sol, step = total(initial), 1e-6 * np.eye(2)
        wanted = [(total(initial + e).states.sum() - total(initial - e).states.sum()) / 2e-6 for e in step]
        pulled = rs.adjoint(sol, states=np.ones_like(sol.states)).initial
        pushed = [rs.tangent(sol, initial=e).sum() for e in np.eye(2)]
    np.testing.assert_allclose(pulled, wanted, rtol=1e-7)
    np.testing.assert_allclose(pushed, wanted, rtol=1e-7)


def test_cotangents_add_up():
    rec = gallery.recurrence("lstm", "dense", T=20)
    sol, rng = solved(rec), np.random.default_rng(0)
    states, output, final = (rng.standard_normal(x.shape) for x in (sol.states, sol.output, sol.final))
    together = rs.adjoint(sol, states=states, output=output, final=final).initial
    parts = sum(
        rs.adjoint(sol, **{n: x}).initial for n, x in (("states", states), ("output", output), ("final", final))
    )
    np.testing.assert_allclose(together, parts, atol=1e-13)


@pytest.mark.parametrize("name", ["gru", "lstm", "function"])
@pytest.mark.parametrize("order", ["C", "F"])
def test_cotangents_that_are_given_are_read_alone(name, order):
    """Arrays that may not be written to, alone and together, limited and not, in any order of memory."""
    if name == "function":
        rec = rs.Recurrence.from_function(lambda h, u: 0.5 * h + u, inputs=np.ones((9, 2, 4)), initial=np.zeros((2, 4)))
    else:
        rec = gallery.recurrence(name, "dense" if name == "gru" else "diagonal", T=9, units=4)
    sol, rng, given = solved(rec), np.random.default_rng(0), {}
    for what in ("states", "output", "final"):
        given[what] = np.asarray(rng.standard_normal(getattr(sol, what).shape), order=order)
        given[what].flags.writeable = False
    kept = {what: x.tobytes() for what, x in given.items()}
    for names in [n for k in (1, 2, 3) for n in combinations(given, k)]:
        some = {what: given[what] for what in names}
        whole = np.zeros(rec.shape)
        whole += some.get("states", 0.0)
        shown = rec.output(whole)
        shown += some.get("output", 0.0)
        whole[-1] += some.get("final", 0.0)
        for clamp in (None, 0.5):
            g, wanted = rs.adjoint(sol, **some, clamp=clamp), rs.adjoint(sol, states=whole, clamp=clamp)
            g.states[...] = 0
            np.testing.assert_array_equal(g.states, wanted.states)
            np.testing.assert_array_equal(g.initial, wanted.initial)
    assert kept == {what: x.tobytes() for what, x in given.items()}


@pytest.mark.parametrize("name", ["gru", "lstm"])
def test_the_cotangent_of_an_output_is_that_of_the_states_where_they_are_shown(name):
    rec = gallery.recurrence(name, T=3)
    trajectory, c = np.ones(rec.shape), np.ones(rec.output(np.zeros(rec.shape)).shape)
    assert (cotangent_of(rec, trajectory, None, c)[0] is c) == (name == "gru")


def torch_gradients(module, x, hx):
    y, final = module(x, hx)
    parts = final if isinstance(final, tuple) else (final,)
    loss = (y**2).sum() + sum((part * (i + 1)).sum() for i, part in enumerate(parts))
    loss.backward()
    return y, parts


@pytest.mark.parametrize("kind", ["RNN", "GRU", "LSTM"])
def test_gradients_equal_torch_autograd(kind):
    torch = pytest.importorskip("torch")
    torch.manual_seed(0)
    module = getattr(torch.nn, kind)(3, 5).double()
    x = torch.randn(40, 2, 3, dtype=torch.float64)
    parts = [torch.randn(1, 2, 5, dtype=torch.float64, requires_grad=True) for _ in range(2 if kind == "LSTM" else 1)]
    x_torch = x.clone().requires_grad_()
    torch_gradients(module, x_torch, tuple(parts) if kind == "LSTM" else parts[0])
    name = {"RNN": "elman", "GRU": "gru", "LSTM": "lstm"}[kind]
    cell = rs.cells.get(name).from_torch(module)
    initial = {n: part.detach()[0] for n, part in zip(cell.cell.state, parts, strict=True)}
    sol = solved(cell.recurrence(x, initial=initial))
    weight = torch.ones_like(sol.final)
    if kind == "LSTM":
        weight[:, 1] = 2
    g = rs.adjoint(sol, output=2 * sol.output.detach(), final=weight)
    assert isinstance(g.inputs, torch.Tensor)
    np.testing.assert_allclose(g.inputs, x_torch.grad, atol=1e-11)
    stacked = np.stack([part.grad[0] for part in parts], axis=1) if kind == "LSTM" else parts[0].grad[0]
    np.testing.assert_allclose(g.initial, stacked, atol=1e-11)
    gates = {"RNN": "h", "GRU": "rzn", "LSTM": "ifgo"}[kind]
    np.testing.assert_allclose(np.concatenate([g.mixings[k] for k in gates]), module.weight_hh_l0.grad, atol=1e-10)
    weights, biases = g.projection["weights"], g.projection["biases"]
    np.testing.assert_allclose(np.concatenate([weights[k] for k in gates]), module.weight_ih_l0.grad, atol=1e-10)
    np.testing.assert_allclose(np.concatenate([biases[k] for k in gates]), module.bias_ih_l0.grad, atol=1e-10)
    if kind == "GRU":
        np.testing.assert_allclose(g.parameters.b_n, module.bias_hh_l0.grad[10:], atol=1e-10)


@pytest.mark.parametrize("batch", [(), (2,), (2, 3)])
@pytest.mark.parametrize("structure", STRUCTURES)
def test_functions_of_every_structure(structure, batch):
    rng = np.random.default_rng(0)
    rec = affine(structure, seed=3, T=10, batch=batch, n=3)
    c = rng.standard_normal(rec.shape)
    g = rs.adjoint(solved(rec), states=c)

    def loss(u=rec.inputs[0], initial=rec.initial):
        moved = rs.Recurrence.from_function(rec.f, inputs=u, initial=initial, structure=structure)
        return float((c * gallery.loop(moved)).sum())

    check_slope(g.initial, lambda d: loss(initial=rec.initial + d), rng)
    check_slope(g.inputs, lambda d: loss(u=rec.inputs[0] + d), rng)


def test_inputs_in_every_container_and_of_other_widths():
    rng = np.random.default_rng(0)
    W = 0.5 * rng.standard_normal((4, 2))
    u = {
        "drive": rng.standard_normal((15, 3, 2)),
        "gate": rng.standard_normal((15, 1)),
        "shared": rng.standard_normal((15, 4)),
    }

    def f(h, u):
        gate = u["gate"][:, None]
        return np.tanh(0.5 * np.roll(h, 1, axis=-1) * gate + u["drive"] @ W.T + u["shared"][:, None])

    initial = rng.standard_normal((3, 4))
    rec = rs.Recurrence.from_function(f, inputs=u, initial=initial)
    c = rng.standard_normal(rec.shape)
    g = rs.adjoint(solved(rec), states=c).inputs
    assert {n: x.shape for n, x in g.items()} == {n: x.shape for n, x in u.items()}
    for name in u:

        def loss(d, name=name):
            moved = rs.Recurrence.from_function(f, inputs={**u, name: u[name] + d}, initial=initial)
            return float((c * gallery.loop(moved)).sum())

        check_slope(g[name], loss, rng)


@pytest.mark.parametrize("T", [1, 2, 33])
def test_short_sequences(T):
    rec = gallery.recurrence("lstm", "dense", T=T)
    g = rs.adjoint(solved(rec), states=np.ones(rec.shape))
    assert g.states.shape == rec.shape
    assert g.initial.shape == rec.shape[1:]
    np.testing.assert_array_equal(g.states[-1], 1)


def test_an_empty_sequence_has_zero_gradients():
    rec = gallery.recurrence("gru", "dense", T=0)
    g = rs.adjoint(solved(rec), states=np.ones(rec.shape))
    np.testing.assert_array_equal(g.initial, 0)
    np.testing.assert_array_equal(g.mixings.r, 0)


def test_given_drives_have_gradients_and_inputs_do_not():
    cell = gallery.weighted("gru", "dense")
    drive = {n: np.ones((20, 1, 8)) for n in cell.cell.drives} | {"r": np.ones((20, 3, 8))}
    g = rs.adjoint(solved(cell.recurrence(drive=drive)), states=np.ones((20, 3, 8)))
    assert {n: u.shape for n, u in g.drive.items()} == {n: u.shape for n, u in drive.items()}
    with pytest.raises(AttributeError, match=r"given drives, not an input x"):
        _ = g.inputs


@pytest.mark.parametrize(
    ("call", "error", "words"),
    [
        (lambda s: rs.adjoint(s), ValueError, "no cotangent is given"),
        (lambda s: rs.adjoint(s, states=np.ones(3)), ValueError, r"states has shape \(3,\); wanted \(60, 2, 8\)"),
        (lambda s: rs.adjoint(s, output=np.ones((60, 2, 8), "f4")), TypeError, "output has dtype float32"),
        (lambda s: rs.adjoint(s, final=np.ones(8)), ValueError, "final has shape"),
        (lambda s: rs.tangent(s, initial=np.ones(3)), ValueError, "initial has shape"),
        (lambda s: rs.tangent(s, drive={"q": np.ones(3)}), ValueError, "drive has 'q'"),
        (lambda s: rs.tangent(s, mixings={"q": np.ones(3)}), ValueError, "mixings has 'q'"),
    ],
)
def test_bad_cotangents(call, error, words):
    with pytest.raises(error, match=words):
        call(solved(gallery.recurrence("gru", "dense")))


def test_an_unconverged_solution_is_refused():
    sol = rs.solve(gallery.recurrence("gru", "dense"), method="jacobi", maxiter=2)
    ones = np.ones(sol.states.shape)
    with pytest.raises(ValueError, match=r"solution is maxiter.*unconverged=True"):
        rs.adjoint(sol, states=ones)
    with pytest.raises(ValueError, match=r"unconverged=True"):
        rs.tangent(sol, initial=np.ones((2, 8)))
    assert rs.adjoint(sol, states=ones, unconverged=True).initial.shape == (2, 8)


def test_functions_have_no_weights():
    sol = solved(affine("diagonal", 0))
    g = rs.adjoint(sol, states=np.ones(sol.states.shape))
    with pytest.raises(AttributeError, match="a function has inputs"):
        _ = g.mixings
    with pytest.raises(ValueError, match="belong to cells"):
        rs.tangent(sol, mixings={"h": np.ones(3)})


def test_an_input_with_as_many_features_as_sequences():
    rng = np.random.default_rng(0)
    u, initial = rng.standard_normal((5, 4)), np.zeros((4, 4))

    def f(h, u):
        return np.tanh(0.5 * h + u[..., None, :])

    rec = rs.Recurrence.from_function(f, inputs=u, initial=initial, structure="diagonal")
    c = rng.standard_normal(rec.shape)

    def loss(d):
        moved = rs.Recurrence.from_function(f, inputs=u + d, initial=initial, structure="diagonal")
        return float((c * gallery.loop(moved)).sum())

    check_slope(rs.adjoint(solved(rec), states=c).inputs, loss, rng)


def test_what_is_handed_out_may_be_overwritten():
    g = rs.adjoint(solved(gallery.recurrence("gru", "dense")), states=np.ones((60, 2, 8)))
    g.states[...] = 0
    assert np.abs(g.initial).max() > 0


@pytest.mark.parametrize("shape", [(5, 0, 3), (0, 2, 3), (0, 3)])
def test_gradients_of_nothing(shape):
    sol = solved(gallery.weighted("gru").recurrence(np.zeros(shape)))
    g = rs.adjoint(sol, states=np.zeros(sol.states.shape))
    assert g.inputs.shape == shape
    np.testing.assert_array_equal(g.projection.weights.r, 0)

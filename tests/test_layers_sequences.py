"""Stacks of layers on sequences of several lengths, and as one system: against torch's packed sequences and loops."""

import itertools
import pickle

import numpy as np
import pytest
from test_layers import KINDS, assert_same, make, parts

import recsolve as rs

torch = pytest.importorskip("torch")
rnn = torch.nn.utils.rnn

T, LENGTHS = 12, (12, 5, 1, 9)
STACKS = list(itertools.product(KINDS, (1, 2), (False, True)))


def batch(module, steps=T, count=4):
    """Return an input and initial states in the module's order of axes."""
    rng = torch.Generator().manual_seed(2)
    shape = (count, steps, 3) if module.batch_first else (steps, count, 3)
    states = (module.num_layers * (1 + module.bidirectional), count, 5)
    hx = [torch.randn(states, generator=rng, dtype=torch.float64) for _ in range(1 + (module.mode == "LSTM"))]
    return torch.randn(shape, generator=rng, dtype=torch.float64), hx


def given(hx):
    return tuple(hx) if len(hx) > 1 else hx[0]


def sequence(x, index, module):
    return x[index] if module.batch_first else x[:, index]


@pytest.mark.parametrize(("kind", "layers", "bidirectional"), STACKS)
def test_lengths_equal_packed_sequences(kind, layers, bidirectional):
    """Outputs, final states, and gradients of everything; what lies beyond the end of a sequence does not matter."""
    module = make(kind, layers, bidirectional, batch_first=bidirectional)
    x, hx = batch(module)
    leaves = [leaf.requires_grad_() for leaf in (x.clone(), *(h.clone() for h in hx))]
    packed = rnn.pack_padded_sequence(leaves[0], LENGTHS, batch_first=module.batch_first, enforce_sorted=False)
    y, final = module(packed, given(leaves[1:]))
    y, _ = rnn.pad_packed_sequence(y, batch_first=module.batch_first)
    cotangents = [torch.randn_like(v) for v in (y, *parts(final))]
    sum((c * v).sum() for c, v in zip(cotangents, (y, *parts(final)), strict=True)).backward()

    junk = x.clone()
    for index, length in enumerate(LENGTHS):
        sequence(junk, index, module)[length:] = torch.nan
    sol = rs.Layers.from_torch(module).solve(junk, given(hx), lengths=torch.tensor(LENGTHS))
    assert sol.trusted
    y, final = y.detach(), tuple(h.detach() for h in parts(final))
    assert_same(sol.output, y, 1e-13)
    assert_same(parts(sol.final), final, 1e-13)
    g = sol.adjoint(output=cotangents[0], final=given(cotangents[1:]))
    assert_same((g.inputs, *parts(g.initial)), tuple(leaf.grad for leaf in leaves), 1e-12)
    for name, parameter in module.named_parameters():
        assert_same(g.weights[name], parameter.grad, 1e-11)
    assert_same(rs.run(module, junk, given(hx), lengths=LENGTHS)[0], y, 1e-13)


@pytest.mark.parametrize("batch_first", [False, True])
@pytest.mark.parametrize("enforce_sorted", [False, True])
def test_packed_sequences_in_and_out(batch_first, enforce_sorted):
    module = make("LSTM", batch_first=batch_first)
    x, hx = batch(module)
    lengths = sorted(LENGTHS, reverse=True) if enforce_sorted else LENGTHS
    packed = rnn.pack_padded_sequence(x, lengths, batch_first=batch_first, enforce_sorted=enforce_sorted)
    with torch.no_grad():
        y, final = module(packed, given(hx))
    ours, ours_final = rs.run(module, packed, given(hx))
    assert_same(ours.data, y.data, 1e-13)
    assert_same(ours_final, final, 1e-13)
    for a, b in zip(ours[1:], y[1:], strict=True):
        assert (a is None and b is None) or torch.equal(a, b)
    for settings in ({"lengths": lengths}, {"reset": np.zeros(T, bool)}):
        with pytest.raises(ValueError, match="PackedSequence, which says"):
            rs.run(module, packed, **settings)


def test_sequences_without_steps_and_full_ones():
    module = make("LSTM")
    x, hx = batch(module)
    sol = rs.Layers.from_torch(module).solve(x, given(hx), lengths=[T, 0, T, 0])
    with torch.no_grad():
        y, final = module(x[:, ::2], given([h[:, ::2].contiguous() for h in hx]))
    assert_same(sol.output[:, ::2].contiguous(), y, 1e-13)
    assert not sol.output[:, 1::2].any()
    for ours, theirs, start in zip(sol.final, final, hx, strict=True):
        assert_same(ours[:, ::2], theirs, 1e-13)
        assert torch.equal(ours[:, 1::2], start[:, 1::2])
    g = sol.adjoint(final=given(hx))
    assert not g.inputs[:, 1::2].any()
    for ours, start in zip(g.initial, hx, strict=True):
        assert torch.equal(ours[:, 1::2], start[:, 1::2])  # a state that no step has changed


@pytest.mark.parametrize("steps", [0, 1, 5])
@pytest.mark.parametrize("count", [0, 1, 3])
def test_few_steps_and_sequences(steps, count):
    module = make("GRU", layers=2, batch_first=True)
    x, hx = batch(module, steps, count)
    for lengths in (None, [steps // 2] * count):
        sol = rs.Layers.from_torch(module).solve(x, hx[0], lengths=lengths)
        assert sol.trusted
        if steps == 0:
            assert torch.equal(sol.adjoint(final=hx[0]).initial, hx[0])
    assert sol.output.shape == (count, steps, 10)
    g = sol.adjoint(output=sol.output, final=sol.final)
    assert (g.inputs.shape, g.initial.shape) == (x.shape, hx[0].shape)
    if steps // 2 == 0:
        assert torch.equal(sol.final, hx[0])
        assert torch.equal(g.initial, hx[0])


def test_steps_that_are_not_there_lead_to_nothing():
    """States that grow without end do so in no padding."""
    module = make("ReLU", layers=1, dtype=torch.float32)
    with torch.no_grad():
        for suffix in ("", "_reverse"):
            getattr(module, f"weight_hh_l0{suffix}").copy_(2 * torch.eye(5))
    x, _ = batch(module, steps=160)
    sol = rs.Layers.from_torch(module).solve(x.float(), lengths=[4, 1, 0, 3])
    assert sol.trusted
    assert sol.condition == pytest.approx(1 + 2 + 4 + 8)
    assert max(s.nit for s in sol.solutions) <= 4


@pytest.mark.parametrize("lengths", [None, (12, 9, 0, 7)])
def test_resets_give_each_sequence_alone(lengths):
    """Whole rows are torch's on the pieces between resets, one by one."""
    module = make("GRU", layers=2)
    x, (h,) = batch(module)
    reset = np.zeros((T, 4), bool)
    for index, places in enumerate([(), (3, 4), (0, 11), (6, 9)]):
        reset[list(places), index] = True
    sol = rs.Layers.from_torch(module).solve(x, h, lengths=lengths, reset=reset)
    assert sol.trusted
    for index, length in enumerate(lengths or [T] * 4):
        bounds = [0, *(t for t in np.flatnonzero(reset[:, index]) if 0 < t < length), length]
        for start, stop in itertools.pairwise(bounds):
            if start == stop:
                continue
            with torch.no_grad():
                y, final = module(x[start:stop, index], h[:, index].contiguous())
            assert_same(sol.output[start:stop, index].contiguous(), y, 1e-13)
            if stop == length:
                assert_same(sol.final[::2, index].contiguous(), final[::2], 1e-13)  # the last piece ends forward
            if start == 0:
                assert_same(sol.final[1::2, index].contiguous(), final[1::2], 1e-13)  # and the first one in reverse
        assert not sol.output[length:, index].any()
    packed = rs.Layers.from_torch(module).solve(x[:, 0], reset=rs.packed_resets([5, 7]))
    assert_same(packed.output[5:], rs.run(module, x[5:, 0])[0], 1e-13)


@pytest.mark.parametrize(
    ("settings", "error", "words"),
    [
        ({"lengths": [1, 2, 3]}, ValueError, r"lengths has shape \(3,\); wanted one per sequence, \(4,\)"),
        ({"lengths": 3}, ValueError, r"lengths has shape \(\); wanted"),
        ({"lengths": [1, 2, 3, 13]}, ValueError, r"lengths\[3\] is 13; wanted 0 to T = 12"),
        ({"lengths": [-1, 2, 3, 4]}, ValueError, r"lengths\[0\] is -1; wanted 0"),
        ({"lengths": [1.0, 2.0, 3.0, 4.0]}, TypeError, "lengths has dtype float64; wanted integers"),
        ({"lengths": torch.ones(4)}, TypeError, "lengths has dtype float32; wanted integers"),
        ({"lengths": [[1], [2, 3]]}, ValueError, "lengths is not a rectangular array"),
        ({"reset": np.zeros(4, bool)}, ValueError, r"reset has shape \(4,\); wanted"),
        ({"reset": np.zeros((12, 4))}, TypeError, "reset has dtype float64"),
    ],
)
def test_lengths_and_resets_that_do_not_fit(settings, error, words):
    module = make("GRU")
    x, _ = batch(module)
    with pytest.raises(error, match=words):
        rs.run(module, x, **settings)
    with pytest.raises(ValueError, match=r"lengths is 7; wanted 0 to T = 6"):
        rs.run(module, x[:6, 0], lengths=7)


def loop(module, x, added):
    """Return all states of a bidirectional stack, literally, with numbers added to every state as it is made."""
    names = ("weight_ih", "weight_hh", "bias_ih", "bias_hh")
    states, below = [], list(x)
    for layer in range(module.num_layers):
        outputs = []
        for suffix in ("", "_reverse"):
            weights = [getattr(module, f"{name}_l{layer}{suffix}") for name in names]
            h, shown = torch.zeros(added.shape[-2:], dtype=x.dtype), []
            for u, e in zip(below[::-1] if suffix else below, added[len(states)], strict=True):
                if module.mode == "LSTM":
                    h = torch.stack([v[0] for v in torch.lstm_cell(u[None], [h[:1], h[1:]], *weights)]) + e
                else:
                    h = torch.gru_cell(u[None], h, *weights) + e
                shown.append(h)
            states.append(torch.stack(shown))
            outputs.append([v[0] for v in (shown[::-1] if suffix else shown)])
        below = [torch.cat(v) for v in zip(*outputs, strict=True)]
    return torch.stack(states)


@pytest.mark.parametrize("kind", ["GRU", "LSTM"])
def test_the_condition_is_that_of_the_whole_system(kind):
    """The derivative of all states by what is added to all of them is the inverse of the system, here made whole."""
    module = make(kind, layers=2).requires_grad_(False)
    x, _ = batch(module, steps=5, count=2)
    wanted = []
    for index, length in enumerate((5, 3)):
        zero = torch.zeros(4, length, 1 + (kind == "LSTM"), 5, dtype=torch.float64)
        inverse = torch.autograd.functional.jacobian(lambda e, u=x[:length, index]: loop(module, u, e), zero)
        wanted.append(float(inverse.reshape(zero.numel(), -1).abs().sum(dim=1).max()))
    sol = rs.Layers.from_torch(module).solve(x, lengths=(5, 3))
    assert max(wanted) / 3 <= sol.condition <= max(wanted) * (1 + 1e-9)
    assert sol.condition > 1.3 * max(s.condition for s in sol.solutions)
    assert rs.Layers.from_torch(module).solve(x[:3, 1]).condition <= wanted[1] * (1 + 1e-9)


def test_errors_that_a_layer_above_amplifies_are_not_trusted():
    """Each layer is near what its own input demands; the second sees what is left of the first beside a bias."""
    module = make("RNN", layers=2, bidirectional=False).requires_grad_(False)
    x = torch.ones(60, 3, 3, dtype=torch.float64)
    rest = module(x)[1][:1, :1]  # where the first layer comes to rest
    for _ in range(20):
        rest = module(x[:, :1], torch.cat([rest, rest]))[1][:1]
    module.weight_ih_l1 *= 1e4
    module.bias_ih_l1[:] = -module.weight_ih_l1 @ rest[0, 0]
    hx = torch.cat([rest, 0 * rest]).repeat(1, 3, 1)
    x += 1e-4 * batch(module, steps=60, count=3)[0]
    sol = rs.Layers.from_torch(module).solve(x, hx, method="jacobi", tol=1e-5)
    assert all(s.trusted for s in sol.solutions)
    error = float((sol.output - module(x, hx)[0]).abs().max())
    assert error > 0.03
    assert not sol.trusted
    assert error / 10 <= sol.error_estimate <= 10 * error
    assert "not trusted: states of the whole stack may be off by" in sol.message
    assert rs.Layers.from_torch(module).solve(x, hx).trusted


@pytest.mark.parametrize("kind", ["RNN", "LSTM"])
@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_the_error_of_a_stack_is_what_is_stated(kind, dtype):
    """Against the loop in float64, from rounding (of float32) to coarse tolerances, gains up to chaos."""
    seen = []
    for gain, tol in itertools.product((0.5, 2.0), (None if dtype == "float32" else 1e-9, 1e-4, 0.1)):
        module = make(kind).requires_grad_(False)
        for w in module.parameters():
            w *= gain
        x, lengths = batch(module, steps=60, count=2)[0].numpy(), (60, 41)
        narrow = rs.Layers.from_torch(module).map(lambda w: w.astype(dtype))
        wide = narrow.map(lambda w: w.astype("float64"))
        x = x.astype(dtype)
        truth = wide.solve(x.astype("float64"), lengths=lengths, method="sequential")
        sol = narrow.solve(x, lengths=lengths, method="jacobi", tol=tol)
        off = [abs(s.states - t.states).max(axis=0) for s, t in zip(sol.solutions, truth.solutions, strict=True)]
        size = [abs(t.states).max(axis=0) for t in truth.solutions]
        error = max(float(e.max()) for e in off)
        share = max(float((e.max(axis=-1) / h.max(axis=-1)).max()) for e, h in zip(off, size, strict=True))
        seen.append((sol.trusted, share))
        if sol.trusted:
            assert share <= 0.1
            assert error <= 10 * sol.error_estimate
    small = [trusted for trusted, share in seen if share <= 0.005]
    assert 3 <= len(small) < len(seen)
    assert all(small)


def test_the_status_of_a_stack_is_that_of_its_first_layer_that_fails():
    module = make("GRU", layers=2)
    x, _ = batch(module, steps=60)
    layers = rs.Layers.from_torch(module)
    sol = layers.solve(x, method="jacobi", maxiter=1)
    assert (sol.success, sol.trusted, sol.status) == (False, False, "maxiter")
    assert sol.message.startswith("layer 0: maxiter: ")
    with pytest.raises(ValueError, match=r"solution is layer 0: maxiter.*unconverged=True"):
        sol.adjoint(output=sol.output)
    assert sol.adjoint(output=sol.output, unconverged=True).inputs.shape == x.shape
    x[20, 1, 0] = torch.nan
    sol = layers.solve(x)
    assert (sol.success, sol.trusted, sol.status) == (False, False, "nonfinite")
    assert "layer 0" in repr(sol)


@pytest.mark.parametrize("put", [lambda x: x, lambda x: x.numpy()], ids=["torch", "numpy"])
def test_what_goes_in_as_a_tensor_comes_out_as_one(put):
    module = make("LSTM", layers=2)
    x, hx = batch(module)
    x, hx = put(x), tuple(map(put, hx))
    sol = rs.Layers.from_torch(module).solve(x, hx, lengths=put(torch.tensor(LENGTHS)))
    g = sol.adjoint(output=sol.output, final=sol.final, states=[sol.solutions[0].states, *[None] * 3])
    found = [sol.output, *sol.final, g.inputs, *g.initial, *g.weights.values(), *(s.states for s in sol.solutions)]
    assert {type(v) for v in found} == {type(x)}
    assert {v.dtype for v in found} == {x.dtype}
    again = pickle.loads(pickle.dumps(sol))
    assert (again.output == sol.output).all()
    assert again.message == sol.message


def test_cotangents_that_do_not_fit():
    module = make("LSTM", layers=1)
    x, hx = batch(module)
    sol = rs.Layers.from_torch(module).solve(x)
    for arguments, error, words in (
        ({}, ValueError, "no cotangent"),
        ({"output": sol.output[1:]}, ValueError, r"output has shape \(11, 4, 10\); wanted \(12, 4, 10\)"),
        ({"output": sol.output.numpy()}, TypeError, "kinds are mixed"),
        ({"output": sol.output.float()}, TypeError, "output has dtype torch.float32; wanted float64"),
        ({"final": hx[0]}, ValueError, "final has 1 parts; wanted 2"),
        ({"states": [None]}, ValueError, "states is 1 arrays; wanted a list of 2"),
        ({"states": [x, None]}, ValueError, r"states\[0\] has shape"),
    ):
        with pytest.raises(error, match=words):
            sol.adjoint(**arguments)
    with pytest.raises(TypeError, match=r"an adjoint of its own, solution.adjoint\(\)"):
        rs.adjoint(sol, output=sol.output)


def test_cells_that_do_not_fit_together():
    def gru(inputs, units=4):
        return rs.cells.GRU.random(input_size=inputs, hidden_size=units, rng=0)

    for directions, words in (
        ([[gru(3)], [gru(3)]], r"directions\[1\] has .* on 3 inputs; wanted gru of 4 units on 4"),
        ([[gru(3), gru(3)], [gru(8)]], r"directions\[1\] has 1 cells; wanted 2"),
        ([[gru(3)], [gru(4, 5)]], "wanted gru of 4 units"),
        ([[gru(3)], [rs.cells.LSTM.random(input_size=4, hidden_size=4, rng=0)]], "wanted gru of 4 units"),
        ([], "directions is empty"),
    ):
        with pytest.raises(ValueError, match=words):
            rs.Layers(directions)


def test_a_cell_that_torch_has_not_has_its_gradients_by_its_own_names():
    cells = [[rs.cells.SLSTM.random(input_size=n, hidden_size=4, mixing="diagonal", rng=n)] for n in (3, 4)]
    sol = rs.Layers(cells).solve(np.random.default_rng(0).standard_normal((T, 2, 3)), lengths=[T, 5])
    g = sol.adjoint(output=sol.output)
    assert g.inputs.shape == (T, 2, 3)
    assert not g.inputs[5:, 1].any()
    with pytest.raises(AttributeError, match="torch's names only for the cells elman"):
        _ = g.weights


def test_what_is_added_to_f_has_a_tangent_too():
    """It is the transpose of the adjoint variables."""
    rec = rs.cells.LSTM.random(input_size=3, hidden_size=4, rng=0).recurrence(np.ones((T, 2, 3)))
    sol, rng = rs.solve(rec), np.random.default_rng(0)
    e, c = rng.standard_normal((2, *rec.shape))
    moved = rs.tangent(sol, states=e)
    assert np.vdot(c, moved) == pytest.approx(np.vdot(rs.adjoint(sol, states=c).states, e), rel=1e-12)
    np.testing.assert_array_equal(moved[0], e[0])

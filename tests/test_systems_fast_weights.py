"""What systems with fast weights have beyond their states: gradients of losses, readouts, what they become."""

import numpy as np
import pytest
from oracles import ORACLES, lact, memory_caching

import recsolve as rs
from recsolve.recurrence.ragged_recurrence import RaggedRecurrence
from recsolve.studies.systems import delta_rule
from recsolve.studies.systems import memory_caching as caching
from recsolve.studies.systems.system import get

MEMORIES = ("deltanet", "rwkv7", "ttt", "tnt", "lact", "lact_norm", "memory_caching_dla", "titans", "recurrent_gpt")


def drawn(name, **changes):
    return get(name).draw(type(get(name).config)(**changes))


def near(found, expected):
    np.testing.assert_allclose(found, expected, rtol=1e-12, atol=1e-12)


def by_autograd(loss):
    """Return a function that gives the gradients of a loss with respect to its first arguments, by torch."""
    torch = pytest.importorskip("torch")

    def gradients(weights, *given):
        weights = [torch.tensor(W, requires_grad=True) for W in weights]
        value = loss(torch, *weights, *map(torch.tensor, given))
        return [g.numpy() for g in torch.autograd.grad(value, weights)]

    return gradients


def swiglu(torch, W0, W1, W2, k, v, eta):
    read = (torch.nn.functional.silu(k @ W0.T) * (k @ W2.T)) @ W1.T
    return -(eta * (read * v).sum(-1)).sum()


@pytest.mark.parametrize("name", ["lact", "lact_norm", "lact_muon"])
def test_chunks_of_lact_descend_the_gradient_that_torch_finds(name):
    arrays = drawn(name, length=6, batch=2)
    gradients = by_autograd(swiglu)

    def of_all(W0, W1, W2, k, v, eta):  # every matrix has rates of its own
        return [gradients((W0, W1, W2), k, v, eta[i])[i] for i in range(3)]

    oracle = lact.oracle(norm=name != "lact", muon=name == "lact_muon", gradients=of_all)
    near(rs.solve(get(name).build(arrays), method="sequential").states, oracle(arrays))


def test_deep_linear_attention_ascends_the_gradient_that_torch_finds():
    arrays = drawn("memory_caching_dla", length=12)

    def agreement(torch, W0, W1, k, v):
        return (v[:, None] @ W1 @ torch.nn.functional.silu(W0 @ k[..., None])).sum()

    gradients = by_autograd(agreement)
    expected = memory_caching.dla(arrays, gradients=lambda W0, W1, k, v: gradients((W0, W1), k, v))
    near(rs.solve(caching.dla(arrays), method="sequential").states, expected)


def test_a_step_of_titans_follows_the_gradient_that_torch_finds():
    arrays = drawn("titans", length=9)
    gradients = by_autograd(lambda torch, M, k, v: ((M @ k[..., None])[..., 0] - v).square().sum())
    rec = get("titans").build(arrays)
    sol = rs.solve(rec, method="sequential")
    before, after = (rec.named(sol.states[t])["M"] for t in (3, 4)), rec.named(sol.states[4])
    eta, theta, alpha = (arrays[name][4][:, None, None] for name in ("eta", "theta", "alpha"))
    M = next(before)
    S = eta * rec.named(sol.states[3])["S"] - theta * gradients((M,), arrays["k"][4], arrays["v"][4])[0]
    near(after["S"], S)
    near(after["M"], (1 - alpha) * M + S)


@pytest.mark.parametrize("name", [*MEMORIES, "lact_muon"])
def test_what_is_declared_of_their_jacobians_is_true(name):
    rec = get(name).build(length=12)
    if rec.structure == "pairs":
        assert rs.check_structure(rec).ok
    J = rec.linearise(rs.solve(rec, method="sequential").states)[1]
    v = np.random.default_rng(1).standard_normal(rec.shape)
    previous = rec.previous(rs.solve(rec, method="sequential").states)
    np.testing.assert_allclose(J.matvec(v), rec.push_state(previous, v[None])[0], rtol=1e-10, atol=1e-10)


@pytest.mark.parametrize("name", MEMORIES)
def test_gradients_are_those_of_differences(name):
    """Of what the readout shows, along one direction of all inputs together."""
    rec = get(name).build(length=8)
    sol = rs.solve(rec, tol=1e-14)
    rng = np.random.default_rng(0)
    weight = rng.standard_normal(sol.output.shape)
    inputs = rec.contain(rec.inputs)
    fixed = ("begins", "begins_long", "begins_shard", "write", "writes", "filled")  # masks
    towards = {k: np.zeros_like(u) if k in fixed else rng.standard_normal(u.shape) for k, u in inputs.items()}
    g = rs.adjoint(sol, output=weight)
    found = g.drive if isinstance(rec, RaggedRecurrence) else g.inputs

    def value(step):
        moved = {k: u + step * towards[k] for k, u in inputs.items()}
        return (weight * rs.solve(rec._remade(moved, rec.initial, None, None), tol=1e-14).output).sum()

    difference = (value(1e-5) - value(-1e-5)) / 2e-5
    np.testing.assert_allclose(sum((found[k] * towards[k]).sum() for k in inputs), difference, rtol=1e-6)


# TTT and TNT


def test_ttt_with_chunks_of_one_step_is_the_delta_rule():
    arrays = drawn("ttt", length=50, chunk=1)
    W = rs.solve(get("ttt").build(arrays)).named.W
    near(W, rs.solve(delta_rule.deltanet({**arrays, "b": arrays["eta"]})).states)


def test_tnt_reads_its_global_memory_before_the_chunk_and_the_local_ones_through_the_keys_of_theirs():
    arrays = drawn("tnt", length=40)
    rec = get("tnt").build(arrays)
    sol = rs.solve(rec)
    k, q = arrays["k"], arrays["q"]
    states = rec.named(ORACLES["tnt"](arrays))
    for t in range(40):
        M = sum(np.einsum("bi,bj->bij", k[j], k[j]) for j in range(t - t % 4, t + 1))
        seen = np.einsum("bij,bj->bi", M, q[t])
        expected = np.einsum("bvk,bk->bv", states["V_anchor"][t], q[t]) + np.einsum("bivk,bk->bv", states["W"][t], seen)
        near(sol.output[t], expected)
    assert not states["V_anchor"][:32].any()
    near(states["V_anchor"][32:], np.broadcast_to(states["V"][31], states["V"][32:].shape))


# Memory Caching


def _attention(arrays, weight):
    """Return the output of masked attention in which a token counts with a weight that depends on query and token."""
    k, v, q = arrays["k"], arrays["v"], arrays["q"]
    causal = np.tril(np.ones((len(k), len(k))))[:, :, None]
    return np.einsum("tjb,jbv->tbv", causal * weight * np.einsum("tbk,jbk->tjb", q, k), v)


@pytest.mark.parametrize("read", caching.READS)
@pytest.mark.parametrize("mode", caching.MODES)
def test_reads_of_cached_memories_are_attention_weighted_by_segment(read, mode):
    arrays = drawn("memory_caching", length=40)
    sol = rs.solve(caching.linear(arrays, read, mode))
    near(sol.states, memory_caching.linear(arrays, mode))
    gamma, segment = caching.weights(arrays, read), arrays["segment"].astype(int)
    if mode == "checkpoint":  # later memories contain a token too
        gamma = np.cumsum(gamma[..., ::-1], axis=-1)[..., ::-1]
    near(sol.output, _attention(arrays, np.moveaxis(gamma[:, :, segment], 2, 1)))


def test_all_segments_together_are_linear_attention():
    arrays = drawn("memory_caching", length=40)
    near(rs.solve(caching.linear(arrays, "residual")).output, _attention(arrays, 1.0))


def test_weights_of_the_reads_are_those_of_the_paper():
    arrays = drawn("memory_caching", length=30, segments=6)
    k, u, segment = arrays["k"], arrays["u"], arrays["segment"].astype(int)
    grm, ssc = caching.weights(arrays, "grm"), caching.weights(arrays, "ssc", top=2)
    for t, b in ((3, 0), (14, 1), (29, 0)):
        own = segment[t]
        rho = [u[t, b] @ k[: t + 1][segment[: t + 1] == i, b].mean(axis=0) for i in range(own + 1)]
        share = np.exp(rho) / np.exp(rho).sum()
        near(grm[t, b], [*share, *[0] * (5 - own)])
        chosen = {own, *sorted(range(own), key=lambda i: -rho[i])[:2]}
        share = [np.exp(rho[i]) * (i in chosen) for i in range(own + 1)]
        near(ssc[t, b], [*(share / np.sum(share)), *[0] * (5 - own)])


def test_deep_memories_go_on_from_checkpoints():
    arrays = drawn("memory_caching_dla", length=20)
    near(
        rs.solve(caching.dla(arrays, mode="checkpoint"), method="newton").states,
        memory_caching.dla(arrays, "checkpoint"),
    )


# RecurrentGPT


def test_what_is_found_far_back_is_what_was_written_there():
    arrays = dict(drawn("recurrent_gpt", length=30, slots=40))
    start = rs.solve(get("recurrent_gpt").build(arrays), method="sequential")
    arrays["V"] = 0 * arrays["V"]
    plain = rs.Recurrence.from_function(
        lambda h, x: np.tanh(h @ arrays["W"].T + x), inputs=arrays["x"], initial=np.zeros((2, 4))
    )
    forgetful = rs.solve(get("recurrent_gpt").build(arrays), method="sequential")
    near(forgetful.named.h, rs.solve(plain, method="sequential").states)
    near(start.named.L[-1, :, 2:31], np.moveaxis(start.named.h[:-1], 0, 1))
    assert abs(start.named.h - forgetful.named.h).max() > 0.1

"""What systems of discrete states and histories claim beyond their states."""

import pickle
from dataclasses import replace

import numpy as np
import pytest
from oracles import ORACLES

import recsolve as rs
from recsolve.studies.compare.race import race
from recsolve.studies.systems import hidden_transfer, learn2pd, recurrent_transformer, tokens
from recsolve.studies.systems.lrnn import Products
from recsolve.studies.systems.solved import solved
from recsolve.studies.systems.system import get

MINE = (
    *("lrnn_diagonal", "lrnn_pd", "lrnn_s5", "lrnn_relu", "lrnn_products", "pointer", "connectivity"),
    *("recurrent_transformer", "learn2pd", "hidden_transfer", "tokens_ngram", "tokens_transformer"),
    *("successor", "adder", "tree_inorder", "tree_preorder"),
)


def drawn(name, **changes):
    return dict(get(name).draw(replace(get(name).config, **changes)))


def swept(rec, sweeps, start):
    """Return what so many evaluations of f at all times make of an iterate."""
    states = np.broadcast_to(start, rec.shape)
    for _ in range(sweeps):
        states = rec.bind().evaluate(states)
    return states


@pytest.mark.parametrize("name", MINE)
def test_a_system_pickles(name):
    rec = get(name).build(length=20)
    there = pickle.loads(pickle.dumps(rec))
    one, other = (rs.solve(r, method="sequential").states for r in (rec, there))
    np.testing.assert_array_equal(one, other)


@pytest.mark.parametrize("name", ["pointer", "successor", "adder", "tokens_ngram", "lrnn_products", "lrnn_s5"])
def test_windows_and_lengths_change_nothing(name):
    rec = get(name).build(length=50)
    whole = rs.solve(rec, method="sequential").states
    initial = whole[19] if rec.state is None else rec.named(whole[19:20])
    initial = initial if rec.state is None else {part: x[0] for part, x in initial.items()}
    cut = rec.window(20, 50, initial=initial)
    np.testing.assert_array_equal(rs.solve(cut, method="jacobi").states, whole[20:])
    for T in (0, 1, 31):
        short = rec.window(0, T)
        np.testing.assert_array_equal(get(name).scan(short), rs.solve(short, method="jacobi").states)


@pytest.mark.parametrize("k", [1, 2, 3, 5])
def test_k_sweeps_get_all_but_one_carry_in_2_to_the_k_plus_1_and_one_successor_in_2_to_the_k(k):
    rec = get("adder").build(length=2**13, batch=8)
    right = (swept(rec, k, False) == rs.solve(rec, method="sequential").states)[..., 0].mean()
    assert right == pytest.approx(1 - 2.0 ** -(k + 1), abs=5 * 2.0**-8 * 2.0 ** (-k / 2))
    rec = get("successor").build(length=16, batch=2**14)
    right = (swept(rec, k, False) == rs.solve(rec, method="sequential").states)[..., 1].all(axis=0).mean()
    assert right == pytest.approx(1 - 2.0**-k, abs=5 * 2.0**-7 * 2.0 ** (-k / 2))


def test_a_carry_that_runs_further_than_the_sweeps_is_never_right():
    ones = np.ones((30, 1), bool)
    rec = get("successor").build({"b": ones})
    for k in range(1, 31):
        np.testing.assert_array_equal(swept(rec, k, False)[:, 0, 0], np.arange(30) < k)
    assert rs.solve(rec, method="jacobi").nit == 0  # a guess that carries everywhere is right at once
    rec = get("adder").build({"a": np.arange(30)[:, None] == 0, "b": ones})  # 1 + (2^30 - 1)
    assert rs.solve(rec, method="jacobi").nit == 29


def test_sweep_k_of_a_tree_is_exact_up_to_height_k():
    arrays = drawn("tree_inorder")
    rec = get("tree_inorder").build(arrays)
    truth = rs.solve(rec, method="sequential").states
    assert truth[0, 1:].tolist() == sorted(arrays["values"])  # a search tree
    height = np.zeros(len(truth), int)
    for node in range(len(truth))[::-1]:  # children come after their parents
        below = [height[child] for child in arrays["children"][node] if child >= 0]
        height[node] = 1 + max(below, default=0)
    for k in range(1, height[0] + 1):
        states = rs.solve(rec, method="jacobi", guess=np.full(truth.shape, 7), maxiter=k).states
        right = (states == truth).all(axis=-1)
        assert right[height <= k].all()
    assert right.all()


def test_the_last_pointer_is_the_target_where_the_target_is_reached_and_has_no_edge():
    for seed in range(20):
        arrays = drawn("connectivity", length=60, batch=8, seed=seed)
        sol = rs.solve(get("connectivity").build(arrays), method="jacobi")
        for b, edges in enumerate(arrays["j"].T):
            reached = {0}
            for i, j in enumerate(edges.tolist()):
                reached |= {j} if i in reached else set()
            assert sol.output[-1, b, 0] == (arrays["target"][b] in reached)


def test_a_target_with_an_edge_breaks_the_promise():
    arrays = {"j": np.array([[1], [2], [3]]), "target": np.array([2])}  # 0 -> 1 -> 2 -> 3
    sol = rs.solve(get("connectivity").build(arrays), method="sequential")
    assert sol.output[:, 0, 0].tolist() == [False, True, False]  # reached, and left again


def test_a_path_takes_as_many_sweeps_as_it_has_edges_and_one_scan():
    T = 300
    path = get("connectivity").build({"j": np.arange(1, T + 1)[:, None], "target": np.array([T])})
    sol = rs.solve(path, method="jacobi")
    assert sol.nit == T - 1
    np.testing.assert_array_equal(get("connectivity").scan(path), sol.states)


def test_words_are_solved_exactly_by_one_newton_step_and_by_the_scan():
    rec = get("lrnn_s5").build(length=1000)
    truth = rs.solve(rec, method="sequential").states
    sol = rs.solve(rec, method="newton")
    assert sol.nit == 1
    np.testing.assert_array_equal(sol.states, truth)
    assert rs.solve(rec, method="jacobi").nit > 990  # a permutation never forgets


def test_products_overflow_as_integers_modulo_a_power_of_two_do():
    rec = get("lrnn_products").build(length=300)
    A = rec.inputs[0]
    exact = A[0, 0].astype(object)
    for t in range(1, 300):
        exact = A[t, 0].astype(object) @ exact
    assert max(abs(x) for x in exact.ravel()) > 2**200
    wrapped = [(x + 2**63) % 2**64 - 2**63 for x in exact.ravel()]
    assert get("lrnn_products").scan(rec)[-1, 0].tolist() == wrapped


def test_monoids_of_systems_keep_the_laws():
    A = get("lrnn_products").build(length=30).inputs[0]
    rs.testing.check_monoid(Products, (A,), initial=np.arange(9).reshape(3, 3) + np.zeros_like(A[0]))


def test_the_first_sweep_of_the_recurrent_transformer_is_the_ordinary_layer():
    torch = pytest.importorskip("torch")
    arrays = drawn("recurrent_transformer", length=20)
    rec, x = get("recurrent_transformer").build(arrays), arrays["x"]
    norm = torch.nn.functional.layer_norm
    q, k, v = (norm(torch.tensor(x), x.shape[-1:]) @ torch.tensor(W.T) for W in arrays["W"][:3])
    q, k, v = (y.reshape(len(x), 1, 2, -1).permute(1, 2, 0, 3) for y in (q, k, v))
    age = torch.arange(len(x))[:, None] - torch.arange(len(x))
    bias = -age * torch.tensor(arrays["slopes"])[:, None, None]
    bias = bias.masked_fill(age < 0, -torch.inf)
    found = torch.nn.functional.scaled_dot_product_attention(q, k, v, attn_mask=bias[None])
    y = x + found.permute(2, 0, 1, 3).reshape(x.shape).numpy() @ arrays["W"][3].T
    inner = norm(torch.tensor(y), x.shape[-1:]).numpy()
    layer = y + np.maximum(inner @ arrays["W1"].T, 0) @ arrays["W2"].T
    np.testing.assert_allclose(rec.bind().evaluate(x), layer, atol=1e-13)
    sol = rs.solve(rec, method="jacobi", guess=x, options={"trace": True})
    assert (sol.trace.converged_prefix[:, 0] >= np.arange(sol.nit + 1)).all()


def test_the_cached_rows_of_a_layer_are_those_of_the_whole():
    arrays = drawn("recurrent_transformer", length=20)
    rec = get("recurrent_transformer").build(arrays)
    layer, p = recurrent_transformer.Layer(), rec.parameters
    y, u = np.random.default_rng(0).standard_normal(rec.shape), rec.drive_of_all
    first, rest = ({name: x[cut] for name, x in u.items()} for cut in (slice(0, 9), slice(9, None)))
    found = layer.window(layer.extend(None, y[:9], first, p), y[9:], rest, p)
    np.testing.assert_allclose(found, layer(y, u, p)[9:], atol=1e-14)


def test_the_weights_of_the_recurrent_transformer_have_gradients():
    """Those of what a row is made of; q, k and v of the input, from W too, are inputs."""
    arrays = drawn("recurrent_transformer", length=12)
    sol = rs.solve(get("recurrent_transformer").build(arrays), method="jacobi", tol=1e-13)
    c, W = np.random.default_rng(1).standard_normal(sol.states.shape), arrays["W"]
    g = rs.adjoint(sol, states=c)
    d = {n: np.random.default_rng(2).standard_normal(arrays[n].shape) for n in ("W1", "W2", "slopes")}

    def loss(step):
        return (c * ORACLES["recurrent_transformer"](arrays | {n: arrays[n] + step * x for n, x in d.items()})).sum()

    wanted = (loss(1e-6) - loss(-1e-6)) / 2e-6
    assert sum((g.parameters[n] * x).sum() for n, x in d.items()) == pytest.approx(wanted, rel=1e-6)
    assert g.parameters.W.shape == W.shape


def test_a_commitment_of_tokens_is_exact_only_where_it_waits():
    arrays = drawn("tokens_transformer", length=60)
    rec = get("tokens_transformer").build(arrays)
    truth = rs.solve(rec, method="sequential").states
    model = tokens.Transformer(arrays["E"], arrays["QKV"], arrays["R"])
    guess = np.zeros_like(truth)
    loop, passes = tokens.committed(model, arrays["noise"], 1.0, guess)
    np.testing.assert_array_equal(loop, truth)
    assert passes == 60
    once, passes = tokens.committed(model, arrays["noise"], 0.0, guess)
    assert passes == 1
    assert 0 < (once != truth).mean() < 1


def test_a_draft_does_not_change_what_is_found():
    config = get("hidden_transfer").config
    sol = rs.solve(get("hidden_transfer").build(seed=1), method="sequential")
    arrays = {**hidden_transfer.draw(config), "W": sol.recurrence.parameters.W}
    rec = get("hidden_transfer").build(arrays)
    truth = rs.solve(rec, method="sequential").states
    draft = hidden_transfer.Draft(sol, 4)
    states, found = hidden_transfer.verified(rec, draft, 4)
    np.testing.assert_array_equal(states, truth)
    assert sum(found) == config.length
    assert np.mean(found) > 1.5
    bad, lengths = hidden_transfer.verified(rec, lambda part: np.full(part.shape, 99), 4)
    np.testing.assert_array_equal(bad, truth)
    assert set(lengths) == {1}
    guessed = rs.solve(rec, method="jacobi", guess=draft)
    np.testing.assert_array_equal(guessed.states, truth)
    assert guessed.exact_prefix == config.length


def test_a_filter_saves_work_and_says_that_rows_are_accepted():
    train = get("learn2pd").build(gain=1.0)
    rule = learn2pd.Filter.fitted(train, 1e-2)
    arrays = {**drawn("learn2pd", gain=1.0, seed=3), "W": train.parameters.W}
    rec = get("learn2pd").build(arrays)
    full = rs.solve(rec, method="jacobi")
    early = rs.solve(rec, method="jacobi", options={"accept": rule})
    assert early.status == "accepted"
    assert early.stats["rows"] < 0.4 * full.stats["rows"]
    wrong = (np.abs(early.states - full.states).max(axis=-1) >= 1e-2).mean()
    assert wrong < 0.1
    shy = rs.solve(rec, method="jacobi", options={"accept": replace(rule, threshold=0.99)})
    assert early.nit < shy.nit < full.nit
    assert (np.abs(shy.states - full.states).max(axis=-1) >= 1e-2).mean() < wrong


@pytest.mark.parametrize("name", ["adder", "tree_inorder", "tokens_transformer", "recurrent_transformer"])
def test_a_comparison_races_what_applies_and_says_why_others_do_not(name):
    rows = list(race(get(name).build(length=30), ("sequential", "jacobi", "newton"), tol=None, maxiter=None))
    assert [row.status == "converged" for row in rows] == [True, True, False]
    assert "wanted" in rows[2].message
    assert rows[1].error <= 1e-12
    found = solved(name, "jacobi", settings=("length=30",))
    assert found["status"] == "converged"
    assert found["error"] <= 1e-12

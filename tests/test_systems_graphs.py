"""Systems on graphs and over depth: what each is beyond its loop."""

import numpy as np
import pytest
from oracles import ORACLES
from oracles.functions import sigmoid

import recsolve as rs
from recsolve.studies.systems import brnn, plstm, recurrent_depth
from recsolve.studies.systems.system import get


def drawn(name, **changes):
    system = get(name)
    return system.draw(type(system.config)(**{**vars(system.config), **changes}))


def differences(name, arrays, wrt, cotangent, change=1e-6, rng=None):
    """The derivative of sum(cotangent * states) along a random direction of one array, from the literal loop."""
    direction = np.random.default_rng(7).standard_normal(arrays[wrt].shape)
    values = [
        (cotangent * ORACLES[name]({**arrays, wrt: arrays[wrt] + sign * change * direction})).sum() for sign in (1, -1)
    ]
    return direction, (values[0] - values[1]) / (2 * change)


# pLSTM


@pytest.mark.parametrize("name", ["plstm_grid_p", "plstm_grid_d"])
def test_a_grid_is_the_sum_over_paths_of_products_of_transitions(name):
    arrays = drawn(name, length=16, batch=1, heads=1, keys=1, values=1)
    a, b, c = np.moveaxis(arrays["gates"][:, :, 0, 0], -1, 0)
    T = np.array([[a, a], [1 - a, 1 - a]] if name.endswith("p") else [[a, 0 * a], [b, c]])  # [to, from, x, y]
    moves = ((1, 0), (0, 1))  # of an edge to the right and of one down
    kv = (arrays["k"] * arrays["v"])[:, :, 0, 0, 0]
    expected = np.zeros((4, 4, 2))

    def follow(x, y, edge, gain):
        expected[x, y, edge] += gain
        x, y = x + moves[edge][0], y + moves[edge][1]
        if x < 4 and y < 4:
            for other in range(2):
                follow(x, y, other, gain * T[other, edge, x, y])

    for x, y in np.ndindex(4, 4):
        for edge, source in enumerate((a[x, y], 1 - a[x, y])):
            follow(x, y, edge, source * kv[x, y])
    found = rs.solve(get(name).build(arrays)).states[:, :, 0, 0, :, 0]
    np.testing.assert_allclose(found, expected, atol=1e-13)


def test_p_mode_keeps_the_sum_over_an_anti_diagonal_and_d_mode_every_gain_below_one():
    arrays = dict(drawn("plstm_grid_p", length=49, batch=1, heads=1, keys=1, values=1))
    for name in "kv":
        arrays[name] = np.zeros_like(arrays[name])
        arrays[name][0, 0] = 1.0
    gains = {mode: rs.solve(get(f"plstm_grid_{mode}").build(arrays)).states[:, :, 0, 0, :, 0] for mode in "pd"}
    x, y = np.indices((7, 7))
    for distance in range(7):
        assert gains["p"][x + y == distance].sum() == pytest.approx(1.0, abs=1e-14)
    assert gains["d"].max() <= 1
    arrays["gates"] = np.ones_like(arrays["gates"])
    found = rs.solve(get("plstm_grid_d").build(arrays)).states[:, :, 0, 0, :, 0]
    assert set(np.unique(found)) == {0.0, 1.0}  # one path leads to an edge, or none


def test_a_graph_in_p_mode_spreads_no_more_than_was_written():
    arrays = dict(drawn("plstm_graph", length=60, batch=1, heads=1, keys=1, values=1))
    edges, node = arrays["edges"], 0
    for name in "kv":
        arrays[name] = np.zeros_like(arrays[name])
        arrays[name][node] = 1.0
    states = rs.solve(get("plstm_graph").build(arrays)).states[:, 0, 0, 0]
    assert states[edges[:, 0] == node].sum() == pytest.approx(1.0)
    passing = [states[(edges[:, 0] < cut) & (edges[:, 1] >= cut)].sum() for cut in range(1, 50)]
    assert (np.diff(passing) <= 1e-14).all()
    assert passing[-1] > 0


def test_the_output_reads_the_edges_that_come_in():
    arrays = drawn("plstm_line", length=9)
    states = rs.solve(get("plstm_line").build(arrays)).states
    y = plstm.read(arrays, np.concatenate([np.zeros_like(states[:1]), states[:-1]]))
    q, k, v, T, S, M, D = (arrays[name] for name in "qkvTSMD")
    for t in range(9):  # attention over the past, with the products of the gates between
        expected = D[t, 1, 0] * (q[t, 1, 0] @ k[t, 1, 0]) * v[t, 1, 0]
        for s in range(t):
            gain = M[t, 1, 0, 0] * T[s + 1 : t, 1, 0].prod() * S[s, 1, 0]
            expected = expected + gain * (q[t, 1, 0] @ k[s, 1, 0]) * v[s, 1, 0]
        np.testing.assert_allclose(y[t, 1, 0], expected, atol=1e-13)


def test_gradients_of_a_grid_are_those_of_the_literal_loop():
    arrays = drawn("plstm_grid_p", length=16)
    rec = get("plstm_grid_p").build(arrays)
    sol = rs.solve(rec)
    cotangent = np.random.default_rng(1).standard_normal(sol.states.shape)
    g = rs.adjoint(sol, states=cotangent)
    direction, expected = differences("plstm_grid_p", arrays, "v", cotangent)
    outer = arrays["k"][..., :, None] * direction[..., None, :]
    assert (g.inputs["w"] * outer.reshape(g.inputs["w"].shape)).sum() == pytest.approx(expected, rel=1e-7)


# BRNN


def test_both_directions_are_two_solves_and_a_bidirectional_layer():
    arrays = drawn("brnn", length=30)
    found = rs.solve(get("brnn").build(arrays)).states
    x, Wx, W, b = (arrays[name] for name in ("x", "Wx", "W", "b"))
    for d, flip in enumerate((slice(None), slice(None, None, -1))):
        u = (x @ Wx[d].T + b[d])[flip]
        alone = rs.Recurrence.from_function(
            lambda h, u, W=W[d]: sigmoid(h @ W.T + u), inputs=u, initial=np.zeros(u.shape[1:])
        )
        np.testing.assert_allclose(found[d], rs.solve(alone).states[flip], atol=1e-12)
    y = brnn.read(arrays, found)
    np.testing.assert_allclose(y.sum(axis=-1), 1.0)
    np.testing.assert_allclose(
        np.log(y[3, 1]) - np.log(y[3, 1, 0]),
        (lambda s: s - s[0])(found[0, 3, 1] @ arrays["Wy"][0].T + found[1, 3, 1] @ arrays["Wy"][1].T + arrays["by"]),
    )


# seq2seq


def test_the_stack_is_that_of_torch_and_takes_layers_plus_steps_less_one_levels():
    torch = pytest.importorskip("torch")
    arrays = drawn("seq2seq_lstm", length=21)
    rec = get("seq2seq_lstm").build(arrays)
    L, n = arrays["Wh"].shape[1:3]
    assert rec.graph.depth == L + 21 - 1
    state, outputs = None, []
    for part, given in enumerate((arrays["source"][::-1].copy(), arrays["target"])):
        stack = torch.nn.LSTM(given.shape[-1], n, num_layers=L, dtype=torch.float64)
        with torch.no_grad():
            for layer in range(L):
                below = arrays["Wx"][part] if layer == 0 else arrays["Wbelow"][part, layer - 1]
                for name, weight in (("ih", below.T), ("hh", arrays["Wh"][part, layer].T)):
                    getattr(stack, f"weight_{name}_l{layer}").copy_(torch.from_numpy(weight.copy()))
                getattr(stack, f"bias_ih_l{layer}").copy_(torch.from_numpy(arrays["b"][part, layer].copy()))
                getattr(stack, f"bias_hh_l{layer}").zero_()
            output, state = stack(torch.from_numpy(given), state)
        outputs.append(output.numpy())
    found = rs.solve(rec).states
    np.testing.assert_allclose(found[-1, ..., :n], np.concatenate(outputs), atol=1e-12)
    np.testing.assert_allclose(found[:, -1], np.concatenate([s.numpy() for s in state], axis=-1), atol=1e-12)


def test_gradients_of_the_stack_reach_the_source():
    arrays = drawn("seq2seq_lstm", length=12)
    sol = rs.solve(get("seq2seq_lstm").build(arrays))
    cotangent = np.zeros_like(sol.states)
    cotangent[-1, -1] = np.random.default_rng(1).standard_normal(cotangent.shape[2:])
    g = rs.adjoint(sol, states=cotangent)
    direction, expected = differences("seq2seq_lstm", arrays, "source", cotangent)
    assert (g.inputs["x"][0, :6] * (direction[::-1] @ arrays["Wx"][0])).sum() == pytest.approx(expected, rel=1e-6)


# Depth


def test_positions_that_have_halted_stay_and_their_weights_sum_to_one():
    arrays = drawn("universal_act", length=24)
    sol = rs.solve(get("universal_act").build(arrays))
    H, c, y = sol.named.H, sol.named.c, sol.named.y
    halted = c == 1
    assert 1 < halted.sum(axis=0).min() < halted.sum(axis=0).max() < 24  # at different depths
    assert (np.diff(halted.astype(int), axis=0) >= 0).all()
    still = halted[:-1]
    np.testing.assert_array_equal(H[1:][still], H[:-1][still])
    np.testing.assert_array_equal(y[1:][still], y[:-1][still])
    weights = np.diff(c, axis=0, prepend=0)
    np.testing.assert_allclose(weights.sum(axis=0), 1.0)
    np.testing.assert_allclose(y[-1], (weights[..., None] * H).sum(axis=0), atol=1e-12)


@pytest.mark.parametrize(
    ("name", "wrt"),
    [("universal_transformer", "Wo"), ("universal_act", "Wqkv"), ("universal_act", "w"), ("cola_depth", "A")],
)
def test_gradients_over_depth_are_those_of_the_literal_loop(name, wrt):
    arrays = drawn(name, length=12)
    sol = rs.solve(get(name).build(arrays))
    assert rs.check_structure(sol.recurrence).ok
    assert name != "universal_act" or 0 < (sol.named.c == 1).mean() < 1  # some halt
    cotangent = np.random.default_rng(1).standard_normal(sol.states.shape)
    direction, expected = differences(name, arrays, wrt, cotangent)
    found = rs.adjoint(sol, states=cotangent).parameters[wrt]
    assert (found * direction).sum() == pytest.approx(expected, rel=1e-6)


def test_blocks_left_out_change_nothing_and_tokens_do_not_see_later_ones():
    arrays = dict(drawn("cola_depth", length=12))
    found = rs.solve(get("cola_depth").build(arrays)).named.H
    arrays["B"] = arrays["B"].copy()
    arrays["B"][int(arrays["path"][5])] = 0
    steps = np.diff(rs.solve(get("cola_depth").build(arrays)).named.H, axis=0, prepend=arrays["H"][None])
    assert (np.abs(steps).max(axis=(1, 2, 3)) == 0).tolist() == (arrays["path"] == arrays["path"][5]).tolist()
    later = {**drawn("cola_depth", length=12), "H": arrays["H"] + np.arange(4)[:, None] // 3}  # the last token
    np.testing.assert_allclose(rs.solve(get("cola_depth").build(later)).named.H[:, :, :3], found[:, :, :3], atol=1e-12)


def test_thought_depends_on_nothing_later_and_nothing_deeper():
    arrays = dict(drawn("think_at_hard", length=10))
    found = rs.solve(get("think_at_hard").build(arrays), method="sequential").states
    assert get("think_at_hard").build(arrays).graph.depth == 4
    runs = found[..., -1]
    assert 0 < runs[:, 0].mean() < 1  # some go on
    arrays["e"] = arrays["e"].copy()
    arrays["e"][6] += 1.0
    moved = rs.solve(get("think_at_hard").build(arrays), method="sequential").states
    assert (moved[:6] == found[:6]).all()
    assert (moved[6, 0] != found[6, 0]).any()
    assert (moved[9:, 0] == found[9:, 0]).all()  # out of the window at the first depth
    shallow = {**arrays, "sees": arrays["sees"][:2]}
    np.testing.assert_allclose(rs.solve(get("think_at_hard").build(shallow)).states, moved[:, :2], atol=1e-12)


def test_tokens_of_recurrent_depth_are_those_of_the_loop_by_any_solver():
    arrays = drawn("recurrent_depth", length=12)
    rec = get("recurrent_depth").build(arrays)
    expected = np.argmax(ORACLES["recurrent_depth"](arrays)[:, -1] @ arrays["C"].T, axis=-1)
    assert len(np.unique(expected)) > 1
    for method in ("jacobi", "newton", "quasi_newton"):
        np.testing.assert_array_equal(recurrent_depth.tokens(arrays, rs.solve(rec, method=method).states), expected)

"""Systems that are cells and chains: parity in integers, torch's modules, lattices, paths, samplers."""

import numpy as np
import pytest
from oracles import ORACLES
from oracles.poset import irreducible, kept, reach

import recsolve as rs
from recsolve.studies.systems import flash, leaky, m2rnn, poset, sparse
from recsolve.studies.systems.system import get

NAMES = (
    *("leaky_outer", "leaky_inner", "leaky_parity", "elman", "jordan", "lstm_review", "m2rnn", "lattice_pruned"),
    *("sparse_tanh", "sparse_relu", "sparse_gru", "sparse_lstm", "sparse_dag", "cfc", "hopfield", "gtf_deer"),
    *("mala_gaussian", "mala_wells", "hmc_gaussian", "hmc_wells", "leapfrog"),
)


def drawn(name, **changes):
    made = get(name)
    return made.draw(type(made.config)(**{**vars(made.config), **changes}))


@pytest.mark.parametrize("name", NAMES)
def test_tangents_are_differences_and_adjoints_are_transposed(name):
    rec = get(name).build(length=12)
    sol, rng = rs.solve(rec), np.random.default_rng(0)
    v, c = rng.standard_normal(rec.initial.shape), rng.standard_normal(rec.shape)
    moved = rs.tangent(sol, initial=v)
    ahead, behind = (
        rs.solve(rec.window(0, 12, rec.initial + step * v), method="sequential").states for step in (1e-6, -1e-6)
    )
    if name != "leaky_parity":  # of which every unit that is 0 lies on the kink of phi
        np.testing.assert_allclose(moved, (ahead - behind) / 2e-6, rtol=1e-4, atol=1e-6 * max(1, abs(moved).max()))
    g = rs.adjoint(sol, states=c)
    assert (g.initial * v).sum() == pytest.approx((moved * c).sum(), rel=1e-9, abs=1e-12)


# Leaky tau RNN ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("window", [1, 5, 16])
def test_the_parity_network_counts_in_integers(window):
    arrays = drawn("leaky_parity", length=5000, batch=1, window=window)
    bits = arrays["x"][:, 0, 0].astype(int)
    total = np.concatenate([[0], np.cumsum(bits)])
    t = np.arange(len(bits))
    expected = (total[t] - total[np.maximum(t - window, 0)]) % 2
    states = rs.solve(leaky.outer(arrays), method="sequential").states
    np.testing.assert_array_equal(leaky.parity(states)[:, 0], expected)
    short = leaky.outer({**arrays, "x": arrays["x"][:200]})
    for method in ("newton", "jacobi"):
        sol = rs.solve(short, method=method)
        np.testing.assert_array_equal(leaky.parity(sol.states)[:, 0], expected[:200])
    assert sol.nit <= window + 2  # from h[0], with an empty window, every state is a function of the last inputs


def test_without_weights_units_decay_by_their_time_constants():
    arrays = drawn("leaky_inner", length=50)
    arrays |= {name: 0 * arrays[name] for name in "WVb"}
    decay = (1 - 1 / arrays["tau"]) ** np.arange(1, 51)[:, None, None]
    np.testing.assert_allclose(
        rs.solve(leaky.inner(arrays), method="sequential").states, decay * arrays["initial"], rtol=1e-12
    )


def test_a_unit_does_not_see_itself_and_its_weight_has_no_gradient():
    rec = leaky.outer(drawn("leaky_outer", length=30, tau=1.0) | {"tau": np.ones(24)})
    sol = rs.solve(rec)
    assert not np.diagonal(rec.linearise(sol.states)[1].todense(), axis1=-2, axis2=-1).any()
    g = rs.adjoint(sol, states=np.ones_like(sol.states)).mixings.h
    assert not np.diagonal(g).any()
    assert np.count_nonzero(g) == 24 * 23


# The review, and masked cells: torch's modules ----------------------------------------------------------------------

TORCH = {
    "elman": ("RNN", (0,), {}),
    "lstm_review": ("LSTM", (0, 1, 2, 3), {}),
    "sparse_tanh": ("RNN", (0,), {}),
    "sparse_relu": ("RNN", (0,), {"nonlinearity": "relu"}),
    "sparse_gru": ("GRU", (0, 1, 2), {}),
    "sparse_lstm": ("LSTM", (0, 1, 2, 3), {}),
}


@pytest.mark.parametrize("name", TORCH)
def test_cells_are_those_of_torch(name):
    torch = pytest.importorskip("torch")
    kind, gates, settings = TORCH[name]
    arrays = drawn(name, length=60)
    W = arrays["W"] * arrays.get("M", np.ones_like(arrays["W"]))
    inner = np.zeros_like(arrays["b"])
    if kind == "GRU":
        inner[2] = arrays["b"][3]
    module = getattr(torch.nn, kind)(arrays["U"].shape[-1], W.shape[-1], dtype=torch.float64, **settings)
    values = {"weight_ih_l0": arrays["U"], "weight_hh_l0": W, "bias_ih_l0": arrays["b"], "bias_hh_l0": inner}
    with torch.no_grad():
        for parameter, value in values.items():
            getattr(module, parameter).copy_(torch.tensor(np.concatenate([value[k] for k in gates])))
        expected = module(torch.tensor(arrays["x"]))[0].numpy()
    np.testing.assert_allclose(rs.solve(get(name).build(arrays)).output, expected, rtol=1e-10, atol=1e-12)


# M2RNN --------------------------------------------------------------------------------------------------------------


def test_m2rnn_takes_the_iterations_of_its_hardest_row():
    arrays = drawn("m2rnn", length=100, heads=1, rows=6)
    counts = []
    for row in range(6):
        one = {**arrays, **{name: arrays[name][..., row : row + 1] for name in "qk"}}
        counts.append(rs.solve(m2rnn.make(one), method="newton").nit)
    assert rs.solve(m2rnn.make(arrays), method="newton").nit == max(counts)


def test_the_output_of_the_slstm_and_about_how_hard_it_is_do_not_depend_on_where_m_begins():
    """Single draws take several times the iterations from one of the beginnings, either one: no rule follows."""
    counts = []
    for seed in range(6):
        arrays = drawn("flash_slstm", length=128, batch=1, heads=1, gain=0.3, seed=seed)
        sols = [rs.solve(flash.made(rs.cells.SLSTM, "ifzo", arrays, m=m), method="newton") for m in (-np.inf, 0.0)]
        np.testing.assert_allclose(*(sol.named["y"] for sol in sols), rtol=1e-9, atol=1e-12)
        counts.append([sol.nit for sol in sols])
    ratios = np.divide(*np.transpose(counts))
    assert 0.5 < np.median(ratios) < 2
    assert ratios.max() > 1.1
    assert ratios.min() < 0.9


def test_m2rnn_begins_with_a_diagonal_jacobian():
    rec = m2rnn.make(drawn("m2rnn", length=60, noise=0.0))
    newton, quasi = (rs.solve(rec, method=method) for method in ("newton", "quasi_newton"))
    assert newton.nit == quasi.nit
    assert rs.solve(get("m2rnn").build(length=60), method="quasi_newton").nit > newton.nit


def test_m2rnn_without_a_gate_is_a_network_and_reads_its_rows():
    arrays = drawn("m2rnn", length=40, heads=1, rows=1)
    arrays["f"] = 0 * arrays["f"]
    states = rs.solve(m2rnn.make(arrays)).states
    drive = arrays["k"][:, :, 0] * arrays["v"][:, :, 0]
    plain = rs.cells.Elman.with_weights(mixings={"h": rs.mixings.Dense(arrays["W"][0].T)}).recurrence(
        drive={"h": drive}
    )
    np.testing.assert_allclose(states[:, :, 0, 0], rs.solve(plain, method="sequential").states, rtol=1e-10, atol=1e-12)
    arrays = drawn("m2rnn", length=5)
    states = ORACLES["m2rnn"](arrays)
    y = m2rnn.output(arrays, states)
    np.testing.assert_allclose(y[3, 0, 1], arrays["q"][3, 0, 1] @ states[3, 0, :, 1], rtol=1e-12)


# Lattice pruning ----------------------------------------------------------------------------------------------------


def of_pairs(n, pairs):
    feeds = np.zeros((n, n), bool)
    for a, b in pairs:
        feeds[b, a] = True
    return feeds


@pytest.mark.parametrize(
    ("feeds", "expected"),
    [
        (of_pairs(4, [(0, 1), (1, 2), (2, 3)]), [True, True, True, False]),  # a chain: the top covers nothing
        (of_pairs(3, []), [True, True, True]),  # an antichain: below the top that the completion adds
        (of_pairs(4, [(0, 1), (0, 2), (1, 3), (2, 3)]), [False, True, True, False]),  # a square: 0 is a meet of two
        (of_pairs(4, [(0, 2), (0, 3), (1, 2), (1, 3)]), [True, True, True, True]),  # the completion puts one between
        (of_pairs(4, [(0, 1), (1, 0), (1, 2), (2, 3)]), [True, True, True, False]),  # a cycle is one element
        (of_pairs(2, [(0, 1), (1, 0)]), [False, False]),  # all is one element
        (of_pairs(1, []), [False]),
    ],
)
def test_neurons_are_kept_where_they_are_meet_irreducible(feeds, expected):
    assert poset.meet_irreducible(poset.order(feeds)).tolist() == expected == kept(feeds).tolist()


def test_the_rule_is_that_of_the_lattice_on_random_orders():
    rng, seen = np.random.default_rng(0), set()
    for trial in range(150):
        n = int(rng.integers(2, 11))
        feeds = rng.random((n, n)) < rng.choice([0.1, 0.2, 0.4])
        if trial % 3:
            feeds = np.tril(feeds, -1)  # without cycles
        below = poset.order(feeds)
        np.testing.assert_array_equal(below, reach(feeds))
        np.testing.assert_array_equal(poset.meet_irreducible(below), kept(feeds))
        seen |= set(kept(feeds).tolist())
        if trial % 3:
            np.testing.assert_array_equal(kept(feeds), irreducible(below))
    assert seen == {True, False}


# Sparse networks ----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("path", [1, 4, 7])
def test_jacobi_is_exact_after_the_longest_path_whatever_the_length(path):
    for length in (50, 1000):
        arrays = drawn("sparse_dag", length=length, path=path)
        assert sparse.longest_path(arrays["M"][0]) == path
        rec, expected = sparse.network(arrays), ORACLES["sparse_dag"](arrays)
        guess = np.random.default_rng(0).standard_normal(rec.shape)
        for sweeps in (path, path + 1):
            sol = rs.solve(rec, method="jacobi", guess=guess, maxiter=sweeps, tol=1e-13)
            exact = np.allclose(sol.states, expected, rtol=1e-12, atol=1e-13)
            assert exact == (sweeps > path)


def test_longest_paths():
    assert sparse.longest_path(np.zeros((3, 3), bool)) == 0
    assert sparse.longest_path(np.tri(5, k=-1, dtype=bool)) == 4
    assert sparse.longest_path(of_pairs(4, [(0, 1), (2, 3)])) == 1
    assert sparse.longest_path(np.eye(2, dtype=bool)) is None


# Retrieval, forcing, sampling ---------------------------------------------------------------------------------------


def test_hopfield_retrieves_far_patterns_in_one_step():
    arrays = drawn("hopfield", length=3, width=64, patterns=6, queries=6, beta=1.0, noise=0.3)
    first = rs.solve(get("hopfield").build(arrays)).states[0]
    assert np.abs(first - arrays["X"].T).max() < 1e-6 < np.abs(arrays["xi"] - arrays["X"].T).max()


def test_forcing_all_the_way_leaves_no_recurrence():
    rec = get("gtf_deer").build(length=64, alpha=1.0)
    assert not rec.linearise(rs.solve(rec).states)[1].todense().any()
    assert rs.solve(rec, method="jacobi").nit <= 1


@pytest.mark.parametrize("name", ["mala_gaussian", "hmc_gaussian"])
def test_chains_sample_their_target(name):
    arrays = drawn(name, length=3000, chains=16, step=0.3)
    x = rs.solve(get(name).build(arrays), method="sequential").states
    accepted = (x[1:] != x[:-1]).any(axis=-1).mean()
    covariance = np.cov(x[200:].reshape(-1, x.shape[-1]).T)
    assert 0.5 < accepted < 1
    np.testing.assert_allclose(covariance @ arrays["precision"], np.eye(x.shape[-1]), atol=0.1)


@pytest.mark.parametrize("name", ["mala_wells", "hmc_wells"])
def test_chains_visit_both_wells_and_rejected_steps_have_slope_one(name):
    rec = get(name).build(length=2000, chains=8, step=0.8)
    states = rs.solve(rec, method="sequential").states
    assert 0.35 < (states > 0).mean() < 0.65
    J = rec.linearise(states)[1].data
    before = np.concatenate([rec.initial[None], states[:-1]])
    stayed = (states == before).all(axis=-1)
    assert 0.05 < stayed.mean() < 0.95
    assert (J[stayed] == 1).all()
    assert (J[~stayed] != 1).mean() > 0.99


def test_leaps_keep_energy_and_go_back():
    arrays = drawn("leapfrog", length=5, step=0.01)
    x, v = np.moveaxis(rs.solve(get("leapfrog").build(arrays)).states[-1], 1, 0)
    energy = lambda x, v: ((x * x - 1) ** 2 / 4 + v * v / 2).sum(axis=-1)  # noqa: E731
    np.testing.assert_allclose(energy(x, v), energy(arrays["initial"], arrays["noise"][0]), rtol=1e-3)
    back = {**arrays, "initial": x, "noise": np.repeat(-v[None], 5, axis=0)}
    returned = rs.solve(get("leapfrog").build(back)).states[-1][:, 0]
    np.testing.assert_allclose(returned, arrays["initial"], rtol=1e-9, atol=1e-12)

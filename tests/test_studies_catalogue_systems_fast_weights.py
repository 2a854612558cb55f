"""What the studies of systems with fast weights claim, on their tiny grids."""

import numpy as np
import pytest

import recsolve as rs
from recsolve.studies.catalogue import cached_recall, lact_picard, ttt_staleness
from recsolve.studies.compare.measure import loop
from recsolve.studies.systems import lact


def test_long_chunks_cost_accuracy_and_rates(ran):
    facts, data = ran("staleness")
    errors, rates = (facts[f"{ttt_staleness.TTT}.{part}"] for part in ("error", "rate"))
    assert errors[0] < errors[-1]
    assert rates[0] > rates[-1]
    together, alone = (min(facts[f"{name}.error"]) for name in (ttt_staleness.PLAIN, ttt_staleness.GLOBAL))
    assert together < alone
    assert min(facts[f"{ttt_staleness.TNT}.error"]) > together  # the claim for projected queries does not hold here
    assert facts[f"{ttt_staleness.TNT}.depth"] == [4 + 64 / chunk for chunk in data["chunk"].values]


def test_values_of_the_task_are_those_of_its_map():
    given, truth = ttt_staleness.task(T=400, units=4, memory=1e9, noise=0.0, seed=1, dtype="float64")
    A = np.linalg.lstsq(given["k"][:, 0], given["v"][:, 0])[0]
    np.testing.assert_allclose(given["q"][:, 0] @ A, truth[:, 0], atol=1e-2)
    assert ttt_staleness.fitted((0.5 * truth,), truth) < 1e-14


def test_the_projector_of_rows_solves_where_the_identity_does_not(ran):
    facts, data = ran("lact")
    last = int(data["T"].max()) - 1
    assert facts[f"lact_norm.{lact_picard.PICARD}"] == [last, last] == facts[f"lact_norm.{lact_picard.JACOBI}"]
    assert facts[f"lact_norm.{lact_picard.ROWS}"][0] <= 5
    assert facts[f"lact_norm.{lact_picard.ROWS}"][1] <= 12
    assert facts[f"lact.{lact_picard.PICARD}"][0] <= 5
    newton, rows = (facts[f"lact_muon.{A}"] for A in (lact_picard.NEWTON, lact_picard.ROWS))
    assert newton[0] > last / 2  # steps of Muon are as large as the weights
    assert newton[1] <= 0.7 * newton[0]  # they are small beside the weights
    assert facts[f"lact_muon.{lact_picard.PICARD}"] == [last, last]
    assert rows[1] < last
    assert facts["error"] < 1e-6


@pytest.mark.parametrize("name", ["lact_norm", "lact_muon"])
def test_the_projector_keeps_rows_as_long_as_they_are(name):
    rec = lact_picard.MAKERS[name](lact.draw(lact.Config(length=5)))
    states = loop(rec)

    class Problem:
        recurrence = rec

    class Iterate:
        values = states

    A = lact_picard.RowProjector().preconditioner(Problem, Iterate)
    v = np.random.default_rng(0).standard_normal(states.shape)
    moved, rows = rec.named(A.matvec(v)), rec.named(states)
    for W in ("W0", "W1", "W2"):
        assert abs((moved[W] * rows[W]).sum(axis=-1)).max() < 1e-12
        np.testing.assert_allclose(rec.named(A.matvec(A.matvec(v)))[W], moved[W], atol=1e-12)
    if name == "lact_muon":
        mu = rec.contain(rec.inputs)["mu"][..., None, None]
        np.testing.assert_allclose(moved["m1"], mu * rec.named(v)["m1"])


def test_recall_grows_from_one_memory_to_attention(ran):
    facts, _ = ran("memory_caching")
    assert len({*facts["residual"]}) == 1
    assert facts["grm"][0] == facts["ssc"][0] == facts["residual"][0] > 0.4
    assert facts["grm"][-1] == facts["ssc"][-1] == 0
    assert facts["ssc.reads"][-1] <= 3 < facts["grm.reads"][-1]
    assert facts["dla soup"] == pytest.approx(facts["dla grm"], abs=0.1)
    assert facts["dla grm"][0] > facts["dla grm"][1] > facts["dla grm"][-1] == facts["dla soup"][-1] == 0
    assert facts["moved"] > 0.1  # what is read is not the same


def test_a_soup_of_one_memory_is_that_memory_and_of_slow_networks_the_sum_of_their_answers():
    apart = {}
    for segments, rate in ((1, 1.0), (4, 1.0), (4, 1e-4)):
        arrays, _, _ = cached_recall.task(segments=segments, seed=0, T=24, keys=4, words=8, dtype="float64")
        arrays = cached_recall.network(arrays, hidden=6, rate=rate, seed=0)
        soup, sums = (rs.solve(cached_recall.caching.dla(arrays, read)).output for read in ("soup", "grm"))
        apart[segments, rate] = np.linalg.norm(soup - sums) / np.linalg.norm(sums)
    assert apart[1, 1.0] < 1e-14
    assert apart[4, 1e-4] < 1e-6 < 1e-3 < apart[4, 1.0]


def test_a_segment_for_each_step_is_softmax_attention():
    arrays, _, _ = cached_recall.task(segments=20, seed=0, T=20, keys=4, words=8, dtype="float64")
    arrays["u"] = 3 * arrays["q"]
    k, v, q = (arrays[name][:, 0] for name in "kvq")
    rec = cached_recall.caching.linear(arrays)
    sharp = np.tril(np.exp(3 * q @ k.T))
    expected = (sharp * (q @ k.T) / sharp.sum(axis=1, keepdims=True)) @ v
    gamma = cached_recall.caching.weights(arrays, "grm")
    y = cached_recall.caching.linear_readout(rec.named(loop(rec)), {"gamma": gamma, "q": arrays["q"]})
    np.testing.assert_allclose(y[:, 0], expected, rtol=1e-12, atol=1e-12)

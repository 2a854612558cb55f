"""What the studies of systems that scans solve claim, on their tiny grids."""

import numpy as np
import pytest

from recsolve.studies.catalogue import chunks, paper_convssm, paper_fsmn, paper_jrt, paper_lssl, paper_tfla


def test_quotients_fail_where_float32_ends_and_scans_do_not(ran):
    facts, data = ran("chunks")
    assert facts["scan.error"] < 1e-6
    for bias in data["bias"].values:
        predicted, found = facts[f"{bias:g}.predicted"], facts[f"{bias:g}.{chunks.QUOTIENT}"]
        assert 0 < found < predicted
        assert found * 8 > min(predicted, float(data["chunk"].max()))
    assert facts[f"-2.{chunks.QUOTIENT}"] == 16
    assert facts[f"6.{chunks.QUOTIENT}"] == 256


def test_differences_of_running_sums_lose_digits_with_the_length_of_chunks(ran):
    facts, _ = ran("chunks")
    assert facts["-2.growth"] > 10 > facts["6.growth"]
    assert facts[f"-2.{chunks.DIFFERENCE}.error"] > 10 * facts["scan.error"]


def test_both_chunked_forms_are_gated_linear_attention_in_double(monkeypatch):
    monkeypatch.setattr(chunks, "EPSILON", 0.0)
    system = chunks.get("gla")
    arrays = system.draw(type(system.config)(length=50, batch=1))
    expected = chunks.gla.chunked(arrays, 1)
    np.testing.assert_allclose(chunks.differences(arrays, 16), expected, rtol=1e-11, atol=1e-12)


def test_depth_does_not_depend_on_the_time_constant(ran):
    facts, _ = ran("paper/lssl")
    layers, jacobi = facts[paper_lssl.DEPTH], facts["jacobi"]
    assert max(layers) < 1.5 * max(facts["quasi_newton"])
    assert max(layers) < 2 * min(layers)
    assert max(jacobi) > 4 * min(jacobi)
    assert jacobi[-1] == layers[-1]  # g = 1: no leak
    assert max(facts["newton"]) <= 4


def test_legs_is_lost_through_eigenvectors_and_not_by_matrices(ran):
    facts, _ = ran("paper/lssl")
    assert facts["N"] == [4, 12, 32]
    assert facts[paper_lssl.EIGEN][0] < 1e-11
    assert facts[paper_lssl.EIGEN][-1] > 1
    assert max(facts[paper_lssl.DENSE]) < 1e-13
    assert facts["condition"][-1] > 1e16


def test_a_layer_serves_other_rates_if_its_step_is_scaled(ran):
    facts, _ = ran("paper/lssl")
    assert facts["rates"] == [0.5, 1.0, 2.0]
    for name in (*paper_lssl.ALPHAS, paper_lssl.KEPT):
        assert facts[f"{name}.moved"][1] == 0
    euler, middle, backward = (facts[f"{name}.moved"] for name in paper_lssl.ALPHAS)
    assert max(middle) < 0.1
    assert max(middle) < max(backward) < 0.15 < max(euler)
    assert min(facts[f"{paper_lssl.KEPT}.moved"][::2]) > 0.8


def test_a_filter_of_n_taps_is_n_sweeps_of_jacobi(ran):
    facts, data = ran("paper/fsmn")
    assert facts["jacobi.from_taps"] < 1e-14
    assert facts["scan.error"] < 1e-14
    for decay in data["decay"].values:
        assert 0.1 < facts[f"{decay:g}.over_bound"] < 1.000001
        assert facts[f"{decay:g}.dilated"] > facts[f"{decay:g}.plain"]
    assert facts["0.5.taps"] == 20
    assert facts["0.97.taps"] == 0  # none of those tried


def test_what_is_read_twice_takes_the_memory_of_the_smaller_set(ran):
    facts, data = ran("paper/jrt")
    small, large = paper_jrt.ORDERS
    assert (facts["small"], facts["large"]) == (2, 8)
    assert facts[f"{small}, {paper_jrt.ONCE}"] == 2
    assert facts[f"{large}, {paper_jrt.ONCE}"] == 8
    assert facts[f"{small}, {paper_jrt.TWICE}"] == facts[f"{large}, {paper_jrt.TWICE}"] == 2
    assert float(data["success"].min()) >= 0.5  # what sets do not share is never found


def test_convs5_and_convlstm_are_solved_by_all_ways(ran):
    facts, data = ran("paper/convssm")
    assert facts["error"] < 1e-5
    assert (data["seconds"] > 0).all()
    assert facts["iterations"] <= 6
    assert facts[paper_convssm.SCAN] > 1


def test_exponential_gates_need_a_maximum_and_sigmoids_none(ran):
    facts, data = ran("paper/tfla")
    assert facts[f"{paper_tfla.NAIVE}.ends"] == data["spread"].max() == 100
    assert facts[f"{paper_tfla.EXP}.ends"] == facts[f"{paper_tfla.SIGMOID}.ends"] == 0
    assert facts[f"{paper_tfla.SIGMOID}.error"] < 1e-5 < 10 * facts[f"{paper_tfla.EXP}.error"]


@pytest.mark.parametrize("taps", [1, 7])
def test_jacobi_stopped_after_n_sweeps_is_the_filter_itself(taps):
    rows = paper_fsmn.run(decay=0.8, N=taps, seed=0, length=50, units=2, dtype="float64")
    assert next(row for row in rows if row["solver"] == paper_fsmn.JACOBI)["from_taps"] < 1e-15

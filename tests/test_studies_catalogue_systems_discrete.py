"""What the studies of discrete systems and histories claim, on their tiny grids."""

import numpy as np
import pytest
from tiny_studies import tiny

from recsolve.studies.catalogue import carry
from recsolve.studies.registry import get


@pytest.fixture
def ran(tmp_path_factory):
    def facts(name):
        return get(name).facts(tiny(name, tmp_path_factory).read())

    return facts


def test_carries_cut_short_are_right_but_for_one_in_a_power_of_two_and_never_over_long_runs(ran):
    facts = ran("carry")
    assert facts["carries of a sum.long"] == facts["successors, whole.long"] == 0
    assert facts["carries of a sum.off"] < 0.15  # the first bits have no carry to wait for
    assert facts["successors, whole.off"] < 0.15
    assert facts["carries of a sum.right"] == sorted(facts["carries of a sum.right"])


def test_trees_cut_short_are_right_up_to_a_height_and_never_as_a_whole(ran):
    facts = ran("carry")
    assert facts[f"{carry.TREES}.off"] < 1e-12
    assert facts[f"{carry.TREES}.long"] == 0 == facts["root"]
    assert facts[f"{carry.TREES}.right"][-1] > 0.7
    assert facts["height"][0] > facts["sweeps"]
    assert carry.heights(np.array([[1, 2], [-1, 3], [-1, -1], [-1, -1]])).tolist() == [3, 2, 1, 1]


def test_tokens_take_more_sweeps_the_longer_they_are_remembered(ran):
    facts = ran("token_sweeps")
    assert facts["0.5.1"][-1] < facts["0.5.3"][-1] < facts["4.3"][-1]
    assert facts["0.5.1"][-1] < facts["4.1"][-1]
    assert facts["0.5.1"][-1] < facts["T"][-1] / 8
    for sharpness in ("0.5", "4"):
        lost, passes = facts[f"{sharpness}.lost"], facts[f"{sharpness}.passes"]
        assert lost[1.0] == 0 < lost[0.0]  # lossless only where every token waits for its turn
        assert passes[0.0] < passes[0.5] < passes[1.0] == 1


def test_words_are_one_newton_step_and_a_path_as_many_as_it_is_long(ran):
    facts = ran("state_maps")
    T = facts["T"]
    assert facts["words in S5.newton"] == 1
    assert facts["words in S5.jacobi"] >= T - 2
    assert facts["pointer along a path.newton"] == facts["pointer along a path.jacobi"] == T - 1
    assert facts["pointer, random edges.newton"] < facts["pointer, random edges.jacobi"] < T - 1
    assert facts["pointer along a path.scan, depth"] == np.log2(T)


def test_the_recurrent_transformer_takes_more_sweeps_the_larger_its_weights(ran):
    facts = ran("recurrent_transformer")
    assert facts["worst_error"] < 1e-13
    assert facts["0.5.counts"][-1] < facts["2.counts"][-1] <= facts["T"][-1]
    assert facts["0.5.ordinary"] < 0.2 < facts["2.ordinary"]


def test_drafts_find_more_the_nearer_steps_are_to_lines(ran):
    facts = ran("hidden_transfer")
    assert facts["exact"]
    assert facts["k"] == [1, 4]
    assert facts["0.1.found"][1] > facts["1.found"][1] > facts["1.found"][0] > 1
    assert facts["0.1.found"][1] == pytest.approx(facts["0.1.expected"][1], rel=0.15)

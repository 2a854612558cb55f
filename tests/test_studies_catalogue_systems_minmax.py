"""What MinMax cells remember, on the tiny grid."""

import json

import numpy as np
import pytest
from tiny_studies import tiny

from recsolve.studies.catalogue import minmax_parity
from recsolve.studies.registry import get


@pytest.fixture(scope="module")
def data(tmp_path_factory):
    return tiny("minmax_parity", tmp_path_factory).read()


def test_a_matrix_holds_the_parity_of_all_bits_and_no_cascade_does(data):
    facts = minmax_parity.facts(data)
    assert facts["2 x 2 matrix.all"] == [1.0, 1.0]
    assert facts["2 x 2 matrix.states"] == 2
    for cell in minmax_parity.CASCADES:
        assert 0.44 < facts[f"{cell}.all"][0] <= facts[f"{cell}.all"][1] < 0.56
    assert facts["4 layers, of one step.bits"] == 1
    assert facts["1 layer, of two steps.bits"] == 2
    assert (data["status"] == "converged").all()


def test_what_it_says_and_draws(data):
    text = get("minmax_parity").pictures[0].says(data)
    assert "in 100% of the steps" in text
    assert "4 layers, of one step, 1; 1 layer, of two steps, 2; " in text
    json.dumps(minmax_parity.facts(data))


def test_the_best_reading_is_a_table_that_is_tested_on_other_steps():
    names = np.array([0, 1, 0, 1, 0, 1, 0, 2])
    parity = np.array([0, 1, 0, 1, 0, 0, 0, 1])
    assert minmax_parity.best_reading(names, parity) == (1 + 0 + 1 + 0.5) / 4

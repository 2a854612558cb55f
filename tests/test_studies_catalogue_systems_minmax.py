"""What MinMax cells remember, and how diffusion models are sampled, on tiny grids."""

import json

import numpy as np
import pytest
from tiny_studies import tiny

from recsolve.studies.catalogue import htm_sweeps, minmax_parity, paper_paradigms
from recsolve.studies.registry import get


@pytest.fixture
def ran(tmp_path_factory):
    """Return the facts and the data of a study."""

    def found(name):
        data = tiny(name, tmp_path_factory).read()
        return get(name).facts(data), data

    return found


# minmax_parity


def test_a_matrix_holds_the_parity_of_all_bits_and_no_cascade_does(ran):
    facts, data = ran("minmax_parity")
    assert facts["2 x 2 matrix.all"] == [1.0, 1.0]
    assert facts["2 x 2 matrix.states"] == 2
    for cell in minmax_parity.CASCADES:
        assert 0.44 < facts[f"{cell}.all"][0] <= facts[f"{cell}.all"][1] < 0.56
    assert facts["4 layers, of one step.bits"] == 1
    assert facts["1 layer, of two steps.bits"] == 2
    assert (data["status"] == "converged").all()


def test_what_is_said_of_parity(ran):
    facts, data = ran("minmax_parity")
    text = get("minmax_parity").pictures[0].says(data)
    assert "tells it in 100% of the steps" in text
    most = max(facts[f"{cell}.bits"] for cell in minmax_parity.CASCADES)
    assert f"hold that of up to {most} last bits" in text
    json.dumps(facts)


def test_the_best_reading_is_a_table_that_is_tested_on_other_steps():
    names = np.array([0, 1, 0, 1, 0, 1, 0, 2])
    parity = np.array([0, 1, 0, 1, 0, 0, 0, 1])
    assert minmax_parity.best_reading(names, parity) == (1 + 0 + 1 + 0.5) / 4


# htm


def test_novelties_bound_the_sweeps_of_a_sequence_memory(ran):
    facts, data = ran("htm")
    assert facts["error"] == 0
    assert (data["status"] == "converged").all()
    for word in (5, 20):
        sweeps = facts[str(word)]
        assert sweeps[0] < word
        assert sweeps[-1] <= 2 < sweeps[0]
        assert facts[f"{word}.over"] <= 0
    assert facts["20"][0] > facts["5"][0]
    assert htm_sweeps.longest(np.array([False, True, True, False, True])) == 3
    assert htm_sweeps.longest(np.array([True, True, True])) == 4


# paper/paradigms


def test_iterations_grow_slower_than_the_steps_of_a_sampler_but_for_jacobi(ran):
    facts, data = ran("paper/paradigms")
    first, last = facts["T"]
    for cell in paper_paradigms.SAMPLERS:
        for solver in ("newton", "quasi_newton", "picard", paper_paradigms.LOOSE):
            few, many = facts[f"{cell}.{solver}"]
            assert many / few < 0.7 * last / first
        assert facts[f"{cell}.jacobi"] == [first - 1, last - 1]
        assert facts[f"{cell}.newton"][1] < facts[f"{cell}.picard"][1] < last / 1.5
        assert 1e-3 < facts[f"{cell}.loose"] < 0.1
    assert float(data["relative"].sel(solver=["newton", "picard"]).max()) < 1e-14
    assert f"7 (DDPM) at T = {last}" in get("paper/paradigms").pictures[0].says(data)

"""What studies of systems claim, on their tiny grids: memory, matrix states, sparsity, chains, forcing."""

import numpy as np

from recsolve.studies.catalogue import mala, matrix_states, memory_routes, sparsity


def test_quasi_newton_minds_the_route_to_a_long_memory_and_newton_does_not(ran):
    facts, data = ran("memory_routes")
    assert facts["quasi_newton.tau"] < 0.7 * facts["quasi_newton.gain"]
    assert abs(facts["newton.tau"] - facts["newton.gain"]) <= 2
    assert set(np.unique(data["status"])) == {"", "converged"}  # levels are those of one route or of the other
    assert set(data["solver"].values) == set(memory_routes.SOLVERS)
    memory = data["memory"].sel(solver="newton", route="tau").median("seed").dropna("level")
    assert memory[-1] > 4 * memory[0] > 0


def test_iterations_hardly_grow_with_the_rows_of_a_matrix_state(ran):
    facts, _ = ran("matrix_states")
    assert facts["same_at_first"]
    assert facts["rows"] == [1, 8]
    for noise in ("0", "1"):
        few, many = facts[f"newton.{noise}"]
        assert few <= many <= 2 * few
    assert facts["quasi_newton.1"][1] > 2 * facts["newton.1"][1]
    assert matrix_states.SOLVERS == ("newton", "quasi_newton")


def test_jacobi_takes_as_many_sweeps_as_the_longest_path_has_edges(ran):
    facts, data = ran("sparsity")
    assert facts["beyond_path"] == [0.0, 0.0]
    assert facts["spread_over_T"] == 0.0
    assert facts["lengths"] == [32, 128]
    assert np.isfinite(data["iterations"].sel(cell=sparsity.LAYERED, solver="jacobi").values).sum() == 8


def test_pruning_contracts_and_saves_most_for_solvers_that_lack_the_matrix(ran):
    facts, _ = ran("sparsity")
    for cell in sparsity.CELLS:
        before, after = facts[f"{cell}.exponent"]
        assert after < before
        assert facts[f"{cell}.quasi_newton"][1] <= facts[f"{cell}.quasi_newton"][0]
    assert facts["tanh.jacobi"][1] < 0.7 * facts["tanh.jacobi"][0]
    assert facts["lstm.newton"][0] <= 1.5 * facts["lstm.newton"][1]


def test_gaussian_chains_take_few_iterations_and_wells_many_where_steps_are_long(ran):
    facts, data = ran("mala")
    for sampler in ("mala", "hmc"):
        assert max(facts[f"{sampler}_gaussian.newton"]) <= 8
        short, long = facts[f"{sampler}_wells.newton"]
        assert long > 2 * short
        assert facts[f"{sampler}_wells.accepted"][0] > facts[f"{sampler}_wells.accepted"][1]
    assert facts["mala_gaussian.exponent"][1] < facts["mala_gaussian.exponent"][0] < 0
    assert set(data["chain"].values) == set(mala.CHAINS)


def test_forcing_contracts_and_few_iterations_need_more_of_it(ran):
    facts, _ = ran("teacher_forcing")
    free, middle, most = facts["exponent"]
    assert free > 0 > middle > most
    assert facts["newton"][0] > 0.5 * facts["T"] > 8 * facts["newton"][-1]
    assert facts["newton"][-1] <= 4 < facts["jacobi"][-1]
    assert facts["off_rule"] < 0.6

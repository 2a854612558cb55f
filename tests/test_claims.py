"""What the docs claim of the solvers, asserted on medians over seeds."""

import importlib.util
from functools import cache
from pathlib import Path

import numpy as np
import pytest

import recsolve as rs

PATH = Path(__file__).parent.parent / "docs" / "tanh_rnn.py"


@pytest.fixture(scope="module")
def study():
    spec = importlib.util.spec_from_file_location("tanh_rnn", PATH)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@cache
def median(study, method, gain):
    with rs.backend("numba"):  # a tenth of the time
        return float(np.median(study.counts(method, gain)))


@pytest.mark.parametrize("gain", [0.5, 1.0])
@pytest.mark.parametrize("method", ["newton", "quasi_newton", "jacobi", "broyden"])
def test_the_table_of_iterations_is_what_its_script_counts(study, method, gain):
    page = PATH.with_suffix(".md").read_text(encoding="utf-8")
    medians = next(line for line in page.splitlines() if line.startswith(f"| {method} |")).split("|")[2:-1]
    assert abs(float(medians[study.GAINS.index(gain)].split()[0]) - median(study, method, gain)) <= 1


@pytest.mark.parametrize("gain", [0.5, 1.0])
def test_newton_takes_the_fewest_iterations_in_the_contractive_regime(study, gain):
    newton = median(study, "newton", gain)
    assert newton <= 5
    for other in ("quasi_newton", "chord", "scaled_newton", "relaxed_newton", "broyden", "jacobi"):
        assert newton < median(study, other, gain), other


def test_diagonal_quasi_newton_can_lose_to_jacobi(study):
    assert median(study, "quasi_newton", 0.5) < median(study, "jacobi", 0.5)
    assert median(study, "quasi_newton", 2.2) > median(study, "jacobi", 2.2)


def test_what_learns_from_f_alone_loses_little_to_newton_where_the_dynamics_expand(study):
    assert median(study, "broyden", 2.2) <= median(study, "newton", 2.2)
    assert median(study, "scaled_newton", 2.2) <= median(study, "newton", 2.2)

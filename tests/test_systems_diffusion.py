"""Parallel sampling of a diffusion model."""

import numpy as np
import pytest

import recsolve as rs
from recsolve.studies.systems.system import get


def test_the_jacobian_is_nearly_the_identity():
    gaps = []
    for length in (100, 400):
        rec = get("diffusion").build(length=length)
        J = rec.linearise(rs.solve(rec).states)[1].todense()
        gaps.append(np.median(np.abs(J - np.eye(4)).max(axis=(-1, -2))))
    assert gaps[0] < 0.1
    assert gaps[1] < gaps[0] / 3


@pytest.mark.parametrize("eta", [0.0, 1.0])
def test_picard_takes_far_fewer_iterations_than_there_are_steps_and_jacobi_takes_them_all(eta):
    rec = get("diffusion").build(length=400, eta=eta)
    counts = {method: rs.solve(rec, method=method).nit for method in ("newton", "picard", "jacobi")}
    assert counts["newton"] < counts["picard"] < 60
    assert counts["jacobi"] > 390


def test_samples_are_those_of_the_mixture():
    """Of one mode, whose model is exact: the mean and the variance at the end."""
    made = get("diffusion")
    arrays = made.draw(made.configured(length=500, batch=4000, modes=1, units=2, variance=0.3))
    x = rs.solve(made.build(arrays), method="sequential").final
    np.testing.assert_allclose(x.mean(axis=0), arrays["mu"][0], atol=0.03)
    np.testing.assert_allclose(x.var(axis=0), 0.3, atol=0.03)

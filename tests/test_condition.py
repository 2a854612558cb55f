"""The conditioning against matrices that are formed and inverted, where an estimate that stops too soon is far off."""

import gallery
import numpy as np
import pytest

import recsolve as rs
from recsolve.analysis.condition import condition


def products(matrices):
    """h[t] = A[t] h[t-1]."""
    n = matrices.shape[-1]
    return rs.Recurrence.from_function(
        lambda h, A: (A @ h[..., None])[..., 0], inputs=matrices, initial=np.zeros(n), structure="dense"
    )


def inverse_of(matrices):
    T, n, _ = matrices.shape
    L = np.eye(T * n)
    for t in range(1, T):
        L[t * n : (t + 1) * n, (t - 1) * n : t * n] = -matrices[t]
    return np.tril(np.linalg.inv(L))  # above the diagonal are rounding errors, whose signs would count


def estimate(inverse, steps):
    """Hager's algorithm as published, for the infinity norm of a matrix, with Higham's second start."""
    B, N = inverse.T, len(inverse)
    y = B @ np.full(N, 1 / N)
    best = np.abs(y).sum()
    for _ in range(steps):
        y = B[:, np.abs(B.T @ np.where(y >= 0, 1.0, -1.0)).argmax()]
        if np.abs(y).sum() <= best:
            break
        best = np.abs(y).sum()
    ramp = np.linspace(1, 2, N) * (-1.0) ** np.arange(N)
    return max(best, 2 * np.abs(B @ ramp).sum() / (3 * N))


@pytest.mark.parametrize(("T", "n", "seed"), [(4, 2, 311), (8, 3, 1060), (4, 3, 768)])
def test_a_step_of_the_estimate_is_not_enough(T, n, seed):
    A = 1.5 * np.random.default_rng(seed).standard_normal((T, n, n))
    inverse = inverse_of(A)
    exact = np.linalg.norm(inverse, np.inf)
    assert estimate(inverse, 1) < 0.27 * exact  # or the next line would hold of any number of steps
    assert condition(products(A), np.zeros((T, n))) == pytest.approx(exact, rel=1e-9)


@pytest.mark.parametrize(("T", "n", "seed"), [(2, 2, 93), (4, 2, 250), (4, 3, 2205), *((6, 3, i) for i in range(10))])
def test_the_estimate_is_that_of_the_published_algorithm(T, n, seed):
    """Of the first three the second start finds more than the first."""
    A = 1.5 * np.random.default_rng(seed).standard_normal((T, n, n))
    found = condition(products(A), np.zeros((T, n)))
    assert found == pytest.approx(estimate(inverse_of(A), 5), rel=1e-9)


def test_the_condition_that_the_laws_are_measured_with_is_that_of_the_inverse():
    A = np.random.default_rng(0).standard_normal((7, 3, 3))
    found = gallery.condition_of(products(A), np.zeros((7, 3)))
    assert found == pytest.approx(np.linalg.norm(inverse_of(A), np.inf), rel=1e-6)

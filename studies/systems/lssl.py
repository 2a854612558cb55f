"""Linear State-Space Layers: a linear system with HiPPO's matrix, sampled with a step for each feature.

x' = A x + B u, y = C x + D u with N states for every feature, and HiPPO-LegS, A[n, k] = -sqrt((2n + 1)(2k + 1)) for
n > k, -(n + 1) for n = k, 0 above, B[n] = sqrt(2n + 1) (Gu et al., arXiv 2110.13985). The generalised bilinear
transform with a step Delta, of which alpha = 0 is Euler's method, 1 its backward form and 1/2 the bilinear rule:

    A_d = (I - alpha Delta A)^-1 (I + (1 - alpha) Delta A),   B_d = Delta (I - alpha Delta A)^-1 B,
    x_t = A_d x_{t-1} + B_d u_t,   y_t = C x_t + D u_t

The Jacobian A_d is dense and constant: an affine scan of one repeated matrix, or a convolution with C A_d^i B_d. It is
lower triangular, but no diagonal form helps: the eigenvectors of LegS have a condition beyond 1e16 at N = 32, so that
in float64 nothing is left of a solution that goes through them.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np

import recsolve as rs
from recsolve.base.arrays import Array
from recsolve.studies.systems.system import Arrays, Draw, system_of


@dataclass(frozen=True)
class Config:
    """Steps Delta are spread evenly in their logarithm from ``shortest`` to ``longest``."""

    length: int = 512
    batch: int = 2
    features: int = 2
    states: int = 32
    alpha: float = 0.5
    shortest: float = 1e-3
    longest: float = 1e-1
    seed: int = 0
    dtype: str = "float64"


def legs(N: int) -> tuple[Array, Array]:
    """Return A, (N, N), and B, (N,)."""
    B = np.sqrt(2.0 * np.arange(N) + 1)
    return -np.tril(B[:, None] * B, -1) - np.diag(np.arange(N) + 1.0), B


def sampled(A: Array, B: Array, delta: Array, alpha: float) -> tuple[Array, Array]:
    """Return A_d, (*shape of delta, N, N), and B_d, (*shape of delta, N)."""
    I, step = np.eye(len(A)), np.asarray(delta)[..., None, None]  # noqa: E741
    implicit = I - alpha * step * A
    return np.linalg.solve(implicit, I + (1 - alpha) * step * A), np.linalg.solve(implicit, step * B[:, None])[..., 0]


def draw(config: Config) -> Arrays:
    H, random = config.features, Draw(config.seed, config.dtype)
    delta = np.geomspace(config.shortest, config.longest, H)
    A, B = sampled(*legs(config.states), delta, config.alpha)
    return {
        "u": random.normal(config.length, config.batch, H),
        "A": A.astype(config.dtype),
        "B": B.astype(config.dtype),
        "C": random.normal(H, config.states, scale=config.states**-0.5),
        "D": random.normal(H),
    }


def sample(x: Any, u: Any, p: Any) -> Any:
    return (p.A @ x[..., None])[..., 0] + p.B * u[..., None]


def matrices(x: Any, u: Any, p: Any) -> Any:
    return np.broadcast_to(p.A, (*x.shape, x.shape[-1]))


def observe(x: Any, u: Any, p: Any) -> Any:
    return np.sum(p.C * x, axis=-1) + p.D * u


def make(arrays: Arrays) -> rs.Recurrence:
    u, weights = arrays["u"], {name: arrays[name] for name in "ABCD"}
    return rs.Recurrence.from_function(
        sample,
        inputs=u,
        initial=np.zeros((*u.shape[1:], weights["A"].shape[-1]), u.dtype),
        parameters=weights,
        jacobian=matrices,
        readout=observe,
    )


def scan(recurrence: rs.Recurrence) -> Array:
    (u,), p = recurrence.inputs, recurrence.parameters  # type: ignore[attr-defined]
    found: Array = rs.scan("affine", (p.A[None, None], p.B * u[..., None]), initial=recurrence.initial)
    return found


SYSTEMS = (
    system_of(
        __name__,
        name="lssl",
        make=make,
        scan=scan,
        structure="dense, constant",
        title="Linear State-Space Layers",
        cite="Gu et al., arXiv 2110.13985",
        study="paper/lssl",
    ),
)

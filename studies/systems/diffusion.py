"""Parallel sampling of diffusion models: the steps of a sampler are a recurrence whose Jacobian is almost I.

From noise x_0 ~ N(0, I) on, with levels alpha of the signal that rise with t, e(x) the noise that the model sees in x,
and fresh noise z_t (Shih et al., arXiv 2305.16317; eta is 0 for DDIM, arXiv 2010.02502, and 1 for DDPM, 2006.11239):

    x_t = a_t x_{t-1} + c_t e(x_{t-1}, alpha_{t-1}) + sigma_t z_t,   a_t = sqrt(alpha_t / alpha_{t-1}),
    sigma_t = eta sqrt((1 - alpha_t) / (1 - alpha_{t-1}) (1 - alpha_{t-1} / alpha_t)),
    c_t = sqrt(1 - alpha_t - sigma_t^2) - a_t sqrt(1 - alpha_{t-1})

The Jacobian is dense, I + O(1/T), so that the paper iterates with I in its place: Picard's method. The model here is
that of a mixture of Gaussians around points mu, all of variance v, whose e is known in closed form:

    e = sqrt(1 - alpha) (x - sqrt(alpha) sum_k w_k mu_k) / w,   w = alpha v + 1 - alpha,
    w_k = softmax_k(-|x - sqrt(alpha) mu_k|^2 / (2 w))
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np

import recsolve as rs
from recsolve.math import softmax
from recsolve.studies.systems.system import Arrays, Draw, system_of


@dataclass(frozen=True)
class Config:
    """Variances of the noise of a step rise linearly, as those of DDPM, which has 1000 steps."""

    length: int = 256
    batch: int = 4
    units: int = 4
    modes: int = 5
    variance: float = 0.05
    eta: float = 1.0
    seed: int = 0
    dtype: str = "float64"


def draw(config: Config) -> Arrays:
    random, dtype = Draw(config.seed, config.dtype), config.dtype
    noise = np.linspace(1e-4, 0.02, 1000)
    levels = np.cumsum(np.log1p(-noise))[::-1]  # log alpha, from noise to signal
    alpha = np.exp(np.interp(np.linspace(0, 999, config.length + 1), np.arange(1000), levels))
    return {
        "alpha": alpha.astype(dtype),
        "x": random.normal(config.batch, config.units),
        "z": random.normal(config.length, config.batch, config.units),
        "mu": random.normal(config.modes, config.units),
        "variance": np.array(config.variance, dtype),
        "eta": np.array(config.eta, dtype),
    }


def make(arrays: Arrays) -> rs.Recurrence:
    old, new = arrays["alpha"][:-1], arrays["alpha"][1:]
    a = np.sqrt(new / old)
    sigma = arrays["eta"] * np.sqrt((1 - new) / (1 - old) * (1 - old / new))
    c = np.sqrt(1 - new - sigma**2) - a * np.sqrt(1 - old)
    inputs = {name: u[:, None, None] for name, u in {"alpha": old, "a": a, "c": c}.items()}
    return rs.Recurrence.from_function(
        _step,
        inputs={**inputs, "noise": sigma[:, None, None] * arrays["z"]},
        initial=arrays["x"],
        parameters={"mu": arrays["mu"], "variance": arrays["variance"]},
        structure="dense",
    )


def _step(x: Any, u: Any, p: Any) -> Any:
    spread = u["alpha"] * p.variance + 1 - u["alpha"]
    apart = x[..., None, :] - np.sqrt(u["alpha"])[..., None] * p.mu
    near = softmax(-np.sum(apart**2, axis=-1) / (2 * spread))
    e = np.sqrt(1 - u["alpha"]) / spread * (x - np.sqrt(u["alpha"]) * (near @ p.mu))
    return u["a"] * x + u["c"] * e + u["noise"]


SYSTEMS = (
    system_of(
        __name__,
        name="diffusion",
        make=make,
        structure="dense, near I",
        title="Parallel sampling of diffusion models",
        cite="Shih et al., arXiv 2305.16317",
        study="paper/paradigms",
    ),
)

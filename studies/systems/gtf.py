"""GTF-DEER: a network that learns chaos is forced towards the data, and parallel Newton converges on what remains.

Generalised teacher forcing mixes the state with the data d of the step before, and the clipped shallow PLRNN moves it
(Hess et al., arXiv 2306.04406; with DEER: Hess, Goetz and Durstewitz, arXiv 2605.12683):

    z~ = (1 - alpha) z + alpha d,   z' = a z~ + W_1 (relu(W_2 z~ + b_2) - relu(W_2 z~)) + b_1

The Jacobian is 1 - alpha times that of the free network: dense, piecewise constant. The largest Lyapunov exponent
falls by -log(1 - alpha), so forcing with alpha > 1 - e^-lambda, lambda that of the free network, contracts.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np

import recsolve as rs
from recsolve.math import relu
from recsolve.mixings import Dense
from recsolve.studies.systems.system import Arrays, Draw, system_of


@dataclass(frozen=True)
class Config:
    """The data are a trajectory of the network itself, with noise of this deviation.

    b_1 centres what is clipped, so that networks of a ``gain`` well above 1 are chaotic.
    """

    length: int = 512
    batch: int = 1
    units: int = 10
    alpha: float = 0.5
    gain: float = 2.0
    noise: float = 0.1
    seed: int = 0
    dtype: str = "float64"


def draw(config: Config) -> Arrays:
    n, random = config.units, Draw(config.seed, "float64")
    W, clip = random.normal(2, n, n, scale=config.gain * n**-0.5), random.normal(n)
    free = {
        "a": random.uniform(0.2, 0.6, n),
        "W": W,
        "b": np.stack([-W[0] @ clip / 2, clip]),
        "alpha": np.zeros(n),
        "initial": random.normal(config.batch, n),
        "d": np.zeros((config.length, config.batch, n)),
    }
    path = rs.solve(make(free), method="sequential").states
    data = np.concatenate([free["initial"][None], path[:-1]]) if config.length else path
    forced = {**free, "alpha": np.full(n, config.alpha), "d": data + random.normal(*data.shape, scale=config.noise)}
    return {name: x.astype(config.dtype) for name, x in forced.items()}


def _plrnn(s: Any, W: Any, u: Any, p: Any) -> Any:
    z = (1 - p.alpha) * s.z + p.alpha * u.d
    inner = W.two(z)
    return p.a * z + W.one(relu(inner + p.b_2) - relu(inner)) + p.b_1


PLRNN = rs.Cell(_plrnn, state=("z",), output="z")


def make(arrays: Arrays) -> rs.Recurrence:
    (one, two), (b_1, b_2) = arrays["W"], arrays["b"]
    cell = PLRNN.with_weights(
        mixings={"one": Dense(one), "two": Dense(two)},
        parameters={"alpha": arrays["alpha"], "a": arrays["a"], "b_1": b_1, "b_2": b_2},
    )
    return cell.recurrence(drive={"d": arrays["d"]}, initial=arrays["initial"])


SYSTEMS = (
    system_of(
        __name__,
        name="gtf_deer",
        make=make,
        structure="dense, piecewise constant",
        title="GTF-DEER",
        cite="Hess, Goetz and Durstewitz, arXiv 2605.12683",
        study="teacher_forcing",
    ),
)

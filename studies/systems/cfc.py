"""CfC: a network in continuous time in closed form, at steps of any duration.

With t the time since the last input, f, g, h one layer each of the state x and the input I (Hasani et al.,
arXiv 2106.13898):

    x' = sigmoid(-f(x, I) t) g(x, I) + (1 - sigmoid(-f(x, I) t)) h(x, I)

f is a rate: where it is positive, x goes from g to h as t grows. The Jacobian is dense.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import recsolve as rs
from recsolve.math import sigmoid, tanh
from recsolve.mixings import Dense
from recsolve.studies.systems.system import Arrays, Draw, system_of

HEADS = "fgh"


@dataclass(frozen=True)
class Config:
    """Durations are uniform in 0 to 2."""

    length: int = 512
    batch: int = 2
    inputs: int = 4
    units: int = 16
    gain: float = 1.0
    seed: int = 0
    dtype: str = "float64"


def draw(config: Config) -> Arrays:
    n, random = config.units, Draw(config.seed, config.dtype)
    return {
        "I": random.normal(config.length, config.batch, config.inputs),
        "t": random.uniform(0, 2, config.length, config.batch, 1),
        "W": random.normal(3, n, n, scale=config.gain * n**-0.5),
        "V": random.normal(3, n, config.inputs, scale=config.inputs**-0.5),
        "b": random.normal(3, n, scale=0.1),
    }


def _cfc(s: Any, W: Any, u: Any, p: Any) -> Any:
    early = sigmoid(-(W.f(s.x) + u.f) * u.t)
    return early * tanh(W.g(s.x) + u.g) + (1 - early) * tanh(W.h(s.x) + u.h)


CFC = rs.Cell(_cfc, state=("x",), output="x")


def make(arrays: Arrays) -> rs.Recurrence:
    V, W, b = (dict(zip(HEADS, arrays[name], strict=True)) for name in "VWb")
    drive = {**rs.Projection(V, b)(arrays["I"]), "t": arrays["t"]}
    return CFC.with_weights(mixings={head: Dense(W[head]) for head in HEADS}).recurrence(drive=drive)


SYSTEMS = (
    system_of(
        __name__,
        name="cfc",
        make=make,
        structure="dense",
        title="CfC",
        cite="Hasani et al., arXiv 2106.13898",
        study="durations",
    ),
)

"""Titans: a memory that learns with momentum and forgets.

With a linear memory M, the loss |M k - v|^2, and numbers eta, theta, alpha for every step (Behrouz, Zhong and Mirrokni,
arXiv 2501.00663):

    S' = eta S - 2 theta (M k - v) k^T,   M' = (1 - alpha) M + S',   y = M' q

The surprise S of earlier steps goes on moving the memory. Rows of (S, M) do not couple, and one matrix of 2 k x 2 k,
which does not depend on them, moves all: an affine scan is the solution.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np

import recsolve as rs
from recsolve.base.arrays import Array
from recsolve.studies.systems.delta_rule import outer, times
from recsolve.studies.systems.system import Arrays, Draw, system_of


@dataclass(frozen=True)
class Config:
    length: int = 1024
    batch: int = 2
    keys: int = 4
    values: int = 8
    seed: int = 0
    dtype: str = "float64"


def draw(config: Config) -> Arrays:
    leading, random = (config.length, config.batch), Draw(config.seed, config.dtype)
    return {
        "k": random.unit(*leading, config.keys),
        "v": random.normal(*leading, config.values),
        "q": random.normal(*leading, config.keys),
        "eta": random.uniform(0.5, 0.9, *leading),
        "theta": random.uniform(0.0, 0.1, *leading),
        "alpha": random.uniform(0.0, 0.1, *leading),
    }


def step(s: Any, W: Any, u: Any, p: Any) -> Any:
    wrong = times(s.M, u.k) - u.v
    S = u.eta[..., None, None] * s.S - outer(2 * u.theta[..., None] * wrong, u.k)
    return {"S": S, "M": (1 - u.alpha[..., None, None]) * s.M + S}


CELL = rs.Cell(
    step,
    state={"S": ("v", "k"), "M": ("v", "k")},
    axes={"k": ("k",), "v": ("v",), "q": ("k",), "eta": (), "theta": (), "alpha": ()},
    output="M",
)


def make(arrays: Arrays) -> rs.Recurrence:
    return CELL.with_weights().recurrence(drive=arrays, readout=lambda s, u, p: times(s.M, u.q))


def scan(recurrence: rs.Recurrence) -> Array:
    u = recurrence.drive  # type: ignore[attr-defined]
    k, (eta, theta, alpha) = u["k"], (u[name][..., None, None] for name in ("eta", "theta", "alpha"))
    eye, learnt, write = np.eye(k.shape[-1], dtype=k.dtype), 2 * theta * outer(k, k), 2 * theta * outer(u["v"], k)
    kept = eta * eye
    matrix = np.block([[kept, -learnt], [kept, (1 - alpha) * eye - learnt]])
    rows = rs.scan(
        "affine", (matrix[..., None, :, :], np.concatenate([write, write], axis=-1)), initial=k.dtype.type(0)
    )
    S, M = (part.reshape(*k.shape[:2], -1) for part in np.split(rows, 2, axis=-1))
    return np.concatenate([S, M], axis=-1)


SYSTEMS = (
    system_of(
        __name__,
        name="titans",
        make=make,
        scan=scan,
        structure="2 k x 2 k for a row of (S, M), independent of both",
        title="Titans",
        cite="Behrouz, Zhong and Mirrokni, arXiv 2501.00663",
        study="overwriting",
    ),
)

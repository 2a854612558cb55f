"""Mamba's selective state space S6: a diagonal linear recurrence whose multipliers depend on the input.

State h of D x N numbers (Gu and Dao, arXiv 2312.00752), with B_t and C_t of N numbers and Delta_t = softplus(...) of D
numbers projected from the input x_t, and A < 0:

    h_t[d, n] = e^(Delta_t[d] A[d, n]) h_{t-1}[d, n] + Delta_t[d] B_t[n] x_t[d],   y_t[d] = sum_n C_t[n] h_t[d, n]

The Jacobian is diagonal and does not depend on h: one affine scan is the solution, and Newton's method takes one
iteration. Delta -> 0 lets a step pass without a trace; that is the selection.
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
    length: int = 4096
    batch: int = 1
    width: int = 8
    states: int = 4
    seed: int = 0
    dtype: str = "float64"


def draw(config: Config) -> Arrays:
    D, N, random = config.width, config.states, Draw(config.seed, config.dtype)
    leading = config.length, config.batch
    return {
        "x": random.normal(*leading, D),
        "delta": np.logaddexp(random.normal(*leading, D) - 2, 0).astype(config.dtype),
        "B": random.normal(*leading, N),
        "A": -np.broadcast_to(np.arange(1, N + 1, dtype=config.dtype), (D, N)),
    }


def _elements(arrays: Arrays) -> tuple[Array, Array]:
    """Return the multipliers and what is added, (T, batch, D N)."""
    delta, flat = arrays["delta"][..., None], (*arrays["x"].shape[:2], -1)
    write = delta * arrays["B"][..., None, :] * arrays["x"][..., None]
    return np.exp(delta * arrays["A"]).reshape(flat), write.reshape(flat)


def _step(h: Any, u: Any) -> Any:
    return u["a"] * h + u["b"]


def make(arrays: Arrays) -> rs.Recurrence:
    a, b = _elements(arrays)
    return rs.Recurrence.from_function(
        _step, inputs={"a": a, "b": b}, initial=np.zeros(a.shape[1:], a.dtype), structure="diagonal"
    )


def scan(recurrence: rs.Recurrence) -> Array:
    found: Array = rs.scan("affine", tuple(recurrence.inputs), initial=recurrence.initial)  # type: ignore[attr-defined]
    return found


SYSTEMS = (
    system_of(
        __name__,
        name="mamba_s6",
        make=make,
        scan=scan,
        structure="diagonal, independent of h",
        title="Mamba",
        cite="Gu and Dao, arXiv 2312.00752",
        study="selectivity",
    ),
)

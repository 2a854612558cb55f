"""Gated Linear Attention: a matrix of keys and values whose rows decay as the input says.

For each head, with q, k, v and alpha projected from the input, alpha = sigmoid(...)^(1/16) from a projection of low
rank (Yang et al., arXiv 2312.06635):

    S' = diag(alpha) S + k v^T,   y = S'^T q

The Jacobian is diagonal, one number for every row of S, and independent of S: an affine scan is the solution. The paper
takes chunks of time, in which it is matrix products, with b_t the product of alpha since the chunk began:

    Y = (Q * b) S_0 + tril((Q * b) (K / b)^T) V,   S_end = diag(b_end) (S_0 + (K / b)^T V)

K / b overflows where alpha is small or chunks are long. ``chunked`` is this form.
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
    """alpha = sigmoid(g)^(1 / ``temperature``) of normal numbers g."""

    length: int = 1024
    batch: int = 2
    heads: int = 2
    keys: int = 4
    values: int = 8
    temperature: float = 16.0
    seed: int = 0
    dtype: str = "float64"


def draw(config: Config) -> Arrays:
    leading, random = (config.length, config.batch, config.heads), Draw(config.seed, config.dtype)
    q, k = (random.normal(*leading, config.keys) for _ in "qk")
    alpha = np.exp(-np.logaddexp(0, -random.normal(*leading, config.keys)) / config.temperature).astype(config.dtype)
    return {"q": q, "k": k, "v": random.normal(*leading, config.values), "alpha": alpha}


def remember(s: Any, u: Any) -> Any:
    return {"S": u["alpha"][..., :, None] * s.S + u["k"][..., :, None] * u["v"][..., None, :]}


def recall(s: Any, u: Any) -> Any:
    return np.einsum("...kv,...k->...v", s.S, u["q"])


def make(arrays: Arrays) -> rs.Recurrence:
    k, v = arrays["k"], arrays["v"]
    return rs.Recurrence.from_function(
        remember,
        inputs=dict(arrays),
        state={"S": ("k", "v")},
        initial={"S": np.zeros((*k.shape[1:], v.shape[-1]), k.dtype)},
        structure="diagonal",
        readout=recall,
    )


def scan(recurrence: rs.Recurrence) -> Array:
    u = recurrence.contain(recurrence.inputs)  # type: ignore[attr-defined]
    written = u["k"][..., :, None] * u["v"][..., None, :]
    alpha, flat = np.broadcast_to(u["alpha"][..., None], written.shape), (*written.shape[:-2], -1)
    found: Array = rs.scan("affine", (alpha.reshape(flat), written.reshape(flat)), initial=recurrence.initial)
    return found


def chunked(arrays: Arrays, size: int) -> Array:
    """Return y, (T, *batch, values), by matrix products over chunks of time, in the dtype of the arrays."""
    q, k, v, alpha = (np.moveaxis(arrays[name], 0, -2) for name in ("q", "k", "v", "alpha"))
    S, parts = np.zeros((*k.shape[:-2], k.shape[-1], v.shape[-1]), k.dtype), []
    for start in range(0, k.shape[-2], size):
        Q, K, V, a = (x[..., start : start + size, :] for x in (q, k, v, alpha))
        b = np.cumprod(a, axis=-2)
        read, written = Q * b, (K / b).swapaxes(-1, -2)
        parts.append(read @ S + np.tril(read @ written) @ V)
        S = b[..., -1, :, None] * (S + written @ V)
    return np.moveaxis(np.concatenate(parts, axis=-2), -2, 0)


SYSTEMS = (
    system_of(
        __name__,
        name="gla",
        make=make,
        scan=scan,
        structure="diagonal, the same in a row, independent of S",
        title="Gated Linear Attention",
        cite="Yang et al., arXiv 2312.06635",
        study="chunks",
    ),
)

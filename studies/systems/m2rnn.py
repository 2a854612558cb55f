"""M2RNN: a matrix as state, whose rows are networks that share one matrix.

For each head, with k, q of K numbers, v of V, a scalar gate f in (0, 1) and W of V x V (Mishra et al.,
arXiv 2603.14360):

    Z = tanh(H W + k v^T),   H' = f H + (1 - f) Z,   y = q^T H'

Rows of H do not see each other: the Jacobian is one block f I + (1 - f) diag(1 - Z_i^2) W^T for each row i, and rows
are a batch here, of K leaky networks driven by k_i v. Newton's method costs K V^3 at a step, not (K V)^3, and takes as
many iterations as the hardest of its rows. At W = I, where training begins, J is diagonal.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np

import recsolve as rs
from recsolve.base.arrays import Array
from recsolve.math import tanh
from recsolve.mixings import Heads
from recsolve.studies.systems.system import Arrays, Draw, system_of


@dataclass(frozen=True)
class Config:
    """W is I and noise, of which rows have a norm of about ``noise``."""

    length: int = 512
    batch: int = 1
    heads: int = 2
    rows: int = 8
    width: int = 8
    noise: float = 0.3
    seed: int = 0
    dtype: str = "float64"


def draw(config: Config) -> Arrays:
    N, K, V, random = config.heads, config.rows, config.width, Draw(config.seed, config.dtype)
    leading = config.length, config.batch, N
    return {
        "q": random.normal(*leading, K),
        "k": random.normal(*leading, K),
        "v": random.normal(*leading, V),
        "f": np.exp(-np.logaddexp(random.normal(*leading), 0)).astype(config.dtype),
        "W": random.normal(N, V, V, scale=config.noise * V**-0.5) + np.eye(V, dtype=config.dtype),
    }


def _row(s: Any, W: Any, u: Any, p: Any) -> Any:
    return u.f * s.H + (1 - u.f) * tanh(W.H(s.H) + u.kv)


ROW = rs.Cell(_row, state=("H",), output="H")


def make(arrays: Arrays) -> rs.Recurrence:
    """Return the recurrence of states (T, batch, K, heads, V)."""
    k = np.swapaxes(arrays["k"], 2, 3)
    drive = {"kv": k[..., None] * arrays["v"][:, :, None], "f": arrays["f"][:, :, None, :, None]}
    return ROW.with_weights(mixings={"H": Heads(arrays["W"].swapaxes(1, 2))}).recurrence(drive=drive)


def output(arrays: Arrays, states: Array) -> Array:
    """Return y, (T, batch, heads, V)."""
    y: Array = np.einsum("tbnk,tbknv->tbnv", arrays["q"], states)
    return y


SYSTEMS = (
    system_of(
        __name__,
        name="m2rnn",
        make=make,
        structure="dense within a row of the state",
        title="M2RNN",
        cite="Mishra et al., arXiv 2603.14360",
        study="matrix_states",
    ),
)

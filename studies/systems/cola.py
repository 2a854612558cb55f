"""Chain of Layers: the depth of a trained stack as a path of blocks, some left out and some gone through again.

States H of m tokens with d numbers each go along a path pi_1, pi_2, ... of residual blocks (Li et al., "Skip a Layer or
Loop it?", arXiv 2507.07996):

    H_{k+1} = H_k + g_{pi_k}(H_k),   here g_l(H) = tanh(C H A_l + b_l) B_l

where C averages over the tokens so far. To leave a block out is to omit its number, to loop is to repeat it. The paper
searches for the path that suits one input; the recurrence is what such a search evaluates.

The Jacobian is I + dg, dense in d and block lower triangular over tokens.
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
    """``length`` is that of the path, ``blocks`` the number of them; ``gain`` scales the weights."""

    length: int = 64
    batch: int = 1
    blocks: int = 8
    tokens: int = 4
    width: int = 6
    gain: float = 0.5
    seed: int = 0
    dtype: str = "float64"


def draw(config: Config) -> Arrays:
    """Draw states, weights and a path that goes through the blocks in order, skips some and loops some."""
    L, d, random = config.blocks, config.width, Draw(config.seed, config.dtype)
    moves = np.array([0, 1, 1, 1, 2])[random.uniform(0, 5, config.length).astype(int)]  # again, on, over one
    return {
        "H": random.normal(config.batch, config.tokens, d),
        "A": random.normal(L, d, d, scale=config.gain * d**-0.5),
        "b": random.normal(L, d, scale=0.1),
        "B": random.normal(L, d, d, scale=config.gain * d**-0.5),
        "path": (np.cumsum(moves) % L).astype(config.dtype),
    }


def _step(s: Any, u: Any, p: Any) -> Any:
    inner = rs.graphs.matmul(p.C @ s.H, p.A, u["path"]) + u["b"]
    return {"H": s.H + rs.graphs.matmul(np.tanh(inner), p.B, u["path"])}


def make(arrays: Arrays) -> rs.Recurrence:
    H, path = arrays["H"], arrays["path"]
    m = H.shape[-2]
    bias = np.broadcast_to(arrays["b"][path.astype(int)][:, None, None], (len(path), len(H), 1, H.shape[-1]))
    return rs.Recurrence.from_function(
        _step,
        inputs={"path": path, "b": bias},
        state={"H": ("m", "d")},
        initial={"H": H},
        parameters={"A": arrays["A"], "B": arrays["B"], "C": causal_mean(m).astype(H.dtype)},
    )


def causal_mean(tokens: int) -> Array:
    """Return the matrix that takes the mean over the tokens so far."""
    return np.tri(tokens) / np.arange(1, tokens + 1)[:, None]


SYSTEMS = (
    system_of(
        __name__,
        name="cola_depth",
        make=make,
        structure="dense, I and a block lower triangle over tokens",
        title="Chain of Layers",
        cite="Li et al., arXiv 2507.07996",
        study="paths",
    ),
)

"""Tiled Flash Linear Attention: the mLSTM with its exponential input gate, and mLSTMsig with a sigmoid.

A matrix C of keys and values for each head, with q, k, v and the gates i, f, o projected from the input (Beck et al.,
arXiv 2503.14376; the mLSTM: arXiv 2405.04517), and q scaled by 1 / sqrt(d):

mLSTM:     m' = max(log sigmoid(f) + m, i),   F = e^(log sigmoid(f) + m - m'),   I = e^(i - m'),   from m = -inf
           C' = F C + I k v^T,   n' = F n + I k,   h = C'^T q / max(|n' . q|, e^-m')
mLSTMsig:  C' = sigmoid(f) C + sigmoid(i) k v^T,   h = C'^T q

and y = sigmoid(o) norm(h) in each head. The stabiliser m cancels in h. The Jacobian is a scalar times I for each head,
and one column for m. A scan of weighted sums that share a maximum solves the first, an affine one the second.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np

import recsolve as rs
from recsolve.base.arrays import Array
from recsolve.math import sigmoid
from recsolve.studies.systems.system import Arrays, Draw, system_of


@dataclass(frozen=True)
class Config:
    """Input gates have the deviation ``spread``; forget gates are open by ``bias``."""

    length: int = 1024
    batch: int = 2
    heads: int = 2
    keys: int = 4
    values: int = 8
    spread: float = 1.0
    bias: float = 3.0
    seed: int = 0
    dtype: str = "float64"


def draw(config: Config) -> Arrays:
    leading, random = (config.length, config.batch, config.heads), Draw(config.seed, config.dtype)
    q, k = (random.normal(*leading, config.keys) for _ in "qk")
    v, o = (random.normal(*leading, config.values) for _ in "vo")
    i, f = random.normal(*leading, scale=config.spread), random.normal(*leading)
    return {"q": q, "k": k, "v": v, "i": i, "f": f + f.dtype.type(config.bias), "o": o}


def log_sigmoid(x: Any) -> Any:
    return -np.logaddexp(0.0, -x)


def outer(k: Any, v: Any) -> Any:
    return k[..., :, None] * v[..., None, :]


def exponential(s: Any, W: Any, u: Any, p: Any) -> Any:
    carried = s.m + u.log_f
    m = np.maximum(carried, u.i)
    F, I = np.exp(carried - m)[..., None], np.exp(u.i - m)[..., None]  # noqa: E741
    return {"m": m, "n": F * s.n + I * u.k, "C": F[..., None] * s.C + outer(I * u.k, u.v)}


def sigmoidal(s: Any, W: Any, u: Any, p: Any) -> Any:
    return {"C": u.F[..., None, None] * s.C + outer(u.I[..., None] * u.k, u.v)}


_VECTORS = {"k": ("k",), "v": ("v",), "q": ("k",), "o": ("v",)}
MLSTM = rs.Cell(
    exponential,
    state={"m": (), "n": ("k",), "C": ("k", "v")},
    axes={"log_f": (), "i": (), **_VECTORS},
    output="C",
)
SIGMOIDAL = rs.Cell(
    sigmoidal, state={"C": ("k", "v")}, axes={"F": (), "I": (), **_VECTORS}, output="C", structure="scalar"
)


def _shown(s: Any, u: Any, floor: Any) -> Any:
    """Return sigmoid(o) norm(C^T q / floor), q scaled; ``floor`` gets the scaled q too."""
    q = u.q / float(u.q.shape[-1] ** 0.5)
    h = np.einsum("...kv,...k->...v", s.C, q) / floor(q)
    h = h - np.mean(h, axis=-1)[..., None]
    return sigmoid(u.o) * h / np.sqrt(np.mean(h * h, axis=-1) + 1e-6)[..., None]


def normalised(s: Any, u: Any, p: Any) -> Any:
    return _shown(s, u, lambda q: np.maximum(abs(np.sum(s.n * q, axis=-1)), np.exp(-s.m))[..., None])


def read(s: Any, u: Any, p: Any) -> Any:
    return _shown(s, u, lambda q: 1)


def mlstm(arrays: Arrays) -> rs.Recurrence:
    """Heads do not couple: they are an axis of the batch."""
    gates = {"log_f": log_sigmoid(arrays["f"]), "i": arrays["i"]}
    return MLSTM.with_weights().recurrence(
        drive={name: arrays[name] for name in _VECTORS} | gates, initial={"m": -np.inf}, readout=normalised
    )


def mlstm_sig(arrays: Arrays) -> rs.Recurrence:
    gates = {name: np.exp(log_sigmoid(arrays[name.lower()])) for name in "FI"}
    return SIGMOIDAL.with_weights().recurrence(drive={name: arrays[name] for name in _VECTORS} | gates, readout=read)


def scan(recurrence: rs.Recurrence) -> Array:
    u = recurrence.drive  # type: ignore[attr-defined]
    flat = (*u["v"].shape[:-1], -1)
    if "F" in u:
        written = outer(u["I"][..., None] * u["k"], u["v"]).reshape(flat)
        found: Array = rs.scan("affine", (u["F"][..., None], written), initial=recurrence.initial)
    else:
        written = np.concatenate([u["k"], outer(u["k"], u["v"]).reshape(flat)], axis=-1)
        found = rs.scan("weighted_logsumexp", (u["log_f"], u["i"], written))
    return found


SYSTEMS = tuple(
    system_of(
        __name__,
        name=make.__name__,
        make=make,
        scan=scan,
        structure=structure,
        title="Tiled Flash Linear Attention",
        cite="Beck et al., arXiv 2503.14376",
        study="paper/tfla",
    )
    for make, structure in (
        (mlstm, "scalar for each head, and a column for m"),
        (mlstm_sig, "scalar for each head"),
    )
)

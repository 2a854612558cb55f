"""DeltaNet and RWKV-7: linear recurrences of a matrix that corrects what it has stored under a key.

With keys k of norm 1, values v, and numbers b, a, w between 0 and 1, all projected from the input:

DeltaNet (Yang et al., arXiv 2406.06484):  S' = S (I - b k k^T) + b v k^T
RWKV-7 (Peng et al., arXiv 2503.14456):    S' = S (diag(w) - c (a c)^T) + v k^T,  y = S' r

c, of norm 1, is the key under which RWKV-7 forgets. The rows of S do not couple, and all have the same Jacobian, the
matrix that S is multiplied with, which does not depend on S: one affine scan is the solution. Both are in the linear
family whose products of matrices solve what diagonal ones cannot (arXiv 2603.03612); DeltaNet is the TTT layer with a
linear memory and chunks of one step.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np

import recsolve as rs
from recsolve.base.arrays import Array, namespace
from recsolve.studies.systems.system import Arrays, Draw, system_of


@dataclass(frozen=True)
class Config:
    length: int = 1024
    batch: int = 2
    keys: int = 8
    values: int = 16
    seed: int = 0
    dtype: str = "float64"


def draw(config: Config) -> Arrays:
    leading, random = (config.length, config.batch), Draw(config.seed, config.dtype)
    return {
        "k": random.unit(*leading, config.keys),
        "v": random.normal(*leading, config.values),
        "b": random.uniform(0, 1, *leading),
        "c": random.unit(*leading, config.keys),
        "a": random.uniform(0, 1, *leading, config.keys),
        "w": random.uniform(0.9, 1, *leading, config.keys),
        "r": random.normal(*leading, config.keys),
    }


def times(S: Any, x: Any) -> Any:
    """Return S x for matrices and vectors of any leading axes."""
    return np.matmul(S, x[..., None])[..., 0]


def outer(x: Any, y: Any) -> Any:
    """Return x y^T."""
    return x[..., :, None] * y[..., None, :]


def delta_step(S: Any, u: Any) -> Any:
    return S + outer(u["b"][..., None] * (u["v"] - times(S, u["k"])), u["k"])


def delta_matrix(_: Any, u: Any) -> Any:
    k = u["k"]
    return (namespace(k).eye(k.shape[-1], dtype=k.dtype) - outer(u["b"][..., None] * k, k))[..., None, :, :]


def rwkv_step(S: Any, u: Any) -> Any:
    return S * u["w"][..., None, :] - outer(times(S, u["c"]), u["a"] * u["c"]) + outer(u["v"], u["k"])


def rwkv_matrix(_: Any, u: Any) -> Any:  # a row s of S is mapped to its transpose times s
    c, w = u["c"], u["w"]
    return (w[..., None] * namespace(w).eye(w.shape[-1], dtype=w.dtype) - outer(u["a"] * c, c))[..., None, :, :]


def _made(step: Any, matrix: Any, names: str, arrays: Arrays, readout: Any = None) -> rs.Recurrence:
    k, v = arrays["k"], arrays["v"]
    return rs.Recurrence.from_function(
        step,
        inputs={name: arrays[name] for name in names},
        initial=np.zeros((k.shape[1], v.shape[-1], k.shape[-1]), k.dtype),
        structure="heads",
        jacobian=matrix,
        readout=readout,
    )


def deltanet(arrays: Arrays) -> rs.Recurrence:
    return _made(delta_step, delta_matrix, "kvb", arrays)


def rwkv7(arrays: Arrays) -> rs.Recurrence:
    return _made(rwkv_step, rwkv_matrix, "kvcawr", arrays, readout=lambda S, u: times(S, u["r"]))


def _scanned(matrix: Any, added: Any) -> Any:
    def scan(recurrence: rs.Recurrence) -> Array:
        u = recurrence.contain(recurrence.inputs)  # type: ignore[attr-defined]
        found: Array = rs.scan("affine", (matrix(None, u), added(u)), initial=recurrence.initial)
        return found

    return scan


SYSTEMS = (
    system_of(
        __name__,
        name="deltanet",
        make=deltanet,
        scan=_scanned(delta_matrix, lambda u: outer(u["b"][..., None] * u["v"], u["k"])),
        structure="one matrix for all rows, independent of S",
        title="DeltaNet",
        cite="Yang et al., arXiv 2406.06484",
        study="overwriting",
    ),
    system_of(
        __name__,
        name="rwkv7",
        make=rwkv7,
        scan=_scanned(rwkv_matrix, lambda u: outer(u["v"], u["k"])),
        structure="one matrix for all rows, independent of S",
        title="RWKV-7",
        cite="Peng et al., arXiv 2503.14456",
        study="overwriting",
    ),
)

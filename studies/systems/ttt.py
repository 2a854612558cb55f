"""TTT and TNT: a memory that takes a gradient step per token, from the state at the beginning of a chunk.

A linear memory W learns l(W; k, v) = |W k - v|^2 / 2 with rates eta; x is the first step of the chunk that t is in:

TTT (Sun et al., arXiv 2407.04620):  W_t = W_x - sum over j from x to t of eta_j (W_x k_j - v_j) k_j^T,  y_t = W_t q_t
TNT (Li et al., arXiv 2511.07343):   a global memory V with long chunks, y_t = V_x q_t + sum over i of W^i_t M_t q_t,
    and local ones W^i with short chunks, which begin again from a learned W0^i with every shard; M_t is the sum of
    k_j k_j^T / |k_j|^2 over the chunk up to t

Here W_x is the state before the chunk. It is kept beside W as its ``anchor``: every step is then f(h[t-1], u[t]), and
with chunks of one step it is the delta rule. All is affine: rows of (W, anchor) do not couple, and one affine scan with
a matrix of 2 k x 2 k for all rows is the solution. Resets make the shards of local memories independent. M, which
depends on keys alone, is hoisted, and so is eta k.
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
    """``chunk`` and ``shard`` are those of the local memories; TTT has chunks of ``chunk``."""

    length: int = 512
    batch: int = 2
    keys: int = 4
    values: int = 6
    memories: int = 2
    chunk: int = 4
    shard: int = 16
    long_chunk: int = 32
    seed: int = 0
    dtype: str = "float64"


def draw(config: Config) -> Arrays:
    leading, random, t = (config.length, config.batch), Draw(config.seed, config.dtype), np.arange(config.length)
    begins = {"begins": t % config.shard % config.chunk, "begins_shard": t % config.shard}
    begins["begins_long"] = t % config.long_chunk
    return {
        "k": random.unit(*leading, config.keys),
        "v": random.normal(*leading, config.values),
        "q": random.normal(*leading, config.keys),
        "eta": random.uniform(0, 0.3, *leading),
        "eta_long": random.uniform(0, 0.1, *leading),  # of the global memory
        "W0": random.normal(config.memories, config.values, config.keys, scale=0.3),
        **{name: (since == 0).astype(config.dtype) for name, since in begins.items()},
    }


def learnt(W: Any, anchor: Any, k: Any, v: Any, step: Any) -> Any:
    """Return W after the gradient step that the anchor asks for; ``step`` is eta k."""
    wrong = np.matmul(anchor, k[..., None]) - v[..., None]
    return W - wrong * step[..., None, :]


def ttt_step(s: Any, u: Any) -> Any:
    anchor = np.where(u["begins"], s.W, s.anchor)
    return {"W": learnt(s.W, anchor, u["k"], u["v"], u["step"]), "anchor": anchor}


def tnt_step(s: Any, u: Any, p: Any) -> Any:
    k, v = u["k"], u["v"]
    V_anchor = np.where(u["begins_long"], s.V, s.V_anchor)
    W = np.where(u["begins_shard"][..., None], p.W0, s.W)
    anchor = np.where(u["begins"][..., None], W, s.anchor)
    return {
        "V": learnt(s.V, V_anchor, k, v, u["step_long"]),
        "V_anchor": V_anchor,
        "W": learnt(W, anchor, *(x[..., None, :] for x in (k, v, u["step"]))),  # for all local memories
        "anchor": anchor,
    }


def tnt_readout(s: Any, u: Any, _: Any) -> Any:
    return times(s.V_anchor, u["q"]) + times(s.W, u["Mq"][..., None, :]).sum(axis=-2)


def projected(arrays: Arrays) -> Array:
    """Return M_t q_t, the part of a query that lies in what the chunk of local memories has seen, (T, *batch, k)."""
    k = arrays["k"] / np.linalg.norm(arrays["k"], axis=-1, keepdims=True)
    M = rs.scan("addition", (outer(k, k),), reset=np.broadcast_to(arrays["begins"][:, None] == 1, k.shape[:2]))
    found: Array = times(M, arrays["q"])
    return found


def _inputs(arrays: Arrays, *begins: str) -> dict[str, Array]:
    """Return the inputs of a step, whose numbers have axes beside those of matrices."""
    step = {"step": arrays["eta"][..., None] * arrays["k"]}
    first = {name: arrays[name][:, None, None, None] == 1 for name in begins}
    return {name: arrays[name] for name in "kvq"} | step | first


def ttt(arrays: Arrays) -> rs.Recurrence:
    k, v = arrays["k"], arrays["v"]
    zero = np.zeros((k.shape[1], v.shape[-1], k.shape[-1]), k.dtype)
    return rs.Recurrence.from_function(
        ttt_step,
        inputs=_inputs(arrays, "begins"),
        state={"W": ("v", "k"), "anchor": ("v", "k")},
        initial={"W": zero, "anchor": zero},
        structure=None,
        readout=lambda s, u: times(s.W, u["q"]),
    )


def tnt(arrays: Arrays) -> rs.Recurrence:
    W0 = arrays["W0"]
    zero = np.zeros((arrays["k"].shape[1], *W0.shape[1:]), W0.dtype)
    local = np.broadcast_to(W0, (len(zero), *W0.shape))
    return rs.Recurrence.from_function(
        tnt_step,
        inputs=_inputs(arrays, "begins", "begins_shard", "begins_long")
        | {"step_long": arrays["eta_long"][..., None] * arrays["k"], "Mq": projected(arrays)},
        state={"V": ("v", "k"), "V_anchor": ("v", "k"), "W": ("i", "v", "k"), "anchor": ("i", "v", "k")},
        initial={"V": zero, "V_anchor": zero, "W": local, "anchor": local},
        parameters={"W0": W0},
        structure=None,
        readout=tnt_readout,
    )


def followed(u: Any, step: Array, begins: Array, start: Array, restarts: Array | None = None) -> list[Array]:
    """Return a memory and its anchor, each (T, *batch, *lanes, v * k), by a scan with one matrix for all rows.

    ``start`` has the rows (W, anchor) before the first step, and those that follow where memories begin again.
    """
    k, lanes = u["k"], (1,) * (start.ndim - u["k"].ndim)
    learns = outer(step, k)
    eye = np.eye(k.shape[-1], dtype=k.dtype) + 0 * learns
    begins = begins.astype(k.dtype)
    matrix = np.block([[eye - begins * learns, (begins - 1) * learns], [begins * eye, (1 - begins) * eye]])
    matrix = matrix.reshape(*k.shape[:2], *lanes, 1, *matrix.shape[2:])
    write = outer(u["v"], step)
    added = np.concatenate([write, 0 * write], axis=-1).reshape(*k.shape[:2], *lanes, -1, matrix.shape[-1])
    if restarts is not None:
        added = np.where(restarts, times(matrix, start) + added, added)
        matrix = np.where(restarts[..., None], 0, matrix)
    rows = rs.scan("affine", (matrix, added), initial=start)
    return [part.reshape(*k.shape[:2], -1) for part in np.split(rows, 2, axis=-1)]


def ttt_scan(recurrence: rs.Recurrence) -> Array:
    u = recurrence.contain(recurrence.inputs)  # type: ignore[attr-defined]
    before = recurrence.named(recurrence.initial)
    start = np.concatenate([before["W"], before["anchor"]], axis=-1)
    return np.concatenate(followed(u, u["step"], u["begins"], start), axis=-1)


def tnt_scan(recurrence: rs.Recurrence) -> Array:
    u = recurrence.contain(recurrence.inputs)  # type: ignore[attr-defined]
    before = recurrence.named(recurrence.initial)
    V, W = (np.concatenate([before[name]] * 2, axis=-1) for name in ("V", "W"))
    whole = followed(u, u["step_long"], u["begins_long"], V)
    local = followed(u, u["step"], u["begins"], W, u["begins_shard"][..., None])
    return np.concatenate([*whole, *local], axis=-1)


_STRUCTURE = "2 k x 2 k for a row of (W, anchor), independent of W"
SYSTEMS = (
    system_of(
        __name__,
        name="ttt",
        make=ttt,
        scan=ttt_scan,
        structure=_STRUCTURE,
        title="TTT",
        cite="Sun et al., arXiv 2407.04620",
        study="staleness",
    ),
    system_of(
        __name__,
        name="tnt",
        make=tnt,
        scan=tnt_scan,
        structure=_STRUCTURE,
        title="TNT",
        cite="Li et al., arXiv 2511.07343",
        study="staleness",
    ),
)

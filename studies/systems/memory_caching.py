"""Memory Caching: the memories at the ends of segments are kept, and queries read several of them.

Segments s = 0, 1, ... of a sequence have a memory each (Behrouz et al., arXiv 2602.24281), linear, or the network
M(x) = W1 silu(W0 x) of Deep Linear Attention (DLA; arXiv 2505.23735), which ascends <M(k), v>:

linear:  M' = M + v k^T
DLA:     W1' = W1 + eta v silu(W0 k)^T,  W0' = W0 + eta ((W1^T v) * silu'(W0 k)) k^T

All of them are components of one state, ``slot`` by slot, of which each step writes to some: that of its own segment
where segments begin anew (*independent*), or that and those behind it where each begins as the one before has ended
(*checkpoint*). A query reads y = sum over i of gamma_i M^i(q), and the readouts differ in gamma alone, with
rho_i = <u, the mean key of segment i> up to now:

residual: 1 for all segments up to this one;  GRM: softmax of rho over these;  SSC: softmax over this one and the top k

A *soup* adds weights up instead, to the memory with sum over i of gamma_i W^i, gamma that of GRM, and is read once. Of
linear memories it is GRM.

J of linear memories is I: one sum is the solution. In DLA hidden units do not couple, each with a row of W0 and a
column of W1, and neither do slots.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np

import recsolve as rs
from recsolve.base.arrays import Array
from recsolve.studies.systems.delta_rule import outer, times
from recsolve.studies.systems.system import Arrays, Draw, system_of

READS = ("residual", "grm", "ssc")
MODES = ("independent", "checkpoint")


@dataclass(frozen=True)
class Config:
    length: int = 512
    batch: int = 2
    keys: int = 4
    values: int = 4
    hidden: int = 6
    segments: int = 4
    eta: float = 0.05
    seed: int = 0
    dtype: str = "float64"


def draw(config: Config) -> Arrays:
    leading, random = (config.length, config.batch), Draw(config.seed, config.dtype)
    return {
        "k": random.unit(*leading, config.keys),
        "v": random.normal(*leading, config.values),
        "q": random.normal(*leading, config.keys),
        "u": random.normal(*leading, config.keys),
        "eta": random.uniform(0.5 * config.eta, 1.5 * config.eta, *leading),
        "W0": random.normal(config.hidden, config.keys, scale=config.keys**-0.5),
        "W1": random.normal(config.values, config.hidden, scale=config.hidden**-0.5),
        "segment": (np.arange(config.length) * config.segments // config.length).astype(config.dtype),
    }


def seen(segment: Array) -> Array:
    """Return 1 where slots are those of the segment of a step or of earlier ones, (T, slots)."""
    return (np.arange(segment.max() + 1) <= segment[:, None]).astype(segment.dtype)


def written(segment: Array, mode: str) -> Array:
    """Return 1 where a step writes to a slot, (T, slots)."""
    slots = np.arange(segment.max() + 1)
    mask = slots == segment[:, None] if mode == "independent" else slots >= segment[:, None]
    return mask.astype(segment.dtype)


def weights(arrays: Arrays, read: str, top: int = 2) -> Array:
    """Return gamma, (T, batch, slots): what a query takes of every memory up to its own segment; a soup's is GRM's."""
    k, u, segment = arrays["k"], arrays["u"], arrays["segment"]
    reached = np.broadcast_to(seen(segment)[:, None], (*k.shape[:2], int(segment.max()) + 1))
    if read == "residual":
        return reached
    own = written(segment, "independent")[:, None, :]
    counts = np.maximum(np.cumsum(own, axis=0), 1)
    pooled = np.cumsum(own[..., None] * k[:, :, None], axis=0) / counts[..., None]
    rho = np.where(reached == 1, times(pooled, u), -np.inf)
    if read == "ssc":
        others = np.where(own == 1, -np.inf, rho)
        least = np.sort(others, axis=-1)[..., -min(top, rho.shape[-1])][..., None]
        rho = np.where((own == 1) | (others >= least), rho, -np.inf)
    shares = np.exp(rho - rho.max(axis=-1, keepdims=True))
    return (shares / shares.sum(axis=-1, keepdims=True)).astype(k.dtype)  # type: ignore[no-any-return]


def linear_step(s: Any, u: Any) -> Any:
    return {"M": s.M + outer(u["writes"][:, None, :, None] * u["v"][..., None, :], u["k"][..., None, :])}


def linear_readout(s: Any, u: Any) -> Any:
    return (u["gamma"][..., None] * times(s.M, u["q"][..., None, :])).sum(axis=-2)


def silu(x: Any) -> Any:
    return x / (1 + np.exp(-x))


def dla_step(s: Any, u: Any) -> Any:
    k, v = u["k"][..., None, :], u["v"][..., None, :]
    rate = u["writes"][:, None, :] * u["eta"][..., None]
    a, g = times(s.W0, k), np.matmul(v[..., None, :], s.W1)[..., 0, :]
    gate = 1 / (1 + np.exp(-a))
    slope = gate * (1 + a * (1 - gate))
    return {
        "W0": s.W0 + outer(rate[..., None] * g * slope, k),
        "W1": s.W1 + outer(rate[..., None] * v, a * gate),
    }


def dla_readout(s: Any, u: Any) -> Any:
    read = times(s.W1, silu(times(s.W0, u["q"][..., None, :])))
    return (u["gamma"][..., None] * read).sum(axis=-2)


def soup_readout(s: Any, u: Any) -> Any:
    W0, W1 = ((u["gamma"][..., None, None] * W).sum(axis=-3) for W in (s.W0, s.W1))
    return times(W1, silu(times(W0, u["q"])))


def _inputs(arrays: Arrays, names: str, read: str, mode: str) -> dict[str, Array]:
    hoisted = {"gamma": weights(arrays, read), "writes": written(arrays["segment"], mode)}
    return {**{name: arrays[name] for name in names.split()}, **hoisted}


def linear(arrays: Arrays, read: str = "grm", mode: str = "independent") -> rs.Recurrence:
    k, v, slots = arrays["k"], arrays["v"], int(arrays["segment"].max()) + 1
    return rs.Recurrence.from_function(
        linear_step,
        inputs=_inputs(arrays, "k v q", read, mode),
        state={"M": ("slot", "v", "k")},
        initial={"M": np.zeros((k.shape[1], slots, v.shape[-1], k.shape[-1]), k.dtype)},
        structure="identity",
        readout=linear_readout,
    )


def dla(arrays: Arrays, read: str = "grm", mode: str = "independent") -> rs.Recurrence:
    shape = arrays["k"].shape[1], int(arrays["segment"].max()) + 1
    by_unit = ("slot", "h")
    return rs.Recurrence.from_function(
        dla_step,
        inputs=_inputs(arrays, "k v q eta", read, mode),
        state={"W0": ("slot", "h", "k"), "W1": ("slot", "v", "h")},
        initial={name: np.broadcast_to(arrays[name], (*shape, *arrays[name].shape)) for name in ("W0", "W1")},
        structure={("W0", "W0"): by_unit, ("W0", "W1"): by_unit, ("W1", "W0"): by_unit, ("W1", "W1"): "diagonal"},
        readout=soup_readout if read == "soup" else dla_readout,
    )


def scan(recurrence: rs.Recurrence) -> Array:
    """Return the states of linear memories: sums of what is written."""
    u = recurrence.contain(recurrence.inputs)  # type: ignore[attr-defined]
    write = outer(u["v"], u["k"])[:, :, None] * u["writes"][:, None, :, None, None]
    found: Array = rs.scan("addition", (write.reshape(*write.shape[:2], -1),), initial=recurrence.initial)
    return found


_PAPER = {"title": "Memory Caching", "cite": "Behrouz et al., arXiv 2602.24281", "study": "memory_caching"}
SYSTEMS = (
    system_of(__name__, name="memory_caching", make=linear, scan=scan, structure="identity", **_PAPER),
    system_of(
        __name__, name="memory_caching_dla", make=dla, structure="k + v numbers of a slot's hidden unit", **_PAPER
    ),
)

"""Attention as an RNN: softmax attention of one query, updated token by token in constant memory.

With a learned query q and keys and values k_t, v_t projected from the tokens (Feng et al., arXiv 2405.13956), from
(m, c, a) = (-inf, 0, 0):

    s_t = q . k_t / sqrt(d),   m' = max(m, s_t),
    c' = c e^(m - m') + e^(s_t - m'),   a' = a e^(m - m') + v_t e^(s_t - m'),   y_t = a' / c'

m is the largest score so far, so that no exponential overflows, c the sum of the weights and a that of the values. The
Jacobian is triangular: c and a are linear once m is known. The maps of (c, a) with their m are a monoid, and its scan
is causal attention, the layer that the paper calls Aaren.
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
    """``gain`` scales the scores: at 1000 they overflow every exponential that is not stabilised."""

    length: int = 4096
    batch: int = 2
    width: int = 8
    gain: float = 1.0
    seed: int = 0
    dtype: str = "float64"


def draw(config: Config) -> Arrays:
    d, random = config.width, Draw(config.seed, config.dtype)
    k, v = (random.normal(config.length, config.batch, d) for _ in "kv")
    return {"q": random.normal(d, scale=config.gain), "k": k, "v": v}


def attend(s: Any, W: Any, u: Any, p: Any) -> Any:
    m = np.maximum(s.m, u.s)
    kept, new = np.exp(s.m - m), np.exp(u.s - m)
    return {"m": m, "c": kept * s.c + new, "a": kept[..., None] * s.a + new[..., None] * u.v}


CELL = rs.Cell(attend, state={"m": (), "c": (), "a": ("d",)}, axes={"s": ()}, output="a")


def average(s: Any, u: Any, p: Any) -> Any:
    return s.a / s.c[..., None]


def make(arrays: Arrays) -> rs.Recurrence:
    drive = {"s": arrays["k"] @ arrays["q"] / float(arrays["q"].size ** 0.5), "v": arrays["v"]}
    return CELL.with_weights().recurrence(drive=drive, initial={"m": -np.inf}, readout=average)


def scan(recurrence: rs.Recurrence) -> Array:
    s, v = recurrence.inputs  # type: ignore[attr-defined]
    weighted = np.concatenate([np.ones_like(v[..., :1]), v], axis=-1)
    found: Array = rs.scan("weighted_logsumexp", (0.0, s, weighted))
    return found


SYSTEMS = (
    system_of(
        __name__,
        name="attention_rnn",
        make=make,
        scan=scan,
        structure="triangular: c and a see m and themselves",
        title="Attention as an RNN",
        cite="Feng et al., arXiv 2405.13956",
        study="attention_rnn",
    ),
)

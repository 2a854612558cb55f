"""MossFormer2's FSMN: a memory that is a filter of finite length, so that nothing is carried from step to step.

A feedforward sequential memory network (Zhang et al., arXiv 1512.08301) is what MossFormer2 calls its RNN-free
recurrent module (Zhao et al., arXiv 2312.11825). From the input u, with taps a_i for every unit:

    p_t = W_p relu(W_l u_t + b),   m_t = p_t + sum over 0 < |i| <= N of a_i p_{t+i},   y_t = u_t + m_t

It sees N steps back and ahead, zeros beyond the ends. As a recurrence in m its Jacobian is zero: every method takes one
evaluation. The other way round, N sweeps of Jacobi's method on h' = lambda h + p, from 0, are a filter with the N taps
1, lambda, ..., lambda^(N-1), and leave lambda^N of what came before: a filter is a recurrence that was not solved to
the end.
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
    """``reach`` steps are seen on both sides."""

    length: int = 1024
    batch: int = 2
    units: int = 8
    hidden: int = 16
    reach: int = 19
    seed: int = 0
    dtype: str = "float64"


def draw(config: Config) -> Arrays:
    n, hidden, random = config.units, config.hidden, Draw(config.seed, config.dtype)
    return {
        "u": random.normal(config.length, config.batch, n),
        "W_l": random.normal(hidden, n, scale=n**-0.5),
        "b": random.normal(hidden, scale=0.1),
        "W_p": random.normal(n, hidden, scale=hidden**-0.5),
        "a": random.normal(2 * config.reach + 1, n, scale=config.reach**-0.5),
    }


def windows(x: Array, back: int, ahead: int) -> Array:
    """Return what every step sees, from ``back`` steps before it to ``ahead`` after it: (T, *batch, n, window)."""
    padded = np.concatenate(
        [np.zeros_like(x, shape=(back, *x.shape[1:])), x, np.zeros_like(x, shape=(ahead, *x.shape[1:]))]
    )
    return np.lib.stride_tricks.sliding_window_view(padded, back + 1 + ahead, axis=0)


def remember(m: Any, u: Any, p: Any) -> Any:
    seen = u["window"]
    return seen[..., seen.shape[-1] // 2] + np.sum(seen * p.a, axis=-1)


def add(m: Any, u: Any, p: Any) -> Any:
    return u["u"] + m


def make(arrays: Arrays) -> rs.Recurrence:
    u, reach = arrays["u"], len(arrays["a"]) // 2
    p = np.maximum(u @ arrays["W_l"].T + arrays["b"], 0) @ arrays["W_p"].T
    return rs.Recurrence.from_function(
        remember,
        inputs={"u": u, "window": windows(p, reach, reach)},
        initial=np.zeros_like(u[0]),
        structure="zero",
        parameters={"a": np.ascontiguousarray(arrays["a"].T)},
        readout=add,
    )


SYSTEMS = (
    system_of(
        __name__,
        name="fsmn",
        make=make,
        structure="zero",
        title="MossFormer2",
        cite="Zhao et al., arXiv 2312.11825",
        study="paper/fsmn",
    ),
)

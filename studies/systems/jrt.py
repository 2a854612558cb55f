"""Just Read Twice: linear attention whose state begins with a summary of the prompt.

With features of keys and queries phi(x) = (1, x / d^(1/4), x x^T / sqrt(2 d)), so that phi(q) . phi(k) is the
expansion 1 + s + s^2 / 2 of e^s at s = q . k / sqrt(d), and other keys and values k^e, v^e of the first M tokens
(Arora et al., arXiv 2407.05483):

    S_0 = sum over the prompt of phi(k^e) v^e^T,   z_0 = sum over the prompt of phi(k^e),
    S' = S + phi(k) v^T,   z' = z + phi(k),   y = S'^T phi(q) / (z' . phi(q) + eps)

All of the prompt is seen from its first token on; after it, this is linear attention as always. The Jacobian is I, and
a running sum is the solution; where sums are long, a second iteration of Newton or Picard mends what a scan rounds in
another order than the loop. With k^e = k and v^e = v it is what linear attention gives when it reads twice.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np

import recsolve as rs
from recsolve.base.arrays import Array
from recsolve.studies.systems.system import Arrays, Draw, system_of

EPS = 1e-12


@dataclass(frozen=True)
class Config:
    """Keys have ``width`` numbers, features 1 + width + width^2; the prompt is ``prompt`` tokens."""

    length: int = 1024
    batch: int = 2
    prompt: int = 32
    width: int = 3
    values: int = 4
    seed: int = 0
    dtype: str = "float64"


def draw(config: Config) -> Arrays:
    d, random = config.width, Draw(config.seed, config.dtype)
    lead, prompt = (config.length, config.batch), (config.prompt, config.batch)
    return {
        "q": random.normal(*lead, d),
        "k": random.normal(*lead, d),
        "v": random.normal(*lead, config.values),
        "k_e": random.normal(*prompt, d),
        "v_e": random.normal(*prompt, config.values),
    }


def phi(x: Array) -> Array:
    d = x.shape[-1]
    squares = (x[..., :, None] * x[..., None, :]).reshape(*x.shape[:-1], d * d)
    return np.concatenate([np.ones_like(x[..., :1]), x / float(d**0.25), squares / float((2 * d) ** 0.5)], axis=-1)


def add(s: Any, u: Any) -> Any:
    return {"z": s.z + u["k"], "S": s.S + u["k"][..., :, None] * u["v"][..., None, :]}


def attend(s: Any, u: Any) -> Any:
    weights = np.sum(s.z * u["q"], axis=-1)[..., None] + EPS
    return np.einsum("...fv,...f->...v", s.S, u["q"]) / weights


def make(arrays: Arrays) -> rs.Recurrence:
    q, k, k_e = (phi(arrays[name]) for name in ("q", "k", "k_e"))
    return rs.Recurrence.from_function(
        add,
        inputs={"q": q, "k": k, "v": arrays["v"]},
        state={"z": ("f",), "S": ("f", "v")},
        initial={"z": k_e.sum(axis=0), "S": np.einsum("t...f,t...v->...fv", k_e, arrays["v_e"])},
        structure="identity",
        readout=attend,
    )


def scan(recurrence: rs.Recurrence) -> Array:
    u = recurrence.contain(recurrence.inputs)  # type: ignore[attr-defined]
    k, v = u["k"], u["v"]
    written = (k[..., :, None] * v[..., None, :]).reshape(*k.shape[:-1], -1)
    found: Array = rs.scan("addition", (np.concatenate([k, written], axis=-1),), initial=recurrence.initial)
    return found


SYSTEMS = (
    system_of(
        __name__,
        name="jrt",
        make=make,
        scan=scan,
        structure="identity",
        title="Just Read Twice",
        cite="Arora et al., arXiv 2407.05483",
        study="paper/jrt",
    ),
)

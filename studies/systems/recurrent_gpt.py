"""RecurrentGPT: a short memory that is overwritten, and a long one to which everything is appended.

A language model writes a paragraph o, a plan p and a short memory h from those of the step before and from what it
finds for the plan in a list L of all paragraphs (Zhou et al., arXiv 2305.13304). Texts have no derivative, so that for
the system itself there is the loop alone. In miniature texts are vectors, and the search is soft:

    p = P h,  found = sum over j of softmax(<L_j, p>)_j L_j,  h' = tanh(W h + x + V found),  L' = L with h appended

L has a number of slots, and steps say where they append: ``write`` has one 1 in a row, or none. Slot 0 is what the
story begins with. J is dense in (h, L): what is appended now is found at any later step, so that this is a recurrence
over the full history, written as one over a state that holds it.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np

import recsolve as rs
from recsolve.studies.systems.system import Arrays, Draw, system_of


@dataclass(frozen=True)
class Config:
    """Slots after the first are written to in a circle, so that ``slots`` > ``length`` forgets nothing."""

    length: int = 256
    batch: int = 2
    units: int = 4
    slots: int = 9
    gain: float = 0.7
    seed: int = 0
    dtype: str = "float64"


def draw(config: Config) -> Arrays:
    n, random, T = config.units, Draw(config.seed, config.dtype), config.length
    places = 1 + np.arange(T) % (config.slots - 1)
    return {
        "x": random.normal(T, config.batch, n),
        "W": random.normal(n, n, scale=config.gain * n**-0.5),
        "V": random.normal(n, n, scale=config.gain * n**-0.5),
        "P": random.normal(n, n, scale=2 * n**-0.5),
        "first": random.normal(n),
        "write": (np.arange(config.slots) == places[:, None]).astype(config.dtype),
    }


def step(s: Any, u: Any, p: Any) -> Any:
    plan = np.matmul(s.h, p.P.T)
    scores = u["filled"][:, None, :] * np.exp(np.matmul(s.L, plan[..., None])[..., 0])
    found = np.matmul(scores[..., None, :], s.L)[..., 0, :] / scores.sum(axis=-1)[..., None]
    write = u["write"][:, None, :, None]
    return {
        "h": np.tanh(np.matmul(s.h, p.W.T) + u["x"] + np.matmul(found, p.V.T)),
        "L": (1 - write) * s.L + write * s.h[..., None, :],
    }


def make(arrays: Arrays) -> rs.Recurrence:
    write, n = arrays["write"], len(arrays["W"])
    before = np.concatenate([np.zeros_like(write[:1]), write])[:-1]
    filled = np.maximum.accumulate(before, axis=0)
    filled[:, 0] = 1
    L = np.zeros((arrays["x"].shape[1], write.shape[1], n), write.dtype)
    L[:, 0] = arrays["first"]
    return rs.Recurrence.from_function(
        step,
        inputs={"x": arrays["x"], "write": write, "filled": filled},
        state={"h": ("n",), "L": ("slot", "n")},
        initial={"h": np.zeros_like(L[:, 0]), "L": L},
        parameters={name: arrays[name] for name in "WVP"},
        structure={("h", "h"): "dense", ("h", "L"): "dense", ("L", "h"): "diagonal", ("L", "L"): "diagonal"},
    )


SYSTEMS = (
    system_of(
        __name__,
        name="recurrent_gpt",
        make=make,
        structure="dense in what is remembered",
        title="RecurrentGPT",
        cite="Zhou et al., arXiv 2305.13304",
        study="planted",
    ),
)

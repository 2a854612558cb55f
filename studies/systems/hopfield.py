"""Modern Hopfield networks: retrieval of stored patterns is a recurrence with attention's softmax.

With stored patterns X, one a column, and a state xi that begins at the query (Ramsauer et al., arXiv 2008.02217):

    xi' = X softmax(beta X^T xi)

The Jacobian beta X (diag(p) - p p^T) X^T, p the softmax, is dense, of rank N - 1 at most, and tiny near a pattern that
is far from all others: there one step retrieves, up to an error that falls exponentially with beta.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np

import recsolve as rs
from recsolve.math import softmax
from recsolve.studies.systems.system import Arrays, Draw, system_of


@dataclass(frozen=True)
class Config:
    """``queries`` are stored patterns with noise of this deviation in every number; patterns have numbers of size 1."""

    length: int = 64
    queries: int = 8
    width: int = 12
    patterns: int = 24
    beta: float = 0.25
    noise: float = 1.0
    seed: int = 0
    dtype: str = "float64"


def draw(config: Config) -> Arrays:
    random = Draw(config.seed, config.dtype)
    X = random.normal(config.width, config.patterns)
    first = X.T[np.arange(config.queries) % config.patterns]
    return {
        "X": X,
        "beta": np.asarray(config.beta, config.dtype),
        "xi": first + random.normal(*first.shape, scale=config.noise),
        "steps": np.arange(config.length),
    }


def _update(xi: Any, u: Any, p: Any) -> Any:
    return softmax(xi @ p.scaled) @ p.X.T


def make(arrays: Arrays) -> rs.Recurrence:
    return rs.Recurrence.from_function(
        _update,
        initial=arrays["xi"],
        length=len(arrays["steps"]),
        parameters={"X": arrays["X"], "scaled": arrays["beta"] * arrays["X"]},
        structure="dense",
    )


SYSTEMS = (
    system_of(
        __name__,
        name="hopfield",
        make=make,
        structure="dense, of rank N - 1",
        title="Modern Hopfield networks",
        cite="Ramsauer et al., arXiv 2008.02217",
        study="hopfield",
    ),
)

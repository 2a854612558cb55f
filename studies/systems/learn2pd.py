"""Learn2PD: which states are settled is learned, and what is settled is not computed again.

The paper (Bao et al., arXiv 2509.25188) decodes masked diffusion models: a small filter looks at the confidence of
tokens and says which of them are final. Here the iteration is Jacobi's, on a network with a matrix W,

    h' = tanh(W h + u)
    filter:  settled where sigmoid(w . [1, log |r_t|, log |r_{t-1}|]) > threshold,  r the residual of the iterate

fitted to where |h - solution| is below ``error`` along the iterations of a solve whose solution is known. Of a discrete
recurrence the filter would have nothing to do: the first state that is not settled is known after the next sweep,
whatever the filter says. The Jacobian is dense.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np

import recsolve as rs
from recsolve.base.arrays import Array
from recsolve.studies.systems.system import Arrays, Draw, system_of

SMALLEST = 1e-17  # the residual of what is exact, to take logarithms of


@dataclass(frozen=True)
class Config:
    """``gain`` is about the norm of the rows of W."""

    length: int = 512
    batch: int = 2
    units: int = 16
    gain: float = 1.3
    seed: int = 0
    dtype: str = "float64"


def draw(config: Config) -> Arrays:
    n, random = config.units, Draw(config.seed, config.dtype)
    return {
        "u": random.normal(config.length, config.batch, n),
        "W": random.normal(n, n, scale=config.gain * n**-0.5),
    }


def _step(h: Any, u: Any, p: Any) -> Any:
    return np.tanh(h @ p.W.T + u)


def make(arrays: Arrays) -> rs.Recurrence:
    u = arrays["u"]
    return rs.Recurrence.from_function(
        _step, inputs=u, initial=np.zeros(u.shape[1:], u.dtype), parameters={"W": arrays["W"]}
    )


def features(residual: Array) -> Array:
    """Return [1, log |r_t|, log |r_{t-1}|] of every row, with logarithms to the base of 10."""
    size = np.log10(np.maximum(np.abs(residual).max(axis=-1), SMALLEST))
    left = np.concatenate([np.full_like(size[:1], np.log10(SMALLEST)), size[:-1]])
    return np.stack([np.ones_like(size), size, left], axis=-1)


@dataclass(frozen=True)
class Filter:
    """A rule for ``options={"accept": rule}``: rows that are probably within ``error`` of the solution.

    Parameters
    ----------
    weights : array, shape (3,)
    threshold : float
        The probability from which on a row is settled.
    """

    weights: Array
    threshold: float = 0.5

    @classmethod
    def fitted(cls, recurrence: rs.Recurrence, error: float, threshold: float = 0.5) -> Filter:
        """Return the filter that logistic regression finds on all iterates of Jacobi's method."""
        truth, engine = rs.solve(recurrence, method="sequential").states, recurrence.bind()
        rows, settled, states = [], [], engine.guess()
        for _ in range(recurrence.length):
            values = engine.evaluate(states)
            rows.append(features(values - states).reshape(-1, 3))
            settled.append((np.abs(states - truth).max(axis=-1) < error).reshape(-1))
            if settled[-1].all():
                break
            states = values
        return cls(_logistic(np.concatenate(rows), np.concatenate(settled)), threshold)

    def __call__(self, problem: Any, iterate: Any) -> Array:
        settled: Array = features(iterate.residual) @ self.weights > np.log(self.threshold / (1 - self.threshold))
        return settled


def _logistic(x: Array, y: Array, ridge: float = 1e-3, steps: int = 30) -> Array:
    """Return weights of a logistic regression, by Newton's method."""
    w = np.zeros(x.shape[1])
    for _ in range(steps):
        p = 1 / (1 + np.exp(-(x @ w)))
        hessian = (x * (p * (1 - p))[:, None]).T @ x + ridge * np.eye(len(w))
        w = w + np.linalg.solve(hessian, x.T @ (y - p) - ridge * w)
    return w


SYSTEMS = (
    system_of(
        __name__,
        name="learn2pd",
        make=make,
        structure="dense",
        title="Learn2PD",
        cite="Bao et al., arXiv 2509.25188",
        study="learn2pd",
    ),
)

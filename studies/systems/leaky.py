"""Leaky tau RNN: units with trained time constants, and two routes to a long memory, through tau or through W.

With a LeakyReLU phi of slope 0.01, W without a diagonal and tau >= 1 for each unit (Khajehabdollahi et al.,
arXiv 2309.12927), u = V x + b:

phi outside:  h' = phi((1 - 1/tau) h + (W h + u) / tau)
phi inside:   h' = (1 - 1/tau) h + phi(W h + u) / tau

The Jacobian is dense and piecewise constant, diag(phi') (diag(1 - 1/tau) + diag(1/tau) W) where phi is outside:
Newton's method ends, up to rounding, as soon as all signs are right. ``leaky_parity`` is a network of this form with
weights by hand, whose units tell the parity of the last bits for ever. Newton's method finds that hard: an exclusive or
neither contracts nor expands, and all signs depend on those before.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np

import recsolve as rs
from recsolve.base.arrays import Array
from recsolve.math import where
from recsolve.mixings import Dense, Masked
from recsolve.studies.systems.system import Arrays, Draw, system_of

SLOPE = 0.01


@dataclass(frozen=True)
class Config:
    """Time constants lie between tau and 2 tau; W ~ N(0, gain^2 / units). ``window`` bits for the parity network."""

    length: int = 512
    batch: int = 2
    inputs: int = 2
    units: int = 24
    tau: float = 1.0
    gain: float = 0.8
    window: int = 5
    seed: int = 0
    dtype: str = "float64"


def draw(config: Config) -> Arrays:
    n, random = config.units, Draw(config.seed, config.dtype)
    return {
        "x": random.normal(config.length, config.batch, config.inputs),
        "W": random.normal(n, n, scale=config.gain * n**-0.5),
        "V": random.normal(n, config.inputs, scale=config.inputs**-0.5),
        "b": random.normal(n, scale=0.1),
        "tau": random.uniform(config.tau, 2 * config.tau, n),
        "initial": random.uniform(0.0, 0.1, config.batch, n),
    }


def _phi(x: Any) -> Any:
    return where(x > 0, x, SLOPE * x)


def _outer(s: Any, W: Any, u: Any, p: Any) -> Any:
    return _phi((1 - 1 / p.tau) * s.h + (W.h(s.h) + u.h) / p.tau)


def _inner(s: Any, W: Any, u: Any, p: Any) -> Any:
    return (1 - 1 / p.tau) * s.h + _phi(W.h(s.h) + u.h) / p.tau


OUTER, INNER = (rs.Cell(f, state=("h",), output="h") for f in (_outer, _inner))


def _made(cell: rs.Cell, arrays: Arrays) -> rs.Recurrence:
    W = arrays["W"]
    weighted = cell.with_weights(
        mixings={"h": Masked(Dense(W), ~np.eye(len(W), dtype=bool))},
        parameters={"tau": arrays["tau"]},
        projection=rs.Projection({"h": arrays["V"]}, {"h": arrays["b"]}),
    )
    return weighted.recurrence(arrays["x"], initial=arrays["initial"])


def outer(arrays: Arrays) -> rs.Recurrence:
    return _made(OUTER, arrays)


def inner(arrays: Arrays) -> rs.Recurrence:
    return _made(INNER, arrays)


def draw_parity(config: Config) -> Arrays:
    """Return random bits, and the weights of the network that tells the parity of the last ``window``, with tau = 1.

    phi(a - b) + phi(b - a) = (1 - slope) |a - b| is the exclusive or of two bits. A line of units delays the input, two
    units compare what enters the window with what leaves it, and two more keep the parity. A unit must not see itself,
    so there are two pairs of these, and each sees the other.
    """
    N, c = config.window, 1 / (1 - SLOPE)
    line, enters, pairs = np.arange(N), [N, N + 1], ([N + 2, N + 3], [N + 4, N + 5])
    W, V, signs = np.zeros((N + 6, N + 6)), np.zeros((N + 6, 1)), np.array([[1.0], [-1.0]])
    V[0], V[enters] = 1, signs
    W[line[1:], line[:-1]] = 1
    W[enters, N - 1] = -signs[:, 0]
    for own, other in (pairs, pairs[::-1]):
        W[np.ix_(own, other)], W[np.ix_(own, enters)] = c * signs, -c * signs
    bits = np.random.default_rng(config.seed).integers(0, 2, (config.length, config.batch, 1))
    arrays = {"x": bits, "W": W, "V": V, "b": np.zeros(N + 6), "tau": np.ones(N + 6)}
    arrays["initial"] = np.zeros((config.batch, N + 6))
    return {name: x.astype(config.dtype) for name, x in arrays.items()}


def parity(states: Array) -> Array:
    """Return the parity of the bits of the window before each step, (T, *batch), as integers."""
    found: Array = np.rint(states[..., -2:].sum(axis=-1) / (1 - SLOPE)).astype(int)
    return found


_PAPER: dict[str, Any] = {
    "title": "Leaky tau RNN",
    "cite": "Khajehabdollahi et al., arXiv 2309.12927",
    "structure": "dense, piecewise constant",
    "study": "memory_routes",
}
SYSTEMS = (
    system_of(__name__, name="leaky_outer", make=outer, **_PAPER),
    system_of(__name__, name="leaky_inner", make=inner, **_PAPER),
    system_of(__name__, name="leaky_parity", make=outer, **{**_PAPER, "draw": draw_parity}),
)

"""LaCT: a SwiGLU network as fast weights, which takes one gradient step for each large chunk of tokens.

f_W(x) = W1 (silu(W0 x) * W2 x), with a rate for each token and matrix (Zhang et al., arXiv 2505.23884). For a chunk of
tokens (k_i, v_i) the loss is L = - sum over i of eta_i <f_W(k_i), v_i>, whose gradients have a closed form:

    a = W0 k,  c = W2 k,  g = W1^T v
    G1 = sum of eta v (silu(a) * c)^T,  G2 = sum of eta (g * silu(a)) k^T,  G0 = sum of eta (g * c * silu'(a)) k^T

``lact``       W' = W + G
``lact_norm``  W' = rows of W + G, each as long as it was in the beginning
``lact_muon``  m' = mu m + G,  W' = rows of W + Muon(m'), each as long as in the beginning; Muon makes all singular
               values about 1, by five steps of Newton and Schulz

t counts chunks: the tokens of chunk t + 1 are queried with W_t. J is I less the curvature of L. Without norms it does
not couple hidden units, each of which has a row of W0, one of W2 and a column of W1: 2 k + v numbers. Norms of the rows
of W1 couple all, and so does Muon.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np

import recsolve as rs
from recsolve.studies.systems.system import Arrays, Draw, system_of

_AXES = {"W0": ("h", "k"), "W1": ("v", "h"), "W2": ("h", "k")}
_NEWTON_SCHULZ = (3.4445, -4.775, 2.0315)


@dataclass(frozen=True)
class Config:
    """``length`` chunks of ``chunk`` tokens with rates of about ``eta``; rows of weights have a norm of about ``gain``.

    A step of Muon has size 1: with a gain of 1, or values that have nothing to do with keys, ``lact_muon`` is chaotic.
    """

    length: int = 64
    batch: int = 1
    chunk: int = 16
    keys: int = 2
    hidden: int = 3
    values: int = 2
    eta: float = 0.001
    gain: float = 4.0
    noise: float = 0.5
    seed: int = 0
    dtype: str = "float64"


def draw(config: Config) -> Arrays:
    leading, random = (config.length, config.batch), Draw(config.seed, config.dtype)
    d, h, v, gain = config.keys, config.hidden, config.values, config.gain
    k = random.unit(*leading, config.chunk, d)
    return {
        "k": k,
        "v": k @ random.normal(d, v) + random.normal(*leading, config.chunk, v, scale=config.noise),
        "eta": random.uniform(0.5 * config.eta, 1.5 * config.eta, 3, *leading, config.chunk),  # of W0, W1, W2
        "mu": random.uniform(0.5, 0.9, *leading),
        "W0": random.normal(h, d, scale=gain * d**-0.5),
        "W1": random.normal(v, h, scale=gain * h**-0.5),
        "W2": random.normal(h, d, scale=gain * d**-0.5),
    }


def _swapped(x: Any) -> Any:
    return np.swapaxes(x, -1, -2)


def ascent(s: Any, u: Any) -> dict[str, Any]:
    """Return -dL/dW for every matrix: tokens are rows."""
    k, v, eta = u["k"], u["v"], u["eta"]
    a, c, g = np.matmul(k, _swapped(s.W0)), np.matmul(k, _swapped(s.W2)), np.matmul(v, s.W1)
    gate = 1 / (1 + np.exp(-a))
    silu = a * gate
    rate = [eta[:, i, ..., None] for i in range(3)]
    return {
        "W0": np.matmul(_swapped(rate[0] * g * c * (gate + silu * (1 - gate))), k),
        "W1": np.matmul(_swapped(rate[1] * v), silu * c),
        "W2": np.matmul(_swapped(rate[2] * g * silu), k),
    }


def step(s: Any, u: Any) -> dict[str, Any]:
    return {name: s[name] + G for name, G in ascent(s, u).items()}


def row_norms(W: Any) -> Any:
    return np.sqrt((W * W).sum(axis=-1))[..., None]


def muon(G: Any) -> Any:
    """Return a matrix with the singular vectors of another one, and singular values between 0.7 and 1.2."""
    first, second, third = _NEWTON_SCHULZ
    X = G / (np.sqrt((G * G).sum(axis=-1).sum(axis=-1))[..., None, None] + 1e-7)
    for _ in range(5):
        A = np.matmul(X, _swapped(X))
        X = first * X + np.matmul(second * A + third * np.matmul(A, A), X)
    return X


def norm_step(s: Any, u: Any, p: Any) -> dict[str, Any]:
    moved = step(s, u)
    return {name: W * (p[name] / row_norms(W)) for name, W in moved.items()}


def muon_step(s: Any, u: Any, p: Any) -> dict[str, Any]:
    momenta = {f"m{name[1:]}": u["mu"][..., None, None] * s[f"m{name[1:]}"] + G for name, G in ascent(s, u).items()}
    moved = {name: s[name] + muon(momenta[f"m{name[1:]}"]) for name in _AXES}
    return {**{name: W * (p[name] / row_norms(W)) for name, W in moved.items()}, **momenta}


def _made(step: Any, arrays: Arrays, *, norm: bool, momentum: bool) -> rs.Recurrence:
    batch = arrays["k"].shape[1]
    start = {name: np.broadcast_to(arrays[name], (batch, *arrays[name].shape)) for name in _AXES}
    momenta = {f"m{name[1:]}": np.zeros_like(start[name]) for name in _AXES} if momentum else {}
    inputs = {name: arrays[name] for name in ("k", "v", "mu")[: 3 if momentum else 2]}
    return rs.Recurrence.from_function(
        step,
        inputs={**inputs, "eta": np.moveaxis(arrays["eta"], 0, 1)},
        state={**_AXES, **{name: _AXES[f"W{name[1:]}"] for name in momenta}},
        initial={**start, **momenta},
        parameters={name: row_norms(arrays[name]) for name in _AXES} if norm else None,
        structure=None,
    )


def lact(arrays: Arrays) -> rs.Recurrence:
    return _made(step, arrays, norm=False, momentum=False)


def lact_norm(arrays: Arrays) -> rs.Recurrence:
    return _made(norm_step, arrays, norm=True, momentum=False)


def lact_muon(arrays: Arrays) -> rs.Recurrence:
    return _made(muon_step, arrays, norm=True, momentum=True)


SYSTEMS = tuple(
    system_of(
        __name__,
        name=make.__name__,
        make=make,
        structure=structure,
        title="LaCT",
        cite="Zhang et al., arXiv 2505.23884",
        study="lact",
    )
    for make, structure in (
        (lact, "2 k + v numbers of a hidden unit, near I"),
        (lact_norm, "dense, near the projector that keeps norms of rows"),
        (lact_muon, "dense, of weights and momenta"),
    )
)

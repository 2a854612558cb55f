"""Parallel text generation: the next token of a frozen model, for all places at once.

Sampling with fixed noise g_t, of a Gumbel distribution, is as deterministic as greedy decoding (families of schemes:
Zhang et al., arXiv 2508.08712; Jacobi decoding: Santilli et al., arXiv 2305.10427):

n-gram:       y_t = argmax (sharpness W[y_{t-m}, ..., y_{t-1}] + g_t),  state: the last m tokens as one number
transformer:  y_t = argmax (sharpness R o_t + g_t),  o_t = x_t + attention of x_t over x_1..x_t,  x_t = E y_{t-1}

There is no Jacobian. The n-gram model is a map of all contexts a step, which scans compose; a row of the transformer
sees all rows before it. ``sharpness`` decides how much a token depends on others: 0 is noise alone.

A draft is a guess, of which the longest prefix that the model agrees with is kept: that, and Jacobi's sweeps, give the
loop's tokens. ``committed`` does not: it keeps tokens of which the model is sure before all that they depend on is
known.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np

import recsolve as rs
from recsolve.base.arrays import Array
from recsolve.studies.systems.kept import Kept
from recsolve.studies.systems.system import Arrays, Draw, system_of


@dataclass(frozen=True)
class Config:
    """``memory`` is the number m of tokens that the next one depends on."""

    length: int = 1024
    batch: int = 2
    tokens: int = 4
    memory: int = 2
    sharpness: float = 2.0
    seed: int = 0


@dataclass(frozen=True)
class TransformerConfig:
    length: int = 128
    batch: int = 2
    tokens: int = 16
    width: int = 8
    sharpness: float = 2.0
    seed: int = 0


def _noise(config: Any) -> Array:
    return np.random.default_rng(config.seed + 1).gumbel(size=(config.length, config.batch, config.tokens))


def draw(config: Config) -> Arrays:
    table = Draw(config.seed, "float64").normal(config.tokens**config.memory, config.tokens)
    return {"noise": _noise(config), "W": config.sharpness * table}


def draw_transformer(config: TransformerConfig) -> Arrays:
    V, d, random = config.tokens, config.width, Draw(config.seed, "float64")
    return {
        "noise": _noise(config),
        "E": random.normal(V, d),
        "QKV": random.normal(3, d, d, scale=d**-0.5),
        "R": random.normal(V, d, scale=config.sharpness * d**-0.5),
    }


# An n-gram model -----------------------------------------------------------------------------------------------------


def _next(q: Any, noise: Any, p: Any) -> Any:
    """Return the context after one more token."""
    contexts, tokens = p.W.shape
    y = np.argmax(p.W[q[..., 0]] + noise, axis=-1)
    return (q * tokens + y[..., None]) % contexts


def _last(q: Any, noise: Any, p: Any) -> Any:
    return q % p.W.shape[1]


def ngram(arrays: Arrays) -> rs.Recurrence:
    noise = arrays["noise"]
    return rs.Recurrence.from_function(
        _next,
        inputs=noise,
        initial=np.zeros((noise.shape[1], 1), np.int64),
        parameters={"W": arrays["W"]},
        structure="none",
        readout=_last,
    )


def scan(recurrence: Any) -> Array:
    """Return the states from where each step leads every context."""
    (noise,), W = recurrence.inputs, recurrence.parameters.W
    contexts, tokens = W.shape
    y = np.argmax(W + noise[:, :, None], axis=-1)
    maps = (np.arange(contexts) * tokens + y) % contexts
    found: Array = rs.scan("finite_map", (maps,), initial=recurrence.initial[..., 0])
    return found[..., None]


# A transformer of one layer ------------------------------------------------------------------------------------------


class Transformer:
    """Row t is the token after rows before t; a cache holds their keys and values, and what is known of the last one.

    ``scores(cache, y, noise)`` are what the argmax is taken of.
    """

    def __init__(self, E: Array, QKV: Array, R: Array):
        d = E.shape[1]
        q, k, v = E @ QKV.swapaxes(1, 2)
        self.known, self.R, self.width = np.concatenate([E, q / d**0.5, k, v], axis=1), R, d  # of every token

    def __call__(self, y: Array, noise: Array) -> Array:
        return self.window(None, y, noise)

    def window(self, cache: Any, y: Array, noise: Array) -> Array:
        return self.scores(cache, y, noise).argmax(axis=-1)[..., None]  # type: ignore[no-any-return]

    def scores(self, cache: Any, y: Array, noise: Array) -> Array:
        (kept, seen), d = self.extend(None, y[:0], noise) if cache is None else cache, self.width
        keys_values, several = kept.arrays[0].swapaxes(0, 1), len(y) > 1
        if several:
            seen = np.concatenate([seen, self.known[y[:-1, :, 0].T]], axis=1)  # (batch, rows, 4 d)
        q = seen[..., d : 2 * d]
        weights = np.exp(q @ keys_values[..., :d].swapaxes(1, 2))  # (batch, rows, rows that are seen)
        total, found = weights.sum(axis=-1, keepdims=True), weights @ keys_values[..., d:]
        if several:
            k, v = seen[:, 1:, 2 * d : 3 * d], seen[:, 1:, 3 * d :]
            weights = np.exp(q @ k.swapaxes(1, 2)) * np.tri(len(y), len(y) - 1, -1)
            total, found = total + weights.sum(axis=-1, keepdims=True), found + weights @ v
        scores: Array = ((seen[..., :d] + found / total) @ self.R.T).swapaxes(0, 1) + noise
        return scores

    def extend(self, cache: Any, y: Array, noise: Array) -> Any:
        rows = self.known[y[..., 0]]
        if cache is None:
            rows = np.concatenate([self.known[np.zeros((1, y.shape[1]), y.dtype)], rows])
        keys_values = [rows[..., 2 * self.width :]]
        kept = Kept.of(keys_values) if cache is None else cache[0].added(keys_values)
        return kept, rows[-1:].swapaxes(0, 1) if len(rows) else cache[1]


def transformer(arrays: Arrays) -> rs.Recurrence:
    noise = arrays["noise"]
    model = Transformer(arrays["E"], arrays["QKV"], arrays["R"])
    return rs.Recurrence.from_history(
        model, inputs=noise, initial=np.zeros((noise.shape[1], 1), np.int64), structure="none"
    )


# A scheme that is not exact -------------------------------------------------------------------------------------------


def committed(model: Transformer, noise: Array, threshold: float, guess: Array) -> tuple[Array, int]:
    """Return tokens and the number of passes, where tokens stay once the model finds them probable enough.

    That is decoding as masked diffusion models do it: every pass predicts all places that are open, and closes those
    whose probability exceeds ``threshold``, and the first open one.

    Parameters
    ----------
    model : Transformer
    noise : array, shape (T, batch, tokens)
    threshold : float
        From 1 on it closes one place a pass, which is the loop; at 0 it is one pass.
    guess : array of int, shape (T, batch, 1)
        What is seen of open places in the first pass.
    """
    y, open_ = guess.copy(), np.ones(guess.shape[:2], bool)
    passes = 0
    while open_.any():
        scores = model.scores(None, y, noise)
        y = np.where(open_[..., None], np.argmax(scores, axis=-1)[..., None], y)
        odds = np.exp(scores - scores.max(axis=-1, keepdims=True))
        first = np.cumsum(open_, axis=0) == 1
        open_ &= ~(first | (1 / odds.sum(axis=-1) > threshold))
        passes += 1
    return y, passes


_PAPER = {"title": "Parallel text generation", "cite": "Zhang et al., arXiv 2508.08712", "study": "token_sweeps"}
SYSTEMS = (
    system_of(__name__, name="tokens_ngram", make=ngram, scan=scan, structure="none: tokens", **_PAPER),
    system_of(
        __name__,
        name="tokens_transformer",
        config=TransformerConfig(),
        draw=draw_transformer,
        make=transformer,
        structure="none: tokens, of all rows before",
        **_PAPER,
    ),
)

"""Random smooth and kinked functions with their derivatives, to try on what judges derivatives."""

from dataclasses import dataclass
from typing import Any

import numpy as np

import recsolve as rs
from recsolve.symbolic.dual import Dual

SMOOTH = [np.sin, np.cos, np.exp, np.tanh, np.arctan, np.square, lambda x: x * x * x, lambda x: 1 / (1 + x * x)]
KINKED = [
    np.abs,
    lambda x: np.maximum(x, 0),
    lambda x: np.minimum(x, 1),
    lambda x: np.clip(x, -0.5, 0.5),
    lambda x: np.sqrt(np.abs(x) + 1e-3),
    lambda x: np.log1p(np.abs(x)),
    lambda x: np.abs(x) ** 1.5,
]
SMOOTH_PAIRS = [np.add, np.subtract, np.multiply, lambda a, b: a / (b * b + 0.1)]
KINKED_PAIRS = [np.maximum, np.minimum, lambda a, b: a / (1 + np.abs(b)), lambda a, b: np.where(a > 0, b, b + a)]


def compose(rng, depth, smooth, dtype):
    """Return a random function of (h, u), with numbers from 1e-3 to 1e3 inside."""

    def number():
        return dtype(10 ** (rng.uniform(-3, 3) if rng.random() < 0.3 else rng.uniform(-0.5, 0.5)))

    if depth == 0:
        a, b = number(), number() * dtype(rng.random() < 0.5)
        return (lambda h, u: a * u) if rng.random() < 0.3 else (lambda h, u: a * h + b)
    inner = compose(rng, depth - 1, smooth, dtype)
    if rng.random() < 0.55:
        choices, s = SMOOTH if smooth else SMOOTH + KINKED, number()
        g = choices[rng.integers(len(choices))]
        return lambda h, u: s * g(inner(h, u))
    choices = SMOOTH_PAIRS if smooth else SMOOTH_PAIRS + KINKED_PAIRS
    g, other = choices[rng.integers(len(choices))], compose(rng, depth - 1, smooth, dtype)
    return lambda h, u: g(inner(h, u), other(h, u))


@dataclass
class Problem:
    """A function with states at which its derivative is known, some of them at kinks."""

    f: Any
    structure: str
    states: np.ndarray
    inputs: np.ndarray
    seed: int

    def declared(self, structure=None, *, jacobian=None, opaque=True):
        """Return the recurrence; an opaque f cannot be differentiated automatically."""

        def f(h, u):
            if opaque and isinstance(h, Dual):
                raise TypeError("opaque")
            return self.f(h, u) + 0 * h

        initial = np.zeros(self.states.shape[1:], self.states.dtype)
        return rs.Recurrence.from_function(
            f, inputs=self.inputs, initial=initial, structure=structure or self.structure, jacobian=jacobian
        )

    def jacobian(self, factor=1.0):
        """Return a declaration of the derivative, times factors: at kinks, a mixture of those beside them.

        Automatic derivatives at kinks need not be derivatives: with ties, max(a, b) + min(a, b) may give 2 a'.
        """
        double = Problem(self.f, self.structure, self.states.astype(float), self.inputs.astype(float), self.seed)
        exact, own = double.declared(opaque=False), self.declared(opaque=False)
        rng = np.random.default_rng(self.seed)
        beside = 1e-15 * np.maximum(abs(double.states), 1e-6) * rng.standard_normal(self.states.shape)
        n, T = self.states.shape[1], len(self.states)
        shape = (T, n) if self.structure == "diagonal" else (T, 1, 1)
        share = rng.choice([0.0, 0.3, 0.5, 1.0], shape)

        def entries(rec, h):
            J = rec.differentiate(h)[1]
            return getattr(J, "data", np.zeros((T, *[n] * (1 if self.structure == "diagonal" else 2)), h.dtype))

        def mixture(h):
            h = h.astype(float)
            return ((1 - share) * entries(exact, h + beside) + share * entries(exact, h - beside)).astype(rec_dtype)

        rec_dtype = self.states.dtype
        with np.errstate(all="ignore"):
            there = mixture(self.states)
            smooth = abs(entries(own, self.states) - there) <= 1e-3 * abs(there)
        return lambda h, u: (np.where(smooth, entries(own, h), mixture(h)) * factor).astype(rec_dtype)

    def entries(self):
        """Return the automatic derivative, or None where f has none."""
        with np.errstate(all="ignore"):
            return getattr(self.declared(opaque=False).differentiate(self.states)[1], "data", None)


def problem(seed, T=20, n=3):
    """Return the problem of a seed: float64 of even seeds, float32 of odd ones."""
    rng, dtype = np.random.default_rng(seed), (np.float64, np.float32)[seed % 2]
    g, structure = compose(rng, int(rng.integers(1, 5)), rng.random() < 0.4, dtype), "diagonal"
    f, W = g, (rng.standard_normal((n, n)) / 2).astype(dtype)
    if rng.random() < 0.4:
        structure = "dense"
        f = (lambda h, u: g(h @ W.T, u)) if rng.random() < 0.5 else (lambda h, u: g(h, u) @ W.T + h)
    h = 10 ** (rng.uniform(-3, 3) * (rng.random() < 0.5)) * rng.standard_normal((T, n))
    if rng.random() < 0.3:
        h[rng.random((T, n)) < 0.3] = 0
    h = np.round(2 * h) / 2 if rng.random() < 0.2 else h * (rng.random() < 0.9)
    u = rng.standard_normal((T, n)) * 10 ** (rng.uniform(-3, 3) * (rng.random() < 0.3))
    return Problem(f, structure, h.astype(dtype), u.astype(dtype), seed)

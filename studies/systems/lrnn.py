"""Why Are Linear RNNs More Parallelizable?: recurrences by what composing their steps costs.

With A_t and b_t made of the input (Merrill et al., arXiv 2603.03612):

diagonal:  h' = a h + b
PD:        h' = P D h + b,  where P e_j = e_p(j): units go to places, after a diagonal
S5:        PD of permutations of five places, D = 1 and b = 0: the word problem of the group
ReLU:      h' = max(A h + b, 0)
products:  M' = A M,  3 x 3 integers

Diagonals and PD matrices compose to matrices of the same kind, so that a scan of any length costs no more per step than
the loop; words in S5, complete for NC1, are then gathers, and no number rounds. Integers are kept modulo 2^64, in which
products are exact, too. The Jacobian of ReLU is dense and depends
on h: nothing smaller than piecewise linear maps composes.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np

import recsolve as rs
from recsolve.base.arrays import Array
from recsolve.jacobians import PermutationDiagonal
from recsolve.studies.systems.system import Arrays, Draw, system_of


@dataclass(frozen=True)
class Config:
    """Multipliers are at most ``decay``, the rows of A of ReLU have a norm of about that."""

    length: int = 4096
    batch: int = 2
    units: int = 5
    decay: float = 0.98
    seed: int = 0
    dtype: str = "float64"


@dataclass(frozen=True)
class WordConfig:
    """Of words in the group of all permutations of ``units`` places."""

    length: int = 4096
    batch: int = 2
    units: int = 5
    seed: int = 0
    dtype: str = "float64"


@dataclass(frozen=True)
class IntegerConfig:
    """Entries are from -``largest`` to ``largest``."""

    length: int = 4096
    batch: int = 2
    units: int = 3
    largest: int = 2
    seed: int = 0


def draw(config: Config) -> Arrays:
    shape, random = (config.length, config.batch, config.units), Draw(config.seed, config.dtype)
    return {"a": random.uniform(-config.decay, config.decay, *shape), "b": random.normal(*shape)}


def draw_pd(config: Config) -> Arrays:
    return {**draw(config), "p": Draw(config.seed + 1, "int64").integers(0, config.units, *_shape(config))}


def draw_words(config: WordConfig) -> Arrays:
    places = np.broadcast_to(np.arange(config.units), _shape(config))
    return {
        "p": np.random.default_rng(config.seed).permuted(places, axis=-1),
        "start": np.arange(config.units, dtype=config.dtype),
    }


def draw_relu(config: Config) -> Arrays:
    n, random = config.units, Draw(config.seed, config.dtype)
    return {"A": random.normal(n, n, scale=config.decay * n**-0.5), "b": random.normal(*_shape(config))}


def draw_integers(config: IntegerConfig) -> Arrays:
    high = config.largest
    return {"A": Draw(config.seed, "int64").integers(-high, high + 1, *_shape(config), config.units)}


def _shape(config: Any) -> tuple[int, ...]:
    return config.length, config.batch, config.units


def _affine(h: Any, u: Any) -> Any:
    return u["a"] * h + u["b"]


def _placed(h: Any, u: Any) -> Any:
    return np.matmul(u["PD"], h[..., None])[..., 0] + u["b"]


def _slopes(h: Any, u: Any) -> Any:
    return u["p"], u["a"]


def _relu(h: Any, u: Any, p: Any) -> Any:
    return np.maximum(h @ p.A.T + u, 0)


def _times(s: Any, A: Any) -> Any:
    return {"M": A @ s.M}


def diagonal(arrays: Arrays) -> rs.Recurrence:
    a = arrays["a"]
    return rs.Recurrence.from_function(
        _affine, inputs=dict(arrays), initial=np.zeros(a.shape[1:], a.dtype), structure="diagonal"
    )


def _pd(p: Array, a: Array, b: Array, initial: Array) -> rs.Recurrence:
    goes_there = p[..., None, :] == np.arange(p.shape[-1])[:, None]
    return rs.Recurrence.from_function(
        _placed,
        inputs={"p": p, "a": a, "PD": goes_there * a[..., None, :], "b": b},
        initial=initial,
        structure="permutation_diagonal",
        jacobian=_slopes,
    )


def pd(arrays: Arrays) -> rs.Recurrence:
    return _pd(arrays["p"], arrays["a"], arrays["b"], np.zeros_like(arrays["b"][0]))


def s5(arrays: Arrays) -> rs.Recurrence:
    p, start = arrays["p"], arrays["start"]
    one = np.ones(p.shape, start.dtype)
    return _pd(p, one, 0 * one, np.broadcast_to(start, p.shape[1:]).copy())


def relu(arrays: Arrays) -> rs.Recurrence:
    b = arrays["b"]
    return rs.Recurrence.from_function(
        _relu, inputs=b, initial=np.zeros(b.shape[1:], b.dtype), parameters={"A": arrays["A"]}
    )


def products(arrays: Arrays) -> rs.Recurrence:
    A = arrays["A"]
    start = np.broadcast_to(np.eye(A.shape[-1], dtype=A.dtype), A.shape[1:]).copy()
    return rs.Recurrence.from_function(
        _times, inputs=A, state={"M": ("i", "k")}, initial={"M": start}, structure="none"
    )


class Products(rs.Monoid):
    """M -> A M of integers, modulo 2^64. Elements are a tuple (A,) of one array (T, ..., n, n)."""

    letters, dtypes = ("A",), (np.dtype("int64"),)

    def act(self, elements: tuple[Array], states: Array) -> Array:
        return elements[0] @ states

    def compose(self, later: tuple[Array], earlier: tuple[Array]) -> tuple[Array]:
        return (later[0] @ earlier[0],)

    def identity(self, elements: tuple[Array]) -> tuple[Array]:
        return (np.broadcast_to(np.eye(elements[0].shape[-1], dtype=np.int64), elements[0].shape),)


def scan_diagonal(recurrence: Any) -> Array:
    found: Array = rs.scan("affine", tuple(recurrence.inputs), initial=recurrence.initial)
    return found


def scan_pd(recurrence: Any) -> Array:
    p, a, _, b = recurrence.inputs
    A = PermutationDiagonal(p, a, recurrence.layout)
    found: Array = rs.scan("affine", (A, b), initial=recurrence.initial)
    return found


def scan_products(recurrence: Any) -> Array:
    (A,) = recurrence.inputs
    found: Array = rs.scan(Products, (A,), initial=recurrence.initial.reshape(A.shape[1:]))
    return found.reshape(recurrence.shape)


_PAPER = {
    "title": "Why Are Linear RNNs More Parallelizable?",
    "cite": "Merrill et al., arXiv 2603.03612",
    "study": "state_maps",
}
SYSTEMS = (
    system_of(__name__, name="lrnn_diagonal", make=diagonal, scan=scan_diagonal, structure="diagonal", **_PAPER),
    system_of(
        __name__,
        name="lrnn_pd",
        draw=draw_pd,
        make=pd,
        scan=scan_pd,
        structure="one number in every column, independent of h",
        **_PAPER,
    ),
    system_of(
        __name__,
        name="lrnn_s5",
        config=WordConfig(),
        draw=draw_words,
        make=s5,
        scan=scan_pd,
        structure="permutations",
        **_PAPER,
    ),
    system_of(__name__, name="lrnn_relu", draw=draw_relu, make=relu, structure="dense", **_PAPER),
    system_of(
        __name__,
        name="lrnn_products",
        config=IntegerConfig(),
        draw=draw_integers,
        make=products,
        scan=scan_products,
        structure="none: integers",
        **_PAPER,
    ),
)

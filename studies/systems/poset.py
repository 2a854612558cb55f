"""Lattice-based pruning: a network keeps the neurons that are meet-irreducible in the order of its connections.

A weight counts as a connection where it is large, |W_ij| > theta. What a neuron reaches lies above it; neurons that
reach each other are one element. The Dedekind-MacNeille completion of this order is a lattice, and neurons whose
element has exactly one upper cover there are kept (Sengupta, arXiv 2502.16525):

    h' = tanh((M o W) h + m o (U x + b)),   m_i = 1 where neuron i is kept,  M_ij = m_i m_j [|W_ij| > theta]

An element x of the order is meet-irreducible exactly if something that is not below x is below all that lies strictly
above it, so the lattice need not be built. The Jacobian diag(1 - h'^2) (M o W) is block-triangular in the order.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

import recsolve as rs
from recsolve.base.arrays import Array
from recsolve.mixings import Dense, Masked
from recsolve.studies.systems.system import Arrays, Draw, system_of


@dataclass(frozen=True)
class Config:
    """``degree`` is how many connections a neuron has on average: theta is the weight that leaves so many."""

    length: int = 512
    batch: int = 2
    inputs: int = 4
    units: int = 32
    degree: float = 1.5
    gain: float = 0.8
    seed: int = 0
    dtype: str = "float64"


def draw(config: Config) -> Arrays:
    n, random = config.units, Draw(config.seed, config.dtype)
    W = random.normal(n, n, scale=config.gain * config.degree**-0.5)
    return {
        "x": random.normal(config.length, config.batch, config.inputs),
        "U": random.normal(n, config.inputs, scale=config.inputs**-0.5),
        "W": W,
        "b": random.normal(n, scale=0.1),
        "theta": np.quantile(abs(W), max(0.0, 1 - config.degree / n)).astype(config.dtype),
    }


def connections(W: Array, theta: Array | float) -> Array:
    """Return where a neuron j (second axis) feeds a neuron i: bool (n, n)."""
    found: Array = abs(W) > theta
    return found


def order(connected: Array) -> Array:
    """Return below[a, b], whether b is reached from a or is a: the reflexive and transitive closure, (n, n)."""
    below: Array = connected.T | np.eye(len(connected), dtype=bool)
    for _ in range(max(len(below) - 1, 1).bit_length()):
        below = below @ below
    return below


def meet_irreducible(below: Array) -> Array:
    """Return which elements of a preorder have exactly one upper cover in its Dedekind-MacNeille completion, (n,).

    Elements below each other count as one.
    """
    strictly_above = below & ~below.T  # [a, b]: b > a
    under_all_above = ~(~below @ strictly_above.T)  # [z, a]: z is below every b > a
    found: Array = np.any(under_all_above & ~below, axis=0)
    return found


def make(arrays: Arrays) -> rs.Recurrence:
    connected = connections(arrays["W"], arrays["theta"])
    kept = meet_irreducible(order(connected))
    cell = rs.cells.Elman.with_weights(
        mixings={"h": Masked(Dense(arrays["W"]), connected & kept & kept[:, None])},
        projection=rs.Projection({"h": kept[:, None] * arrays["U"]}, {"h": kept * arrays["b"]}),
    )
    return cell.recurrence(arrays["x"])


SYSTEMS = (
    system_of(
        __name__,
        name="lattice_pruned",
        make=make,
        structure="sparse, block-triangular in the order of reachability",
        title="Lattice-based pruning",
        cite="Sengupta, arXiv 2502.16525",
        study="lattice",
    ),
)

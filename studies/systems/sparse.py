"""Sparsity in recurrent networks: torch's four cells with masked matrices, and networks without cycles.

With a mask M on the recurrent weights (Darji, Investigating Sparsity in Recurrent Neural Networks, arXiv 2407.20601):

    h' = tanh((M o W) h + u),  h' = relu((M o W) h + u),  and torch's GRU and LSTM with M o W for W

``M`` leaves the larger weights, or makes the connections a graph in layers without cycles. Then a product of more
Jacobians than p, the length of the longest path, vanishes: a state is a function of its last p + 1 inputs, and Jacobi's
method is exact in p + 1 sweeps from any guess, whatever T. Gates that keep a state (GRU, LSTM) are loops of their own.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np

import recsolve as rs
from recsolve.base.arrays import Array
from recsolve.mixings import Dense, Masked
from recsolve.studies.systems.system import Arrays, Draw, system_of


@dataclass(frozen=True)
class Config:
    """The share ``pruned`` of weights is masked; networks without cycles have ``path`` + 1 layers."""

    length: int = 512
    batch: int = 2
    inputs: int = 4
    units: int = 24
    pruned: float = 0.7
    path: int = 4
    gain: float = 0.8
    seed: int = 0
    dtype: str = "float64"


def draw(config: Config) -> Arrays:
    """Return weights for four gates; M leaves the largest, as magnitude pruning of torch's stacked matrix does."""
    n, random = config.units, Draw(config.seed, config.dtype)
    W = random.normal(4, n, n, scale=config.gain * n**-0.5)
    return {
        "x": random.normal(config.length, config.batch, config.inputs),
        "U": random.normal(4, n, config.inputs, scale=config.inputs**-0.5),
        "W": W,
        "b": random.normal(4, n, scale=0.1),
        "M": abs(W) > np.quantile(abs(W), config.pruned),
    }


def draw_layered(config: Config) -> Arrays:
    """Return the same with masks that lead from a layer to later ones, whose longest path has ``path`` edges."""
    layer = np.arange(config.units) * (config.path + 1) // config.units
    arrays = {**draw(config)}
    follows = layer[:, None] == layer + 1
    return {**arrays, "M": (layer[:, None] > layer) & (arrays["M"] | follows)}


def longest_path(M: Array) -> int | None:
    """Return the number of edges of the longest path of a mask (n, n), None where it has a cycle."""
    walks, edges = M, 0
    while walks.any():
        walks, edges = walks @ M, edges + 1
        if edges > len(M):
            return None
    return edges


def _made(cell: rs.Cell, gates: str, arrays: Arrays) -> rs.Recurrence:
    U, W, b, M = (dict(zip(gates, arrays[name], strict=False)) for name in "UWbM")
    weighted = cell.with_weights(
        mixings={gate: Masked(Dense(W[gate]), M[gate]) for gate in gates},
        parameters=dict.fromkeys(cell.parameters, arrays["b"][3]),  # b_n of the GRU
        projection=rs.Projection(U, b),
    )
    return weighted.recurrence(arrays["x"])


def network(arrays: Arrays) -> rs.Recurrence:
    return _made(rs.cells.Elman, "h", arrays)


def relu(arrays: Arrays) -> rs.Recurrence:
    return _made(rs.cells.ElmanReLU, "h", arrays)


def gru(arrays: Arrays) -> rs.Recurrence:
    return _made(rs.cells.GRU, "rzn", arrays)


def lstm(arrays: Arrays) -> rs.Recurrence:
    return _made(rs.cells.LSTM, "ifgo", arrays)


_PAPER: dict[str, Any] = {
    "title": "Sparsity in recurrent networks",
    "cite": "Darji, arXiv 2407.20601",
    "study": "reber",  # what solvers make of these cells is in the study "sparsity"
}
SYSTEMS = (
    system_of(__name__, name="sparse_tanh", make=network, structure="sparse", **_PAPER),
    system_of(__name__, name="sparse_relu", make=relu, structure="sparse, piecewise constant", **_PAPER),
    system_of(__name__, name="sparse_gru", make=gru, structure="sparse, and a diagonal", **_PAPER),
    system_of(__name__, name="sparse_lstm", make=lstm, structure="sparse in h, diagonal in c", **_PAPER),
    system_of(
        __name__,
        name="sparse_dag",
        make=network,
        structure="nilpotent",
        draw=draw_layered,
        **{**_PAPER, "study": "sparsity"},
    ),
)

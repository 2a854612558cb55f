"""Compiled loops over the nodes of a graph in the order of levels, for Jacobians that are elementwise.

``a`` (P, N, w) holds the entries of each slot, ``y`` (N, w) the states, which are overwritten, ``parents`` (N, P) the
places of the parents, negative for none, and ``cut`` (N, w) the numbers that do not see theirs.
"""

from __future__ import annotations

from recsolve.base.arrays import Array
from recsolve.kernels.cpu.jit.decorators import compiled


@compiled
def forward(a: Array, y: Array, parents: Array, cut: Array) -> None:
    """Add to every node what comes from its parents."""
    slots, nodes, width = a.shape
    for n in range(nodes):
        for p in range(slots):
            m = parents[n, p]
            if m >= 0:
                for i in range(width):
                    term = a[p, n, i] * y[m, i]
                    y[n, i] += 0.0 if cut[n, i] else term


@compiled
def carry(a: Array, y: Array, parents: Array, out: Array) -> None:
    """Fill ``out`` with what comes from the parents of every node alone."""
    slots, nodes, width = a.shape
    out[:] = 0
    for n in range(nodes):
        for p in range(slots):
            m = parents[n, p]
            if m >= 0:
                for i in range(width):
                    out[n, i] += a[p, n, i] * y[m, i]


@compiled
def backward(a: Array, y: Array, parents: Array, cut: Array) -> None:
    """Add to the parents of every node what goes back to them, the last node first."""
    slots, nodes, width = a.shape
    for k in range(nodes):
        n = nodes - 1 - k
        for p in range(slots):
            m = parents[n, p]
            if m >= 0:
                for i in range(width):
                    term = a[p, n, i] * y[n, i]
                    y[m, i] += 0.0 if cut[n, i] else term


@compiled
def front(parents: Array, slots: int, leading: Array, clean: Array) -> None:
    """Say of every node whether its parents all lead, and let it lead only if so; (N, batch) as flat arrays."""
    nodes = len(parents) // slots
    width = len(leading) // nodes
    for n in range(nodes):
        for p in range(slots):
            m = parents[n * slots + p]
            if m >= 0:
                for i in range(width):
                    clean[n * width + i] &= leading[m * width + i]
        for i in range(width):
            leading[n * width + i] &= clean[n * width + i]

"""The Jacobian of a recurrence on a graph: one structured Jacobian per parent of a node."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Self

import numpy as np

from recsolve.base.arrays import Array, namespace
from recsolve.base.graph import Graph
from recsolve.base.overriding import changed
from recsolve.jacobians.jacobian import Jacobian


class ByParent(Jacobian):
    """J[n, p] = d F[n] / d (the state of parent p of node n), for all nodes n in the order of levels.

    Its products sum over the parents. It has no products with another of its kind: scans go through it level by level.

    Parameters
    ----------
    slots : sequence of Jacobian
        For each slot the derivatives with respect to the parents there, all with the leading shape (N, *batch).
    graph : Graph

    Raises
    ------
    ValueError
        For another number of slots, or leading shapes that are not (N, *batch).
    TypeError
        When it is asked for products with another one, for its transpose, or for nodes that are not consecutive.

    Examples
    --------
    >>> import numpy as np, recsolve as rs
    >>> graph, layout = rs.graphs.grid((2, 2)), rs.Layout(units=1)
    >>> J = rs.jacobians.ByParent([rs.jacobians.Scalar(np.full(4, a), layout) for a in (0.5, 2.0)], graph)
    >>> J.matvec(np.ones((4, 2, 1))).ravel().tolist()  # of parents that are missing, too
    [2.5, 2.5, 2.5, 2.5]
    >>> J.carry(np.ones((4, 1))).ravel().tolist()  # the nodes (0, 0), (0, 1), (1, 0), (1, 1)
    [0.0, 2.0, 0.5, 2.5]
    """

    def __init__(self, slots: Any, graph: Graph):
        self.slots: tuple[Jacobian, ...] = tuple(slots)
        self.graph, self.layout = graph, self.slots[0].layout
        self.check()

    def check(self) -> None:
        for J in self.slots:
            J.check()
        leading = {J.leading for J in self.slots}
        if len(self.slots) != self.graph.slots or len(leading) > 1 or self.leading[0] != self.graph.size:
            raise ValueError(
                f"slots are {len(self.slots)} with leading shapes {sorted(leading)}; wanted {self.graph.slots}, all "
                f"with ({self.graph.size}, *batch), as the graph has nodes"
            )

    @property
    def leading(self) -> tuple[int, ...]:
        return self.slots[0].leading

    def map(self, change: Callable[[Jacobian], Jacobian]) -> Self:
        """Return the Jacobian whose slots are those of this one, changed one by one."""
        return changed(self, slots=tuple(map(change, self.slots)))

    def __getitem__(self, index: Any) -> Self:
        times = index[0] if isinstance(index, tuple) else index
        if not isinstance(times, slice) or times.step not in (None, 1):
            raise TypeError(f"index is {index!r}; wanted consecutive nodes, as the others would lose their parents")
        start, stop, _ = times.indices(self.graph.size)
        graph = self.graph.part(start, stop, known=True)[0] if stop - start < self.graph.size else self.graph
        return changed(self, slots=tuple(J[index] for J in self.slots), graph=graph)

    def matvec(self, v: Array) -> Array:
        """Return the sum over p of J[n, p] v[n, p], (N, *batch, *event), of v (N, P, *batch, *event)."""
        return _total([J.matvec(v[:, p]) for p, J in enumerate(self.slots)])

    def rmatvec(self, v: Array) -> Array:
        """Return J[n, p]^T v[n], (N, P, *batch, *event), of v (N, *batch, *event)."""
        return namespace(v).stack([J.rmatvec(v) for J in self.slots], axis=1)  # type: ignore[no-any-return]

    def where(self, seen: Array, v: Array) -> Array:
        """Return the sum over those p that are seen: selected, so that others may be anything."""
        xp, zero = namespace(v), v.dtype.type(0)
        return _total([xp.where(seen[:, p], J.matvec(v[:, p]), zero) for p, J in enumerate(self.slots)])

    def carry(self, d: Array) -> Array:
        xp, terms = namespace(d), []
        for J, parents in zip(self.slots, self.graph.parents.T, strict=True):
            term = J.matvec(d[xp.asarray(np.maximum(parents, 0))])
            term[xp.asarray(np.flatnonzero(parents < 0))] = 0
            terms.append(term)
        return _total(terms)

    def transpose(self) -> Jacobian:
        raise TypeError("the transpose of ByParent maps nodes to their parents; use rmatvec")

    def diagonal(self) -> Any:
        return self.map(lambda J: J.diagonal())

    def block(self) -> Jacobian:
        return self.map(lambda J: J.block())

    def lane_dense(self) -> Any:
        return self.map(lambda J: J.lane_dense())

    def scale(self, factor: float) -> Jacobian:
        return self.map(lambda J: J.scale(factor))

    def clip(self, low: float, high: float) -> Jacobian:
        """Return it with entries clipped, of diagonal slots."""
        return self.map(lambda J: J.diagonal().clip(low, high))

    def _product(self, earlier: Any) -> Jacobian:
        raise TypeError("ByParent has no products: a scan goes through it level by level")

    def todense(self) -> Array:
        """Return the full matrices, (N, P, *batch, n, n) for states of n numbers."""
        dense = [J.todense() for J in self.slots]
        return namespace(dense[0]).stack(dense, axis=1)  # type: ignore[no-any-return]

    def __repr__(self) -> str:
        return f"ByParent({', '.join(type(J).__name__ for J in self.slots)}, {self.graph})"


def _total(terms: list[Array]) -> Array:
    total = terms[0]
    for term in terms[1:]:
        total = total + term
    return total

"""The Jacobian of a cell as differentiation yields it: elementwise partials around shared mixings.

A cell is a short program. Its leaves are the k components of the state and the outputs of its mixing calls; call i maps
an elementwise expression x_i of earlier leaves to the new leaf y_i = W_i x_i. Keeping the partials of every x_i and of
every output with respect to the leaves gives products with J and its transpose at the cost of the mixings, and no
matrix of size (T, N, N) is formed unless ``lane_dense`` is called.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Self

import numpy as np

from recsolve.base.arrays import Array, namespace
from recsolve.base.layout import Layout
from recsolve.base.overriding import changed
from recsolve.jacobians.diagonals import Diagonal
from recsolve.jacobians.jacobian import Jacobian
from recsolve.jacobians.matrices import Block, LaneDense
from recsolve.mixings import Mixing
from recsolve.mixings.factors import Total

Partials = Mapping[int, Array]  # leaf -> elementwise partial, (T, *batch, *lanes, n)


@dataclass(frozen=True)
class Call:
    """One mixing call y = W x.

    Attributes
    ----------
    mixing : Mixing
        W.
    partials : mapping of int to array
        Leaf to the partial of x with respect to it, each (T, *batch, *lanes, n).
    """

    mixing: Mixing
    partials: Partials

    def at(self, index: Any) -> Call:
        """Return the call at some times: ``index`` selects along the first axis of the partials."""
        return Call(self.mixing.at(index), _at(self.partials, index))


def _at(partials: Partials, index: Any) -> Partials:
    return {leaf: partial[index] for leaf, partial in partials.items()}


def _combine(partials: Partials, leaves: list[Any]) -> Any:
    """Return the sum of partial * leaf (0.0 where nothing depends on a leaf)."""
    terms = [partial * leaves[leaf] for leaf, partial in partials.items() if leaves[leaf] is not None]
    return sum(terms[1:], terms[0]) if terms else None


class Factored(Jacobian):
    """The Jacobian of a cell whose mixings couple units: elementwise partials around shared mixings.

    Leaves 0..k-1 are the components of the state, k + i is the result of mixing call i. Products cost what the mixings
    cost; no (T, N, N) array is made.

    Parameters
    ----------
    calls : list of Call
        The mixing calls in the order of the program; call i may depend on leaves below k + i (nested mixings).
    outputs : list of mapping
        For each component of the new state its partials with respect to the leaves, each (T, *batch, *lanes, n).
    layout : Layout
        The event axes of the states.
    leading : tuple of int
        The shape (T, *batch).

    Raises
    ------
    ValueError
        When the number of outputs, the sizes of the mixings, the shape of a partial or a leaf do not fit the layout.

    Examples
    --------
    >>> import numpy as np, recsolve as rs
    >>> from recsolve.jacobians.factored import Call, Factored
    >>> W = rs.mixings.Dense(np.array([[0.0, 1.0], [2.0, 0.0]]))
    >>> call = Call(W, {0: np.ones((5, 2))})
    >>> J = Factored([call], [{1: np.full((5, 2), 0.5)}], rs.Layout(units=2), (5,))  # h' = 0.5 * (W h)
    >>> J.matvec(np.ones((5, 2)))[0].tolist()
    [0.5, 1.0]
    """

    def __init__(self, calls: Sequence[Call], outputs: Sequence[Partials], layout: Layout, leading: tuple[int, ...]):
        self.calls, self.outputs, self.layout = calls, outputs, layout
        self._leading = leading
        self.check()

    def check(self) -> None:
        k, layout = self.layout.components, self.layout
        if len(self.outputs) != k:
            raise ValueError(f"outputs of Factored are {len(self.outputs)}; wanted one for each of {k} components")
        units = layout.lane_width // k
        for number, call in enumerate(self.calls):
            if call.mixing.units != units or call.mixing.lanes not in ((), layout.lanes):
                raise ValueError(f"calls[{number}] has {call.mixing}; wanted {units} units and lanes {layout.lanes}")
        part = (*self._leading, *layout.lanes, units)
        named = [(f"calls[{i}]", k + i, call.partials) for i, call in enumerate(self.calls)]
        named += [(f"outputs[{j}]", k + len(self.calls), partials) for j, partials in enumerate(self.outputs)]
        for name, leaves, partials in named:
            for leaf, partial in partials.items():
                if not 0 <= leaf < leaves or tuple(partial.shape) != part:
                    seen = f"of shape {tuple(partial.shape)} for leaf {leaf}"
                    raise ValueError(f"{name} has a partial {seen}; wanted {part} and leaves below {leaves}")

    def _like(self) -> Array:
        return next(iter(p for x in (*self.outputs, *(call.partials for call in self.calls)) for p in x.values()))

    @property
    def leading(self) -> tuple[int, ...]:
        return self._leading

    def __getitem__(self, index: slice | Array | int) -> Self:
        leading = np.empty(self._leading, dtype=bool)[index].shape  # no memory is touched
        calls = [call.at(index) for call in self.calls]
        return changed(self, calls=calls, outputs=[_at(p, index) for p in self.outputs], _leading=leading)

    def _components(self, v: Array) -> list[Any]:
        return [self.layout.component(v, j) for j in range(self.layout.components)]

    def _stack(self, parts: list[Any], like: Array) -> Array:
        parts = [namespace(like).zeros_like(self.layout.component(like, 0)) if p is None else p for p in parts]
        if self.layout.components == 1:
            return parts[0]  # type: ignore[no-any-return]
        return namespace(like).stack(parts, axis=self.layout.component_axis)  # type: ignore[no-any-return]

    def matvec(self, v: Array) -> Array:
        return self._stack(self._push(self._components(v), {}), v)

    def _push(self, leaves: list[Any], held: Mapping[int, Any]) -> list[Any]:
        """Return how far outputs move with the components, where some calls are held to results by their number."""
        for number, call in enumerate(self.calls):
            mixed = None if number in held else _combine(call.partials, leaves)
            leaves.append(held.get(number) if mixed is None else call.mixing.matvec(mixed))
        return [_combine(partials, leaves) for partials in self.outputs]

    def rmatvec(self, v: Array) -> Array:
        return self._stack(self._pull(list(zip(self.outputs, self._components(v), strict=True)), len(self.calls)), v)

    def _pull(self, cotangents: list[tuple[Partials, Any]], before: int) -> list[Any]:
        """Return the cotangents of the components for some of what is computed from them and from the first calls."""
        k = self.layout.components
        adjoints: list[Any] = [None] * (k + before)

        def accumulate(partials: Partials, cotangent: Any) -> None:
            for leaf, partial in partials.items():
                term = partial * cotangent
                adjoints[leaf] = term if adjoints[leaf] is None else adjoints[leaf] + term

        for partials, cotangent in cotangents:
            accumulate(partials, cotangent)
        for index in reversed(range(before)):
            if adjoints[k + index] is not None:
                call = self.calls[index]
                accumulate(call.partials, call.mixing.rmatvec(adjoints[k + index]))
        return adjoints[:k]

    def transpose(self) -> Jacobian:
        return Transposed(self)

    def scale(self, factor: float) -> Jacobian:
        outputs = [{leaf: factor * p for leaf, p in partials.items()} for partials in self.outputs]
        return changed(self, outputs=outputs)

    def between(self, rows: Array, columns: Array) -> Jacobian:
        left, right = self._components(rows), self._components(columns)

        def scaled(partials: Partials) -> Partials:
            return {leaf: p * right[leaf] if leaf < len(right) else p for leaf, p in partials.items()}

        calls = [Call(call.mixing, scaled(call.partials)) for call in self.calls]
        outputs = [
            {leaf: factor * p for leaf, p in scaled(partials).items()}
            for factor, partials in zip(left, self.outputs, strict=True)
        ]
        return changed(self, calls=calls, outputs=outputs)

    def lane_dense(self) -> LaneDense:
        """Return one (k n) x (k n) matrix per lane; memory grows as T * batch * lanes * (k n)^2."""
        k, width = self.layout.components, self.layout.lane_width
        n = width // k
        like = self._like()
        xp = namespace(like)
        # Columns d leaf / d h, (..., *lanes, n, k n): an elementwise partial scales rows, a mixing multiplies.
        eye = xp.eye(width, dtype=like.dtype).reshape(k, n, width)
        leaves: list[Any] = list(eye)
        for call in self.calls:
            if call.partials and max(call.partials) < k:  # W diag(p) for each component: no product of matrices
                W = call.mixing.dense()
                zero = xp.zeros((*self._leading, *self.layout.lanes, n, n), like.dtype)
                columns = [W * call.partials[j][..., None, :] if j in call.partials else zero for j in range(k)]
                leaves.append(xp.concatenate(columns, axis=-1))
                continue
            mixed = _combine({leaf: p[..., None] for leaf, p in call.partials.items()}, leaves)
            leaves.append(None if mixed is None else call.mixing.dense() @ mixed)
        rows = [_combine({leaf: p[..., None] for leaf, p in partials.items()}, leaves) for partials in self.outputs]
        shape = (*self._leading, *self.layout.lanes, n, width)
        full = [xp.broadcast_to(xp.zeros((), like.dtype) if row is None else row, shape) for row in rows]
        return LaneDense(xp.concatenate(full, axis=-2), self.layout)

    def block(self) -> Jacobian:
        """Return the exact k x k block of each unit; no dense matrices are formed up to nesting depth 2.

        A product W1 diag(q) W2 diag(p) of two nested mixings has the diagonal ((W1 * W2^T) q) p; deeper nests go
        through :meth:`lane_dense`, one time at a time. Sums over all units cost two products each, and no depth: with
        all of them held J is shallower, and each adds a matrix of rank one, how the outputs move with it times how it
        moves with the state.

        Returns
        -------
        Block or Diagonal
            Diagonal when k = 1.
        """
        sums = [number for number, call in enumerate(self.calls) if type(call.mixing) is Total]
        rest = self._without(sums) if sums else self
        if rest.depth > 2:
            return self._block_by_time()
        k = self.layout.components
        entries = [[rest._unit_entry(i, j) for j in range(k)] for i in range(k)]
        for number in sums:
            for i, column in enumerate(self._push([None] * k, {**dict.fromkeys(sums), number: 1.0})):
                for j, row in enumerate(self._pull([(self.calls[number].partials, 1.0)], number)):
                    entries[i][j] = entries[i][j] if column is None or row is None else entries[i][j] + column * row
        shape = (*self._leading, *self.layout.lanes, self.layout.lane_width // k)
        xp = namespace(self._like())
        axis = len(self._leading)
        rows = [xp.stack([xp.broadcast_to(e, shape) for e in row], axis=axis) for row in entries]
        if k == 1:
            return Diagonal(rows[0].squeeze(axis), self.layout)
        return Block(xp.stack(rows, axis=axis), self.layout)

    def diagonal(self) -> Diagonal:
        return self.block().diagonal()

    def _without(self, held: list[int]) -> Self:
        """Return the Jacobian where the results of some calls do not move."""
        gone = {self.layout.components + number for number in held}

        def left(partials: Partials) -> Partials:
            return {leaf: p for leaf, p in partials.items() if leaf not in gone}

        calls = [Call(c.mixing, {} if i in held else left(c.partials)) for i, c in enumerate(self.calls)]
        return changed(self, calls=calls, outputs=[left(p) for p in self.outputs])

    @property
    def depth(self) -> int:
        """How many mixings follow one another at most."""
        depths: list[int] = []
        for call in self.calls:
            inner = (depths[leaf - self.layout.components] for leaf in call.partials if leaf >= self.layout.components)
            depths.append(1 + max(inner, default=0))
        return max(depths, default=0)

    def _unit_entry(self, i: int, j: int) -> Any:
        """Return d h'_i / d h_j within each unit."""
        k = self.layout.components
        total: Any = self.outputs[i].get(j, 0.0)
        for leaf, partial in self.outputs[i].items():
            if leaf >= k:
                total = total + partial * self._call_diagonal(self.calls[leaf - k], j)
        return total

    def _call_diagonal(self, call: Call, j: int) -> Any:
        """Return the diagonal of d y / d h_j for the output y of a mixing call."""
        k = self.layout.components
        total: Any = call.mixing.diagonal() * call.partials[j] if j in call.partials else 0.0
        for leaf, q in call.partials.items():
            inner = self.calls[leaf - k] if leaf >= k else None
            if inner is not None and j in inner.partials:
                total = total + call.mixing.hadamard_transpose(inner.mixing).matvec(q) * inner.partials[j]
        return total

    def _block_by_time(self) -> Jacobian:
        if self._leading[0] == 0:
            return self.lane_dense().block()
        rows = [self[t : t + 1].lane_dense().block() for t in range(self._leading[0])]
        data = namespace(rows[0].data).concatenate([row.data for row in rows])  # type: ignore[attr-defined]
        return type(rows[0])(data, self.layout)  # type: ignore[call-arg]


class Transposed(Jacobian):
    """The transpose of a :class:`Factored` Jacobian: ``matvec`` and ``rmatvec`` change places."""

    def __init__(self, original: Factored):
        self.original, self.layout = original, original.layout

    def check(self) -> None:
        self.original.check()

    def _like(self) -> Array:
        return self.original._like()

    @property
    def leading(self) -> tuple[int, ...]:
        return self.original.leading

    def __getitem__(self, index: slice | Array | int) -> Self:
        return changed(self, original=self.original[index])

    def matvec(self, v: Array) -> Array:
        return self.original.rmatvec(v)

    def rmatvec(self, v: Array) -> Array:
        return self.original.matvec(v)

    def transpose(self) -> Jacobian:
        return self.original

    def scale(self, factor: float) -> Jacobian:
        return self.original.scale(factor).transpose()

    def between(self, rows: Array, columns: Array) -> Jacobian:
        return self.original.between(columns, rows).transpose()

    def diagonal(self) -> Diagonal:
        return self.original.diagonal()

    def block(self) -> Jacobian:
        return self.original.block().transpose()

    def lane_dense(self) -> LaneDense:
        dense = self.original.lane_dense()
        return LaneDense(dense.data.swapaxes(-1, -2), dense.layout)

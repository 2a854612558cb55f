"""Mixings: the linear maps inside a cell, and the only thing in it that couples units."""

from __future__ import annotations

from typing import Any, ClassVar

import numpy as np

from recsolve.arrays import Array, matmul_last, namespace, to_native


class Mixing:
    """A linear map on the units of a state, called inside a cell as ``W.name(x)``.

    Parameters
    ----------
    weight : array
        The entries: Diagonal (n,), Heads (H, n, n), Dense (n, n).
    """

    name: ClassVar[str]
    weight_ndim: ClassVar[int]

    def __init__(self, weight: Any):
        weight = to_native(weight, "weight")
        if weight.ndim != self.weight_ndim or (weight.ndim > 1 and weight.shape[-1] != weight.shape[-2]):
            wanted = ("(n,)", "(n, n)", "(H, n, n)")[self.weight_ndim - 1]
            raise ValueError(f"weight of a {self.name} mixing has shape {weight.shape}; wanted {wanted}")
        self.weight = weight

    @property
    def lanes(self) -> tuple[int, ...]:
        """The lane axes that this mixing gives the state."""
        return ()

    @property
    def units(self) -> int:
        return int(self.weight.shape[-1])

    def __call__(self, x: Any) -> Any:
        return self.matvec(x)

    def matvec(self, x: Any) -> Any:
        """Return W x over the last axis, shape as ``x`` (..., *lanes, n)."""
        raise TypeError(f"{type(self).__name__} defines no matvec")

    def rmatvec(self, x: Array) -> Array:
        """Return W^T x."""
        return self.transpose().matvec(x)  # type: ignore[no-any-return]

    def transpose(self) -> Mixing:
        return type(self)(self.weight.swapaxes(-1, -2))

    def diagonal(self) -> Array:
        """Return the diagonal of W, shape (*lanes, n)."""
        return namespace(self.weight).diagonal(self.weight, axis1=-2, axis2=-1)  # type: ignore[no-any-return]

    def dense(self) -> Array:
        """Return W as matrices (*lanes, n, n)."""
        return self.weight  # type: ignore[no-any-return]

    def hadamard_transpose(self, other: Mixing) -> Mixing:
        """Return the mixing with entries W[a, b] V[b, a], whose product with q is the diagonal of W diag(q) V."""
        return type(self)(self.dense() * other.dense().swapaxes(-1, -2))

    def weight_cotangent(self, g: Array, x: Array) -> Array:
        """Return the cotangent of the weight, the sum of g x^T over all leading axes, for y = W x with cotangent g."""
        count = x.ndim - len(self.lanes) - 1
        leading = int(np.prod(x.shape[:count]))
        rows_g, rows_x = (v.reshape(leading, *self.lanes, self.units) for v in (g, x))
        return namespace(x).einsum("t...i,t...j->...ij", rows_g, rows_x)  # type: ignore[no-any-return]

    def map(self, function: Any) -> Mixing:
        """Return the same mixing with ``function`` applied to its weight (a dtype or device change)."""
        return type(self)(function(self.weight))

    def __repr__(self) -> str:
        return f"{type(self).__name__}(weight {self.weight.shape} {self.weight.dtype})"


class Diagonal(Mixing):
    """Each unit sees only itself: y = a * x. Elementwise, so cells inline it."""

    name = "diagonal"
    weight_ndim = 1

    def matvec(self, x: Any) -> Any:
        return self.weight * x

    def weight_cotangent(self, g: Array, x: Array) -> Array:
        return (g * x).reshape(-1, self.units).sum(axis=0)  # type: ignore[no-any-return]

    def transpose(self) -> Mixing:
        return self

    def diagonal(self) -> Array:
        return self.weight  # type: ignore[no-any-return]

    def dense(self) -> Array:
        return namespace(self.weight).eye(self.units, dtype=self.weight.dtype) * self.weight  # type: ignore[no-any-return]


class Dense(Mixing):
    """Every unit sees every unit: y = W x."""

    name = "dense"
    weight_ndim = 2

    def matvec(self, x: Array) -> Array:
        return matmul_last(x, self.weight)

    def weight_cotangent(self, g: Array, x: Array) -> Array:
        return g.reshape(-1, self.units).T @ x.reshape(-1, self.units)


class Heads(Mixing):
    """Units see the units of their own head: y[h] = R[h] x[h] on states (..., H, n)."""

    name = "heads"
    weight_ndim = 3

    @property
    def lanes(self) -> tuple[int, ...]:
        return (int(self.weight.shape[0]),)

    def matvec(self, x: Array) -> Array:
        # One product per head over all times and sequences at once.
        by_head = np.moveaxis(x, -2, 0)
        rows = by_head.reshape(by_head.shape[0], int(np.prod(by_head.shape[1:-1])), by_head.shape[-1])
        mixed = rows @ self.weight.swapaxes(-1, -2)
        return np.moveaxis(mixed.reshape(by_head.shape), 0, -2)


MIXINGS: dict[str, type[Mixing]] = {m.name: m for m in (Diagonal, Heads, Dense)}


def make(kind: str, hidden_size: int, heads: int | None, draw: Any) -> Mixing:
    """Return a mixing of ``kind`` for ``hidden_size`` units in all, with weights from ``draw(shape)``.

    Raises
    ------
    ValueError
        For an unknown kind, or heads that do not divide the units.
    """
    if kind not in MIXINGS:
        raise ValueError(f"mixing is {kind!r}; wanted one of {', '.join(MIXINGS)}")
    if kind != "heads":
        if heads is not None:
            raise ValueError(f"heads is {heads} with mixing {kind!r}; heads belongs to mixing='heads'")
        shape: tuple[int, ...] = (hidden_size,) if kind == "diagonal" else (hidden_size, hidden_size)
        return MIXINGS[kind](draw(shape))
    heads = 4 if heads is None else heads
    if heads < 1 or hidden_size % heads:
        raise ValueError(f"heads is {heads}; wanted a divisor of hidden_size {hidden_size}")
    return Heads(draw((heads, hidden_size // heads, hidden_size // heads)))

"""Mixings of low rank: U V^T with a diagonal, and the sum over all units."""

from __future__ import annotations

from typing import Any

import numpy as np

from recsolve.base.arrays import Array, broadcast, matmul_last, namespace, to_host
from recsolve.base.links import follow, to_linked
from recsolve.base.overriding import changed
from recsolve.mixings.mixing import Mixing, severed


class LowRank(Mixing):
    """A product of thin factors, with a diagonal if one is given: y = U V^T x + d * x.

    Parameters
    ----------
    U, V : array, shape (n, r)
        Float32 or float64. ``weight`` holds both side by side, (n, 2r), and so do gradients.
    diagonal : array, shape (n,), optional
        d, then the last column of the weight, (n, 2r + 1).

    Raises
    ------
    ValueError
        When shapes do not agree.
    TypeError
        For mixed kinds or dtypes, or others than float32 and float64.

    Examples
    --------
    >>> import numpy as np, recsolve as rs
    >>> W = rs.mixings.LowRank(np.ones((3, 1)), np.ones((3, 1)), diagonal=np.full(3, 0.5))
    >>> W(np.array([1.0, 0.0, 0.0])).tolist(), W.weight.shape
    ([1.5, 1.0, 1.0], (3, 3))
    """

    name = "low rank"
    linear = True

    def __init__(self, U: Any, V: Any, diagonal: Any = None):
        named = {"U": U, "V": V} if diagonal is None else {"U": U, "V": V, "diagonal": diagonal}
        parts = {name: to_linked(x, name) for name, x in named.items()}
        u = parts["U"]
        wanted = {"U": u.shape, "V": u.shape, "diagonal": u.shape[:1]}
        if u.ndim != 2 or any(x.shape != wanted[name] for name, x in parts.items()):
            seen = ", ".join(f"{name} {x.shape}" for name, x in parts.items())
            raise ValueError(f"factors have shapes {seen}; wanted U and V (n, r) alike, diagonal (n,)")
        if len({(namespace(x), x.dtype) for x in parts.values()}) > 1:
            raise TypeError(f"factors have dtypes {[x.dtype for x in parts.values()]}; wanted one, on one device")
        columns = [x.reshape(len(u), -1) for x in parts.values()]
        weight = namespace(u).concatenate(columns, axis=1)
        super().__init__(follow(weight, list(parts.values()), _beside))
        self.rank = int(u.shape[1])

    @property
    def units(self) -> int:
        return int(self.weight.shape[0])

    @staticmethod
    def _split(weight: Array, rank: int) -> tuple[Array, Array, Array | None]:
        d = weight[:, 2 * rank] if weight.shape[1] > 2 * rank else None
        return weight[:, :rank], weight[:, rank : 2 * rank], d

    @property
    def factors(self) -> tuple[Array, Array, Array | None]:
        """U, V and the diagonal, views of the weight."""
        return self._split(self.weight, self.rank)

    def matvec(self, x: Any) -> Any:
        U, V, d = self.factors
        y = matmul_last(matmul_last(x, V.T), U)
        return y if d is None else y + d * x

    def transpose(self) -> Mixing:
        U, V, d = self.factors
        return severed(changed(self, weight=self._joined(V, U, d)), self)

    def _joined(self, U: Array, V: Array, d: Array | None) -> Array:
        columns = [U, V] if d is None else [U, V, d[:, None]]
        return namespace(U).concatenate(columns, axis=1)  # type: ignore[no-any-return]

    def dense(self) -> Array:
        U, V, d = self.factors
        full = U @ V.T
        return full if d is None else full + namespace(d).diag(d)

    def diagonal(self) -> Array:
        U, V, d = self.factors
        entries = (U * V).sum(axis=1)
        return entries if d is None else entries + d  # type: ignore[no-any-return]

    @property
    def rounding(self) -> float:
        U, V = (x.astype(np.float64) for x in self.factors[:2])
        rows = ((U @ (V.T @ V)) * U).sum(axis=1)  # of squares
        return float(to_host(rows.max())) ** 0.5 * self.units**0.5 / 8  # type: ignore[no-any-return]

    def weight_cotangent(self, g: Array, x: Array) -> Array:
        U, V, d = self.factors
        g, x = g.reshape(-1, self.units), x.reshape(-1, self.units)
        return self._joined(g.T @ (x @ V), x.T @ (g @ U), None if d is None else (g * x).sum(axis=0))

    def weight_tangent(self, tangent: Array, x: Array) -> Array:
        (U, V, _), (dU, dV, dd) = self.factors, self._split(tangent, self.rank)
        y = matmul_last(matmul_last(x, V.T), dU) + matmul_last(matmul_last(x, dV.T), U)
        return y if dd is None else y + dd * x

    def weight_curvature(self, tangent: Array, g: Array, x: Array) -> Array:
        dU, dV, dd = self._split(tangent, self.rank)
        g, x = g.reshape(-1, self.units), x.reshape(-1, self.units)
        return self._joined(g.T @ (x @ dV), x.T @ (g @ dU), None if dd is None else 0 * dd)


def _beside(factors: list[Any]) -> Any:
    """Return tensors (n, r) and (n,) side by side."""
    import torch

    return torch.cat([x.reshape(len(x), -1) for x in factors], dim=1)


class Total(Mixing):
    """The sum over all units in the place of every unit: the matrix of ones, which has no weights.

    Parameters
    ----------
    units : int
    like : array
        Of the kind and dtype of the vectors.

    Examples
    --------
    >>> import numpy as np
    >>> from recsolve.mixings.factors import Total
    >>> Total(3, np.zeros(0))(np.array([1.0, 2.0, 4.0])).tolist()
    [7.0, 7.0, 7.0]
    """

    name = "total"
    linear = True

    def __init__(self, units: int, like: Any):
        self.weight, self._units = namespace(like).zeros(0, like.dtype), units

    @property
    def units(self) -> int:
        return self._units

    def matvec(self, x: Any) -> Any:
        """Return the sum of x over the units; an entry that broadcasts over them counts for each."""
        full = broadcast(x, (*x.shape[:-1], self._units))
        return broadcast(full.sum(axis=-1, keepdims=True), full.shape)

    def transpose(self) -> Mixing:
        return self

    def rmatvec(self, x: Array) -> Array:
        return self.matvec(x)  # type: ignore[no-any-return]

"""Mixings with a pattern: masked weights, permutations, sparse matrices, one matrix for all heads."""

from __future__ import annotations

from functools import cached_property
from typing import Any

import numpy as np

from recsolve.base.arrays import Array, kind_of, namespace, to_host, to_native
from recsolve.base.overriding import changed
from recsolve.mixings.matrices import Dense
from recsolve.mixings.mixing import LinearInWeight, Mixing, beside, severed

_AT_ONCE = 1 << 22  # products of a sparse gradient that are held in memory together


class Masked(Mixing):
    """Another mixing, of whose weight only some entries count: the others are neither seen nor trained.

    Parameters
    ----------
    mixing : Mixing
        Its weight is trained.
    mask : array of bool, in the shape of the weight
        True where an entry counts.

    Raises
    ------
    TypeError
        For a mask of another dtype, or what is no mixing.
    ValueError
        For a mask of another shape.

    Examples
    --------
    >>> import numpy as np, recsolve as rs
    >>> W = rs.mixings.Masked(rs.mixings.Dense(np.full((3, 3), 0.5)), np.tri(3, dtype=bool))
    >>> W(np.ones(3)).tolist()
    [0.5, 1.0, 1.5]
    """

    name = "masked"
    linear = True

    def __init__(self, mixing: Mixing, mask: Any):
        if not isinstance(mixing, Mixing):
            raise TypeError(f"mixing is {type(mixing).__name__}; wanted a Mixing, Dense(weight) say")
        mask = to_native(mask, "mask", (np.dtype(bool),))
        if mask.shape != mixing.weight.shape:
            raise ValueError(f"mask has shape {mask.shape}; wanted that of the weight, {mixing.weight.shape}")
        super().__init__(mixing.weight)
        self.within, self.mask = mixing, beside(mask, self.weight).copy()  # gradients are of the mask as it was

    @property
    def lanes(self) -> tuple[int, ...]:
        return self.within.lanes

    @property
    def units(self) -> int:
        return self.within.units

    def _masked(self, x: Array) -> Array:
        """Return an array like the weight with zeros where entries do not count (selected: inf * 0 is NaN)."""
        return namespace(x).where(beside(self.mask, x), x, x.dtype.type(0))  # type: ignore[no-any-return]

    @property
    def plain(self) -> Mixing:
        """The mixing of the entries that count now, zeros elsewhere: what compiled loops take."""
        return changed(self.within, weight=self._masked(self.weight))

    def from_plain(self, g: Array) -> Array:
        return self._masked(g)

    def matvec(self, x: Any) -> Any:
        return self.plain.matvec(x)

    def dense(self) -> Array:
        return self.plain.dense()

    def transpose(self) -> Mixing:
        return severed(self.plain.transpose(), self)

    def rmatvec(self, x: Array) -> Array:
        return self.plain.rmatvec(x)

    def diagonal(self) -> Array:
        return self.plain.diagonal()

    def hadamard_transpose(self, other: Mixing) -> Mixing:
        return severed(self.plain.hadamard_transpose(other.plain if type(other) is Masked else other), self, other)

    @property
    def rounding(self) -> float:
        return self.plain.rounding

    def weight_cotangent(self, g: Array, x: Array) -> Array:
        return self._masked(self.plain.weight_cotangent(g, x))

    def weight_tangent(self, tangent: Array, x: Array) -> Array:
        return self.plain.weight_tangent(self._masked(tangent), x)

    def rmatvec_tangent(self, tangent: Array, x: Array) -> Array:
        return self.plain.rmatvec_tangent(self._masked(tangent), x)

    def weight_curvature(self, tangent: Array, g: Array, x: Array) -> Array:
        return self._masked(self.plain.weight_curvature(self._masked(tangent), g, x))


class Permutation(LinearInWeight):
    """Each unit sees one other: y[i] = a[i] x[index[i]], a scaled permutation.

    Parameters
    ----------
    index : array of int32 or int64, shape (n,)
        A permutation of 0..n-1.
    weight : array, shape (n,), optional
        a, float32 or float64; default: ones, in float64.

    Raises
    ------
    TypeError
        For an index of another dtype.
    ValueError
        When index is no permutation, or the weight has another shape.

    Examples
    --------
    >>> import numpy as np, recsolve as rs
    >>> W = rs.mixings.Permutation([2, 0, 1])
    >>> W(np.array([10.0, 20.0, 30.0])).tolist(), W.rmatvec(W(np.arange(3.0))).tolist()
    ([30.0, 10.0, 20.0], [0.0, 1.0, 2.0])
    """

    name = "permutation"
    linear = True
    weight_ndim = 1

    def __init__(self, index: Any, weight: Any = None):
        host = to_host(to_native(index, "index", (np.dtype(np.int32), np.dtype(np.int64))))
        if host.ndim != 1 or not np.array_equal(np.sort(host), np.arange(len(host))):
            raise ValueError(f"index has shape {host.shape} and is none; wanted a permutation of 0..n-1")
        super().__init__(np.ones(len(host)) if weight is None else weight)
        if self.units != len(host):
            raise ValueError(f"weight has shape {self.weight.shape}; wanted one number for each of {len(host)} units")
        self.index = host.copy()  # of which it is known that it is a permutation

    @cached_property
    def _index(self) -> Array:
        return beside(self.index, self.weight)  # type: ignore[no-any-return]

    def matvec(self, x: Any) -> Any:
        return self.weight * x[..., self._index]

    def transpose(self) -> Mixing:
        back = np.argsort(self.index)
        return severed(changed(self, index=back, weight=self.weight[beside(back, self.weight)]), self)

    def diagonal(self) -> Array:
        return self.weight * beside(self.index == np.arange(self.units), self.weight)  # type: ignore[no-any-return]

    @property
    def rounding(self) -> float:
        return 0.0  # no sums

    def weight_cotangent(self, g: Array, x: Array) -> Array:
        return (g * x[..., self._index]).reshape(-1, self.units).sum(axis=0)  # type: ignore[no-any-return]

    def weight_tangent(self, tangent: Array, x: Array) -> Array:
        return tangent * x[..., self._index]


class SharedHead(Dense):
    """All heads have one matrix: y[h] = R x[h] on states (..., *heads, n).

    Parameters
    ----------
    weight : array, shape (n, n)
        R, float32 or float64.
    heads : int or tuple of int
        The lane axes that it gives states: heads, or the rows of a matrix that is the state.

    Raises
    ------
    ValueError
        For heads below 1, or a weight of another shape.

    Examples
    --------
    >>> import numpy as np, recsolve as rs
    >>> rs.mixings.SharedHead(np.array([[0.0, 1.0], [2.0, 0.0]]), heads=3)(np.ones((5, 3, 2)))[0].tolist()
    [[1.0, 2.0], [1.0, 2.0], [1.0, 2.0]]
    """

    name = "shared head"
    linear = True

    def __init__(self, weight: Any, heads: int | tuple[int, ...]):
        super().__init__(weight)
        self.heads = tuple(heads) if isinstance(heads, (tuple, list)) else (heads,)
        if not self.heads or not all(isinstance(n, (int, np.integer)) and n > 0 for n in self.heads):
            raise ValueError(f"heads is {heads!r}; wanted a positive integer, or several")

    @property
    def lanes(self) -> tuple[int, ...]:
        return self.heads

    def dense(self) -> Array:
        return namespace(self.weight).broadcast_to(self.weight, (*self.heads, *self.weight.shape))  # type: ignore[no-any-return]

    def transpose(self) -> Mixing:
        return severed(changed(self, weight=self.weight.T), self)

    def hadamard_transpose(self, other: Mixing) -> Mixing:
        if type(other) is not SharedHead:
            return super().hadamard_transpose(other)
        return severed(changed(self, weight=self.weight * other.weight.T), self, other)

    def weight_tangent(self, tangent: Array, x: Array) -> Array:
        return changed(self, weight=tangent).matvec(x)


class Sparse(LinearInWeight):
    """A sparse matrix: y = A x. Only the entries that are stored are trained.

    Parameters
    ----------
    matrix : sparse array or matrix of SciPy or CuPy, shape (n, n)
        A, of any format, float32 or float64. ``weight`` holds its entries in the order of CSR, (nnz,), and ``indices``
        and ``indptr`` their places. Entries that are stored twice are added.

    Raises
    ------
    TypeError
        For what is not sparse, or has another dtype.
    ValueError
        When the matrix is not square.

    Examples
    --------
    >>> import numpy as np, recsolve as rs
    >>> from scipy.sparse import csr_array
    >>> W = rs.mixings.Sparse(csr_array(np.array([[0.0, 2.0], [0.0, 3.0]])))
    >>> W(np.array([1.0, 10.0])).tolist(), W.weight.tolist()
    ([20.0, 30.0], [2.0, 3.0])
    """

    name = "sparse"
    linear = True

    def __init__(self, matrix: Any):
        if not all(hasattr(matrix, name) for name in ("tocsr", "nnz", "shape")):
            raise TypeError(f"matrix is {type(matrix).__name__}; wanted a sparse array of scipy.sparse or cupyx")
        if len(matrix.shape) != 2 or matrix.shape[0] != matrix.shape[1]:
            raise ValueError(f"matrix has shape {tuple(matrix.shape)}; wanted (n, n)")
        rows = matrix.tocsr().copy()
        rows.sum_duplicates()
        super().__init__(rows.data)
        self._units = int(matrix.shape[0])
        self.indices, self.indptr = to_host(rows.indices), to_host(rows.indptr)

    @property
    def units(self) -> int:
        return self._units

    def _of(self, entries: Array) -> Any:
        """Return the matrix with other entries."""
        if kind_of(entries) == "cupy":
            from cupyx.scipy.sparse import csr_matrix as csr
        else:
            from scipy.sparse import csr_array as csr
        places = (beside(x, entries) for x in (self.indices, self.indptr))
        return csr((entries, *places), shape=(self._units, self._units))

    @cached_property
    def _matrix(self) -> Any:
        return self._of(self.weight)

    @cached_property
    def _places(self) -> tuple[Array, Array]:
        """The rows and columns of the entries."""
        rows = np.repeat(np.arange(self._units), np.diff(self.indptr))
        return rows, self.indices

    def _times(self, matrix: Any, x: Array) -> Array:
        rows = x.reshape(int(np.prod(x.shape[:-1])), self._units)
        return namespace(x).ascontiguousarray((matrix @ rows.T).T).reshape(x.shape)  # type: ignore[no-any-return]

    def matvec(self, x: Any) -> Any:
        return self._times(self._matrix, x)

    def dense(self) -> Array:
        return self._matrix.toarray()  # type: ignore[no-any-return]

    def transpose(self) -> Mixing:
        made = changed(self)
        Sparse.__init__(made, self._matrix.T)
        return made

    def rmatvec(self, x: Array) -> Array:
        return self._times(self._matrix.T, x)

    def diagonal(self) -> Array:
        return self._matrix.diagonal()  # type: ignore[no-any-return]

    def hadamard_transpose(self, other: Mixing) -> Mixing:
        if type(other) is not Sparse:
            return super().hadamard_transpose(other)
        return Sparse(self._matrix.multiply(other._matrix.T.tocsr()))

    @property
    def rounding(self) -> float:
        rows, entries = self._places[0], to_host(self.weight).astype(np.float64)
        squares = np.bincount(rows, entries**2, minlength=self._units)
        counts = np.bincount(rows, minlength=self._units)
        return float(np.sqrt(squares * counts).max(initial=0.0)) / 8

    def weight_cotangent(self, g: Array, x: Array) -> Array:
        xp, (rows, columns) = namespace(x), (beside(places, x) for places in self._places)
        g, x = (v.reshape(int(np.prod(v.shape[:-1])), self._units) for v in (g, x))
        found, step = xp.zeros_like(self.weight), max(_AT_ONCE // max(len(x), 1), 1)
        for first in range(0, len(found), step):
            part = slice(first, first + step)
            found[part] = xp.einsum("ti,ti->i", g[:, rows[part]], x[:, columns[part]])
        return found  # type: ignore[no-any-return]

    def weight_tangent(self, tangent: Array, x: Array) -> Array:
        return self._times(self._of(tangent), x)

    def rmatvec_tangent(self, tangent: Array, x: Array) -> Array:
        return self._times(self._of(tangent).T, x)

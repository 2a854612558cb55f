"""Affine maps: the scans of Newton's corrections, and of linear recurrences."""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache
from math import prod
from typing import Any

from recsolve.base.arrays import Array, namespace
from recsolve.base.layout import Layout
from recsolve.base.overriding import changed
from recsolve.jacobians import Block, ByParent, Diagonal, Identity, Jacobian, LaneDense, Scalar, Zero
from recsolve.kernels.monoids.cuda_map import ROWS, CudaMap, LinearMap, Operands, SingleMap
from recsolve.kernels.monoids.monoid import COMPLEX, STORED, Monoid, Pull, given, linear

_COMPLEX = SingleMap("ComplexAffine", 4, 5)


@dataclass(frozen=True)
class _Structured(LinearMap):
    """Affine maps on a GPU: elementwise ones, also of complex numbers, blocks, and matrices of lanes."""

    def of(self, argument: str) -> CudaMap:
        return _COMPLEX if argument == "complex" else self

    def operands(self, monoid: str, elements: Any) -> Operands | None:
        A, b = elements
        if type(A) in (Zero, Identity, Scalar, Diagonal) or (type(A) is LaneDense and A.layout.lane_width == 1):
            entries = (_entries(A, b), ()), (b, ())
            return Operands(f"{monoid}:complex", 2, entries) if b.dtype.kind == "c" else Operands(monoid, 1, entries)
        found = None if b.dtype.kind == "c" else self._components(A)
        if found is None:
            return None
        matrix, state = found
        return Operands(monoid, b.shape[state], ((A.data, matrix), (b, (state,))), state)

    def element(self, elements: Any, numbers: Array, state: int | None) -> Any:
        entries, vector = super().element(elements, numbers, state)
        return structured(elements[0], entries), vector

    def _components(self, A: Jacobian) -> tuple[tuple[int, int], int] | None:
        """Return the axes of rows and columns of matrices, and that of the states they act on; None without such."""
        if type(A) is Block and not self.dense(A.layout.components):
            axis = len(A.leading)
            return (axis, axis + 1), axis
        if type(A) is LaneDense and A.layout.components == 1 and 2 <= A.layout.lane_width <= ROWS:
            last = A.data.ndim - 1
            return (last - 1, last), last - 1
        return None


def _entries(A: Jacobian, b: Array) -> Array:
    """Return the entries of a diagonal structure in the shape of ``b``; repeated ones have stride 0."""
    data = namespace(b).ones((1,) * b.ndim, b.dtype) if isinstance(A, Identity) else A.diagonal().data
    return data if data.shape == b.shape else namespace(b).broadcast_to(data, b.shape)


def structured(A: Jacobian, entries: Array) -> Jacobian:
    """Return a structure like A of other times, with entries (times, ...) of which it holds those that A holds."""
    if isinstance(A, (Zero, Identity)):
        return A[: len(entries)]
    shape = (len(entries), *A.data.shape[1:])  # type: ignore[attr-defined]
    if type(A) is Scalar:
        entries = entries[(..., *(0,) * len(A.layout.event))]  # type: ignore[arg-type]
    if entries.size != prod(shape):
        entries = entries[tuple(slice(n) for n in shape)]
    return changed(A, data=entries.reshape(shape))


def _entry_cotangents(A: Jacobian, g: Array, x: Array) -> Array | None:
    """Return the cotangents of the entries of A for g of A x; None for a structure without, or of another type."""
    x, layout = x.conj() if x.dtype.kind == "c" else x, A.layout
    if type(A) is Scalar:
        return (g * x).sum(axis=tuple(range(-len(layout.event), 0))) if layout.event else g * x
    if type(A) is Diagonal:
        return g * x
    if type(A) is Block:
        before = (slice(None),) * len(A.leading)
        return g[(*before, slice(None), None)] * x[(*before, None)]
    if type(A) is LaneDense:
        return _outer(A.data, layout.lane_vectors(g), layout.lane_vectors(x))
    return None


def _outer(matrices: Array, g: Array, x: Array) -> Array:
    """Return the products g x^T, summed over axes along which matrices repeat, which then have length 1."""
    axes = range(g.ndim - 1 if matrices.size else 0)  # strides of what is empty say nothing
    repeated = [i for i in axes if matrices.strides[i] == 0 and matrices.shape[i] > 1]
    if not repeated:
        return g[..., None] * x[..., None, :]
    kept = [i for i in axes if i not in repeated]
    shape = (*(g.shape[i] for i in kept), prod(g.shape[i] for i in repeated), g.shape[-1])
    rows, columns = (v.transpose(*kept, *repeated, -1).reshape(shape) for v in (g, x))
    total = rows.swapaxes(-1, -2) @ columns
    return total.reshape([1 if i in repeated else n for i, n in enumerate(matrices.shape)])


@lru_cache(maxsize=256)
def _layout(units: int | None) -> Layout:
    return Layout(units=units)


class Affine(Monoid):
    """x -> A x + b with structured A: what Newton's corrections are scans of.

    Elements are a pair (A, b): b (T, ..., *event) and A a structured Jacobian whose matrices act on it, or an array of
    the shape of b, which is diagonal. float16, float32, float64; complex64 and complex128 as arrays. A cut step gives
    b (A is selected to 0), so for a recurrence put f(reset state, u[t]) there. Blelloch, "Prefix sums and their
    applications" (1990).

    Raises
    ------
    ValueError
        For other than two elements, or shapes that do not fit.

    Examples
    --------
    >>> import numpy as np, recsolve as rs
    >>> rs.scan("affine", (np.full(3, 0.5), np.ones(3)), initial=2.0)
    array([2., 2., 2.])
    """

    name, letters, place, dtypes = "affine", ("A", "b"), 1, (*STORED, *COMPLEX)
    cuda = _Structured("Real", heavy=False, held=4)

    def prepare(self, elements: Any) -> tuple[Jacobian, Array]:
        A, b = given(self.title, self.letters, elements)
        if not isinstance(A, Jacobian):
            A, b = linear(self.letters, (A, b))
            layout = _layout(b.shape[-1] if b.ndim > 1 else None)
            A = LaneDense(A, layout) if A.ndim > b.ndim else Diagonal(A, layout)
        else:
            if isinstance(A, ByParent):
                raise TypeError("elements (A, b): A is ByParent, of a graph; scans go along one axis of time")
            A.check()  # its entries may have been exchanged since it was made
            if b.shape != (*A.leading, *A.layout.event):
                raise ValueError(
                    f"elements (A, b): b has shape {b.shape}; wanted {(*A.leading, *A.layout.event)} as A acts on"
                )
        return A, b

    def simplest(self, elements: tuple[Jacobian, Array]) -> tuple[Monoid, Any]:
        A, b = elements
        if type(self) is Affine and type(A) is Diagonal and A.data.shape == b.shape:
            return _ELEMENTWISE, (A.data, b)
        return self, elements

    def like(self, elements: tuple[Jacobian, Array]) -> Array:
        return elements[1]

    def take(self, elements: tuple[Jacobian, Array], index: Any) -> tuple[Jacobian, Array]:
        return elements[0][index], elements[1][index]

    def act(self, elements: tuple[Jacobian, Array], states: Array) -> Array:
        return elements[0].matvec(states) + elements[1]

    def compose(self, later: tuple[Jacobian, Array], earlier: tuple[Jacobian, Array]) -> tuple[Jacobian, Array]:
        return later[0].compose(earlier[0]), later[0].matvec(earlier[1]) + later[1]

    def identity(self, elements: tuple[Jacobian, Array]) -> tuple[Jacobian, Array]:
        A, b = elements
        return Identity(b, A.layout), namespace(b).zeros_like(b)

    def constant(self, elements: tuple[Jacobian, Array], initial: Array | None) -> Array:
        return elements[1]

    def linearise(self, elements: tuple[Jacobian, Array], before: Array) -> tuple[Jacobian, Pull]:
        A, _ = elements
        return A, lambda g: (_entry_cotangents(A, g, before), g)

    def forget(self, elements: tuple[Jacobian, Array], cotangent: Array) -> tuple[None, Array]:
        return None, cotangent

    def composable(self, elements: tuple[Jacobian, Array]) -> bool:
        return elements[0].composable

    def mixed(self, elements: tuple[Jacobian, Array]) -> tuple[int, ...]:
        A = elements[0]
        if not A.layout.event or A.rank < Block.rank:
            return ()
        components = (A.layout.component_axis,) if A.layout.components > 1 else ()
        return (*components, -1) if A.rank > Block.rank else components


class _Elementwise(Monoid):
    """x -> a x + b of arrays."""

    dtypes = Affine.dtypes

    def like(self, elements: tuple[Array, Array]) -> Array:
        return elements[1]

    def act(self, elements: tuple[Array, Array], states: Array) -> Array:
        return elements[0] * states + elements[1]

    def compose(self, later: tuple[Array, Array], earlier: tuple[Array, Array]) -> tuple[Array, Array]:
        return later[0] * earlier[0], later[0] * earlier[1] + later[1]

    def identity(self, elements: tuple[Array, Array]) -> tuple[Array, Array]:
        a, b = elements
        return namespace(a).ones_like(a), namespace(b).zeros_like(b)

    def constant(self, elements: tuple[Array, Array], initial: Array | None) -> Array:
        return elements[1]


_ELEMENTWISE = _Elementwise()

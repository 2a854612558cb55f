"""Prefix sums."""

from __future__ import annotations

from recsolve.base.arrays import Array, namespace
from recsolve.base.layout import Layout
from recsolve.jacobians import Identity, Jacobian
from recsolve.kernels.monoids.cuda_map import SingleMap
from recsolve.kernels.monoids.monoid import COMPLEX, STORED, Monoid, Pull


class Addition(Monoid):
    """x -> x + b: prefix sums.

    Elements are a tuple (b,) of one array (T, ...), float16, float32, float64, complex64 or complex128; a cut step
    gives b. Equal to the loop bit for bit where no sum rounds (integers below 2^24 in float32, 2^53 in float64).
    Blelloch, "Prefix sums and their applications" (1990).

    Raises
    ------
    ValueError
        For other than one array.

    Examples
    --------
    >>> import numpy as np, recsolve as rs
    >>> rs.scan("addition", (np.array([1.0, 2.0, 3.0]),))
    array([1., 3., 6.])
    """

    name, letters, place, dtypes = "addition", ("b",), 3, (*STORED, *COMPLEX)
    cuda = SingleMap("Addition", 1, 2, places=(0,))

    def act(self, elements: tuple[Array], states: Array) -> Array:
        return states + elements[0]

    def compose(self, later: tuple[Array], earlier: tuple[Array]) -> tuple[Array]:
        return (earlier[0] + later[0],)

    def identity(self, elements: tuple[Array]) -> tuple[Array]:
        return (namespace(elements[0]).zeros_like(elements[0]),)

    def constant(self, elements: tuple[Array], initial: Array | None) -> Array:
        return elements[0]

    def linearise(self, elements: tuple[Array], before: Array) -> tuple[Jacobian, Pull]:
        return Identity(before, Layout(units=before.shape[-1] if before.ndim > 1 else None)), lambda g: (g,)

    def forget(self, elements: tuple[Array], cotangent: Array) -> tuple[Array]:
        return (cotangent,)

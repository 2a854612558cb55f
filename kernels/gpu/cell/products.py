"""Matrix products with the states of all times: mixings that share their input are stacked to one product."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from math import prod
from typing import Any

import numpy as np

from recsolve.base.arrays import Array, memory_order, namespace
from recsolve.kernels.codegen.numba_mixing import Plan, Product, plan_of
from recsolve.kernels.gpu.device import Machine, on
from recsolve.kernels.registry import TracedCell, register
from recsolve.symbolic.program import Program


def stacked(weights: Sequence[Array]) -> Array:
    """Return matrices (n, n) or (lanes, n, n) side by side: (lanes, calls * n, n)."""
    xp = namespace(weights[0])
    return xp.concatenate([w.reshape(-1, *w.shape[-2:]) for w in weights], axis=1)  # type: ignore[no-any-return]


class ProductsCuda:
    """The products of one cell, beside the stages of :class:`recsolve.kernels.gpu.cell.stage_launches.StagesCuda`.

    Parameters
    ----------
    program : Program
    machine : Machine, optional
        By default the device of the arrays, on its current stream.
    """

    def __init__(self, program: Program, machine: Machine | None = None):
        self.plan: Plan = plan_of(program)
        self._machine = machine

    def mix(self, product: Product, mixings: Mapping[str, Array], x: Array, leading: int) -> list[Array]:
        """Return the products with ``x`` (T, *batch, *lanes, n) of the mixings that share it.

        Parameters
        ----------
        product : Product
        mixings : mapping of array
        x : array
        leading : int
            The number of its axes before the lanes.
        """
        xp, order = namespace(x), (*memory_order(x, leading), *range(leading, x.ndim))
        moved = x.transpose(order)
        with on(x, self._machine) as machine:
            weights = stacked([mixings[name] for name in product.mixings])
            lanes, m, n = weights.shape
            results = xp.empty((*moved.shape[:-1], m), x.dtype)
            if x.size:
                rows = xp.ascontiguousarray(moved).reshape(prod(moved.shape[:leading]), lanes, n)
                machine.product(weights, rows, results.reshape(len(rows), lanes, m), add=False, rough=False)
        back = np.argsort(order)
        return [results[..., i * n : (i + 1) * n].transpose(back) for i in range(m // n)]


@register("products", "cuda")
def products(traced: TracedCell, dtype: Any) -> ProductsCuda:
    """Return the products of a cell, which take any dtype."""
    return ProductsCuda(traced.program)

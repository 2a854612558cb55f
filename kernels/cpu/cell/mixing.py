"""Walks of cells with mixings that couple units, compiled whole from the function of the cell."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from functools import lru_cache, partial
from math import ceil
from typing import Any

import numpy as np

from recsolve.base.arrays import Array, broadcast, memory_order
from recsolve.kernels.codegen.numba_mixing import Product, mixing_module, plan_of, products_module
from recsolve.kernels.cpu.cell.stage_loops import LEAST
from recsolve.kernels.cpu.jit import module_cache
from recsolve.kernels.cpu.jit.panel_packing import aligned, packed, vector_shape
from recsolve.kernels.cpu.placement.rows import SPREAD, Rows, States, Y
from recsolve.kernels.cpu.placement.start_rows import flat_starts
from recsolve.kernels.cpu.threads import spread, threads
from recsolve.kernels.registry import TracedCell, register
from recsolve.kernels.starts import Starts
from recsolve.symbolic.program import Program

_LANES = 2048  # of a task at most, so that its buffers stay in the nearest cache
_ROWS = 16_384  # lanes of a tile of a product at all times
_TOGETHER = 4  # sequences of a block of a product


class FusedMixing:
    """The compiled walk of one cell and dtype.

    States are (T, *batch, [k], *lanes, n), inputs broadcast to (T, *batch, *lanes, n) and come in the order of
    :func:`recsolve.kernels.codegen.numba_elementwise.inputs_of`.

    Parameters
    ----------
    program : Program
        With mixings of the kinds ``"dense"`` and ``"heads"``, and ``"diagonal"`` ones beside them.
    dtype : dtype
    """

    def __init__(self, program: Program, dtype: Any):
        self.vector, vectors = vector_shape(np.dtype(dtype))
        self.panel, self.vectors = self.vector * vectors, vectors
        products = products_module(dtype, self.vector, vectors)
        self.products: Any = module_cache.load(products, f"products_{np.dtype(dtype).name}")
        self.loops: Any = module_cache.load(mixing_module(program, dtype, self.products.__name__), program.name)
        self.plan, self.components = plan_of(program), len(program.components)

    def takes(self, states: Array, batch: int) -> bool:
        """Return whether there is a walk for states of this shape and dtype: always."""
        return True

    def walk(
        self, inputs: Sequence[Array], mixings: Mapping[str, Array], states: Array, batch: int, starts: Starts
    ) -> None:
        """Fill ``states`` one step after the other.

        Parameters
        ----------
        inputs : sequence of array
        mixings : mapping of array
            The matrices (*lanes, n, n) of those that couple units.
        states : array
            The result.
        batch : int
            The number of batch axes.
        starts : Starts
        """
        if not states.size:
            return
        heads, units = _matrices(next(iter(mixings.values()))).shape[:2]
        rows, result = self._rows(inputs, states, batch, heads * units)
        tile, tasks, workers = _tasks(rows, heads * units, states.size)
        weights = self._weights(self.plan.products, mixings, tile[0] * tile[1])
        g = self.loops.Sizes(
            steps=len(states),
            groups=rows.groups,
            inner=rows.inner,
            width=tile[1],
            bundle=tile[0],
            lanes=rows.number,
            components=self.components,
            slots=self.plan.slots,
            calls=len(self.plan.results),
            y_c=rows.distances[Y][0] if self.components > 1 else 0,
            has_resets=int(starts.has_resets),
            heads=heads,
            units=units,
            capacity=tile[0] * tile[1],
        )
        flat = flat_starts(starts, rows, () if self.components == 1 else (batch,))
        loop = partial(self.loops.walk, rows.inputs, rows.bases[Y], *flat, weights, rows.where, rows.by_time, g)
        spread(loop, tasks, workers)
        rows.finish()
        if result is not states:
            states[...] = result

    def mix(self, product: Product, mixings: Mapping[str, Array], x: Array, leading: int) -> list[Array]:
        """Return the products with ``x`` (T, *batch, *lanes, n) of the mixings that share it, as a walk rounds them.

        Parameters
        ----------
        product : Product
        mixings : mapping of array
        x : array
        leading : int
            The number of its axes before the lanes.
        """
        order = (*memory_order(x, leading), *range(leading, x.ndim))
        rows = np.ascontiguousarray(x.transpose(order))
        results = np.empty((len(product.mixings), *rows.shape), x.dtype)
        if x.size:
            heads, units = _matrices(mixings[product.mixings[0]]).shape[:2]
            weights = self._weights([replace(product, first=0)], mixings, x.size)
            tile = max(_ROWS // (heads * units), _TOGETHER) // _TOGETHER * _TOGETHER * heads * units
            shape = x.size, tile, self.products.Heads(heads, units)
            loop = partial(self.products.mix, rows.reshape(-1), results.reshape(-1), weights, *shape)
            spread(loop, ceil(x.size / tile), threads() if x.size >= SPREAD else 1)
        back = np.argsort(order)
        return [result.transpose(back) for result in results]

    def _rows(self, inputs: Sequence[Array], states: Array, batch: int, sequence: int) -> tuple[Rows, Array]:
        """Return where rows of whole sequences lie, with the given lanes each, and the array to fill."""
        axes = () if self.components == 1 else (1 + batch,)
        shape = (*states.shape[: 1 + batch], *states.shape[1 + batch + len(axes) :])
        rows = Rows(shape, {Y: States(states, axes, True)}, inputs, least=LEAST)
        order = [axis for axis in rows.lanes.order if rows.shape[1 + axis] > 1]
        event = [axis for axis in range(batch, len(shape) - 1) if shape[1 + axis] > 1]
        if rows.inner % sequence == 0 and order[len(order) - len(event) :] == event:
            return rows, states
        # With copies, sequences are contiguous even for a drive that is strided or shared among heads.
        fresh, full = np.empty(states.shape, states.dtype), [broadcast(x, shape) for x in inputs]
        copies = [np.ascontiguousarray(x) if x.strides[0] else x for x in full]
        return Rows(shape, {Y: States(fresh, axes, True)}, copies, least=LEAST), fresh

    def _weights(self, products: Sequence[Product], mixings: Mapping[str, Array], capacity: int) -> Any:
        """Return the matrices for the loops, and where in slots of this capacity their results go."""
        flats: list[Array] = []
        tables: list[Array] = []
        begins: list[tuple[int, int, int]] = []
        for product in products:
            matrices = np.stack([_matrices(mixings[name]) for name in product.mixings])
            calls, heads, n, _ = matrices.shape
            flat = packed(matrices, self.vector, self.panel)
            panels = flat.size // (heads * n * self.panel)
            each = ceil(n / self.vector)
            call, begin = np.divmod(np.arange(panels * self.vectors), each)
            places = (product.first + call) * capacity + begin * self.vector
            valid = np.where(call < calls, np.minimum(n - begin * self.vector, self.vector), 0)
            begins.append((sum(x.size for x in flats), sum(x.shape[1] for x in tables), panels))
            flats.append(flat)
            tables.append(np.stack([places, valid]))
        places, valid = np.concatenate(tables, axis=1)
        return self.products.Weights(_joined(flats), places, valid, np.array(begins).ravel())


def _matrices(weight: Array) -> Array:
    """Return a weight as (heads, n, n)."""
    return weight[None] if weight.ndim == 2 else weight


def _joined(flats: Sequence[Array]) -> Array:
    """Return flat arrays one after the other, from the start of a cache line on."""
    whole = aligned(sum(x.size for x in flats), flats[0].dtype)
    return np.concatenate(flats, out=whole)


def _tasks(rows: Rows, sequence: int, numbers: int) -> tuple[tuple[int, int], int, int]:
    """Return how many groups and lanes of each a task takes, how many tasks there are, and for how many threads."""
    workers = threads() if numbers >= SPREAD else 1
    inside = rows.inner // sequence  # sequences of a group
    share = ceil(rows.groups * inside / workers)
    most = max(_LANES // sequence // _TOGETHER, 1) * _TOGETHER
    share = min(share, most)
    bundle, width = (share, sequence) if inside == 1 else (1, min(share, inside) * sequence)
    return (bundle, width), ceil(rows.groups / bundle) * ceil(rows.inner / width), workers


@register("products", "numba")
@register("walk", "numba")
@lru_cache(maxsize=128)
def walk(traced: TracedCell, dtype: Any) -> FusedMixing:
    """Return the walk of a cell, which rounds its products alike when it computes them for all times."""
    return FusedMixing(traced.program, dtype)

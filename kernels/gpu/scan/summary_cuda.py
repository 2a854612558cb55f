"""What all steps of CuPy arrays do to the state before them, by CUDA kernels that read elements once.

Blocks compose ranges of tiles, and a warp for each lane composes what these have found. What the maps of scans are, and
how elements lie, is as in :mod:`recsolve.kernels.gpu.scan.scan_cuda`; what is not carried goes to the tree of NumPy,
which runs on CuPy arrays too.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from recsolve.base.arrays import Array, address, kind_of, namespace
from recsolve.jacobians import Zero
from recsolve.kernels.gpu.device import Machine, on
from recsolve.kernels.gpu.scan.maps import cuda_map
from recsolve.kernels.gpu.scan.operands import Operands, types_of
from recsolve.kernels.gpu.scan.scan_cuda import asked_of, taken
from recsolve.kernels.gpu.scan.scan_plan import Plan, plan
from recsolve.kernels.gpu.views import AT, LANES, innermost
from recsolve.kernels.monoids.monoid import Monoid
from recsolve.kernels.registry import register
from recsolve.kernels.summary import Summary
from recsolve.kernels.summary import summarise as by_tree


@register("summary", "cuda")
def summarise(
    monoid: Monoid,
    elements: Any,
    *,
    initial: Array | None = None,
    reset: Array | None = None,
    width: int | None = None,
    machine: Machine | None = None,
) -> Summary:
    """Return what :func:`recsolve.kernels.backends.summarise` does, by kernels.

    ``width`` is that of tiles, in lanes; ``machine`` by default the device of the arrays, on its current stream.
    """
    like = monoid.like(elements)
    if kind_of(like) != ("cupy" if machine is None else machine.kind):
        return by_tree(monoid, elements, initial=initial, reset=reset)
    with on(like, machine) as where:
        given = taken(monoid, elements, initial, reset, where.kind)
        if given is None or type(elements[0]) is Zero or not like.size or not cuda_map(given.map).composes(given.parts):
            return by_tree(monoid, elements, initial=initial, reset=reset)
        numbers = _composed(given, like, initial, reset, width, where)
        element = cuda_map(given.map).element(elements, numbers, given.state)
        if reset is None:
            return Summary(element)
        after, cut = numbers[-1 - given.parts : -1], numbers[-1:] != 0
        axis = 0 if given.state is None else given.state - 1
        after, cut = np.moveaxis(after, 0, axis), np.moveaxis(cut, 0, axis)
        return Summary(element, after, cut) if given.state is None else Summary(element, after[None], cut[None])


def _composed(
    given: Operands, like: Array, initial: Array | None, reset: Array | None, width: int | None, machine: Machine
) -> Array:
    """Return the numbers of the composed maps, (size, *lanes)."""
    xp, number = namespace(like), types_of(like.dtype).number
    if initial is None:  # the first step acts on what comes in; a cut step does not look at this, whatever it is
        initial = xp.empty((), number)
    asked, placed = asked_of(given, like, initial, reset)
    planned: Plan = plan(asked, machine.processors, "summary", width, machine.shared)
    maps, p = planned.variant.maps, planned.launch.problem.copy()
    ranges, lanes = int(p[AT["ranges"]]), int(p[AT["lanes"]])
    out = xp.empty((maps.size, lanes), number)
    parts = xp.empty((ranges, maps.size, lanes), number) if ranges > 1 else out
    for name, at in {**placed.addresses, "y": address(out), "told": address(parts)}.items():
        p[AT[name]] = at
    one = planned.launch._replace(problem=p)
    machine.launch(one)
    if ranges > 1:
        together = f"recsolve::together<{maps.name}>"
        machine.launch(one._replace(kernel=together, blocks=lanes, threads=LANES, shared=0))
    return _in_order(out, asked.sizes, innermost(dict(asked.arrays)["y"].lanes))


def _in_order(numbers: Array, sizes: tuple[int, ...], order: list[int]) -> Array:
    """Return numbers of lanes that are counted along axes in an order, the innermost first, with these axes."""
    outwards = [*reversed(order)]
    apart = numbers.reshape(len(numbers), *(sizes[axis] for axis in outwards))
    return apart.transpose(0, *(1 + outwards.index(axis) for axis in range(len(sizes))))

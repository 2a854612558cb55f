"""The scan of CuPy arrays by CUDA kernels: affine maps (diagonal, and k x k blocks for k = 2, 3, 4) and other monoids,
as far as :mod:`recsolve.kernels.gpu.scan.operands` knows maps for them.

Four regimes, one of which is chosen by a model of their times. ``registers`` and ``streamed``: a thread walks through
time for each lane (batch x units), with elements loaded steps ahead into registers or shared memory. ``chained``: tiles
of lanes x time, each of which looks back for the state before it (single pass). ``tiny``: a block takes a tile of lanes
through all of time. What maps remember makes no difference to any of them.

Elements are read once and in place, in whatever layout they have. Factored Jacobians are walked by
blocks (:mod:`recsolve.kernels.gpu.scan.factored_walk`). What is not carried here goes to the NumPy kernel, which runs
on CuPy arrays too.
"""

from __future__ import annotations

from functools import lru_cache
from typing import Any, NamedTuple

import numpy as np

from recsolve.base.arrays import Array, address, broadcast, empty_in_order, kind_of, namespace
from recsolve.jacobians import Zero
from recsolve.kernels.cpu.scan.factored_scan import is_factored
from recsolve.kernels.gpu.device import Launch, Machine, on
from recsolve.kernels.gpu.scan.dense_plan import dense_plan, is_dense
from recsolve.kernels.gpu.scan.factored_walk import scan_factored
from recsolve.kernels.gpu.scan.operands import Operands, operands, types_of
from recsolve.kernels.gpu.scan.scan_plan import Plan, Scan, plan
from recsolve.kernels.gpu.scan.variants import Regime
from recsolve.kernels.gpu.views import AT, AXES, INPUTS, aligned, distances, lowest
from recsolve.kernels.monoids.monoid import Monoid
from recsolve.kernels.reference import scan_numpy
from recsolve.kernels.registry import register

_ALIGNED = 16  # bytes that are copied at once


def carries(monoid: Monoid, elements: Any, initial: Array | None = None, *, kind: str = "cupy") -> bool:
    """Return whether the CUDA kernels take these elements, and do not hand them to the NumPy kernel."""
    return _carried(operands(monoid, elements), initial, kind)


def _carried(given: Operands | None, initial: Array | None, kind: str) -> bool:
    """Return whether there are kernels for elements that are read so, and they lie where these run."""
    if given is None:
        return False
    arrays = [x for x, _ in given.inputs]
    types = types_of(arrays[0].dtype)
    if any(kind_of(x) != kind for x in (*arrays, initial) if x is not None) or types.stored is None:
        return False
    if initial is not None and initial.dtype not in (types.state, arrays[0].dtype):
        return False
    return initial is not None or not given.restarts


def taken(monoid: Monoid, elements: Any, initial: Array | None, reset: Array | None, kind: str) -> Operands | None:
    """Return how elements are read, or None if the kernels do not take them, such a mask, or so many axes."""
    given, like = operands(monoid, elements), monoid.like(elements)
    if given is None or not _carried(given, initial, kind):
        return None
    return given if _cuts_together(given, like, reset) and like.ndim - 1 <= AXES else None


@register("scan", "cuda")
def scan(
    monoid: Monoid,
    elements: Any,
    *,
    initial: Array | None = None,
    reset: Array | None = None,
    regime: Regime | None = None,
    width: int | None = None,
    machine: Machine | None = None,
) -> Array:
    """Return what :func:`recsolve.kernels.backends.scan` does.

    Parameters
    ----------
    monoid, elements, initial, reset
    regime : {"registers", "streamed", "tiny", "chained"}, optional
        By default the fastest according to a model. Matrices of more than 4 rows have one of their own, and so
        have those of more than 2 over semirings.
    width : {1, 2, 4, 8, 16, 32}, optional
        Lanes of a tile.
    machine : Machine, optional
        By default the device of the arrays, on its current stream.

    Returns
    -------
    array, shape (T, ...)

    Raises
    ------
    ValueError
        For another regime or width.
    """
    like = monoid.like(elements)
    if kind_of(like) != ("cupy" if machine is None else machine.kind):
        return scan_numpy.scan(monoid, elements, initial=initial, reset=reset)
    with on(like, machine) as where:
        if is_factored(elements[0]):
            walked = scan_factored(elements[0], like, where, initial=initial, reset=reset)
            return scan_numpy.scan(monoid, elements, initial=initial, reset=reset) if walked is None else walked
        given = taken(monoid, elements, initial, reset, where.kind)
        if given is None:
            return scan_numpy.scan(monoid, elements, initial=initial, reset=reset)
        y = empty_in_order(like.shape, like, like.ndim)
        if type(elements[0]) is Zero:
            y[...] = elements[1]
        elif y.size:
            asked, arrays = asked_of(given, y, initial, reset)
            Launches(where, _plan(asked, where, regime, width), arrays)()
        return y


def launches(
    monoid: Monoid, elements: Any, y: Array, machine: Machine, *, reset: Array | None = None
) -> Launches | None:
    """Return a scan into ``y`` that can be run many times, or captured; None if the kernels do not take it."""
    given = taken(monoid, elements, None, reset, machine.kind)
    if given is None:
        return None
    asked, arrays = asked_of(given, y, None, reset)
    return Launches(machine, _plan(asked, machine), arrays)


def planned(monoid: Monoid, elements: Any, *, initial: Array | None = None, reset: Array | None = None) -> Regime:
    """Return the regime that a scan would run in, by the model of times."""
    like = monoid.like(elements)
    with on(like, None) as machine:
        y = empty_in_order(like.shape, like, like.ndim)
        given = operands(monoid, elements)
        assert given is not None
        return _plan(asked_of(given, y, initial, reset)[0], machine).variant.regime


def _plan(asked: Scan, machine: Machine, regime: Regime | None = None, width: int | None = None) -> Plan:
    if is_dense(asked.monoid, asked.parts):
        return dense_plan(asked)
    return plan(asked, machine.processors, regime, width, machine.shared)


def _cuts_together(given: Operands, like: Array, reset: Array | None) -> bool:
    """Return whether a mask cuts all the numbers that an element mixes, or none; and has the axes of the rows."""
    if reset is None:
        return True
    return bool(reset.ndim == like.ndim and (given.state is None or reset.shape[given.state] == 1))


def asked_of(given: Operands, y: Array, initial: Array | None, reset: Array | None) -> tuple[Scan, Placed]:
    """Return what a plan depends on, and the arrays of a scan into ``y``."""
    vector = () if given.state is None else (given.state,)
    arrays: dict[str, Array] = {"y": y}
    axes: list[tuple[int, ...]] = [vector]
    for name, (x, components) in zip(INPUTS, given.inputs, strict=False):
        arrays[name] = aligned(x)
        axes.append(components)
    if reset is not None:
        arrays["cut"] = broadcast(reset, y.shape)
        axes.append(vector)
    if initial is not None:
        row = initial.astype(types_of(y.dtype).state, copy=False)
        arrays["initial"] = aligned(broadcast(row, y.shape[1:])[None])
        axes.append(vector)
    layouts = tuple((x.shape, x.strides, x.itemsize, own) for x, own in zip(arrays.values(), axes, strict=True))
    asked, begin = _described(given.map, given.parts, given.state, y.dtype, tuple(arrays), layouts)
    places = {name: address(x) for name, x in arrays.items()}
    fits = not any((places[name] + before) % _ALIGNED for name, before in begin)
    return asked[fits], Placed(arrays, places)


@lru_cache(maxsize=1024)
def _described(
    name: str, parts: int, state: int | None, dtype: np.dtype[Any], names: tuple[str, ...], layouts: tuple[Any, ...]
) -> tuple[tuple[Scan, Scan], tuple[tuple[str, int], ...]]:
    """Return scans whose numbers are not aligned, and are; and how far before its first number the memory of each
    array of them begins. Parts of a complex number are 1 apart."""
    whole, stored = dtype.kind != "c", types_of(dtype).stored
    strides, begin = [], []
    for array, (shape, steps, size, components) in zip(names, layouts, strict=True):
        if whole or array == "cut":
            strides.append((array, distances(shape, steps, size, components)))
        else:
            strides.append((array, distances(shape, steps, size // 2)._replace(row=1, column=1)))
        if array in (*INPUTS, "y"):
            begin.append((array, lowest(shape, steps)))
    assert stored is not None
    shape = layouts[0][0]
    sizes = tuple(n for axis, n in enumerate(shape) if axis and axis != state)
    one = Scan(name, parts, stored, shape[0], sizes, tuple(strides))
    return (one, one._replace(aligned=True)), tuple(begin)


class Placed(NamedTuple):
    """Arrays, and their addresses."""

    arrays: dict[str, Array]
    addresses: dict[str, int]


class Launches:
    """The launch of a scan with its addresses, and with memory for what blocks tell each other, if they do.

    Launches that are captured must be kept as long as the graph is.
    """

    def __init__(self, machine: Machine, planned: Plan, placed: Placed):
        self.machine, self.arrays = machine, placed.arrays
        p = planned.launch.problem.copy()  # as integers, which are filled in much faster than fields of a structure
        for name, at in placed.addresses.items():
            p[AT[name]] = at
        self.told = namespace(self.arrays["y"]).empty(planned.told, np.int64) if planned.told else None
        if self.told is not None:
            p[AT["told"]] = address(self.told)
        self.one = Launch(*planned.launch[:-1], p)

    def __call__(self) -> None:
        if self.told is not None:
            self.machine.clear(self.told)
        self.machine.launch(self.one)

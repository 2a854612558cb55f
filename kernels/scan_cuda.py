"""The scan of CuPy arrays by CUDA kernels: affine maps (diagonal, and k x k blocks for k = 2, 3, 4) and clamps.

Five regimes, one of which is chosen by a model of their times. ``registers`` and ``streamed``: a thread walks through
time for each lane (batch x units), with elements loaded steps ahead into registers or shared memory. ``chained``: tiles
of lanes x time, each of which looks back for the state before it (single pass). ``tiny``: a block takes a tile of lanes
through all of time. ``segments``: streams for segments of time side by side, each from the state that the steps before
it lead to from a guess. Where maps forget, that is the state of the loop to the last bit; the device checks that, and
takes ``chained`` instead where it is not so.

Elements are read once and in place, in whatever layout they have. What is not carried here goes to the NumPy kernel,
which runs on CuPy arrays too.
"""

from __future__ import annotations

from contextlib import nullcontext
from dataclasses import replace
from typing import Any, Protocol

import numpy as np

from recsolve.arrays import Array, empty_in_order, kind_of, namespace
from recsolve.jacobians import Block, Diagonal, Identity, Jacobian, LaneDense, Scalar, Zero
from recsolve.kernels import register, scan_numpy
from recsolve.kernels.cuda_geometry import AT, AXES, INPUTS, PROBLEM, address, aligned, by_value, strides_of
from recsolve.kernels.cuda_plan import Plan, Scan, plan
from recsolve.kernels.cuda_source import LATER, OPTIONS, STORAGE, Regime, Variant, text
from recsolve.kernels.monoids import Affine, Clamp, Monoid

_COMPONENTS = (2, 3, 4)
_ALIGNED = 16  # bytes that are copied at once


class Machine(Protocol):
    """Where kernels run."""

    kind: str
    processors: int

    def launch(self, variant: Variant, blocks: int, shared: int, problem: Any) -> None:
        """Run a kernel over a grid of blocks."""


def carries(monoid: Monoid, elements: Any, initial: Array | None = None, *, kind: str = "cupy") -> bool:
    """Return whether the CUDA kernels take these elements, and do not hand them to the NumPy kernel."""
    if type(monoid) not in (Affine, Clamp):
        return False
    e, f = elements
    if isinstance(e, Jacobian) and not (_elementwise(e) or _components(e)):
        return False
    like = getattr(e, "data", f) if isinstance(e, Jacobian) else e
    if any(kind_of(x) != kind for x in (f, like, initial) if x is not None) or like.dtype != f.dtype:
        return False
    if f.dtype.name not in STORAGE or (initial is not None and initial.dtype != _number(f)):
        return False
    return type(monoid) is Affine or initial is not None


@register("scan", "cuda")
def scan(
    monoid: Monoid,
    elements: Any,
    *,
    initial: Array | None = None,
    reset: Array | None = None,
    chunk: int | None = None,
    regime: Regime | None = None,
    width: int | None = None,
    machine: Machine | None = None,
) -> Array:
    """Return y[t] = e[t](y[t-1]) for all t.

    Parameters
    ----------
    monoid : Monoid
    elements : tuple
        In the monoid's form, time first.
    initial : array, optional
        y[-1], the shape of one row; without it the first step is cut from its past.
    reset : array of bool, optional
        Broadcasting against rows (T, ...): steps that are cut from their past, by selection.
    chunk : int, optional
        Taken for the sake of the other kernels; tiles have lengths of their own.
    regime : {"registers", "streamed", "segments", "tiny", "chained"}, optional
        By default the fastest according to a model.
    width : {1, 2, 4, 8, 16, 32}, optional
        Lanes of a tile.
    machine : Machine, optional
        By default the device of the arrays, on its current stream.

    Returns
    -------
    array
        y, in the memory order of the elements.

    Raises
    ------
    ValueError
        For another regime or width.
    """
    like = monoid.like(elements)
    kind = "cupy" if machine is None else machine.kind
    taken = carries(monoid, elements, initial, kind=kind)
    if not taken or not _cuts_together(elements, reset) or _scattered(elements):
        return scan_numpy.scan(monoid, elements, initial=initial, reset=reset, chunk=chunk)
    y = empty_in_order(like.shape, like, like.ndim)
    if isinstance(elements[0], Zero):
        y[...] = elements[1]
    elif y.size:
        device: Any = nullcontext() if machine else y.device
        with device:
            where = machine or _current()
            asked, arrays = _asked(monoid, elements, y, initial, reset)
            Launch(where, plan(asked, where.processors, regime, width), arrays)()
    return y


def launcher(
    monoid: Monoid, elements: Any, y: Array, *, reset: Array | None = None, machine: Machine | None = None
) -> Launch | None:
    """Return a scan into ``y`` on the current device that can be run many times, or captured; None if not carried."""
    kind = "cupy" if machine is None else machine.kind
    if not carries(monoid, elements, kind=kind) or not _cuts_together(elements, reset) or _scattered(elements):
        return None
    where = machine or _current()
    asked, arrays = _asked(monoid, elements, y, None, reset)
    return Launch(where, plan(asked, where.processors), arrays)


def planned(monoid: Monoid, elements: Any, *, initial: Array | None = None, reset: Array | None = None) -> Regime:
    """Return the regime that a scan would run in, by the model of times."""
    like = monoid.like(elements)
    y = empty_in_order(like.shape, like, like.ndim)
    return plan(_asked(monoid, elements, y, initial, reset)[0], _current().processors).variant.regime


def _number(f: Array) -> np.dtype[Any]:
    """Return the type of the arithmetic, in which states are carried."""
    return np.dtype(np.float64 if f.dtype == np.float64 else np.float32)


def _elementwise(e: Jacobian) -> bool:
    """Return whether a structure multiplies every number of a state by one of its own."""
    return isinstance(e, (Zero, Identity, Scalar, Diagonal)) or (isinstance(e, LaneDense) and e.layout.lane_width == 1)


def _components(e: Any) -> tuple[tuple[int, int], int] | None:
    """Return the axes of rows and columns of matrices, and that of the states they act on; None without such."""
    if isinstance(e, Block) and e.layout.components in _COMPONENTS:
        axis = len(e.leading)
        return (axis, axis + 1), axis
    if isinstance(e, LaneDense) and e.layout.components == 1 and e.layout.lane_width in _COMPONENTS:
        last = e.data.ndim - 1
        return (last - 1, last), last - 1
    return None


def _cuts_together(elements: Any, reset: Array | None) -> bool:
    """Return whether a mask cuts all the numbers that an element mixes, or none; and has the axes of the rows."""
    if reset is None:
        return True
    e, f = elements
    components = _components(e)
    return bool(reset.ndim == f.ndim and (components is None or reset.shape[components[1]] == 1))


def _scattered(elements: Any) -> bool:
    """Return whether arrays have more axes than kernels count, even if none could be merged."""
    return bool(elements[1].ndim - 1 > AXES)


def _entries(e: Any, f: Array) -> Array:
    """Return the entries of a structure in the shape of ``f`` (a matrix's as they are); repeated ones have stride 0."""
    if not isinstance(e, Jacobian):
        return _spread(e, f.shape)
    if _components(e):
        return e.data  # type: ignore[attr-defined, no-any-return]
    if isinstance(e, Identity):
        return _spread(namespace(f).ones((1,) * f.ndim, f.dtype), f.shape)
    return _spread(e.diagonal().data, f.shape)


def _spread(x: Array, shape: tuple[int, ...]) -> Array:
    return x if x.shape == shape else namespace(x).broadcast_to(x, shape)


def _asked(
    monoid: Monoid, elements: Any, y: Array, initial: Array | None, reset: Array | None
) -> tuple[Scan, dict[str, Array]]:
    """Return what a plan depends on, and the arrays of a scan into ``y``."""
    e, f = elements
    matrix, state = _components(e) or ((), None)
    vector = () if state is None else (state,)
    arrays = {"y": (y, vector), "in0": (aligned(_entries(e, f)), matrix), "in1": (aligned(f), vector)}
    if reset is not None:
        arrays["cut"] = (_spread(reset, y.shape), vector)
    if initial is not None:
        arrays["initial"] = (aligned(_spread(initial, y.shape[1:])[None]), vector)
    asked = Scan(
        monoid="affine" if type(monoid) is Affine else "clamp",
        parts=1 if state is None else y.shape[state],
        dtype=y.dtype.name,
        steps=len(y),
        sizes=tuple(n for axis, n in enumerate(y.shape) if axis and axis != state),
        arrays=tuple((name, strides_of(x, components)) for name, (x, components) in arrays.items()),
        aligned=not any(address(x) % _ALIGNED for name, (x, _) in arrays.items() if name in (*INPUTS, "y")),
    )
    return asked, {name: x for name, (x, _) in arrays.items()}


class Launch:
    """The launches of a scan with their addresses, and with memory for what blocks tell each other, if they do.

    Launches that are captured must be kept as long as the graph is.
    """

    def __init__(self, machine: Machine, planned: Plan, arrays: dict[str, Array]):
        self.machine, self.arrays, otherwise = machine, arrays, planned.otherwise
        xp, last = namespace(arrays["y"]), otherwise or planned
        self.flags = self.told = None
        if otherwise or planned.flags:  # what has changed, a ticket, tiles, tiles that are broken
            self.flags = xp.empty(2 + last.flags + (planned.tiles if otherwise else 0), np.int32)
            self.told = xp.empty(max(planned.told, last.told), _number(arrays["y"]))
        p = self._filled(planned)
        self.launches = [(planned.variant, planned.blocks, planned.shared, p.view(PROBLEM))]
        if otherwise and planned.blocks > planned.tiles:
            for after, blocks in zip(LATER, (planned.blocks - planned.tiles, planned.tiles), strict=True):
                self.launches.append((replace(planned.variant, after=after), blocks, planned.shared, p.view(PROBLEM)))
            p = self._filled(otherwise)
            p[AT["condition"]] = p[AT["changed"]]
            self.launches.append((otherwise.variant, otherwise.blocks, otherwise.shared, p.view(PROBLEM)))

    def _filled(self, planned: Plan) -> Array:
        """Return a problem, as integers, which are filled in much faster than fields of a structure."""
        p = planned.problem.copy()
        for name, x in self.arrays.items():
            p[AT[name]] = address(x)
        if self.flags is not None and self.told is not None:
            at, size = address(self.flags), self.flags.itemsize
            p[AT["changed"]], p[AT["ticket"]], p[AT["flags"]] = at, at + size, at + 2 * size
            p[AT["broken"]] = at + (len(self.flags) - planned.tiles) * size
            for name in ("aggregates", "states", "starts", "ends"):
                p[AT[name]] += address(self.told)
        return p

    def __call__(self) -> None:
        if self.flags is not None:
            self.flags.fill(0)
        for launch in self.launches:
            self.machine.launch(*launch)


class Cuda:
    """A device, with kernels compiled for it as they are asked for."""

    kind = "cupy"

    def __init__(self, device: Any):
        self._attributes = device.attributes
        self.processors = int(self._attributes["MultiProcessorCount"])
        self._kernels: dict[Variant, Any] = {}

    def kernel(self, v: Variant) -> Any:
        """Return the compiled kernel of a variant."""
        import cupy

        if v not in self._kernels:
            module = cupy.RawModule(code=text(v.regime), options=OPTIONS, name_expressions=(v.expression,))
            kernel = module.get_function(v.expression)
            if v.regime != "registers":
                kernel.max_dynamic_shared_size_bytes = self._attributes["MaxSharedMemoryPerBlockOptin"]
                kernel.preferred_shared_memory_carveout = 100
            self._kernels[v] = kernel
        return self._kernels[v]

    def launch(self, v: Variant, blocks: int, shared: int, problem: Any) -> None:
        """Launch on the current stream; CuPy raises what the driver reports."""
        if blocks >= 1 << 31:
            raise ValueError(f"a scan of {blocks} blocks; wanted fewer than 2^31")
        self.kernel(v)((blocks,), (v.threads,), (by_value(problem),), shared_mem=shared)


_DEVICES: dict[int, Cuda] = {}


def _current() -> Cuda:
    """Return the current device."""
    import cupy

    device = cupy.cuda.Device()
    return _DEVICES.setdefault(device.id, _DEVICES.get(device.id) or Cuda(device))

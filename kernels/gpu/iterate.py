"""What an iteration launches: the test of an iterate, its fronts and one report, and the next states.

The NumPy forms in :mod:`recsolve.kernels.residual` are the definition. Nothing here waits for the device but the
report. What depends on shapes, strides and the device is found once and kept: an iteration fills in addresses.
"""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import AbstractContextManager, nullcontext
from functools import lru_cache
from math import ceil, isfinite, prod
from operator import attrgetter
from typing import Any, NamedTuple

import numpy as np

from recsolve.base.arrays import Array, broadcast, memory_order, namespace, slowest_first
from recsolve.base.layout import Layout
from recsolve.base.tolerance import Tolerance
from recsolve.jacobians import Block, Diagonal, Jacobian
from recsolve.kernels.codegen.cuda_elementwise import OPTIONS, rows_text
from recsolve.kernels.codegen.cuda_structures import VIEW, constants, structure
from recsolve.kernels.gpu.cell.stage_launches import ElementwiseCuda
from recsolve.kernels.gpu.device import Launch, Machine, on
from recsolve.kernels.gpu.scan.scan_cuda import Launches, launches
from recsolve.kernels.gpu.scan.variants import STORAGE
from recsolve.kernels.gpu.views import AT, AXES, address, aligned, merge
from recsolve.kernels.monoids.monoid import MONOIDS
from recsolve.kernels.starts import Starts

_NAMED = constants("iterate/guard") | constants("iterate/fronts")
_THREADS, _EVENT, _REPORTED = (_NAMED[name] for name in ("ROW_THREADS", "EVENT_AXES", "REPORTED"))
OF_VALUES, OF_PROPOSAL, OF_PRODUCT, OF_DIAGONAL, OF_BLOCK = (
    _NAMED[name] for name in ("OF_VALUES", "OF_PROPOSAL", "OF_PRODUCT", "OF_DIAGONAL", "OF_BLOCK")
)
_SHARED = 1 << 10  # bytes of shared memory of a block, for what its threads tell each other
_NARROW = 8  # numbers of a row that one thread takes
_EACH = 4  # numbers of a wider row that a thread takes, if there are so many,
_ENOUGH = 1 << 16  # and more of them where so many threads are busy: a warp alone need not wait for others
_ALIGNED = 16  # bytes that are copied at once
_REGISTERS = 640  # bytes of numbers that a thread holds at most to take several at once
_MOST = 1024  # threads of a block that looks for fronts
_TOLD, _CONVERGED, _LEADING, _FRONT, _PINS, _CUT, _ROWS = range(7)  # what is told of rows, in bytes
_WRITTEN = {"told": _TOLD, "leading": _LEADING, "front": _FRONT, "pins": _PINS, "cut": _CUT}
_HERE: AbstractContextManager[None] = nullcontext()


class _Unmergeable(Exception):
    """Arrays have more axes than views have room for."""


class Axes(NamedTuple):
    """Where the axes of trajectories (T, *batch, [k], *lanes, n) are.

    Attributes
    ----------
    shape : tuple of int
    batch : int
        How many axes of the batch there are.
    components : int
        k.
    """

    shape: tuple[int, ...]
    batch: int
    components: int

    @property
    def event(self) -> int:
        """The first axis of the lanes and units."""
        return 1 + self.batch + (self.components > 1)

    @property
    def entries(self) -> tuple[int, ...]:
        """The shape of a Jacobian of k x k blocks."""
        square = (self.components,) * 2 if self.components > 1 else ()
        return (*self.shape[: 1 + self.batch], *square, *self.shape[self.event :])


class _Laid(NamedTuple):
    """A structure filled in but for addresses, as integers; how many numbers of a row are taken at once; the blocks."""

    problem: Array
    at_once: int
    blocks: int


@lru_cache(maxsize=64)
def _places(header: str, name: str, **counts: int) -> dict[str, Any]:
    """Return the place of every field among the integers of a structure, or those of an array of views."""
    places: dict[str, Any] = {}
    for field, (kind, offset, *_) in (structure(header, name, **counts).fields or {}).items():
        many = kind.subdtype is not None and kind.base == VIEW
        each = [offset // 8 + i * VIEW.itemsize // 8 for i in range(kind.shape[0])] if many else offset // 8
        places[field] = each
    return places


@lru_cache(maxsize=512)
def _laid(
    header: str,
    name: str,
    counts: tuple[tuple[str, int], ...],
    axes: Axes,
    size: int,
    lane: int,
    views: tuple[tuple[str, int, tuple[int, ...], int], ...],
) -> _Laid:
    """Return a structure for arrays of ``size`` bytes a number.

    ``views`` are fields, places among several of a field, strides, and how many axes of components come before the
    lanes; the memory order of the first is that of rows.

    Raises
    ------
    _Unmergeable
    """
    shape, (T, *batch) = axes.shape, axes.shape[: 1 + axes.batch]
    parts = list(shape[axes.event :])
    filled = np.zeros(1, structure(header, name, **dict(counts)))
    p, before = filled[0], 1 + axes.batch
    found = [_strides(shape, strides, size, axes, own) for _, _, strides, own in views]
    inner, runs = merge(parts or [1], [_in_order(parts or [1]), *(s[3] for s in found)])
    outer, outer_runs = merge(batch or [1], [_in_order(batch or [1]), *(s[1] for s in found)])
    if len(inner) > _EVENT or len(outer) > AXES - _EVENT:
        raise _Unmergeable
    p["sizes"] = 1
    p["sizes"][: len(inner)], p["sizes"][_EVENT : _EVENT + len(outer)] = inner, outer
    p["steps"], p["sequences"], p["width"], p["components"] = T, prod(batch), prod(parts), axes.components
    p["parts"] = threads = _threads(prod(parts), axes.components, T * prod(batch))
    order = slowest_first(shape[:before], views[0][2][:before])
    p["by_time"] = before > 1 and order[-1] == 0
    if lane:
        p["lane"] = lane
    for (field, i, _, _), (time, _, own, _), run, far in zip(views, found, runs[1:], outer_runs[1:], strict=True):
        view = p[field] if i < 0 else p[field][i]
        view["time"], view["row"], view["column"] = time, *own
        view["lane"][: len(run)], view["lane"][_EVENT : _EVENT + len(far)] = run, far
    side_by_side = len(inner) == 1 and (inner[0] == 1 or all(run[0] == 1 for run in runs[1:]))
    count = _ALIGNED // size
    apart = [n for time, far, own, _ in found for n in (time, *far, *own)] + [prod(parts), lane]
    at_once = count if prod(parts) > 1 and not any(n % count for n in apart) else 1
    blocks = ceil(T * prod(batch) * threads / _THREADS)
    return _Laid(filled.view(np.int64), at_once if side_by_side else 0, blocks)


def _strides(
    shape: tuple[int, ...], strides: tuple[int, ...], size: int, axes: Axes, own: int
) -> tuple[int, tuple[int, ...], tuple[int, int], tuple[int, ...]]:
    """Return the distances of times, of the batch, of components (of rows and columns), and of lanes and units."""
    far = [s // size for s in strides]
    first = 1 + axes.batch
    row, column = (*far[first : first + own], 0, 0)[:2]
    lanes = far[first + own :]
    flat = [s if n > 1 else 0 for s, n in zip(lanes, shape[axes.event :], strict=True)]
    batch = [s if n > 1 else 0 for s, n in zip(far[1:first], shape[1:first], strict=True)]
    return far[0], tuple(batch) or (0,), (row, column), tuple(flat) or (0,)


def _in_order(sizes: Sequence[int]) -> tuple[int, ...]:
    """Return the distances in C's order, in which axes are counted whatever the order of the others."""
    return tuple(prod(sizes[i + 1 :]) for i in range(len(sizes)))


def _threads(width: int, components: int, rows: int) -> int:
    """Return how many threads take a row: one, or whole warps, more than one where there are few rows."""
    if width * components <= _NARROW:
        return 1
    threads = 32
    while threads < _THREADS and threads * _EACH < width and threads * rows < _ENOUGH:
        threads *= 2
    return threads


class Judged:
    """What kernels have told of an iterate: of its rows on the device, in all on the host.

    Attributes
    ----------
    residual : array, shape (T, *batch, *event)
    converged, leading, front : array of bool, shape (T, *batch)
    pins, cut : array of bool, shape (T, *batch)
        The leading rows and the fronts; these and the starts.
    worst : float
    blocked, done : bool
        Whether no method can go on; whether all rows have converged.
    progress, leading_times, converged_times, settled : int
        Leading rows; times at which all sequences lead, or have converged, from the first one on; sequences that have
        converged.
    rows, numbers : array
        On the device: what is told of rows, and of sizes.
    """

    __slots__ = (
        *("residual", "rows", "numbers", "converged", "leading", "front"),
        *("worst", "blocked", "done", "progress", "leading_times", "converged_times", "settled"),
    )

    def __init__(self, residual: Array, rows: Array, numbers: Array):
        self.residual, self.rows, self.numbers = residual, rows, numbers
        self.converged, self.leading, self.front = rows[_CONVERGED], rows[_LEADING], rows[_FRONT]

    def read(self, told: Sequence[int]) -> Judged:
        """Take in the report."""
        bits, failed, self.progress, unled, unconverged, fronts, still_open, self.settled = told
        self.worst, self.done = float(np.int64(bits).view(np.float64)), failed == 0
        self.blocked = not isfinite(self.worst) and fronts > 0 and still_open == 0
        steps = len(self.converged)
        self.leading_times, self.converged_times = steps - unled, steps - unconverged
        return self

    @property
    def pins(self) -> Array:
        return self.rows[_PINS]  # type: ignore[no-any-return]

    @property
    def cut(self) -> Array:
        return self.rows[_CUT]  # type: ignore[no-any-return]


class _Step:
    """A kernel and its structure, in which an iteration fills in addresses.

    Parameters
    ----------
    machine : Machine
    laid : _Laid
    at : dict
        The places of fields.
    code, kernel : str
        The name has a place for how many numbers are taken at once.
    """

    def __init__(
        self, machine: Machine, laid: _Laid, at: dict[str, Any], code: str, kernel: str, threads: int = _THREADS
    ):
        self.machine, self.p, self.at_once, self.at = machine, laid.problem.copy(), laid.at_once, at
        self.code, self.kernel, self.blocks, self.threads = code, kernel, laid.blocks, threads
        self.numbers: tuple[float, ...] = ()
        self._runs: dict[int, Any] = {}

    def fill(self, **addresses: int) -> None:
        p, at = self.p, self.at
        for name, where in addresses.items():
            p[at[name]] = where

    def doubles(self, names: tuple[str, ...], *numbers: float) -> None:
        """Fill in numbers that are mostly those of the last launch."""
        if numbers != self.numbers:
            self.numbers = numbers
            self.p.view(np.float64)[[self.at[name] for name in names]] = numbers

    def run(self, addresses: int = 0) -> None:
        """Launch; the bits of the addresses of arrays say whether their numbers can be taken several at once."""
        at_once = min(self.at_once, 1) if addresses % _ALIGNED else self.at_once
        if at_once not in self._runs:
            kernel = self.kernel.format(at_once)
            launch = Launch(self.code, kernel, OPTIONS, self.blocks, self.threads, _SHARED, self.p)
            self._runs[at_once] = self.machine.prepared(launch)
        self._runs[at_once]()


class Bound:
    """A cell with its inputs and starts, to be evaluated and tested in one launch.

    Parameters
    ----------
    kernels : ElementwiseCuda
    inputs : sequence of array
        In the order of the kernels, broadcasting to (T, *batch, *lanes, n).
    starts : Starts
    axes : Axes
    like : array
        Whose memory order F and the Jacobian take.
    """

    def __init__(self, kernels: ElementwiseCuda, inputs: Sequence[Array], starts: Starts, axes: Axes, like: Array):
        xp, self.axes, self.kernels = namespace(starts.initial), axes, kernels
        self.xp, self.dtype = xp, starts.initial.dtype
        wide = (*axes.shape[: 1 + axes.batch], *axes.shape[axes.event :])
        self.inputs = [aligned(broadcast(x, wide)) for x in inputs]
        self.starts = [xp.ascontiguousarray(x).reshape(x.shape) for x in starts[:2]]
        self.reset = None if starts.reset is None else xp.ascontiguousarray(starts.reset)
        self.order = memory_order(like, 1 + axes.batch)
        self.in_order = self.order == tuple(range(len(self.order)))
        self.steps: dict[Any, tuple[_Step, list[tuple[int, int, int]], int] | None] = {}

    def empty(self, shape: tuple[int, ...]) -> Array:
        """Allocate an array whose first axes (T, *batch) are in the memory order of the drive."""
        order, before = self.order, len(self.order)
        if self.in_order:
            return self.xp.empty(shape, self.dtype)  # type: ignore[no-any-return]
        back = (*(order.index(axis) for axis in range(before)), *range(before, len(shape)))
        memory = [shape[axis] for axis in order]
        return self.xp.empty((*memory, *shape[before:]), self.dtype).transpose(back)  # type: ignore[no-any-return]

    def step(
        self, machine: Machine, storage: str, states: Array, values: Array, residual: Array, entries: Array | None
    ) -> tuple[_Step, list[tuple[int, int, int]], int] | None:
        """Return a launch with all that is the same in every iteration; None if axes do not merge.

        With it, where results go: a place, whether in F or its Jacobian, and how far from its first number; and the
        bits of the addresses of inputs.
        """
        key = entries is None, states.strides
        if key not in self.steps:
            self.steps[key] = self._step(machine, storage, states, values, residual, entries)
        return self.steps[key]

    def _step(
        self, machine: Machine, storage: str, states: Array, values: Array, residual: Array, entries: Array | None
    ) -> tuple[_Step, list[tuple[int, int, int]], int] | None:
        k, counts = self.axes.components, self.kernels.counts(entries is not None)
        rows, batch = int(k > 1), self.axes.batch
        out = [(0, x, address(x) - address(values)) for x in self.kernels.parts(values, batch)]
        if entries is not None:
            out += [(1, x, address(x) - address(entries)) for x in self.kernels.entries(entries, batch)]
        views = [("states", -1, states.strides, rows)]
        once = zip(("initial", "restart"), self.starts, strict=True)
        views += [(name, -1, (0, *x.strides), rows) for name, x in once]
        views += [("residual", -1, residual.strides, rows)]
        views += [("in", k + i, x.strides, 0) for i, x in enumerate(self.inputs)]
        views += [("out", i, x.strides, 0) for i, (_, x, _) in enumerate(out)]
        at = _places("iterate/test", "Evaluation", **counts)
        try:
            laid = _laid(
                "iterate/test", "Evaluation", tuple(counts.items()), self.axes, self.dtype.itemsize, 0, tuple(views)
            )
        except _Unmergeable:
            return None
        if sum(counts.values()) * _ALIGNED > _REGISTERS:
            laid = laid._replace(at_once=min(laid.at_once, 1))
        job = "values" if entries is None else "partials"
        kernel = f"recsolve::evaluate_rows<recsolve::{job}, {k}, {storage}, {{}}>"
        step = _Step(machine, laid, at, self.kernels.rows_code, kernel)
        bits = 0
        for place, x in zip(at["in"][k:], self.inputs, strict=True):
            step.p[place] = address(x)
            bits |= address(x)
        initial, restart = (address(x) for x in self.starts)
        step.fill(initial=initial, restart=restart, resets=0 if self.reset is None else address(self.reset))
        for _, _, far in out:
            bits |= far
        return step, [(at["out"][i], which, far) for i, (which, _, far) in enumerate(out)], bits | initial | restart


class Iterations:
    """The launches of the iterations of one problem.

    Parameters
    ----------
    starts : array of bool, shape (T, *batch)
        The first row of every sequence, and the rows of resets.
    layout : Layout
    dtype : dtype
        float32 or float64.
    machine : Machine, optional
        By default the device of the arrays, on its current stream.
    """

    def __init__(self, starts: Array, layout: Layout, dtype: np.dtype[Any], machine: Machine | None = None):
        self.xp, self.layout, self.dtype, self.rows = namespace(starts), layout, dtype, starts.shape
        self.device: Any = None if machine is not None else starts.device  # type: ignore[attr-defined]
        with on(starts, machine) as self.machine:
            self.starts = self.xp.ascontiguousarray(starts)
            self.report = self.xp.empty(_REPORTED, np.int64)
        self.address: Any = address if self.xp is np else attrgetter("data.ptr")
        self.axes = Axes((*starts.shape, *layout.event), starts.ndim - 1, layout.components)
        self.count, self.sequences, self.storage = prod(self.rows), prod(self.rows[1:]), STORAGE[dtype.name].stored
        self.reader: Any = None
        self.initial: Array | None = None
        self.latest: tuple[Jacobian | None, Array | None, int] = (None, None, 0)  # J, r and where the cut of rows is
        self.follows, self.ahead = (
            False,
            None,
        )  # whether the latest J and r were scanned, and what has been scanned ahead
        self._steps: dict[Any, _Step] = {}
        self._scans: dict[Any, _Scan | None] = {}

    def _here(self) -> AbstractContextManager[Any]:
        """Return a context in which the device of the arrays is the current one."""
        if self.device is None or self.xp.cuda.runtime.getDevice() == self.device.id:
            return _HERE
        return self.device  # type: ignore[no-any-return]

    # The test ------------------------------------------------------------------------------------------------------

    def bind(self, kernels: ElementwiseCuda, inputs: Sequence[Array], starts: Starts, like: Array) -> Bound:
        """Return a cell that is evaluated and tested in one launch; F takes the memory order of ``like``."""
        return Bound(kernels, inputs, starts, self.axes, like)

    def judge(self, states: Array, values: Array, tolerance: Tolerance, pinned: Array | None = None) -> Judged:
        """Return the residual F - h, and what is told of it: two launches and a report."""
        with self._here():
            return self._judged(*self._test(states, values, tolerance), pinned)

    def evaluate(
        self, bound: Bound, states: Array, tolerance: Tolerance, pinned: Array | None, jacobian: bool
    ) -> tuple[Array, Jacobian | None, Judged] | None:
        """Return F, its Jacobian if that is asked for, and what is told; None where axes cannot be merged."""
        with self._here():
            values, residual = bound.empty(self.axes.shape), bound.empty(self.axes.shape)
            entries = bound.empty(self.axes.entries) if jacobian else None
            found = bound.step(self.machine, self.storage, states, values, residual, entries)
            if found is None:
                return None
            step, out, bits = found
            rows, numbers = self._told(step, tolerance)
            of = self.address
            h, r, results = of(states), of(residual), (of(values), 0 if entries is None else of(entries))
            p = step.p
            for place, which, far in out:
                p[place] = results[which] + far
            step.fill(states=h, residual=r)
            step.run(h | r | results[0] | results[1] | bits)
            J = None
            if entries is not None:
                J = Diagonal(entries, self.layout) if self.layout.components == 1 else Block(entries, self.layout)
            return values, J, self._judged(residual, rows, numbers, pinned, J)

    def _test(self, states: Array, values: Array, tolerance: Tolerance) -> tuple[Array, Array, Array]:
        residual = self._like(values)
        lane = (self.layout.units or 1) if tolerance.lanes is not None else 0
        views = {"states": states, "values": values, "residual": residual}
        step, views = self._laid_out("test", "Test", f"recsolve::test_rows<{self.storage}, {{}}>", views, lane)
        rows, numbers = self._told(step, tolerance)
        self._launch(step, views)
        return views["residual"], rows, numbers

    def _told(self, step: _Step, tolerance: Tolerance) -> tuple[Array, Array]:
        """Return memory for what is told of rows, and put it into a launch."""
        rows = self.xp.empty((_ROWS, *self.rows), np.bool_)
        numbers = self.xp.empty(3 * self.count + 2 * self.sequences, self.dtype)
        first, where, size = self.address(rows), self.address(numbers), self.count * self.dtype.itemsize
        step.doubles(("atol", "rtol"), tolerance.atol, tolerance.rtol)
        step.fill(
            told=first + _TOLD * self.count,
            converged=first + _CONVERGED * self.count,
            worst=where,
            largest_states=where + size,
            largest_values=where + 2 * size,
            report=self.address(self.report),
        )
        return rows, numbers

    def _like(self, x: Array) -> Array:
        """Allocate an array in the memory order of another."""
        if x.flags.c_contiguous:
            return self.xp.empty(x.shape, self.dtype)  # type: ignore[no-any-return]
        return self.xp.empty_like(x)  # type: ignore[no-any-return]

    def _laid_out(
        self, header: str, name: str, kernel: str, views: dict[str, Array], lane: int = 0, own: int = 0
    ) -> tuple[_Step, dict[str, Array]]:
        """Return a launch over trajectories, and these: in C's order where axes cannot be merged otherwise.

        ``own`` is how many axes of components a matrix has.
        """
        key = kernel, lane, *(x.strides for x in views.values())
        if key not in self._steps:
            k = int(self.layout.components > 1)
            given = tuple((field, -1, x.strides, own if field == "matrix" else k) for field, x in views.items())
            try:
                laid = _laid(f"iterate/{header}", name, (), self.axes, self.dtype.itemsize, lane, given)
            except _Unmergeable:
                in_order = {field: self.xp.ascontiguousarray(x) for field, x in views.items()}
                return self._laid_out(header, name, kernel, in_order, lane, own)
            at = _places(f"iterate/{header}", name)
            self._steps[key] = _Step(self.machine, laid, at, rows_text(header), kernel)
        return self._steps[key], views

    def _launch(self, step: _Step, views: dict[str, Array]) -> None:
        """Launch over arrays."""
        bits, p, at = 0, step.p, step.at
        for name, x in views.items():
            p[at[name]] = where = self.address(x)
            bits |= where
        step.run(bits)

    # Fronts --------------------------------------------------------------------------------------------------------

    def front(self, good: Array) -> tuple[Array, Array]:
        """Return the leading good rows of every segment, and the row at which each stops."""
        with self._here():
            found, good = self.xp.empty((2, *self.rows), np.bool_), self.xp.ascontiguousarray(good)
            first, step = self.address(found), self._fronts("front")
            step.fill(told=self.address(good), leading=first, front=first + self.count)
            step.run()
            return found[0], found[1]

    def _judged(
        self, residual: Array, rows: Array, numbers: Array, pinned: Array | None, J: Diagonal | Block | None = None
    ) -> Judged:
        """Launch the search for fronts, and read the report; meanwhile the device scans where it did so last time."""
        step, first, where = self._fronts("judged"), self.address(rows), self.address(numbers)
        p, at, count, size = step.p, step.at, self.count, self.count * self.dtype.itemsize
        for name, row in _WRITTEN.items():
            p[at[name]] = first + row * count
        p[at["worst"]], p[at["largest_states"]], p[at["largest_values"]] = where, where + size, where + 2 * size
        p[at["solved"]] = where + 3 * size
        p[at["largest"]] = where + 3 * size + self.sequences * self.dtype.itemsize
        p[at["report"]] = self.address(self.report)
        if pinned is not None and not pinned.flags.c_contiguous:
            pinned = self.xp.ascontiguousarray(pinned)
        p[at["pinned"]] = 0 if pinned is None else self.address(pinned)
        step.run()
        if self.reader is None:
            self.reader = self.machine.reader(self.report)
        self.reader.send()
        self.reader.mark()
        self.latest, self.ahead = (J, residual, first + _CUT * count), None
        if J is not None and self.follows:
            scan = self._scan(J, residual)
            self.ahead = (
                None if scan is None else scan.run(self.address(J.data), self.address(residual), first + _CUT * count)
            )
        judged = Judged(residual, rows, numbers)
        return judged.read(self.reader.read().tolist())

    def _fronts(self, use: str) -> _Step:
        """Return a launch of the search for fronts."""
        if use not in self._steps:
            at, threads = _places("iterate/fronts", "Fronts"), 32
            while threads < _MOST and 2 * threads < self.rows[0]:
                threads *= 2
            laid = _Laid(np.zeros(len(at), np.int64), 0, self.sequences)
            kernel = f"recsolve::fronts_of_rows<{self.storage}>"
            step = _Step(self.machine, laid, at, rows_text("fronts"), kernel, threads)
            step.fill(steps=self.rows[0], sequences=self.sequences, starts=self.address(self.starts))
            self._steps[use] = step
        return self._steps[use]

    # The next states -----------------------------------------------------------------------------------------------

    def guard(
        self,
        states: Array,
        values: Array,
        judged: Judged,
        made: tuple[int, Array | None, Array | None],
        reach: float,
        known: Array | None,
        initial: Array,
        pin: bool,
    ) -> tuple[Array, Array]:
        """Return the next states, in the memory order of F, and the largest number known of each sequence.

        Parameters
        ----------
        states, values : array, shape (T, *batch, *event)
        judged : Judged
        made : tuple
            What the step is made of, and then: a proposal, a product that is added to F but in rows that are cut, or d,
            which A[t] is multiplied with at the time before; and the entries of A.
        reach : float
            In units of the largest number known.
        known : array, shape (1, *batch, 1...), or None
            The largest number known of each sequence; by default it is found in h[0], h and F.
        initial : array, shape (*batch, *event)
            h[0].
        pin : bool
            Whether leading rows keep their states and the rows after them take F.
        """
        with self._here():
            what, given, matrix = made
            views = {"states": states, "values": values, "out": self._like(values)}
            if given is not None:
                views["given"] = given
            if matrix is not None:
                views["matrix"] = matrix
            k, rows = self.layout.components, self.address(judged.rows)
            own = (k > 1) * (2 if what == OF_BLOCK else 1)
            kernel = f"recsolve::guard_rows<{what}, {k}, {self.storage}, {{}}>"
            step, views = self._laid_out("guard", "Guard", kernel, views, own=own)
            reached = self.xp.empty((1, *self.rows[1:], *(1,) * len(self.layout.event)), self.dtype)
            if known is None and self.initial is None:
                self.initial = self._largest(initial)
            elif known is not None and not known.flags.c_contiguous:
                known = self.xp.ascontiguousarray(known)
            solved, count = self.address(judged.numbers) + 3 * self.count * self.dtype.itemsize, self.count
            step.doubles(("reach",), reach)
            step.fill(
                leading=rows + _LEADING * count if pin else 0,
                front=rows + _FRONT * count if pin else 0,
                cut=rows + _CUT * count if pin else self.address(self.starts),
                known=0 if known is None else self.address(known),
                initial=0 if self.initial is None else self.address(self.initial),
                solved=solved,
                first=solved + self.sequences * self.dtype.itemsize,
                reached=self.address(reached),
            )
            self._launch(step, views)
            return views["out"], reached

    def _largest(self, x: Array) -> Array:
        """Return the largest finite |x| of states (*batch, *event), for each sequence."""
        one = Iterations(self.starts[:1], self.layout, self.dtype, None if self.device is not None else self.machine)
        x = self.xp.ascontiguousarray(x).reshape(1, *x.shape)
        _, _, numbers = one._test(x, x, Tolerance(0.0, 0.0))
        return numbers[self.sequences : 2 * self.sequences]  # type: ignore[no-any-return]

    def scan(self, A: Diagonal | Block, b: Array, cut: Array) -> Array | None:
        """Return d[t] = A[t] d[t-1] + b[t], in memory that the next scan writes again; None if no kernel takes it.

        Where this is the Jacobian of the latest iterate, and its residual, the scan of the next one is launched before
        its report is waited for.
        """
        with self._here():
            J, residual, where = self.latest
            self.follows = A is J and b is residual and self.address(cut) == where
            d, self.ahead = self.ahead, None
            if self.follows and d is not None:
                return d
            scan = self._scan(A, b, cut)
            return None if scan is None else scan.run(self.address(A.data), self.address(b), self.address(cut))

    def _scan(self, A: Diagonal | Block, b: Array, cut: Array | None = None) -> _Scan | None:
        """Return the scan of arrays laid out as these; None if no kernel takes it, or it has not been planned."""
        key = type(A), A.data.strides, b.strides, (self.address(A.data) | self.address(b)) % _ALIGNED
        if key not in self._scans and cut is not None:
            self._scans[key] = _Scan.of(self.machine, A, b, cut.reshape(self.rows + (1,) * len(self.layout.event)))
        return self._scans.get(key)


class _Scan:
    """An affine scan that is planned once, and launched with other addresses."""

    def __init__(self, launched: Launches, machine: Machine, d: Array):
        self.launched, self.machine, self.d = launched, machine, d
        self.runs = [machine.prepared(launch) for launch in launched.launches]

    @classmethod
    def of(cls, machine: Machine, A: Diagonal | Block, b: Array, cut: Array) -> _Scan | None:
        """Return the scan of arrays laid out as these; None if no kernel takes it."""
        d = namespace(b).empty_like(b)
        launched = launches(MONOIDS["affine"], (A, b), d, machine, reset=cut)
        read = {"in0": A.data, "in1": b, "cut": cut}
        if launched is None or any(address(launched.arrays[name]) != address(x) for name, x in read.items()):
            return None
        launched.arrays = {}  # of which these are the first, and need not be kept
        return cls(launched, machine, d)

    def run(self, A: int, b: int, cut: int) -> Array:
        """Return d, of arrays at such addresses."""
        for launch in self.launched.launches:
            p = launch.problem
            p[AT["in0"]], p[AT["in1"]], p[AT["cut"]] = A, b, cut
        if self.launched.cleared is not None:
            self.machine.clear(self.launched.cleared)
        for run in self.runs:
            run()
        return self.d

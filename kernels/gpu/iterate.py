"""What an iteration launches: the test of an iterate, its fronts and one report, and the next states.

The NumPy forms in :mod:`recsolve.kernels.residual` are the definition. Nothing here waits for the device but the
report. What depends on shapes and strides is found once and kept.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import lru_cache
from math import ceil, isfinite, prod
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

_NAMED = constants("iterate/rows")
_THREADS, _EVENT = _NAMED["ROW_THREADS"], _NAMED["EVENT_AXES"]
_REPORTED = _NAMED["REPORTED"]
_SHARED = 1 << 10  # bytes of shared memory of a block, for what its threads tell each other
_NARROW = 8  # numbers of a row that one thread takes
_EACH = 4  # numbers of a wider row that a thread takes, if there are so many
_ALIGNED = 16  # bytes that scans copy at once
_MOST = 1024  # threads of a block that looks for fronts
OF_VALUES, OF_PROPOSAL, OF_PRODUCT, OF_MATRIX = range(4)  # what a step is made of


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
    """A structure filled in but for addresses, as integers; whether numbers of rows are side by side; the blocks."""

    problem: Array
    unit: str
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
    p["parts"] = threads = _threads(prod(parts), axes.components)
    order = slowest_first(shape[:before], views[0][2][:before])
    p["by_time"] = before > 1 and order[-1] == 0
    if lane:
        p["lane"] = lane
    for (field, i, _, _), (time, _, own, _), run, far in zip(views, found, runs[1:], outer_runs[1:], strict=True):
        view = p[field] if i < 0 else p[field][i]
        view["time"], view["row"], view["column"] = time, *own
        view["lane"][: len(run)], view["lane"][_EVENT : _EVENT + len(far)] = run, far
    unit = len(inner) == 1 and (inner[0] == 1 or all(run[0] == 1 for run in runs[1:]))
    blocks = ceil(T * prod(batch) * threads / _THREADS)
    return _Laid(filled.view(np.int64), "true" if unit else "false", blocks)


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


def _threads(width: int, components: int) -> int:
    """Return how many threads take a row: one, or whole warps."""
    if width * components <= _NARROW:
        return 1
    threads = 32
    while threads < _THREADS and threads * _EACH < width:
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
    numbers : array
        On the device: what is known of sizes.
    """

    __slots__ = (
        *("residual", "rows", "numbers", "converged", "leading", "front"),
        *("worst", "blocked", "done", "progress", "leading_times", "converged_times", "settled"),
    )

    def __init__(self, residual: Array, rows: Array, numbers: Array, told: Sequence[int], shape: tuple[int, ...]):
        self.residual, self.rows, self.numbers = residual, rows, numbers
        self.converged, self.leading, self.front = rows[1], rows[2], rows[3]
        bits, failed, self.progress, unled, unconverged, fronts, still_open, self.settled = told
        self.worst, self.done = float(np.int64(bits).view(np.float64)), failed == 0
        self.blocked = not isfinite(self.worst) and fronts > 0 and still_open == 0
        self.leading_times, self.converged_times = shape[0] - unled, shape[0] - unconverged

    @property
    def pins(self) -> Array:
        return self.rows[4]  # type: ignore[no-any-return]

    @property
    def cut(self) -> Array:
        return self.rows[5]  # type: ignore[no-any-return]


_TOLD, _CONVERGED, _LEADING, _FRONT, _PINS, _CUT, _ROWS = range(7)
_WORST, _STATES, _VALUES = range(3)  # of rows; then two of sequences: what is solved, and all


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
        self.code, self.dtype = kernels.rows_code, starts.initial.dtype
        wide = (*axes.shape[: 1 + axes.batch], *axes.shape[axes.event :])
        self.inputs = [aligned(broadcast(x, wide)) for x in inputs]
        self.starts = [xp.ascontiguousarray(x).reshape(x.shape) for x in starts[:2]]
        self.reset = None if starts.reset is None else xp.ascontiguousarray(starts.reset)
        self.order, self.xp = memory_order(like, 1 + axes.batch), xp
        self._laid: dict[Any, _Laid | None] = {}

    def empty(self, shape: tuple[int, ...]) -> Array:
        """Allocate an array whose first axes (T, *batch) are in the memory order of the drive."""
        order, rest = self.order, shape[len(self.order) :]
        if order == tuple(range(len(order))):
            return self.xp.empty(shape, self.dtype)  # type: ignore[no-any-return]
        back = (*(order.index(axis) for axis in range(len(order))), *range(len(order), len(shape)))
        return self.xp.empty((*(shape[axis] for axis in order), *rest), self.dtype).transpose(back)  # type: ignore[no-any-return]

    def results(self, values: Array, entries: Array | None) -> list[Array]:
        """Return the components of F and the entries of its Jacobian."""
        found = self.kernels.parts(values, self.axes.batch)
        return found if entries is None else found + self.kernels.entries(entries, self.axes.batch)

    def places(self, jacobian: bool) -> dict[str, Any]:
        """Return the places of fields in a structure."""
        return _places("iterate/test", "Evaluation", **self.kernels.counts(jacobian))

    def laid(self, jacobian: bool, states: Array, residual: Array, out: Sequence[Array]) -> _Laid | None:
        """Return a structure with the addresses of what is the same in every iteration; None if axes do not merge."""
        key = jacobian, states.strides
        if key not in self._laid:
            self._laid[key] = self._filled(jacobian, states, residual, out)
        return self._laid[key]

    def _filled(self, jacobian: bool, states: Array, residual: Array, out: Sequence[Array]) -> _Laid | None:
        k, at = self.axes.components, self.places(jacobian)
        rows, counts = int(k > 1), self.kernels.counts(jacobian)
        views = [("states", -1, states.strides, rows)]
        views += [
            (name, -1, (0, *x.strides), rows) for name, x in zip(("initial", "restart"), self.starts, strict=True)
        ]
        views += [("residual", -1, residual.strides, rows)]
        views += [("in", k + i, x.strides, 0) for i, x in enumerate(self.inputs)]
        views += [("out", i, x.strides, 0) for i, x in enumerate(out)]
        given = tuple(counts.items()), self.axes, self.dtype.itemsize, 0, tuple(views)
        try:
            laid = _laid("iterate/test", "Evaluation", *given)
        except _Unmergeable:
            return None
        p = laid.problem.copy()
        for place, x in zip(at["in"][k:], self.inputs, strict=True):
            p[place] = address(x)
        p[at["initial"]], p[at["restart"]] = (address(x) for x in self.starts)
        if self.reset is not None:
            p[at["resets"]] = address(self.reset)
        return laid._replace(problem=p)


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
        self.xp, self.layout, self.dtype, self.machine = namespace(starts), layout, dtype, machine
        self.rows = starts.shape
        self.axes = Axes((*starts.shape, *layout.event), starts.ndim - 1, layout.components)
        self.starts = self.xp.ascontiguousarray(starts)
        self.count, self.sequences = prod(self.rows), prod(self.rows[1:])
        self.storage = STORAGE[dtype.name].stored
        self.report = self.xp.empty(_REPORTED, np.int64)
        self.reader: Any = None
        self.initial: Array | None = None
        self._scans: dict[Any, Any] = {}

    # The test ------------------------------------------------------------------------------------------------------

    def bind(self, kernels: ElementwiseCuda, inputs: Sequence[Array], starts: Starts, like: Array) -> Bound:
        """Return a cell that is evaluated and tested in one launch; F takes the memory order of ``like``."""
        return Bound(kernels, inputs, starts, self.axes, like)

    def judge(self, states: Array, values: Array, tolerance: Tolerance, pinned: Array | None = None) -> Judged:
        """Return the residual F - h, and what is told of it: two launches and a report."""
        with on(self.starts, self.machine) as machine:
            told = self._test(machine, states, values, tolerance)
            return self._judged(machine, *told, pinned)

    def evaluate(
        self, bound: Bound, states: Array, tolerance: Tolerance, pinned: Array | None, jacobian: bool
    ) -> tuple[Array, Jacobian | None, Judged] | None:
        """Return F, its Jacobian if that is asked for, and what is told; None where axes cannot be merged."""
        with on(self.starts, self.machine) as machine:
            k, axes = self.layout.components, self.axes
            values, residual = bound.empty(axes.shape), bound.empty(axes.shape)
            entries = bound.empty(axes.entries) if jacobian else None
            out = bound.results(values, entries)
            laid = bound.laid(jacobian, states, residual, out)
            if laid is None:
                return None
            (problem, unit, blocks), at = laid, bound.places(jacobian)
            p, rows, numbers = problem.copy(), *self._told_of_rows()
            self._fill(p, at, tolerance, rows, numbers)
            p[at["states"]], p[at["residual"]] = address(states), address(residual)
            for place, x in zip(at["out"], out, strict=True):
                p[place] = address(x)
            job = "partials" if jacobian else "values"
            kernel = f"recsolve::evaluate_rows<recsolve::{job}, {k}, {self.storage}, {unit}>"
            machine.launch(Launch(bound.code, kernel, OPTIONS, blocks, _THREADS, _SHARED, p))
            judged = self._judged(machine, residual, rows, numbers, pinned)
            if entries is None:
                return values, None, judged
            return values, (Block if k > 1 else Diagonal)(entries, self.layout), judged

    def _test(self, machine: Machine, states: Array, values: Array, tolerance: Tolerance) -> tuple[Array, Array, Array]:
        residual = self.xp.empty_like(values)
        views = {"states": states, "values": values, "residual": residual}
        lane = (self.layout.units or 1) if tolerance.lanes is not None else 0
        (problem, unit, blocks), given = self._arrays("iterate/test", "Test", views, lane)
        p, at = problem.copy(), _places("iterate/test", "Test")
        rows, numbers = self._told_of_rows()
        self._fill(p, at, tolerance, rows, numbers)
        for name, x in given.items():
            p[at[name]] = address(x)
        kernel = f"recsolve::test_rows<{self.storage}, {unit}>"
        machine.launch(Launch(rows_text("test"), kernel, OPTIONS, blocks, _THREADS, _SHARED, p))
        return given["residual"], rows, numbers

    def _told_of_rows(self) -> tuple[Array, Array]:
        """Return memory for what is told of rows."""
        return self.xp.empty((_ROWS, *self.rows), np.bool_), self.xp.empty(
            3 * self.count + 2 * self.sequences, self.dtype
        )

    def _fill(self, p: Array, at: dict[str, int], tolerance: Tolerance, rows: Array, numbers: Array) -> None:
        """Put a tolerance into a structure, and where to tell of rows."""
        first, size = address(rows), self.count * self.dtype.itemsize
        p[at["told"]], p[at["converged"]] = first + _TOLD * self.count, first + _CONVERGED * self.count
        where = address(numbers)
        p[at["worst"]], p[at["largest_states"]], p[at["largest_values"]] = where, where + size, where + 2 * size
        p[at["report"]] = address(self.report)
        p[at["atol"]], p[at["rtol"]] = _as_integers(tolerance.atol, tolerance.rtol)

    def _arrays(self, header: str, name: str, views: dict[str, Array], lane: int = 0) -> tuple[_Laid, dict[str, Array]]:
        """Return a structure for trajectories, and these; in C's order where axes cannot be merged otherwise."""
        try:
            return self._lay(header, name, views, lane), views
        except _Unmergeable:
            views = {name: self.xp.ascontiguousarray(x) for name, x in views.items()}
            return self._lay(header, name, views, lane), views

    def _lay(self, header: str, name: str, views: dict[str, Array], lane: int) -> _Laid:
        k = self.layout.components > 1
        given = tuple((field, -1, x.strides, 2 * k if field == "matrix" else k) for field, x in views.items())
        return _laid(header, name, (), self.axes, self.dtype.itemsize, lane, given)

    # Fronts --------------------------------------------------------------------------------------------------------

    def front(self, good: Array) -> tuple[Array, Array]:
        """Return the leading good rows of every segment, and the row at which each stops."""
        with on(self.starts, self.machine) as machine:
            found = self.xp.empty((2, *self.rows), np.bool_)
            good = self.xp.ascontiguousarray(good)
            p, at = np.zeros(len(_places("iterate/fronts", "Fronts")), np.int64), _places("iterate/fronts", "Fronts")
            first = address(found)
            p[at["told"]], p[at["leading"]], p[at["front"]] = address(good), first, first + self.count
            self._fronts(machine, p, at)
            return found[0], found[1]

    def _judged(self, machine: Machine, residual: Array, rows: Array, numbers: Array, pinned: Array | None) -> Judged:
        """Launch the search for fronts, and read the report."""
        at = _places("iterate/fronts", "Fronts")
        p, first, where = np.zeros(len(at), np.int64), address(rows), address(numbers)
        count, size = self.count, self.count * self.dtype.itemsize
        for name, row in _WRITTEN:
            p[at[name]] = first + row * count
        for i, name in enumerate(("worst", "largest_states", "largest_values", "solved")):
            p[at[name]] = where + i * size
        p[at["largest"]] = where + 3 * size + self.sequences * self.dtype.itemsize
        p[at["report"]] = address(self.report)
        if pinned is not None:
            pinned = self.xp.ascontiguousarray(pinned)
            p[at["pinned"]] = address(pinned)
        self._fronts(machine, p, at)
        if self.reader is None:
            self.reader = machine.reader(self.report)
        self.reader.send()
        self.reader.mark()
        return Judged(residual, rows, numbers, self.reader.read().tolist(), self.rows)

    def _fronts(self, machine: Machine, p: Array, at: dict[str, int]) -> None:
        p[at["steps"]], p[at["sequences"]], p[at["starts"]] = self.rows[0], self.sequences, address(self.starts)
        threads = 32
        while threads < _MOST and 2 * threads < self.rows[0]:
            threads *= 2
        kernel = f"recsolve::fronts_of_rows<{self.storage}>"
        launch = Launch(rows_text("fronts"), kernel, OPTIONS, self.sequences, threads, _SHARED, p)
        machine.launch(launch)

    # The next states -----------------------------------------------------------------------------------------------

    def largest(self, x: Array) -> Array:
        """Return the largest finite |x| of states (*batch, *event), for each sequence."""
        one = Iterations(self.xp.ones((1, *self.rows[1:]), np.bool_), self.layout, self.dtype, self.machine)
        one.report = self.report
        x = self.xp.ascontiguousarray(x).reshape(1, *x.shape)
        with on(self.starts, self.machine) as machine:
            _, _, numbers = one._test(machine, x, x, Tolerance(0.0, 0.0))
        return numbers[self.sequences : 2 * self.sequences]  # type: ignore[no-any-return]

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
            which A[t] is multiplied with at the time before; and A.
        reach : float
            In units of the largest number known.
        known : array, shape (1, *batch, 1...), or None
            The largest number known of each sequence; by default it is found in h[0], h and F.
        initial : array, shape (*batch, *event)
            h[0].
        pin : bool
            Whether leading rows keep their states and the rows after them take F.
        """
        with on(self.starts, self.machine) as machine:
            what, given, matrix = made
            out = self.xp.empty_like(values)
            views = {"states": states, "values": values, "given": given, "matrix": matrix, "out": out}
            there = {name: x for name, x in views.items() if x is not None}
            (problem, unit, blocks), there = self._arrays("iterate/guard", "Guard", there)
            p, at = problem.copy(), _places("iterate/guard", "Guard")
            for name, x in there.items():
                p[at[name]] = address(x)
            rows, size = address(judged.rows), self.dtype.itemsize
            if pin:
                p[at["leading"]], p[at["front"]] = rows + _LEADING * self.count, rows + _FRONT * self.count
            p[at["cut"]] = rows + _CUT * self.count if pin else address(self.starts)
            p[at["solved"]] = address(judged.numbers) + 3 * self.count * size
            p[at["first"]] = p[at["solved"]] + self.sequences * size
            if known is not None:
                known = self.xp.ascontiguousarray(known)
                p[at["known"]] = address(known)
            else:
                if self.initial is None:
                    self.initial = self.largest(initial)
                p[at["initial"]] = address(self.initial)
            reached = self.xp.empty((1, *self.rows[1:], *(1,) * len(self.layout.event)), self.dtype)
            p[at["reached"]], (p[at["reach"]],) = address(reached), _as_integers(reach)
            kernel = f"recsolve::guard_rows<{what}, {self.layout.components}, {self.storage}, {unit}>"
            machine.launch(Launch(rows_text("guard"), kernel, OPTIONS, blocks, _THREADS, _SHARED, p))
            return there["out"], reached

    def scan(self, A: Diagonal | Block, b: Array, cut: Array) -> Array | None:
        """Return d[t] = A[t] d[t-1] + b[t], in memory that the next scan writes again; None if no kernel takes it."""
        with on(self.starts, self.machine) as machine:
            key = type(A), A.data.strides, b.strides, (address(A.data) | address(b)) % _ALIGNED
            if key not in self._scans:
                self._scans[key] = _Scan.of(machine, A, b, cut.reshape(self.rows + (1,) * len(self.layout.event)))
            scan = self._scans[key]
            return None if scan is None else scan.run(A, b, cut)


_WRITTEN = (("told", _TOLD), ("leading", _LEADING), ("front", _FRONT), ("pins", _PINS), ("cut", _CUT))


def _as_integers(*numbers: float) -> list[int]:
    """Return the bits of doubles."""
    return np.array(numbers, np.float64).view(np.int64).tolist()  # type: ignore[no-any-return]


class _Scan:
    """An affine scan that is planned once, and launched with other addresses."""

    def __init__(self, launched: Launches, d: Array):
        self.launched, self.d = launched, d

    @classmethod
    def of(cls, machine: Machine, A: Diagonal | Block, b: Array, cut: Array) -> _Scan | None:
        """Return the scan of arrays laid out as these; None if no kernel takes it."""
        d = namespace(b).empty_like(b)
        launched = launches(MONOIDS["affine"], (A, b), d, machine, reset=cut)
        read = {"in0": A.data, "in1": b, "cut": cut}
        if launched is None or any(address(launched.arrays[name]) != address(x) for name, x in read.items()):
            return None
        launched.arrays = {}  # of which these are the first, and need not be kept
        return cls(launched, d)

    def run(self, A: Diagonal | Block, b: Array, cut: Array) -> Array:
        """Return d."""
        for launch in self.launched.launches:
            p = launch.problem
            p[AT["in0"]], p[AT["in1"]], p[AT["cut"]] = address(A.data), address(b), address(cut)
        self.launched()
        return self.d

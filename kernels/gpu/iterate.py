"""What an iteration launches: the test of an iterate, its fronts and one report, and the next states.

The NumPy forms in :mod:`recsolve.kernels.residual` are the definition. Nothing here waits for the device but the
report. What depends on shapes, strides and the device is found once and kept: an iteration fills in addresses.
"""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import AbstractContextManager, nullcontext
from math import prod
from operator import attrgetter
from typing import Any

import numpy as np

from recsolve.base.arrays import Array, address, namespace
from recsolve.base.layout import Layout
from recsolve.base.tolerance import Tolerance
from recsolve.jacobians import Block, Diagonal, Jacobian
from recsolve.kernels.codegen.cuda_elementwise import rows_text
from recsolve.kernels.codegen.cuda_structures import constants
from recsolve.kernels.gpu.cell.bound_cell import Bound
from recsolve.kernels.gpu.cell.stage_launches import ElementwiseCuda
from recsolve.kernels.gpu.device import Machine, on
from recsolve.kernels.gpu.judged import CONVERGED, CUT, FRONT, LEADING, PINS, ROWS, TOLD, Judged
from recsolve.kernels.gpu.repeated_scan import RepeatedScan
from recsolve.kernels.gpu.rows import ALIGNED, Axes, Laid, Step, Unmergeable, lay
from recsolve.kernels.gpu.scan.variants import STORAGE
from recsolve.kernels.gpu.views import places
from recsolve.kernels.starts import Starts

_REPORTED = constants("iterate/rows")["REPORTED"]
OF_VALUES, OF_PROPOSAL, OF_PRODUCT, OF_DIAGONAL, OF_BLOCK = (
    constants("iterate/guard")[name] for name in ("OF_VALUES", "OF_PROPOSAL", "OF_PRODUCT", "OF_DIAGONAL", "OF_BLOCK")
)
_MOST = 1024  # threads of a block that looks for fronts
_WRITTEN = {"told": TOLD, "leading": LEADING, "front": FRONT, "pins": PINS, "cut": CUT}
_HERE: AbstractContextManager[None] = nullcontext()


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
        self.device: Any = None if machine is not None else starts.device
        with on(starts, machine) as self.machine:
            self.starts = self.xp.ascontiguousarray(starts)
            self.report = self.xp.empty(_REPORTED, np.int64)
        self.address: Any = address if self.xp is np else attrgetter("data.ptr")
        self.axes = Axes((*starts.shape, *layout.event), starts.ndim - 1, layout.components)
        self.count, self.sequences, self.storage = prod(self.rows), prod(self.rows[1:]), STORAGE[dtype.name].stored
        self.reader: Any = None
        self.initial: Array | None = None
        self.latest: tuple[Jacobian | None, Array | None, int] = (None, None, 0)  # J, r and where the cut of rows is
        self.follows = False  # whether the latest J and r were scanned
        self.ahead: Array | None = None  # the next scan, if it is done already
        self._steps: dict[Any, Step] = {}
        self._scans: dict[Any, RepeatedScan | None] = {}

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

    def judge_unread(self, states: Array, values: Array, tolerance: Tolerance) -> tuple[Judged, Array]:
        """Return the same before the report is read, and the report, which the next test writes to; nothing waits."""
        with self._here():
            residual, rows, numbers = self._test(states, values, tolerance)
            self._find_fronts(rows, numbers, None)
            return Judged(residual, rows, numbers), self.report

    def evaluate(
        self, bound: Bound, states: Array, tolerance: Tolerance, pinned: Array | None, jacobian: bool
    ) -> tuple[Array, Jacobian | None, Judged] | None:
        """Return F, its Jacobian if that is asked for, and what is told; None where axes cannot be merged."""
        with self._here():
            found = self._at_once(bound, states, tolerance, jacobian)
            if found is None:
                return None
            values, residual, entries, rows, numbers = found
            J = None
            if entries is not None:
                J = Diagonal(entries, self.layout) if self.layout.components == 1 else Block(entries, self.layout)
            return values, J, self._judged(residual, rows, numbers, pinned, J)

    def tested(self, bound: Bound, states: Array, tolerance: Tolerance) -> tuple[Array, Array, Array] | None:
        """Return F, which rows meet the tolerance, and max |r| of each, unread; None as of :meth:`evaluate`."""
        with self._here():
            found = self._at_once(bound, states, tolerance, False)
            return None if found is None else (found[0], found[3][CONVERGED], found[4][: self.count])

    def _at_once(
        self, bound: Bound, states: Array, tolerance: Tolerance, jacobian: bool
    ) -> tuple[Array, Array, Array | None, Array, Array] | None:
        """Launch an evaluation with its test; return F, r, the entries of J, and what is told of rows."""
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
        return values, residual, entries, rows, numbers

    def _test(self, states: Array, values: Array, tolerance: Tolerance) -> tuple[Array, Array, Array]:
        residual = self._like(values)
        lane = (self.layout.units or 1) if tolerance.lanes is not None else 0
        views = {"states": states, "values": values, "residual": residual}
        step, views = self._laid_out("test", "Test", f"recsolve::test_rows<{self.storage}, {{}}>", views, lane)
        rows, numbers = self._told(step, tolerance)
        self._launch(step, views)
        return views["residual"], rows, numbers

    def _told(self, step: Step, tolerance: Tolerance) -> tuple[Array, Array]:
        """Return memory for what is told of rows, and put it into a launch."""
        rows = self.xp.empty((ROWS, *self.rows), np.bool_)
        numbers = self.xp.empty(3 * self.count + 2 * self.sequences, self.dtype)
        first, where, size = self.address(rows), self.address(numbers), self.count * self.dtype.itemsize
        if "unit" in step.at:
            step.doubles(("atol", "rtol", "unit"), tolerance.atol, tolerance.rtol, tolerance.unit)
        else:
            step.doubles(("atol", "rtol"), tolerance.atol, tolerance.rtol)
        step.fill(
            told=first + TOLD * self.count,
            converged=first + CONVERGED * self.count,
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
    ) -> tuple[Step, dict[str, Array]]:
        """Return a launch over trajectories, and these: in C's order where axes cannot be merged otherwise.

        ``own`` is how many axes of components a matrix has.
        """
        key = kernel, lane, *(x.strides for x in views.values())
        if key not in self._steps:
            k = int(self.layout.components > 1)
            given = tuple((field, -1, x.strides, own if field == "matrix" else k) for field, x in views.items())
            try:
                laid = lay(f"iterate/{header}", name, (), self.axes, self.dtype.itemsize, lane, given)
            except Unmergeable:
                in_order = {field: self.xp.ascontiguousarray(x) for field, x in views.items()}
                return self._laid_out(header, name, kernel, in_order, lane, own)
            at = places(f"iterate/{header}", name)
            self._steps[key] = Step(self.machine, laid, at, rows_text(header), kernel)
        return self._steps[key], views

    def _launch(self, step: Step, views: dict[str, Array]) -> None:
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
        self._find_fronts(rows, numbers, pinned)
        if self.reader is None:
            self.reader = self.machine.reader(self.report)
        self.reader.send()
        self.reader.mark()
        cut = self.address(rows) + CUT * self.count
        self.latest, self.ahead = (J, residual, cut), None
        if J is not None and self.follows:
            self.ahead = self._scanned(J, residual, cut)
        judged = Judged(residual, rows, numbers)
        return judged.read(self.reader.read().tolist())

    def _find_fronts(self, rows: Array, numbers: Array, pinned: Array | None) -> None:
        """Launch the search for fronts, which ends the report."""
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

    def _fronts(self, use: str) -> Step:
        """Return a launch of the search for fronts."""
        if use not in self._steps:
            at, threads = places("iterate/fronts", "Fronts"), 32
            while threads < _MOST and 2 * threads < self.rows[0]:
                threads *= 2
            laid = Laid(np.zeros(len(at), np.int64), 0, self.sequences)
            kernel = f"recsolve::fronts_of_rows<{self.storage}>"
            step = Step(self.machine, laid, at, rows_text("fronts"), kernel, threads)
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
                leading=rows + LEADING * count if pin else 0,
                front=rows + FRONT * count if pin else 0,
                cut=rows + CUT * count if pin else self.address(self.starts),
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
        return numbers[self.sequences : 2 * self.sequences]

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
            return self._scanned(A, b, self.address(cut), cut)

    def _scanned(self, A: Diagonal | Block, b: Array, where: int, cut: Array | None = None) -> Array | None:
        """Return a scan whose cut is at an address; None if no kernel takes it, or without a cut if none is planned."""
        of = self.address(A.data), self.address(b)
        key = type(A), A.data.strides, b.strides, (of[0] | of[1]) % ALIGNED
        if key not in self._scans and cut is not None:
            over_event = cut.reshape(self.rows + (1,) * len(self.layout.event))
            self._scans[key] = RepeatedScan.of(self.machine, A, b, over_event)
        scan = self._scans.get(key)
        return None if scan is None else scan.run(*of, where)

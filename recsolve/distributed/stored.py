"""Solves and scans of arrays that lie on disk, window by window, which go on after they were ended."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

from recsolve.base.arrays import Array
from recsolve.distributed.journal import Journal
from recsolve.distributed.stored_arrays import Target
from recsolve.distributed.stored_run import StoredRun
from recsolve.distributed.stored_scan import StoredScan
from recsolve.distributed.stored_solve import StoredSolve
from recsolve.kernels.monoids.monoid import Monoid
from recsolve.solve import Fallback
from recsolve.solvers.method import Method
from recsolve.solvers.settings import whole_number
from recsolve.windows import Cut, InWindows, SolvedWindow


class StoredSolution(InWindows):
    """A trajectory that was solved from disk to disk; :func:`solve_stored` returns it.

    Attributes
    ----------
    output : array, shape (T, *batch, ...)
        What the recurrence shows of its states at all t: the .npy file mapped into memory, read-only, or the array that
        was given as ``out``.
    ends : array, shape (windows, *batch, *event)
        The last state of every window, on the host.
    final : array, shape (*batch, *event)
        The last one (``initial`` when T = 0).
    success : bool
        Whether every window converged.
    status, message : Status, str
        Of the first window that failed, which the message names with its steps; as of
        :class:`recsolve.WindowsSolution`, and so is what follows.
    windows : tuple of SolvedWindow
        Of every window its ``status``, ``message``, ``nit``, ``residual``, ``tolerance``, ``converged_prefix`` and
        ``stats``.
    nit, converged_prefix : int
    residuals : array, shape (windows,)
    stats : dict
        The sums of all windows, those that an earlier run solved included.
    solver : Method
        What ``auto`` took for all windows, where that was asked for.
    cut : Cut
        Where the windows begin and end: ``len(found.cut)``, ``found.cut.steps(index)``.

    Notes
    -----
    States between ends are not kept, and so is no ``trusted``. Of any window it is that of ``cell.recurrence(x[steps],
    initial=found.ends[index - 1])`` once more solved, with ``steps = found.cut.steps(index)``.

    Examples
    --------
    >>> import os, tempfile, numpy as np, recsolve as rs
    >>> place = os.path.join(tempfile.mkdtemp(), "{}.npy").format
    >>> cell = rs.cells.GRU.random(input_size=3, hidden_size=4, rng=0)
    >>> np.save(place("x"), np.ones((100, 3)))
    >>> found = rs.distributed.solve_stored(cell, place("x"), out=place("h"), every=32)
    >>> found.success, found.ends.shape, type(found.output).__name__, found.output.shape
    (True, (4, 4), 'memmap', (100, 4))
    >>> steps = found.cut.steps(2)
    >>> rs.solve(cell.recurrence(np.ones((100, 3))[steps], initial=found.ends[1])).trusted
    True
    """

    def __init__(
        self, target: Target, cut: Cut, windows: tuple[SolvedWindow, ...], ends: Array, initial: Array, solver: Method
    ):
        self.cut, self.windows, self.ends, self.solver = cut, windows, ends, solver
        self._target, self._initial = target, initial

    @property
    def output(self) -> Any:
        return self._target.array()

    @property
    def final(self) -> Array:
        return self.ends[-1] if len(self.ends) else self._initial

    def _facts(self) -> dict[str, str]:
        return {**super()._facts(), "output": f"{self._target}, {self._target.shape} {self._target.dtype}"}


def solve_stored(
    cell: Any,
    x: Any,
    *,
    out: Any,
    every: int = 1 << 22,
    initial: Any = None,
    reset: Any = None,
    method: str | Method = "auto",
    tol: float | None = None,
    fallback: Fallback = "sequential",
    readout: Callable[..., Any] | None = None,
    progress: bool = True,
    resume: bool = True,
    journal: str | os.PathLike[str] | None = None,
) -> StoredSolution:
    """Solve h[t] = f(h[t-1], u[t]) for inputs on disk that are larger than memory; the output goes to disk too.

    One window of ``every`` steps after the other is read, solved from the last state of the one before as
    ``rs.solve(..., every=every)`` does it, written, and recorded in a journal beside ``out``. In memory are one window
    of the input, of the states and of the output, the input of the next one, which is read meanwhile, and T / every
    states. Called again with the same arguments after it was ended, by whatever, it goes on with the first window that
    is not recorded, and the output is the same, bit for bit, as of a run that was not ended. Gradients do not go
    back from it: ``rs.solve(..., every=)`` has them.

    Parameters
    ----------
    cell : WeightedCell, RaggedCell or callable
        Of a cell ``x`` is the input, (T, *batch, input_size); one on a GPU solves its windows there. A callable
        ``make(x, initial)`` returns the recurrence of a window: ``Recurrence.from_function(f, inputs=x,
        initial=initial)``, say. It gets rows of x and the state before them, which is ``initial`` as you gave it, and
        then an array, or of named states a dict of arrays. With ``reset`` it is called as ``make(x, initial, reset)``.
    x : path, or array on disk, shape (T, ...)
        A .npy file, or what has a shape, a dtype and slices along its first axis, time: np.memmap, h5py.Dataset,
        zarr.Array, xarray.DataArray. In the dtype of the cell.
    out : path, or array on disk, shape (T, *batch, ...)
        The name of a .npy file, which is made at once, so that a disk without room is found out before. Or what
        is there, in the shape and dtype of the output, and takes slices: np.memmap, h5py.Dataset, zarr.Array. What
        happens to an HDF5 file when its process is killed is up to HDF5; of zarr, windows should be whole chunks.
    every : int
        L, the steps of a window.
    initial : array, dict or number, optional
        h[0], (*batch, *event), as the cell takes it; default zeros. A callable is given it as it is.
    reset : path, or array on disk or in memory, of bool or of integers 0 and 1, optional
        (T,) or (T, *batch): steps that start from ``initial`` again.
    method, tol, fallback
        As in :func:`recsolve.solve`, of every window. What ``auto`` takes for the first one it takes for all, so that
        a run that goes on takes the same.
    readout : callable, optional
        Of a cell: ``readout(s, u, p)``, what the output is, as in ``cell.recurrence``.
    progress : bool
        Show a bar where standard error is a terminal; elsewhere a line a minute is logged (``logging``, level INFO).
    resume : bool
        Go on with what the journal has. False: begin again, and write over ``out``.
    journal : path, optional
        Default: the file of ``out`` with ``.journal`` after its name; wanted where ``out`` is an array that does not
        tell its file. It tells a run from others by all arguments, the weights, f at some steps, and numbers of x
        at 16 places; so do not change x between.

    Returns
    -------
    StoredSolution

    Raises
    ------
    TypeError, ValueError
        For arguments of a wrong kind, dtype, shape or value; for a recurrence on a graph or of a history; and for a
        journal of another run, which names what differs.
    FileExistsError
        For an ``out`` that is there without a journal.
    OSError
        For a file that cannot be read, and a full disk. What has been recorded stays.
    ConvergenceError
        With ``fallback="raise"``: of the first window that does not converge, which a note names.

    Notes
    -----
    Parts of a run are the same, bit for bit, on one machine with one version of the libraries, and where windows are
    either solved by compiled loops in all processes or in none: ``RECSOLVE_CALIBRATION=off`` sees to that for windows
    that are so small that loops are taken only if they are there already.

    Examples
    --------
    >>> import os, tempfile, numpy as np, recsolve as rs
    >>> place = os.path.join(tempfile.mkdtemp(), "{}.npy").format
    >>> np.save(place("x"), np.ones((100, 1)))
    >>> def make(x, initial):
    ...     return rs.Recurrence.from_function(
    ...         lambda h, u: 0.5 * np.sin(h) + u, inputs=x, initial=initial, structure="diagonal")
    >>> found = rs.distributed.solve_stored(make, place("x"), out=place("h"), every=40, initial=np.zeros(1))
    >>> found.success, len(found.windows), found.output.shape
    (True, 3, (100, 1))
    """
    whole_number("every", every, 1)
    tol = None if tol is None else float(tol)
    solving = StoredSolve.of(cell, x, initial, reset, method, tol, fallback, readout, int(every))
    target = Target(_file(out), solving.shape, solving.dtype)
    target.check([solving.x, solving.reset])
    run = StoredRun(
        solving.cut, range(len(solving.cut)), solving.read, solving.work, target, _journal(out, journal), solving.facts,
        (solving.whole.shape[1:], solving.whole.dtype),
    )  # fmt: skip
    records = run.recorded(resume)
    solving.settle(records)
    records = run.go(records, progress=progress)
    known = tuple(map(solving.window, records))
    ends = np.stack([run.state(record) for record in records])[: len(records) if solving.cut.length else 0]
    return StoredSolution(target, solving.cut, known, ends, solving.initial, solving.solver)


def scan_stored(
    monoid: str | Monoid | type[Monoid],
    elements: tuple[Any, ...],
    *,
    out: Any,
    every: int = 1 << 22,
    initial: Any = None,
    reset: Any = None,
    reverse: bool = False,
    progress: bool = True,
    resume: bool = True,
    journal: str | os.PathLike[str] | None = None,
) -> Any:
    """Apply the maps of a monoid one after the other along time, of elements on disk, to disk: y[t] = e[t](y[t-1]).

    It is :func:`recsolve.scan` of one window of ``every`` steps after the other, bit for bit that of the whole for
    monoids that do not round. Memory, files and what happens when it is ended are as of :func:`solve_stored`.

    Parameters
    ----------
    monoid, initial, reverse
        As in :func:`recsolve.scan`. With ``reverse`` the last window comes first.
    elements : tuple
        Each a path or an array on disk as ``x`` of :func:`solve_stored`, with time as its first axis; or what is the
        same at all times, a number or an array with an axis of time of length 1.
    out : path, or array on disk, shape (T, ...)
    every : int
    reset : path, or array on disk or in memory, of bool or of integers 0 and 1, optional
        As in :func:`recsolve.scan`, time first.
    progress, resume, journal
        As in :func:`solve_stored`.

    Returns
    -------
    array, shape (T, ...)
        y: the .npy file mapped into memory, read-only, or the array ``out``.

    Raises
    ------
    TypeError, ValueError
        For arguments of a wrong kind, dtype, shape or value; and for a journal of another run, which names what
        differs.
    FileExistsError
        For an ``out`` that is there without a journal.
    OSError
        For a file that cannot be read, and a full disk. What has been recorded stays.

    Notes
    -----
    Blelloch, "Prefix sums and their applications" (1990).

    Examples
    --------
    >>> import os, tempfile, numpy as np, recsolve as rs
    >>> place = os.path.join(tempfile.mkdtemp(), "{}.npy").format
    >>> np.save(place("b"), np.ones(6))
    >>> y = rs.distributed.scan_stored("affine", (0.5, place("b")), out=place("y"), every=4)
    >>> type(y).__name__, y.tolist()
    ('memmap', [1.0, 1.5, 1.75, 1.875, 1.9375, 1.96875])
    """
    whole_number("every", every, 1)
    scanning = StoredScan.of(monoid, elements, initial, reset, reverse, int(every))
    target = Target(_file(out), scanning.shape, scanning.dtype)
    target.check([*scanning.elements, scanning.reset])
    order = range(len(scanning.cut))[:: -1 if reverse else 1]
    last = scanning.shape[1:], scanning.carried
    run = StoredRun(
        scanning.cut, order, scanning.read, scanning.work, target, _journal(out, journal), scanning.facts, last
    )
    run.go(run.recorded(resume), progress=progress)
    return target.array()


def _file(out: Any) -> Any:
    """Return the place of a file wherever the process goes later, and another ``out`` as it is."""
    return Path(out).absolute() if isinstance(out, (str, os.PathLike)) else out


def _journal(out: Any, path: Any) -> Journal:
    """Return the journal of a run, beside what it writes unless it is placed elsewhere."""
    if path is None:
        owner = getattr(out, "file", out)  # of h5py
        file = out if isinstance(out, (str, os.PathLike)) else getattr(owner, "filename", None)
        if file is None:
            raise ValueError(f"journal is None and out is {type(out).__name__}, which tells no file; wanted a path")
        inside = str(getattr(out, "name", "")) if owner is not out else ""
        path = f"{os.fspath(file)}{inside.replace('/', '.')}.journal"
    return Journal(Path(path).absolute())

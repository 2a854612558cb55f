"""Several solvers on one recurrence, from Python: :func:`recsolve.compare`."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any, ClassVar

import numpy as np

from recsolve.base.links import unrecorded
from recsolve.base.report import table_html
from recsolve.base.tolerance import Tolerance, tolerance_for
from recsolve.kernels.compile_clock import Stopwatch
from recsolve.plot.curves import Curve, floor_of, height_of
from recsolve.plot.drawn import Drawn
from recsolve.recurrence.base import Recurrence, check_recurrence
from recsolve.solvers import Method
from recsolve.solvers.settings import whole_number
from recsolve.studies.compare.race import Entry, race
from recsolve.studies.draw import tables
from recsolve.studies.groups import select

# One or two of each group, which are quick, and whose iterations do not hang on measured times as those of auto do.
DEFAULT_SOLVERS = (
    "sequential", "newton", "quasi_newton", "damped_newton", "jacobi", "gauss_seidel", "windowed"
)  # fmt: skip


@dataclass(repr=False)
class Comparison(Drawn):
    """What a race of several solvers on one recurrence found; ``print`` shows it as a table.

    Attributes
    ----------
    title : str
        What they solved.
    dtype : str
    tolerance : Tolerance
        The test of every entry.
    entries : list of Entry
        Of each solver, in the order of the race, ``solver``, ``group``, ``status``, ``message``, ``iterations``,
        ``residual``, ``error`` (the distance to the sequential loop), ``seconds`` (median of runs without compilation),
        ``relative`` (to the loop), ``trusted``, ``condition``, and the curves ``residuals`` and ``errors``, a number
        per iterate.
    complete : bool
        Whether all solvers that were asked for have run.
    compile_seconds : float
        What compilers took, which is in no time of an entry.

    Examples
    --------
    >>> import numpy as np, recsolve as rs
    >>> rec = rs.cells.GRU.random(input_size=3, hidden_size=4, rng=0).recurrence(np.ones((60, 3)))
    >>> found = rs.compare(rec, methods=["sequential", "newton"])
    >>> [(entry.solver, entry.status) for entry in found.entries], found.records()[1]["iterations"]
    ([('sequential', 'converged'), ('newton', 'converged')], 5)
    >>> found.plot().get_xlabel()
    'iteration'
    """

    title: str
    dtype: str
    tolerance: Tolerance
    entries: list[Entry]
    complete: bool = False
    compile_seconds: float = 0.0

    _first: ClassVar[str] = "convergence"

    def records(self) -> list[dict[str, Any]]:
        """Return one flat mapping per solver, as tables and data frames take them: entries without their curves."""
        return [entry.row() for entry in self.entries]

    def _curves(self, reference: Any) -> list[Curve]:
        if reference is not None:
            raise ValueError("reference is given; wanted None, for a Comparison knows its errors")
        floor, height = floor_of(self.dtype), height_of(self.tolerance)
        return [
            Curve(
                entry.solver, entry.solver.partition("(")[0], entry.status, entry.iterations, len(entry.residuals) - 1,
                np.array(entry.residuals), np.array(entry.errors), height, floor,
            )
            for entry in self.entries
            if entry.solver != "sequential" and entry.residuals
        ]  # fmt: skip

    @property
    def headline(self) -> str:
        """What was compared, and whether all of it is there."""
        partial = "" if self.complete else f" (partial: {len(self.entries)} have run)"
        return f"{self.title}, tolerance {self.tolerance.atol:.1e}{partial}"

    def __repr__(self) -> str:
        return tables.comparison_text(self)

    def _repr_html_(self) -> str:
        rows = [(entry.solver, *tables.cells_of(entry)) for entry in self.entries]
        said = [f"{', '.join(names)}: {message}" for message, names in tables.messages(self.entries).items()]
        return table_html(self.headline, tables.COLUMNS, rows, said)


def entries_into(
    found: Comparison,
    recurrence: Recurrence,
    solvers: Sequence[str | Method],
    *,
    tol: float | None,
    maxiter: int | None,
    tick: Callable[[str, int], None] | None = None,
) -> Iterator[Entry]:
    """Yield the entry of one solver after the other, which a comparison gets; arguments as those of ``race``."""
    watch = Stopwatch()
    for entry in race(recurrence, solvers, tol=tol, maxiter=maxiter, tick=tick):
        found.entries.append(entry)
        found.compile_seconds = watch.compile_seconds
        found.complete = len(found.entries) == len(solvers)
        yield entry


def compare(
    recurrence: Recurrence,
    methods: Iterable[str | Method] | str | Method | None = None,
    *,
    tol: float | None = None,
    maxiter: int | None = None,
) -> Comparison:
    """Race solvers on a recurrence: iterations, residual, error, time over that of the loop, and trust of each.

    It is what the command ``recsolve compare`` does. Each solve is run several times to time it, so it takes a
    multiple of the time of all solves. An exception of a solver becomes its entry.

    Parameters
    ----------
    recurrence : Recurrence
    methods : str, Method, or iterable of these, optional
        Names of solvers or of their groups ("newton-type", say), "all", and solver objects, each once. Default: one or
        two of each group.
    tol, maxiter
        As in :func:`recsolve.solve`.

    Returns
    -------
    Comparison
        A table where it is printed or shown in a notebook; ``plot()`` draws it, ``records()`` are its numbers.

    Raises
    ------
    TypeError
        For what is no recurrence, and methods that are neither names nor solvers.
    ValueError
        For unknown methods or none, and settings that no solve takes.

    Examples
    --------
    >>> import numpy as np, recsolve as rs
    >>> rec = rs.cells.GRU.random(input_size=3, hidden_size=4, rng=0).recurrence(np.ones((60, 3)))
    >>> found = rs.compare(rec, ["newton", "jacobi"])
    >>> [entry.solver for entry in found.entries if entry.trusted]
    ['newton', 'jacobi']
    """
    check_recurrence(recurrence)
    given = DEFAULT_SOLVERS if methods is None else [methods] if isinstance(methods, (str, Method)) else methods
    if not isinstance(given, Iterable):
        raise TypeError(f"methods is {type(given).__name__}; wanted names of solvers or groups, or solver objects")
    solvers = select(given, "methods")
    whole_number("maxiter", maxiter, 0, optional=True)
    found = Comparison(repr(recurrence), str(recurrence.dtype), tolerance_for(recurrence, tol), [])
    with unrecorded(recurrence.kind):  # gradients do not go back through a race
        for _ in entries_into(found, recurrence, solvers, tol=tol, maxiter=maxiter):
            pass
    return found

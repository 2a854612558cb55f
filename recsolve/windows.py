"""Windows of time that are solved one after the other, each from the last state of the one before it."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, Self

import numpy as np

from recsolve.base.arrays import Array
from recsolve.base.links import unrecorded
from recsolve.base.report import Reported
from recsolve.base.status import Status
from recsolve.base.tolerance import Tolerance
from recsolve.guess import guess_of_steps
from recsolve.recurrence.base import Recurrence, check_recurrence
from recsolve.solution import Solution
from recsolve.solvers.acceptance import limits_of
from recsolve.solvers.method import Method
from recsolve.solvers.settings import whole_number


@dataclass(frozen=True)
class Cut:
    """Where windows of time begin and end.

    Parameters
    ----------
    length : int
        T.
    every : int
        L, how many steps a window has; the last one has what is left.

    Examples
    --------
    >>> from recsolve.windows import Cut
    >>> len(Cut(10, 4)), Cut(10, 4).steps(2), Cut(10, 4).place(2)
    (3, slice(8, 10, None), 'window 2 of 3, steps 8 to 9')
    """

    length: int
    every: int

    def __len__(self) -> int:
        return max(-(-self.length // self.every), 1)  # of no steps there is one empty window

    def steps(self, index: int) -> slice:
        """Return the steps of one window."""
        return slice(index * self.every, min((index + 1) * self.every, self.length))

    def place(self, index: int) -> str:
        """Return in words which window one is."""
        cut = self.steps(index)
        return f"window {index} of {len(self)}, steps {cut.start} to {cut.stop - 1}"


@dataclass(frozen=True)
class Windows:
    """A recurrence cut into windows of time, and how each is solved from the last state of the one before.

    Parameters
    ----------
    recurrence : Recurrence
    every : int
        L, how many steps a window has; the last one has what is left.
    solve : callable
        :func:`recsolve.solve`.
    solver : Method
    guess : object
    options : mapping
        Of the driver.
    settings : mapping
        What else ``solve`` is called with.
    """

    recurrence: Recurrence
    every: int
    solve: Callable[..., Solution]
    solver: Method
    guess: Any
    options: Mapping[str, Any]
    settings: Mapping[str, Any]

    @property
    def cut(self) -> Cut:
        """Where they begin and end."""
        return Cut(self.recurrence.length, self.every)

    def check(self) -> None:
        """Raise TypeError or ValueError for what cannot be solved window after window."""
        whole_number("every", self.every, 1)
        check_one_after_the_other(self.recurrence, self.every)
        for name, given in (("callback", self.settings["callback"]), ("trace", self.options["trace"])):
            if given:
                raise ValueError(
                    f"{name} and every are both given; iterates of one window can be watched by solving it alone: "
                    "recurrence.window(start, stop, initial)"
                )

    def __len__(self) -> int:
        return len(self.cut)

    def solved(self, index: int, ends: Array) -> Solution:
        """Return the solution of one window, given the last states of those before it, (windows, *batch, *event)."""
        rec, cut = self.recurrence, self.cut.steps(index)
        part = rec.window(cut.start, cut.stop, rec.wrap(ends[index - 1].copy()) if index else None)
        guess, accept = guess_of_steps(self.guess, rec, cut), self.options["accept"]
        if accept is not None and not callable(accept):
            accept = limits_of(accept, rec)[cut]
        options = {**self.options, "accept": accept}
        return solved_as_part(part, rec, self.solve, method=self.solver, guess=guess, options=options, **self.settings)


def check_one_after_the_other(rec: Recurrence, every: int) -> None:
    """Raise TypeError for a recurrence of which the last state of a window is not all that the next one needs."""
    check_recurrence(rec)
    if rec.graph is not None or not rec.stepwise:
        other = "nodes of a graph see others" if rec.graph is not None else "rows of a history see all"
        raise TypeError(
            f"every is {every} and the recurrence is {rec!r}; wanted one along time, h[t] = f(h[t-1], u[t]): "
            f"{other} before them, so the last state of a window is not all that the next one needs"
        )


def solved_as_part(part: Recurrence, whole: Recurrence, solve: Callable[..., Solution], **settings: Any) -> Solution:
    """Return the solution of a window, tested as the whole is; no gradients go back from it."""
    part.take_scale(whole.state_scale)
    with unrecorded(whole.kind):  # of all windows together there is one node
        return solve(part, **settings)


@dataclass(frozen=True)
class SolvedWindow:
    """What is known of one window once its states are gone: as the attributes of a :class:`recsolve.Solution`.

    ``message`` and ``converged_prefix`` count its own steps, from 0.
    """

    status: Status
    message: str
    nit: int
    residual: float
    tolerance: Tolerance
    converged_prefix: int
    stats: Mapping[str, Any]

    @classmethod
    def of(cls, solution: Solution) -> Self:
        """Return what is kept of the solution of a window."""
        steps = solution.recurrence.length
        return cls(
            solution.status, solution.message, solution.nit, float(solution.residuals[-1]), solution.tolerance,
            steps if solution.success else solution.converged_prefix, solution.stats,
        )  # fmt: skip


class InWindows(Reported):
    """What is known of a solve in windows of time once the states are gone.

    Attributes
    ----------
    windows : tuple of SolvedWindow
    cut : Cut
    solver : Method
    """

    windows: tuple[SolvedWindow, ...]
    cut: Cut
    solver: Method

    @property
    def success(self) -> bool:
        """Whether every window converged."""
        return self.status is Status.CONVERGED

    @property
    def status(self) -> Status:
        """That of the first window that failed; else ``accepted`` where rows of one were; else ``converged``."""
        return Status.CONVERGED if self._worst is None else self.windows[self._worst].status

    @property
    def _worst(self) -> int | None:
        """The first window that failed, or else the first of which rows were accepted."""
        found = [window.status for window in self.windows]
        missed = [i for i, status in enumerate(found) if status is not Status.CONVERGED]
        return next((i for i in missed if found[i] is not Status.ACCEPTED), missed[0] if missed else None)

    @property
    def message(self) -> str:
        """The status with its advice, and where."""
        if self._worst is not None:
            after = "" if self._worst == len(self.windows) - 1 else "; the windows after it follow from its last state"
            return f"{self.cut.place(self._worst)} (counted from 0): {self.windows[self._worst].message}{after}"
        count = len(self.windows)
        text = f"{Status.CONVERGED}: every entry of the residual of every window meets its test ({count} in all)"
        if completed := sum(w.stats["completed_from"] is not None for w in self.windows):
            text += f"; {completed} of them were completed by the sequential loop"
        return text

    @property
    def nit(self) -> int:
        return sum(window.nit for window in self.windows)

    @property
    def residuals(self) -> Array:
        return np.array([window.residual for window in self.windows])

    @property
    def converged_prefix(self) -> int:
        for index, window in enumerate(self.windows):
            start = index * self.cut.every
            if window.converged_prefix < min(self.cut.every, self.cut.length - start):
                return start + window.converged_prefix
        return self.cut.length

    @property
    def stats(self) -> dict[str, Any]:
        total: dict[str, Any] = {}
        for window in self.windows:
            for name, value in window.stats.items():
                if name != "completed_from":
                    total[name] = total.get(name, 0) + value
        rows = (w.stats["completed_from"] for w in self.windows)
        began = (i * self.cut.every + row for i, row in enumerate(rows) if row is not None)
        return {**total, "completed_from": next(began, None)}

    def _facts(self) -> dict[str, str]:
        work = f"{self.solver.name}, {self.nit} iterations in {self.stats['seconds']:.3g} s"
        return {
            "message": self.message,
            "method": f"{work}, {len(self.windows)} windows of {self.cut.every} steps",
            "prefix": f"first {self.converged_prefix} of {self.cut.length} rows within tolerance",
        }

"""Windows of time that are solved one after the other, each from the last state of the one before it."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

from recsolve.base.arrays import Array
from recsolve.base.links import unrecorded
from recsolve.base.status import Status
from recsolve.base.tolerance import Tolerance
from recsolve.guess import guess_of_steps
from recsolve.recurrence.base import Recurrence, check_recurrence
from recsolve.solution import Solution
from recsolve.solvers.acceptance import limits_of
from recsolve.solvers.method import Method
from recsolve.solvers.settings import whole_number


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

    def check(self) -> None:
        """Raise TypeError or ValueError for what cannot be solved window after window."""
        rec = self.recurrence
        check_recurrence(rec)
        whole_number("every", self.every, 1)
        if rec.graph is not None or not rec.stepwise:
            other = "nodes of a graph see others" if rec.graph is not None else "rows of a history see all"
            raise TypeError(
                f"every is {self.every} and the recurrence is {rec!r}; wanted one along time, h[t] = f(h[t-1], u[t]): "
                f"{other} before them, so the last state of a window is not all that the next one needs"
            )
        for name, given in (("callback", self.settings["callback"]), ("trace", self.options["trace"])):
            if given:
                raise ValueError(
                    f"{name} and every are both given; iterates of one window can be watched by solving it alone: "
                    "recurrence.window(start, stop, initial)"
                )

    def __len__(self) -> int:
        return max(-(-self.recurrence.length // self.every), 1)  # of no steps there is one empty window

    def steps(self, index: int) -> slice:
        """Return the steps of one window."""
        return slice(index * self.every, min((index + 1) * self.every, self.recurrence.length))

    def solved(self, index: int, ends: Array) -> Solution:
        """Return the solution of one window, given the last states of those before it, (windows, *batch, *event)."""
        rec, cut = self.recurrence, self.steps(index)
        part = rec.window(cut.start, cut.stop, rec.wrap(ends[index - 1].copy()) if index else None)
        vars(part)["state_scale"] = rec.state_scale  # so that all are tested as the whole is
        guess, accept = guess_of_steps(self.guess, rec, cut), self.options["accept"]
        if accept is not None and not callable(accept):
            accept = limits_of(accept, rec)[cut]
        options = {**self.options, "accept": accept}
        with unrecorded(rec.kind):  # of all windows together there is one node
            return self.solve(part, method=self.solver, guess=guess, options=options, **self.settings)

    def place(self, index: int) -> str:
        """Return in words which window one is."""
        cut = self.steps(index)
        return f"window {index} of {len(self)}, steps {cut.start} to {cut.stop - 1}"


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

"""A recurrence whose input lies on disk: what of it is known beforehand, and how a window of it is solved."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, fields
from typing import Any

import numpy as np

from recsolve.base.arguments import check_callable
from recsolve.base.arrays import Array, kind_of, namespace, to_host
from recsolve.base.status import Status
from recsolve.base.tolerance import Tolerance, tolerance_for
from recsolve.distributed.stored_arrays import digest, digest_of, opened, rows_of, sample_of, sizes_of
from recsolve.distributed.stored_run import Done
from recsolve.recurrence.base import Recurrence
from recsolve.recurrence.cell_weights import CellWeights
from recsolve.recurrence.scale import every_looked_at
from recsolve.solution import ConvergenceError, Solution
from recsolve.solve import check_fallback, solve
from recsolve.solvers import registry
from recsolve.solvers.auto import Auto
from recsolve.solvers.auto_pilot import choose
from recsolve.solvers.method import Method
from recsolve.windows import Cut, SolvedWindow, check_one_after_the_other, solved_as_part


@dataclass
class StoredSolve:
    """A recurrence on disk, and how its windows are solved.

    Attributes
    ----------
    make : callable
        ``make(x, initial, reset)`` returns the recurrence of some steps.
    x, reset : array on disk
    initial : object
        As the user gave it.
    whole : Recurrence
        Of the few steps that show the size of the states of all: its shapes, dtype, h[0] and test are those of all.
    cut : Cut
    solver : Method
        Once ``auto`` has chosen, what it took.
    settings : dict
        What ``solve`` is called with besides.
    """

    make: Any
    x: Any
    reset: Any
    given: Any
    whole: Recurrence
    cut: Cut
    solver: Method
    settings: dict[str, Any]

    @classmethod
    def of(
        cls, cell: Any, x: Any, initial: Any, reset: Any, method: Any, tol: Any, fallback: Any, readout: Any, every: int
    ) -> StoredSolve:
        """Check the arguments of :func:`recsolve.distributed.solve_stored`; raise as it says."""
        check_fallback(fallback)
        make, solver, x = _maker(cell, readout, reset is not None), registry.get(method), opened(x, "x")
        T = x.shape[0]
        reset = None if reset is None else opened(reset, "reset")
        if reset is not None and reset.shape[0] != T:
            raise ValueError(f"reset has shape {tuple(reset.shape)}; wanted (T, *batch) with T = {T}")

        def seen(apart: int) -> Recurrence:
            mask = None if reset is None else sample_of(reset, "reset", apart)
            return _checked(make(sample_of(x, "x", apart), initial, mask))

        apart = every_looked_at(T, ())
        whole = seen(apart)
        check_one_after_the_other(whole, every)
        registry.check_applies(solver, whole)
        if (wider := every_looked_at(T, whole.shape[1:])) != apart:
            whole = seen(wider)
        tolerance_for(whole, tol)
        return cls(make, x, reset, initial, whole, Cut(T, every), solver, {"tol": tol, "fallback": fallback})

    def __post_init__(self) -> None:
        whole = self.whole
        with np.errstate(all="ignore"):  # of f(f(h[0])), so that nothing of f sees zeros alone
            states = whole.apply(whole.apply(whole.everywhere(whole.initial)))
            shown = to_host(whole.output(states))
        self.shape, self.dtype = (self.cut.length, *shown.shape[1:]), shown.dtype
        self.initial = to_host(whole.initial)
        self._facts = {
            "f at some steps": [*sizes_of(to_host(states)), *sizes_of(shown)],
            "output": f"{self.shape} {self.dtype}",
        }

    @property
    def facts(self) -> Mapping[str, Any]:
        """What tells this run from others."""
        whole = self.whole
        over_time = ("input", "drive")
        weights = {str(leaf): to_host(w) for leaf, w in whole.leaves().items() if leaf[0] not in over_time}
        return {
            "of": f"solve of {whole.description}",
            "steps": self.cut.length,
            "every": self.cut.every,
            "state": f"{whole.batch}, {whole.layout}, {whole.dtype}",
            "x": f"{tuple(self.x.shape)} {self.x.dtype}",
            "numbers of x": digest_of(self.x, "x"),
            "reset": None if self.reset is None else digest_of(self.reset, "reset"),
            "initial": digest(self.initial),
            "weights": digest(*(weights[name] for name in sorted(weights))),
            "method": repr(self.solver),
            "tol": self.settings["tol"],
            "fallback": self.settings["fallback"],
            **self._facts,
        }

    def read(self, steps: slice) -> tuple[Array, Array | None]:
        """Return x and resets of some steps."""
        return rows_of(self.x, steps, "x"), None if self.reset is None else rows_of(self.reset, steps, "reset")

    def work(self, given: tuple[Array, Array | None], last: Array | None) -> Done:
        """Solve one window."""
        part = self._part(given, last)
        if type(self.solver) is Auto and kind_of(part.initial) != "cupy":  # which needs no pilot there
            self._settle_on(part)
        solution = self._solved(part)
        states = solution._iterate.states
        last_state = to_host(states[-1]) if len(states) else self.initial
        return Done(to_host(part.output(states)), last_state, self._said(SolvedWindow.of(solution)))

    def _part(self, given: tuple[Array, Array | None], last: Array | None) -> Recurrence:
        """Return the recurrence of a window, given the last state of the one before it."""
        whole, (x, mask), state = self.whole, given, self.given
        if last is not None:
            state = whole.wrap(namespace(whole.initial).asarray(last).copy())
            state = state if getattr(whole, "state", None) is None else dict(whole.named(state))
        part = _checked(self.make(x, state, mask))
        if (part.length, part.shape[1:], part.dtype) != (len(x), whole.shape[1:], whole.dtype):
            raise ValueError(
                f"make(x, initial) returned {part!r} for {len(x)} steps; wanted T={len(x)}, and states as of the first "
                f"ones, {whole.shape[1:]} {whole.dtype}"
            )
        if last is not None:
            part.restart = whole.initial
        return part

    def _settle_on(self, part: Recurrence) -> None:
        """Take what ``auto`` takes for this window for all others; the loop completes where that does not converge."""
        part.take_scale(self.whole.state_scale)
        with np.errstate(all="ignore"):
            chosen = choose(part, tolerance_for(part, self.settings["tol"])).chosen
        self.solver = chosen.method
        self.settings["maxiter"] = chosen.iterations * 3 // 2 + 5 if chosen.iterations else None

    def settle(self, records: Sequence[Mapping[str, Any]]) -> None:
        """Take what ``auto`` took in the windows that are recorded."""
        if records and records[0]["method"] is not None:
            name, settings, self.settings["maxiter"] = records[0]["method"]
            self.solver = registry.get(name, settings)

    def _solved(self, part: Recurrence) -> Solution:
        """Return the solution of a window; of a method that ``auto`` took the loop completes it, as auto does."""
        if "maxiter" not in self.settings:
            return solved_as_part(part, self.whole, solve, method=self.solver, **self.settings)
        settings = {**self.settings, "fallback": "sequential"}
        solution = solved_as_part(part, self.whole, solve, method=self.solver, **settings)
        if self.settings["fallback"] == "raise" and not solution.success:
            raise ConvergenceError(solution)
        return solution

    def _said(self, window: SolvedWindow) -> dict[str, Any]:
        """Return what is recorded of a window."""
        test, chosen = window.tolerance, None
        if "maxiter" in self.settings:
            changed = {f.name: getattr(self.solver, f.name) for f in fields(self.solver)}
            defaults = type(self.solver)()
            chosen = [
                self.solver.name,
                {name: value for name, value in changed.items() if value != getattr(defaults, name)},
                self.settings["maxiter"],
            ]
        return {
            "status": window.status.value,
            "message": window.message,
            "nit": window.nit,
            "residual": window.residual,
            "tolerance": [test.atol, test.rtol, test.lanes is not None, test.unit],
            "converged_prefix": window.converged_prefix,
            "stats": dict(window.stats),
            "method": chosen,
        }

    def window(self, record: Mapping[str, Any]) -> SolvedWindow:
        """Return what is known of a window from its record."""
        atol, rtol, lanes, unit = record["tolerance"]
        test = Tolerance(atol, rtol, self.whole.layout if lanes else None, unit)
        status, message, nit, residual = Status(record["status"]), record["message"], record["nit"], record["residual"]
        return SolvedWindow(status, message, nit, residual, test, record["converged_prefix"], record["stats"])


def _maker(cell: Any, readout: Any, resets: bool) -> Any:
    """Return what makes the recurrence of some steps of x, of a cell or of the user's own."""
    if isinstance(cell, CellWeights):
        xp = next((namespace(weight) for _, weight in cell._weights()), np)

        def make(x: Array, initial: Any, mask: Array | None) -> Recurrence:
            return cell.recurrence(xp.asarray(x), initial=initial, reset=mask, readout=readout)  # type: ignore[attr-defined, no-any-return]

        return make
    if isinstance(cell, Recurrence):
        raise TypeError(
            "cell is a recurrence, whose input is there already: rs.solve(..., every=) solves it in windows"
        )
    check_callable("cell", cell, "make(x, initial, reset)" if resets else "make(x, initial)")
    if readout is not None:
        raise ValueError("readout is given and cell is a callable; give it to the recurrence that this makes")
    return cell if resets else lambda x, initial, mask: cell(x, initial)


def _checked(rec: Any) -> Recurrence:
    if not isinstance(rec, Recurrence):
        raise TypeError(f"make(x, initial) returned {type(rec).__name__}; wanted a Recurrence")
    return rec

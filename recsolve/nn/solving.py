"""How the layers of this package solve, and what they do when a solve is not met."""

from __future__ import annotations

import warnings
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from recsolve import solvers
from recsolve.base.arrays import Array
from recsolve.nn.counters import Counters
from recsolve.recurrence.weighted_cell import WeightedCell
from recsolve.solution import ConvergenceError
from recsolve.solve import solve

_FALLBACKS = {"loop": "sequential", "raise": "raise", "warn": "none"}


class ConvergenceWarning(UserWarning):
    """A layer with ``on_failure="warn"`` goes on with states that do not meet their test."""


@dataclass(frozen=True)
class Settings:
    """How a layer solves.

    Attributes
    ----------
    method : str or Method
    tol : float or None
    maxiter : int or None
        As of :func:`recsolve.solve`.
    on_failure : {"loop", "raise", "warn"}
        When a solve is not met: complete it by the sequential loop and count that; raise ConvergenceError; or use
        the states as they are, with a ConvergenceWarning.
    kappa : bool
        Whether to estimate the conditioning of every solve, which takes a few scans.

    Raises
    ------
    ValueError, TypeError
        For an unknown method or on_failure.
    """

    method: str | solvers.Method = "auto"
    tol: float | None = None
    maxiter: int | None = None
    on_failure: str = "loop"
    kappa: bool = False

    def __post_init__(self) -> None:
        if self.on_failure not in _FALLBACKS:
            raise ValueError(f"on_failure is {self.on_failure!r}; wanted 'loop', 'raise' or 'warn'")
        solvers.get(self.method)

    def states(
        self,
        cell: WeightedCell,
        drive: Mapping[str, Any],
        initial: Any,
        reset: Array | None,
        counters: Counters,
    ) -> Any:
        """Return the states (T, B, *event) of a cell, solved and counted."""
        recurrence, fallback = cell.recurrence(drive=drive, initial=initial, reset=reset), _FALLBACKS[self.on_failure]
        try:
            solution = solve(recurrence, method=self.method, tol=self.tol, maxiter=self.maxiter, fallback=fallback)
        except ConvergenceError as error:
            counters.count(error.solution, kappa=False)
            raise
        counters.count(solution, kappa=self.kappa)
        if self.on_failure == "warn" and not solution.success:
            name = recurrence.description
            text = f"a layer of {name} goes on with states that miss their test: {solution.message}"
            warnings.warn(text, ConvergenceWarning, stacklevel=2)
        return solution.states

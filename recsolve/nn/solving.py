"""How the layers of this package solve, and what they do when a solve is not met."""

from __future__ import annotations

import warnings
from contextvars import ContextVar
from dataclasses import dataclass
from typing import Any

from recsolve import solvers
from recsolve.nn.counters import Counters
from recsolve.solution import Solution
from recsolve.solvers.settings import number, whole_number

_FALLBACKS = {"loop": "sequential", "raise": "raise", "warn": "none"}


class ConvergenceWarning(UserWarning):
    """A layer goes on with states that do not meet their test.

    With ``on_failure="warn"`` they are used as they are; else the loop has completed them, and they are not finite.

    Examples
    --------
    >>> import warnings, torch, recsolve as rs
    >>> layer = rs.nn.GRU(3, 8, method="jacobi", maxiter=1, on_failure="warn")
    >>> with warnings.catch_warnings(record=True) as caught:
    ...     _ = layer(torch.ones(50, 4, 3))
    >>> caught[0].category.__name__, layer.counters.unmet
    ('ConvergenceWarning', 1)
    """


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
    every : int or None
        Keep what windows of so many steps begin with alone; the backward solves each again, and is not counted.
    cotangent_clamp : float or None
        Entries of the cotangents of states are limited to this size.
    kappa : bool
        Whether to estimate the conditioning of every solve, which takes a few scans.

    Raises
    ------
    ValueError, TypeError
        For an unknown method or on_failure, and numbers out of range.

    Examples
    --------
    >>> from dataclasses import replace
    >>> import recsolve as rs
    >>> layer = rs.nn.GRU(3, 8, method="newton")
    >>> layer.solving = replace(layer.solving, maxiter=3, on_failure="warn")
    >>> layer.solving.method
    'newton'
    """

    method: str | solvers.Method = "auto"
    tol: float | None = None
    maxiter: int | None = None
    on_failure: str = "loop"
    every: int | None = None
    cotangent_clamp: float | None = None
    kappa: bool = False

    def __post_init__(self) -> None:
        if self.on_failure not in _FALLBACKS:
            raise ValueError(f"on_failure is {self.on_failure!r}; wanted 'loop', 'raise' or 'warn'")
        solvers.get(self.method)
        whole_number("maxiter", self.maxiter, 0, optional=True)
        whole_number("every", self.every, 1, optional=True)
        number("tol", self.tol, 0, closed=True, optional=True)
        number("cotangent_clamp", self.cotangent_clamp, 0, optional=True)

    def solved(self) -> dict[str, Any]:
        """Return the keyword arguments of :func:`recsolve.solve`."""
        return {
            "method": self.method, "tol": self.tol, "maxiter": self.maxiter, "fallback": _FALLBACKS[self.on_failure]
        }  # fmt: skip


# Whether what is solved, in this thread, has been solved before: nothing is counted then.
AGAIN: ContextVar[bool] = ContextVar("again", default=False)


@dataclass
class Observer:
    """Counts the solves of a layer, and warns of states that miss their test."""

    settings: Settings
    counters: Counters

    def __call__(self, solution: Solution) -> None:
        if AGAIN.get():
            return
        self.counters.count(solution, kappa=self.settings.kappa)
        if not solution.success:
            name = solution.recurrence.description
            text = f"a layer of {name} goes on with states that miss their test: {solution.message}"
            warnings.warn(text, ConvergenceWarning, stacklevel=2)

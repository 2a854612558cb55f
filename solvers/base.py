"""What a solver is: frozen settings, and the one sentence that tells it from the others."""

from __future__ import annotations

from abc import ABC, abstractmethod
from dataclasses import dataclass
from typing import Any, ClassVar

from recsolve.jacobians import Jacobian
from recsolve.solvers.problem import Iterate, Problem
from recsolve.status import Status


@dataclass(frozen=True, kw_only=True)
class Solver(ABC):
    """Immutable settings and four verbs; the driver owns the loop, the budget, the history and the status.

    Attributes
    ----------
    name : str
        The name users pass as ``method``.
    matrix : str
        Which A stands in for the Jacobian.
    cite : str
        The source.
    finite_termination : bool
        Exact on the first k steps after k iterations by itself, without the driver's pin.
    exact_on_affine : str
        For which structures an affine recurrence takes one update: "all", "per-unit" or "none".
    needs_jacobian : bool
        Whether iterates carry the Jacobian.
    """

    def __init_subclass__(cls) -> None:
        """Put the source where ``help`` shows it."""
        super().__init_subclass__()
        if "cite" in vars(cls):
            cls.__doc__ = f"{cls.__doc__}\n\n    Source: {cls.cite}."

    name: ClassVar[str]
    matrix: ClassVar[str]
    cite: ClassVar[str]
    finite_termination: ClassVar[bool]
    exact_on_affine: ClassVar[str]
    needs_jacobian: ClassVar[bool] = True

    def start(self, problem: Problem) -> Iterate:
        """Return the first iterate when the user gives no guess."""
        return problem.evaluate(problem.recurrence.guess())

    def init(self, problem: Problem, iterate: Iterate) -> Any:
        """Return the state that the solver carries from step to step."""
        return None

    @abstractmethod
    def step(self, problem: Problem, iterate: Iterate, state: Any) -> tuple[Iterate, Any]:
        """Return the next iterate and the next state."""

    def terminate(self, problem: Problem, iterate: Iterate, state: Any) -> Status | None:
        """Return a status when the solver itself sees no point in going on."""
        return None


@dataclass(frozen=True, kw_only=True)
class CorrectionSolver(Solver):
    """h[t] <- F[t] + A[t] d[t-1] with d[t] = A[t] d[t-1] + r[t]: a solver is its matrix A."""

    @abstractmethod
    def preconditioner(self, problem: Problem, iterate: Iterate) -> Jacobian:
        """Return A[t]."""

    def step(self, problem: Problem, iterate: Iterate, state: Any) -> tuple[Iterate, Any]:
        A = self.preconditioner(problem, iterate)
        return problem.advance(iterate, problem.correct(iterate, A)), state

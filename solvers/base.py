"""What a solver is: frozen settings, and the one sentence that tells it from the others."""

from __future__ import annotations

from abc import ABC, abstractmethod
from dataclasses import dataclass
from math import inf
from typing import Any, ClassVar, Generic, TypeVar, cast, get_args

from recsolve.arrays import Array
from recsolve.jacobians import Jacobian
from recsolve.solvers.iterate import Iterate, Linearised
from recsolve.solvers.problem import Direct, I, Problem
from recsolve.solvers.state import State
from recsolve.status import Status

S = TypeVar("S", bound="State | None")

GROUPS = ("reference", "newton-type", "globalised", "fixed point", "in blocks", "composite")


@dataclass(frozen=True, kw_only=True)
class Method(ABC):
    """What the name ``method`` stands for: immutable settings, and the facts that tell it from the others.

    Attributes
    ----------
    name : str
        The name users pass as ``method``.
    group : str
        The kind it is listed with: one of ``GROUPS``, or of your own.
    place : float
        Where in its group it is listed, the smallest first; those without one come last, by name.
    matrix : str
        Which A stands in for the Jacobian.
    cite : str
        The source.
    finite_termination : bool
        Exact on the first k steps after k iterations by itself, without the driver's pin.
    exact_on_affine : str
        For which structures an affine recurrence takes one update: "all", "per-unit" or "none"; "varies" where another
        method is chosen.
    causal : bool
        Whether an iterate at time t depends on the past of t alone.
    """

    def __init_subclass__(cls) -> None:
        """Put the source where ``help`` shows it."""
        super().__init_subclass__()
        if "cite" in vars(cls):
            cls.__doc__ = f"{cls.__doc__ or cls.__name__}\n\n    Source: {cls.cite}."

    name: ClassVar[str]
    group: ClassVar[str] = "custom"  # none of GROUPS: nothing is known of a solver that does not say
    place: ClassVar[float] = inf
    matrix: ClassVar[str]
    cite: ClassVar[str]
    finite_termination: ClassVar[bool]
    exact_on_affine: ClassVar[str]
    causal: ClassVar[bool] = True

    def direct(self, problem: Problem) -> Direct | None:
        """Return the trajectory and the iterations it took, where compiled loops find it without the driver.

        The driver tests it as it tests every iterate, and starts anew if it fails.
        """
        return None

    @abstractmethod
    def stages(self, problem: Problem) -> tuple[Stage, ...]:
        """Return the solvers to run one after the other, each from where the one before it has ended."""


@dataclass(frozen=True, kw_only=True)
class Solver(Method, Generic[I, S]):
    """A method that steps from iterate to iterate; the driver owns the loop, the budget, the history and the status.

    Attributes
    ----------
    needs_jacobian : bool
        Whether iterates carry the Jacobian: what the first type parameter says, true where it says nothing.
    """

    needs_jacobian: ClassVar[bool] = True

    def __init_subclass__(cls) -> None:
        """Read from ``Solver[Linearised, ...]`` whether iterates carry the Jacobian, so that it is said once."""
        super().__init_subclass__()
        for base in vars(cls).get("__orig_bases__", ()):
            kind = next(iter(get_args(base)), None)
            if kind in (Iterate, Linearised) and "needs_jacobian" not in vars(cls):
                cls.needs_jacobian = kind is Linearised

    def stages(self, problem: Problem) -> tuple[Stage, ...]:
        return (Stage(self),)

    def start(self, problem: Problem) -> Iterate:
        """Return the first iterate when the user gives no guess."""
        return problem.evaluate(problem.guess())

    def init(self, problem: Problem, iterate: I) -> S:
        """Return the state that the solver carries from step to step."""
        return cast(S, None)  # of solvers that carry nothing

    @abstractmethod
    def step(self, problem: Problem, iterate: I, state: S) -> tuple[I, S]:
        """Return the next iterate and the next state."""

    def report(self, state: S) -> dict[str, Array]:
        """Return the numbers (1, *batch, ...) of a state that a trace should keep: a weight, a damping."""
        return {}

    def terminate(self, problem: Problem, iterate: I, state: S) -> Status | None:
        """Return a status when the solver itself sees no point in going on."""
        return None


@dataclass(frozen=True)
class Stage:
    """A solver, how many iterations it may take (None: all that are left), and how many steps it looks at together."""

    solver: Solver[Any, Any]
    iterations: int | None = None
    window: int | None = None
    why: str = ""


@dataclass(frozen=True, kw_only=True)
class CorrectionSolver(Solver[I, None], Generic[I]):
    """h[t] <- F[t] + A[t] d[t-1] with d[t] = A[t] d[t-1] + r[t]: a solver is its matrix A."""

    @abstractmethod
    def preconditioner(self, problem: Problem, iterate: I) -> Jacobian:
        """Return A[t]."""

    def step(self, problem: Problem, iterate: I, state: None) -> tuple[I, None]:
        A = self.preconditioner(problem, iterate)
        return problem.advance(iterate, problem.correct(iterate, A)), state

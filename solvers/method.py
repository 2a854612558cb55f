"""The base of solvers: frozen settings, and the one sentence that distinguishes a solver from the others."""

from __future__ import annotations

from abc import ABC, abstractmethod
from dataclasses import dataclass
from inspect import cleandoc
from math import inf
from typing import Any, ClassVar, Generic, TypeVar, cast, get_args

from recsolve.base.arrays import Array
from recsolve.base.status import Status
from recsolve.jacobians import Jacobian
from recsolve.recurrence.engine import Verdict
from recsolve.solvers.evaluation import Direct
from recsolve.solvers.guarded import I
from recsolve.solvers.iterate import Iterate, Linearised
from recsolve.solvers.problem import Problem
from recsolve.solvers.state import State

S = TypeVar("S", bound="State | None")

_STEPS = {"start", "init", "step", "preconditioner", "terminate", "stages"}  # what makes another method of a subclass
GROUPS = ("reference", "newton-type", "globalised", "fixed point", "in blocks", "composite")


@dataclass(frozen=True, kw_only=True)
class Method(ABC):
    """The value of ``method``: immutable settings, and the facts that distinguish it from the others.

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
    graphs : bool
        Whether it also solves recurrences on graphs; not if it follows one axis of time by itself.

    Examples
    --------
    A method made of others says in which order they run:

    >>> import numpy as np, recsolve as rs
    >>> class Cautious(rs.solvers.Method):
    ...     name, matrix = "cautious", "0, then J"
    ...     def stages(self, problem):
    ...         return rs.solvers.Stage(rs.solvers.Jacobi(), iterations=3), rs.solvers.Stage(rs.solvers.Newton())
    >>> cell = rs.cells.GRU.random(input_size=3, hidden_size=4, rng=0)
    >>> rs.solve(cell.recurrence(np.ones((60, 3))), method=Cautious()).success
    True
    """

    def __init_subclass__(cls) -> None:
        """Put the source where ``help`` shows it, and let no subclass answer with what its base class would find."""
        super().__init_subclass__()
        if "direct" not in vars(cls) and _STEPS & vars(cls).keys():  # it would be the answer of another method
            cls.direct = Method.direct  # type: ignore[method-assign]
        if "cite" in vars(cls):
            cls.__doc__ = f"{cleandoc(cls.__doc__ or cls.__name__)}\n\nReferences\n----------\n{cls.cite}\n"

    name: ClassVar[str]
    group: ClassVar[str] = "custom"  # none of GROUPS: a solver that does not state its group has none
    place: ClassVar[float] = inf
    matrix: ClassVar[str]
    cite: ClassVar[str]
    finite_termination: ClassVar[bool]
    exact_on_affine: ClassVar[str]
    causal: ClassVar[bool] = True
    graphs: ClassVar[bool] = True

    def direct(self, problem: Problem) -> Direct | Verdict | None:
        """Return the trajectory and the iterations it took, where compiled loops find it without the driver.

        The driver calls it when the user gives no guess and no callback or trace needs the iterates. It tests what
        it gets as it tests every iterate, and starts anew if it fails; but it takes the ``worst`` of a verdict, which
        only loops that have tested every number may give. A subclass that overrides how a method steps has none unless
        it defines this too.

        Parameters
        ----------
        problem : Problem
            Whose ``counts`` the method adds its evaluations to.

        Returns
        -------
        Direct, Verdict or None
            None, the default, where there are no such loops. Engines give verdicts.
        """
        return None

    def inside(self) -> tuple[Method, ...]:
        """Return the methods that this one runs; all must apply to a recurrence, as this one must."""
        return ()

    @abstractmethod
    def stages(self, problem: Problem) -> tuple[Stage, ...]:
        """Return the solvers to run one after the other, each from where the one before it has ended.

        Parameters
        ----------
        problem : Problem
            The whole, to measure or to ask for its length.

        Returns
        -------
        tuple of Stage
            At least one. The run ends with the first that converges or meets a number that is not finite.
        """


@dataclass(frozen=True, kw_only=True)
class Solver(Method, Generic[I, S]):
    """A method that steps from iterate to iterate; the driver owns the loop, the budget, the history and the status.

    ``Solver[I, S]`` has two type parameters: I is ``Iterate``, or ``Linearised`` for iterates that carry their
    Jacobian, and S is the :class:`State` that the solver carries, or None.

    Attributes
    ----------
    needs_jacobian : bool
        Whether iterates carry the Jacobian: what I says, true where the class does not say.
    rowwise : bool
        Whether a step, and the state, treat every time by itself, but for what ``problem.move`` or ``problem.correct``
        carry along time and what ``problem.total`` and ``problem.running_total`` sum over it. Ranks that share the time
        axis then step together (:mod:`recsolve.distributed`); else one solves after the other. The iterate that a step
        returns is the last that it has made. A subclass with another step or state says it anew.

    Examples
    --------
    Jacobi's iteration, with half of the last step added again:

    >>> from dataclasses import dataclass
    >>> import numpy as np, recsolve as rs
    >>> from recsolve.solvers import Iterate, PerRow, Solver, State
    >>> @dataclass(frozen=True)
    ... class Last(State):
    ...     states: PerRow[np.ndarray]
    >>> class HeavyBall(Solver[Iterate, Last]):
    ...     name, matrix = "heavy_ball", "0, with momentum"
    ...     def init(self, problem, iterate):
    ...         return Last(iterate.states)
    ...     def step(self, problem, iterate, state):
    ...         proposal = iterate.values + 0.5 * (iterate.states - state.states)
    ...         return problem.advance(iterate, proposal), Last(iterate.states)
    >>> cell = rs.cells.GRU.random(input_size=3, hidden_size=4, rng=0)
    >>> rs.solve(cell.recurrence(np.ones((60, 3))), method=HeavyBall()).success
    True
    """

    needs_jacobian: ClassVar[bool] = True
    rowwise: ClassVar[bool] = False

    def __init_subclass__(cls) -> None:
        """Read from ``Solver[Linearised, ...]`` whether iterates carry the Jacobian: it is stated once."""
        super().__init_subclass__()
        if "rowwise" not in vars(cls) and _STEPS - {"preconditioner"} & vars(cls).keys():  # it was said of other steps
            cls.rowwise = False
        for base in vars(cls).get("__orig_bases__", ()):
            kind = next(iter(get_args(base)), None)
            if kind in (Iterate, Linearised) and "needs_jacobian" not in vars(cls):
                cls.needs_jacobian = kind is Linearised

    def stages(self, problem: Problem) -> tuple[Stage, ...]:
        return (Stage(self),)

    def start(self, problem: Problem) -> Iterate:
        """Return the first iterate when the user gives no guess: by default that of f(h[0], u[t]) at every t.

        Parameters
        ----------
        problem : Problem
            The whole, or the first window.

        Returns
        -------
        Iterate
            Made by ``problem.evaluate``, so that it carries the Jacobian where the solver needs it.
        """
        return problem.evaluate(problem.guess())

    def init(self, problem: Problem, iterate: I) -> S:
        """Return the state that the solver carries from step to step: by default none.

        The driver calls it again whenever a window has moved on.

        Parameters
        ----------
        problem : Problem
        iterate : Iterate or Linearised
            The first.

        Returns
        -------
        State or None
            Anything else ends the solve with a TypeError.
        """
        return cast(S, None)  # of solvers that carry nothing

    @abstractmethod
    def step(self, problem: Problem, iterate: I, state: S) -> tuple[I, S]:
        """Return the next iterate and the next state.

        Parameters
        ----------
        problem : Problem
            The unsolved part: times and sequences that are solved have been set aside, in all three arguments.
        iterate : Iterate or Linearised
            The one to improve.
        state : State or None
            From ``init`` or the last step.

        Returns
        -------
        iterate : Iterate or Linearised
            Made by ``problem.advance(iterate, proposal)``, which guards, pins and evaluates the proposal.
        state : State or None
        """

    def report(self, state: S) -> dict[str, Array]:
        """Return what a trace should keep of a state.

        Returns
        -------
        dict of array
            Numbers of shape (1, *batch, 1...) by name, as a weight or a damping; by default none.
        """
        return {}

    def terminate(self, problem: Problem, iterate: I, state: S) -> Status | None:
        """Return a status where the solver itself decides to stop.

        Returns
        -------
        Status or None
            None, the default, to go on. The driver has tested convergence, progress and the budget before.
        """
        return None


@dataclass(frozen=True)
class Stage:
    """A solver as a part of a method.

    Attributes
    ----------
    solver : Solver
    iterations : int or None
        How many it may take; None: all that are left.
    window : int or None
        How many steps it looks at together; None: all.
    why : str
        A remark for the message of the solution.

    Examples
    --------
    >>> import recsolve as rs
    >>> stage, = rs.solvers.Windowed(solver="jacobi", window=20).stages(None)
    >>> stage.solver, stage.window
    (Jacobi(), 20)
    """

    solver: Solver[Any, Any]
    iterations: int | None = None
    window: int | None = None
    why: str = ""


@dataclass(frozen=True, kw_only=True)
class CorrectionSolver(Solver[I, None], Generic[I]):
    """h[t] <- F[t] + A[t] d[t-1] with d[t] = A[t] d[t-1] + r[t]: a solver is its matrix A.

    Examples
    --------
    >>> import numpy as np, recsolve as rs
    >>> from recsolve.solvers import CorrectionSolver, Linearised
    >>> class Fading(CorrectionSolver[Linearised]):
    ...     name, matrix = "fading", "0.9 diag(J)"
    ...     def preconditioner(self, problem, iterate):
    ...         return iterate.jacobian.diagonal().scale(0.9)
    >>> cell = rs.cells.GRU.random(input_size=3, hidden_size=4, rng=0)
    >>> rs.solve(cell.recurrence(np.ones((60, 3))), method=Fading()).success
    True
    """

    rowwise = True

    @abstractmethod
    def preconditioner(self, problem: Problem, iterate: I) -> Jacobian:
        """Return A[t], the matrix that stands in for the Jacobian.

        Parameters
        ----------
        problem : Problem
        iterate : Iterate or Linearised
            With ``CorrectionSolver[Linearised]``, ``iterate.jacobian`` is there.

        Returns
        -------
        Jacobian
            In any structure, over the times and sequences of the iterate.
        """

    def step(self, problem: Problem, iterate: I, state: None) -> tuple[I, None]:
        A = self.preconditioner(problem, iterate)
        return problem.move(iterate, A), state

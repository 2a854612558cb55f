"""Broyden's methods: A learns the Jacobian from the values of f alone."""

from __future__ import annotations

from abc import abstractmethod
from dataclasses import dataclass
from typing import Any

from recsolve.arrays import Array, namespace
from recsolve.jacobians import Diagonal, Jacobian, LaneDense
from recsolve.solvers.base import Solver
from recsolve.solvers.problem import Iterate, Problem


@dataclass(frozen=True, kw_only=True)
class _Secant(Solver):
    """A <- A + what makes A dh = df, where dh and df are the last changes of h[t-1] and of F[t]; A starts at zero.

    An update that is not finite leaves A as it was.
    """

    needs_jacobian = False
    finite_termination = True
    exact_on_affine = "none"

    @abstractmethod
    def zero(self, problem: Problem, iterate: Iterate) -> Jacobian:
        """Return A = 0 in the structure that is learned."""

    @abstractmethod
    def learn(self, A: Any, dh: Array, df: Array) -> Array:
        """Return the entries of the next A."""

    def init(self, problem: Problem, iterate: Iterate) -> tuple[Jacobian, Iterate | None]:
        """Return A = 0 and no earlier iterate."""
        return self.zero(problem, iterate), None

    def step(self, problem: Problem, iterate: Iterate, state: Any) -> tuple[Iterate, Any]:
        A, before = state
        if before is not None:
            rec, xp = problem.recurrence, namespace(iterate.states)
            dh = rec.previous(iterate.states) - rec.previous(before.states)
            entries = self.learn(A, dh, iterate.values - before.values)
            A = type(A)(xp.where(xp.isfinite(entries), entries, A.data), rec.layout)
        return problem.advance(iterate, problem.correct(iterate, A)), (A, iterate)


@dataclass(frozen=True, kw_only=True)
class DiagonalBroyden(_Secant):
    """Each entry of a diagonal A learns by itself (Schubert's update for a sparse Jacobian)."""

    name = "diagonal_broyden"
    group = "newton-type"
    place = 9
    matrix = "a diagonal, learned from f"
    cite = "Schubert, Mathematics of Computation 24 (1970)"

    def zero(self, problem: Problem, iterate: Iterate) -> Jacobian:
        return Diagonal(namespace(iterate.values).zeros_like(iterate.values), problem.recurrence.layout)

    def learn(self, A: Any, dh: Array, df: Array) -> Array:
        moved = dh * dh
        tiny = namespace(dh).finfo(dh.dtype).tiny
        return A.data + (df - A.data * dh) * dh / (moved + tiny)  # type: ignore[no-any-return]


@dataclass(frozen=True, kw_only=True)
class Broyden(_Secant):
    """A rank-1 update of one dense matrix per lane and time."""

    name = "broyden"
    group = "newton-type"
    place = 8
    matrix = "a dense matrix per lane, learned from f"
    cite = "Broyden, Mathematics of Computation 19 (1965)"

    def zero(self, problem: Problem, iterate: Iterate) -> Jacobian:
        layout = problem.recurrence.layout
        vectors = layout.lane_vectors(iterate.values)
        return LaneDense(namespace(vectors).zeros((*vectors.shape, vectors.shape[-1]), vectors.dtype), layout)

    def learn(self, A: Any, dh: Array, df: Array) -> Array:
        step, change = A.layout.lane_vectors(dh), A.layout.lane_vectors(df)
        missed = change - (A.data @ step[..., None])[..., 0]
        length = (step * step).sum(axis=-1, keepdims=True)
        tiny = namespace(dh).finfo(dh.dtype).tiny
        return A.data + missed[..., :, None] * (step / (length + tiny))[..., None, :]  # type: ignore[no-any-return]

"""Broyden's methods: A learns the Jacobian from the values of f alone."""

from __future__ import annotations

from abc import abstractmethod
from dataclasses import dataclass
from typing import Generic, TypeVar

from recsolve.base.arrays import Array, namespace
from recsolve.jacobians import Diagonal, LaneDense
from recsolve.solvers.iterate import Iterate
from recsolve.solvers.method import Solver
from recsolve.solvers.problem import Problem
from recsolve.solvers.state import PerRow, State

A = TypeVar("A", Diagonal, LaneDense)


@dataclass(frozen=True)
class Learned(State, Generic[A]):
    """The current A, and h[t-1] and F[t] of the previous iterate, None at the first step."""

    matrix: PerRow[A]
    before: PerRow[tuple[Array, Array] | None] = None


@dataclass(frozen=True, kw_only=True)
class _Secant(Solver[Iterate, Learned[A]], Generic[A]):
    """A <- A + an update that makes A dh = df, where dh and df are the last changes of h[t-1] and F[t]; A starts at 0.

    An update that is not finite leaves A as it was.
    """

    finite_termination = True
    exact_on_affine = "none"
    graphs = False
    rowwise = True

    @abstractmethod
    def zero(self, problem: Problem, iterate: Iterate) -> A:
        """Return A = 0 in the structure that is learned."""

    @abstractmethod
    def learn(self, matrix: A, dh: Array, df: Array) -> Array:
        """Return the entries of the next A."""

    def init(self, problem: Problem, iterate: Iterate) -> Learned[A]:
        return Learned(self.zero(problem, iterate))

    def step(self, problem: Problem, iterate: Iterate, state: Learned[A]) -> tuple[Iterate, Learned[A]]:
        matrix, xp = state.matrix, namespace(iterate.states)
        previous, values = problem.recurrence.previous(iterate.states), iterate.values
        if state.before is not None:
            entries = self.learn(matrix, previous - state.before[0], values - state.before[1])
            matrix = type(matrix)(xp.where(xp.isfinite(entries), entries, matrix.data), matrix.layout)
        return problem.move(iterate, matrix), Learned(matrix, (previous, values))


@dataclass(frozen=True, kw_only=True)
class DiagonalBroyden(_Secant[Diagonal]):
    """A diagonal A, of which each entry learns by itself (Schubert's update for a sparse Jacobian).

    d[t] <- d[t] + (df - d[t] dh) dh / dh^2, where dh and df are the last changes of h[t-1] and of F[t]. It starts at
    zero and needs f alone.

    Examples
    --------
    >>> import numpy as np, recsolve as rs
    >>> rec = rs.Recurrence.from_function(
    ...     lambda h, u: 0.9 * h + u, inputs=np.ones((60, 2)), initial=np.zeros(2), structure="diagonal")
    >>> sol = rs.solve(rec, method="diagonal_broyden", tol=1e-10)
    >>> sol.nit, sol.stats["njev"]  # of an affine f the secant knows all after two steps
    (2, 0)
    """

    name = "diagonal_broyden"
    group = "newton-type"
    place = 9
    matrix = "a diagonal, learned from f"
    cite = "Schubert, Mathematics of Computation 24 (1970)"

    def zero(self, problem: Problem, iterate: Iterate) -> Diagonal:
        return Diagonal(namespace(iterate.values).zeros_like(iterate.values), problem.recurrence.layout)

    def learn(self, matrix: Diagonal, dh: Array, df: Array) -> Array:
        return matrix.data + _over(df - matrix.data * dh, dh)


@dataclass(frozen=True, kw_only=True)
class Broyden(_Secant[LaneDense]):
    """One dense matrix per lane and time, which learns by updates of rank one.

    A[t] <- A[t] + (df - A[t] dh) dh^T / |dh|^2, where dh and df are the last changes of h[t-1] and of F[t]. It starts
    at zero and needs f alone; with n units in a lane it keeps n x n numbers per time.

    Examples
    --------
    >>> import numpy as np, recsolve as rs
    >>> cell = rs.cells.GRU.random(input_size=3, hidden_size=4, rng=0)
    >>> rec = cell.recurrence(np.random.default_rng(0).standard_normal((60, 3)))
    >>> sol = rs.solve(rec, method="broyden")
    >>> sol.success, sol.stats["njev"]
    (True, 0)
    """

    name = "broyden"
    group = "newton-type"
    place = 8
    matrix = "a dense matrix per lane, learned from f"
    cite = "Broyden, Mathematics of Computation 19 (1965)"

    def zero(self, problem: Problem, iterate: Iterate) -> LaneDense:
        layout = problem.recurrence.layout
        vectors = layout.lane_vectors(iterate.values)
        return LaneDense(namespace(vectors).zeros((*vectors.shape, vectors.shape[-1]), vectors.dtype), layout)

    def learn(self, matrix: LaneDense, dh: Array, df: Array) -> Array:
        step, change = matrix.layout.lane_vectors(dh), matrix.layout.lane_vectors(df)
        missed = change - (matrix.data @ step[..., None])[..., 0]
        size = abs(step).max(axis=-1, keepdims=True)
        unit = _over(step, size)  # squares of numbers of any size
        length = (unit * unit).sum(axis=-1, keepdims=True)
        update: Array = _over(missed, size)[..., :, None] * _over(unit, length)[..., None, :]
        return matrix.data + update


def _over(a: Array, b: Array) -> Array:
    """Return a / b, and 0 where b is nothing to learn from."""
    xp = namespace(b)
    known = abs(b) > xp.finfo(b.dtype).tiny
    return xp.where(known, a / xp.where(known, b, b.dtype.type(1)), b.dtype.type(0))  # type: ignore[no-any-return]

"""Gauss-Seidel in chunks: f followed inside every chunk, all chunks side by side."""

from __future__ import annotations

from dataclasses import dataclass

from recsolve.solvers.blocks import steps_per_block, sweep
from recsolve.solvers.iterate import Iterate
from recsolve.solvers.method import Solver
from recsolve.solvers.problem import Problem
from recsolve.solvers.settings import whole_number
from recsolve.solvers.state import State


@dataclass(frozen=True)
class Chunks(State):
    """How many steps a chunk has."""

    steps: int


@dataclass(frozen=True, kw_only=True)
class GaussSeidel(Solver[Iterate, Chunks]):
    """h[t] <- f(new h[t-1], u[t]) inside a chunk, f(h[t-1], u[t]) at its first step.

    Chunks of one step are Jacobi's iteration, one chunk is the sequential loop. Every iteration makes
    one more chunk exact.

    Parameters
    ----------
    chunk : int or None
        m, how many steps a chunk has, at least 1; None: about sqrt(T).

    Raises
    ------
    ValueError
        For another ``chunk``.

    Examples
    --------
    >>> import numpy as np, recsolve as rs
    >>> cell = rs.cells.GRU.random(input_size=3, hidden_size=4, rng=0)
    >>> rec = cell.recurrence(np.random.default_rng(0).standard_normal((60, 3)))
    >>> rs.solve(rec, method=rs.solvers.GaussSeidel(chunk=20)).nit <= 3  # there are three chunks
    True
    """

    name = "gauss_seidel"
    group = "in blocks"
    place = 1
    matrix = "J inside chunks, 0 between them"
    cite = "Song, Meng, Liao, Ermon, ICML 2021 (arXiv 2002.03629)"
    finite_termination = True
    exact_on_affine = "none"
    graphs = False

    chunk: int | None = None

    def __post_init__(self) -> None:
        whole_number("chunk", self.chunk, 1, optional=True)

    def init(self, problem: Problem, iterate: Iterate) -> Chunks:
        return Chunks(steps_per_block(self.chunk, problem.recurrence.length))

    def step(self, problem: Problem, iterate: Iterate, state: Chunks) -> tuple[Iterate, Chunks]:
        firsts = problem.recurrence.length % state.steps  # a chunk's first step follows the end of the chunk before
        return problem.advance(iterate, sweep(problem, iterate.values, state.steps, firsts)), state

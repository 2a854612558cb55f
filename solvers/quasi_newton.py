"""Quasi-Newton (quasi-DEER): A is a cheap part of the Jacobian."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial

import numpy as np

from recsolve.base.arrays import Array, namespace
from recsolve.jacobians import ByParent, Diagonal, Jacobian
from recsolve.recurrence.engine import Verdict
from recsolve.solvers.iterate import Linearised
from recsolve.solvers.method import CorrectionSolver
from recsolve.solvers.problem import Problem
from recsolve.solvers.settings import one_of, whole_number

APPROXIMATIONS = ("block", "diagonal", "hutchinson")


@dataclass(frozen=True, kw_only=True)
class QuasiNewton(CorrectionSolver[Linearised]):
    """A[t] = the k x k block of each unit (the diagonal when k = 1): work linear in the width of the state.

    On a GPU, cells whose mixings see the state itself (torch's) are swept by kernels compiled for them if there is no
    callback and no trace. Early sweeps may round the factors of their products to eleven bits, the last one does not.

    Parameters
    ----------
    approximation : {"block", "diagonal", "hutchinson"} or callable
        ``diagonal`` drops the coupling of a unit's components. ``hutchinson`` estimates the diagonal as the mean of
        z (J z) over random signs z, from products with J alone. A callable gets J and
        returns A, for the rows of J or for all (T, *batch), of which those that are left are taken.
    probes : int
        Number of random signs of ``hutchinson``.
    seed : int
        Their seed, at least 0; each iteration draws its own.

    Raises
    ------
    ValueError
        For another approximation, or a number outside its bounds.

    Examples
    --------
    >>> import numpy as np, recsolve as rs
    >>> cell = rs.cells.GRU.random(input_size=3, hidden_size=4, rng=0)
    >>> rec = cell.recurrence(np.random.default_rng(0).standard_normal((60, 3)))
    >>> rs.solve(rec, method="quasi_newton", options={"approximation": "hutchinson", "probes": 2}).success
    True
    >>> rs.solve(rec, method=rs.solvers.QuasiNewton(approximation=lambda J: J.diagonal().scale(0.9))).success
    True
    """

    name = "quasi_newton"
    group = "newton-type"
    place = 2
    matrix = "k x k block of J per unit, or another part of it"
    cite = "Gonzalez, Warrington, Smith, Linderman, NeurIPS 2024 (arXiv 2407.19115)"
    finite_termination = True
    exact_on_affine = "per-unit"

    approximation: str | Callable[[Jacobian], Jacobian] = "block"
    probes: int = 1
    seed: int = 0

    def __post_init__(self) -> None:
        one_of("approximation", self.approximation, APPROXIMATIONS, or_callable=True)
        whole_number("probes", self.probes, 1)
        whole_number("seed", self.seed, 0)

    def direct(self, problem: Problem) -> Verdict | None:
        return problem.engine.solve("sweeps", problem.tolerance) if self.approximation == "block" else None

    def preconditioner(self, problem: Problem, iterate: Linearised) -> Jacobian:
        J = iterate.jacobian
        if callable(self.approximation):
            return problem.fitting(self.approximation(J), "approximation")
        if self.approximation == "hutchinson":
            estimate = partial(hutchinson, problem, probes=self.probes, seed=self.seed)
            return J.map(lambda A: estimate(A.matvec)) if isinstance(J, ByParent) else estimate(J.matvec)
        return J.block() if self.approximation == "block" else J.diagonal()


def hutchinson(problem: Problem, product: Callable[[Array], Array], probes: int, seed: int) -> Diagonal:
    """Return the mean of z (J z) over random signs z, exact where J is diagonal since z z = 1."""
    rec = problem.recurrence
    xp, rng = namespace(rec.initial), np.random.default_rng((seed, problem.counts["njev"]))
    total = xp.zeros(rec.shape, dtype=rec.dtype)
    for _ in range(probes):
        z = xp.asarray((2 * rng.integers(0, 2, rec.shape) - 1).astype(rec.dtype))
        problem.counts["njvp"] += 1
        total += z * product(z)
    return Diagonal(total / rec.dtype.type(probes), rec.layout)

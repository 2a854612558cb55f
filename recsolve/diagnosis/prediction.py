"""How many iterations each solver will need, from a pilot.

Solvers with a fixed matrix A near the solution obey the error recursion e <- (I - A S)^-1 (J - A) S e, S the shift by
one step (Gonzalez et al. 2025, "all as linear dynamical systems", proposition 3): it is run on the pilot, on all of it
and on a quarter, and the counts are extrapolated in log T. The others are run on the pilot themselves.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from math import ceil
from typing import Any

import numpy as np

from recsolve import solvers
from recsolve.base.arrays import Array, namespace
from recsolve.base.status import Status
from recsolve.base.tolerance import tolerance_for
from recsolve.diagnosis.budget import Budget, OutOfTimeError
from recsolve.jacobians import Identity, Jacobian, Zero
from recsolve.kernels.affine_scan import affine_scan
from recsolve.recurrence.base import Recurrence
from recsolve.recurrence.current import checked_once
from recsolve.solvers.blocks import BlockSolver, steps_per_block
from recsolve.solvers.driver import Run
from recsolve.solvers.problem import Problem

_PATIENCE = 20  # that of a solve
_ENDED = 0.7  # a pilot that takes this share of its steps was ended row by row by the pin, and did not converge


def fixed_matrices(short: Recurrence, J: Jacobian) -> dict[str, Jacobian]:
    """Return the matrices A that stay the same near the solution, by solver (the chord's is that of the first iterate).

    Parameters
    ----------
    short : Recurrence
        That of the pilot.
    J : Jacobian
        Along its trajectory.
    """
    guess = short.guess()
    return {
        "jacobi": Zero(guess, short.layout),
        "picard": Identity(guess, short.layout),
        "quasi_newton": J.block(),
        "clipped_newton": J.diagonal().clip(-1.0, 1.0),
        "scaled_newton": J.scale(1.0 - solvers.ScaledNewton().k),
        "chord": short.linearise(guess)[1],
    }


class Predictor:
    """Predicts the iterations of solvers for all steps of a recurrence from its first ones.

    Parameters
    ----------
    recurrence : Recurrence
    truth : array, shape (pilot, *batch, *event)
        The trajectory over the pilot.
    J : Jacobian
        Along it.
    rate : float
        The largest Lyapunov exponent, per step.
    tol : float or None
        As in :func:`recsolve.solve`.
    budget : Budget
        The time that is left; each prediction may take half of it.
    """

    def __init__(
        self, recurrence: Recurrence, truth: Array, J: Jacobian, rate: float, tol: float | None, budget: Budget
    ):
        self.recurrence, self.truth, self.J, self.rate, self.tol = recurrence, truth, J, rate, tol
        self.budget = budget
        # Once changes are below rounding, residuals are 0 and any tolerance is met.
        self.test = tolerance_for(recurrence, tol).above_rounding(recurrence)
        self.fixed = fixed_matrices(recurrence.window(0, len(truth)), J)
        self._known: dict[str, int | None] = {}

    def __getitem__(self, name: str) -> int:
        """Return the iterations that a solver with its default settings is expected to take, at most T.

        Raises
        ------
        ValueError
            For an unknown solver.
        OutOfTimeError
            When its half of the time that is left is not enough, or was not when it was asked for before.
        """
        if name not in self._known:
            self._known[name] = None
            with self.budget.share(0.5):
                self._known[name] = min(self._predict(name), self.recurrence.length)
        count = self._known[name]
        if count is None:
            raise OutOfTimeError
        return count

    def _predict(self, name: str) -> int:
        if name == "windowed":
            return self._windowed()
        if name == "chain":
            return self._chain()
        if name in self.fixed:
            A = self.fixed[name]
            # Where A = J the linear recursion sees one iteration, and the curvature of f decides as for newton.
            return max(self._extrapolate(lambda size: self._recursion(A, size)), self["newton"])
        solver = solvers.get(name)
        if isinstance(solver, (BlockSolver, solvers.GaussSeidel)):
            return self._in_blocks(solver)
        return self._extrapolate(lambda size: self._run(solver, size))

    def _extrapolate(self, count: Callable[[int], tuple[int, bool]]) -> int:
        """Return the count for all T steps from those at the pilot and at a quarter of it, which is two halvings."""
        length, T = len(self.truth), self.recurrence.length
        quarter, _ = count(max(length // 4, 1))
        full, shrinks = count(length)
        if full >= _ENDED * length and length < T:
            if shrinks and self.rate < 0:  # it would converge in a longer one, no slower than perturbations die out
                return int(min(max(full, np.ceil(np.log(self.test.atol) / self.rate)), T))
            return max(full, round(T * full / length))
        per_doubling = max(full - quarter, 0) / 2
        return round(full + per_doubling * float(np.log2(T / length)))

    def _run(self, solver: solvers.Method, size: int) -> tuple[int, bool]:
        """Return the iterations that a solver takes on the first steps; all of them if it takes most."""
        count = self._solve(solver, size, ceil(_ENDED * size) + 1)
        return size if count is None else count, False

    def _solve(self, solver: solvers.Method, size: int, limit: int) -> int | None:
        """Return the iterations of a solve of the first steps, which ends when the time is up; None if it fails."""
        short = self.recurrence.window(0, size)
        with np.errstate(all="ignore"), checked_once():
            problem = Problem(short, tolerance_for(short, self.tol), pin=True, jacobian=False)
            problem.counts = self.budget.counter(problem.counts)
            run = Run(problem, limit, _PATIENCE)
            _, status = run.to_end(solver, None)
        return run.nit if status is Status.CONVERGED else None

    def _in_blocks(self, solver: Any) -> int:
        """Return the count of a solver whose blocks are as long as they will be for all T."""
        T, length = self.recurrence.length, len(self.truth)
        name = "chunk" if isinstance(solver, solvers.GaussSeidel) else "block"
        m = steps_per_block(None, T, getattr(solver, "levels", 2))
        count = self._solve(replace(solver, **{name: m}), length, length + 2) or length
        if isinstance(solver, solvers.AdaptiveShooting):  # more blocks do not take more iterations, but become longer
            return count
        blocks, all_blocks = ceil(length / m), ceil(T / m)
        in_one = 2 if getattr(solver, "relaxation", "F") == "FCF" else 1  # blocks that an iteration makes exact
        return count if count < max(_ENDED * blocks / in_one, 2) else round(all_blocks * count / blocks)

    def _windowed(self) -> int:
        """Return the mean count in the windows of a pilot that has four, times the number of windows."""
        T, window, length = self.recurrence.length, solvers.Windowed().window, len(self.truth)
        if window >= T:
            return self["newton"]
        solver = solvers.Windowed(window=max(length // 4, 1))
        return ceil(self._run(solver, length)[0] / 4 * T / window)

    def _chain(self) -> int:
        """Return the sum over the methods of a chain up to the first that stays within its share."""
        chain, spent = solvers.Chain(), 0
        for method in chain.methods[:-1]:
            count = self[str(method)]
            if count <= chain.iterations:
                return spent + count
            spent += chain.iterations
        return spent + 1

    def _recursion(self, A: Jacobian, size: int) -> tuple[int, bool]:
        """Return after how many steps the residual of the error recursion meets the tolerance, or is below rounding.

        Also returns whether the error was shrinking half way, where the exact front from the start has not arrived.
        """
        short, truth = self.recurrence.window(0, size), self.truth[:size]
        A, J, xp = A[:size], self.J[:size], namespace(truth)
        starts = short.over_event(short.starts)
        e = short.guess() - truth
        first, shrinks = float(abs(e).max()), True
        for count in range(size):
            self.budget.check()
            if count == max(size // 2, 1):
                shrinks = float(abs(e).max()) < 0.5 * first
            before = xp.empty_like(e)
            before[1:], before[:1] = e[:-1], 0
            before = xp.where(starts, e.dtype.type(0), before)
            change = J.matvec(before)
            if bool(self.test.met(truth, truth, change - e).all()):
                return count, shrinks
            e = affine_scan(A, change - A.matvec(before), reset=starts)
            e = xp.where(xp.isfinite(e), e, e.dtype.type(1e30))  # an overflow stays far from the tolerance
        return size, shrinks

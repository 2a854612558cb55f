"""Triangular Anderson acceleration: a causal combination of the last Jacobi steps."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np

from recsolve.arrays import Array, namespace
from recsolve.solvers.base import Solver
from recsolve.solvers.problem import Iterate, Problem


@dataclass(frozen=True, kw_only=True)
class TriangularAnderson(Solver):
    """h <- F - dF gamma[t], where gamma[t] fits the residuals up to time t only, from the last changes of F and r.

    With dF and dR the last m changes of F and of the residual, gamma[t] minimises the sum over s <= t of
    |r[s] - dR[s] gamma|^2. Its m x m Gram matrices are prefix sums, so a step sees its past alone; exact rows and the
    one after them take F, which keeps the method exact within T steps.

    Parameters
    ----------
    memory : int
        m, how many changes are kept.
    ridge : float
        Regularisation relative to the Gram matrix, for changes that are nearly parallel.
    """

    name = "triangular_anderson"
    matrix = "0, accelerated by the last steps"
    cite = "Tang et al. 2024 (ParaTAA), after Walker and Ni, SIAM J. Numer. Anal. 49 (2011)"
    finite_termination = True
    exact_on_affine = "none"
    needs_jacobian = False

    memory: int = 3
    ridge: float = 1e-12

    def __post_init__(self) -> None:
        if self.memory < 1:
            raise ValueError(f"memory is {self.memory}; wanted at least 1")
        if not self.ridge > 0:
            raise ValueError(f"ridge is {self.ridge}; wanted a number > 0")

    def init(self, problem: Problem, iterate: Iterate) -> list[Iterate]:
        """Return the iterates kept, the newest last."""
        return []

    def step(self, problem: Problem, iterate: Iterate, state: Any) -> tuple[Iterate, Any]:
        kept = [*state, iterate][-(self.memory + 1) :]
        proposal = iterate.values
        if len(kept) > 1:
            rec, xp = problem.recurrence, namespace(proposal)
            plain = rec.over_event(iterate.leading | iterate.front)
            proposal = xp.where(plain, proposal, proposal - self._accelerate(rec, kept))
        return problem.advance(iterate, proposal), kept

    def _accelerate(self, rec: Any, kept: list[Iterate]) -> Array:
        """Return dF gamma for every t."""
        xp = namespace(kept[-1].values)
        pairs = list(zip(kept[1:], kept[:-1], strict=True))
        dF = xp.stack([new.values - old.values for new, old in pairs], axis=-1)
        dR = xp.stack([new.residual - old.residual for new, old in pairs], axis=-1).astype(np.float64)
        r = kept[-1].residual.astype(np.float64)[..., None]
        flat = dR.reshape(*dR.shape[: 1 + len(rec.batch)], rec.layout.size, len(pairs))
        rows = flat.swapaxes(-1, -2)
        gram = xp.cumsum(rows @ flat, axis=0)
        moments = xp.cumsum(rows @ r.reshape(*flat.shape[:-1], 1), axis=0)
        # A row whose sums are not finite has no gamma; it becomes NaN, and the guard gives it F.
        size = xp.trace(gram, axis1=-2, axis2=-1)[..., None, None]
        usable = xp.isfinite(size) & xp.isfinite(moments).all(axis=(-2, -1), keepdims=True)
        eye = xp.eye(len(pairs))
        regular = xp.where(usable, gram + (self.ridge * size + np.finfo(np.float64).tiny) * eye, eye)
        gamma = xp.linalg.solve(regular, xp.where(usable, moments, np.nan))[..., 0]
        spread = gamma.reshape(*gamma.shape[:-1], *(1,) * len(rec.layout.event), len(pairs))
        return (dF * spread).sum(axis=-1).astype(rec.dtype)  # type: ignore[no-any-return]

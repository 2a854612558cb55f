"""Anderson acceleration: a combination of the last Jacobi steps, one for all times or one for each."""

from __future__ import annotations

from abc import abstractmethod
from dataclasses import dataclass

import numpy as np

from recsolve.base.arrays import Array, namespace
from recsolve.solvers.iterate import Iterate
from recsolve.solvers.method import Solver
from recsolve.solvers.problem import Problem
from recsolve.solvers.settings import number, whole_number
from recsolve.solvers.state import PerRow, State


@dataclass(frozen=True)
class Kept(State):
    """The last iterates, the newest last."""

    iterates: PerRow[tuple[Iterate, ...]] = ()


@dataclass(frozen=True, kw_only=True)
class _Anderson(Solver[Iterate, Kept]):
    """h <- F - dF gamma, where dF and dR are the last m changes of F and of r, and gamma fits dR gamma to r."""

    group = "fixed point"
    matrix = "0, accelerated by the last steps"
    exact_on_affine = "none"
    rowwise = True

    memory: int = 3
    ridge: float = 1e-12

    def __post_init__(self) -> None:
        whole_number("memory", self.memory, 1)
        number("ridge", self.ridge, 1e-15)  # with less, changes that are parallel make the system singular

    @abstractmethod
    def total(self, problem: Problem, products: Array) -> Array:
        """Return the sum over the times that gamma[t] may look at, of products (T, *batch, ...)."""

    def safeguard(self, problem: Problem, iterate: Iterate, proposal: Array) -> Array:
        """Return the proposal, with F in rows that must not be accelerated."""
        return proposal

    def init(self, problem: Problem, iterate: Iterate) -> Kept:
        return Kept()

    def step(self, problem: Problem, iterate: Iterate, state: Kept) -> tuple[Iterate, Kept]:
        kept = (*state.iterates, iterate)[-(self.memory + 1) :]
        proposal = iterate.values
        if len(kept) > 1:
            proposal = self.safeguard(problem, iterate, proposal - self._accelerate(problem, kept))
        return problem.advance(iterate, proposal), Kept(kept)

    def _accelerate(self, problem: Problem, kept: tuple[Iterate, ...]) -> Array:
        """Return dF gamma for every t."""
        xp, rec = namespace(kept[-1].values), problem.recurrence
        pairs = list(zip(kept[1:], kept[:-1], strict=True))
        dF = xp.stack([new.values - old.values for new, old in pairs], axis=-1)
        dR = xp.stack([new.residual - old.residual for new, old in pairs], axis=-1).astype(np.float64)
        dR = dR.reshape(*dR.shape[: 1 + len(rec.batch)], rec.layout.size, len(pairs))
        r = kept[-1].residual.astype(np.float64).reshape(*dR.shape[:-1], 1)
        # Rows that are not finite do not enter gamma; the guard gives them F. Nor do rows that have nothing to gain.
        known = (xp.isfinite(dR).all(axis=-1, keepdims=True) & xp.isfinite(r)).all(axis=-2, keepdims=True)
        known &= (r != 0).any(axis=-2, keepdims=True)
        dR, r = xp.where(known, dR, 0.0), xp.where(known, r, 0.0)
        products = dR.swapaxes(-1, -2) @ dR, dR.swapaxes(-1, -2) @ r
        sums = self.total(problem, xp.concatenate(products, axis=-1))
        gram, moments = sums[..., :-1], sums[..., -1:]
        size = xp.trace(gram, axis1=-2, axis2=-1)[..., None, None]
        usable = xp.isfinite(size) & xp.isfinite(moments).all(axis=(-2, -1), keepdims=True)  # they may overflow
        eye = xp.eye(len(pairs))
        regular = xp.where(usable, gram + (self.ridge * size + np.finfo(np.float64).tiny) * eye, eye)
        gamma = xp.linalg.solve(regular, xp.where(usable, moments, np.nan))[..., 0]
        spread = gamma.reshape(*gamma.shape[:-1], *(1,) * len(rec.layout.event), len(pairs))
        return (dF * spread).sum(axis=-1).astype(rec.dtype)  # type: ignore[no-any-return]


@dataclass(frozen=True, kw_only=True)
class Anderson(_Anderson):
    """h <- F - dF gamma with one gamma for all times (type II): it minimises |r - dR gamma| over the trajectory.

    Late residuals weigh on early steps, so the method is not causal, and exact within T steps only by the pin.

    Parameters
    ----------
    memory : int
        m, how many changes are kept.
    ridge : float
        Regularisation relative to the Gram matrix, greater than 1e-15, for changes that are nearly parallel.

    Raises
    ------
    ValueError
        For a number outside its bounds.

    Examples
    --------
    >>> import numpy as np, recsolve as rs
    >>> cell = rs.cells.GRU.random(input_size=3, hidden_size=4, rng=0)
    >>> rec = cell.recurrence(np.random.default_rng(0).standard_normal((60, 3)))
    >>> rs.solve(rec, method="anderson", options={"memory": 2}).success
    True
    """

    name = "anderson"
    place = 3
    cite = "Walker and Ni, SIAM J. Numer. Anal. 49 (2011)"
    finite_termination = False
    causal = False

    def total(self, problem: Problem, products: Array) -> Array:
        return problem.total(products)


@dataclass(frozen=True, kw_only=True)
class TriangularAnderson(_Anderson):
    """h <- F - dF gamma[t], where gamma[t] fits the residuals up to time t only.

    Its m x m Gram matrices are prefix sums, so a step sees its past alone; exact rows and the one after them take F,
    which keeps the method exact within T steps.

    Parameters
    ----------
    memory, ridge
        As for ``anderson``.

    Raises
    ------
    ValueError
        For a number outside its bounds.

    Examples
    --------
    >>> import numpy as np, recsolve as rs
    >>> cell = rs.cells.GRU.random(input_size=3, hidden_size=4, rng=0)
    >>> rec = cell.recurrence(np.random.default_rng(0).standard_normal((60, 3)))
    >>> sol = rs.solve(rec, method="triangular_anderson")
    >>> sol.success, sol.nit <= 60
    (True, True)
    """

    name = "triangular_anderson"
    place = 4
    cite = "Tang et al. 2024 (ParaTAA), after Walker and Ni, SIAM J. Numer. Anal. 49 (2011)"
    finite_termination = True
    graphs = False

    def safeguard(self, problem: Problem, iterate: Iterate, proposal: Array) -> Array:
        plain = problem.recurrence.over_event(iterate.leading | iterate.front)
        return namespace(proposal).where(plain, iterate.values, proposal)  # type: ignore[no-any-return]

    def total(self, problem: Problem, products: Array) -> Array:
        return problem.running_total(products)

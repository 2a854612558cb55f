"""Newton-Krylov: the Newton step from products with the Jacobian alone."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

from recsolve.base.arrays import Array, namespace
from recsolve.kernels.affine_scan import affine_scan
from recsolve.solvers.iterate import Iterate
from recsolve.solvers.method import Solver
from recsolve.solvers.problem import Problem
from recsolve.solvers.quasi_newton import hutchinson
from recsolve.solvers.settings import number, whole_number

Product = Callable[[Array], Array]


@dataclass(frozen=True, kw_only=True)
class NewtonKrylov(Solver[Iterate, None]):
    """Solve d[t] - J[t] d[t-1] = r[t] by GMRES, preconditioned by the scan with the block part of J.

    Nothing of size n x n is formed: for wide dense states. Where only products with J are known, as for a user's
    function, its diagonal is estimated from two of them. Inner products couple all times, so the method is not causal;
    yet all directions vanish at exact rows, which stay as they are.

    Parameters
    ----------
    dimension : int
        Most directions of the Krylov space; each keeps two trajectories in memory.
    forcing : float
        In (0, 1): the step is solved to min(forcing, rms r) of |r|, which keeps the convergence superlinear.

    Raises
    ------
    ValueError
        For a number outside its bounds.

    Examples
    --------
    >>> import numpy as np, recsolve as rs
    >>> cell = rs.cells.GRU.random(input_size=3, hidden_size=4, rng=0)
    >>> rec = cell.recurrence(np.random.default_rng(0).standard_normal((60, 3)))
    >>> sol = rs.solve(rec, method="newton_krylov", options={"dimension": 8})
    >>> sol.success, sol.stats["njvp"] > sol.nit
    (True, True)
    """

    name = "newton_krylov"
    group = "newton-type"
    place = 3
    matrix = "J, by GMRES from products alone"
    cite = "Knoll and Keyes, J. Comput. Phys. 193 (2004); Saad, SIAM J. Sci. Comput. 14 (1993)"
    finite_termination = True
    exact_on_affine = "per-unit"
    causal = False
    graphs = False

    dimension: int = 12
    forcing: float = 0.1

    def __post_init__(self) -> None:
        whole_number("dimension", self.dimension, 1)
        number("forcing", self.forcing, 0, 1)

    def step(self, problem: Problem, iterate: Iterate, state: None) -> tuple[Iterate, None]:
        rec = problem.recurrence
        product, block = rec.operator(iterate.states)
        problem.counts["njev"] += 1
        block = hutchinson(problem, product, 2, 0) if block is None else block
        cut = rec.over_event(problem.cut(iterate))

        def carried(d: Array) -> Array:
            problem.counts["njvp"] += 1
            return problem.carried(product, d, cut)

        def precondition(v: Array) -> Array:
            problem.counts["nscan"] += 1
            return _finite(affine_scan(block, v, reset=cut))

        r = _finite(iterate.residual)
        d = self._gmres(problem, lambda d: _finite(d - carried(d)), precondition, r)
        return problem.advance(iterate, iterate.values + carried(d)), state

    def _gmres(self, problem: Problem, operator: Product, precondition: Product, r: Array) -> Array:
        """Return d with operator(d) close to r, every sequence by itself (flexible GMRES, modified Gram-Schmidt)."""
        xp, sequences = namespace(r), problem.recurrence.batch
        axes = (0, *problem.event_axes)

        def dot(a: Array, b: Array) -> Array:
            return (a.astype(np.float64) * b).sum(axis=axes)  # type: ignore[no-any-return]

        def times(a: Array, number: Array) -> Array:
            spread = number.reshape(1, *sequences, *(1,) * (r.ndim - 1 - len(sequences)))
            return (a * spread).astype(r.dtype)

        size = xp.sqrt(dot(r, r))
        mean = size / max(r.size // max(size.size, 1), 1) ** 0.5 / problem.tolerance.unit
        wanted = xp.minimum(self.forcing, mean)
        basis, directions = [times(r, _reciprocal(size))], []
        H = xp.zeros((*sequences, self.dimension + 1, self.dimension))
        for j in range(self.dimension):
            directions.append(precondition(basis[j]))
            w = operator(directions[j])
            for i, v in enumerate(basis):
                H[..., i, j] = dot(v, w)
                w = w - times(v, H[..., i, j])
            length = xp.sqrt(dot(w, w))
            H[..., j + 1, j] = length
            basis.append(times(w, _reciprocal(length)))
            small, rhs = H[..., : j + 2, : j + 1], xp.zeros((*sequences, j + 2, 1))
            rhs[..., 0, 0] = size
            y = xp.linalg.pinv(small) @ rhs  # of a few rows, and harmless where a direction has vanished
            left = xp.sqrt(((rhs - small @ y) ** 2).sum(axis=(-2, -1)))
            if not (left > wanted * size).any():
                break
        return sum(times(z, y[..., j, 0]) for j, z in enumerate(directions))  # type: ignore[return-value]


def _finite(v: Array) -> Array:
    """Return v with rows that are not finite left out of the Krylov space; the guard gives them F."""
    xp = namespace(v)
    return xp.where(xp.isfinite(v), v, v.dtype.type(0))  # type: ignore[no-any-return]


def _reciprocal(size: Array) -> Array:
    xp = namespace(size)
    return xp.where(size > 0, 1.0 / xp.where(size > 0, size, 1.0), 0.0)  # type: ignore[no-any-return]

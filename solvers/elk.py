"""ELK: Newton steps damped by a Kalman filter, and Levenberg-Marquardt steps by the smoother."""

from __future__ import annotations

from dataclasses import dataclass, replace
from math import prod

import numpy as np

from recsolve.base.arrays import Array, namespace
from recsolve.jacobians import Block, Diagonal, Jacobian, LaneDense
from recsolve.kernels.affine_scan import affine_scan
from recsolve.kernels.backends import scan as chosen_scan
from recsolve.kernels.monoids.monoid import MONOIDS
from recsolve.kernels.monoids.riccati import identity_plus, inverse, product, transpose
from recsolve.solvers.globalised import Globalised, Merit, Setting
from recsolve.solvers.iterate import Iterate, Linearised
from recsolve.solvers.problem import Problem
from recsolve.solvers.settings import number, one_of, whole_number
from recsolve.solvers.state import PerSequence

APPROXIMATIONS = ("none", "block", "diagonal")
COVARIANCES = ("full", "diagonal")
_SMALL = 16  # numbers of a lane up to which covariances are full: they cost n^3 for every step, in order
_FALL = 0.5  # of the merit in an iteration, with less of which it is slow
_TOGETHER = 1 << 20  # numbers of the Jacobians that are squared at a time


@dataclass(frozen=True)
class Damping(Setting):
    """The damping of every sequence, and in how many iterations its merit has hardly fallen, (1, *batch, 1...)."""

    slow: PerSequence[Array]


@dataclass(frozen=True, kw_only=True)
class _Regularised(Globalised[Jacobian]):
    """Steps d of the model d[t] = J[t] d[t-1] + r[t] + noise, observed to be zero with precision lambda.

    Small residuals far from the solution are a valley that no step leaves without residuals that grow for a while: what
    remembers has many of them, and damped steps creep along its floor for as many iterations as there are steps. After
    a few slow iterations a sequence goes on undamped, whatever its merit does.
    """

    finite_termination = False
    exact_on_affine = "none"
    graphs = False
    setting = "damping"

    damping: float | None = None
    approximation: str = "none"
    covariance: str | None = None
    slow: int | None = 5

    def __post_init__(self) -> None:
        super().__post_init__()
        whole_number("slow", self.slow, 0, optional=True)
        number("damping", self.damping, 0, closed=True, optional=True)
        one_of("approximation", self.approximation, APPROXIMATIONS)
        if self.covariance is not None:
            one_of("covariance", self.covariance, COVARIANCES)

    @property
    def first(self) -> float:
        return 0.1 if self.damping is None else self.damping

    def begin(self, problem: Problem, iterate: Linearised) -> Jacobian:
        """Return A, the Jacobian or the part of it that is used; with full covariances in a structure with entries."""
        J = iterate.jacobian
        if self.approximation == "diagonal":
            return J.diagonal()
        if self.approximation == "block" or J.rank <= Block.rank:
            return J.block()
        return J.lane_dense() if self._full(J) else J

    def _full(self, A: Jacobian) -> bool:
        """Return whether covariances are matrices: k x k ones of units always, n x n ones if asked for or small."""
        small = A.layout.lane_width <= _SMALL if self.covariance is None else self.covariance == "full"
        return type(A) in (Diagonal, Block) or small

    def _in_units(self, problem: Problem, iterate: Linearised, A: Jacobian, damping: Array, merit: Merit) -> Array:
        """Return the correction, with noise and damping in the units of each component."""
        units = merit.units
        if units is None:
            return self.correction(problem, iterate, A, damping)
        scaled = replace(iterate, residual=merit.in_units(iterate.residual))
        return units * self.correction(problem, scaled, A.between(1 / units, units), damping)

    def step(self, problem: Problem, iterate: Linearised, state: Setting) -> tuple[Linearised, Setting]:
        merit = Merit.at(problem, iterate)
        if self.damping is not None:
            d = self._in_units(problem, iterate, self.begin(problem, iterate), state.value, merit)
            return problem.advance(iterate, iterate.states + d), state
        assert isinstance(state, Damping)  # what init returns
        found, new = super().step(problem, iterate, state)
        before = merit.of(iterate.residual)
        slow = state.slow + ((before > 0) & ~(merit.of(found.residual) <= (1 - _FALL) * before))
        lost = False if self.slow is None else slow >= self.slow
        return found, Damping(namespace(slow).where(lost, 0.0, new.value), slow)

    def init(self, problem: Problem, iterate: Iterate) -> Damping:
        first = super().init(problem, iterate).value
        return Damping(first, namespace(first).zeros_like(first, dtype=int))

    def unproven(self, setting: Array) -> Array:
        return setting == 0  # type: ignore[no-any-return]

    def propose(self, problem: Problem, iterate: Linearised, shared: Jacobian, setting: Array) -> tuple[Array, Array]:
        rec, xp, merit = problem.recurrence, namespace(iterate.states), Merit.at(problem, iterate)
        undamped = setting == 0
        if undamped.all():
            return problem.correct(iterate, shared), xp.ones_like(setting)
        before = merit.of(iterate.residual)
        # Damping in proportion to the residual keeps convergence quadratic (Fan and Yuan, Computing 74, 2005).
        size = xp.sqrt(before / xp.maximum(merit.rows.sum(axis=0, keepdims=True) * rec.layout.size, 1))
        size = size if merit.units is not None else size / problem.tolerance.unit
        d = self._in_units(problem, iterate, shared, setting * xp.minimum(size, 1.0), merit)
        left = iterate.residual + problem.carried(shared.matvec, d, rec.over_event(problem.cut(iterate))) - d
        fall = 1.0 - merit.of(left) / before
        proposal = iterate.states + d
        if undamped.any():
            proposal = xp.where(undamped, problem.correct(iterate, shared), proposal)
        return proposal, xp.where(fall > 0, fall, xp.nan)

    def after_refusal(self, setting: Array) -> Array:
        return 4.0 * setting

    def after_step(self, setting: Array, ratio: Array) -> Array:
        # Nielsen's rule, IMM-REP-1999-05: smooth in the ratio, a third where the model was right.
        return setting * namespace(setting).clip(1.0 - (2.0 * ratio - 1.0) ** 3, 1 / 3, 2.0)  # type: ignore[no-any-return]

    def correction(self, problem: Problem, iterate: Linearised, A: Jacobian, damping: Array) -> Array:
        """Return the filtered d, with d = r in rows that are cut from the one before."""
        cut, r = problem.cut(iterate), iterate.residual
        damping = namespace(r).where(damping < np.finfo(r.dtype).eps ** 2, 0.0, damping)  # below, products underflow
        problem.counts["nscan"] += 2
        if self._full(A):
            K = gains(problem, A, damping, cut)
            gain, damped = _like(A, K), _like(A, product(identity_plus(-K), _matrices(A)))
        else:
            gain = variance_gains(problem, A, damping, cut)
            damped = A.between(1 - gain.data, namespace(r).ones_like(gain.data[:1]))
        d = affine_scan(damped, r - gain.matvec(r), reset=problem.recurrence.over_event(cut))
        return self.smooth(problem, iterate, A, gain, damping, d)

    def smooth(
        self, problem: Problem, iterate: Linearised, A: Jacobian, gain: Jacobian, damping: Array, d: Array
    ) -> Array:
        """Return the smoother's d, which uses later steps; the filter's does not."""
        return d


@dataclass(frozen=True, kw_only=True)
class Elk(_Regularised):
    """h <- h + d, d the filter mean of a linear-Gaussian model: (I - K[t]) J[t] in place of J[t], a damped causal step.

    Parameters
    ----------
    damping : float or None
        lambda >= 0, the precision with which the model sees h unchanged. Any fixed lambda > 0 gives up quadratic
        convergence and exactness; None adapts it by the gain ratio and drives it to 0 with the residual.
    approximation : {"none", "block", "diagonal"}
        The part of J that is filtered. With "diagonal" this is quasi-ELK, and the covariances are one bounded scan of
        Moebius maps.
    covariance : {"full", "diagonal"} or None
        Where A is not one of units: the n x n covariances of the paper, which cost n^3 for every step, or their
        diagonals, n^2. On networks that remember, both take about as many iterations. None: "full" up to 16 numbers in
        a lane.
    slow : int or None
        After so many iterations in which the merit of a sequence fell by less than half, its steps are no longer damped
        nor have to prove themselves: those of Newton's method with this A, which end within T. None: never; a residual
        that is small far from the solution, as recurrences that remember have, may then take T iterations.
    trials, decrease
        See :class:`recsolve.solvers.globalised.Globalised`.

    Raises
    ------
    ValueError
        For another approximation, or a number outside its bounds.

    Examples
    --------
    >>> import numpy as np, recsolve as rs
    >>> cell = rs.cells.GRU.random(input_size=3, hidden_size=4, rng=0)
    >>> rec = cell.recurrence(np.random.default_rng(0).standard_normal((60, 3)))
    >>> sol = rs.solve(rec, method="elk", options={"approximation": "diagonal", "trace": True})  # quasi-ELK
    >>> sol.success, bool(sol.trace.settings["damping"][-1] < sol.trace.settings["damping"][0])
    (True, True)
    """

    name = "elk"
    place = 2
    matrix = "(I - K) J, K a Kalman gain"
    cite = "Gonzalez, Warrington, Smith, Linderman, NeurIPS 2024 (arXiv 2407.19115)"


@dataclass(frozen=True, kw_only=True)
class LevenbergMarquardt(_Regularised):
    """h <- h + d, d the smoother's mean: it minimises sum |d[t] - J[t] d[t-1] - r[t]|^2 + lambda |d[t]|^2.

    Two scans forward and one back: a step sees the future.

    Parameters
    ----------
    damping, approximation, covariance, slow, trials, decrease
        As for ``elk``. The smoother minimises the sum with full covariances only.

    Raises
    ------
    ValueError
        As for ``elk``.

    Examples
    --------
    >>> import numpy as np, recsolve as rs
    >>> cell = rs.cells.GRU.random(input_size=3, hidden_size=4, rng=0)
    >>> rec = cell.recurrence(np.random.default_rng(0).standard_normal((60, 3)))
    >>> rs.solve(rec, method="levenberg_marquardt").success
    True
    """

    name = "levenberg_marquardt"
    place = 3
    matrix = "J, regularised: filter and smoother"
    cite = (
        "Särkkä and Svensson, ICASSP 2020 (Levenberg-Marquardt by smoothing); "
        "Särkkä and García-Fernández, IEEE Trans. Automatic Control 66 (2021)"
    )

    def smooth(
        self, problem: Problem, iterate: Linearised, A: Jacobian, gain: Jacobian, damping: Array, d: Array
    ) -> Array:
        if len(d) < 2:
            return d
        rec, xp, ahead = problem.recurrence, namespace(d), A[1:]
        G = self._backwards(problem, ahead, gain, damping)
        # The step ahead says nothing where it does not depend on this one, or is not finite.
        finite = xp.isfinite(d[1:]).all(axis=problem.event_axes, keepdims=True)
        apart = rec.over_event(problem.cut(iterate)[1:]) | ~finite
        innovation = d[:-1] - G.matvec(ahead.matvec(d[:-1]) + iterate.residual[1:])
        problem.counts["nscan"] += 1
        smoothed = d.copy()
        smoothed[:-1] = affine_scan(G, xp.where(apart, d[:-1], innovation), initial=d[-1], reset=apart, reverse=True)
        return smoothed

    def _backwards(self, problem: Problem, ahead: Jacobian, gain: Jacobian, damping: Array) -> Jacobian:
        """Return G[t] = K[t] J[t+1]^T (J[t+1] K[t] J[t+1]^T + lambda I)^-1, and 0 without damping, when K = 0."""
        if isinstance(gain, Diagonal) and not self._full(ahead):  # the inverse is that of variances, K / (1 - K)
            K, xp = gain.data, namespace(gain.data)
            inverse_of_sum = xp.where(K[1:] > 0, (1 - K[1:]) / K[1:], K.dtype.type(0))
            return ahead.transpose().between(K[:-1], inverse_of_sum)
        J, K, xp = _matrices(ahead), _matrices(gain), namespace(damping)
        lam = _over_matrices(problem, damping, K)
        some, zero, one = lam > 0, lam.dtype.type(0), lam.dtype.type(1)
        predicted = product(product(J, K[:-1]), transpose(J))
        ridge = xp.where(some, lam, one) * xp.eye(J.shape[-1], dtype=J.dtype)
        return _like(ahead, xp.where(some, product(product(K[:-1], transpose(J)), inverse(predicted + ridge)), zero))


def gains(problem: Problem, A: Jacobian, damping: Array, cut: Array) -> Array:
    """Return the Kalman gains K[t] of d[t] = A[t] d[t-1] + noise, d observed with precision lambda.

    With M = A K' A^T + lambda I, K = M (I + M)^-1; in this form, rather than that of covariances K / lambda, nothing is
    singular at lambda = 0, where K = 0. A row that is cut from the one before is known (with the pin), so K = 0 there.
    """
    J, xp = _matrices(A), namespace(damping)
    lam = _over_matrices(problem, damping, J)
    eye = xp.eye(J.shape[-1], dtype=J.dtype)
    known = cut.reshape(cut.shape + (1,) * (J.ndim - cut.ndim))
    start = xp.where(known & problem.pin, J.dtype.type(0), lam / (1 + lam)) * eye
    elements = (J / (1 + lam), xp.broadcast_to(start, J.shape), product(transpose(J), J) / (1 + lam))
    with np.errstate(all="ignore"):
        return chosen_scan(MONOIDS["riccati"], elements, reset=known)


def variance_gains(problem: Problem, A: Jacobian, damping: Array, cut: Array) -> Diagonal:
    """Return the gains where covariances are replaced by their diagonals: one product with n x n squares per step.

    With m[t] = (A * A) K[t-1] + lambda, entry by entry, K = m / (1 + m). What the mean is carried by stays A.
    """
    layout, xp = A.layout, namespace(cut)
    per_step = prod(A.leading[1:]) * prod(layout.lanes) * layout.lane_width**2
    vectors = layout.lane_vectors(problem.recurrence.empty()[: len(cut)])
    lanes = (1,) * (vectors.ndim - cut.ndim)
    lam = damping.reshape(cut.shape[1:] + lanes).astype(vectors.dtype)
    known, one, K = cut.reshape(cut.shape + lanes), lam.dtype.type(1), lam * xp.zeros_like(vectors[0])
    start = lam.dtype.type(0) if problem.pin else lam / (1 + lam)
    with np.errstate(all="ignore"):
        for t in range(len(cut)):
            if t % (chunk := max(_TOGETHER // max(per_step, 1), 1)) == 0:
                squares = A[t : t + chunk].lane_dense().data ** 2
            m = (squares[t % chunk] @ K[..., None])[..., 0] + lam
            K = xp.where(m < 1, m / (1 + m), one / (1 + one / m))  # whatever its size
            K = xp.where(known[t], start, K)
            vectors[t] = K
    return Diagonal(layout.from_lane_vectors(vectors), layout)


def _over_matrices(problem: Problem, per_sequence: Array, matrices: Array) -> Array:
    """Reshape numbers (1, *batch, 1...) to broadcast over matrices, in their dtype."""
    batch = per_sequence.shape[: 1 + len(problem.recurrence.batch)]
    return per_sequence.reshape(batch + (1,) * (matrices.ndim - len(batch))).astype(matrices.dtype)


def _matrices(J: Jacobian) -> Array:
    """Return the entries of a Jacobian as matrices on the last two axes, 1 x 1 for a diagonal."""
    if type(J) is Diagonal:
        return J.data[..., None, None]
    if type(J) is Block:
        axis = len(J.leading)
        return namespace(J.data).moveaxis(J.data, (axis, axis + 1), (-2, -1))  # type: ignore[no-any-return]
    return J.lane_dense().data


def _like(J: Jacobian, matrices: Array) -> Jacobian:
    """Return matrices as a Jacobian of the structure of ``J``."""
    if type(J) is Diagonal:
        return Diagonal(matrices[..., 0, 0], J.layout)
    if type(J) is Block:
        axis = len(J.leading)
        return Block(namespace(matrices).moveaxis(matrices, (-2, -1), (axis, axis + 1)), J.layout)
    return LaneDense(matrices, J.layout)

"""The error of a trajectory that ranks share: what one is off by at its end enters the steps of the next."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np

from recsolve.analysis.condition import DIAGONAL
from recsolve.analysis.finer import Finer
from recsolve.analysis.structure_truth import Verification
from recsolve.analysis.trust import Estimate, estimate_together
from recsolve.base.arrays import Array, namespace, to_host
from recsolve.base.shard import Timeline
from recsolve.distributed.carries import row_before
from recsolve.distributed.elements import Elements
from recsolve.distributed.leading import scan_over_ranks
from recsolve.jacobians import Diagonal, Jacobian
from recsolve.kernels.monoids import MONOIDS
from recsolve.recurrence.base import Recurrence
from recsolve.recurrence.scale import sizes_of
from recsolve.solution import Solution

_AFFINE = MONOIDS["affine"]
_HOLDS = (True, None, False)  # the worst last


class Trust(NamedTuple):
    """What is known of the error of the whole.

    Attributes
    ----------
    derivative : Verification
        Whether the Jacobian is the derivative at the steps of all ranks.
    estimate : Estimate
    condition : float
        kappa, where J is diagonal; else NaN.
    """

    derivative: Verification
    estimate: Estimate
    condition: float


def trust_of(local: Solution, axis: Timeline) -> Trust:
    """Return what is known of the error of a trajectory of which this rank holds some steps, on all ranks together.

    Raises
    ------
    RankError
        Where a rank does not ask.
    """
    with np.errstate(all="ignore"), axis.together(f"the error of the solution of {local.recurrence.description}"):
        derivative = _derivative(local, axis)
        if derivative.holds is False or derivative.missing:
            found = Trust(derivative, Estimate(float("nan"), float("nan"), linear=False), float("nan"))
        else:
            own = _Own(local.recurrence, local._iterate.states, axis)
            found = Trust(derivative, *own.estimate())
        axis.ranks.closed()
    return found


def _derivative(local: Solution, axis: Timeline) -> Verification:
    """Return the worst that any rank has found out about the Jacobian."""
    own = local._derivative if axis.length else Verification(True, 0.0)
    numbers = [_HOLDS.index(own.holds), own.missing, own.error]
    found = axis.in_order(axis.ranks.exchange(numbers).numbers()).tolist()
    worst = max(range(axis.size), key=lambda place: (found[place][1], found[place][0]))
    holds, missing, _ = found[worst]
    reason = "" if not holds and not missing else axis.in_order(axis.ranks.words(own.reason))[worst]
    return Verification(_HOLDS[int(holds)], max(numbers[2] for numbers in found), reason, bool(missing))


@dataclass(frozen=True)
class _Own:
    """The own steps, and how what they need of other ranks is exchanged."""

    recurrence: Recurrence
    states: Array
    axis: Timeline

    def estimate(self) -> tuple[Estimate, float]:
        """Return the estimate of the error of the whole, and kappa."""
        rec, states = self.recurrence, self.states
        if not self.axis.total or 0 in rec.shape[1:]:
            return Estimate(0.0, 0.0, True), 1.0
        _, J = rec.linearise(states)
        condition = self._condition(J)
        found = estimate_together(
            [rec], [states], self._finer(), lambda residuals: [self._summed(J, residuals[0])], lambda: condition,
            lambda rec, x: self._largest(sizes_of(rec, _or_zeros(x))),
        )  # fmt: skip
        return found, condition

    def _finer(self) -> Callable[[Sequence[Array]], Sequence[Array]]:
        """Return f of the whole in finer arithmetic, if there is one on all ranks."""
        finer, coarse = Finer(self.recurrence), self.recurrence.dtype

        def values(states: Sequence[Array]) -> Sequence[Array]:
            for _ in range(2):  # f may refuse what is finer, on some rank
                finer.dtype = coarse if self._any(finer.dtype == coarse) else finer.dtype
                h, tried = states[0].astype(finer.dtype), finer.dtype
                before = row_before(self.axis, h)
                found = finer.values(h, before=before) if len(h) else h
                if not self._any(finer.dtype != tried):
                    break
            return [found]

        return values

    def _summed(self, J: Jacobian, residual: Array) -> Array:
        """Return d[t] = J[t] d[t-1] + r[t] of the own steps."""
        rec, axis = self.recurrence, self.axis
        xp = namespace(residual)
        begins = xp.zeros((rec.length, *rec.batch), bool) if rec.reset is None else rec.reset.copy()
        begins[:1] |= not axis.start
        _AFFINE.prepare((J, residual))
        row = xp.zeros(residual.shape[1:], residual.dtype)
        return scan_over_ranks(Elements(_AFFINE, (J, residual), row, rec.over_event(begins), axis))

    def _condition(self, J: Jacobian) -> float:
        if type(J) not in DIAGONAL:
            return float("nan")
        magnitudes = abs(J.diagonal().data)
        kappa = self._summed(Diagonal(magnitudes, J.layout), namespace(magnitudes).ones_like(magnitudes))
        found = float(to_host(self._largest(_or_zeros(kappa).max(axis=0))).max())
        return max(found, 1.0) if np.isfinite(found) else float("inf")

    def _largest(self, x: Array) -> Array:
        """Return the largest numbers of any rank, NaN where one is."""
        return self.axis.ranks.exchange((), [x]).arrays[0].max(axis=0)  # type: ignore[no-any-return]

    def _any(self, flag: bool) -> bool:
        return bool(self.axis.ranks.exchange([flag]).numbers().any())


def _or_zeros(x: Array) -> Array:
    """Return numbers over time, and those of one step that is 0 where there are none."""
    return x if len(x) else namespace(x).zeros((1, *x.shape[1:]), x.dtype)

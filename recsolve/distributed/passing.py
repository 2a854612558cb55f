"""What a rank says of an iteration: how a correction passes through its steps, and what the last one becomes."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

from recsolve.base.arrays import Array, namespace
from recsolve.base.shard import Timeline
from recsolve.distributed.elements import Elements, arrays_of, element_of
from recsolve.jacobians import Jacobian
from recsolve.kernels.backends import summarise
from recsolve.kernels.monoids import MONOIDS
from recsolve.kernels.summary import Summary
from recsolve.solvers.iterate import Iterate

_AFFINE = MONOIDS["affine"]


class Said(NamedTuple):
    """The arrays of a message: what the own steps do to a correction that comes in, and to the state after them.

    ``composed``, ``after`` and ``cut`` are the summary of all steps but the last; ``matrix`` holds A of the last step,
    ``residual``, ``values`` and ``states`` are those of it.
    """

    composed: list[Array]
    after: Array
    cut: Array
    matrix: list[Array]
    residual: Array
    values: Array
    states: Array

    def before_last(self, iterate: Iterate, A: Jacobian, correction: Array) -> Array:
        """Return the correction after all steps but the last, given the one that comes in."""
        composed = element_of((A, iterate.residual), self.composed)
        return namespace(correction).where(self.cut, self.after, _AFFINE.act(composed, correction[None])[0])  # type: ignore[no-any-return]

    def last_matrix(self, iterate: Iterate, A: Jacobian) -> Jacobian:
        """Return A of the last step, of one time."""
        return element_of((A, iterate.residual), [*self.matrix, self.residual])[0]  # type: ignore[no-any-return]

    def flat(self) -> list[Array]:
        """Return all arrays one after the other."""
        return [*self.composed, self.after, self.cut, *self.matrix, *self[4:]]

    def like(self, arrays: Sequence[Array]) -> Said:
        """Return what another rank has said, of its arrays one after the other."""
        count, given = len(self.composed), list(arrays)
        own = given[count + 2 : len(given) - 3]
        return Said(given[:count], given[count], given[count + 1], own, *given[len(given) - 3 :])


def say(iterate: Iterate, A: Jacobian, row: Array, cut: Array, timeline: Timeline) -> tuple[Said, bool]:
    """Return what is said of the own steps, and whether it can be.

    Parameters
    ----------
    iterate : Iterate
    A : Jacobian
        Of the own steps.
    row : array
        Zeros like a state.
    cut : array of bool
        Steps that take F without a correction from the one before, over the event.
    timeline : Timeline
    """
    xp, n, residual = namespace(row), timeline.length, iterate.residual
    _AFFINE.prepare((A, residual))
    elements = Elements(_AFFINE, (A, residual), row, cut, timeline)
    able = not n or elements.composable
    prefix: Summary | None = None
    last: Summary | None = None
    if n and able:
        last = Summary((A[n - 1 : n], residual[n - 1 : n]))
        prefix = summarise(_AFFINE, (A[: n - 1], residual[: n - 1]), reset=cut[: n - 1]) if n > 1 else None
    none = row.astype(residual.dtype)  # a difference of discrete states is of another dtype than these
    after, seen = none, xp.zeros(row.shape, bool)
    if prefix is not None and prefix.after is not None and prefix.cut is not None:
        after, seen = prefix.after[0], xp.broadcast_to(prefix.cut[0], row.shape).copy()
    rows = [x[n - 1] for x in (residual, iterate.values, iterate.states)] if n else [none, row, row]
    return Said(arrays_of(elements, prefix), after, seen, arrays_of(elements, last)[:-1], *rows), able

"""The error that the residuals of a stack of layers cause: what one layer is off by, those above it take in."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from recsolve.analysis.finer import Finer
from recsolve.analysis.trust import Estimate, estimate_together
from recsolve.base.arrays import Array, namespace, to_native
from recsolve.base.names import Names
from recsolve.base.overriding import changed
from recsolve.interop.order import Order
from recsolve.recurrence.cell_recurrence import CellRecurrence
from recsolve.solution import Solution


def estimate_of_stack(
    solutions: Sequence[Solution],
    width: int,
    order: Order,
    correction: Callable[[list[Array]], list[Array]],
    kappa: Callable[[], float],
) -> Estimate:
    """Return an estimate of the error of all states of a stack, with respect to what the input of the stack demands.

    Parameters
    ----------
    solutions : sequence of Solution
        One per layer and direction, in torch's order.
    width : int
        How many directions there are.
    order : Order
        In which directions read the steps.
    correction, kappa : callable
        As in :func:`recsolve.analysis.trust.estimate_together`.

    Returns
    -------
    Estimate
    """
    states = [to_native(s.states, "states") for s in solutions]
    if not all(h.size for h in states):
        return Estimate(0.0, 0.0, True)
    recurrences = [s.recurrence for s in solutions if isinstance(s.recurrence, CellRecurrence)]
    finer = [Finer(rec) for rec in recurrences]

    def values(states: Sequence[Array]) -> list[Array]:
        drives = _drives(recurrences, width, finer, order, states)
        return [f.values(h, u) for f, h, u in zip(finer, states, drives, strict=True)]

    return estimate_together(recurrences, states, values, lambda r: correction(list(r)), kappa)


def _drives(
    recurrences: Sequence[CellRecurrence], width: int, finer: Sequence[Finer], order: Order, states: Sequence[Array]
) -> list[Names]:
    """Return the drives of each layer and direction that states of those below it give, in finer arithmetic."""
    found: list[Names] = []
    for i, (rec, fine) in enumerate(zip(recurrences, finer, strict=True)):
        layer, reverse = divmod(i, width)
        if layer and not reverse:
            shown = [order.read(recurrences[k].output(states[k]), k % width) for k in range(i - width, i)]
            below = shown[0] if width == 1 else namespace(shown[0]).concatenate(shown, axis=-1)
        x = order.read(below, reverse) if layer else rec.x
        assert x is not None  # layers are fed with inputs
        found.append(_projected(rec, x.astype(fine.dtype)))
    return found


def _projected(rec: CellRecurrence, x: Array) -> Names:
    """Return the drives of an input in the input's own dtype, finer than that of the weights or the same."""
    projection = rec.cell.projection
    assert projection is not None
    matrix, offset = (w.astype(x.dtype) for w in (projection.matrix, projection.offset))
    return changed(projection, matrix=matrix, offset=offset)(x)

"""The states that a walk through time starts from, as the compiled loops take them."""

from __future__ import annotations

from recsolve.base.arrays import Array
from recsolve.kernels.cpu.placement.resets import lookup
from recsolve.kernels.cpu.placement.rows import Rows
from recsolve.kernels.starts import Starts


def flat_starts(starts: Starts, rows: Rows, components: tuple[int, ...]) -> tuple[Array, Array, Array, Array]:
    """Return what a walk starts from, in the order of lanes.

    Parameters
    ----------
    starts : Starts
    rows : Rows
    components : tuple of int
        The axes of components in a state (*batch, *event).

    Returns
    -------
    start, restart : array, shape (k * lanes,)
    row : array of int
        For every time the row of ``resets`` that is its own, or -1; empty without resets.
    resets : array of bool
        Rows of all lanes, one after the other.
    """
    start, restart = (rows.component_rows(x, components) for x in (starts.initial, starts.restart))
    mask = starts.reset
    if mask is not None:
        mask = mask.reshape(*mask.shape, *(1,) * (len(rows.shape) - mask.ndim))
    row, resets = lookup(mask, rows.shape, lambda x: rows.lanes.flatten(x, x.ndim - 1))
    return start, restart, row, resets.ravel()

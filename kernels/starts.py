"""What a walk through time needs beside the drive, and how the compiled loops take it."""

from __future__ import annotations

from typing import NamedTuple

from recsolve.base.arrays import Array
from recsolve.kernels.cpu.placement.resets import lookup
from recsolve.kernels.cpu.placement.rows import Rows


class Chain(NamedTuple):
    """Where a recurrence starts.

    Attributes
    ----------
    initial, restart : array, shape (*batch, *event)
        What the first step starts from, and what a reset does.
    reset : array of bool or None
        (T, *batch).
    """

    initial: Array
    restart: Array
    reset: Array | None = None

    @property
    def cutting(self) -> bool:
        """Whether there are resets."""
        return self.reset is not None and bool(self.reset.any())

    def rest(self, states: Array, start: int) -> Chain:
        """Return that of the steps from ``start`` to the end of ``states``."""
        initial = states[start - 1] if start else self.initial
        reset = None if self.reset is None else self.reset[start : len(states)]
        return Chain(initial, self.restart, reset)

    def flat(self, rows: Rows, components: tuple[int, ...]) -> tuple[Array, Array, Array, Array]:
        """Return it in the order of lanes.

        Parameters
        ----------
        rows : Rows
        components : tuple of int
            The axes of components in a state (*batch, *event).

        Returns
        -------
        start, restart : array, shape (k * lanes,)
        row : array of int
            For every time the row of ``cuts`` that is its own, or -1; empty without resets.
        cuts : array of bool
            Rows of all lanes, one after the other.
        """
        start, restart = (rows.component_rows(x, components) for x in (self.initial, self.restart))
        mask = self.reset
        if mask is not None:
            mask = mask.reshape(*mask.shape, *(1,) * (len(rows.shape) - mask.ndim))
        row, cuts = lookup(mask, rows.shape, lambda x: rows.lanes.flatten(x, x.ndim - 1))
        return start, restart, row, cuts.ravel()

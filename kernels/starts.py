"""What a walk through time needs beside the drive."""

from __future__ import annotations

from typing import NamedTuple

from recsolve.base.arrays import Array


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

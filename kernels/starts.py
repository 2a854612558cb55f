"""The states that a walk through time starts from, at its first step and at resets."""

from __future__ import annotations

from functools import cached_property
from typing import NamedTuple

from recsolve.base.arrays import Array
from recsolve.kernels.held import Held


class _Starts(NamedTuple):  # which has no room for what is looked up once; a subclass has
    initial: Array
    restart: Array
    reset: Array | None = None


class Starts(_Starts):
    """The states that a walk through time starts from.

    Attributes
    ----------
    initial, restart : array, shape (*batch, *event)
        What the first step starts from, and what steps with a reset start from.
    reset : array of bool or None
        (T, *batch): the steps with a reset.
    """

    @cached_property
    def held(self) -> Held:
        """The arrays: two states, and the resets if there are any."""
        return Held(x for x in self if x is not None)

    @property
    def has_resets(self) -> bool:
        """Whether there are resets."""
        return self.reset is not None and bool(self.reset.any())

    def rest(self, states: Array, start: int) -> Starts:
        """Return the record of the steps from ``start`` to the end of ``states``."""
        initial = states[start - 1] if start else self.initial
        reset = None if self.reset is None else self.reset[start : len(states)]
        return Starts(initial, self.restart, reset)

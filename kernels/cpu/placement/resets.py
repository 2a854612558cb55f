"""The steps that do not see the one before (cut from their past), as the compiled loops look them up."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple

import numpy as np

from recsolve.base.arrays import Array, broadcast


class Resets(NamedTuple):
    """The steps of a scan that are cut from their past by a reset.

    Attributes
    ----------
    start : bool
        Whether all of time 0 is cut, and nothing else.
    row : array of int32
        For every time the row of ``lanes`` that is its own, or -1; empty where nothing is to be looked up.
    lanes : array of bool
        The rows of the mask that cut something.
    """

    start: bool
    row: Array
    lanes: Array

    @property
    def any(self) -> bool:
        """Whether anything is to be looked up."""
        return len(self.row) > 0


def lookup(reset: Array | None, shape: tuple[int, ...], rows: Callable[[Array], Array]) -> tuple[Array, Array]:
    """Return the rows of a mask (T, ...) that cut something, and where to find them.

    Parameters
    ----------
    reset : array of bool, optional
        Broadcasting against ``shape``.
    shape : tuple of int
        Of the states, time first.
    rows : callable
        Puts rows of the shape of the states in the order in which the loops count lanes.

    Returns
    -------
    row : array of int32
        For every time the row of ``lanes`` that is its own, or -1; empty where nothing is cut.
    lanes : array of bool
    """
    cut: Any = None if reset is None else reset.any(axis=tuple(range(1, reset.ndim)))
    if reset is None or not len(times := cut.nonzero()[0]):
        return np.empty(0, np.int32), np.empty(0, np.bool_)
    row = np.empty(shape[0], np.int32)
    row.fill(-1)
    row[times] = np.arange(len(times))
    return row, rows(broadcast(reset[times], (len(times), *shape[1:])))


def resets_of(reset: Array | None, shape: tuple[int, ...], rows: Callable[[Array], Array]) -> Resets:
    """Return the resets of a mask; parameters as for :func:`lookup`."""
    row, lanes = lookup(reset, shape, rows)
    if len(row) and row[0] == 0 and (row[1:] < 0).all() and lanes.all():  # a recurrence that starts afresh
        return Resets(True, np.empty(0, np.int32), np.empty(0, np.bool_))
    return Resets(False, row, lanes)

"""What is compiled of a cell: whether, for which recurrences, and the loops and kernels that are kept."""

from __future__ import annotations

import logging
from functools import cache, lru_cache
from math import prod
from typing import TYPE_CHECKING, Any, Literal, TypeAlias

import numpy as np

from recsolve.base.arrays import kind_of
from recsolve.base.overriding import patched, stated, stated_by
from recsolve.kernels import backends
from recsolve.kernels.registry import get
from recsolve.mixings import Mixing, form_of, plain_of
from recsolve.recurrence.current import Kinds, Ties, Traced, traced_now
from recsolve.symbolic.units import NotTracedError

if TYPE_CHECKING:
    from recsolve.recurrence.cell_recurrence import CellRecurrence
    from recsolve.recurrence.weighted_cell import WeightedCell

Backend: TypeAlias = Literal["numba", "cuda"]

_LOG = logging.getLogger("recsolve")


def traced_of(recurrence: CellRecurrence) -> Traced | None:
    """Return the traced cell from which loops of a recurrence can be compiled; None where NumPy evaluates it.

    Loops replace the methods of a class, so they take only classes that state that this is right, and mixings that
    state their form. A subclass, which may override anything, is evaluated by NumPy.

    Raises
    ------
    TypeError
        When a backend that compiles is forced and the cell cannot be traced; the message has the line.
    ValueError
        When the cell is no function.
    """
    cell = recurrence.cell
    if unknown := unknown_parts(recurrence):
        _say_once(recurrence.description, ", ".join(sorted({type(x).__name__ for x in unknown})))
        return None
    try:
        return traced_now(cell.cell, kinds_of(cell), ties_of(recurrence))
    except TypeError as error:
        if backends.forced() and not isinstance(error.__cause__, NotTracedError):
            raise
        _LOG.info("%s; NumPy evaluates it", error)
        return None


def unknown_parts(recurrence: CellRecurrence) -> list[object]:
    """Return the parts of a recurrence whose classes may change what f is: they do not state that they do not."""
    cell = recurrence.cell
    parts = type(recurrence), type(cell), type(cell.cell)
    mixings = plain_mixings(cell).values()
    known = _all_known(parts, tuple([type(m) for m in mixings]))
    if known and not any(map(patched, (recurrence, cell, cell.cell, *mixings))):
        return []
    unknown: list[object] = [x for x in (recurrence, cell, cell.cell) if not stated(x, "compilable")]
    return [*unknown, *(m for m in mixings if form_of(m) is None)]


@lru_cache(maxsize=1024)
def _all_known(parts: tuple[type[Any], ...], mixings: tuple[type[Any], ...]) -> bool:
    """Return whether classes state in their own bodies what loops have to know."""
    formed = all(stated_by(x, "form") is not None for x in mixings)
    return formed and all(stated_by(x, "compilable") for x in parts)


@cache
def _say_once(description: str, kinds: str) -> None:
    _LOG.info("%s: compiled loops do not know what %s does; NumPy evaluates it", description, kinds)


def backend_of(recurrence: CellRecurrence) -> Backend | None:
    """Return the backend whose compiled loops or kernels evaluate a recurrence here, if there are any."""
    steps, numbers = recurrence.length, prod(recurrence.shape)
    if kind_of(recurrence.initial) == "numpy":
        return "numba" if backends.compiles(steps, numbers) else None
    return "cuda" if backends.launches(recurrence.initial, steps, numbers) else None


def plain_mixings(cell: WeightedCell) -> dict[str, Mixing]:
    """Return the mixings of a cell as loops take them, without masks."""
    return {name: plain_of(mixing) for name, mixing in cell.mixings.items()}


def kinds_of(cell: WeightedCell) -> Kinds:
    """Return the kinds of the mixings of a cell, all of which state their form, by name."""
    names, mixings = cell.cell.mixings, plain_mixings(cell)
    return _kinds(tuple(names), tuple([type(mixings[name]) for name in names]))


@lru_cache(maxsize=1024)
def _kinds(names: tuple[str, ...], mixings: tuple[type[Any], ...]) -> Kinds:
    return tuple((name, str(stated_by(kind, "form"))) for name, kind in zip(names, mixings, strict=True))


def ties_of(recurrence: CellRecurrence) -> Ties:
    """Return the derivatives at ties of a recurrence, by operation."""
    return tuple(sorted(recurrence.ties.items())) if recurrence.ties else ()


@lru_cache(maxsize=256)
def kernel_of(operation: str, backend: Backend, traced: Traced, dtype: np.dtype[Any]) -> Any:
    """Return what is compiled of a cell for an operation of :mod:`recsolve.kernels.registry`."""
    return get(operation, backend)(traced, dtype)

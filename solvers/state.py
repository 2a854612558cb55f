"""The state of a solver between steps: records whose fields state which of their axes are times and which sequences."""

from __future__ import annotations

from dataclasses import Field, dataclass, fields, replace
from enum import Enum
from typing import Annotated, Any, Self, TypeVar

from recsolve.jacobians import Jacobian


class Axes(Enum):
    """The leading axes of a field."""

    ROWS = "(T, *batch)"
    SEQUENCES = "(1, *batch)"


T = TypeVar("T")
PerRow = Annotated[T, Axes.ROWS]  # an array, a Jacobian, an iterate, a tuple of these, or None
PerSequence = Annotated[T, Axes.SEQUENCES]  # an array, or None


@dataclass(frozen=True)
class State:
    """The base of what a solver carries from step to step: derive a frozen dataclass from it.

    The driver sets aside times and sequences that are solved, and cuts the state together with the problem. So the type
    of every field says what its leading axes are: ``PerRow[...]`` for what has (T, *batch) first (arrays, Jacobians,
    iterates, None, and tuples of these), ``PerSequence[...]`` for arrays with (1, *batch) first. All other fields are
    carried as they are: numbers, words.

    Examples
    --------
    >>> from dataclasses import dataclass
    >>> import numpy as np
    >>> from recsolve.solvers import PerRow, PerSequence, State
    >>> @dataclass(frozen=True)
    ... class Momentum(State):
    ...     last: PerRow[np.ndarray]
    ...     weight: PerSequence[np.ndarray]
    ...     age: int = 0
    >>> state = Momentum(last=np.zeros((10, 3, 2)), weight=np.ones((1, 3, 1)))
    >>> part = state.part((slice(4, None), [0, 2]))  # the last six times of two sequences
    >>> part.last.shape, part.weight.shape
    ((6, 2, 2), (1, 2, 1))
    """

    def part(self, index: tuple[Any, ...]) -> Self:
        """Return the entries of some times and sequences.

        Parameters
        ----------
        index : tuple
            An index of the axes (T, *batch).

        Raises
        ------
        TypeError
            Where a field holds arrays and its type does not say what their leading axes are.
        """
        return replace(self, **{f.name: _part(self, f, index) for f in fields(self)})


def _axes(field: Field[Any]) -> Axes | None:
    """Return the leading axes that the type of a field states.

    A type that is still a string is not evaluated: the names in it may be those of a function that has returned.
    """
    if isinstance(field.type, str):
        return {"PerRow": Axes.ROWS, "PerSequence": Axes.SEQUENCES}.get(field.type.partition("[")[0].rpartition(".")[2])
    return next((a for a in getattr(field.type, "__metadata__", ()) if isinstance(a, Axes)), None)


def _part(state: State, field: Field[Any], index: tuple[Any, ...]) -> Any:
    value, axes = getattr(state, field.name), _axes(field)
    if axes is Axes.ROWS:
        return _rows(value, index)
    if axes is Axes.SEQUENCES:
        return None if value is None else value[(slice(None), *index[1:])]
    if _has_rows(value):
        name = f"{type(state).__name__}.{field.name}"
        raise TypeError(f"{name} holds a {type(value).__name__}; wanted PerRow[...] or PerSequence[...] as its type")
    return value


def _rows(value: Any, index: tuple[Any, ...]) -> Any:
    if isinstance(value, tuple):
        return tuple(_rows(item, index) for item in value)
    if isinstance(value, State):
        return value.part(index)
    return None if value is None else value[index]


def _has_rows(value: Any) -> bool:
    if isinstance(value, (tuple, list)):
        return any(map(_has_rows, value))
    return isinstance(value, (State, Jacobian)) or getattr(value, "ndim", 0) > 0

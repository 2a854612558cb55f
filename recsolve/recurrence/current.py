"""The current program of a cell: before compiled loops run, their program is compared with the function.

A function may read numbers that are not among its arguments: closed over, global, attributes, entries of a list. They
are constants of its program, so changing one makes another program. Running the function on the nodes of the graph
that it was traced into costs a tenth of a millisecond, and gives the same nodes if it is the same function.
"""

from __future__ import annotations

from contextvars import ContextVar
from functools import cached_property
from threading import RLock
from typing import TYPE_CHECKING, Any, TypeAlias

from recsolve.base.status import NOT_A_FUNCTION
from recsolve.symbolic.graph import Leaf, Node
from recsolve.symbolic.program import Program
from recsolve.symbolic.tracing import same_values, trace_cell, trace_pullback

if TYPE_CHECKING:
    from recsolve.recurrence.cell import Cell

Kinds: TypeAlias = tuple[tuple[str, str], ...]  # of the mixings, by name
Ties: TypeAlias = tuple[tuple[str, float], ...]  # by operation

_REPEATS = 3  # runs that must agree when a cell is traced


class Traced:
    """A traced cell with the kinds of its mixings and ties; equal only to itself.

    Attributes
    ----------
    program : Program
    uncoupled : bool
        Whether all mixings are diagonal, so that units do not couple.
    verified : set
        The numbers of batch axes and dtypes for which loops compiled from it have been compared with the function on
        arrays.
    ready : set
        The dtypes for which f is known to be compiled, each with whether the walk along time is.
    """

    def __init__(self, cell: Cell, kinds: Kinds, ties: Ties):
        self._cell, self._kinds, self._ties, self._function = cell, kinds, ties, cell.function
        self.program, self.uncoupled = self._trace(), all(kind == "diagonal" for _, kind in kinds)
        self.verified: set[tuple[int, Any]] = set()
        self.ready: set[tuple[Any, bool]] = set()
        if not all(self._same() for _ in range(_REPEATS)):
            raise ValueError(NOT_A_FUNCTION.format(name=cell.name))

    def _trace(self) -> Program:
        try:
            return trace_cell(self._cell, dict(self._kinds), dict(self._ties))
        except TypeError:
            raise
        except Exception as error:  # the function may raise anything where it gets no arrays
            raise TypeError(f"{self._cell.name} cannot be traced: {error}") from error

    @cached_property
    def back(self) -> dict[Leaf, Node]:
        """How cotangents are taken back to all that a step is computed of, past mixings that couple units."""
        return trace_pullback(self._cell, dict(self._kinds), dict(self._ties))

    def holds(self) -> bool:
        """Return whether the function of the cell still is this program."""
        return (self._cell.function is self._function and sees_arguments_alone(self._function)) or self._same()

    def _same(self) -> bool:
        try:
            if same_values(self._cell, self.program):
                return True
        except Exception:  # it may want duals
            pass
        return self._trace().fingerprint == self.program.fingerprint


def sees_arguments_alone(function: Any) -> bool:
    """Return whether a function is known to depend on its arguments only, as those of this package do."""
    package = str(getattr(function, "__module__", "")).partition(".")[0]
    return package == __name__.partition(".")[0] and getattr(function, "__closure__", ()) is None


_MOST = 128  # programs that are kept, the most recently used
_TRACED: dict[tuple[Cell, Kinds, Ties], Traced] = {}
_LOCK = RLock()


_Book: TypeAlias = "dict[tuple[Cell, Kinds, Ties], Traced]"  # the cells that a solve has looked at

_BOOK: ContextVar[_Book | None] = ContextVar("recsolve_book", default=None)


class checked_once:
    """Check every cell once inside a ``with`` block, at its first use, and trust it until the end."""

    def __enter__(self) -> None:
        self._token = _BOOK.set({})

    def __exit__(self, *_: object) -> None:
        _BOOK.reset(self._token)


def traced_now(cell: Cell, kinds: Kinds, ties: Ties) -> Traced:
    """Return a cell as its function is now, traced again only if that has changed.

    Raises
    ------
    TypeError
        For what cannot be traced.
    ValueError
        For what is no function: it computes something else when it is called again.
    """
    book, key = _BOOK.get(), (cell, kinds, ties)
    if book is not None and key in book:
        return book[key]
    with _LOCK:
        found = _TRACED.pop(key, None)
        if found is None or not found.holds():
            found = Traced(*key)
        _TRACED[key] = found
        if len(_TRACED) > _MOST:
            del _TRACED[next(iter(_TRACED))]
    if book is not None:
        book[key] = found
    return found

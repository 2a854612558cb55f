"""Constants of cells take the dtype of the state, whether they are numbers of Python or of NumPy.

NumPy promotes a float32 array by a NumPy float64 number or 0-d array, ``np.sqrt(2)`` say, but not by one of Python. In
a cell both are constants. An array with axes is data, and has to have the dtype of the state or to be of truth values.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from typing import Any

import numpy as np

_NUMBERS: dict[str, type] = {"b": bool, "i": int, "u": int, "f": float}
_SEEN: ContextVar[list[Any] | None] = ContextVar("constants that were seen", default=None)
# The dtype of the state while its function runs: that of a choice between two numbers, which have none.
STATE_DTYPE: ContextVar[Any] = ContextVar("dtype of the state", default=None)


class ConstantError(TypeError):
    """A constant or result that does not fit the dtype of the state."""


def constant(x: Any, dtype: Any) -> Any:
    """Return an operand of a cell in a form that NumPy does not promote: numbers and 0-d arrays as Python numbers.

    Raises
    ------
    ConstantError
        For what is complex or no number, and for arrays with axes of another dtype.
    """
    if type(x) in (bool, int, float):
        return x
    array = x if hasattr(x, "dtype") and hasattr(x, "ndim") else np.asarray(x)
    if (seen := _SEEN.get()) is not None:
        seen.append(x)
    if array.ndim == 0:
        if array.dtype.kind not in _NUMBERS:
            raise ConstantError(f"a constant of the cell is {x!r}, of dtype {array.dtype}; wanted a real number")
        return _NUMBERS[array.dtype.kind](array)
    if isinstance(dtype, np.dtype) and array.dtype not in (dtype, np.dtype(bool)):
        raise ConstantError(
            f"an array of shape {tuple(array.shape)} inside the cell has dtype {array.dtype}; wanted {dtype}, as the "
            "state: make it a parameter p.name, or convert it with .astype"
        )
    return x


def component(x: Any, like: Any, name: str) -> Any:
    """Return a component that a cell returned, of the dtype of ``like``: numbers and truth values become it.

    Raises
    ------
    ConstantError
        For arrays of another dtype.
    """
    if getattr(x, "ndim", 0) == 0:
        return np.asarray(constant(x, like.dtype), like.dtype) if type(x).__module__ != "cupy" else x.astype(like.dtype)
    if x.dtype == bool:
        return x.astype(like.dtype)
    if x.dtype != like.dtype:
        raise ConstantError(
            f"component {name!r} was returned with dtype {x.dtype}; wanted {like.dtype}, as the state: an array of "
            "another dtype inside the cell does this; make it a parameter p.name, or convert it with .astype; choose "
            "between two numbers with recsolve.math.where, for numpy.where makes float64 of them"
        )
    return x


class state_dtype:
    """Say inside a ``with`` block that the function of a cell, or a user's, runs on a state of this dtype."""

    __slots__ = ("_dtype", "_token")

    def __init__(self, dtype: Any):
        self._dtype = dtype

    def __enter__(self) -> None:
        self._token = STATE_DTYPE.set(self._dtype)

    def __exit__(self, *_: object) -> None:
        STATE_DTYPE.reset(self._token)


@contextmanager
def watched() -> Iterator[list[Any]]:
    """Collect the constants that are not Python's numbers."""
    token = _SEEN.set([])
    try:
        yield _SEEN.get()  # type: ignore[misc]
    finally:
        _SEEN.reset(token)

"""Stand-ins for arrays on which NumPy's functions and operators work: duals, and nodes of an expression graph."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.lib.mixins import NDArrayOperatorsMixin


class Elementwise(NDArrayOperatorsMixin):
    """A value for elementwise operations; an operation that would couple its entries raises an error that names it.

    A subclass defines ``lift(name, args)`` for the operations that it supports and ``_where``, and lists them by
    ``_ufunc`` and ``_function``.
    """

    __slots__ = ()
    __array_priority__ = 1000.0

    def lift(self, name: str, args: Sequence[Any]) -> Any:
        """Apply the elementwise operation ``name``."""
        raise NotImplementedError

    def _where(self, condition: Any, a: Any, b: Any) -> Any:
        raise NotImplementedError

    def _ufunc(self, ufunc: Any, inputs: Sequence[Any]) -> Any:
        raise NotImplementedError

    def _function(self, function: Any, args: Any, kwargs: Any) -> Any:
        raise NotImplementedError

    def __array_ufunc__(self, ufunc: Any, method: str, *inputs: Any, **kwargs: Any) -> Any:
        if method != "__call__":
            return self._method(ufunc, method, inputs, kwargs)
        if kwargs:
            raise self._unsupported(f"numpy.{ufunc.__name__} with out=")
        return self._ufunc(ufunc, inputs)

    def _method(self, ufunc: Any, method: str, inputs: Sequence[Any], kwargs: Any) -> Any:
        raise self._unsupported(f"numpy.{ufunc.__name__}.{method}")

    def __array_function__(self, function: Any, types: Any, args: Any, kwargs: Any) -> Any:
        if function is np.where and len(args) == 3:
            return self._where(*args)
        if function is np.clip:
            return Elementwise.clip(*args, **kwargs)
        if function in (np.round, np.around) and not (args[1:] or kwargs):
            return np.rint(args[0])
        if function is np.fix:
            return np.trunc(*args, **kwargs)
        return self._function(function, args, kwargs)

    def clip(self, a_min: Any = None, a_max: Any = None, *, min: Any = None, max: Any = None) -> Any:
        """Return the value clamped to the bounds that are given."""
        low, high = (a_min if min is None else min), (a_max if max is None else max)
        raised = self if low is None else np.maximum(self, low)
        return raised if high is None else np.minimum(raised, high)

    def mixed(self, mixing: Any, weight: Any, x: Any) -> Any:
        """Return W x of a mixing outside a cell of equal components, where ``x`` or ``weight`` is a stand-in."""
        raise self._unsupported("a mixing")

    def round(self, decimals: int = 0) -> Any:
        """Return the value rounded, with no derivative."""
        return np.rint(self) if decimals == 0 else np.round(self, decimals)

    def _other(self, name: str, function: Any, args: Any, kwargs: Any) -> Any:
        raise self._unsupported(name)

    def _unsupported(self, what: str) -> TypeError:
        return TypeError(
            f"{what} couples entries or has no elementwise derivative, so a cell cannot use it; couple units through "
            "a mixing W.name(x) or total, mean and dot of recsolve.math, or use rs.Recurrence.from_function"
        )

    def __bool__(self) -> bool:
        raise TypeError(
            "a Python branch (if, and, or, min, max) on a value of the state; write where(condition, a, b), "
            "minimum(a, b) or maximum(a, b) instead"
        )

    def __float__(self) -> float:
        raise self._unsupported("float() of the state, or writing it into an array,")

    def __array__(self, *args: Any, **kwargs: Any) -> Any:
        raise self._unsupported("conversion of the state to a plain array")

    def __getitem__(self, index: Any) -> Any:
        raise self._unsupported("indexing, or a Python loop over the entries,")

    def __setitem__(self, index: Any, value: Any) -> None:
        raise TypeError("writing into the state; return a new array, with where() or np.stack([...], axis=-1)")

    def __getattr__(self, name: str) -> Any:
        """Raise an error that names an unsupported method of arrays (AttributeError, as ``hasattr`` expects)."""
        if name.startswith("_"):
            raise AttributeError(name)
        raise AttributeError(str(self._unsupported(f".{name}")))

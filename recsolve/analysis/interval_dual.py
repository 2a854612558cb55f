"""Duals over intervals: how far two runs of f can come apart, operation by operation.

The chain rule of :mod:`recsolve.symbolic.dual`, read on intervals, carries the slopes; what is no multiple of a
difference of states, rounding and jumps, travels as one more leaf, :data:`DEFECT`.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from recsolve.analysis.interval import Interval
from recsolve.analysis.rounding import magnitude, product_rounding, rounding
from recsolve.base.arrays import Array
from recsolve.recurrence.function_rules import LINEAR
from recsolve.recurrence.function_tangent import Tangent
from recsolve.symbolic.constants import constant
from recsolve.symbolic.dual import STEPS, Dual, value_of

DEFECT = "defect"  # the leaf of what is not a multiple of a difference of states
_TRUTHS = {
    "greater", "greater_equal", "less", "less_equal", "equal", "not_equal", "bitwise_and", "bitwise_or", "invert",
    "logical_and", "logical_or", "logical_not",
}  # fmt: skip


class _Run(Dual):
    """The base of both enclosing duals: every operation adds its defect."""

    __slots__ = ()
    __hash__ = None  # type: ignore[assignment]

    def _with(self, defect: Array) -> Any:
        """Return this with a further defect."""
        raise NotImplementedError

    def _flat(self, y: Any) -> Any:
        """Return a value that no leaf moves."""
        raise NotImplementedError

    def _values(self, args: Sequence[Any]) -> list[Any]:
        """Return operands without their partials; arrays may be wider here than the state."""
        return [value_of(x) if isinstance(x, Dual) else constant(x, None) for x in args]

    def lift(self, name: str, args: Sequence[Any]) -> Any:
        values = self._values(args)
        if name in STEPS:
            return self._step(getattr(np, name), values)
        out: Any = super().lift(name, args)
        return out._with(rounding(name, magnitude(out.value), values, out.dtype))

    def _step(self, function: Any, values: Sequence[Any]) -> Any:
        """Return a step function, flat but for jumps."""
        y = function(*values)
        return self._flat(y)._with(y.upper - y.lower)

    def __array_ufunc__(self, ufunc: Any, method: str, *inputs: Any, **kwargs: Any) -> Any:
        if ufunc.__name__ in _TRUTHS and method == "__call__" and not kwargs:
            return self._step(ufunc, [value_of(x) for x in inputs])
        return super().__array_ufunc__(ufunc, method, *inputs, **kwargs)

    def mixed(self, mixing: Any, weight: Any, x: Any) -> Any:
        raise self._unsupported("a mixing on intervals")

    def _where(self, condition: Any, a: Any, b: Any) -> Any:
        out: Any = super()._where(condition, a, b)
        truth = Interval.of(value_of(condition) != 0, self.dtype)
        apart = magnitude(Interval.of(value_of(a), self.dtype) - value_of(b))
        return out._with(np.where(truth.lower == truth.upper, 0.0, apart))


class Elementwise(_Run):
    """An interval with the slopes of each entry in the same entry of the leaves."""

    __slots__ = ()

    def _with(self, defect: Any) -> Elementwise:
        more = Interval(-defect, defect, self.dtype)
        known = self.partials.get(DEFECT)
        return type(self)(self.value, {**self.partials, DEFECT: more if known is None else known + more})

    def _flat(self, y: Any) -> Elementwise:
        return type(self)(y, {})

    def __getitem__(self, index: Any) -> Any:
        if set(self.partials) - {DEFECT}:
            raise self._unsupported("indexing")
        return type(self)(self.value[index], {leaf: partial[index] for leaf, partial in self.partials.items()})


class Directional(_Run, Tangent):
    """An interval with its slopes along directions; the last one is the defect."""

    __slots__ = ()

    def _with(self, defect: Any) -> Directional:
        last = np.zeros((len(self.directions), *(1,) * self.ndim))
        last[-1] = 1.0
        return self.seeded(self.value, self.directions + Interval(-last * defect, last * defect, self.dtype))  # type: ignore[return-value]

    def _flat(self, y: Any) -> Any:
        return self.seeded(y, Interval.of(np.zeros((len(self.directions), *y.shape)), self.dtype))

    def _other(self, name: str, function: Any, args: Any, kwargs: Any) -> Any:
        """Carry what intervals have rules for; those of other functions know nothing of rounding."""
        if function not in LINEAR | {np.matmul}:
            raise self._unsupported(name)
        return super()._other(name, function, args, kwargs)

    def _method(self, ufunc: Any, method: str, inputs: Sequence[Any], kwargs: Any) -> Any:
        raise self._unsupported(f"numpy.{ufunc.__name__}.{method}")

    def _multilinear(self, function: Any, args: Any, kwargs: Any) -> Any:
        if function is not np.matmul:
            raise self._unsupported(f"numpy.{function.__name__}")
        out: Any = super()._multilinear(function, args, kwargs)
        a, b = (magnitude(value_of(x)) for x in args)
        return out._with(product_rounding(lambda size: size @ b, a, a.shape[-1], self.dtype))

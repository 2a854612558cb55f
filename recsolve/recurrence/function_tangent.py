"""Directional derivatives through a user's NumPy function.

A :class:`Tangent` carries m directions at once on a leading axis of its one partial, (m, *shape). Elementwise
operations use the rules of :mod:`recsolve.symbolic.dual`; multilinear ones are applied to each direction by the product
rule. Any other raises an error that names it: there is no silent fall-back to finite differences.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from recsolve.symbolic.dual import Dual, OfState, value_of

DIRECTIONS = "directions"  # the one leaf of a tangent

# Linear in the first argument, which may be a list of arrays.
_LINEAR = {
    np.reshape, np.ravel, np.transpose, np.moveaxis, np.swapaxes, np.expand_dims, np.squeeze, np.broadcast_to,
    np.roll, np.flip, np.take, np.take_along_axis, np.repeat, np.tile, np.sum, np.mean, np.cumsum, np.diff, np.trace,
    np.pad, np.copy, np.concatenate, np.stack, np.hstack, np.vstack, np.atleast_1d, np.real, np.diagonal,
}  # fmt: skip
_MULTILINEAR = {np.matmul, np.dot, np.einsum, np.tensordot, np.inner, np.outer, np.vdot, np.cross, np.kron}


_PADS = ("constant", "edge", "wrap", "reflect", "symmetric")


def _pads_linearly(function: Any, args: Any, kwargs: Any) -> bool:
    """Return False for the modes of numpy.pad that are not linear (maximum, median and so on)."""
    mode = kwargs.get("mode", args[2] if len(args) > 2 else "constant") if function is np.pad else "constant"
    return mode in _PADS


def _moves(x: Any) -> bool:
    """Return whether ``x`` carries directions."""
    return isinstance(x, Tangent) and bool(x.partials)


def _entries(x: Any) -> list[Any]:
    return list(x) if isinstance(x, (list, tuple)) else [x]


class Tangent(Dual):
    """A value of shape S with m directional derivatives of shape (m, *S), or with none."""

    __slots__ = ()
    __hash__ = None  # type: ignore[assignment]

    @classmethod
    def seeded(cls, value: Any, directions: Any) -> Tangent:
        """Return ``value`` with derivatives ``directions``, shape (m, *value.shape)."""
        return cls(value, {DIRECTIONS: directions})

    def _values(self, args: Sequence[Any]) -> list[Any]:
        """Return operands as they are: the function is the user's own NumPy, which promotes."""
        return [value_of(x) for x in args]

    @property
    def directions(self) -> Any:
        return self.partials[DIRECTIONS]

    def _aligned(self, partial: Any, y: Any) -> Any:
        missing = np.ndim(y) - self.ndim
        return partial.reshape(partial.shape[:1] + (1,) * missing + self.shape) if missing else partial

    @staticmethod
    def _scale(factor: Any, partial: Any) -> Any:
        """Multiply each number once where directions are the same at all times, as seeds are."""
        if isinstance(factor, float) and factor == 1.0:
            return partial
        strides = getattr(partial, "strides", None)
        if strides is None:  # of intervals
            return factor * partial
        once = [slice(None), *(slice(0, 1) if stride == 0 else slice(None) for stride in strides[1:])]
        return factor * partial[tuple(once)]

    def _made(self, y: Any, partials: Any) -> Tangent:
        """Spread the directions over the whole value, whose shape later linear operations need."""
        full = {leaf: np.broadcast_to(p, (len(p), *np.shape(y))) for leaf, p in partials.items()}
        return type(self)(y, full)

    def _other(self, name: str, function: Any, args: Any, kwargs: Any) -> Any:
        if function in _LINEAR and _pads_linearly(function, args, kwargs):
            return self._linear(lambda first: function(first, *args[1:], **kwargs), args[0])
        if function in _MULTILINEAR:
            return self._multilinear(function, args, kwargs)
        raise self._unsupported(name)

    def _linear(self, function: Callable[[Any], Any], first: Any) -> Tangent:
        """Apply a function that is linear in its first argument to the value and to every direction."""
        entries, listed = _entries(first), isinstance(first, (list, tuple))

        def direction(e: Any, j: int) -> Any:
            return e.directions[j] if _moves(e) else np.zeros_like(value_of(e))

        def call(parts: list[Any]) -> Any:
            return function(parts if listed else parts[0])

        y = call([value_of(e) for e in entries])
        moving = [e for e in entries if _moves(e)]
        if not moving:
            return type(self)(y, {})
        constant = call([np.zeros_like(value_of(e)) for e in entries])  # initial=, prepend= and the like add it
        m = len(moving[0].directions)
        moved = np.stack([call([direction(e, j) for e in entries]) - constant for j in range(m)])
        return type(self).seeded(y, moved)

    def _multilinear(self, function: Any, args: Any, kwargs: Any) -> Tangent:
        """Product rule: the sum over the arguments that carry directions."""
        values = [value_of(a) for a in args]
        y = function(*values, **kwargs)
        terms = [
            np.stack([function(*values[:place], d, *values[place + 1 :], **kwargs) for d in arg.directions])
            for place, arg in enumerate(args)
            if _moves(arg)
        ]
        return type(self)(y, {DIRECTIONS: sum(terms[1:], terms[0])} if terms else {})

    def _unsupported(self, what: str) -> TypeError:
        return TypeError(
            f"{what} is not carried by automatic differentiation; write it with elementwise and linear NumPy "
            "functions, or pass jacobian= to from_function"
        )

    # The methods of arrays that user functions call; each is the function of the same name.
    def __getitem__(self, index: Any) -> Tangent:
        return self._linear(lambda x: x[index], self)

    def __len__(self) -> int:
        return len(self.value)

    @property
    def T(self) -> Tangent:
        return np.transpose(self)  # type: ignore[return-value]

    @property
    def size(self) -> int:
        return int(self.value.size)

    def reshape(self, *shape: Any) -> Tangent:
        return self._linear(lambda x: x.reshape(*shape), self)

    def transpose(self, *axes: Any) -> Tangent:
        return self._linear(lambda x: x.transpose(*axes), self)

    def swapaxes(self, a: int, b: int) -> Tangent:
        return self._linear(lambda x: x.swapaxes(a, b), self)

    def sum(self, *args: Any, **kwargs: Any) -> Tangent:
        return self._linear(lambda x: x.sum(*args, **kwargs), self)

    def mean(self, *args: Any, **kwargs: Any) -> Tangent:
        return self._linear(lambda x: x.mean(*args, **kwargs), self)

    def dot(self, other: Any) -> Tangent:
        return self._multilinear(np.dot, (self, other), {})

    def astype(self, dtype: Any) -> Tangent:
        return self._linear(lambda x: x.astype(dtype), self)

    def copy(self) -> Tangent:
        return self


class StateTangent(OfState, Tangent):
    """A tangent that depends on the state; see :class:`recsolve.symbolic.dual.OfState`."""

    __slots__ = ()
    __hash__ = None

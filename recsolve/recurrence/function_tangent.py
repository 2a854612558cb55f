"""Directional derivatives through a user's NumPy function.

A :class:`Tangent` carries m directions at once on a leading axis of its one partial, (m, *shape). Elementwise
operations use the rules of :mod:`recsolve.symbolic.dual`; for others, :mod:`recsolve.recurrence.function_rules` says
how each direction is carried. What has no rule raises an error that names it: there is no silent fall-back to finite
differences.

Arrays inside the function may be complex: z = x + 1j * y of two components of a real state, say. Derivatives along a
direction are linear over the reals, so the real and imaginary part, the conjugate, the absolute value and the angle
have them as holomorphic functions do.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import partial
from typing import Any

import numpy as np

from recsolve.base.arrays import namespace
from recsolve.recurrence import function_rules as rules
from recsolve.symbolic.dual import STEPS, WINS, Dual, OfState, value_of

DIRECTIONS = "directions"  # the one leaf of a tangent

# Methods of arrays that are NumPy's functions of the same name.
_METHODS = {
    "all", "any", "argmax", "argmin", "argsort", "conj", "conjugate", "cumprod", "cumsum", "diagonal", "dot", "max",
    "mean", "min", "nonzero", "prod", "ravel", "repeat", "squeeze", "std", "sum", "swapaxes", "take", "trace", "var",
}  # fmt: skip


def _moves(x: Any) -> bool:
    """Return whether ``x`` carries directions."""
    return isinstance(x, Tangent) and bool(x.partials)


def _plain(x: Any) -> Any:
    """Return an argument, or a list of arguments, without partials."""
    return type(x)(map(_plain, x)) if type(x) in (list, tuple) else value_of(x)


def _any_tangent(x: Any) -> bool:
    return any(map(_any_tangent, x)) if isinstance(x, (list, tuple)) else isinstance(x, Tangent)


def _is_complex(x: Any) -> bool:
    return isinstance(x, complex) or getattr(getattr(x, "dtype", None), "kind", None) == "c"


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

    def lift(self, name: str, args: Sequence[Any]) -> Any:
        if any(map(_is_complex, args)):
            if name == "absolute":
                return self._composed(np.absolute, lambda z: np.hypot(np.real(z), np.imag(z)), args, {})
            if name in WINS or name in STEPS:
                raise self._unsupported(f"numpy.{name} of complex numbers")
        return super().lift(name, args)

    def _other(self, name: str, function: Any, args: Any, kwargs: Any) -> Any:
        if not args or kwargs.get("out") is not None:
            raise self._unsupported(f"{name} with {'out=' if args else 'its arrays by keyword'}")
        if isinstance(function, np.ufunc) and function.__name__ in rules.SLOPES:
            return self._elementwise(function, rules.SLOPES[function.__name__], args)
        if function in rules.PLAIN:
            return function(*map(_plain, args), **{k: _plain(x) for k, x in kwargs.items()})
        if function in rules.FLAT:
            return type(self)(function(*self._values(args), **kwargs), {})
        if function in rules.MULTILINEAR:
            return self._multilinear(function, args, kwargs)
        if function in rules.COMPOSITIONS:
            return self._composed(function, rules.COMPOSITIONS[function], args, kwargs)
        count, rule = rules.RULES.get(function, (1, None))
        if _any_tangent(args[count:]) or _any_tangent(list(kwargs.values())):
            raise self._unsupported(f"{name} with another argument that depends on the state or the inputs")
        if rule is not None:
            return self._ruled(name, rule, count, args, kwargs)
        if function in rules.PARTS:
            pieces = range(len(function(value_of(args[0]), *args[1:], **kwargs)))
            return [self._linear(lambda x: function(x, *args[1:], **kwargs)[k], args[0]) for k in pieces]  # noqa: B023
        if function is np.concatenate:
            return self._concatenated(*args, **kwargs)
        if rules.is_linear(function, args, kwargs):
            return self._linear(lambda first: function(first, *args[1:], **kwargs), args[0])
        raise self._unsupported(name)

    def _method(self, ufunc: Any, method: str, inputs: Sequence[Any], kwargs: Any) -> Any:
        name = f"numpy.{ufunc.__name__}.{method}"
        if method == "outer" and not kwargs:
            a, b = inputs
            return ufunc(np.reshape(a, np.shape(a) + (1,) * np.ndim(b)), b)
        if (ufunc, method) in rules.REDUCTIONS:
            kwargs = {"axis": 0} | kwargs
            return self._other(name, rules.REDUCTIONS[ufunc, method], inputs, kwargs)
        if method not in ("reduce", "accumulate"):
            raise self._unsupported(name)
        return self._composed(getattr(ufunc, method), partial(rules.folded, ufunc, method), inputs, kwargs)

    def _elementwise(self, function: Any, slopes: Sequence[Callable[..., Any]], args: Any) -> Dual:
        values = self._values(args)
        y = function(*values)
        return self._combine(y, [(x, f(*values, y)) for x, f in zip(args, slopes, strict=True) if _moves(x)])

    def _composed(self, function: Any, composition: Callable[..., Any], args: Any, kwargs: Any) -> Tangent:
        """Return the value of a function with the derivative of a composition that it equals."""
        y = function(*_plain(tuple(args)), **{name: _plain(x) for name, x in kwargs.items()})
        try:
            found = composition(*args, **kwargs)
        except (
            TypeError,
            ValueError,
        ) as error:  # the value is there, so the function takes what the composition does not
            raise self._unsupported(f"numpy.{function.__name__} with these arguments ({error})") from error
        return self._made(y, found.partials if isinstance(found, Dual) else {})

    def _ruled(self, name: str, rule: Callable[..., Any], count: int, args: Any, kwargs: Any) -> Tangent:
        """Return the value that a rule gives, and what it makes of every direction."""
        values = [value_of(x) for x in args]
        if any(_is_complex(x) for x in values[:count]) and rule not in rules.COMPLEX:
            raise self._unsupported(f"{name} of complex numbers")
        try:
            y, push = rule(*values, **kwargs)
        except TypeError as error:
            raise self._unsupported(f"{name} with these arguments ({error})") from error
        moving = [x for x in args[:count] if _moves(x)]
        if not moving:
            return type(self)(y, {})

        def moved(j: int) -> Any:
            return push(*[x.directions[j] if _moves(x) else None for x in args[:count]])

        return self._made(y, {DIRECTIONS: np.stack([moved(j) for j in range(len(moving[0].directions))])})

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

    def _concatenated(self, arrays: Sequence[Any], axis: int | None = 0, **kwargs: Any) -> Tangent:
        """Join arrays, and all their directions at once: states that are packed are made so at every evaluation."""
        parts: Sequence[Any] = arrays if axis is not None else [np.ravel(x) for x in arrays]
        axis = axis or 0
        y = np.concatenate([value_of(x) for x in parts], axis=axis, **kwargs)
        moving = [x.directions for x in parts if _moves(x)]
        if not moving:
            return type(self)(y, {})
        still = namespace(y).zeros((), y.dtype)
        full = [
            np.broadcast_to(x.directions if _moves(x) else still, (len(moving[0]), *np.shape(value_of(x))))
            for x in parts
        ]
        return type(self).seeded(y, np.concatenate(full, axis=axis if axis < 0 else axis + 1, **kwargs))

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

    def mixed(self, mixing: Any, weight: Any, x: Any) -> Any:
        """Return y = W x of a mixing: linear in x, and moved by its weight."""
        y, v = mixing.matvec(value_of(x)), value_of(x)
        moved = [mixing.matvec(x.directions)] if _moves(x) else []
        if _moves(weight):
            moved.append(np.stack([mixing.weight_tangent(d, v) for d in weight.directions]))
        return type(self)(y, {DIRECTIONS: sum(moved[1:], moved[0])} if moved else {})

    def _unsupported(self, what: str) -> TypeError:
        return TypeError(
            f"{what} is not carried by automatic differentiation; write it with NumPy functions that are "
            "(docs/gradients.md), or pass jacobian= to from_function"
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
        y = self.value.reshape(*shape)
        return type(self)(y, {leaf: d.reshape((len(d), *y.shape)) for leaf, d in self.partials.items()})

    def transpose(self, *axes: Any) -> Tangent:
        return self._linear(lambda x: x.transpose(*axes), self)

    @property
    def mT(self) -> Tangent:
        return np.matrix_transpose(self)  # type: ignore[return-value]

    @property
    def real(self) -> Tangent:
        return np.real(self)

    @property
    def imag(self) -> Tangent:
        return np.imag(self)

    def astype(self, dtype: Any) -> Tangent:
        return self._linear(lambda x: x.astype(dtype), self)

    def flatten(self) -> Tangent:
        return np.ravel(self)  # type: ignore[return-value]

    def copy(self) -> Tangent:
        return self

    def __getattr__(self, name: str) -> Any:
        return partial(getattr(np, name), self) if name in _METHODS else super().__getattr__(name)


class StateTangent(OfState, Tangent):
    """A tangent that depends on the state; see :class:`recsolve.symbolic.dual.OfState`."""

    __slots__ = ()
    __hash__ = None

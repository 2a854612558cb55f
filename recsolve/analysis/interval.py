"""Intervals: arrays of closed intervals with outward rounding.

An :class:`Interval` holds every value that an entry can take, in exact arithmetic and in that of ``dtype``: each
operation widens its result by a bound on rounding. The derivative rules of :mod:`recsolve.symbolic.dual` are written
with operators and ufuncs only, so a dual over intervals carries enclosures of its partials. What has no rule raises.

References
----------
Moore, Kearfott and Cloud, "Introduction to Interval Analysis" (2009).
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
from numpy.lib.mixins import NDArrayOperatorsMixin

from recsolve.analysis.rounding import magnitude, product_rounding, rounding
from recsolve.base.arrays import Array
from recsolve.symbolic.dual import Dual

Bounds = tuple[Array, Array]

# One for rounding of the end in float64, one for rounding of a run in ``dtype``, one as slack.
_PADDING = 3.0


class Interval(NDArrayOperatorsMixin):
    """An array of intervals [lower, upper].

    Parameters
    ----------
    lower, upper : array
        Float64. NaN means that nothing is known, and becomes -inf and inf.
    dtype : dtype
        The arithmetic whose values are enclosed, besides exact ones. Python numbers are rounded to it, as NumPy does.

    Examples
    --------
    >>> import numpy as np
    >>> x = Interval.around(np.array([0.0]), np.array([1.0]), np.dtype(np.float64))
    >>> y = np.tanh(x) * 2 - x  # the two x are not known to be one, so more than the range of 2 tanh(x) - x
    >>> bool(y.lower[0] <= -0.53 and y.upper[0] >= 0.53 and y.upper[0] < 2.6)
    True
    """

    __slots__ = ("dtype", "lower", "upper")

    def __init__(self, lower: Any, upper: Any, dtype: np.dtype[Any]):
        lower, upper = np.asarray(lower, np.float64), np.asarray(upper, np.float64)
        largest = float(np.finfo(dtype).max)  # beyond it, arithmetic in dtype has overflowed
        self.lower = np.where(lower >= -largest, lower, -np.inf)
        self.upper = np.where(upper <= largest, upper, np.inf)
        self.dtype = dtype

    @classmethod
    def of(cls, x: Any, dtype: np.dtype[Any]) -> Interval:
        """Return an interval as it is, and a number or an array as intervals of one point."""
        if isinstance(x, Interval):
            return x
        exact = np.asarray(x, dtype if type(x) in (int, float) else None)
        return cls(exact, exact, dtype)

    @classmethod
    def around(cls, centre: Array, radius: Array, dtype: np.dtype[Any]) -> Interval:
        """Return the intervals centre +- radius, rounded outwards."""
        centre = np.asarray(centre, np.float64)
        return cls(np.nextafter(centre - radius, -np.inf), np.nextafter(centre + radius, np.inf), dtype)

    @property
    def shape(self) -> tuple[int, ...]:
        """The shape of the array of intervals."""
        return tuple(np.broadcast_shapes(self.lower.shape, self.upper.shape))

    @property
    def ndim(self) -> int:
        """The number of its axes."""
        return len(self.shape)

    @property
    def centre(self) -> Array:
        """The midpoints, rounded."""
        return 0.5 * self.lower + 0.5 * self.upper

    @property
    def radius(self) -> Array:
        """How far an end is from the computed centre at most."""
        centre = self.centre
        return np.nextafter(np.maximum(self.upper - centre, centre - self.lower), np.inf)  # type: ignore[no-any-return]

    def __repr__(self) -> str:
        return f"Interval(shape {self.shape}, {self.dtype})"

    def __len__(self) -> int:
        return self.shape[0]

    def __bool__(self) -> bool:
        raise TypeError("a Python branch on an interval, which may hold both answers")

    def __getitem__(self, index: Any) -> Interval:
        return Interval(self.lower[index], self.upper[index], self.dtype)

    def reshape(self, *shape: Any) -> Interval:
        """Return the intervals in another shape, as ``numpy.reshape``."""
        return Interval(self.lower.reshape(*shape), self.upper.reshape(*shape), self.dtype)

    def transpose(self, *axes: Any) -> Interval:
        """Return the intervals with permuted axes, as ``numpy.transpose``."""
        return Interval(self.lower.transpose(*axes), self.upper.transpose(*axes), self.dtype)

    def swapaxes(self, a: int, b: int) -> Interval:
        """Return the intervals with two axes exchanged."""
        return Interval(self.lower.swapaxes(a, b), self.upper.swapaxes(a, b), self.dtype)

    def __array_ufunc__(self, ufunc: Any, method: str, *inputs: Any, **kwargs: Any) -> Any:
        if any(isinstance(x, Dual) for x in inputs):
            return NotImplemented
        name = ufunc.__name__
        if method == "__call__" and name == "power" and not kwargs:
            return _power(*inputs)
        if method != "__call__" or kwargs or name not in RULES:
            raise TypeError(f"numpy.{name} has no rule for intervals")
        args = [Interval.of(x, self.dtype) for x in inputs]
        lower, upper = RULES[name](*args)
        return _padded(name, lower, upper, args)

    def __array_function__(self, function: Any, types: Any, args: Any, kwargs: Any) -> Any:
        if any(issubclass(kind, Dual) for kind in types):
            return NotImplemented
        if function is np.where and len(args) == 3:
            return _where(*(Interval.of(x, self.dtype) for x in args))
        if function in _MOVES:
            return self._moved(function, args, kwargs)
        if function in (np.zeros_like, np.ones_like, np.full_like):
            return function(np.empty(self.shape, self.dtype), *args[1:], **kwargs)
        if function in (np.shape, np.ndim, np.size):
            return function(self.lower, *args[1:], **kwargs)
        raise TypeError(f"numpy.{function.__name__} has no rule for intervals")

    def _moved(self, function: Any, args: Any, kwargs: Any) -> Interval:
        """Apply a function that only rearranges entries to both ends."""
        first, rest = args[0], args[1:]
        if not isinstance(first, (list, tuple)):
            return Interval(function(first.lower, *rest, **kwargs), function(first.upper, *rest, **kwargs), self.dtype)
        parts = [Interval.of(x, self.dtype) for x in first]
        lower, upper = ([getattr(x, end) for x in parts] for end in ("lower", "upper"))
        return Interval(function(lower, *rest, **kwargs), function(upper, *rest, **kwargs), self.dtype)


_MOVES = {
    np.reshape, np.ravel, np.transpose, np.moveaxis, np.swapaxes, np.expand_dims, np.squeeze, np.broadcast_to,
    np.roll, np.flip, np.take, np.repeat, np.tile, np.copy, np.concatenate, np.stack, np.hstack, np.vstack,
}  # fmt: skip


def _padded(name: str, lower: Array, upper: Array, args: Sequence[Interval]) -> Interval:
    """Return [lower, upper], widened by the rounding of ``name``."""
    dtype = args[0].dtype
    below, above = (_PADDING * rounding(name, np.abs(end), args, dtype) for end in (lower, upper))
    return Interval(lower - below, upper + above, dtype)


def _increasing(function: Any) -> Callable[..., Bounds]:
    return lambda *args: (function(*(x.lower for x in args)), function(*(x.upper for x in args)))


def _even(function: Any) -> Callable[[Interval], Bounds]:
    """Return the rule of an even function that increases from 0 on."""
    return lambda x: (function(_smallest(x)), function(magnitude(x)))


def _smallest(x: Interval) -> Array:
    """Return the smallest absolute value."""
    return np.maximum(np.maximum(x.lower, -x.upper), 0.0)


def _corners(function: Any, a: Interval, b: Interval) -> Bounds:
    values = [function(p, q) for p in (a.lower, a.upper) for q in (b.lower, b.upper)]
    return np.minimum.reduce(values), np.maximum.reduce(values)


def _known(where: Array, bounds: Bounds) -> Bounds:
    """Return the bounds where they hold, and NaN (nothing is known) elsewhere."""
    return np.where(where, bounds[0], np.nan), np.where(where, bounds[1], np.nan)


def _divide(a: Interval, b: Interval) -> Bounds:
    return _known((b.lower > 0) | (b.upper < 0), _corners(np.divide, a, b))


def _arctan2(a: Interval, b: Interval) -> Bounds:
    """Away from the origin and the branch cut along the negative axis, the extremes lie at corners of the box."""
    return _known((b.lower > 0) | (a.lower > 0) | (a.upper < 0), _corners(np.arctan2, a, b))


def _meets(x: Interval, phase: float, period: float) -> Array:
    """Return whether phase + k period may lie in the interval for some integer k."""
    first, last = (x.lower - phase) / period, (x.upper - phase) / period
    slack = 1e-12 * (1.0 + magnitude(x))
    return ~(np.ceil(first - slack) > np.floor(last + slack))  # NaN meets


def _wave(function: Any, peak: float) -> Callable[[Interval], Bounds]:
    """Return the rule of sin or cos, whose maximum is at ``peak``."""

    def rule(x: Interval) -> Bounds:
        lower, upper = _corners(lambda end, _: function(end), x, x)
        trough = _meets(x, peak + np.pi, 2 * np.pi)
        return np.where(trough, -1.0, lower), np.where(_meets(x, peak, 2 * np.pi), 1.0, upper)

    return rule


def _tan(x: Interval) -> Bounds:
    return _known(~_meets(x, np.pi / 2, np.pi), (np.tan(x.lower), np.tan(x.upper)))


def _power(x: Any, exponent: Any) -> Interval:
    """Return x ** exponent for a small multiple of 1/2, so that the exponent of its derivative is one too."""
    known = isinstance(x, Interval) and isinstance(exponent, (int, float)) and abs(exponent) <= 64
    if not known or exponent % 0.5:
        raise TypeError(f"numpy.power has no rule for intervals with exponent {exponent!r}")
    if exponent < 0:
        return _padded("divide", *_divide(Interval.of(1.0, x.dtype), _power(x, -exponent)), [x])
    rule = _even if exponent % 2 == 0 else _increasing
    lower, upper = rule(lambda end: np.power(end, float(exponent)))(x)
    return _padded("power", lower, upper, [x])


def _matmul(a: Interval, b: Interval) -> Bounds:
    """Centre and radius (Rump 1999), with the rounding of the sums."""
    spread = np.abs(a.centre) @ b.radius + a.radius @ magnitude(b)
    error = product_rounding(lambda size: size @ magnitude(b), magnitude(a), a.shape[-1], a.dtype)
    spread = spread + (_PADDING + 2) * error  # the sums of the radius round as well
    return a.centre @ b.centre - spread, a.centre @ b.centre + spread


def _where(condition: Interval, a: Interval, b: Interval) -> Interval:
    """Select; where the condition is open, take the hull of both."""
    surely, perhaps = _truth(condition)
    lower = np.where(surely, a.lower, np.where(perhaps, np.minimum(a.lower, b.lower), b.lower))
    upper = np.where(surely, a.upper, np.where(perhaps, np.maximum(a.upper, b.upper), b.upper))
    return Interval(lower, upper, a.dtype)


def _truth(x: Interval) -> tuple[Any, Any]:
    """Return where ``x`` is surely and where it is perhaps not 0. A truth is an interval within [0, 1]."""
    return (x.lower > 0) | (x.upper < 0), (x.lower != 0) | (x.upper != 0)


def _equal(a: Interval, b: Interval) -> Bounds:
    points = (a.lower == a.upper) & (b.lower == b.upper)
    return points & (a.lower == b.lower), (a.lower <= b.upper) & (b.lower <= a.upper)


def _not(bounds: Bounds) -> Bounds:
    return ~bounds[1], ~bounds[0]


def _logical(function: Any) -> Callable[..., Bounds]:
    def rule(*args: Interval) -> Bounds:
        surely, perhaps = zip(*map(_truth, args), strict=True)
        return function(*surely), function(*perhaps)

    return rule


_INCREASING = (
    "add", "maximum", "minimum", "logaddexp", "positive", "tanh", "sinh", "exp", "expm1", "log", "log1p", "sqrt",
    "arctan", "sign", "floor", "ceil", "rint", "trunc",
)  # fmt: skip
# Bounds of the result, before rounding.
RULES: dict[str, Callable[..., Bounds]] = {
    **{name: _increasing(getattr(np, name)) for name in _INCREASING},
    "negative": lambda x: (-x.upper, -x.lower),
    "subtract": lambda a, b: (a.lower - b.upper, a.upper - b.lower),
    "multiply": lambda a, b: _corners(np.multiply, a, b),
    "divide": _divide,
    "reciprocal": lambda x: _divide(Interval.of(1.0, x.dtype), x),
    "square": _even(np.square),
    "cosh": _even(np.cosh),
    "absolute": _even(np.positive),
    "sin": _wave(np.sin, np.pi / 2),
    "cos": _wave(np.cos, 0.0),
    "tan": _tan,
    "arctan2": _arctan2,
    "hypot": lambda a, b: (np.hypot(_smallest(a), _smallest(b)), np.hypot(magnitude(a), magnitude(b))),
    "matmul": _matmul,
    "greater": lambda a, b: (a.lower > b.upper, a.upper > b.lower),
    "greater_equal": lambda a, b: (a.lower >= b.upper, a.upper >= b.lower),
    "less": lambda a, b: (a.upper < b.lower, a.lower < b.upper),
    "less_equal": lambda a, b: (a.upper <= b.lower, a.lower <= b.upper),
    "equal": _equal,
    "not_equal": lambda a, b: _not(_equal(a, b)),
    **dict.fromkeys(("bitwise_and", "logical_and"), _logical(np.logical_and)),
    **dict.fromkeys(("bitwise_or", "logical_or"), _logical(np.logical_or)),
    **dict.fromkeys(("invert", "logical_not"), lambda x: _not(_truth(x))),
}

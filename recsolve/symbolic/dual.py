"""Forward differentiation: one class, one table of derivative rules.

A :class:`Dual` is a value together with its partial derivatives with respect to some *leaves*. The rules below are
written with operators and NumPy ufuncs only, so they run on anything that carries those: arrays, and the nodes of
an expression graph (:mod:`recsolve.symbolic.graph`). Two readings of the same rules:

- :class:`Dual`, inside a cell: each partial is the *elementwise* coefficient d value[i] / d leaf[i]. Operations that
  couple entries (sums, indexing, matrix products) have no such coefficient and raise; mixings open new leaves.
- :class:`Tangent`, inside a user's function: the partial is a set of directional derivatives, stacked on a leading
  axis, so multilinear operations are carried too.
"""

from __future__ import annotations

from collections.abc import Callable, Hashable, Mapping, Sequence
from typing import Any

import numpy as np

from recsolve.base.ties import at_tie
from recsolve.symbolic.constants import constant
from recsolve.symbolic.stand_in import Elementwise

ONE = 1.0  # the partial of a leaf with respect to itself; multiplying by it is skipped


def sigmoid(x: Any) -> Any:
    """Return 1 / (1 + exp(-x)) entry by entry, exact in the limits: 0 at -inf, 1 at +inf, NaN at NaN.

    Examples
    --------
    >>> import numpy as np
    >>> from recsolve.math import sigmoid
    >>> sigmoid(np.array([-np.inf, 0.0, np.inf])).tolist()
    [0.0, 0.5, 1.0]
    """
    if isinstance(x, Elementwise):
        return x.lift("sigmoid", (x,))
    return 1.0 / (1.0 + np.exp(-x))


def softplus(x: Any) -> Any:
    """Return log(1 + exp(x)) entry by entry, without overflow.

    Examples
    --------
    >>> import numpy as np
    >>> from recsolve.math import softplus
    >>> softplus(np.array([-np.inf, 1000.0])).tolist()
    [0.0, 1000.0]
    """
    if isinstance(x, Elementwise):
        return x.lift("softplus", (x,))
    return np.logaddexp(x, 0.0)


def _absolute_slope(x: Any, y: Any) -> Any:
    at_zero = at_tie("absolute")
    return np.where(x == 0, y.dtype.type(at_zero), np.sign(x)) if at_zero else np.sign(x)


# Flat but for jumps: nothing moves them.
STEPS = {"sign", "floor", "ceil", "rint", "trunc"}

# d f / d x from (x, y = f(x)).
UNARY: dict[str, Callable[[Any, Any], Any]] = {
    "negative": lambda x, y: -1.0,
    "positive": lambda x, y: 1.0,
    "tanh": lambda x, y: 1.0 - y * y,
    "sigmoid": lambda x, y: y * (1.0 - y),
    "softplus": lambda x, y: sigmoid(x),
    "exp": lambda x, y: y,
    "expm1": lambda x, y: y + 1.0,
    "log": lambda x, y: 1.0 / x,
    "log1p": lambda x, y: 1.0 / (1.0 + x),
    "sqrt": lambda x, y: 0.5 / y,
    "square": lambda x, y: 2.0 * x,
    "reciprocal": lambda x, y: -y * y,
    "sin": lambda x, y: np.cos(x),
    "cos": lambda x, y: -np.sin(x),
    "tan": lambda x, y: 1.0 + y * y,
    "sinh": lambda x, y: np.cosh(x),
    "cosh": lambda x, y: np.sinh(x),
    "arctan": lambda x, y: 1.0 / (1.0 + x * x),
    "absolute": _absolute_slope,
    **dict.fromkeys(sorted(STEPS), lambda x, y: 0.0),
}


def _power_slope(a: Any, b: Any) -> Any:
    """Return d a^b / d a, which is 0 at b = 0 whatever a is."""
    if isinstance(b, (int, float)):
        return b * a ** (b - 1) if b != 0 else 0.0
    return np.where(b == 0, 0, b * a ** np.where(b == 0, 1, b - 1))


def _exponent_slope(a: Any, y: Any) -> Any:
    """Return d a^b / d b, which is 0 where a^b is: log(0) is infinite."""
    base = a if hasattr(a, "dtype") else y.dtype.type(a)
    return np.where(y == 0, 0, y * np.log(np.where(y == 0, 1, base)))


def _hypot_slope(a: Any, y: Any) -> Any:
    """Return d hypot(a, b) / d a, which is 0 where both are."""
    return np.where(y == 0, 0, a / np.where(y == 0, 1, y))


# (d f / d a, d f / d b) from (a, b, y = f(a, b)).
BINARY: dict[str, tuple[Callable[..., Any], Callable[..., Any]]] = {
    "add": (lambda a, b, y: 1.0, lambda a, b, y: 1.0),
    "subtract": (lambda a, b, y: 1.0, lambda a, b, y: -1.0),
    "multiply": (lambda a, b, y: b, lambda a, b, y: a),
    "divide": (lambda a, b, y: 1.0 / b, lambda a, b, y: -y / b),
    "power": (lambda a, b, y: _power_slope(a, b), lambda a, b, y: _exponent_slope(a, y)),
    "logaddexp": (lambda a, b, y: np.exp(a - y), lambda a, b, y: np.exp(b - y)),
    "hypot": (lambda a, b, y: _hypot_slope(a, y), lambda a, b, y: _hypot_slope(b, y)),
    "arctan2": (lambda a, b, y: b / (a * a + b * b), lambda a, b, y: -a / (a * a + b * b)),
}

# When an operand of min/max wins, ties included and excluded.
WINS: dict[str, tuple[Callable[..., Any], Callable[..., Any]]] = {
    "maximum": (np.greater_equal, np.greater),
    "minimum": (np.less_equal, np.less),
}
COMPARISONS = {"greater", "greater_equal", "less", "less_equal", "equal", "not_equal", "isnan", "isfinite", "isinf"}
_EVALUATE: dict[str, Callable[..., Any]] = {"sigmoid": sigmoid, "softplus": softplus}


def value_of(x: Any) -> Any:
    """Return the value without its partials."""
    return x.value if isinstance(x, Dual) else x


def evaluate(name: str, values: Sequence[Any]) -> Any:
    """Return the elementwise operation ``name`` of values without partials."""
    return _EVALUATE.get(name, getattr(np, name, None))(*values)  # type: ignore[misc]


def _factor(name: str, index: int, values: Sequence[Any], y: Any) -> Any:
    """Return d y / d argument ``index``."""
    if name in UNARY:
        return UNARY[name](values[0], y)
    return BINARY[name][index](*values, y)


def _leads(a: Any, b: Any) -> bool:
    """Return whether ``a`` comes before ``b`` at a tie: the state first, other leaves next, constants last."""
    if isinstance(a, OfState) or not isinstance(b, Dual):
        return True
    return isinstance(a, Dual) and not isinstance(b, OfState)


def _passes(name: str, a: Any, b: Any, share: float, y: Any) -> tuple[Any, Any]:
    """Return where ``a`` passes its partials through a minimum or maximum, and a scale that is ``share`` at ties."""
    inclusive, strict = WINS[name]
    if share == 0:
        return strict(a, b), ONE
    return inclusive(a, b), ONE if share == 1 else np.where(a == b, y.dtype.type(share), y.dtype.type(1))


class Dual(Elementwise):
    """A value and its elementwise partials with respect to leaves.

    Parameters
    ----------
    value : array
        The value, shape (..., n).
    partials : mapping
        leaf -> d value / d leaf, each broadcasting against ``value``.
    """

    __slots__ = ("partials", "value")

    def __init__(self, value: Any, partials: Mapping[Hashable, Any]):
        self.value = value
        self.partials = dict(partials)

    @property
    def shape(self) -> tuple[int, ...]:
        return tuple(self.value.shape)

    @property
    def ndim(self) -> int:
        return int(self.value.ndim)

    @property
    def dtype(self) -> Any:
        return self.value.dtype

    def __repr__(self) -> str:
        return f"{type(self).__name__}(shape {self.shape}, leaves {list(self.partials)})"

    def lift(self, name: str, args: Sequence[Any]) -> Dual:
        """Apply the elementwise operation ``name`` to values and, by its rule, to partials."""
        values = self._values(args)
        y = evaluate(name, values)
        if name in STEPS:
            return self._made(y, {})
        if name in WINS:
            return self._select(y, self._wins(name, args, values, y))
        terms = [(arg, _factor(name, index, values, y)) for index, arg in enumerate(args) if isinstance(arg, Dual)]
        return self._combine(y, terms)

    def __pow__(self, exponent: Any) -> Dual:
        out = self.lift("power", (self, exponent))
        if type(exponent) in (int, float):  # the operator takes squares and roots of some, which numpy.power does not
            out.value = self.value**exponent
        return out

    def _values(self, args: Sequence[Any]) -> list[Any]:
        """Return operands without their partials; constants take the dtype of the state."""
        return [value_of(x) if isinstance(x, Elementwise) else constant(x, self.dtype) for x in args]

    def _combine(self, y: Any, terms: Sequence[tuple[Dual, Any]]) -> Dual:
        """Return ``y`` with partials sum of factor * partial over the terms."""
        partials: dict[Hashable, Any] = {}
        for arg, factor in terms:
            for leaf, partial in arg.partials.items():
                term = self._scale(factor, arg._aligned(partial, y))
                partials[leaf] = partials[leaf] + term if leaf in partials else term
        return self._made(y, partials)

    def _select(self, y: Any, choices: Sequence[tuple[Any, Any, Any]]) -> Dual:
        """Return ``y`` with the scaled partials of each choice where its mask holds (selected: 0 * inf is NaN)."""
        partials: dict[Hashable, Any] = {}
        for arg, mask, scale in choices:
            for leaf, partial in arg.partials.items() if isinstance(arg, Dual) else ():
                term = np.where(mask, self._scale(scale, arg._aligned(partial, y)), y.dtype.type(0))
                partials[leaf] = partials[leaf] + term if leaf in partials else term
        return self._made(y, partials)

    @staticmethod
    def _wins(name: str, args: Sequence[Any], values: Sequence[Any], y: Any) -> list[tuple[Dual, Any, Any]]:
        """Return the dual arguments of a minimum or maximum, each with where it passes its partials and their scale.

        At a tie one argument passes the share that is in force and the other one the rest.
        """
        (a, b), (value_a, value_b) = args, values
        share = at_tie(name) if _leads(a, b) else 1.0 - at_tie(name)
        choices = ((a, value_a, value_b, share), (b, value_b, value_a, 1.0 - share))
        return [(x, *_passes(name, value, other, s, y)) for x, value, other, s in choices if isinstance(x, Dual)]

    def _made(self, y: Any, partials: Mapping[Hashable, Any]) -> Dual:
        return type(self)(y, partials)

    def _aligned(self, partial: Any, y: Any) -> Any:
        return partial

    @staticmethod
    def _scale(factor: Any, partial: Any) -> Any:
        if partial is ONE:
            return factor
        return partial if isinstance(factor, float) and factor == 1.0 else factor * partial

    def _ufunc(self, ufunc: Any, inputs: Sequence[Any]) -> Any:
        name = ufunc.__name__
        if name in COMPARISONS:
            return ufunc(*self._values(inputs))
        if name in UNARY or name in BINARY or name in WINS:
            return self.lift(name, inputs)
        return self._other(f"numpy.{name}" if hasattr(np, name) else name, ufunc, inputs, {})

    def _function(self, function: Any, args: Any, kwargs: Any) -> Any:
        fills = function in (np.zeros_like, np.ones_like, np.full_like)
        if fills and not any(isinstance(x, Dual) for x in (*args[1:], *kwargs.values())):
            return function(value_of(args[0]), *args[1:], **kwargs)
        if function in (np.shape, np.ndim, np.size):
            return function(self.value, *args[1:], **kwargs)
        return self._other(f"numpy.{function.__name__}", function, args, kwargs)

    def _where(self, condition: Any, a: Any, b: Any) -> Dual:
        condition = np.not_equal(value_of(condition), 0)  # as NumPy reads numbers; ~True is -2 of a Python bool
        y = np.where(condition, *self._values((a, b)))
        return self._select(y, [(a, condition, ONE), (b, ~condition, ONE)])


class OfState(Dual):
    """A dual that depends on the state; ties treat it differently from duals that do not.

    NumPy tries a subclass first, so a result with an operand of this class is of this class.
    """

    __slots__ = ()
    __hash__ = None  # type: ignore[assignment]

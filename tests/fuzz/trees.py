"""Random expressions: small trees that are written as Python source and evaluated without the library.

A tree is a tuple. Leaves: ("s", i) a component of the state, ("u", name) a drive, ("p", name) a parameter, ("c", x) a
number of few bits, exact in float32. Inner nodes: ("mix", name, tree) and (operation, *trees).
"""

from __future__ import annotations

import numpy as np

LONG = np.longdouble


def _sigmoid(x):
    return 1 / (1 + np.exp(-x))


# operation: (source, value, rounding units of the result). Sources may use recsolve.math's names and np.
OPERATIONS = {
    "add": ("({0} + {1})", np.add, 1),
    "subtract": ("({0} - {1})", np.subtract, 1),
    "multiply": ("({0} * {1})", np.multiply, 1),
    "divide": ("({0} / {1})", np.divide, 1),
    "negative": ("(-{0})", np.negative, 0),
    "square": ("({0})**2", np.square, 1),
    "cube": ("({0})**3", lambda x: x * x * x, 4),
    "maximum": ("maximum({0}, {1})", np.maximum, 0),
    "minimum": ("minimum({0}, {1})", np.minimum, 0),
    "absolute": ("absolute({0})", np.absolute, 0),
    "relu": ("relu({0})", lambda x: np.maximum(x, 0), 0),
    "clip": ("minimum(maximum({0}, -1.0), 1.0)", lambda x: np.minimum(np.maximum(x, -1), 1), 0),
    "positive": ("where({0} > 0, {1}, {2})", lambda a, b, c: np.where(a > 0, b, c), 0),
    "tanh": ("tanh({0})", np.tanh, 5),
    "sigmoid": ("sigmoid({0})", _sigmoid, 6),
    "softplus": ("softplus({0})", lambda x: np.logaddexp(x, x.dtype.type(0)), 6),
    "exp": ("exp({0})", np.exp, 5),
    "expm1": ("expm1({0})", np.expm1, 5),
    "log1p": ("log1p({0})", np.log1p, 5),
    "sqrt": ("sqrt({0})", np.sqrt, 1),
    "sin": ("sin({0})", np.sin, 5),
    "cos": ("cos({0})", np.cos, 5),
    "tan": ("tan({0})", np.tan, 8),
    "arctan": ("arctan({0})", np.arctan, 5),
    "logaddexp": ("logaddexp({0}, {1})", np.logaddexp, 6),
    "reciprocal": ("reciprocal({0})", lambda x: 1 / x, 1),
}
CANCELLING = {"softplus", "logaddexp"}  # their results may be small beside what is added up inside
PERIODIC = {"sin", "cos"}  # bounded by 1, whatever rounding has done to the argument
SMOOTH = ("tanh", "sigmoid", "sin", "cos", "arctan", "softplus")
KINKED = ("relu", "clip", "absolute")


def number(rng, low, high):
    """Return a number with six bits after the point, which float32 holds."""
    return ("c", float(np.round(rng.uniform(low, high) * 64) / 64))


def expression(rng, leaves, depth):
    """Return a random expression that does not grow: sums and products of bounded functions of a few leaves."""
    if depth == 0:
        return leaves[rng.integers(len(leaves))]
    draw = lambda: expression(rng, leaves, depth - 1)  # noqa: E731
    choice = int(rng.integers(10))
    if choice < 3:
        return (str(rng.choice(SMOOTH)), draw())
    if choice == 3:
        return (str(rng.choice(KINKED)), draw())
    if choice == 4:
        return (str(rng.choice(["add", "subtract"])), draw(), ("multiply", number(rng, -1, 1), draw()))
    if choice == 5:
        return ("multiply", ("tanh", draw()), draw())
    if choice == 6:
        return (str(rng.choice(["maximum", "minimum", "logaddexp"])), draw(), draw())
    if choice == 7:
        return ("divide", draw(), ("add", ("c", 1.5), ("square", draw())))
    if choice == 8:
        rare = int(rng.integers(5))
        if rare == 0:
            return ("exp", ("negative", ("absolute", draw())))
        if rare == 1:
            return ("log1p", ("absolute", draw()))
        if rare == 2:
            return ("sqrt", ("add", ("c", 1.0), ("square", draw())))
        if rare == 3:
            return ("tan", ("tanh", draw()))
        return ("reciprocal", ("add", ("c", 2.0), ("sin", draw())))
    drives = [leaf for leaf in leaves if leaf[0] == "u"] or leaves
    return ("positive", drives[rng.integers(len(drives))], draw(), draw())


def wrapped(rng, component, leaves, style, depth):
    """Return the new value of a component around a random expression, in one of the styles of :data:`STYLES`."""
    inner = expression(rng, leaves, depth)
    s, u = ("s", component), next(leaf for leaf in leaves if leaf[0] == "u")
    bounded = (str(rng.choice(["tanh", "sin", "arctan", "sigmoid"])), inner)
    if style == "leaky":
        return ("add", ("multiply", number(rng, -0.9, 0.9), s), bounded)
    if style == "gated":
        z = ("sigmoid", expression(rng, leaves, 1))
        return ("add", ("multiply", ("subtract", ("c", 1.0), z), s), ("multiply", z, bounded))
    if style == "kinked":
        kink = (str(rng.choice(KINKED)), s if rng.random() < 0.5 else ("subtract", s, u))
        return ("add", ("add", ("multiply", ("c", 0.5), s), ("multiply", number(rng, -0.4, 0.4), kink)), u)
    if style == "curved":  # bounded slope, second derivative up to a hundred
        b = ("c", float(rng.choice([8.0, 32.0, 128.0])))
        wave = ("divide", ("sin", ("multiply", b, s)), ("c", 4 * b[1]))
        return ("add", ("add", ("multiply", ("c", 0.5), s), wave), bounded)
    if style == "chaotic":
        return ("add", ("multiply", number(rng, 1.5, 6), ("sin", s)), u if rng.random() < 0.5 else bounded)
    if style == "minmax":
        return ("maximum", ("minimum", s, ("add", u, ("c", 1.0))), u)
    if style == "huge":
        k = ("c", float(2.0 ** rng.integers(40, 62)))
        wave = (str(rng.choice(["sin", "cos"])), ("multiply", k, u))
        return ("add", ("multiply", ("c", 0.5), s), wave)
    return bounded


STYLES = ("plain", "leaky", "gated", "kinked", "curved", "chaotic", "minmax")


def source(tree, render):
    """Return the source of an expression; ``render(leaf)`` writes leaves, and calls of mixings around their input."""
    name, *rest = tree
    if name in ("s", "u", "p", "c"):
        return render(tree, None)
    if name == "mix":
        return render(tree, source(rest[1], render))
    return OPERATIONS[name][0].format(*(source(part, render) for part in rest))


def evaluated(tree, values):
    """Return the value of an expression in the dtype of ``values``; values(leaf, x) answers leaves and mixings."""
    name, *rest = tree
    if name in ("s", "u", "p", "c"):
        return values(tree, None)
    if name == "mix":
        return values(tree, evaluated(rest[1], values))
    return OPERATIONS[name][1](*(evaluated(part, values) for part in rest))


def rounded(tree, values, mixed, unit, dtype):
    """Return an expression in extended precision and a bound on the rounding of its evaluation in ``dtype``.

    Parameters
    ----------
    values : callable
        As in :func:`evaluated`.
    mixed : callable
        mixed(name, x, e) bounds the rounding of a mixing of x +- e.
    unit : float
        The rounding unit of ``dtype``.
    """
    name, *rest = tree
    if name in ("s", "u", "p", "c"):
        x = values(tree, None)
        return x, np.zeros_like(x)
    if name == "mix":
        x, e = rounded(rest[1], values, mixed, unit, dtype)
        return values(tree, x), mixed(rest[0], x, e)
    parts = [rounded(part, values, mixed, unit, dtype) for part in rest]
    xs, (_, function, units) = [x for x, _ in parts], OPERATIONS[name]
    y = function(*xs)
    size = np.abs(y) + (1 + sum(np.abs(x) for x in xs) if name in CANCELLING else 0)
    error = units * unit * size + np.finfo(dtype).tiny
    for i, (x, e) in enumerate(parts):
        if not np.any(e):
            continue
        if name in PERIODIC:
            error = error + np.minimum(e, 2)
            continue
        for moved in (x + e, x - e):
            other = function(*xs[:i], moved, *xs[i + 1 :])
            error = error + np.abs(other - y)
    overflows = ~(np.abs(y) < np.finfo(dtype).max)
    return y, np.where(overflows | np.isnan(error), LONG(np.inf), error)

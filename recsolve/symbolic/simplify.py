"""Algebraic simplification that floating point allows.

A rule may not change a result, NaN and infinities included. So x * 0 stays (it is NaN where x is infinite or NaN), and
so do x - x, 0 / x and x / x. Each rule says what it does; one of them, x + 0, may turn -0.0 into 0.0 or back, which no
derivative sees. A rule returns the simpler node, or None where it does not apply.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from recsolve.symbolic.graph import Graph, Node


def _negated(x: Node) -> Node | None:
    """Return a of -a."""
    return x.arguments[0] if x.operation == "negative" else None


def _add(graph: Graph, a: Node, b: Node) -> Node | None:
    """x + 0 is x; a + (-b) is a - b, which is how IEEE 754 defines subtraction."""
    for x, y in ((a, b), (b, a)):
        if y.equals(0.0):
            return x
    for x, y in ((a, b), (b, a)):
        if (inner := _negated(y)) is not None:
            return graph.apply("subtract", (x, inner))
    return None


def _subtract(graph: Graph, a: Node, b: Node) -> Node | None:
    """x - 0 is x; a - (-b) is a + b."""
    if b.equals(0.0):
        return a
    inner = _negated(b)
    return None if inner is None else graph.apply("add", (a, inner))


def _multiply(graph: Graph, a: Node, b: Node) -> Node | None:
    """1 * x is x and -1 * x is -x; (-a) * b is -(a * b), for the sign of a product is exact."""
    for x, y in ((a, b), (b, a)):
        if x.equals(1.0):
            return y
        if x.equals(-1.0):
            return graph.apply("negative", (y,))
    return _signs_outside(graph, "multiply", a, b)


def _divide(graph: Graph, a: Node, b: Node) -> Node | None:
    """x / 1 is x and x / -1 is -x; (-a) / b and a / (-b) are -(a / b)."""
    if b.equals(1.0):
        return a
    return graph.apply("negative", (a,)) if b.equals(-1.0) else _signs_outside(graph, "divide", a, b)


def _signs_outside(graph: Graph, operation: str, a: Node, b: Node) -> Node | None:
    """Move a minus out of a product or quotient, where a sum may take it in or another one cancel it."""
    inner_a, inner_b = _negated(a), _negated(b)
    if inner_a is None and inner_b is None:
        return None
    rest = graph.apply(operation, (a if inner_a is None else inner_a, b if inner_b is None else inner_b))
    return rest if inner_a is not None and inner_b is not None else graph.apply("negative", (rest,))


def _power(graph: Graph, a: Node, b: Node) -> Node | None:
    """x ** 0 is 1, of NaN too, and x ** 1 is x; as NumPy's operator does, x ** 2 is x * x and x ** -1 is 1 / x."""
    if b.equals(0.0):
        return graph.node(1.0)
    if b.equals(1.0):
        return a
    if b.equals(2.0):
        return graph.apply("multiply", (a, a))
    return graph.apply("divide", (1.0, a)) if b.equals(-1.0) else None


def _where(graph: Graph, condition: Node, a: Node, b: Node) -> Node | None:
    """A known condition chooses; where(c, x, x) is x; where(not c, a, b) is where(c, b, a)."""
    if condition.operation == "constant":
        return a if condition.content else b
    if a is b:
        return a
    return graph.apply("where", (condition.arguments[0], b, a)) if condition.operation == "logical_not" else None


def _not_equal(graph: Graph, a: Node, b: Node) -> Node | None:
    """where(c, 1, 0) != 0 is c: a condition that was read as a number and back."""
    if b.equals(0.0) and a.operation == "where" and a.arguments[1].equals(1.0) and a.arguments[2].equals(0.0):
        return a.arguments[0]
    return None


def _same(graph: Graph, a: Node, b: Node) -> Node | None:
    """x and x is x, so are x or x, and the smaller and the larger of x and x."""
    return a if a is b else None


def _logical_not(graph: Graph, a: Node) -> Node | None:
    """Not (not x) is x. Not (a > b) is *not* a <= b: NaN."""
    return a.arguments[0] if a.operation == "logical_not" else None


RULES: dict[str, Callable[..., Node | None]] = {
    "add": _add,
    "subtract": _subtract,
    "multiply": _multiply,
    "divide": _divide,
    "power": _power,
    "where": _where,
    "negative": lambda graph, a: _negated(a),  # -(-x) is x
    "positive": lambda graph, a: a,
    "square": lambda graph, a: graph.apply("multiply", (a, a)),
    "reciprocal": lambda graph, a: graph.apply("divide", (1.0, a)),
    "not_equal": _not_equal,
    "minimum": _same,
    "maximum": _same,
    "logical_and": _same,
    "logical_or": _same,
    "logical_not": _logical_not,
}

"""An expression graph in which equal expressions are one object.

Nodes are made by a :class:`Graph`, which keeps every one of them by its operation and arguments (hash-consing), so a
common subexpression exists once and an expression that is built again is found. They follow NumPy's protocols: NumPy's
own functions, those of :mod:`recsolve.math` and the duals of :mod:`recsolve.symbolic.dual` run on nodes as they do on
arrays.
"""

from __future__ import annotations

from collections.abc import Callable, Hashable, Iterable, Sequence
from typing import Any, NamedTuple, NoReturn

import numpy as np

from recsolve.symbolic.dual import BINARY, COMPARISONS, UNARY, WINS, Dual, evaluate
from recsolve.symbolic.simplify import RULES
from recsolve.symbolic.stand_in import Elementwise

LOGIC = {"logical_and", "logical_or", "logical_xor", "logical_not"}
_ON_CONDITIONS = {"bitwise_and": "logical_and", "bitwise_or": "logical_or", "bitwise_xor": "logical_xor"}
_ON_CONDITIONS["invert"] = "logical_not"
ARITHMETIC = {*UNARY, *BINARY, *WINS}
CONDITIONS = COMPARISONS | LOGIC  # operations whose result is true or false
OPERATIONS = ARITHMETIC | CONDITIONS | {"where"}
# Rounding does not see the order of these arguments: they are sorted, so that a + b and b + a are one node.
_COMMUTATIVE = {"add", "multiply", "equal", "not_equal", "logical_and", "logical_or", "logical_xor"}


class Leaf(NamedTuple):
    """An input of expressions: its kind (component, drive, parameter, weight, mixing, cotangent) and name."""

    kind: str
    name: str


class _AnyDtype:
    """The dtype of nodes, which take that of the arrays they are evaluated on: numbers are cast to nothing."""

    type = float


class Node(Elementwise):
    """An operation on other nodes, a leaf, or a constant; made by a :class:`Graph` and never changed.

    It stands for one entry of an array, so its shape is ().

    Attributes
    ----------
    operation : str
        One of ``OPERATIONS``, ``"leaf"`` or ``"constant"``.
    arguments : tuple of Node
    content : Leaf, float, bool or None
        Which leaf, or the value of a constant.
    index : int
        Place in the order of making: an argument comes before what it is an argument of.
    graph : Graph
    """

    __slots__ = ("arguments", "content", "graph", "index", "operation")
    __hash__ = object.__hash__
    shape, ndim, dtype = (), 0, _AnyDtype
    graph: Graph
    index: int
    operation: str
    arguments: tuple[Node, ...]
    content: Any

    def __init__(
        self, graph: Graph, index: int, operation: str, arguments: tuple[Node, ...], content: Leaf | float | None
    ):
        entries = (graph, index, operation, arguments, content)
        for name, entry in zip(("graph", "index", "operation", "arguments", "content"), entries, strict=True):
            object.__setattr__(self, name, entry)

    def __setattr__(self, name: str, value: Any) -> NoReturn:
        raise AttributeError("nodes cannot be changed")

    def __reduce__(self) -> Any:
        return _node_at, (self.graph, self.index)  # a copy belongs to a copy of its graph

    @property
    def is_condition(self) -> bool:
        """Whether it is true or false rather than a number."""
        return self.operation in CONDITIONS or isinstance(self.content, bool)

    def equals(self, number: float) -> bool:
        """Return whether it is the constant ``number``."""
        return self.operation == "constant" and not self.is_condition and bool(self.content == number)

    def __repr__(self) -> str:
        if self.arguments:
            return f"Node({self.operation} of {', '.join(str(a.index) for a in self.arguments)})"
        return f"Node({self.content})"

    def lift(self, name: str, args: Sequence[Any]) -> Node:
        return self.graph.apply(name, args)

    def _where(self, condition: Any, a: Any, b: Any) -> Node:
        return self.graph.apply("where", (condition, a, b))

    def __array_ufunc__(self, ufunc: Any, method: str, *inputs: Any, **kwargs: Any) -> Any:
        if any(isinstance(x, Dual) for x in inputs):
            return NotImplemented  # the dual splits into values, which come here, and partials
        return super().__array_ufunc__(ufunc, method, *inputs, **kwargs)

    def __array_function__(self, function: Any, types: Any, args: Any, kwargs: Any) -> Any:
        if any(issubclass(kind, Dual) for kind in types):
            return NotImplemented
        return super().__array_function__(function, types, args, kwargs)

    def _ufunc(self, ufunc: Any, inputs: Sequence[Any]) -> Any:
        name = ufunc.__name__
        if name in _ON_CONDITIONS and all(self.graph.node(x).is_condition for x in inputs):
            name = _ON_CONDITIONS[name]
        if name not in OPERATIONS:
            return self._other(f"numpy.{name}", ufunc, inputs, {})
        return self.graph.apply(name, inputs)

    def _function(self, function: Any, args: Any, kwargs: Any) -> Any:
        fills = {np.zeros_like: (0.0,), np.ones_like: (1.0,), np.full_like: args[1:2]}
        if function in fills:
            return self.graph.node(*(fills[function] or (kwargs["fill_value"],)))
        if function in (np.shape, np.ndim):
            return function(0.0)
        return self._other(f"numpy.{function.__name__}", function, args, kwargs)


class Graph:
    """The nodes made so far; the only way to make one.

    Examples
    --------
    >>> import numpy as np
    >>> from recsolve.symbolic.graph import Graph
    >>> graph = Graph()
    >>> x = graph.leaf("component", "h")
    >>> np.tanh(x) * 2.0 is 2 * np.tanh(x)
    True
    """

    def __init__(self) -> None:
        self._nodes: dict[tuple[Hashable, ...], Node] = {}

    def __reduce__(self) -> Any:
        made = [(key, [a.index for a in node.arguments], node.content) for key, node in self._nodes.items()]
        return _graph_of, (made,)  # no nodes in it, however deep they are nested

    def leaf(self, kind: str, name: str) -> Node:
        """Return the leaf of this kind and name."""
        return self._made("leaf", (), Leaf(kind, name), (kind, name))

    def node(self, x: Any) -> Node:
        """Return ``x`` as a node of this graph: itself, or a constant from one number.

        Raises
        ------
        TypeError
            For anything else, arrays with axes above all.
        """
        if isinstance(x, Node):
            if x.graph is not self:
                raise TypeError("a node of another graph: keep nothing from one call of a cell for the next")
            return x
        array = np.asarray(x)
        if array.ndim or array.dtype.kind not in "biuf":
            what = f"an array of shape {array.shape}" if array.ndim else repr(x)
            raise TypeError(f"{what} inside a cell; wanted a number, or a parameter p.name that holds the array")
        value = bool(array) if array.dtype.kind == "b" else float(array)
        return self._made("constant", (), value, (repr(value),))  # 0.0 == -0.0 and NaN != NaN, but not their repr

    def number(self, x: Any) -> Node:
        """Return ``x`` as a node that is a number, a condition as 1 or 0."""
        node = self.node(x)
        return self.apply("where", (node, 1.0, 0.0)) if node.is_condition else node

    def apply(self, operation: str, arguments: Iterable[Any]) -> Node:
        """Return ``operation`` of the arguments, in simplest form."""
        args = self._of_right_kind(operation, [self.node(x) for x in arguments])
        if operation != "where" and all(a.operation == "constant" for a in args):
            with np.errstate(all="ignore"):
                return self.node(evaluate(operation, [a.content for a in args]))
        if operation in RULES and (simpler := RULES[operation](self, *args)) is not None:
            return simpler
        if operation in _COMMUTATIVE:
            args = sorted(args, key=lambda a: a.index)
        return self._made(operation, tuple(args), None, tuple(a.index for a in args))

    def _of_right_kind(self, operation: str, args: list[Node]) -> list[Node]:
        """Return the arguments with conditions as 1 and 0 where numbers are wanted, and numbers as conditions."""
        if operation in LOGIC:
            return [self._condition(a) for a in args]
        if operation == "where":
            return [self._condition(args[0]), self.number(args[1]), self.number(args[2])]
        if operation in ARITHMETIC and all(a.is_condition for a in args):
            raise TypeError(f"{operation} of conditions; write &, | and ~, or where(condition, 1.0, 0.0)")
        return [self.number(a) for a in args]

    def _condition(self, x: Node) -> Node:
        return x if x.is_condition else self.apply("not_equal", (x, 0.0))

    def _made(self, operation: str, arguments: tuple[Node, ...], content: Any, key: tuple[Hashable, ...]) -> Node:
        found = self._nodes.get((operation, *key))
        if found is None:
            found = self._nodes[operation, *key] = Node(self, len(self._nodes), operation, arguments, content)
        return found


def _graph_of(made: Iterable[tuple[Any, list[int], Any]]) -> Graph:
    graph = Graph()
    nodes: list[Node] = []
    for (operation, *key), arguments, content in made:
        nodes.append(graph._made(operation, tuple(nodes[i] for i in arguments), content, tuple(key)))
    return graph


def _node_at(graph: Graph, index: int) -> Node:
    return list(graph._nodes.values())[index]


def _arguments(node: Node) -> tuple[Node, ...]:
    return node.arguments


def reachable(outputs: Iterable[Node], needs: Callable[[Node], Iterable[Node]] = _arguments) -> list[Node]:
    """Return the nodes that the outputs need, arguments first; ``needs`` returns those of one node."""
    found: dict[int, Node] = {}
    waiting = list(outputs)
    while waiting:
        node = waiting.pop()
        if node.index not in found:
            found[node.index] = node
            waiting.extend(needs(node))
    return [found[index] for index in sorted(found)]

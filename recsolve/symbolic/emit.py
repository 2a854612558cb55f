"""Write expression graphs as source: one traversal, and a table of formats for each language.

A language is a :class:`Dialect`: a format per operation, one for statements, and how it spells constants and leaves.
``LISTING`` is the one for people.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from recsolve.symbolic.dual import UNARY
from recsolve.symbolic.graph import OPERATIONS, Leaf, Node, reachable

LETTERS = {"component": "s", "drive": "u", "parameter": "p", "weight": "W", "mixing": "m", "cotangent": "g"}
OPERATORS = {
    "add": "{} + {}",
    "subtract": "{} - {}",
    "multiply": "{} * {}",
    "divide": "{} / {}",
    "negative": "-{}",
    "greater": "{} > {}",
    "greater_equal": "{} >= {}",
    "less": "{} < {}",
    "less_equal": "{} <= {}",
    "equal": "{} == {}",
    "not_equal": "{} != {}",
    "logical_and": "{} & {}",
    "logical_or": "{} | {}",
    "logical_xor": "{} ^ {}",
    "logical_not": "~{}",
}


def calls(prefix: str) -> dict[str, str]:
    """Return formats that write every operation as a call of the function of its name."""
    arity = dict.fromkeys((*UNARY, "isnan", "isfinite", "isinf", "logical_not"), 1) | {"where": 3}
    return {name: f"{prefix}{name}({', '.join(['{}'] * arity.get(name, 2))})" for name in OPERATIONS}


def variable(leaf: Leaf) -> str:
    """Return the name of a leaf in source: ``s_h``, ``u_r``, ``p_b_n``, ``W_r``, ``m_0``."""
    return f"{LETTERS[leaf.kind]}_{leaf.name}"


def leaves(outputs: Sequence[Node]) -> list[Leaf]:
    """Return the leaves that outputs depend on: the arguments of a function for them, in order."""
    return [node.content for node in reachable(outputs) if node.operation == "leaf"]


@dataclass(frozen=True, kw_only=True)
class Dialect:
    """How a language is written.

    Parameters
    ----------
    formats : mapping
        Operation to format, with one ``{}`` per argument.
    number, condition : str
        The statement that names the result of an operation, a number or a truth value; with ``{name}`` and
        ``{expression}``.
    constant : callable
        float or bool to source.
    leaf : callable
        Leaf to source.
    """

    formats: Mapping[str, str]
    number: str = "{name} = {expression}"
    condition: str = "{name} = {expression}"
    constant: Callable[[Any], str] = repr
    leaf: Callable[[Leaf], str] = variable

    def write(self, outputs: Sequence[Node]) -> tuple[list[str], list[str]]:
        """Return statements that compute the outputs, one operation each, and the name of each output."""
        names: dict[int, str] = {}
        statements: list[str] = []
        for node in reachable(outputs):
            if not node.arguments:
                names[node.index] = (self.leaf if node.operation == "leaf" else self.constant)(node.content)
                continue
            name = names[node.index] = f"t{len(statements)}"
            expression = self.formats[node.operation].format(*(names[a.index] for a in node.arguments))
            statement = self.condition if node.is_condition else self.number
            statements.append(statement.format(name=name, expression=expression))
        return statements, [names[node.index] for node in outputs]


LISTING = Dialect(formats=calls("") | OPERATORS, leaf=lambda leaf: f"{LETTERS[leaf.kind]}.{leaf.name}")

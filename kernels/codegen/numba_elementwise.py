"""Write the functions of a traced cell for Numba, and put them into the template of the loops around them.

The language is a :class:`recsolve.symbolic.emit.Dialect`; what is added here is where leaves are loaded from and
results stored.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any, TypeAlias

import numpy as np

from recsolve.symbolic.emit import OPERATORS, Dialect, calls, variable
from recsolve.symbolic.graph import Leaf, Node, reachable
from recsolve.symbolic.program import Program

LOGIC = {
    "logical_and": "({} and {})",
    "logical_or": "({} or {})",
    "logical_xor": "({} != {})",
    "logical_not": "(not {})",
    "where": "({1} if {0} else {2})",
}
NUMBA = Dialect(
    formats=calls("") | OPERATORS | LOGIC,
    # A bare number is float64 and would promote every operand.
    constant=lambda value: repr(value) if isinstance(value, bool) else f"F({value!r})",  # inf and nan: imported
)
CIRCULAR = ("sin", "cos", "tan")
# Without branches, which would keep loops from becoming vectors, and right up to where ``is_far`` begins.
_NEAR = replace(NUMBA, formats={**NUMBA.formats, **{name: f"near_{name}({{}})" for name in CIRCULAR}})
_TEMPLATE = Path(__file__).parent.parent / "cpu" / "templates" / "loops_cell.py"
_RULE = "# ---- "
_SIGNATURES = {
    "step": "inputs, at, b, x, s, x_c, y, q, y_c, n",
    "linear": "inputs, at, b, x, s, x_c, y, q, y_c, J, p, J_r, J_c, n",
    "pull": "inputs, at, b, x, s, x_c, c, o, c_c, y, q, y_c, carry, p, drives, sums, m, width, n",
}


def inputs_of(program: Program) -> list[Leaf]:
    """Return the inputs of a cell beside its state: drives, then weights of its diagonal mixings, then parameters."""
    diagonal = tuple(name for name, kind in program.mixings.items() if kind == "diagonal")
    kinds = {"drive": program.drives, "weight": diagonal, "parameter": program.parameters}
    return [Leaf(kind, name) for kind, names in kinds.items() for name in names]


def elementwise_module(program: Program, back: Mapping[Leaf, Node], dtype: Any) -> str:
    """Return the source of a module with the loops of a cell whose mixings are all diagonal.

    Parameters
    ----------
    program : Program
    back : mapping
        From :func:`recsolve.symbolic.tracing.trace_pullback`.
    dtype : dtype
    """
    writer = Writer(program)
    outputs = program.stages[0].outputs
    values = {("y", "q", ("y_c", i)): output.value for i, output in enumerate(outputs)}
    partials = {
        ("J", "p", ("J_r", i), ("J_c", j)): outputs[i].value.graph.number(0.0 if entry is None else entry)
        for i, row in enumerate(program.jacobian)
        for j, entry in enumerate(row)
    }
    cotangents = {writer.cotangent(leaf): node for leaf, node in back.items()}
    functions = [
        writer.function("step", values),
        writer.function("linear", values | partials),
        writer.function("pull", cotangents),
    ]
    used = [*reachable((values | partials).values()), *reachable(back.values())]  # of two graphs
    return in_template(_TEMPLATE, [names_called(used), *functions], dtype)


def in_template(template: Path, functions: Sequence[str], dtype: Any) -> str:
    """Return the source of a template with the functions of a cell in place of its own."""
    before, _, rest = template.read_text().partition(_RULE)
    after = rest.partition(_RULE)[2].partition("\n")[2]
    return "\n\n".join([before, f"F = np.{np.dtype(dtype).name}", *functions, after])


def names_called(nodes: Sequence[Node]) -> str:
    """Return the assignments of the elementary functions that nodes are results of."""
    called = {node.operation for node in nodes if node.arguments} - {*OPERATORS, *LOGIC}
    circular = called.intersection(CIRCULAR)
    called |= {f"near_{name}" for name in circular} | ({"is_far"} if circular else set())
    return "\n".join(f'{name} = functions(F)["{name}"]' for name in sorted(called))


Place: TypeAlias = tuple[Any, ...]  # an array, where it starts, and (distance, how often) for its components


def place_of(base: str, start: str, *steps: tuple[str, int]) -> str:
    """Return a flat array and a place in it, some steps of given lengths and i lanes after a start."""
    terms = [f"{number} * {length}" if number > 1 else length for length, number in steps if number]
    return f"{base}, {' + '.join([*([start] if start else []), *terms, 'i'])}"


def indented(lines: Sequence[str]) -> list[str]:
    return [f"    {line}" for line in lines]


def row(
    nodes: Sequence[Node],
    load: Callable[[Leaf], str],
    store: Callable[[Sequence[str]], list[str]],
    totals: Sequence[str] = (),
) -> list[str]:
    """Return the loop over the lanes of a row that computes nodes; where an angle is far, it is computed again.

    Parameters
    ----------
    nodes : sequence of Node
    load : callable
        The expression that reads a leaf.
    store : callable
        From what the nodes are called, the statements that store them.
    totals : sequence of str
        Statements that read cotangents, on which no angle depends. What is stored then takes their place, so the
        angles are looked at before.
    """
    angles = list(dict.fromkeys(node.arguments[0] for node in reachable(nodes) if node.operation in CIRCULAR))

    def lanes(dialect: Dialect, wanted: Sequence[Node], after: Callable[[Sequence[str]], list[str]]) -> list[str]:
        statements, named = dialect.write(wanted)
        read = [node.content for node in reachable(wanted) if node.operation == "leaf"]
        loads = [f"{variable(leaf)} = {load(leaf)}" for leaf in read if leaf.kind != "cotangent"]
        return [
            "for i in range(n):",
            *indented([*loads, *(totals if wanted is nodes else ()), *statements, *after(named)]),
        ]

    def looked_at(named: Sequence[str]) -> list[str]:
        return [f"far = far | is_far({angle})" for angle in named]

    if not angles:
        return lanes(NUMBA, nodes, store)
    again = ["if far:", *indented(lanes(NUMBA, nodes, store))]
    if totals:
        look = lanes(_NEAR, angles, looked_at)
        return ["far = False", *look, *again, "else:", *indented(lanes(_NEAR, nodes, store))]
    both = [*nodes, *angles]
    first = lanes(_NEAR, both, lambda named: [*store(named[: len(nodes)]), *looked_at(named[len(nodes) :])])
    return ["far = False", *first, *again]


class Writer:
    """Writes functions over rows, in which every leaf has a place."""

    def __init__(self, program: Program):
        self.components = program.components
        self.inputs = {leaf: number for number, leaf in enumerate(inputs_of(program))}
        self.drives = len(program.drives)

    def load(self, leaf: Leaf) -> str:
        if leaf.kind == "component":
            return place_of("x", "s", ("x_c", self.components.index(leaf.name)))
        return place_of(f"i{self.inputs[leaf]}", f"o{self.inputs[leaf]}")

    def cotangent(self, leaf: Leaf) -> Place:
        """Return where the cotangent of a leaf goes; those of constants are sums."""
        if leaf.kind == "component":
            return "carry", "p", ("width", self.components.index(leaf.name))
        number = self.inputs[leaf]
        if leaf.kind == "drive":
            return f"d{number}", f"r{number}"
        return "sums", "m", ("width", number - self.drives)

    def _totals(self) -> list[str]:
        """Return the statements that add the contribution of the next step to the cotangents of a step."""
        return [
            f"{variable(Leaf('cotangent', name))} = get({place_of('c', 'o', ('c_c', j))}) "
            f"+ take({j}, {place_of('carry', 'p', ('width', j))})"
            for j, name in enumerate(self.components)
        ]

    def _adjoint(self, first: int) -> list[str]:
        """Return the statements that store them; ``first`` is the number of the first of these results."""
        return [
            f"put({first + j}, {place_of('y', 'q', ('y_c', j))}, {variable(Leaf('cotangent', name))})"
            for j, name in enumerate(self.components)
        ]

    def function(self, name: str, results: Mapping[Place, Node], signature: str | None = None) -> str:
        """Return a function over rows that puts results in their places."""
        signature = _SIGNATURES[name] if signature is None else signature
        adjoint = name == "pull"

        def store(named: Sequence[str]) -> list[str]:
            stores = [
                f"{'add' if place[0] == 'sums' else 'put'}({number}, {place_of(*place)}, {result})"
                for number, (place, result) in enumerate(zip(results, named, strict=True))
            ]
            return stores + (self._adjoint(len(stores)) if adjoint else [])

        begin = [f"i{m}, o{m} = inputs[{m}], at[b, FIRST + {m}]" for m in range(len(self.inputs))]
        if adjoint:
            begin += [f"d{m}, r{m} = drives[{m}], at[b, FIRST + {len(self.inputs) + m}]" for m in range(self.drives)]
        loop = row(
            list(results.values()), lambda leaf: f"get({self.load(leaf)})", store, self._totals() if adjoint else ()
        )
        return "\n".join(["@inlined", f"def {name}({signature}):", *indented([*begin, *loop])])

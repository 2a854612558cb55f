"""Write the functions of a traced cell in CUDA C++: what the templates of ``cuda/solve_*.cuh`` are compiled around.

A cell becomes a structure with three functions of numbers in registers: a step, a step with its partials, and for the
way back the pullback of a step. A product that is added to something is written as a fused one wherever it occurs, and
compilers are instructed not to fuse others, so that a step rounds alike with and without its partials.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import cache

from recsolve.kernels.codegen.cuda_headers import headers
from recsolve.kernels.codegen.numba_elementwise import inputs_of
from recsolve.symbolic.emit import OPERATORS, Dialect, calls, variable
from recsolve.symbolic.graph import Leaf, Node, reachable
from recsolve.symbolic.program import Program

OPTIONS = ("-std=c++17", "-fmad=false")  # for what is written here
_LOGIC = {
    "logical_and": "{} && {}",
    "logical_or": "{} || {}",
    "logical_xor": "{} != {}",
    "logical_not": "!{}",
    "where": "{} ? {} : {}",
    "divide": "M::divide({}, {})",
}
_BEFORE = ("common/elementary", "common/numbers", "common/view")  # arrays that the functions of a cell use
_SOLVES = ("solve/shoot", "solve/check")
_SPECIAL = {"inf": "infinity<T>()", "-inf": "-infinity<T>()", "nan": "not_a_number<T>()"}


def _constant(value: bool | float) -> str:
    if isinstance(value, bool):
        return "true" if value else "false"
    return f"({_SPECIAL[repr(value)]})" if repr(value) in _SPECIAL else f"T({value!r})"


CUDA = Dialect(
    formats=calls("M::") | OPERATORS | _LOGIC,
    number="const T {name} = {expression};",
    condition="const bool {name} = {expression};",
    constant=_constant,
)


def statements(outputs: Sequence[Node]) -> tuple[list[str], list[str]]:
    """Return statements that compute the outputs, one operation each, and the name of each output.

    Examples
    --------
    >>> import recsolve as rs
    >>> from recsolve.kernels.codegen.cuda_elementwise import statements
    >>> from recsolve.symbolic.tracing import trace_cell
    >>> program = trace_cell(rs.cells.Elman)
    >>> print("\\n".join(statements([program.stages[0].outputs[0].value])[0]))
    const T t0 = multiply_add(s_h, W_h, u_h);
    const T t1 = M::tanh(t0);
    """
    names: dict[int, str] = {}
    written: list[str] = []
    for node in reachable(outputs, _named):
        if not node.arguments:
            names[node.index] = (variable if node.operation == "leaf" else _constant)(node.content)
            continue
        expression, arguments = _fused(node) or (CUDA.formats[node.operation], node.arguments)
        name = f"t{len(written)}"
        text = expression.format(*(names[a.index] for a in arguments))
        written.append((CUDA.condition if node.is_condition else CUDA.number).format(name=name, expression=text))
        names[node.index] = name
    return written, [names[node.index] for node in outputs]


def _fused(node: Node) -> tuple[str, tuple[Node, ...]] | None:
    """Return a sum or difference with a product in it as one operation."""
    if node.operation not in ("add", "subtract"):
        return None
    a, b = node.arguments
    minus = node.operation == "subtract"
    if a.operation == "multiply":
        return f"multiply_add({{}}, {{}}, {'-' * minus}{{}})", (*a.arguments, b)
    if b.operation == "multiply":
        return f"multiply_add({'-' * minus}{{}}, {{}}, {{}})", (*b.arguments, a)
    return None


def _named(node: Node) -> tuple[Node, ...]:
    """Return the named operands of a node; a product that is fused into it has no name."""
    fused = _fused(node)
    return node.arguments if fused is None else fused[1]


def module(cell: str, *, kernels: bool = True) -> str:
    """Return the source of the solve kernels of a cell, or without these of its functions alone."""
    return "\n".join([headers(*_BEFORE), cell, headers(*_SOLVES, after=_BEFORE) if kernels else ""])


def stages_text(structures: Sequence[str], header: str) -> str:
    """Return the source of the kernels of a header, ``stage``, ``sweep`` or another, for structures of functions."""
    before = (*_BEFORE, "solve/problem")
    wanted = {"stage": "stage/each", "sweep": "stage/sweep"}.get(header, header)
    return "\n".join([headers(*before), *structures, headers(wanted, after=before)])


@cache
def rows_text(header: str, structures: tuple[str, ...] = ()) -> str:
    """Return the source of a header of ``iterate``, for structures of functions of stages."""
    before = (*_BEFORE, "solve/problem")
    return "\n".join([headers(*before), *structures, headers(f"iterate/{header}", after=before)])


def structure(name: str, sizes: Mapping[str, int], functions: Sequence[str], what: str) -> str:
    """Return a structure of static functions; ``what`` is its comment."""
    members = [f"static constexpr int {', '.join(f'{size} = {n}' for size, n in sizes.items())};", *functions]
    body = "\n\n".join(members).replace("\n", "\n    ")
    return f"namespace recsolve {{\n\n// {what}\nstruct {name} {{\n    {body}\n}};\n\n}}  // namespace recsolve\n"


def elementwise_cell(program: Program, back: Mapping[Leaf, Node]) -> str:
    """Return the C++ of a cell whose mixings are all diagonal, forwards and backwards.

    Parameters
    ----------
    program : Program
    back : mapping
        From :func:`recsolve.symbolic.tracing.trace_pullback`.
    """
    inputs = inputs_of(program)
    drives, constants = inputs[: len(program.drives)], inputs[len(program.drives) :]
    components = [Leaf("component", name) for name in program.components]
    cotangents = [Leaf("cotangent", name) for name in program.components]
    given = {"x": components, "u": drives, "w": constants}
    outputs = program.stages[0].outputs
    values = {f"y[{i}]": output.value for i, output in enumerate(outputs)}
    partials = {
        f"J[{i * len(components) + j}]": outputs[i].value.graph.number(0.0 if entry is None else entry)
        for i, row in enumerate(program.jacobian)
        for j, entry in enumerate(row)
    }
    results = {f"{place}[{i}]": back[leaf] for place, of in _places(given) for i, leaf in enumerate(of)}
    functions = [
        function("step", "T* y", given, values),
        function("linear", "T* y, T* J", given, values | partials),
        function("pull", "T* gx, T* gu, T* gw", {**given, "c": cotangents}, results),
    ]
    sizes = {"PARTS": len(components), "DRIVES": len(drives), "CONSTANTS": len(constants)}
    return structure("Cell", sizes, functions, program.name)


def _places(given: Mapping[str, list[Leaf]]) -> list[tuple[str, list[Leaf]]]:
    """Return the places of the cotangents of the inputs of a step."""
    return [("g" + place, leaves) for place, leaves in given.items()]


def function(name: str, results: str, given: Mapping[str, Sequence[Leaf]], outputs: Mapping[str, Node]) -> str:
    """Return a function that reads its inputs, and stores outputs once all are computed."""
    nodes = list(outputs.values())
    written, named = statements(nodes)
    used = {node.content for node in reachable(nodes) if node.operation == "leaf"}
    loads = [
        f"const T {variable(leaf)} = {place}[{i}];"
        for place, leaves in given.items()
        for i, leaf in enumerate(leaves)
        if leaf in used
    ]
    stores = [f"{place} = {result};" for place, result in zip(outputs, named, strict=True)]
    lines = "\n".join(f"    {line}" for line in (*loads, *written, *stores))
    signature = ", ".join([*(f"const T* {place}" for place in given), results])
    return f"template <class M, class T>\n__device__ __forceinline__ static void {name}({signature}) {{\n{lines}\n}}"

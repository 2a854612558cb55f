"""Write a traced cell with mixings that couple units for Numba: its stages, and the products between them."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from recsolve.kernels.codegen.numba_elementwise import Writer, in_template, names_called, place_of
from recsolve.symbolic.graph import Leaf, Node, reachable
from recsolve.symbolic.program import Program

_TEMPLATE = Path(__file__).parent.parent / "cpu" / "templates" / "loops_mixing.py"
_PRODUCTS = _TEMPLATE.with_name("loops_products.py")
_ROWS = "inputs, at, b, x, m, r, cap"
_STEP = "inputs, at, count, n, x, z, m, y, w, g"


@dataclass(frozen=True)
class Product:
    """The calls of a stage that share their input: one product with stacked matrices.

    Attributes
    ----------
    mixings : tuple of str
    first : int
        The slot of the result of the first call; those of the others follow.
    component : int or None
        The component of the state that is the input, if it is one.
    slot : int
        Where other inputs are put.
    """

    mixings: tuple[str, ...]
    first: int
    component: int | None
    slot: int


@dataclass(frozen=True)
class Plan:
    """How a cell is computed.

    Attributes
    ----------
    stages : tuple of tuple of Product
        The products after each stage but the last.
    inputs : tuple of tuple of Node
        The nodes that each of these stages puts into slots.
    results : dict
        Leaf of the result of a call to its slot.
    """

    stages: tuple[tuple[Product, ...], ...]
    inputs: tuple[tuple[Node, ...], ...]
    results: dict[Leaf, int]

    @property
    def products(self) -> list[Product]:
        """The products in the order in which they are computed."""
        return [product for stage in self.stages for product in stage]

    @property
    def slots(self) -> int:
        """How many inputs are put into slots: those of a stage are not needed after it."""
        return max((len(nodes) for nodes in self.inputs), default=0)


def plan_of(program: Program) -> Plan:
    """Return which calls of a cell are computed together, and where their inputs and results lie.

    Examples
    --------
    >>> import recsolve as rs
    >>> from recsolve.symbolic.tracing import trace_cell
    >>> for product in plan_of(trace_cell(rs.cells.ChoGRU, "dense")).products:
    ...     print(product)
    Product(mixings=('r', 'z'), first=0, component=0, slot=0)
    Product(mixings=('n',), first=2, component=None, slot=0)
    """
    stages: list[tuple[Product, ...]] = []
    inputs: list[tuple[Node, ...]] = []
    results: dict[Leaf, int] = {}
    for stage in program.stages[:-1]:
        products: list[Product] = []
        put: list[Node] = []
        for node in dict.fromkeys(call.input.value for call in stage.calls):
            calls = [call for call in stage.calls if call.input.value is node]
            component = None
            if node.operation == "leaf" and node.content.kind == "component":
                component = program.components.index(node.content.name)
            names = tuple(call.mixing for call in calls)
            products.append(Product(names, len(results), component, len(put)))
            results |= {call.result.content: len(results) + i for i, call in enumerate(calls)}
            if component is None:
                put.append(node)
        stages.append(tuple(products))
        inputs.append(tuple(put))
    return Plan(tuple(stages), tuple(inputs), results)


def products_module(dtype: Any, vector: int, vectors: int) -> str:
    """Return the source of a module with what all walks of this dtype call: products of matrices, and buffers.

    Parameters
    ----------
    dtype : dtype
    vector, vectors : int
        Numbers of a vector and vectors of a panel, from :func:`recsolve.kernels.cpu.jit.panel_packing.vector_shape`.
    """
    return in_template(_PRODUCTS, [f"LENGTH, VECTORS = {vector}, {vectors}"], dtype)


def mixing_module(program: Program, dtype: Any, products: str) -> str:
    """Return the source of a module with the walk of a cell.

    Parameters
    ----------
    program : Program
    dtype : dtype
    products : str
        The name of the module of :func:`products_module`, loaded.
    """
    plan = plan_of(program)
    writer = _StageWriter(program, plan)
    new = {("y", "q", ("y_c", i)): output.value for i, output in enumerate(program.stages[-1].outputs)}
    stages = [
        writer.function(f"stage_{i}", {("z", "r", ("cap", j)): node for j, node in enumerate(nodes)}, f"{_ROWS}, z, n")
        for i, nodes in enumerate(plan.inputs)
        if nodes
    ]
    last = writer.function("last", new, f"{_ROWS}, y, q, y_c, n")
    nodes = reachable([*new.values(), *(node for nodes in plan.inputs for node in nodes)])
    imported = f"from {products} import Heads, Sizes, Weights, buffer, copy, multiply, restart_lanes"
    return in_template(_TEMPLATE, [imported, names_called(nodes), *stages, last, _step(plan)], dtype)


class _StageWriter(Writer):
    """Writes stages, whose leaves lie in the slots of buffers."""

    def __init__(self, program: Program, plan: Plan):
        super().__init__(program)
        self.results = plan.results

    def load(self, leaf: Leaf) -> str:
        if leaf.kind == "component":
            return place_of("x", "r", ("cap", self.components.index(leaf.name)))
        if leaf.kind == "mixing":
            return place_of("m", "r", ("cap", self.results[leaf]))
        return super().load(leaf)


def _step(plan: Plan) -> str:
    """Return the function that takes a step: stages, and the products after each."""
    return "\n".join(["@inlined", f"def step({_STEP}):", *(f"    {line}" for line in _lines(plan))])


def _lines(plan: Plan) -> Iterator[str]:
    rows = "inputs, at, b, x, m, b * n, g.capacity"
    number = 0
    for i, products in enumerate(plan.stages):
        if plan.inputs[i]:
            yield "for b in range(count):"
            yield f"    stage_{i}({rows}, z, n)"
        for product in products:
            source, slot = ("z", product.slot) if product.component is None else ("x", product.component)
            heads = "Heads(g.heads, g.units)"
            yield f"multiply({source}, {slot} * g.capacity, m, int64(0), w, int64({number}), count * n, {heads})"
            number += 1
    yield "for b in range(count):"
    yield f"    last({rows}, y, at[b, Y], g.y_c, n)"

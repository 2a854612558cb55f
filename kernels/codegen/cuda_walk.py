"""Write cells whose mixings couple units in CUDA C++ for walks: stages of numbers in registers between products.

The scan of a factored Jacobian is such a walk too: its cell is linear, and its drives are partials.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache, reduce
from typing import TypeAlias

from recsolve.kernels.codegen.cuda_elementwise import function, structure
from recsolve.kernels.codegen.numba_elementwise import inputs_of
from recsolve.kernels.codegen.numba_mixing import plan_of
from recsolve.symbolic.graph import Graph, Leaf, Node
from recsolve.symbolic.program import Program

# A sum of products, each of a number of a state or a product, and a drive or constant.
Sum: TypeAlias = tuple[tuple[Leaf, Leaf], ...]


@dataclass(frozen=True)
class WalkCell:
    """A cell as its walks need it.

    Attributes
    ----------
    source : str
        A structure of functions of the state x, drives u, products m and constants w.
    components, drives, constants : int
    slots : int
        Vectors that are multiplied at a time, at most.
    calls : int
        Products in a step.
    mixings : tuple
        What is multiplied by, call after call.
    """

    source: str
    components: int
    drives: int
    constants: int
    slots: int
    calls: int
    mixings: tuple[str, ...] = ()


@dataclass(frozen=True)
class Stage:
    """What is multiplied after a stage, and for each call which of that it takes."""

    inputs: tuple[Node, ...]
    slots: tuple[int, ...]


def walk_cell(program: Program) -> WalkCell:
    """Return a cell for walks from its program, which has mixings that couple units."""
    plan, stages, mixings = plan_of(program), [], []
    for stage, products in zip(program.stages, plan.stages, strict=False):
        inputs = tuple(dict.fromkeys(call.input.value for call in stage.calls))
        stages.append(Stage(inputs, tuple(i for i, product in enumerate(products) for _ in product.mixings)))
        mixings += [name for product in products for name in product.mixings]
    others, drives = inputs_of(program), len(program.drives)
    given = {
        "x": [Leaf("component", name) for name in program.components],
        "u": others[:drives],
        "m": sorted(plan.results, key=lambda leaf: plan.results[leaf]),
        "w": others[drives:],
    }
    return _cell(program.name, given, stages, [x.value for x in program.stages[-1].outputs], None, tuple(mixings))


@lru_cache(maxsize=256)
def linear_cell(
    components: int, drives: int, constants: int, stages: tuple[tuple[Sum, ...], ...], outputs: tuple[Sum, ...]
) -> WalkCell:
    """Return the cell of an affine scan: y = A x + r, whose first drives are r.

    Parameters
    ----------
    components, drives, constants : int
        Drives are named ``"0"``, ``"1"`` and so on, and so are weights, which are the constants, and calls.
    stages : tuple
        For each stage the inputs of its calls; calls are counted through the stages.
    outputs : tuple
        For each component of A x.
    """
    graph, made, calls = Graph(), [], 0
    for inputs in stages:
        distinct = tuple(dict.fromkeys(inputs))
        nodes = tuple(_node(graph, one) for one in distinct)
        made.append(Stage(nodes, tuple(distinct.index(one) for one in inputs)))
        calls += len(inputs)
    kinds = {"x": "component", "u": "drive", "m": "mixing", "w": "weight"}
    counts = zip(kinds.items(), (components, drives, calls, constants), strict=True)
    given = {place: [Leaf(kind, str(i)) for i in range(count)] for (place, kind), count in counts}
    alone = [graph.leaf("drive", str(j)) for j in range(components)]
    values = [_node(graph, one, own) for one, own in zip(outputs, alone, strict=True)]
    return _cell("an affine map", given, made, values, alone, ())


def _node(graph: Graph, terms: Sum, first: Node | None = None) -> Node:
    products: list[Node] = [graph.leaf(*a) * graph.leaf(*b) for a, b in terms]
    start = [] if first is None else [first]
    return reduce(lambda total, term: total + term, [*start, *products])


def _cell(
    name: str,
    given: Mapping[str, Sequence[Leaf]],
    stages: Sequence[Stage],
    outputs: Sequence[Node],
    alone: Sequence[Node] | None,
    mixings: tuple[str, ...],
) -> WalkCell:
    functions = [
        function(f"stage_{i}", "T* z", given, {f"z[{j}]": node for j, node in enumerate(stage.inputs)})
        for i, stage in enumerate(stages)
    ]
    results = {"last": outputs} | ({} if alone is None else {"alone": alone})
    functions += [
        function(called, "T* y", given, {f"y[{i}]": node for i, node in enumerate(nodes)})
        for called, nodes in results.items()
    ]
    firsts = [sum(len(stage.slots) for stage in stages[:i]) for i in range(len(stages) + 1)]
    tables = {
        "first": firsts,
        "slots": [len(stage.inputs) for stage in stages],
        "slot": [slot for stage in stages for slot in stage.slots],
    }
    functions += [_dispatch(len(stages)), *(_table(called, numbers) for called, numbers in tables.items())]
    slots, calls = max(tables["slots"]), firsts[-1]
    parts, drives, constants = (len(given[place]) for place in "xuw")
    sizes = {"PARTS": parts, "DRIVES": drives, "CONSTANTS": constants, "STAGES": len(stages), "SLOTS": slots}
    sizes |= {"CALLS": calls, "LINEAR": int(alone is not None)}
    source = structure("WalkCell", sizes, functions, name)
    return WalkCell(source, parts, drives, constants, slots, calls, mixings)


def _dispatch(stages: int) -> str:
    """Return the function that calls the function of a stage."""
    lines = [f"    if constexpr (STAGE == {i}) stage_{i}<M>(x, u, m, w, z);" for i in range(stages)]
    signature = "prepare(const T* x, const T* u, const T* m, const T* w, T* z)"
    head = "template <int STAGE, class M, class T>\n__device__ __forceinline__ static void"
    return "\n".join([f"{head} {signature} {{", *lines, "}"])


def _table(name: str, numbers: Sequence[int]) -> str:
    """Return a function that compilers look up numbers in."""
    terms = "".join(f"i == {i} ? {number} : " for i, number in enumerate(numbers))
    return f"__device__ static constexpr int {name}(int i) {{ return {terms}0; }}"

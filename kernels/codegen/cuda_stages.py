"""Write the elementwise work of traced cells in CUDA C++: their stages, and all that is elementwise in a sweep.

A sweep is for cells whose mixings see the state itself (``W.h(s.h)``), not what is computed from it: their products
with the states of all times are known before anything elementwise begins.
"""

from __future__ import annotations

from dataclasses import dataclass

from recsolve.kernels.codegen.cuda_elementwise import function, structure
from recsolve.kernels.codegen.numba_elementwise import inputs_of
from recsolve.kernels.codegen.numba_mixing import Product, plan_of
from recsolve.kernels.codegen.numba_stages import Job
from recsolve.symbolic.graph import Leaf, Node
from recsolve.symbolic.program import Output, Program


def stage_structure(job: Job) -> str:
    """Return the C++ of a job: a function from its leaves to its nodes."""
    outputs = {f"b[{i}]": node for i, node in enumerate(job.nodes)}
    sizes = {"IN": len(job.leaves), "OUT": len(job.nodes)}
    run = function("run", "T* b", {"a": job.leaves}, outputs)
    return structure(job.name, sizes, [run], f"{len(job.nodes)} results of {len(job.leaves)} arrays")


@dataclass(frozen=True)
class SweepCell:
    """A cell as its sweeps need it.

    Attributes
    ----------
    source : str
        A structure of functions of the state x, drives u, products m and constants w.
    components : int
    drives : tuple of str
    constants : tuple of Leaf
        Weights (the diagonals of matrices) and parameters.
    products : tuple of Product
        The mixings that share a component of the state, with the slots of their results among the products m.
    calls : int
        How many products m there are.
    """

    source: str
    components: int
    drives: tuple[str, ...]
    constants: tuple[Leaf, ...]
    products: tuple[Product, ...]
    calls: int


def sweep_cell(program: Program) -> SweepCell | None:
    """Return a cell for sweeps; None if a mixing sees anything but a component of the state, or none couples units."""
    plan = plan_of(program)
    products = tuple(plan.products)
    if len(program.stages) != 2 or any(product.component is None for product in products):
        return None
    outputs = program.stages[-1].outputs
    coupled = dict.fromkeys(name for product in products for name in product.mixings)
    diagonals = [Leaf("weight", name) for name in coupled]
    constants = [leaf for leaf in inputs_of(program) if leaf.kind != "drive"] + diagonals
    mixed = sorted(plan.results, key=lambda leaf: plan.results[leaf])
    given = {
        "x": [Leaf("component", name) for name in program.components],
        "u": [Leaf("drive", name) for name in program.drives],
        "m": mixed,
        "w": constants,
    }
    k = len(program.components)
    values = {f"y[{i}]": output.value for i, output in enumerate(outputs)}
    block = {f"A[{i * k + j}]": _entry(program, output, j) for i, output in enumerate(outputs) for j in range(k)}
    functions = [function("step", "T* y", given, values), function("linear", "T* y, T* A", given, values | block)]
    sizes = {"PARTS": k, "DRIVES": len(program.drives), "CALLS": len(mixed), "CONSTANTS": len(constants)}
    source = structure("SweepCell", sizes, functions, program.name)
    return SweepCell(source, k, program.drives, tuple(constants), products, len(mixed))


def _entry(program: Program, output: Output, component: int) -> Node:
    """Return d h'_i / d h_j within each unit: past the mixings, and through the diagonals of their matrices."""
    graph = output.value.graph
    total = graph.number(output.partials.get(component, 0.0))
    for call in program.stages[0].calls:
        assert call.number is not None  # a component of the state depends on the state
        through = output.partials.get(call.number)
        if through is not None and component in call.input.partials:
            diagonal = graph.leaf("weight", call.mixing)
            total = total + graph.number(through) * diagonal * graph.number(call.input.partials[component])
    return total

"""The inner loop of a cell: what is left of it when its mixings are held, found by tracing it.

Gated cells are made of such loops: with its gates given, the c of an LSTM follows c' = f c + i g, and the m of an sLSTM
follows m' = max(m + f, i). They are solved exactly by a scan each, component after component.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np

from recsolve.base.arrays import Array
from recsolve.symbolic.dual import STEPS, evaluate
from recsolve.symbolic.graph import CONDITIONS, Leaf, Node, reachable
from recsolve.symbolic.program import Output, Program

_JUMPS = STEPS | CONDITIONS  # their slopes do not tell that they are not affine


@dataclass(frozen=True)
class Shift:
    """A step of a bounded sum, in the order in which it acts on a state: its operation and the other argument."""

    operation: str
    other: Node
    sign: float = 1.0


@dataclass(frozen=True)
class Loop:
    """How one component follows from itself, where mixings and the components before it are known.

    Attributes
    ----------
    component : str
    value : Node
        Its new value.
    slope : Node or None
        The derivative by its old value, which it does not depend on: the loop is affine. None: see ``shifts``.
    shifts : tuple of Shift
        Sums, minima and maxima one after the other: the loop is a sum between bounds.
    """

    component: str
    value: Node
    slope: Node | None = None
    shifts: tuple[Shift, ...] = ()


def inner_loops(program: Program) -> tuple[Loop, ...]:
    """Return the loops of a cell, each after those that it depends on.

    Parameters
    ----------
    program : Program
        With all mixings as leaves: traced as if they coupled units.

    Raises
    ------
    ValueError
        Where no component has a loop of its own, or one of them is neither affine nor a sum between bounds, or two
        depend on each other. The message says which, and why.

    Examples
    --------
    >>> import recsolve as rs
    >>> from recsolve.symbolic.inner_loop import inner_loops
    >>> from recsolve.symbolic.tracing import trace_cell
    >>> [loop.component for loop in inner_loops(trace_cell(rs.cells.SLSTM, "dense"))]
    ['m', 'c', 'n', 'y']
    """
    outputs = dict(zip(program.components, program.stages[-1].outputs, strict=True))
    needs = {name: _components(output.value) for name, output in outputs.items()}
    loops: list[Loop] = []
    waiting, known = list(outputs), set[str]()
    while waiting:
        ready = [name for name in waiting if needs[name] <= known | {name}]
        if not ready:
            raise ValueError(f"the components {waiting} of {program.name} depend on each other outside its mixings")
        for name in ready:
            loops.append(_loop(program, name, outputs[name], name in needs[name]))
        known |= set(ready)
        waiting = [name for name in waiting if name not in known]
    if not any(name in needed for name, needed in needs.items()):
        raise ValueError(f"the state of {program.name} enters through its mixings alone, so nothing is left to loop")
    return tuple(loops)


def _loop(program: Program, name: str, output: Output, loops: bool) -> Loop:
    """Return the loop of a component, of which its new value may depend."""
    if not loops:
        return Loop(name, output.value, output.value.graph.node(0.0))
    shifts = _shifts(output.value, name)
    if shifts is not None:
        return Loop(name, output.value, shifts=shifts)
    slope = output.partials.get(program.components.index(name))
    jumps = any(x.operation in _JUMPS and name in _components(x) for x in reachable([output.value]))
    if slope is None or jumps or name in _components(slope):
        raise ValueError(
            f"{name} of {program.name} is neither affine in itself nor a sum between bounds where its mixings are held"
        )
    return Loop(name, output.value, slope)


def _shifts(node: Node, name: str) -> tuple[Shift, ...] | None:
    """Return a value as sums, minima and maxima on the old component, with at least one bound; None if it is not."""
    shifts: list[Shift] = []
    while node.operation != "leaf":
        own = [name in _components(argument) for argument in node.arguments]
        if node.operation == "subtract" and own == [True, False]:
            shifts.append(Shift("add", node.arguments[1], -1.0))
        elif node.operation in ("add", "minimum", "maximum") and sum(own) == 1:
            shifts.append(Shift(node.operation, node.arguments[own.index(False)]))
        else:
            return None
        node = node.arguments[own.index(True)]
    return tuple(reversed(shifts)) if any(shift.operation != "add" for shift in shifts) else None


def _components(node: Node) -> set[str]:
    """Return the components of the old state that a node depends on, other than through mixings."""
    leaves = (x.content for x in reachable([node]) if x.operation == "leaf")
    return {leaf.name for leaf in leaves if leaf.kind == "component"}


def values_of(nodes: list[Node], leaves: Mapping[Leaf, Array]) -> list[Array]:
    """Return the values of nodes on arrays, given those of the leaves that they need.

    Examples
    --------
    >>> import numpy as np
    >>> from recsolve.symbolic.graph import Graph, Leaf
    >>> from recsolve.symbolic.inner_loop import values_of
    >>> x = Graph().leaf("component", "h")
    >>> values_of([np.tanh(x) * 2.0], {Leaf("component", "h"): np.zeros(2)})[0].tolist()
    [0.0, 0.0]
    """
    found = {}
    with np.errstate(all="ignore"):
        for node in reachable(nodes):
            if node.operation == "leaf":
                found[node.index] = leaves[node.content]
            elif node.operation == "constant":
                found[node.index] = node.content
            else:
                found[node.index] = evaluate(node.operation, [found[a.index] for a in node.arguments])
    return [found[node.index] for node in nodes]

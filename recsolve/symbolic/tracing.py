"""Trace a cell: run its function once on nodes, and cut what it computes into elementwise stages at its mixings.

The function runs on duals over the nodes of an expression graph, so one pass gives values and partials in one graph,
and what they share exists once. A mixing that couples units opens a new leaf, as it does where arrays are
differentiated; a diagonal one is a product with its weight.
"""

from __future__ import annotations

import traceback
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from recsolve.base.names import Names
from recsolve.base.ties import check_ties, ties_in_force
from recsolve.mixings import Diagonal
from recsolve.symbolic.dual import ONE, Dual, OfState, value_of
from recsolve.symbolic.graph import Graph, Leaf, Node, reachable
from recsolve.symbolic.program import MixingCall, Output, Program, Stage

if TYPE_CHECKING:
    from recsolve.recurrence.cell import Cell

_MACHINERY = Path(__file__).parent.parent
_NUMPY = Path(np.__file__).parent


def trace_cell(cell: Cell, mixings: str | Mapping[str, str] = "diagonal", ties: Any = None) -> Program:
    """Return the function of a cell as a program: elementwise stages with values and partials, between its mixings.

    Parameters
    ----------
    cell : Cell
        The definition; no weights are needed.
    mixings : str or mapping
        The kind of every mixing (``"diagonal"``, ``"dense"``, ``"heads"``), or of each one by name. All but
        ``"diagonal"`` couple units.
    ties : float or mapping, optional
        The derivative at ties, as in :meth:`recsolve.WeightedCell.recurrence`.

    Returns
    -------
    Program

    Raises
    ------
    TypeError
        For what cannot be traced, such as a Python branch on a value; the message has the line of the cell.
    ValueError
        When the kinds are not those of the mixings of the cell, or ties are out of range.

    Examples
    --------
    >>> import recsolve as rs
    >>> from recsolve.symbolic.tracing import trace_cell
    >>> print(trace_cell(rs.cells.Elman))
    elman
    components h; drives h; parameters none; mixings h diagonal
    stage 0: 6 operations, 3 of them for the values
      t0 = s.h * W.h
      t1 = u.h + t0
      t2 = tanh(t1)
      t3 = t2 * t2
      t4 = 1.0 - t3
      t5 = W.h * t4
      new s.h = t2
      d new s.h / d s.h = t5
    """
    kinds = dict.fromkeys(cell.mixings, mixings) if isinstance(mixings, str) else dict(mixings)
    if set(kinds) != set(cell.mixings):
        raise ValueError(f"mixings of {cell.name} has names {tuple(kinds)}; wanted {cell.mixings}")
    graph = Graph()
    tape = _Tape(graph, len(cell.state))
    with ties_in_force(check_ties(ties)), np.errstate(all="ignore"):
        new = [tape.output(x) for x in _run(cell, graph, tape.mixings(kinds))]
    depth = 1 + max((call.level for call in tape.calls), default=-1)
    by_level = [tuple(call for call in tape.calls if call.level == level) for level in range(depth)]
    stages = [Stage(tuple(call.input for call in calls), calls) for calls in by_level]
    kinds = {name: kinds[name] for name in cell.mixings}
    return Program(cell.name, cell.state, cell.drives, cell.parameters, kinds, (*stages, Stage(tuple(new))))


def trace_pullback(cell: Cell, mixings: str | Mapping[str, str] = "diagonal", ties: Any = None) -> dict[Leaf, Node]:
    """Return how a cotangent of the new state is taken back to all that one step is computed of.

    Parameters
    ----------
    cell : Cell
    mixings : str or mapping
        The kinds of the mixings, as in :func:`trace_cell`. The results of those that couple units are leaves, in the
        order of the calls, whatever they are called with.
    ties : float or mapping, optional
        As in :func:`trace_cell`.

    Returns
    -------
    dict of Leaf to Node
        The cotangent of every component, drive, diagonal weight, parameter and result of a mixing, an expression of
        these and of leaves of the kind ``"cotangent"``, one per component. That of a component is one past the mixings.

    Raises
    ------
    TypeError
        For what cannot be traced.

    Examples
    --------
    >>> import recsolve as rs
    >>> from recsolve.symbolic.emit import LISTING
    >>> from recsolve.symbolic.tracing import trace_pullback
    >>> back = trace_pullback(rs.cells.Elman)
    >>> [leaf.kind for leaf in back]
    ['component', 'drive', 'weight']
    >>> print("\\n".join(LISTING.write([back[leaf] for leaf in back])[0]))
    t0 = s.h * W.h
    t1 = u.h + t0
    t2 = tanh(t1)
    t3 = t2 * t2
    t4 = 1.0 - t3
    t5 = s.h * t4
    t6 = W.h * t4
    t7 = t6 * g.h
    t8 = t4 * g.h
    t9 = t5 * g.h
    """
    graph = Graph()

    def of(kind: str, names: Iterable[str], made: type[Dual] = Dual) -> dict[str, Dual]:
        nodes = {name: graph.leaf(kind, name) for name in names}
        return {name: made(node, {node.content: ONE}) for name, node in nodes.items()}

    kinds = dict.fromkeys(cell.mixings, mixings) if isinstance(mixings, str) else mixings
    s, weights = of("component", cell.state, OfState), of("weight", [n for n in kinds if kinds[n] == Diagonal.form])
    u, p = of("drive", cell.drives), of("parameter", cell.parameters)
    results: list[Dual] = []

    def mixed(x: Any) -> Dual:
        made = OfState if isinstance(x, OfState) else Dual
        results.extend(of("mixing", [str(len(results))], made).values())
        return results[-1]

    W = {name: weights[name].__mul__ if name in weights else mixed for name in kinds}
    with ties_in_force(check_ties(ties)), np.errstate(all="ignore"):
        out = _called(cell, s, W, u, p)
    back: dict[Leaf, Node] = {}
    leaves = (*s.values(), *u.values(), *weights.values(), *p.values(), *results)
    for leaf in (next(iter(dual.partials)) for dual in leaves):
        terms = [
            graph.number(x.partials[leaf]) * graph.leaf("cotangent", name)
            for name, x in zip(cell.state, out, strict=True)
            if isinstance(x, Dual) and leaf in x.partials
        ]
        back[leaf] = sum(terms[1:], terms[0]) if terms else graph.node(0.0)
    return back


def same_values(cell: Cell, program: Program) -> bool:
    """Return whether the function of a cell computes the values of a program.

    It is run on nodes of the graph of the program, and must return nodes that exist there: then it computes these
    values whatever numbers other than its arguments it reads.

    Parameters
    ----------
    cell : Cell
    program : Program
        From :func:`trace_cell`.

    Returns
    -------
    bool

    Raises
    ------
    TypeError
        When it cannot be run on nodes.

    Examples
    --------
    >>> import recsolve as rs
    >>> from recsolve.symbolic.tracing import same_values, trace_cell
    >>> program = trace_cell(rs.cells.Elman)
    >>> same_values(rs.cells.Elman, program), same_values(rs.cells.ElmanReLU, program)
    (True, False)
    """
    graph = program.stages[-1].outputs[0].value.graph
    calls: list[tuple[str, int]] = []

    def caller(name: str, kind: str) -> Any:
        def call(x: Any) -> Node:
            if kind == Diagonal.form:
                return graph.number(graph.leaf("weight", name) * x)
            calls.append((name, graph.number(x).index))
            return graph.leaf("mixing", str(len(calls) - 1))

        return call

    W = {name: caller(name, kind) for name, kind in program.mixings.items()}
    with np.errstate(all="ignore"):
        new = [graph.number(x).index for x in _run(cell, graph, W, lambda node, _: node)]
    known = {call.result.content.name: (call.mixing, call.input.value.index) for call in program.calls}
    outputs = [output.value.index for output in program.stages[-1].outputs]
    return new == outputs and known == {str(number): call for number, call in enumerate(calls)}


def _run(
    cell: Cell,
    graph: Graph,
    W: Mapping[str, Any],
    made: Callable[[Node, int], Any] = lambda node, i: Dual(node, {i: ONE}),
) -> Iterable[Any]:
    """Return the components that the function of a cell returns on duals over nodes, or on ``made`` of the nodes."""

    def leaves(kind: str, names: Iterable[str]) -> dict[str, Node]:
        return {name: graph.leaf(kind, name) for name in names}

    s = {name: made(node, i) for i, (name, node) in enumerate(leaves("component", cell.state).items())}
    return _called(cell, s, W, leaves("drive", cell.drives), leaves("parameter", cell.parameters))


def _called(
    cell: Cell, s: Mapping[str, Any], W: Mapping[str, Any], u: Mapping[str, Any], p: Mapping[str, Any]
) -> tuple[Any, ...]:
    """Return the components that the function of a cell returns."""
    try:
        out = cell.function(Names(s, "component"), Names(W, "mixing"), Names(u, "drive"), Names(p, "parameter"))
    except (TypeError, AttributeError, IndexError) as error:
        raise TypeError(f"{cell.name} cannot be traced{_place(error)}: {error}") from error
    return out if isinstance(out, tuple) else (out,)


def _place(error: BaseException) -> str:
    """Return the innermost line of the user in the traceback of an error, in words."""
    for frame in reversed(traceback.extract_tb(error.__traceback__)):
        path = Path(frame.filename)
        if _MACHINERY not in path.parents and _NUMPY not in path.parents:
            return f" at line {frame.lineno} of {frame.filename}" + (f", `{frame.line}`" if frame.line else "")
    return ""


class _Tape:
    """Records the mixing calls of one pass."""

    def __init__(self, graph: Graph, components: int):
        self.graph, self.components = graph, components
        self.calls: list[MixingCall] = []

    def output(self, x: Any) -> Output:
        """Return a number, a node or a dual over nodes as the output of a stage."""
        partials: dict[Any, Any] = x.partials if isinstance(x, Dual) else {}
        return Output(
            self.graph.number(value_of(x)), {leaf: self.graph.number(partials[leaf]) for leaf in sorted(partials)}
        )

    def mixings(self, kinds: Mapping[str, str]) -> dict[str, Any]:
        return {name: self._caller(name, kind) for name, kind in kinds.items()}

    def _caller(self, mixing: str, kind: str) -> Any:
        def call(x: Any) -> Any:
            if kind == Diagonal.form:
                return self.graph.leaf("weight", mixing) * x
            result = self.graph.leaf("mixing", str(len(self.calls)))
            number = self._next_number() if isinstance(x, Dual) else None
            entry = self.output(x)
            self.calls.append(MixingCall(mixing, kind, entry, result, number, self._level(entry.value)))
            return result if number is None else Dual(result, {number: ONE})

        return call

    def _next_number(self) -> int:
        return self.components + sum(call.number is not None for call in self.calls)

    def _level(self, value: Node) -> int:
        """Return the first stage that can compute a value: one after those of the mixings it depends on."""
        levels = {call.result.index: call.level for call in self.calls}
        return 1 + max((levels[node.index] for node in reachable([value]) if node.index in levels), default=-1)

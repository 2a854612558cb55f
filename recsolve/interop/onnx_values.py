"""Values in an ONNX model that do not depend on its inputs, computed by ONNX's reference evaluator."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any

from recsolve.base.arrays import Array


@dataclass
class Scope:
    """A graph, or a subgraph within the graph around it.

    Attributes
    ----------
    nodes : list
        Its own.
    own_tensors : list
        Its own initializers.
    sources : dict
        What every name comes from, a node or an initializer, those of the graphs around it included.
    """

    nodes: list[Any]
    own_tensors: list[Any]
    sources: dict[str, Any] = field(repr=False)


class Values:
    """The values of a model.

    Attributes
    ----------
    scopes : list of Scope
        The graph and all its subgraphs.
    """

    def __init__(self, model: Any):
        self._model = model
        self.scopes = list(_scopes(model.graph, {}))

    def get(self, name: str, scope: Scope) -> Array:
        """Return a value; ValueError when it depends on an input of the model, or cannot be computed."""
        source = scope.sources.get(name)
        if source is not None and not hasattr(source, "op_type"):
            return _array(source)
        nodes, tensors = self._ancestors(name, scope, set())
        try:
            return self._run(name, nodes, tensors, {})
        except Exception as error:  # the evaluator raises many kinds
            raise ValueError(f"{name} is computed by nodes that cannot be evaluated: {error}") from error

    def held(self, name: str, scope: Scope) -> list[str]:
        """Return the initializers that a value is made of; none where it depends on an input of the model."""
        try:
            return list(self._ancestors(name, scope, set())[1])
        except ValueError:
            return []

    def along(self, name: str, scope: Scope, given: str, value: Array) -> Array | None:
        """Return a value where ``given`` has this value, or None if it depends on anything else, or not on that."""
        try:
            nodes, tensors = self._ancestors(name, scope, {given})
            if name != given and not any(given in node.input for node in nodes):
                return None
            return value if name == given else self._run(name, nodes, tensors, {given: value})
        except Exception:  # the evaluator raises many kinds, and what it cannot compute is not known to be anything
            return None

    def _ancestors(self, name: str, scope: Scope, given: set[str]) -> tuple[list[Any], dict[str, Any]]:
        """Return the nodes, in order, and the initializers that a value is computed from."""
        nodes: dict[int, Any] = {}
        tensors: dict[str, Any] = {}
        waiting, seen = [(name, False)], set(given) | {""}
        while waiting:
            wanted, ready = waiting.pop()
            if wanted in seen and not ready:
                continue
            seen.add(wanted)
            source = scope.sources.get(wanted)
            if source is None:
                raise ValueError(f"{name} is computed from {wanted}, which is no constant of the model")
            if not hasattr(source, "op_type"):
                tensors[wanted] = source
            elif ready:
                nodes[id(source)] = source
            elif id(source) not in nodes:
                if any(a.HasField("g") for a in source.attribute):
                    raise ValueError(f"{name} is computed by a node {source.op_type}; wanted constants")
                waiting.append((wanted, True))
                waiting += [(each, False) for each in source.input]
        return list(nodes.values()), tensors

    def _run(self, name: str, nodes: list[Any], tensors: dict[str, Any], given: dict[str, Array]) -> Array:
        from onnx import helper
        from onnx.reference import ReferenceEvaluator

        empty = helper.make_empty_tensor_value_info
        graph = helper.make_graph(nodes, "part", [empty(x) for x in given], [empty(name)], list(tensors.values()))
        part = helper.make_model(graph, opset_imports=self._model.opset_import)
        return ReferenceEvaluator(part).run(None, given)[0]  # type: ignore[no-any-return]


def _array(tensor: Any) -> Array:
    from onnx import numpy_helper

    return numpy_helper.to_array(tensor)  # type: ignore[no-any-return]


def _scopes(graph: Any, around: dict[str, Any]) -> Iterator[Scope]:
    """Yield a graph and its subgraphs."""
    sources = dict(around)
    for known in graph.input:
        sources.pop(known.name, None)  # an input hides what is around it, unless it has a default
    sources |= {tensor.name: tensor for tensor in graph.initializer}
    sources |= {name: node for node in graph.node for name in node.output if name}
    yield Scope(list(graph.node), list(graph.initializer), sources)
    for node in graph.node:
        for attribute in node.attribute:
            if attribute.HasField("g"):
                yield from _scopes(attribute.g, sources)
            for inner in attribute.graphs:
                yield from _scopes(inner, sources)

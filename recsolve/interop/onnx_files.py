"""Reading ONNX models: their GRU, LSTM and RNN nodes, also within the branches of If and the bodies of loops."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from recsolve.base.arrays import Array
from recsolve.interop.modules import Module, Weights, made, numbers
from recsolve.interop.onnx_values import Scope, Values
from recsolve.interop.stored import Stored

# Of each operation: torch's order of gates as blocks of ONNX's (LSTM i o f c, GRU z r h), and the activations known.
_ORDERS = {"RNN": [0], "GRU": [1, 0, 2], "LSTM": [0, 2, 3, 1]}
_ACTIVATIONS = {"RNN": [["Tanh"], ["Relu"]], "GRU": [["Sigmoid", "Tanh"]], "LSTM": [["Sigmoid", "Tanh", "Tanh"]]}
_DIRECTIONS = {"forward": ["_l0"], "reverse": ["_l0_reverse"], "bidirectional": ["_l0", "_l0_reverse"]}
# Attributes that say nothing of the equations, or are looked at below; every other one must have this value.
_KNOWN = ("hidden_size", "direction", "activations", "layout", "linear_before_reset", "output_sequence")
_PLAIN: dict[str, Any] = {"clip": None, "input_forget": 0, "activation_alpha": [], "activation_beta": []}
_PEEPHOLES = 7  # the input of an LSTM


def read_onnx(path: Path) -> tuple[list[Module], dict[str, Stored]]:
    """Return the recurrent nodes of a model as modules, and its initializers.

    Raises
    ------
    ImportError
        Without onnx; the message names the extra.
    ValueError
        When the file cannot be read.
    """
    try:
        import onnx
        from google.protobuf.message import DecodeError
    except ImportError as error:
        raise ImportError(f"reading {path} needs onnx: pip install 'recsolve[onnx]'") from error
    try:
        model = onnx.load(str(path))
        if model.functions:
            import onnx.inliner

            model = onnx.inliner.inline_local_functions(model)
    except (DecodeError, OSError, ValueError, RuntimeError, onnx.checker.ValidationError) as error:
        raise ValueError(f"{path} is not a readable .onnx file: {str(error).strip()[:300]}") from error
    values = Values(model)
    nodes = [(_name(node), node, scope) for scope in values.scopes for node in scope.nodes if _recurrent(node)]
    names = [name for name, *_ in nodes]
    modules = []
    for place, (name, node, scope) in enumerate(nodes):
        own = name if names.count(name) == 1 else f"{name}#{names[:place].count(name)}"
        modules.append(_module(own, node, scope, values, nodes[:place]))
    held = {t.name: Stored(tuple(t.dims), _dtype(t), None) for scope in values.scopes for t in scope.own_tensors}
    return modules, held


def _name(node: Any) -> str:
    return str(node.name or next(name for name in node.output if name))


def _recurrent(node: Any) -> bool:
    return any(kind in node.op_type for kind in ("GRU", "LSTM")) or node.op_type == "RNN"


def _dtype(tensor: Any) -> str:
    import onnx

    return str(onnx.helper.tensor_dtype_to_np_dtype(tensor.data_type).name)


def _module(name: str, node: Any, scope: Scope, values: Values, before: list[Any]) -> Module:
    roles = dict(zip(("X", "W", "R", "B"), node.input, strict=False))
    keys = [f"{name}/{role}" for role in "WRB" if roles.get(role)]
    keys += [held for role in "WRB" if roles.get(role) for held in values.held(roles[role], scope)]

    def make() -> tuple[str, Weights, str]:
        said = _attributes(node)
        cell = _cell(node, said)
        peepholes = node.input[_PEEPHOLES] if len(node.input) > _PEEPHOLES else ""
        if peepholes and np.any(values.get(peepholes, scope)):
            raise ValueError(f"{name} has peepholes (its input P); wanted an LSTM without")
        entries = {f"{name}/{role}": Stored.of(values.get(roles[role], scope)) for role in "WRB" if roles.get(role)}
        weights, dtype = _converted(name, node.op_type, said, entries)
        return cell, weights, dtype

    fed = next((other for other, below, _ in before if _feeds(below, node, scope, values)), None)
    return made(name, keys, make, fed)


def _attributes(node: Any) -> dict[str, Any]:
    import onnx

    def plain(value: Any) -> Any:
        if isinstance(value, bytes):
            return value.decode()
        return [plain(x) for x in value] if isinstance(value, (list, tuple)) else value

    return {a.name: plain(onnx.helper.get_attribute_value(a)) for a in node.attribute}


def _cell(node: Any, said: Mapping[str, Any]) -> str:
    """Return which cell a node is; raise ValueError for what its equations are not."""
    kind = node.op_type
    if kind not in _ORDERS or node.domain not in ("", "ai.onnx"):
        seen, known = f"{node.domain}.{kind}".removeprefix("."), ", ".join(_ORDERS)
        raise ValueError(f"{_name(node)} is a node {seen}; wanted one of {known} of ONNX itself")
    for name, value in said.items():
        if name not in _KNOWN and value != _PLAIN.get(name):
            raise ValueError(f"{_name(node)} has {name} {value!r}, which is not supported")
    direction = said.get("direction", "forward")
    if direction not in _DIRECTIONS:
        raise ValueError(f"{_name(node)} has direction {direction!r}; wanted one of {', '.join(_DIRECTIONS)}")
    ways = len(_DIRECTIONS[direction])
    activations = said.get("activations") or _ACTIVATIONS[kind][0] * ways
    known_ones = [each * ways for each in _ACTIVATIONS[kind]]
    named = [text.capitalize() for text in activations]  # they are case-insensitive
    if named not in known_ones:
        wanted = " or ".join(map(str, known_ones))
        raise ValueError(f"{_name(node)} has activations {activations}, which are not supported; wanted {wanted}")
    if kind == "GRU":
        return "gru" if said.get("linear_before_reset", 0) else "cho_gru"
    return "lstm" if kind == "LSTM" else "elman_relu" if named[0] == "Relu" else "elman"


def _converted(name: str, kind: str, said: Mapping[str, Any], entries: dict[str, Stored]) -> tuple[Weights, str]:
    """Return a node's weights by torch's names, and their dtype."""
    order, ends = _ORDERS[kind], _DIRECTIONS[said.get("direction", "forward")]
    first = f"{name}/R"
    shape = entries[first].shape if first in entries else ()
    units = int(said.get("hidden_size", shape[-1] if shape else 0))
    rows = len(order) * units
    wanted: dict[str, tuple[int | None, ...]] = {f"{name}/W": (len(ends), rows, None), first: (len(ends), rows, units)}
    if f"{name}/B" in entries:
        wanted[f"{name}/B"] = (len(ends), 2 * rows)
    if first not in entries:
        raise ValueError(f"{first} missing")
    arrays, dtype = numbers(entries, wanted, first)
    if f"{name}/B" in arrays:
        b = arrays.pop(f"{name}/B")
        arrays |= {"bias_ih": b[:, :rows], "bias_hh": b[:, rows:]}
    named = {"weight_ih": arrays.pop(f"{name}/W"), "weight_hh": arrays.pop(first), **arrays}
    weights = {}
    for i, end in enumerate(ends):
        for part, x in named.items():
            weights[part + end] = np.concatenate([x[i, gate * units : (gate + 1) * units] for gate in order])
    return weights, dtype


def _feeds(below: Any, node: Any, scope: Scope, values: Values) -> bool:
    """Return whether a node's input is the output of another one, the two directions side by side: tried on numbers."""
    said, own = _attributes(below), _attributes(node)
    if below.op_type != node.op_type or "hidden_size" not in said or said.get("layout", 0) != own.get("layout", 0):
        return False
    output = str(below.output[0])
    if scope.sources.get(output) is not below:
        return False
    ways, units = len(_DIRECTIONS.get(said.get("direction", "forward"), [])), said["hidden_size"]
    y: Array = np.arange(2 * 3 * ways * units, dtype=np.float32)
    if said.get("layout", 0):
        y = y.reshape(2, 3, ways, units)
        joined = y.reshape(2, 3, -1)
    else:
        y = y.reshape(2, ways, 3, units)
        joined = y.swapaxes(1, 2).reshape(2, 3, -1)
    x = values.along(node.input[0], scope, output, y)
    return x is not None and np.array_equal(x, joined)

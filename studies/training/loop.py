"""A cell as steps of torch, one after the other: the plain loop that parallel layers are measured against.

The function of a cell is traced once and written as Python source of torch's operations, so that autograd and
``torch.compile`` see what a user would write by hand.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

from recsolve.recurrence.cell import Cell
from recsolve.symbolic.emit import OPERATORS, calls, variable
from recsolve.symbolic.graph import Node, reachable
from recsolve.symbolic.program import Program
from recsolve.symbolic.tracing import trace_cell

# Operations that torch calls by another name.
_NAMES = {
    "absolute": "abs", "arctan": "atan", "arctan2": "atan2", "power": "pow", "rint": "round",
    "softplus": "nn.functional.softplus",
}  # fmt: skip
_FORMATS = {name: form.replace(name, _NAMES.get(name, name), 1) for name, form in calls("").items()}
_FORMATS = {name: f"torch.{form}" for name, form in _FORMATS.items()} | OPERATORS
_BOUNDS = {"maximum": "min", "minimum": "max"}  # torch.maximum takes no numbers


def torch_step(cell: Cell, kinds: Mapping[str, str]) -> Callable[..., tuple[Any, ...]]:
    """Return ``step(s, W, u, p)``, a step of a cell on tensors by name: the new components.

    Parameters
    ----------
    cell : Cell
    kinds : mapping
        The kind of every mixing, as :func:`recsolve.symbolic.tracing.trace_cell` takes them. ``W`` has for each a
        weight, of ``"diagonal"``, or a function.

    Raises
    ------
    TypeError
        For a cell that cannot be traced.

    Examples
    --------
    >>> import torch, recsolve as rs
    >>> from recsolve.studies.training.loop import torch_step
    >>> step = torch_step(rs.cells.Elman, {"h": "diagonal"})
    >>> step({"h": torch.zeros(2)}, {"h": torch.ones(2)}, {"h": torch.zeros(2)}, {})
    (tensor([0., 0.]),)
    """
    import math

    import torch

    scope: dict[str, Any] = {"math": math, "torch": torch}
    exec(compile(source(trace_cell(cell, kinds)), f"<{cell.name} in torch>", "exec"), scope)  # of our own writing
    step: Callable[..., tuple[Any, ...]] = scope["step"]
    return step


def source(program: Program) -> str:
    """Return the source of a step."""
    given = {"s": program.components, "W": tuple(program.mixings), "u": program.drives, "p": program.parameters}
    lines = [f"{letter}_{name} = {letter}[{name!r}]" for letter, names in given.items() for name in names]
    written: dict[int, str] = {}
    for stage in program.stages:
        values = [output.value for output in stage.outputs]
        for node in reachable(values):
            if node.index in written:
                continue
            if node.arguments:
                written[node.index] = f"t{node.index}"
                lines.append(f"t{node.index} = {_expression(node, written)}")
            else:
                written[node.index] = variable(node.content) if node.operation == "leaf" else _number(node.content)
        lines += [
            f"{variable(call.result.content)} = W_{call.mixing}({written[value.index]})"
            for call, value in zip(stage.calls, values, strict=False)
        ]
    lines.append(f"return ({', '.join(written[value.index] for value in values)},)")
    return "\n    ".join(["def step(s, W, u, p):", *lines])


def _expression(node: Node, written: Mapping[int, str]) -> str:
    names = [written[a.index] for a in node.arguments]
    constants = [a.operation == "constant" for a in node.arguments]
    if node.operation in _BOUNDS and any(constants):
        bound, x = names if constants[0] else names[::-1]
        return f"torch.clamp({x}, {_BOUNDS[node.operation]}={bound})"
    return _FORMATS[node.operation].format(*names)


def _number(x: Any) -> str:
    return {"inf": "math.inf", "-inf": "-math.inf", "nan": "math.nan"}.get(repr(x), repr(x))

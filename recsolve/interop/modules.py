"""Recurrent modules found in files, their weights by torch's names."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field, replace
from typing import Any

from recsolve.base.arrays import Array
from recsolve.interop.stored import DTYPES, Stored
from recsolve.recurrence import torch_weights

Weights = dict[str, Array]  # float32 or float64, by torch's names and with torch's order of gates


@dataclass(frozen=True, eq=False)
class Module:
    """One recurrent module of a file.

    Attributes
    ----------
    name : str
        What the file calls it, and a pattern of its keys; of a state dict what they begin with.
    keys : tuple of str
        Its keys in the file.
    cell : str
        A name in ``recsolve.cells``; ``"rnn"`` where the file does not say of which nonlinearity. Empty with a fault.
    weights : dict of array
        Empty with a fault.
    dtype : str
        As stored.
    fault : ValueError, TypeError or None
        Why it cannot be used.
    after : str or None
        The module whose output is its input, as the file says.
    """

    name: str
    keys: tuple[str, ...]
    cell: str = ""
    weights: Weights = field(default_factory=dict)
    dtype: str = ""
    fault: ValueError | TypeError | None = None
    after: str | None = None

    @property
    def directions(self) -> list[tuple[int, bool]]:
        """The (layer, reverse) pairs, in torch's order."""
        return list(torch_weights.ends(self.weights))

    def summary(self) -> dict[str, Any]:
        """Return what a listing shows of it."""
        row: dict[str, Any] = {"name": self.name, "cell": self.cell}
        if self.fault is None:
            end = next(iter(torch_weights.ends(self.weights).values()))
            rows, shown = self.weights[f"weight_hh{end}"].shape
            ways = {reverse for _, reverse in self.directions}
            row |= {
                "layers": self.directions[-1][0] + 1,
                "directions": "both" if len(ways) == 2 else "reverse" if True in ways else "forward",
                "input_size": int(self.weights[f"weight_ih{end}"].shape[1]),
                "hidden_size": int(rows) // GATES[self.cell],
                "output_size": int(shown),
                "bias": f"bias_ih{end}" in self.weights,
                "dtype": self.dtype,
            }
        return {**row, "fault": None if self.fault is None else str(self.fault), "keys": list(self.keys)}


GATES = {"rnn": 1, **{name: len(layout.gates) for name, layout in torch_weights.LAYOUTS.items()}}


def made(name: str, keys: Iterable[str], make: Callable[[], tuple[str, Weights, str]], after: str | None) -> Module:
    """Return a module of what ``make`` returns, cell, weights and dtype, or with the fault that it raises."""
    try:
        cell, weights, dtype = make()
    except (ValueError, TypeError) as error:
        return Module(name, tuple(keys), fault=error, after=after)
    return Module(name, tuple(keys), cell, weights, dtype, after=after)


def numbers(
    entries: Mapping[str, Stored], wanted: Mapping[str, tuple[int | None, ...]], first: str
) -> tuple[Weights, str]:
    """Return entries as arrays, and their dtype in the file, having checked keys, shapes, dtypes and numbers.

    Raises
    ------
    ValueError, TypeError
        As :func:`recsolve.recurrence.torch_weights.check_arrays`, and for numbers that are NaN or inf.
    """
    torch_weights.check_arrays(entries, wanted, first, DTYPES)
    arrays = {name: x.array for name, x in entries.items()}
    torch_weights.check_finite(arrays)
    return arrays, entries[first].dtype


def of_state_dict(entries: Mapping[str, Stored]) -> list[Module]:
    """Return the recurrent modules of a torch state dict: one for everything that stands before torch's names.

    Every key that begins with it belongs to the module, and is used, or the module has a fault that names it.
    """
    prefixes: dict[str, None] = {}
    for name in sorted(entries):
        if key := torch_weights.KEY.search(name):
            prefixes[name[: key.start()]] = None
    return [_module(prefix, entries) for prefix in prefixes]


def _module(prefix: str, entries: Mapping[str, Stored]) -> Module:
    own = {name.removeprefix(prefix): x for name, x in entries.items() if name.startswith(prefix)}

    def make() -> tuple[str, Weights, str]:
        name = torch_weights.cell_name(own, DTYPES)
        weights = {key: x.array for key, x in own.items()}
        torch_weights.check_finite(weights)
        return "rnn" if name == "elman" else name, weights, next(iter(own.values())).dtype

    name = prefix.rstrip("./")
    return made(prefix + "*" if name == prefix != "" else name, [prefix + key for key in own], make, None)


def stacked(modules: Iterable[Module]) -> list[Module]:
    """Join modules of one kind and size of which each is fed by the one before, as torch stacks layers."""
    found: list[Module] = []
    last: dict[str, Module] = {}  # the stack that a module is the last of
    for module in modules:
        below = last.pop(module.after, None) if module.after is not None and module.fault is None else None
        joined = None if below is None else _joined(below, module)
        if joined is None:
            found.append(module)
            joined = module
        else:
            found[next(i for i, x in enumerate(found) if x is below)] = joined
        last[module.name] = joined
    return found


def _joined(below: Module, above: Module) -> Module | None:
    """Return two modules as one, or None where torch has no such module."""
    if below.cell != above.cell or below.dtype != above.dtype or (0, False) not in below.directions:
        return None
    layer = below.directions[-1][0] + 1
    weights = below.weights | {re.sub(r"_l0(?=_|$)", f"_l{layer}", key): x for key, x in above.weights.items()}
    try:
        torch_weights.cell_name(weights)
    except (ValueError, TypeError):
        return None
    return replace(below, keys=below.keys + above.keys, weights=weights)

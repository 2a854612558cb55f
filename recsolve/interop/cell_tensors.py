"""The tensors that a solve of a cell takes, by name, and the specifications that are alive, by key."""

from __future__ import annotations

from typing import Any
from weakref import WeakValueDictionary

from recsolve.base.links import Leaf

# Of recsolve.interop.autograd.CellSpec, by the keys that operations of torch know them by.
SPECS: WeakValueDictionary[str, Any] = WeakValueDictionary()

_PLAIN = ("x", "initial", "reset")
_KINDS = ("weight", "bias", "drive", "mixing", "parameter")


def check_name(name: str) -> None:
    """Raise ValueError for what is no name of a tensor of :func:`recsolve.interop.autograd.solve_cell`."""
    kind, dot, of = name.partition(".")
    if name not in _PLAIN and not (dot and of and kind in _KINDS):
        wanted = ", ".join((*_PLAIN, *(f"{kind}.NAME" for kind in _KINDS)))
        raise ValueError(f"tensors has {name!r}; wanted some of {wanted}")


def is_of_sequences(name: str) -> bool:
    """Return whether a tensor has the axes of sequences; others are weights."""
    return name in _PLAIN or name.startswith("drive.")


def leaf_of(name: str) -> Leaf:
    """Return which leaf of a recurrence a tensor of this name is.

    >>> leaf_of("x"), leaf_of("mixing.r")
    (('input', 0), ('mixing', 'r'))
    """
    kind, _, of = name.partition(".")
    plain: dict[str, Leaf] = {"x": ("input", 0), "initial": ("initial", None)}
    return plain.get(name, (kind, of))

"""Mixings: the linear maps inside a cell, and the only thing in it that couples units."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from recsolve.mixings.conv import Conv
from recsolve.mixings.factors import LowRank
from recsolve.mixings.gather import INTEGERS as INTEGERS
from recsolve.mixings.gather import Gather
from recsolve.mixings.gather import check_index as check_index
from recsolve.mixings.matrices import Dense, Diagonal, Heads
from recsolve.mixings.mixing import Mixing
from recsolve.mixings.mixing import couples as couples
from recsolve.mixings.mixing import form_of as form_of
from recsolve.mixings.mixing import from_plain as from_plain
from recsolve.mixings.mixing import has_matrix as has_matrix
from recsolve.mixings.mixing import matrix_of as matrix_of
from recsolve.mixings.mixing import plain_of as plain_of
from recsolve.mixings.mixing import states_linear as states_linear
from recsolve.mixings.patterns import Masked, Permutation, SharedHead, Sparse

__all__ = [
    "MIXINGS", "Conv", "Dense", "Diagonal", "Gather", "Heads", "LowRank", "Masked", "Mixing", "Permutation",
    "SharedHead", "Sparse",
]  # fmt: skip


def __dir__() -> list[str]:
    return sorted(__all__)


# Those that have a form, by its name: compiled loops know them, and Cell.random makes them.
MIXINGS: dict[str, type[Mixing]] = {m.name: m for m in (Diagonal, Heads, Dense)}


def make(kind: str | Callable[[Any], Mixing], hidden_size: int, heads: int | None, draw: Any) -> Mixing:
    """Return a mixing of ``kind`` for ``hidden_size`` units in all, with weights from ``draw(shape)``.

    Raises
    ------
    ValueError
        For an unknown kind, or heads that do not divide the units.
    """
    if not callable(kind) and kind not in MIXINGS:
        raise ValueError(f"mixing is {kind!r}; wanted one of {', '.join(MIXINGS)}, or a function of draw(shape)")
    if callable(kind) or kind != "heads":
        if heads is not None:
            raise ValueError(f"heads is {heads} with mixing {kind!r}; heads belongs to mixing='heads'")
        if callable(kind):
            return kind(draw)
        shape: tuple[int, ...] = (hidden_size,) if kind == "diagonal" else (hidden_size, hidden_size)
        return MIXINGS[kind](draw(shape))
    heads = 4 if heads is None else heads
    if heads < 1 or hidden_size % heads:
        raise ValueError(f"heads is {heads}; wanted a divisor of hidden_size {hidden_size}")
    return Heads(draw((heads, hidden_size // heads, hidden_size // heads)))


def make_on(
    name: str, kind: str | Callable[[Any], Mixing], event: tuple[int, ...], heads: int | None, draw: Any
) -> Mixing:
    """Return a mixing of ``kind`` for the last of some axes, or heads for the last two.

    Raises
    ------
    ValueError
        As :func:`make`, and for too few axes.
    """
    if len(event) < (2 if kind == "heads" else 1):
        raise ValueError(f"mixing {name} has axes of sizes {event}; wanted one, or two for mixing='heads'")
    if kind != "heads":
        return make(kind, event[-1], heads, draw)
    if heads not in (None, event[-2]):
        raise ValueError(f"heads is {heads}, and the axes of mixing {name} have the sizes {event}; leave it out")
    return make(kind, event[-2] * event[-1], event[-2], draw)

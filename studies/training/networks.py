"""Which networks can be trained: what a config may say of them, and what they count."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from recsolve.cells import REGISTRY
from recsolve.math import exp, sqrt
from recsolve.recurrence.cell import Cell

if TYPE_CHECKING:
    from recsolve.studies.training.config import TrainConfig

LAYERS = ("recsolve", "torch", "loop")
MIXINGS = ("diagonal", "dense", "heads")
FAILURES = ("loop", "raise", "warn")
OF_TORCH = {"gru": "GRU", "lstm": "LSTM", "elman": "RNN"}


def affine(s: Any, W: Any, u: Any, p: Any) -> Any:
    """A linear recurrence with a decay per unit, which keeps the size of what drives it: the real form of the LRU.

    h' = a h + sqrt(1 - a^2) u with a = exp(-exp(p.rate)).
    """
    kept = exp(-exp(p.rate))
    return kept * s.h + sqrt(1 - kept * kept) * u.h


AFFINE = Cell(affine, state=("h",), output="h", cite="Orvieto et al., arXiv 2303.06349")


def cell_of(name: str) -> Cell:
    """Return a cell that can be trained, by its name."""
    cells = {**REGISTRY, "affine": AFFINE}
    if name not in cells:
        raise ValueError(f"cell is {name!r}; wanted one of {', '.join(cells)}")
    return cells[name]


def check(config: TrainConfig) -> None:
    """Raise ValueError for a config of which there is no network; the message names the key."""
    cell_of(config.cell)
    choices = {"layer": LAYERS, "mixing": MIXINGS, "on_failure": FAILURES}
    for name, known in choices.items():
        if getattr(config, name) not in known:
            raise ValueError(f"{name} is {getattr(config, name)!r}; wanted one of {', '.join(known)}")
    if config.layer == "torch" and (config.cell not in OF_TORCH or config.mixing != "dense"):
        raise ValueError(
            f"layer is 'torch' with cell {config.cell!r} and mixing {config.mixing!r}; wanted one of "
            f"{', '.join(OF_TORCH)}, and 'dense'"
        )
    if config.mixing == "heads" and config.units % config.heads:
        raise ValueError(f"units is {config.units}; wanted a multiple of heads, {config.heads}")

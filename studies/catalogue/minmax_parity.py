"""What MinMax cascades can remember (Ronca, arXiv 2605.06384): the parity of a few bits, and matrices that of all.

A map max(min(r, x), s) does twice what it does once, so that neurons never count modulo two, in cascades neither;
matrices over (max, min) can swap two states.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

import recsolve as rs
from recsolve.base.arrays import Array
from recsolve.studies.draw.drawing import band
from recsolve.studies.draw.series import level, outside_legend, series
from recsolve.studies.registry import Picture, Table, study_of
from recsolve.studies.store.records import Point, Row, product
from recsolve.studies.systems import minmax

if TYPE_CHECKING:
    from xarray import DataArray, Dataset

MATRIX = "2 x 2 matrix"
CASCADES = {  # layers, and the steps of the layer below that a layer sees
    "4 layers, of one step": (4, 1),
    "1 layer, of two steps": (1, 2),
    "2 layers, of two steps": (2, 2),
    "4 layers, of two steps": (4, 2),
}


@dataclass(frozen=True)
class Config:
    """Random bits, ``length`` of them; the parity of the last 1 to ``most`` of them is asked for, and of all."""

    length: int = 20_000
    most: int = 10
    units: int = 6
    seeds: int = 5


TINY = Config(length=2000, most=6, seeds=3)
FULL = Config(length=100_000, most=16, seeds=20)


def grid(config: Config) -> Iterator[Point]:
    sizes = {"T": config.length, "most": config.most, "units": config.units, "dtype": "float64"}
    yield from product(cell=(MATRIX, *CASCADES), seed=range(config.seeds), **sizes)


def run(*, cell: str, T: int, most: int, units: int, seed: int, dtype: str) -> list[Row]:
    assert dtype == "float64", "clamps never round: one dtype is enough"
    bits = np.random.default_rng(seed).integers(0, 2, T)
    if cell == MATRIX:
        states = minmax.scan_matrix(minmax.parity(bits))
    else:
        states = cascade(bits, *CASCADES[cell], units=units, seed=seed)
    names = np.unique(states, axis=0, return_inverse=True)[1].reshape(-1)
    ones = np.concatenate([np.zeros(T, int), np.cumsum(bits)])  # up to each step; none before the first
    parities = [(ones[T:] - ones[T - last : 2 * T - last]) % 2 for last in (*range(1, most + 1), T)]
    return [
        {
            "solver": "scan",
            "status": "converged",
            "states": int(names.max()) + 1,
            "right": [best_reading(names, parity) for parity in parities],
        }
    ]


def cascade(bits: Array, layers: int, steps: int, *, units: int, seed: int) -> Array:
    """Return the states of all layers of a cascade of random weights that reads bits, (T, layers units)."""
    rng = np.random.default_rng(seed)
    below, states = bits[:, None].astype(float), []
    for _ in range(layers):
        seen = np.concatenate([np.pad(below, ((k, 0), (0, 0)))[: len(bits)] for k in range(steps)], axis=-1)
        W = 2 * rng.standard_normal((2, seen.shape[-1], units)) / np.sqrt(seen.shape[-1])
        (r, s), bias = seen @ W, rng.standard_normal((2, units))
        below = rs.scan("clamp", (r + bias[0] + 1, s + bias[1] - 1), initial=np.zeros(units))
        states.append(below)
    return np.concatenate(states, axis=-1)


def best_reading(names: Array, parity: Array) -> float:
    """Return how often a state tells parity in the second half, by what it went with more often in the first."""
    half = len(names) // 2
    votes = np.zeros(int(names.max()) + 1)
    np.add.at(votes, names[:half], 2 * parity[:half] - 1)
    told = np.sign(votes[names[half:]])
    return float(np.where(told == 0, 0.5, told == 2 * parity[half:] - 1).mean())


def _right(data: Dataset, cell: str) -> DataArray:
    """Return how often parities are told, by the number of bits (the last of them: all) and seed."""
    found: DataArray = data["right"].sel(cell=cell, solver="scan").isel(T=0).transpose("bits", "seed")
    return found


def facts(data: Dataset) -> dict[str, Any]:
    found: dict[str, Any] = {}
    for cell in (MATRIX, *CASCADES):
        right: Array = _right(data, cell).values
        if cell != MATRIX:  # which is made for all bits
            best: Array = right[:-1].max(axis=1)  # of the weights
            found[f"{cell}.bits"] = int(np.cumprod(best > 0.99).sum())
        found[f"{cell}.all"] = [float(right[-1].min()), float(right[-1].max())]
        found[f"{cell}.states"] = int(data["states"].sel(cell=cell).max())
    return found


def draw(pyplot: Any, data: Dataset) -> Any:
    figure, ax = pyplot.subplots(figsize=(7.2, 3.4))
    looks = series([MATRIX, *CASCADES])
    x = 1 + np.arange(data["bits"].size)
    for cell, look in looks.items():
        right = _right(data, cell)
        band(ax, x, right.where(right["bits"] == len(x) - 1) if cell == MATRIX else right, "seed", cell, **look)
    level(ax, 0.5, "chance", "left")
    ax.set(xlabel="how many of the last bits", ylabel="steps at which\nthe state tells their parity", ylim=(0.45, 1.03))
    ax.set_xticks(x, [*map(str, x[:-1]), "all"])
    outside_legend(figure, pyplot, looks.values())
    return figure


def says(data: Dataset) -> str:
    f = facts(data)
    high = max(f[f"{cell}.all"][1] for cell in CASCADES)
    bits = max(f[f"{cell}.bits"] for cell in CASCADES)
    return (
        f"A matrix over (max, min) holds the parity of all bits, and no depth of elementwise cascades does: the best "
        f"reader of its state tells it in {100 * f[f'{MATRIX}.all'][0]:.0f}% of the steps, that of theirs in at most "
        f"{100 * high:.0f}%, where chance is a half. Steps that see another step, and depth then, hold that of up to "
        f"{bits} last bits."
    )


def tables(data: Dataset) -> list[Table]:
    f = facts(data)
    rows = [
        [
            cell,
            str(f[f"{cell}.states"]),
            str(f.get(f"{cell}.bits", "all")),
            *(f"{100 * share:.1f}%" for share in f[f"{cell}.all"]),
        ]
        for cell in (MATRIX, *CASCADES)
    ]
    head = ["cell", "states, at most", "bits told by the best", "told of all bits, least", "most"]
    return [Table("Parity that states tell", head, rows)]


STUDY = study_of(
    __name__,
    name="minmax_parity",
    question="Of how many bits do MinMax cells hold the parity?",
    dims=("cell", "T", "seed", "solver"),
    curves={"right": ("bits",)},
    pictures=(Picture("bits", draw, says),),
)

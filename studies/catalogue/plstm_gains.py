"""pLSTM on a grid (Poeppel et al., arXiv 2506.11997): how far a source reaches in P-mode, D-mode and without rule."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from recsolve.base.arrays import Array
from recsolve.studies.compare.measure import loop, measured
from recsolve.studies.draw.drawing import band
from recsolve.studies.draw.series import level, outside_legend, series
from recsolve.studies.registry import Picture, Table, study_of
from recsolve.studies.store.records import Point, Row, product
from recsolve.studies.systems.plstm import grid as recurrence

if TYPE_CHECKING:
    from xarray import DataArray, Dataset

P_MODE, D_MODE, FREE = "P-mode", "D-mode", "no rule"
GATES = {"largest": "gates as large as the mode allows", "random": "random gates"}
_LEAST = 1e-12  # of what is drawn


@dataclass(frozen=True)
class Config:
    """A grid of ``side`` rows and columns, with one source in a corner."""

    modes: tuple[str, ...] = (P_MODE, D_MODE, FREE)
    gates: tuple[str, ...] = tuple(GATES)
    side: int = 64
    seeds: int = 5


TINY = Config(side=8, seeds=2)
FULL = Config(side=256, seeds=20)


def grid(config: Config) -> Iterator[Point]:
    seeds = range(config.seeds)
    return product(mode=config.modes, gates=config.gates, side=config.side, seed=seeds, dtype="float64")


def transitions(mode: str, gates: str, side: int, seed: int) -> tuple[Array, Array]:
    """Return T[x, y, to, from] and S[x, y, to], of edges to the right and down.

    Random shares of P-mode lie between 0 and 1; random gates of the others between 1/2 and 1.
    """
    random = np.random.default_rng(seed).uniform(size=(side, side, 4))
    a = random[..., 0] if gates == "random" else np.full((side, side), 0.5)
    shares = np.stack([a, 1 - a], axis=-1)
    if mode == P_MODE:
        return np.stack([shares, shares], axis=-1), shares
    T = ((1 + random) / 2 if gates == "random" else np.ones_like(random)).reshape(side, side, 2, 2)
    if mode == D_MODE:
        T[..., 0, 1] = 0  # the turn from down to right
    return T, shares


def run(*, mode: str, gates: str, side: int, seed: int, dtype: str) -> list[Row]:
    T, S = (x[:, :, None, None].astype(dtype) for x in transitions(mode, gates, side, seed))
    w = np.zeros((side, side, 1, 1, 1), dtype)
    w[0, 0] = 1
    S[0, 0] = 1 if mode != P_MODE else S[0, 0]
    rec = recurrence(T, S, w)
    gain = np.abs(loop(rec)[:, :, 0, 0, :, 0])
    x, y = np.indices((side, side))
    lines = [gain[x + y == distance] for distance in range(side)]  # whole ones, which no border has cut
    curves = {"total": [float(line.sum()) for line in lines], "largest": [float(line.max()) for line in lines]}
    newton = measured(rec, "newton", loop(rec))
    return [{**newton, **curves, "levels": 2 * side - 1, "cells": side * side}]


def _curves(data: Dataset, name: str, mode: str, gates: str) -> DataArray:
    """Return a curve by distance and seed."""
    return data[name].sel(solver="newton", mode=mode, gates=gates).transpose("distance", "seed")


def _names(data: Dataset, axis: str) -> list[str]:
    return [str(name) for name in data[axis].values]


def facts(data: Dataset) -> dict[str, Any]:
    found: dict[str, Any] = {
        "levels": int(data["levels"].max()),
        "cells": int(data["cells"].max()),
        "distance": data["distance"].size - 1,
    }
    for mode in _names(data, "mode"):
        found[f"{mode}.iterations"] = float(data["iterations"].sel(mode=mode).max())
        for gates in _names(data, "gates"):
            total, largest = (_curves(data, name, mode, gates) for name in ("total", "largest"))
            name = f"{mode}.{gates}"
            found[f"{name}.total"] = [float(total.min()), float(total.max())]
            found[f"{name}.largest"] = float(largest.max())
            found[f"{name}.last"] = float(largest[-1].median())
            found[f"{name}.last_total"] = float(total[-1].median())
            found[f"{name}.growth"] = float((total[-1] / total[-2]).median())
    return found


def draw(pyplot: Any, data: Dataset) -> Any:
    figure, axes = pyplot.subplots(2, len(data["gates"]), figsize=(8.6, 5.2), sharex=True, sharey="row", squeeze=False)
    looks = series(_names(data, "mode"))
    for column, gates in zip(axes.T, _names(data, "gates"), strict=True):
        for ax, name in zip(column, ("total", "largest"), strict=True):
            for mode, look in looks.items():
                y = _curves(data, name, mode, gates)
                every = max(1, len(y) // 10)
                band(ax, np.arange(len(y)), y.where(y > _LEAST), "seed", mode, **look, markevery=every)
            level(ax, 1.0, "1", side="left")
            ax.set(yscale="log")
        column[0].set(title=GATES[gates])
        column[1].set(xlabel="distance from the source")
    axes[0, 0].set_ylabel("sum of gains at that distance")
    axes[1, 0].set_ylabel("largest gain there")
    outside_legend(figure, pyplot, looks.values())
    return figure


def says(data: Dataset) -> str:
    f = facts(data)
    p = [f[f"{P_MODE}.{gates}.total"] for gates in GATES]
    spread = max(max(high - 1 for _, high in p), max(1 - low for low, _ in p))
    d = max(f[f"{D_MODE}.{gates}.largest"] for gates in GATES)
    return (
        f"Without a rule gains grow like the number of paths, to {f[f'{FREE}.largest.last']:.1e} at distance "
        f"{f['distance']}. P-mode keeps the sum of the gains over all edges at a distance to within {spread:.0e} of "
        f"what the source wrote, whatever the gates, and in D-mode, where one path leads to an edge, no gain exceeds "
        f"{d:.6g}."
    )


def tables(data: Dataset) -> list[Table]:
    f = facts(data)
    rows = [
        [mode, GATES[gates], *(f"{f[f'{mode}.{gates}.{what}']:.2g}" for what in ("last_total", "last", "growth"))]
        for mode in _names(data, "mode")
        for gates in _names(data, "gates")
    ]
    head = ["mode", "gates", "sum of gains", "largest gain", "growth of the sum"]
    return [Table(f"At distance {f['distance']} from the source, medians", head, rows)]


STUDY = study_of(
    __name__,
    name="plstm",
    question="How far does a source reach on a grid, and which constraints on the gates keep it in bounds?",
    dims=("mode", "gates", "seed", "solver"),
    curves={"total": ("distance",), "largest": ("distance",)},
    pictures=(Picture("gains", draw, says),),
)

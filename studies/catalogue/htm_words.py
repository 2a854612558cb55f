"""What a sequence memory predicts (Cui, Ahmad and Hawkins, arXiv 1512.05463): ends of words, by how they began."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from recsolve.base.arrays import Array
from recsolve.studies.compare.measure import loop
from recsolve.studies.draw.drawing import band
from recsolve.studies.draw.series import level, outside_legend, series
from recsolve.studies.registry import Picture, Table, study_of
from recsolve.studies.store.records import Point, Row, product
from recsolve.studies.systems import htm

if TYPE_CHECKING:
    from xarray import DataArray, Dataset

WHOLE, CUT = "whole words", "words without their first letter"


@dataclass(frozen=True)
class Config:
    """``words`` that differ in their first and last letters are learned; then a share of the cells is ``dropped``.

    Columns of 1 cell know the letter before alone. A letter drives ``driven`` columns; a segment needs half of them.
    """

    cells: tuple[int, ...] = (1, 4, 8, 16)
    dropped: tuple[float, ...] = (0.0, 0.1, 0.2, 0.3, 0.4, 0.6)
    words: int = 8
    length: int = 5
    driven: int = 16
    columns: int = 256
    seeds: int = 3


TINY = Config(cells=(1, 8), dropped=(0.0, 0.1, 0.6), words=4, columns=128, seeds=2)
FULL = Config(cells=(1, 2, 4, 8, 16, 32), words=32, length=6, driven=40, columns=2048, seeds=20)


def grid(config: Config) -> Iterator[Point]:
    yield from product(
        cells=config.cells, dropped=config.dropped, seed=range(config.seeds), words=config.words, length=config.length,
        driven=config.driven, columns=config.columns, dtype="bool",
    )  # fmt: skip


def run(
    *, cells: int, dropped: float, seed: int, words: int, length: int, driven: int, columns: int, dtype: str
) -> list[Row]:
    assert dtype == "bool"
    random = np.random.default_rng(seed)
    config = htm.Config(columns=columns, cells=cells, driven=driven, seed=seed)
    letters = random.permuted(np.tile(np.arange(columns), (2 * words + length - 2, 1)), axis=1)[:, :driven]
    middle = np.arange(2 * words, len(letters))
    text = np.array([[word, *middle, words + word] for word in range(words)])
    segments = damaged(htm.learned(letters[text], config), random.random((columns, cells)) < dropped)
    ends, rows = letters[words : 2 * words], []
    for name, first in ((WHOLE, 0), (CUT, 1)):
        driving = letters[text[:, first:-1].T]
        read = np.any(driving[..., None] == np.arange(columns), axis=-2)
        arrays = {"columns": read, "theta": np.array(driven // 2 - 1), **segments}
        last = loop(htm.memory(arrays))[-1]
        cells_told = htm.Memory(theta=arrays["theta"], **segments).predicted(last)
        predicted: Array = np.any(cells_told, axis=-1)
        # An end is told where most of its columns are predicted.
        told = predicted[:, ends].mean(axis=-1) > 0.5
        rows.append(
            {
                "read": name,
                "status": "converged",
                "right": float((told == np.eye(words, dtype=bool)).all(axis=1).mean()),
                "told": float(told.sum(axis=1).mean()),
                "words": words,
            }
        )
    return rows


def damaged(segments: Any, gone: Array) -> dict[str, Array]:
    """Return the segments where some cells (columns, cells) neither predict nor are seen."""
    source, permanence = segments["source"], segments["permanence"]
    unseen = gone.reshape(-1)[source] | gone[..., None, None]
    return {"source": source, "permanence": np.where(unseen, 0.0, permanence)}


def _of(data: Dataset, name: str, read: str, cells: int) -> DataArray:
    return data[name].sel(read=read, cells=cells).transpose("dropped", "seed")


def facts(data: Dataset) -> dict[str, Any]:
    found: dict[str, Any] = {"dropped": [float(x) for x in data["dropped"].values], "words": int(data["words"].max())}
    found["cells"] = [int(n) for n in data["cells"].values]
    for cells in found["cells"]:
        for read in (WHOLE, CUT):
            for name in ("right", "told"):
                found[f"{read}.{cells}.{name}"] = [float(x) for x in _of(data, name, read, cells).mean("seed")]
    return found


def draw(pyplot: Any, data: Dataset) -> Any:
    figure, axes = pyplot.subplots(1, 2, figsize=(9.5, 3.4))
    cells = [int(n) for n in data["cells"].values]
    looks = series(f"{n} cell{'s' * (n > 1)} a column" for n in cells)
    x = 100 * data["dropped"].values
    for n, (name, look) in zip(cells, looks.items(), strict=True):
        band(axes[0], x, 100 * _of(data, "right", WHOLE, n), "seed", name, **look)
        band(axes[1], x, _of(data, "told", CUT, n), "seed", name, **look)
    axes[0].set(ylabel="ends told rightly, %", title=WHOLE)
    axes[1].set(ylabel="ends that are predicted", title=CUT, ylim=(-0.3, 1.12 * facts(data)["words"]))
    level(axes[1], facts(data)["words"], "all that were learned", "right")
    for ax in axes:
        ax.set_xlabel("cells dropped, %")
    outside_legend(figure, pyplot, looks.values())
    return figure


def says(data: Dataset) -> str:
    f = facts(data)
    few, most, i = f["cells"][0], f["cells"][-1], len(f["dropped"]) // 3
    few_right, most_right = (100 * f[f"{WHOLE}.{n}.right"][i] for n in (few, most))
    return (
        f"Memories bear the loss of cells if columns have many: with {100 * f['dropped'][i]:g}% dropped the end that "
        f"goes with the beginning, and no other, is predicted for {most_right:.0f}% of the words by {most} cells a "
        f"column, and for {few_right:.0f}% by {few}. One cell knows the letter before alone, and a few are shared by "
        "words, so that each cell that is lost lets in a wrong end."
    )


def tables(data: Dataset) -> list[Table]:
    f = facts(data)
    rows = [[str(n), *(f"{100 * x:.0f}" for x in f[f"{WHOLE}.{n}.right"])] for n in f["cells"]]
    return [
        Table("Ends told rightly, in %", ["cells a column", *(f"{100 * x:g}% dropped" for x in f["dropped"])], rows)
    ]


STUDY = study_of(
    __name__,
    name="htm_words",
    question="Which ends of words does a sequence memory predict, and how many of its cells can it lose?",
    dims=("read", "cells", "dropped", "seed"),
    pictures=(Picture("ends", draw, says),),
)

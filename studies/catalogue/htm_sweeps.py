"""HTM sequence memory (Cui, Ahmad and Hawkins, arXiv 1512.05463): what novelties do to sweeps of Jacobi's method."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from recsolve.base.arrays import Array
from recsolve.studies.compare.measure import loop, measured
from recsolve.studies.draw.drawing import band, converged
from recsolve.studies.draw.series import outside_legend, series
from recsolve.studies.registry import Picture, Table, study_of
from recsolve.studies.store.records import Point, Row, product
from recsolve.studies.systems.system import get

if TYPE_CHECKING:
    from xarray import DataArray, Dataset


@dataclass(frozen=True)
class Config:
    """Words of some lengths are read, ``T`` letters; a share of the letters are noise instead."""

    words: tuple[int, ...] = (5, 10, 20, 40)
    novel: tuple[float, ...] = (0.0, 0.02, 0.05, 0.1, 0.2, 0.4, 1.0)
    T: int = 400
    columns: int = 96
    seeds: int = 3


TINY = Config(words=(5, 20), novel=(0.0, 0.2, 1.0), T=100, columns=48, seeds=2)
FULL = Config(words=(5, 10, 20, 40, 80), T=2000, columns=256, seeds=10)


def grid(config: Config) -> Iterator[Point]:
    sizes = {"T": config.T, "columns": config.columns, "letters": config.columns // 6, "dtype": "bool"}
    yield from product(word=config.words, novel=config.novel, seed=range(config.seeds), **sizes)


def run(*, word: int, novel: float, T: int, seed: int, columns: int, letters: int, dtype: str) -> list[Row]:
    made = get("htm_memory")
    config = made.configured(
        length=T, batch=1, word=word, novel=novel, seed=seed, columns=columns, letters=letters, words=2
    )
    rec = made.make(made.draw(config))
    truth = loop(rec)
    bursts = truth.sum(axis=-1)[:, 0] == config.driven * config.cells  # all cells of all driven columns
    return [{**measured(rec, "jacobi", truth), "run": longest(~bursts)}]


def longest(kept: Array) -> int:
    """Return the length of the longest run of True, and the step before it."""
    ends = np.flatnonzero(np.concatenate([[True], ~kept, [True]]))
    return int(np.diff(ends).max())


def _at(data: Dataset, name: str, word: int) -> DataArray:
    """Return what was measured, by the share of noise and seed."""
    found: DataArray = converged(data, name).sel(word=word, solver="jacobi").isel(T=0).transpose("novel", "seed")
    return found


def facts(data: Dataset) -> dict[str, Any]:
    found: dict[str, Any] = {"T": int(data["T"][0]), "error": float(data["error"].max())}
    for word in map(int, data["word"].values):
        sweeps = _at(data, "iterations", word)
        found[f"{word}"] = [float(x) for x in sweeps.median("seed", skipna=False).values]
        found[f"{word}.over"] = float((sweeps - _at(data, "run", word)).max())  # more than the longest run
    return found


def draw(pyplot: Any, data: Dataset) -> Any:
    figure, ax = pyplot.subplots(figsize=(7.0, 3.4))
    words = [*map(int, data["word"].values)]
    looks = series([f"words of {word} letters" for word in words])
    x = 100 * data["novel"].values
    for word, (name, look) in zip(words, looks.items(), strict=True):
        band(ax, x, _at(data, "iterations", word), "seed", name, **look)
    ax.set_xscale("symlog", linthresh=1, linscale=0.4)
    ax.set(xlabel="letters that are noise, in %", ylabel="sweeps", xlim=(-0.4, 120), ylim=(-0.5, None))
    ticks = [value for value in x if value]
    ax.set_xticks([0, *ticks], ["0", *(f"{value:g}" for value in ticks)])
    ax.minorticks_off()
    outside_legend(figure, pyplot, looks.values())
    return figure


def says(data: Dataset) -> str:
    f = facts(data)
    words = [*map(int, data["word"].values)]
    short, long = f[str(words[0])], f[str(words[-1])]
    over = max(f[f"{word}.over"] for word in words)
    beyond = "no solve takes more than" if over <= 0 else f"a solve takes up to {over:.0f} more than"
    noise = " Noise makes short words of long ones, and so shortens it." if long[-1] < long[0] else ""
    return (
        f"Sweeps follow the words: without noise {short[0]:.0f} make every bit that of the loop for words of "
        f"{words[0]} letters, and {long[0]:.0f} for words of {words[-1]}. Where all cells of all driven columns fire, "
        f"the past is forgotten: {beyond} the longest run of steps without that.{noise}"
    )


def tables(data: Dataset) -> list[Table]:
    f = facts(data)
    head = ["letters of a word", *(f"{100 * float(share):g}%" for share in data["novel"].values)]
    rows = [[str(word), *(f"{x:.0f}" for x in f[str(word)])] for word in map(int, data["word"].values)]
    return [Table("Median sweeps by noise", head, rows)]


STUDY = study_of(
    __name__,
    name="htm",
    question="How many sweeps does a sequence memory of bools take, by the length of what it knows and by novelties?",
    dims=("word", "novel", "T", "seed", "solver"),
    pictures=(Picture("sweeps", draw, says),),
)

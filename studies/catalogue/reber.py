"""Pruning and accuracy (Darji, arXiv 2407.20601): the letters that Reber's grammar allows next, read off pruned cells.

Nothing is trained but a linear readout. The grammar needs the last letters; embedded in branches that end with the
letter they began with, it needs that letter as well, which is asked for there.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

import recsolve as rs
from recsolve.base.arrays import Array
from recsolve.studies.draw.drawing import band, span
from recsolve.studies.draw.series import level, outside_legend, series
from recsolve.studies.registry import Picture, Table, study_of
from recsolve.studies.store.records import Point, Row, product
from recsolve.studies.systems import sparse
from recsolve.studies.systems.system import get

if TYPE_CHECKING:
    from xarray import DataArray, Dataset

LETTERS = "BTPSXVE"
# The letters that each state allows, and where they lead; a new word begins after the last state.
GRAMMAR = (("B", 1),), (("T", 2), ("P", 3)), (("S", 2), ("X", 4)), (("T", 3), ("V", 5)), (("X", 3), ("S", 6)), (
    ("P", 4), ("V", 6),
), (("E", 0),)  # fmt: skip
SIMPLE, EMBEDDED = "last letters", "letter before the word"
INPUT, RECURRENT, BOTH = "input", "recurrent", "both"
TOLERATED = 0.6  # of the weights, as published, with an epoch of training after it


@dataclass(frozen=True)
class Config:
    """Shares of the input and of the recurrent weights that are ``pruned``; ``T`` letters to fit and ``T`` to test."""

    cells: tuple[str, ...] = ("tanh", "relu", "gru", "lstm")
    pruned: tuple[float, ...] = (0.0, 0.6, 0.8, 0.9, 0.95, 1.0)
    T: int = 1500
    units: int = 32
    gain: float = 0.9
    seeds: int = 2


TINY = Config(cells=("tanh", "gru"), pruned=(0.0, 0.6, 1.0), T=600, units=24)
FULL = Config(pruned=tuple(round(0.05 * k, 2) for k in range(21)), T=20_000, units=128, seeds=10)


def grid(config: Config) -> Iterator[Point]:
    yield from product(
        text=(SIMPLE, EMBEDDED), cell=config.cells, where=(INPUT, RECURRENT, BOTH), pruned=config.pruned,
        seed=range(config.seeds), T=config.T, units=config.units, gain=config.gain, dtype="float64",
    )  # fmt: skip


def run(
    *, text: str, cell: str, where: str, pruned: float, seed: int, T: int, units: int, gain: float, dtype: str
) -> list[Row]:
    letters, allowed, asked = written(text, 2 * T, seed)
    x = np.eye(len(LETTERS), dtype=dtype)[letters]
    rec = get(f"sparse_{cell}").make(weights(x, where, pruned, units, gain, seed, dtype))
    h = rs.solve(rec, method="sequential").states.reshape(2 * T, -1)[:, :units]
    fit = asked & (np.arange(2 * T) < T)
    return [
        {
            "status": "converged",
            "right": judged(h, allowed, fit, asked & ~fit),
            "by_one_letter": judged(x, allowed, fit, asked & ~fit),
        }
    ]


def written(text: str, T: int, seed: int) -> tuple[Array, Array, Array]:
    """Return letters (T,), which may come after each (T, 7), and where it is asked for."""
    random, letters, allowed, asked = np.random.default_rng(seed), "", [], []

    def add(letter: str, after: str, ask: bool) -> None:
        nonlocal letters
        letters += letter
        allowed.append([one in after for one in LETTERS])
        asked.append(ask)

    while len(letters) < T:
        branch = "TP"[random.integers(2)]
        if text == EMBEDDED:
            add(branch, "B", ask=False)
        state = 0
        for _ in range(T):
            letter, state = GRAMMAR[state][random.integers(len(GRAMMAR[state]))]
            ended = state == 0
            after = branch if ended else "".join(one for one, _ in GRAMMAR[state])
            add(letter, "B" if ended and text == SIMPLE else after, ask=text == SIMPLE or ended)
            if ended:
                break
        if text == EMBEDDED:
            add(branch, "TP", ask=False)
    return np.array([*map(LETTERS.index, letters[:T])]), np.array(allowed[:T]), np.array(asked[:T])


def weights(x: Array, where: str, pruned: float, units: int, gain: float, seed: int, dtype: str) -> dict[str, Array]:
    """Return the arrays of a system whose smallest weights are 0; letters come in with a deviation of 1."""
    config = sparse.Config(
        length=len(x), batch=1, inputs=len(LETTERS), units=units, gain=gain, seed=seed, dtype=dtype,
        pruned=0.0 if where == INPUT else pruned,
    )  # fmt: skip
    arrays = {**sparse.draw(config), "x": x[:, None]}
    U = arrays["U"] * len(LETTERS) ** 0.5
    kept = abs(U) > np.quantile(abs(U), 0.0 if where == RECURRENT else pruned)
    return {**arrays, "U": np.where(kept, U, 0)}


def judged(features: Array, allowed: Array, fit: Array, test: Array) -> float:
    """Return in which share of the steps a linear readout tells exactly what is allowed."""
    X = np.concatenate([features, np.ones_like(features[:, :1])], axis=-1)
    readout = np.linalg.solve(X[fit].T @ X[fit] + 1e-3 * np.eye(X.shape[1]), X[fit].T @ allowed[fit])
    return float((((X[test] @ readout) > 0.5) == allowed[test]).all(axis=-1).mean())


def _right(data: Dataset, text: str, cell: str, where: str) -> DataArray:
    return data["right"].sel(text=text, cell=cell, where=where).transpose("pruned", "seed")


def facts(data: Dataset) -> dict[str, Any]:
    cells, pruned = [str(cell) for cell in data["cell"].values], data["pruned"].values
    found: dict[str, Any] = {"cells": cells, "pruned": [float(x) for x in pruned]}
    for text in (SIMPLE, EMBEDDED):
        found[f"{text}.letter"] = float(data["by_one_letter"].sel(text=text).mean())
        for cell in cells:
            for where in (INPUT, RECURRENT, BOTH):
                right = _right(data, text, cell, where).mean("seed").values
                found[f"{text}.{cell}.{where}"] = [float(x) for x in right]
                kept = pruned[right >= right[0] - 0.02]  # as good as whole, but for two hundredths
                found[f"{text}.{cell}.{where}.up_to"] = float(kept.max())
    return found


def draw(pyplot: Any, data: Dataset) -> Any:
    figure, axes = pyplot.subplots(2, 3, figsize=(10.5, 5.6), sharex=True, sharey=True)
    looks, f = series(map(str, data["cell"].values)), facts(data)
    for row, text in zip(axes, (SIMPLE, EMBEDDED), strict=True):
        for ax, where in zip(row, (INPUT, RECURRENT, BOTH), strict=True):
            for cell, look in looks.items():
                band(ax, 100 * data["pruned"].values, 100 * _right(data, text, cell, where), "seed", cell, **look)
            level(ax, 100 * f[f"{text}.letter"], "from the letter alone", "left")
        row[0].set_ylabel(f"{text}:\nright, %")
    for ax, where in zip(axes[0], (INPUT, RECURRENT, BOTH), strict=True):
        ax.set_title({BOTH: "input and recurrent weights"}.get(where, f"{where} weights"))
    for ax in axes[1]:
        ax.set_xlabel("pruned, %")
    outside_legend(figure, pyplot, looks.values())
    return figure


def says(data: Dataset) -> str:
    f = facts(data)
    kept = span(100 * f[f"{SIMPLE}.{cell}.{where}.up_to"] for cell in f["cells"] for where in (INPUT, RECURRENT, BOTH))
    return (
        f"Weights can go without any training: what the grammar allows is told as well as by whole cells, but for two "
        f"hundredths, with up to {kept}% pruned, by cell and place (published: more than {TOLERATED:.0%}, and an epoch "
        "of training). Gates keep the state of their own unit, even without any recurrent weights."
    )


def tables(data: Dataset) -> list[Table]:
    f = facts(data)
    return [
        Table(
            f"Right in %: {text}",
            ["cell", "pruned weights", *(f"{100 * x:g}%" for x in f["pruned"])],
            [
                [cell, where, *(f"{100 * x:.0f}" for x in f[f"{text}.{cell}.{where}"])]
                for cell in f["cells"]
                for where in (INPUT, RECURRENT, BOTH)
            ],
        )
        for text in (SIMPLE, EMBEDDED)
    ]


STUDY = study_of(
    __name__,
    name="reber",
    question="How many weights can be pruned before a grammar is no longer known?",
    dims=("text", "cell", "where", "pruned", "seed"),
    pictures=(Picture("pruned", draw, says),),
)

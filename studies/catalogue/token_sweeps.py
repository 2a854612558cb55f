"""Parallel text generation (families: Zhang et al., arXiv 2508.08712): sweeps to the loop's tokens, and tokens lost."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

import numpy as np

import recsolve as rs
from recsolve.studies.compare.measure import loop, measured
from recsolve.studies.draw.drawing import band, converged, powers_of_two
from recsolve.studies.draw.series import outside_legend, series
from recsolve.studies.registry import Picture, Table, study_of
from recsolve.studies.store.records import Point, Row, product
from recsolve.studies.systems.system import get
from recsolve.studies.systems.tokens import Transformer, committed

if TYPE_CHECKING:
    from xarray import DataArray, Dataset

SWEEPS, COMMITTED = "sweeps", "committed"  # the two kinds of points
EXACT = 1.0  # the threshold from which on nothing is committed early
_AS_MANY = {"color": "0.5", "linewidth": 0.8, "linestyle": ":", "label": "T"}


@dataclass(frozen=True)
class Config:
    """``memories`` m of n-gram models, which see m tokens; ``thresholds`` from which on a token is kept."""

    lengths: tuple[int, ...] = (64, 256, 1024)
    memories: tuple[int, ...] = (1, 2, 4)
    sharpness: tuple[float, ...] = (0.5, 1.0, 2.0, 4.0)
    thresholds: tuple[float, ...] = (0.0, 0.25, 0.5, 0.75, 0.9, 0.97, EXACT)
    longest: int = 128
    seeds: int = 3


TINY = Config(
    lengths=(16, 64), memories=(1, 3), sharpness=(0.5, 4.0), thresholds=(0.0, 0.5, EXACT), longest=24, seeds=2
)
FULL = Config(lengths=(64, 256, 1024, 4096), memories=(1, 2, 3, 4, 5), longest=256, seeds=10)


def grid(config: Config) -> Iterator[Point]:
    for shared in product(seed=range(config.seeds), sharpness=config.sharpness, dtype="int64"):
        yield from product(kind=SWEEPS, T=config.lengths, memory=config.memories, threshold=EXACT, **shared)
        yield from product(kind=COMMITTED, T=config.longest, memory=0, threshold=config.thresholds, **shared)


def run(*, kind: str, T: int, memory: int, threshold: float, sharpness: float, seed: int, dtype: str) -> list[Row]:
    assert dtype == "int64"
    if kind == SWEEPS:
        rec = get("tokens_ngram").build(length=T, memory=memory, sharpness=sharpness, seed=seed)
        return [measured(rec, "jacobi", loop(rec).astype(float))]
    system = get("tokens_transformer")
    arrays = system.draw(replace(system.config, length=T, sharpness=sharpness, seed=seed))
    truth = rs.solve(system.build(arrays), method="sequential").states
    model = Transformer(arrays["E"], arrays["QKV"], arrays["R"])
    y, passes = committed(model, arrays["noise"], threshold, np.zeros_like(truth))
    return [{"status": "converged", "iterations": passes, "error": float((y != truth).mean())}]


def _counts(data: Dataset, sharpness: float, memory: int) -> DataArray:
    part = data.sel(kind=SWEEPS, threshold=EXACT, sharpness=sharpness, memory=memory)
    return converged(part, "iterations").dropna("T", how="all")


def _lost(data: Dataset, sharpness: float) -> tuple[Any, Any, Any]:
    """Return by threshold the passes over T, the share of tokens that are others than the loop's, and thresholds."""
    part = data.sel(kind=COMMITTED, memory=0, sharpness=sharpness).dropna("T", how="all")
    passes = (part["iterations"] / part["T"]).mean(["seed", "T"])
    return passes.values, part["error"].mean(["seed", "T"]).values, part["threshold"].values


def _memories(data: Dataset) -> list[int]:
    return [int(m) for m in data["memory"].values if m]


def facts(data: Dataset) -> dict[str, Any]:
    found: dict[str, Any] = {}
    for sharpness in data["sharpness"].values:
        for memory in _memories(data):
            counts = _counts(data, sharpness, memory).median("seed", skipna=False)
            T = counts["T"].values
            found |= {f"{sharpness:g}.{memory}": [float(x) for x in counts.values], "T": [int(t) for t in T]}
        passes, error, thresholds = _lost(data, sharpness)
        found[f"{sharpness:g}.lost"] = dict(zip(map(float, thresholds), map(float, error), strict=True))
        found[f"{sharpness:g}.passes"] = dict(zip(map(float, thresholds), map(float, passes), strict=True))
    return found


def draw_sweeps(pyplot: Any, data: Dataset) -> Any:
    sharpness = data["sharpness"].values
    figure, axes = pyplot.subplots(1, len(sharpness), figsize=(11.5, 3.2), sharey=True, squeeze=False)
    looks = series(f"{m} token{'s' * (m > 1)} seen" for m in _memories(data))
    for ax, value in zip(axes[0], sharpness, strict=True):
        for look, memory in zip(looks.values(), _memories(data), strict=True):
            counts = _counts(data, value, memory)
            band(ax, counts["T"].values, counts, "seed", "jacobi", **look)
        T = counts["T"].values
        ax.plot(T, T, **_AS_MANY)
        ax.set(xscale="log", yscale="log", title=f"sharpness {value:g}", xlabel="T")
        powers_of_two(ax.xaxis, [float(t) for t in T])
    axes[0][0].set_ylabel("sweeps")
    outside_legend(figure, pyplot, [*looks.values(), _AS_MANY])
    return figure


def says_sweeps(data: Dataset) -> str:
    f = facts(data)
    low, high = (f"{x:g}" for x in (data["sharpness"].values.min(), data["sharpness"].values.max()))
    few, many = min(_memories(data)), max(_memories(data))
    return (
        f"Sweeps count how long a wrong token is remembered: at T = {f['T'][-1]} "
        f"{f[f'{low}.{few}'][-1]:.0f} are enough where noise decides and one token is seen, and "
        f"{f[f'{high}.{many}'][-1]:.0f} are needed where the model decides and sees {many}. Length alone costs few as "
        "long as mistakes are forgotten."
    )


def draw_lost(pyplot: Any, data: Dataset) -> Any:
    figure, ax = pyplot.subplots(figsize=(6.6, 3.6))
    looks = series(f"sharpness {value:g}" for value in data["sharpness"].values)
    for look, value in zip(looks.values(), data["sharpness"].values, strict=True):
        passes, error, _ = _lost(data, value)
        ax.plot(passes, error, **look)
    ax.set(xlabel="passes / T", ylabel="share of tokens that are not the loop's", xscale="log")
    outside_legend(figure, pyplot, looks.values())
    return figure


def says_lost(data: Dataset) -> str:
    f, thresholds = facts(data), [float(x) for x in data["threshold"].values]
    middle = min((x for x in thresholds if x >= 0.5), default=EXACT)
    names = [f"{s:g}" for s in data["sharpness"].values]
    worst = max(names, key=lambda name: f[f"{name}.lost"][middle])
    exact = max(f[f"{name}.lost"][EXACT] for name in names)
    return (
        f"To be sure is not to be right: a transformer whose tokens are kept once their probability passes "
        f"{middle:g} loses up to {100 * f[f'{worst}.lost'][middle]:.0f} % of them, in "
        f"{100 * f[f'{worst}.passes'][middle]:.0f} % of the passes, since what a token depends on may still be wrong. "
        f"With none kept before its turn (right) {100 * exact:.0f} % differ."
    )


def tables(data: Dataset) -> list[Table]:
    f = facts(data)
    rows = [
        [f"{s:g}", str(m), *(f"{x:.0f}" for x in f[f"{s:g}.{m}"])]
        for s in data["sharpness"].values
        for m in _memories(data)
    ]
    return [Table("Median sweeps", ["sharpness", "memory", *(f"T = {T}" for T in f["T"])], rows)]


STUDY = study_of(
    __name__,
    name="token_sweeps",
    question="How many sweeps does parallel text generation take, and what is lost by committing early?",
    dims=("kind", "T", "memory", "threshold", "sharpness", "seed"),
    pictures=(Picture("sweeps", draw_sweeps, says_sweeps), Picture("lost", draw_lost, says_lost)),
)

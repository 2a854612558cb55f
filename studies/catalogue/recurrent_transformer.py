"""Recurrent Transformer (Oncescu et al., arXiv 2604.21215): how many parallel layers make one recurrent layer."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

import numpy as np

from recsolve.studies.compare.measure import loop, measured
from recsolve.studies.draw.drawing import band, converged, held, powers_of_two
from recsolve.studies.draw.series import outside_legend, series
from recsolve.studies.registry import Picture, Table, study_of
from recsolve.studies.store.records import Point, Row, product
from recsolve.studies.systems.system import get

if TYPE_CHECKING:
    from xarray import DataArray, Dataset

_SMALLEST = 1e-17  # where exact zeros are drawn
_AS_MANY = {"color": "0.5", "linewidth": 0.8, "linestyle": ":", "label": "T"}


@dataclass(frozen=True)
class Config:
    """``gains`` of all weights."""

    gains: tuple[float, ...] = (0.5, 1.0, 2.0, 4.0)
    lengths: tuple[int, ...] = (16, 32, 64, 128, 256)
    width: int = 8
    seeds: int = 3


TINY = Config(gains=(0.5, 2.0), lengths=(12, 24), seeds=2)
FULL = Config(gains=(0.25, 0.5, 1.0, 2.0, 4.0, 8.0), lengths=(32, 64, 128, 256, 512, 1024), width=32, seeds=10)


def grid(config: Config) -> Iterator[Point]:
    yield from product(
        gain=config.gains, T=config.lengths, width=config.width, seed=range(config.seeds), dtype="float64"
    )


def run(*, gain: float, T: int, width: int, seed: int, dtype: str) -> list[Row]:
    system = get("recurrent_transformer")
    arrays = system.draw(replace(system.config, gain=gain, length=T, width=width, seed=seed, dtype=dtype))
    rec = system.build(arrays)
    truth = loop(rec)
    row = measured(rec, "jacobi", truth, guess=arrays["x"], curves=True)
    size = float(np.abs(truth).max())
    return [{**row, "error": row["error"] / size, "errors": [x / size for x in row["errors"]]}]


def _counts(data: Dataset, gain: float) -> DataArray:
    return converged(data, "iterations").sel(gain=gain).squeeze("width")


def facts(data: Dataset) -> dict[str, Any]:
    found: dict[str, Any] = {"T": [int(t) for t in data["T"].values]}
    for gain in data["gain"].values:
        counts = _counts(data, gain).median("seed", skipna=False)
        errors = data["errors"].sel(gain=gain).isel(T=-1).squeeze("width")
        found[f"{gain:g}.counts"] = [float(x) for x in counts.transpose("T").values]
        found[f"{gain:g}.ordinary"] = float(errors.isel(iteration=1).median())  # after one sweep
    found["worst_error"] = float(data["error"].max())
    return found


def draw(pyplot: Any, data: Dataset) -> Any:
    figure, axes = pyplot.subplots(1, 2, figsize=(10, 3.6))
    looks, T = series(f"gain {gain:g}" for gain in data["gain"].values), data["T"].values
    for look, gain in zip(looks.values(), data["gain"].values, strict=True):
        curves = held(data["errors"].sel(gain=gain).isel(T=-1).squeeze("width").transpose("seed", "iteration").values)
        middle = np.median(np.maximum(curves, _SMALLEST), axis=0)
        axes[0].plot(np.arange(len(middle)), middle, **look, markevery=max(len(middle) // 10, 1))
        counts = _counts(data, gain)
        band(axes[1], T, counts, "seed", "jacobi", **look)
    axes[1].plot(T, T, **_AS_MANY)
    axes[0].set(yscale="log", xlabel=f"sweeps, T = {T[-1]}", ylabel="error / largest output")
    axes[1].set(xscale="log", yscale="log", xlabel="T", ylabel="sweeps")
    powers_of_two(axes[1].xaxis, [float(t) for t in T])
    outside_legend(figure, pyplot, [*looks.values(), _AS_MANY])
    return figure


def says(data: Dataset) -> str:
    f = facts(data)
    parts = [
        f"{f[f'{g:g}.counts'][0]:.0f} to {f[f'{g:g}.counts'][-1]:.0f} at gain {g:g}, where the ordinary layer is off "
        f"by {100 * f[f'{g:g}.ordinary']:.0f} %"
        for g in data["gain"].values
    ]
    return (
        f"Sweeps from T = {f['T'][0]} to {f['T'][-1]}: {'; '.join(parts)} of the largest output. The first sweep is "
        "the ordinary Transformer layer; each one costs as much. At the end errors are at most "
        f"{f['worst_error']:.0e} of it."
    )


def tables(data: Dataset) -> list[Table]:
    f = facts(data)
    rows = [[f"{g:g}", *(f"{x:.0f}" for x in f[f"{g:g}.counts"])] for g in data["gain"].values]
    return [Table("Median sweeps", ["gain", *(f"T = {T}" for T in f["T"])], rows)]


STUDY = study_of(
    __name__,
    name="recurrent_transformer",
    question="How many parallel layers does one layer take that attends to its own outputs?",
    dims=("gain", "T", "width", "seed"),
    curves={"errors": ("iteration",), "residuals": ("iteration",)},
    pictures=(Picture("sweeps", draw, says),),
)

"""Mamba (Gu and Dao, arXiv 2312.00752): recall of values among noise, with coefficients that see the input or not.

Closed-form weights: nothing is trained but the linear readout of the last state.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from recsolve.base.arrays import Array
from recsolve.studies.compare.measure import loop, measured
from recsolve.studies.draw.drawing import band, converged, powers_of_two
from recsolve.studies.draw.series import outside_legend, series
from recsolve.studies.registry import Picture, Table, study_of
from recsolve.studies.store.records import Point, Row, product
from recsolve.studies.systems import mamba

if TYPE_CHECKING:
    from xarray import DataArray, Dataset

FIXED, WRITES, STEPS = "nothing selected (LTI)", "B = 0 at noise", "Delta = 0 at noise"
WAYS = (FIXED, WRITES, STEPS)
SOLVERS = ("newton", "jacobi")


@dataclass(frozen=True)
class Config:
    """``values`` numbers at random places, ``noise`` times as many others; the last ``asked`` are to be recalled.

    Where no step is skipped, the best of the ``scales`` times Delta counts; sweeps are those with Delta itself.
    """

    values: int = 64
    asked: int = 4
    noise: tuple[int, ...] = (0, 1, 3, 7, 15)
    states: int = 8
    delta: float = 0.25
    scales: tuple[float, ...] = (1.0, 0.3, 0.1)
    sequences: int = 200
    seeds: int = 3


TINY = Config(values=48, asked=2, noise=(0, 1, 7), states=4, delta=0.8, scales=(1.0, 0.3), sequences=60, seeds=2)
FULL = Config(values=64, noise=(0, 1, 3, 7, 15, 31, 63, 127), states=16, sequences=400, seeds=10)


def grid(config: Config) -> Iterator[Point]:
    yield from product(
        way=WAYS, noise=config.noise, seed=range(config.seeds), values=config.values, asked=config.asked,
        states=config.states, delta=config.delta, scales=[*config.scales], sequences=config.sequences, dtype="float64",
    )  # fmt: skip


def run(
    *,
    way: str,
    noise: int,
    seed: int,
    values: int,
    asked: int,
    states: int,
    delta: float,
    scales: list[float],
    sequences: int,
    dtype: str,
) -> list[Row]:
    x, told, truth = task(values, noise, 2 * sequences, seed, dtype)
    errors = []
    for scale in scales[:1] if way == STEPS else scales:
        h = mamba.scan(mamba.make(coefficients(way, x, told, states, scale * delta)))[-1]
        errors.append(missed(h, truth[-asked:].T, sequences))
    rec = mamba.make(coefficients(way, x[:, :4], told[:, :4], states, delta))
    states_of_loop = loop(rec)
    rows = [measured(rec, solver, states_of_loop) for solver in SOLVERS]
    return [{"missed": min(errors), **row} for row in rows]


def task(values: int, noise: int, batch: int, seed: int, dtype: str) -> tuple[Array, Array, Array]:
    """Return what is read, (T, batch), where it is a value, and the values (values, batch) in order."""
    random = np.random.default_rng(seed)
    T = values * (1 + noise)
    told = random.permuted(np.arange(T)[:, None] < np.full(batch, values), axis=0)
    x = random.standard_normal((T, batch)).astype(dtype)
    return x, told, x.T[told.T].reshape(batch, values).T


def coefficients(way: str, x: Array, told: Array, states: int, delta: float) -> dict[str, Array]:
    """Return the arrays of the system: one channel of states that decay at rates 1, 2, ... times Delta."""
    steps = np.where(told, delta, 0.0) if way == STEPS else np.full(x.shape, delta)
    writes = np.where(told, 1.0, 0.0) if way == WRITES else np.ones(x.shape)
    return {
        "x": x[..., None],
        "delta": steps[..., None].astype(x.dtype),
        "B": np.repeat(writes[..., None], states, axis=-1).astype(x.dtype),
        "A": -np.arange(1, states + 1, dtype=x.dtype)[None],
    }


def missed(h: Array, asked: Array, fit: int) -> float:
    """Return the error of the best linear readout on sequences after the first ``fit``, over the values' deviation."""
    weights = np.linalg.lstsq(h[:fit], asked[:fit])[0]
    return float(np.sqrt(((h[fit:] @ weights - asked[fit:]) ** 2).mean() / (asked[fit:] ** 2).mean()))


def _of(data: Dataset, name: str, way: str, solver: str) -> DataArray:
    return converged(data, name).sel(way=way, solver=solver).transpose("noise", "seed")


def facts(data: Dataset) -> dict[str, Any]:
    found: dict[str, Any] = {"noise": [int(n) for n in data["noise"].values]}
    for way in WAYS:
        found[way] = [float(x) for x in _of(data, "missed", way, "newton").median("seed")]
        for solver in SOLVERS:
            counts = _of(data, "iterations", way, solver).median("seed", skipna=False)
            found[f"{way}.{solver}"] = [float(x) for x in counts]
    found["error"] = float(data["error"].max())
    return found


def draw(pyplot: Any, data: Dataset) -> Any:
    figure, axes = pyplot.subplots(1, 2, figsize=(10, 3.4))
    looks, x = series(WAYS), 1 + data["noise"].values
    for way, look in looks.items():
        band(axes[0], x, _of(data, "missed", way, "newton"), "seed", way, **look)
        band(axes[1], x, _of(data, "iterations", way, "jacobi"), "seed", way, **look)
    for ax in axes:
        ax.set(xscale="log", yscale="log", xlabel="tokens read for each value")
        powers_of_two(ax.xaxis, x)
    axes[0].set(ylabel="error of recall over deviation")
    axes[1].set(ylabel="sweeps of Jacobi")
    outside_legend(figure, pyplot, looks.values())
    return figure


def says(data: Dataset) -> str:
    f = facts(data)
    return (
        f"To step over noise keeps recall as it is: with {f['noise'][-1]} tokens of noise for each value the error of "
        f"the last values, over their deviation, is {f[STEPS][-1]:.2f} where noise is stepped over, and "
        f"{f[FIXED][-1]:.2f} where nothing is selected. Jacobi has to carry what is remembered, and takes "
        f"{f[f'{STEPS}.jacobi'][-1]:.0f} sweeps; Newton takes {max(f[f'{STEPS}.newton']):.0f}."
    )


def tables(data: Dataset) -> list[Table]:
    f = facts(data)
    rows = [[way, *(f"{x:.2g}" for x in f[way])] for way in WAYS]
    return [Table("Error of recall by noise", ["way", *map(str, f["noise"])], rows)]


STUDY = study_of(
    __name__,
    name="selectivity",
    question="What does it gain to step over noise, and what does that cost solvers?",
    dims=("way", "noise", "seed", "solver"),
    pictures=(Picture("recall", draw, says),),
)

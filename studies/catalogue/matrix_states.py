"""M2RNN (Mishra et al., arXiv 2603.14360): iterations against the number of rows of the matrix that is the state."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from recsolve.studies.compare.measure import loop, measured
from recsolve.studies.draw.drawing import converged, family, powers_of_two, times
from recsolve.studies.draw.series import outside_legend, series
from recsolve.studies.registry import Picture, Table, study_of
from recsolve.studies.store.records import Point, Row, product
from recsolve.studies.systems.system import get

if TYPE_CHECKING:
    from xarray import Dataset

SOLVERS = ("newton", "quasi_newton")


@dataclass(frozen=True)
class Config:
    """W is I and noise, of which rows have a norm of about ``noise``; training begins at 0."""

    rows: tuple[int, ...] = (1, 4, 16, 64)
    noises: tuple[float, ...] = (0.0, 0.3, 1.0)
    T: int = 256
    width: int = 8
    seeds: int = 3


TINY = Config(rows=(1, 8), noises=(0.0, 1.0), T=40, width=4, seeds=2)
FULL = Config(rows=tuple(2**k for k in range(9)), noises=(0.0, 0.1, 0.3, 1.0), T=1024, width=16, seeds=10)


def grid(config: Config) -> Iterator[Point]:
    return product(
        K=config.rows, noise=config.noises, seed=range(config.seeds), T=config.T, width=config.width, dtype="float64"
    )


def run(*, K: int, noise: float, seed: int, T: int, width: int, dtype: str) -> list[Row]:
    rec = get("m2rnn").build(length=T, heads=1, rows=K, width=width, noise=noise, seed=seed, dtype=dtype)
    truth = loop(rec)
    return [measured(rec, solver, truth) for solver in SOLVERS]


def facts(data: Dataset) -> dict[str, Any]:
    found: dict[str, Any] = {"rows": [int(data["K"].min()), int(data["K"].max())]}
    for solver in SOLVERS:
        counts = converged(data, "iterations").sel(solver=solver).median("seed", skipna=False)
        for noise in data["noise"].values:
            few, many = counts.sel(noise=noise).isel(K=[0, -1]).values
            found[f"{solver}.{noise:g}"] = [float(few), float(many)]
    first = converged(data, "iterations").sel(noise=data["noise"].values.min())
    found["same_at_first"] = bool((first.sel(solver="newton") == first.sel(solver="quasi_newton")).all())
    return found


def draw(pyplot: Any, data: Dataset) -> Any:
    figure, axes = pyplot.subplots(1, len(SOLVERS), figsize=(8, 3.2), sharey=True)
    noises = {f"W = I + {noise:g} x noise": float(noise) for noise in data["noise"].values}
    looks = {noises[label]: look for label, look in series(noises).items()}
    for ax, solver in zip(axes, SOLVERS, strict=True):
        family(ax, converged(data, "iterations").sel(solver=solver), "K", "noise", looks)
        ax.set(xscale="log", yscale="log", title=solver, xlabel="rows K of the state")
        powers_of_two(ax.xaxis, data["K"].values)
    axes[0].set_ylabel("iterations")
    outside_legend(figure, pyplot, looks.values())
    return figure


def says(data: Dataset) -> str:
    f, noises = facts(data), [f"{noise:g}" for noise in data["noise"].values]
    hardest = max(float(np.divide(*f[f"newton.{n}"][::-1])) for n in noises)
    few, many = f[f"quasi_newton.{noises[-1]}"]
    return (
        "Iterations are those of the hardest row, and grow as the maximum of more rows does, not as the state: with "
        f"{f['rows'][1] // f['rows'][0]} times the rows Newton's median is at most {times(hardest)}. Quasi-Newton "
        f"takes {'the same' if f['same_at_first'] else 'other'} iterations at W = I, where the Jacobian is diagonal, "
        f"and goes from {few:.0f} to {many:.0f} at the most noise."
    )


def tables(data: Dataset) -> list[Table]:
    f, noises = facts(data), [f"{noise:g}" for noise in data["noise"].values]
    rows = [[n, s, *(f"{x:.0f}" for x in f[f"{s}.{n}"])] for n in noises for s in SOLVERS]
    return [Table("Median iterations", ["noise of W", "solver", *(f"{K} rows" for K in f["rows"])], rows)]


STUDY = study_of(
    __name__,
    name="matrix_states",
    question="Do iterations grow with the number of rows of a state that is a matrix?",
    dims=("K", "noise", "seed", "solver"),
    pictures=(Picture("rows", draw, says),),
)

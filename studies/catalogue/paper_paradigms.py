"""Sampling of a diffusion model in parallel (Shih et al., arXiv 2305.16317): Picard's method, and others, by steps."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from recsolve.studies.compare.measure import loop, measured
from recsolve.studies.draw.drawing import band, converged, listed, powers_of_two
from recsolve.studies.draw.series import outside_legend
from recsolve.studies.draw.style import line_arguments
from recsolve.studies.registry import Picture, Table, study_of
from recsolve.studies.store.records import Point, Row, product
from recsolve.studies.systems.system import get

if TYPE_CHECKING:
    from xarray import DataArray, Dataset

SAMPLERS = {"DDIM": 0.0, "DDPM": 1.0}
LOOSE, LOOSE_TOL = "picard, loose", 1e-2
SOLVERS = ("newton", "quasi_newton", "picard", LOOSE, "jacobi")


@dataclass(frozen=True)
class Config:
    """Samplers of ``lengths`` steps; ``batch`` samples of ``units`` numbers each, from ``modes`` Gaussians."""

    lengths: tuple[int, ...] = (32, 64, 128, 256, 512)
    samplers: tuple[str, ...] = (*SAMPLERS,)
    batch: int = 4
    units: int = 4
    modes: int = 5
    seeds: int = 3


TINY = Config(lengths=(16, 64), seeds=2, batch=2)
FULL = Config(lengths=(32, 64, 128, 256, 512, 1024, 2048), batch=16, units=16, modes=10, seeds=10)


def grid(config: Config) -> Iterator[Point]:
    sizes = {"batch": config.batch, "units": config.units, "modes": config.modes, "dtype": "float64"}
    yield from product(cell=config.samplers, T=config.lengths, seed=range(config.seeds), **sizes)


def run(*, cell: str, T: int, seed: int, **sizes: Any) -> list[Row]:
    rec = get("diffusion").build(length=T, eta=SAMPLERS[cell], seed=seed, **sizes)
    truth = loop(rec)
    spread = float(np.abs(truth).max())
    rows = [measured(rec, solver, truth) for solver in SOLVERS if solver != LOOSE]
    rows.append(measured(rec, "picard", truth, name=LOOSE, tol=LOOSE_TOL))
    return [{**row, "relative": row.get("error", np.nan) / spread} for row in rows]


def _counts(data: Dataset, cell: str, solver: str) -> DataArray:
    """Return iterations by length and seed."""
    found: DataArray = converged(data, "iterations").sel(cell=cell, solver=solver).transpose("T", "seed")
    return found


def facts(data: Dataset) -> dict[str, Any]:
    found: dict[str, Any] = {"T": [int(data["T"].min()), int(data["T"].max())]}
    for cell in map(str, data["cell"].values):
        for solver in SOLVERS:
            middle = _counts(data, cell, solver).median("seed", skipna=False).values
            found[f"{cell}.{solver}"] = [float(middle[0]), float(middle[-1])]
        found[f"{cell}.loose"] = float(data["relative"].sel(cell=cell, solver=LOOSE).max())
    return found


def _looks() -> dict[str, dict[str, Any]]:
    alike = {LOOSE: "anderson"}  # a look of its own
    return {name: {**line_arguments(alike.get(name, name)), "label": name} for name in SOLVERS}


def draw(pyplot: Any, data: Dataset) -> Any:
    cells, T = [*map(str, data["cell"].values)], data["T"].values.astype(float)
    figure, axes = pyplot.subplots(1, len(cells), figsize=(3.6 * len(cells) + 2, 3.4), sharey=True, squeeze=False)
    steps = {"color": "0.5", "linewidth": 0.8, "linestyle": ":", "label": "T"}
    for ax, cell in zip(axes[0], cells, strict=True):
        for name, look in _looks().items():
            band(ax, T, _counts(data, cell, name), "seed", name, **look)
        ax.plot(T, T, **steps)
        ax.set(xscale="log", yscale="log", title=f"{cell}, eta = {SAMPLERS[cell]:g}", xlabel="steps T of the sampler")
        powers_of_two(ax.xaxis, [*T])
    axes[0][0].set_ylabel("iterations")
    outside_legend(figure, pyplot, [*_looks().values(), steps])
    return figure


def says(data: Dataset) -> str:
    f = facts(data)
    cells = [*map(str, data["cell"].values)]
    loose = max(f[f"{cell}.loose"] for cell in cells)
    newton = listed([f"{f[f'{cell}.newton'][1]:.0f} ({cell})" for cell in cells])
    return (
        f"Newton's iterations hardly depend on the steps of the sampler: {newton} at T = {f['T'][1]}. A loose "
        f"tolerance is paid for with errors: residuals of {LOOSE_TOL:g} leave up to {100 * loose:.0f}% of the largest "
        "state, since they add up over the steps. It has to shrink with what a step adds, as the paper's does with "
        "its noise."
    )


def tables(data: Dataset) -> list[Table]:
    f = facts(data)
    head = ["sampler", "solver", *(f"T = {T}" for T in f["T"])]
    rows = [
        [str(cell), name, *(f"{count:.0f}" for count in f[f"{cell}.{name}"])]
        for cell in data["cell"].values
        for name in SOLVERS
    ]
    return [Table("Median iterations", head, rows)]


STUDY = study_of(
    __name__,
    name="paper/paradigms",
    question="In how many iterations is a diffusion model sampled in parallel, as its sampler takes more steps?",
    dims=("cell", "T", "seed", "solver"),
    pictures=(Picture("counts", draw, says),),
)

"""FlashRNN (Poeppel et al., arXiv 2412.07752): one wide head beside many narrow ones of as many units in all."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from recsolve.studies.compare.measure import loop, measured
from recsolve.studies.draw.drawing import band, converged, powers_of_two
from recsolve.studies.draw.series import outside_legend
from recsolve.studies.draw.style import line_arguments
from recsolve.studies.registry import Picture, Table, study_of
from recsolve.studies.store.records import Point, Row, product
from recsolve.studies.systems.system import get

if TYPE_CHECKING:
    from xarray import DataArray, Dataset

CELLS = {"elman": 1, "gru": 1, "lstm": 2}  # numbers of the state of a unit
SOLVERS = ("newton", "quasi_newton", "jacobi")


@dataclass(frozen=True)
class Config:
    """``heads`` of ``units`` units in all; rows of their matrices have a norm of about gain."""

    heads: tuple[int, ...] = (1, 2, 4, 8, 16)
    gains: tuple[float, ...] = (0.5, 1.5)
    T: int = 192
    units: int = 16
    seeds: int = 3


TINY = Config(heads=(1, 4, 8), T=64, units=8, seeds=2)
FULL = Config(heads=(1, 2, 4, 8, 16, 32, 64), gains=(0.25, 0.5, 1.0, 1.5, 2.0), T=1024, units=64, seeds=10)


def grid(config: Config) -> Iterator[Point]:
    """Yield every cell at every number of heads."""
    yield from product(
        cell=tuple(CELLS), gain=config.gains, heads=config.heads, seed=range(config.seeds), T=config.T,
        units=config.units, dtype="float64",
    )  # fmt: skip


def run(*, cell: str, gain: float, heads: int, seed: int, T: int, units: int, dtype: str) -> list[Row]:
    """Return iterations, and the products that two elements of Newton's scan take."""
    width = units // heads
    rec = get(f"flash_{cell}").build(length=T, batch=1, heads=heads, units=width, gain=gain, seed=seed, dtype=dtype)
    truth = loop(rec)
    products = heads * (CELLS[cell] * width) ** 3
    return [{"products": products, **measured(rec, solver, truth)} for solver in SOLVERS]


def _counts(data: Dataset, cell: str, gain: float, solver: str) -> DataArray:
    return converged(data.sel(cell=cell, gain=gain, solver=solver), "iterations").transpose("heads", "seed")


def facts(data: Dataset) -> dict[str, Any]:
    """Return median iterations from one head to the most, and how products fall."""
    found: dict[str, Any] = {"heads": [int(n) for n in data["heads"].values]}
    found["gains"] = [float(g) for g in data["gain"].values]
    for cell in CELLS:
        for gain in found["gains"]:
            for solver in SOLVERS:
                middle = _counts(data, cell, gain, solver).median("seed", skipna=False).values
                found[f"{cell}.{gain:g}.{solver}"] = [float(middle[0]), float(middle[-1])]
    products = data["products"].sel(cell="elman", solver="newton").isel(gain=0, seed=0).values
    return {**found, "saved": float(products[0] / products[-1])}


def draw(pyplot: Any, data: Dataset) -> Any:
    """Draw iterations against heads, a row for every gain and a panel for every cell."""
    gains, heads = data["gain"].values, data["heads"].values
    shape = {"figsize": (10.5, 2.6 * len(gains) + 0.6), "sharex": True, "sharey": True, "squeeze": False}
    figure, axes = pyplot.subplots(len(gains), len(CELLS), **shape)
    for row, gain in zip(axes, gains, strict=True):
        for ax, cell in zip(row, CELLS, strict=True):
            for solver in SOLVERS:
                band(ax, heads, _counts(data, cell, gain, solver), "seed", solver)
            ax.set(xscale="log", yscale="log", title=f"{cell}, gain {gain:g}")
            powers_of_two(ax.xaxis, heads)
        row[0].set_ylabel("iterations")
    for ax in axes[-1]:
        ax.set_xlabel("heads, of as many units in all")
    outside_legend(figure, pyplot, [{**line_arguments(solver), "label": solver} for solver in SOLVERS])
    return figure


def says(data: Dataset) -> str:
    """Say what heads do to iterations and products."""
    f = facts(data)
    gain, cell = f["gains"][-1], next(iter(CELLS))
    few, many = f[f"{cell}.{gain:g}.newton"]
    return (
        f"Heads do not couple, and the hardest of them decides: from one head to {f['heads'][-1]} of as many units in "
        f"all Newton goes from {few:.0f} to {many:.0f} iterations on {cell} at gain {gain:g}. What falls is the "
        f"price: two elements of the scan take {f['saved']:.0f} times fewer products. With one unit a head "
        "quasi-Newton is Newton."
    )


def tables(data: Dataset) -> list[Table]:
    """Return median iterations at both ends."""
    f = facts(data)
    rows = [
        [cell, f"{gain:g}", *(f"{n:.0f}" for solver in SOLVERS for n in f[f"{cell}.{gain:g}.{solver}"])]
        for cell in CELLS
        for gain in f["gains"]
    ]
    ends = [f"{solver}, {f['heads'][at]} heads" for solver in SOLVERS for at in (0, -1)]
    return [Table("Median iterations", ["cell", "gain", *ends], rows)]


STUDY = study_of(
    __name__,
    name="heads",
    question="What do many narrow heads change for a solver, beside one wide head of as many units?",
    dims=("cell", "gain", "heads", "seed", "solver"),
    pictures=(Picture("counts", draw, says),),
)

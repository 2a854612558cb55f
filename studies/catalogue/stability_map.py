"""Iterations or failure over recurrent gain and scale of the drive, for two initial guesses."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from recsolve import Recurrence, cells
from recsolve.studies.compare.measure import cell_recurrence, loop, measured
from recsolve.studies.draw.drawing import converged, labelled, solvers_of
from recsolve.studies.registry import Picture, Table, study_of
from recsolve.studies.store.records import Point, Row, product

if TYPE_CHECKING:
    from xarray import Dataset


@dataclass(frozen=True)
class Config:
    """Dense GRU and LSTM, weights times ``gain``; MinMax with a gap of ``gain / 4`` deviations between its bounds.

    A solve of more than ``maxiter`` iterations counts as a failure; T of them suffice for any recurrence.
    """

    cells: tuple[str, ...] = ("gru", "lstm", "minmax")
    units: int = 8
    T: int = 128
    gains: tuple[float, ...] = (0.5, 1.0, 2.0, 4.0, 8.0, 16.0)
    drives: tuple[float, ...] = (0.01, 0.1, 1.0, 3.0, 10.0)
    guesses: tuple[str, ...] = ("step", "zeros")
    seeds: int = 1
    solvers: tuple[str, ...] = ("newton", "quasi_newton", "scaled_newton", "damped_newton", "jacobi")
    tol: float = 1e-10
    maxiter: int = 64


FULL = Config(
    units=32,
    T=1024,
    gains=tuple(round(float(g), 4) for g in np.geomspace(0.25, 32, 29)),
    drives=tuple(round(float(d), 4) for d in np.geomspace(0.01, 10, 25)),
    guesses=("step", "zeros", "coarse"),
    seeds=5,
    solvers=(*Config.solvers, "elk", "multiple_shooting", "broyden"),
    maxiter=256,
)
TINY = Config(gains=(0.5, 32.0), drives=(0.1, 1.0), T=64, maxiter=24)


def grid(config: Config) -> Iterator[Point]:
    return product(
        cell=config.cells, guess=config.guesses, gain=config.gains, seed=range(config.seeds), drives=[*config.drives],
        units=config.units, T=config.T, solvers=[*config.solvers], tol=config.tol, maxiter=config.maxiter,
        dtype="float64",
    )  # fmt: skip


def recurrence(cell: str, gain: float, drive: float, *, units: int, T: int, seed: int, dtype: str) -> Recurrence:
    """Return the recurrence of one place of the map."""
    if cell != "minmax":
        return cell_recurrence(cell, units=units, T=T, gain=gain, drive=drive, seed=seed, dtype=dtype)
    r, s = np.random.default_rng(seed).standard_normal((2, T, units)).astype(dtype)
    bounds = {"r": drive * (r + gain / 8), "s": drive * (s - gain / 8)}
    return cells.MinMax.with_weights(hidden_size=units).recurrence(drive=bounds)


def run(
    *, cell: str, guess: str, gain: float, seed: int, drives: list[float], units: int, T: int, solvers: list[str],
    tol: float, maxiter: int, dtype: str,
) -> list[Row]:  # fmt: skip
    rows = []
    for drive in drives:
        rec = recurrence(cell, gain, drive, units=units, T=T, seed=seed, dtype=dtype)
        truth = loop(rec)
        # MinMax is as large as its drive, so its residuals are compared with that.
        scaled = tol * drive if cell == "minmax" else tol
        rows += [
            {"drive": drive, "maxiter": maxiter, **measured(rec, s, truth, tol=scaled, maxiter=maxiter, guess=guess)}
            for s in solvers
        ]
    return rows


def _map(data: Dataset, cell: str, guess: str, solver: str) -> Any:
    """Return median iterations (gain, drive), NaN where one seed did not converge."""
    part = converged(data, "iterations").sel(cell=cell, guess=guess, solver=solver)
    return np.median(part.transpose("gain", "drive", "seed").values, axis=-1)


def _of_cell(data: Dataset, cell: str, solver: str) -> dict[str, Any]:
    """Return the share of places that are solved from the first guess, and the least gain at which one is not."""
    solved = np.isfinite(_map(data, cell, str(data["guess"].values[0]), solver))
    lost = data["gain"].values[~solved.all(axis=1)]
    return {"solved": float(solved.mean()), "lost_from": float(lost.min()) if lost.size else None}


def facts(data: Dataset) -> dict[str, Any]:
    names, guesses = [str(cell) for cell in data["cell"].values], [str(g) for g in data["guess"].values]
    found: dict[str, Any] = {cell: {s: _of_cell(data, cell, s) for s in solvers_of(data)} for cell in names}
    found["guesses"] = {
        guess: {
            s: float(np.mean([np.isfinite(_map(data, c, guess, s)).mean() for c in names])) for s in solvers_of(data)
        }
        for guess in guesses
    }
    if "minmax" in names:  # its counts cannot depend on its scale
        counts = converged(data, "iterations").sel(cell="minmax")
        found["minmax_spread"] = float((counts.max("drive") - counts.min("drive")).max())
    found["maxiter"], found["gains"] = int(data["maxiter"].max()), [float(g) for g in data["gain"].values]
    return found


def drawing_of(number: int) -> Any:
    """Return the function that draws the maps of one guess: a row per solver, a column per cell."""

    def draw(pyplot: Any, data: Dataset) -> Any:
        guess, names = str(data["guess"].values[number]), [str(cell) for cell in data["cell"].values]
        solvers, limit = solvers_of(data), int(data["maxiter"].max())
        gains, drives = (_labels(data[name].values) for name in ("gain", "drive"))
        size = (2.1 * len(names) + 1.2, 1.45 * len(solvers) + 0.7)
        figure, axes = pyplot.subplots(len(solvers), len(names), figsize=size, sharex=True, sharey=True, squeeze=False)
        norm = pyplot.matplotlib.colors.LogNorm(1, limit)
        for row, solver in zip(axes, solvers, strict=True):
            for ax, cell in zip(row, names, strict=True):
                image = labelled(ax, drives, gains, np.maximum(_map(data, cell, guess, solver), 1), norm=norm)
                ax.set_title(f"{cell}, {solver}", fontsize=9)
        figure.supxlabel("scale of the drive", fontsize=9)
        figure.supylabel("recurrent gain (minmax: 4 x the gap between the bounds)", fontsize=9)
        bar = figure.colorbar(image, ax=axes, label=f"iterations (hatched: not within {limit})", shrink=0.5)
        ticks = [t for t in (1, 3, 10, 30, 100, 300) if t <= limit]
        bar.set_ticks(ticks, labels=map(str, ticks))
        bar.minorticks_off()
        return figure

    return draw


def _labels(values: Any) -> list[str]:
    """Return labels of eight values at most."""
    step = -(-len(values) // 8)
    return [f"{value:g}" if i % step == 0 else "" for i, value in enumerate(values)]


def says_step(data: Dataset) -> str:
    f, names = facts(data), [str(c) for c in data["cell"].values]
    shares = f["guesses"][str(data["guess"].values[0])]
    best, worst = (pick(shares, key=shares.__getitem__) for pick in (max, min))
    spread = f.get("minmax_spread")
    same = "" if spread is None else f" Scales of the drive change counts for minmax by at most {spread:.0f}."
    return (
        f"Solvers are lost as the gain grows: {worst}{_lost(f, worst, names)} and {best}{_lost(f, best, names)}. "
        f"They solve {100 * shares[worst]:.0f}% and {100 * shares[best]:.0f}% of the maps.{same}"
    )


def _lost(f: dict[str, Any], solver: str, names: list[str]) -> str:
    gains = [f[cell][solver]["lost_from"] for cell in names if f[cell][solver]["lost_from"] is not None]
    return f" from {min(gains):g} on" if gains else " nowhere"


def says_zeros(data: Dataset) -> str:
    f = facts(data)
    first, second = list(f["guesses"])[:2]
    shares = {s: (100 * f["guesses"][first][s], 100 * f["guesses"][second][s]) for s in solvers_of(data)}
    most = max(shares, key=lambda s: abs(shares[s][0] - shares[s][1]))
    return (
        f"What the first guess changes most is the share that {most} solves: {shares[most][0]:.0f}% from {first} and "
        f"{shares[most][1]:.0f}% from {second}, over all maps."
    )


def tables(data: Dataset) -> list[Table]:
    f = facts(data)
    rows = [[s, *(f"{100 * f['guesses'][g][s]:.1f}%" for g in f["guesses"])] for s in solvers_of(data)]
    return [Table("Share of all maps that is solved, by initial guess", ["solver", *f["guesses"]], rows)]


STUDY = study_of(
    __name__,
    name="stability_map",
    question="At which recurrent gains and scales of the drive does each solver converge, and how fast?",
    dims=("cell", "guess", "gain", "drive", "seed", "solver"),
    pictures=(Picture("step", drawing_of(0), says_step), Picture("zeros", drawing_of(1), says_zeros)),
)

"""Basins of convergence: from which constant guesses a solver finds the trajectory of a cell of two units."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

import recsolve as rs
from recsolve.studies.compare.measure import cell_recurrence
from recsolve.studies.draw.drawing import CONVERGED, converged, heat, listed, solvers_of
from recsolve.studies.registry import Picture, Table, study_of
from recsolve.studies.store.records import Point, Row, product

if TYPE_CHECKING:
    from xarray import Dataset


@dataclass(frozen=True)
class Config:
    """Two units, weights times ``gain``, normal input; guesses (x, y) at every t, up to ``reach`` from 0."""

    cells: tuple[str, ...] = ("gru", "elman")
    gain: float = 5.0
    T: int = 64
    reach: float = 3.0
    places: int = 21
    seed: int = 0
    solvers: tuple[str, ...] = ("newton", "quasi_newton", "scaled_newton", "damped_newton", "elk")
    tol: float = 1e-10
    maxiter: int = 32


FULL = Config(T=256, places=101, maxiter=128, solvers=(*Config.solvers, "multiple_shooting", "broyden", "jacobi"))
TINY = Config(places=5)


def grid(config: Config) -> Iterator[Point]:
    return product(
        cell=config.cells, solver=config.solvers, seed=config.seed, gain=config.gain, T=config.T, reach=config.reach,
        places=config.places, tol=config.tol, maxiter=config.maxiter, dtype="float64",
    )  # fmt: skip


def run(
    *, cell: str, solver: str, seed: int, gain: float, T: int, reach: float, places: int, tol: float, maxiter: int,
    dtype: str,
) -> list[Row]:  # fmt: skip
    one = cell_recurrence(cell, units=2, T=T, gain=gain, seed=seed, dtype=dtype)
    along = np.linspace(-reach, reach, places)
    places_xy = np.stack(np.meshgrid(along, along), axis=-1).reshape(-1, 2)
    # All guesses are solved side by side: sequences of a batch do not know of each other.
    assert one.x is not None
    rec = one.cell.recurrence(np.broadcast_to(one.x[:, None], (T, len(places_xy), one.x.shape[-1])))
    guess = np.broadcast_to(places_xy, rec.shape)
    sol = rs.solve(rec, method=solver, tol=tol, maxiter=maxiter, guess=guess, options={"trace": True})
    assert sol.trace is not None
    done = sol.trace.converged_prefix == T
    solved, first = done[-1], done.argmax(axis=0)
    return [
        {"x": x, "y": y, "status": CONVERGED if ok else str(sol.status), "iterations": k, "maxiter": maxiter}
        for (x, y), ok, k in zip(places_xy, solved, first, strict=True)
    ]


def facts(data: Dataset) -> dict[str, Any]:
    counts, names = converged(data, "iterations"), [str(cell) for cell in data["cell"].values]
    found: dict[str, Any] = {"maxiter": int(data["maxiter"].max())}
    for cell in names:
        part = {s: counts.sel(cell=cell, solver=s).values for s in solvers_of(data)}
        found[cell] = {
            s: {"solved": float(np.isfinite(k).mean()), "counts": [float(np.nanmin(k)), float(np.nanmax(k))]}
            if np.isfinite(k).any()
            else {"solved": 0.0, "counts": []}
            for s, k in part.items()
        }
    return found


def draw(pyplot: Any, data: Dataset) -> Any:
    names, solvers, limit = [str(cell) for cell in data["cell"].values], solvers_of(data), int(data["maxiter"].max())
    size = (1.75 * len(solvers) + 1.3, 1.85 * len(names) + 0.6)
    figure, axes = pyplot.subplots(len(names), len(solvers), figsize=size, sharex=True, sharey=True, squeeze=False)
    for row, cell in zip(axes, names, strict=True):
        for ax, solver in zip(row, solvers, strict=True):
            counts = converged(data, "iterations").sel(cell=cell, solver=solver).transpose("y", "x").values
            image = heat(ax, data["x"].values, data["y"].values, counts, vmin=0, vmax=limit)
            ax.set(aspect="equal")
            ax.set_title(f"{cell}, {solver}", fontsize=9)
    figure.supxlabel("guess of the first unit, at every t", fontsize=9)
    figure.supylabel("guess of the second unit, at every t", fontsize=9)
    figure.colorbar(image, ax=axes, label=f"iterations\n(hatched: not within {limit})", shrink=0.7)
    return figure


def says(data: Dataset) -> str:
    f, guesses = facts(data), data["x"].size * data["y"].size
    words = []
    for cell in (str(c) for c in data["cell"].values):
        best, worst = (pick(f[cell], key=lambda s: f[cell][s]["solved"]) for pick in (max, min))
        shares = [f"{_share(f[cell][s]['solved'], guesses)} of the guesses by {s}" for s in (best, worst)]
        words.append(f"that of {cell} is found from {listed(shares)}")
    return f"The basin of a trajectory is the method's as much as the cell's: {', '.join(words)}."


def _share(solved: float, guesses: int) -> str:
    """Return a share in percent; as a count, where that would round to none or all."""
    percent = f"{100 * solved:.0f}%"
    return f"{solved * guesses:.0f} of {guesses}" if percent in ("0%", "100%") and 0 < solved < 1 else percent


def tables(data: Dataset) -> list[Table]:
    f = facts(data)
    names = [str(cell) for cell in data["cell"].values]
    rows = [[s, *(f"{100 * f[cell][s]['solved']:.1f}%" for cell in names)] for s in solvers_of(data)]
    return [Table("Share of guesses that lead to the solution", ["solver", *names], rows)]


STUDY = study_of(
    __name__,
    name="basins",
    question="From which initial guesses does a solver find the trajectory of a cell of two units?",
    dims=("cell", "solver", "x", "y"),
    pictures=(Picture("basins", draw, says),),
)

"""Where to start: zeros, f(h[0], u), a coarse trajectory, or that of the same cell before a training step.

The last is what a training loop has for nothing. Newton's method on recurrences is DEER (Lim et al., ICLR 2024, arXiv
2309.12252).
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

import recsolve as rs
from recsolve.base.arrays import Array
from recsolve.studies.compare.measure import loop, measured
from recsolve.studies.draw.drawing import band, converged, legend, solvers_of, times
from recsolve.studies.draw.style import line_arguments
from recsolve.studies.registry import Picture, Table, study_of
from recsolve.studies.store.records import Point, Row, product

if TYPE_CHECKING:
    from xarray import DataArray, Dataset

COLD = ("zeros", "step", "coarse")
WARM = "warm"
# Adam at a rate of 1e-3 moves a weight of 1/sqrt(3 units) by 1e-3: relative to it, by this for 3 to 300 units.
TRAINING_STEP = (3e-3, 3e-2)


@dataclass(frozen=True)
class Config:
    """Dense cells, weights times ``gain``; perturbations are normal noise relative to the size of each weight array."""

    cells: tuple[str, ...] = ("gru", "lstm", "elman")
    solvers: tuple[str, ...] = ("newton", "quasi_newton", "jacobi", "damped_newton", "multiple_shooting")
    perturbations: tuple[float, ...] = (1e-12, 1e-10, 1e-8, 1e-6, 1e-5, 1e-4, 1e-3, 1e-2, 1e-1)
    gain: float = 1.5
    units: int = 16
    T: int = 256
    seeds: int = 3


FULL = Config(
    solvers=(*Config.solvers, "chord", "broyden", "parareal", "gauss_seidel", "picard"),
    gain=1.5, units=64, T=2048, seeds=10,
)  # fmt: skip
TINY = Config(cells=("gru", "elman"), solvers=Config.solvers[:3], perturbations=(1e-8, 1e-3), units=8, T=64, seeds=1)


def grid(config: Config) -> Iterator[Point]:
    for shared in product(
        cell=config.cells, seed=range(config.seeds), solvers=[*config.solvers], gain=config.gain, units=config.units,
        T=config.T, dtype="float64",
    ):  # fmt: skip
        yield {**shared, "guess": "cold"}
        yield from product(**shared, guess=WARM, perturbation=config.perturbations)


def run(
    *, cell: str, seed: int, solvers: list[str], gain: float, units: int, T: int, dtype: str, guess: str,
    perturbation: float = 0.0,
) -> list[Row]:  # fmt: skip
    weighted = rs.cells.get(cell).random(input_size=4, hidden_size=units, gain=gain, rng=seed, dtype=np.dtype(dtype))
    rng = np.random.default_rng(seed + 1_000)
    x = rng.standard_normal((T, 4)).astype(dtype)
    rec: rs.Recurrence = weighted.recurrence(x)
    guesses: dict[str, Any] = {name: name for name in COLD}
    if guess == WARM:

        def moved(w: Array) -> Array:
            noise = perturbation * np.sqrt((w**2).mean()) * rng.standard_normal(w.shape)
            return np.asarray(w + noise, w.dtype)

        rec, guesses = weighted.map(moved).recurrence(x), {WARM: loop(rec)}
    truth = loop(rec)
    return [{"guess": g, **measured(rec, s, truth, guess=start)} for s in solvers for g, start in guesses.items()]


def _counts(data: Dataset, cell: str, solver: str, guess: str) -> DataArray:
    part = converged(data, "iterations").sel(cell=cell, solver=solver, guess=guess)
    return part.transpose("perturbation", "seed")


def _step_of_training(data: Dataset) -> int:
    """Return the place of the perturbation that is closest to a training step."""
    middle = float(np.sqrt(np.prod(TRAINING_STEP)))
    return int(np.argmin(abs(np.log(data["perturbation"].values / middle))))


def facts(data: Dataset) -> dict[str, Any]:
    sizes, step = data["perturbation"].values, _step_of_training(data)
    found: dict[str, Any] = {"smallest": float(sizes[0]), "training": float(sizes[step])}
    for solver in solvers_of(data):
        warm, cold = [], []
        for cell in map(str, data["cell"].values):
            medians = _counts(data, cell, solver, WARM).median("seed", skipna=False).values
            warm.append(medians)
            start = {g: float(_counts(data, cell, solver, g).isel(perturbation=0).median(skipna=False)) for g in COLD}
            cold.append(start["step"])
            found |= {f"{cell}.{solver}.{g}": count for g, count in start.items()}
            found |= {f"{cell}.{solver}.small": float(medians[0]), f"{cell}.{solver}.training": float(medians[step])}
        saved = 1 - np.array(warm) / np.array(cold)[:, None]
        found[f"{solver}.saved"] = [float(saved[:, 0].mean()), float(saved[:, step].mean())]
    return found


def draw_warm(pyplot: Any, data: Dataset) -> Any:
    cells = [str(cell) for cell in data["cell"].values]
    figure, axes = pyplot.subplots(1, len(cells), figsize=(3.3 * len(cells) + 2.2, 3.5), sharey=True, squeeze=False)
    for ax, cell in zip(axes[0], cells, strict=True):
        for solver in solvers_of(data):
            band(ax, data["perturbation"].values, _counts(data, cell, solver, WARM), "seed", solver)
            cold = float(_counts(data, cell, solver, "step").isel(perturbation=0).median(skipna=False))
            ax.axhline(cold, **{**line_arguments(solver), "marker": "", "linewidth": 0.9})
        ax.axvspan(*TRAINING_STEP, color="0.9", zorder=0)
        ax.set(xscale="log", yscale="log", title=cell, xlabel="relative change of the weights")
    axes[0, 0].set_ylabel("iterations to convergence")
    handles = [pyplot.Line2D([], [], color="0.3", linewidth=0.9, label="from f(h[0], u)"),
               pyplot.Rectangle((0, 0), 1, 1, color="0.9", label="a training step")]  # fmt: skip
    legend(figure, pyplot, solvers_of(data), handles)
    return figure


def says_warm(data: Dataset) -> str:
    f = facts(data)
    small, step = zip(*(f[f"{s}.saved"] for s in solvers_of(data)), strict=True)
    return (
        f"The trajectory before a training step is a guess of little use: where weights change by {f['training']:g} it "
        f"saves at most {max(step):.0%} of the iterations from f(h[0], u) (the horizontal lines), on average over "
        f"cells; where they change by {f['smallest']:g}, up to {max(small):.0%}."
    )


def draw_cold(pyplot: Any, data: Dataset) -> Any:
    f, cells = facts(data), [str(cell) for cell in data["cell"].values]
    columns = [*COLD, "training", "small"]
    names = [*COLD, f"warm,\n{f['training']:g}", f"warm,\n{f['smallest']:g}"]
    figure, axes = pyplot.subplots(1, len(cells), figsize=(3.3 * len(cells) + 2.2, 3.3), sharey=True, squeeze=False)
    for ax, cell in zip(axes[0], cells, strict=True):
        for solver in solvers_of(data):
            counts = [f[f"{cell}.{solver}.{column}"] for column in columns]
            ax.plot(names, counts, **{**line_arguments(solver), "linestyle": "none"})  # guesses are no numbers
        ax.set(yscale="log", title=cell, xlabel="first guess")
        ax.tick_params(axis="x", labelsize=7.5)
    axes[0, 0].set_ylabel("iterations, median of seeds")
    legend(figure, pyplot, solvers_of(data), linestyle="none")
    return figure


def says_cold(data: Dataset) -> str:
    f = facts(data)

    def most(guess: str) -> float:
        pairs = [(cell, s) for cell in data["cell"].values for s in solvers_of(data)]
        return max(float(f[f"{cell}.{s}.{guess}"] / f[f"{cell}.{s}.step"]) for cell, s in pairs)

    return (
        f"Guesses that know nothing are much alike: over cells and solvers zeros take up to {times(most('zeros'))} the "
        f"iterations of f(h[0], u), and the coarse trajectory up to {times(most('coarse'))}."
    )


def tables(data: Dataset) -> list[Table]:
    f = facts(data)
    columns = [*COLD, "training", "small"]
    rows = [
        [cell, solver, *(f"{f[f'{cell}.{solver}.{column}']:.0f}" for column in columns)]
        for cell in map(str, data["cell"].values)
        for solver in solvers_of(data)
    ]
    head = ["cell", "solver", *COLD, f"warm, change {f['training']:g}", f"warm, change {f['smallest']:g}"]
    return [Table("Median iterations by the first guess", head, rows)]


STUDY = study_of(
    __name__,
    name="initial_guess",
    question="How many iterations does a good first guess save?",
    dims=("cell", "guess", "perturbation", "seed", "solver"),
    pictures=(Picture("warm", draw_warm, says_warm), Picture("cold", draw_cold, says_cold)),
)

"""Modern Hopfield networks (Ramsauer et al., arXiv 2008.02217): patterns that one step finds, and what solvers take."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

import recsolve as rs
from recsolve.base.arrays import Array
from recsolve.studies.compare.measure import loop, measured
from recsolve.studies.draw.drawing import band, converged, family, powers_of_two
from recsolve.studies.draw.series import outside_legend, series
from recsolve.studies.draw.style import line_arguments
from recsolve.studies.registry import Picture, Table, study_of
from recsolve.studies.store.records import Point, Row, product
from recsolve.studies.systems import hopfield

if TYPE_CHECKING:
    from xarray import DataArray, Dataset

STORED, SOLVED = "stored", "solved"  # the two kinds of points
SOLVERS = ("newton", "quasi_newton", "jacobi")
SETTLES = "steps until the loop settles"
NEAR = 0.1  # a pattern is found at this share of its norm


@dataclass(frozen=True)
class Config:
    """Patterns of ``widths`` numbers and norm sqrt(width), queries with noise; one step, and ``length`` steps."""

    widths: tuple[int, ...] = (8, 12, 16, 20)
    patterns: tuple[int, ...] = tuple(2**k for k in range(2, 17))
    queries: int = 64
    noise: float = 0.3
    betas: tuple[float, ...] = (0.03, 0.1, 0.2, 0.4, 0.8, 1.6, 3.2, 6.4)
    length: int = 64
    width: int = 12
    kept: int = 24
    seeds: int = 3


TINY = Config(
    widths=(8, 16), patterns=(4, 64, 1024, 8192), queries=24, betas=(0.03, 0.4, 6.4), length=32, width=8, seeds=2
)
FULL = Config(widths=(8, 12, 16, 20, 24), patterns=tuple(2**k for k in range(2, 19)), queries=256, length=256, seeds=20)


def grid(config: Config) -> Iterator[Point]:
    shared = {"seed": range(config.seeds), "noise": config.noise, "dtype": "float64"}
    yield from product(
        kind=STORED, width=config.widths, patterns=config.patterns, beta=1.0, queries=config.queries, length=1, **shared
    )
    yield from product(
        kind=SOLVED, width=config.width, patterns=config.kept, beta=config.betas, queries=8, length=config.length,
        **shared,
    )  # fmt: skip


def run(
    *, kind: str, width: int, patterns: int, beta: float, queries: int, length: int, seed: int, noise: float, dtype: str
) -> list[Row]:
    rec, wanted = task(width, patterns, beta, queries, length, seed, noise, dtype)
    states = loop(rec)
    if kind == STORED:
        away = np.linalg.norm(states[0] - wanted, axis=-1) / width**0.5
        return [{"solver": "loop", "status": "converged", "found": float((away < NEAR).mean())}]
    moving = np.abs(np.diff(states, axis=0)).max(axis=(1, 2)) > 1e-9
    settles: Row = {
        "solver": SETTLES,
        "status": "converged",
        "iterations": int(np.flatnonzero(moving).max(initial=-1)) + 2,
    }
    settles["most"] = length
    return [settles, *(measured(rec, solver, states) for solver in SOLVERS)]


def task(
    width: int, patterns: int, beta: float, queries: int, length: int, seed: int, noise: float, dtype: str
) -> tuple[rs.Recurrence, Array]:
    """Return the recurrence, and the patterns that its queries are of."""
    random = np.random.default_rng(seed)
    X = random.standard_normal((width, patterns))
    X *= width**0.5 / np.linalg.norm(X, axis=0)
    wanted = X.T[np.arange(queries) % patterns]
    arrays = {
        "X": X.astype(dtype),
        "beta": np.asarray(beta, dtype),
        "xi": (wanted + noise * random.standard_normal(wanted.shape)).astype(dtype),
        "steps": np.arange(length),
    }
    return hopfield.make(arrays), wanted


def _found(data: Dataset) -> DataArray:
    """Return the share of patterns found, by width, number of patterns and seed."""
    part = data["found"].sel(kind=STORED, solver="loop", beta=1.0)
    return part.dropna("width", how="all").dropna("patterns", how="all")


def _counts(data: Dataset, solver: str) -> DataArray:
    """Return iterations by beta and seed."""
    part = converged(data, "iterations").sel(kind=SOLVED, solver=solver)
    part = part.dropna("width", how="all").dropna("patterns", how="all").isel(width=0, patterns=0)
    return part.dropna("beta", how="all").transpose("beta", "seed")


def facts(data: Dataset) -> dict[str, Any]:
    shares = _found(data).mean("seed")
    found: dict[str, Any] = {"widths": [int(width) for width in shares["width"].values], "capacity": []}
    found["patterns"] = [int(n) for n in shares["patterns"].values]
    for width in found["widths"]:
        half = np.flatnonzero(shares.sel(width=width).values >= 0.5)
        found["capacity"].append(found["patterns"][half[-1]] if half.size else 0)
        found[f"{width}"] = [float(x) for x in shares.sel(width=width).values]
    found["beta"] = [float(beta) for beta in _counts(data, SETTLES)["beta"].values]
    for solver in (SETTLES, *SOLVERS):
        found[solver] = [float(x) for x in _counts(data, solver).median("seed", skipna=False)]
    found["length"] = int(data["most"].max())
    return found


def draw_capacity(pyplot: Any, data: Dataset) -> Any:
    figure, ax = pyplot.subplots(figsize=(6.8, 3.4))
    shares = _found(data)
    looks = series(f"width {width}" for width in shares["width"].values)
    family(ax, shares, "patterns", "width", dict(zip(shares["width"].values, looks.values(), strict=True)))
    ax.set(xscale="log", xlabel="patterns stored", ylabel="share that one step finds")
    powers_of_two(ax.xaxis, shares["patterns"].values)
    outside_legend(figure, pyplot, looks.values())
    return figure


def says_capacity(data: Dataset) -> str:
    f = facts(data)
    ends = [(w, n) for w, n in zip(f["widths"], f["capacity"], strict=True) if n]
    (first, few), (last, many) = ends[0], ends[-1]
    rate = np.log2(many / few) / (last - first) if last > first else 0.0
    return (
        f"What is stored grows exponentially with the width, as is claimed: at least half of the patterns are found by "
        f"one step, of up to {many} at width {last}, and {rate:.2g} bits more for each number. Random patterns have to "
        "be apart for that: of narrow ones some of a few are lost."
    )


def draw_iterations(pyplot: Any, data: Dataset) -> Any:
    figure, ax = pyplot.subplots(figsize=(6.8, 3.4))
    looks = {solver: {**line_arguments(solver), "label": solver} for solver in SOLVERS}
    looks[SETTLES] = {"label": SETTLES, "color": "0.4", "linestyle": ":", "marker": "."}
    for solver, look in looks.items():
        counts = _counts(data, solver)
        band(ax, counts["beta"].values, counts, "seed", solver, **look)
    ax.set(xscale="log", yscale="log", xlabel="beta, the sharpness of the softmax", ylabel="iterations")
    outside_legend(figure, pyplot, looks.values())
    return figure


def says_iterations(data: Dataset) -> str:
    f = facts(data)
    hardest = int(np.argmax(f["newton"]))
    steps = f[SETTLES][hardest]
    settles = f"settles in {steps:.0f} steps" if steps < f["length"] else "does not settle"
    return (
        f"Solvers wait where the softmax cannot decide: at beta = {f['beta'][hardest]:g} the loop {settles}, and of "
        f"{f['length']} steps Newton takes {f['newton'][hardest]:.0f} iterations and Jacobi "
        f"{f['jacobi'][hardest]:.0f}. Where all patterns are averaged, and where one is found at once, few are enough."
    )


def tables(data: Dataset) -> list[Table]:
    f = facts(data)
    rows = [[solver, *(f"{x:.0f}" for x in f[solver])] for solver in (SETTLES, *SOLVERS)]
    return [Table("Median iterations by beta", ["", *(f"{beta:g}" for beta in f["beta"])], rows)]


STUDY = study_of(
    __name__,
    name="hopfield",
    question="How many patterns does one step of attention find, and what do solvers take where it is a recurrence?",
    dims=("kind", "width", "patterns", "beta", "seed", "solver"),
    pictures=(
        Picture("capacity", draw_capacity, says_capacity),
        Picture("iterations", draw_iterations, says_iterations),
    ),
)

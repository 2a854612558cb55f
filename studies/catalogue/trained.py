"""Trained is not random: conditioning and iterations of networks before, during and after they learn to remember.

The networks are those of ``studies/trained``. Adaptive shooting is this project's; the others are DEER (Lim et al.,
ICLR 2024, arXiv 2309.12252), its damped and diagonal forms, and Jacobi.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

import recsolve as rs
from recsolve.studies.compare.measure import lyapunov, measured
from recsolve.studies.draw.drawing import chart, converged, legend, listed, solvers_of
from recsolve.studies.draw.style import line_arguments
from recsolve.studies.registry import Picture, Table, study_of
from recsolve.studies.store.records import Point, Row, product
from recsolve.studies.trained.networks import NAMES, STAGES, recurrence

if TYPE_CHECKING:
    from xarray import Dataset

SOLVERS = ("newton", "damped_newton", "adaptive_shooting", "multiple_shooting", "quasi_newton", "jacobi")


@dataclass(frozen=True)
class Config:
    """Networks at three stages of training, on streams of their task, each solved within ``maxiter`` iterations."""

    networks: tuple[str, ...] = NAMES
    solvers: tuple[str, ...] = SOLVERS
    T: int = 250
    maxiter: int = 100
    seeds: int = 1


FULL = Config(
    solvers=(*SOLVERS, "elk", "windowed", "chord", "broyden", "scaled_newton", "gauss_seidel"),
    T=1000, maxiter=300, seeds=3,
)  # fmt: skip
TINY = Config(networks=("recall-gru", "parity-lstm"), solvers=SOLVERS[:3], T=120, maxiter=20)


def grid(config: Config) -> Iterator[Point]:
    yield from product(
        network=config.networks, stage=STAGES, seed=range(config.seeds), solvers=[*config.solvers], T=config.T,
        maxiter=config.maxiter, dtype="float64",
    )  # fmt: skip


def run(
    *, network: str, stage: str, seed: int, solvers: list[str], T: int, maxiter: int, dtype: str
) -> list[Row]:  # fmt: skip
    rec = recurrence(network, stage, T=T, seed=seed, dtype=dtype)
    truth = rs.solve(rec, method="sequential")
    shared = {"condition": float(truth.condition), "exponent": lyapunov(rec, truth.states), "limit": maxiter}
    return [{**shared, **measured(rec, solver, truth.states, maxiter=maxiter)} for solver in solvers]


def _counts(data: Dataset, solver: str, stage: str) -> Any:
    """Return the iterations of every network and seed, those that did not converge as the limit."""
    counts = converged(data, "iterations").sel(solver=solver, stage=stage)
    return counts.transpose("network", "seed").fillna(_limit(data)).values


def _limit(data: Dataset) -> int:
    return int(data["limit"].max())


def _of_stage(data: Dataset, variable: str, stage: str) -> Any:
    return data[variable].sel(stage=stage).max("solver").transpose("network", "seed").values


def facts(data: Dataset) -> dict[str, Any]:
    solvers, stages = solvers_of(data), [*STAGES]
    kappa = np.concatenate([_of_stage(data, "condition", stage).ravel() for stage in stages])
    found: dict[str, Any] = {"limit": _limit(data)}
    for stage in stages:
        found[f"{stage}.condition"] = [float(x) for x in np.quantile(_of_stage(data, "condition", stage), (0, 0.5, 1))]
        found[f"{stage}.exponent"] = float(np.median(_of_stage(data, "exponent", stage)))
        for solver in solvers:
            counts = _counts(data, solver, stage)
            found[f"{stage}.{solver}"] = [float(counts.min()), float(np.median(counts)), float(counts.max())]
            status = data["status"].sel(solver=solver, stage=stage).values
            found[f"{stage}.{solver}.failed"] = int((status != "converged").sum())
    for solver in solvers:
        counts = np.concatenate([_counts(data, solver, stage).ravel() for stage in stages])
        found[f"{solver}.rank"] = _rank_correlation(kappa, counts)
    found["best"] = min(solvers, key=lambda s: found[f"after.{s}"][2])
    return found


def _rank_correlation(x: Any, y: Any) -> float:
    """Return Spearman's correlation; NaN where one of them does not vary."""
    from scipy.stats import rankdata

    a, b = rankdata(x), rankdata(y)
    return float(np.corrcoef(a, b)[0, 1]) if np.ptp(a) and np.ptp(b) else float("nan")


def draw_condition(pyplot: Any, data: Dataset) -> Any:
    f, solvers = facts(data), solvers_of(data)
    figure, axes = pyplot.subplots(1, len(STAGES), figsize=(8.6, 3.2), sharex=True, sharey=True, squeeze=False)
    for ax, stage in zip(axes[0], STAGES, strict=True):
        for solver in solvers:
            look = {**line_arguments(solver), "linestyle": "none"}
            kappa, counts = _of_stage(data, "condition", stage), _counts(data, solver, stage)
            ax.plot(kappa.ravel(), np.maximum(counts, 1).ravel(), **look)
        ax.axhline(f["limit"], color="0.5", linewidth=0.8, linestyle="--", zorder=1)
        ax.set(xscale="log", yscale="log", title=f"{stage} training", xlabel="conditioning")
    axes[0, 0].set_ylabel("iterations (dashed: the limit)")
    legend(figure, pyplot, solvers, linestyle="none")
    return figure


def says_condition(data: Dataset) -> str:
    f = facts(data)
    return (
        f"Training makes recurrences harder: the median of conditioning goes from {f['before.condition'][1]:.2g} to "
        f"{f['after.condition'][1]:.2g}, and that of Newton's iterations from {f['before.newton'][1]:g} to "
        f"{f['after.newton'][1]:g}. On its worst problem {f['best']} takes the fewest, {f['after.' + f['best']][2]:g}."
    )


def draw_counts(pyplot: Any, data: Dataset) -> Any:
    solvers, networks = solvers_of(data), [str(name) for name in data["network"].values]
    counts = converged(data, "iterations").sel(stage="after").median("seed", skipna=False)
    numbers = counts.transpose("network", "solver").values
    figure, ax = pyplot.subplots(figsize=(1.0 * len(solvers) + 4.0, 0.34 * len(networks) + 2.0))
    image = chart(ax, [name.replace("_", "\n") for name in solvers], networks, numbers, "{:.0f}")
    figure.colorbar(image, ax=ax, label=f"iterations (hatched: not within {_limit(data)})")
    ax.set(xlabel="solver", ylabel="trained network")
    return figure


def says_counts(data: Dataset) -> str:
    f, solvers = facts(data), solvers_of(data)
    total = int(data.sizes["network"] * data.sizes["seed"])
    failed = {s: f[f"after.{s}.failed"] for s in solvers if f[f"after.{s}.failed"]}
    always = [s for s in solvers if s not in failed]
    words = [f"{s} on {failed[s]}" for s in sorted(failed, key=failed.__getitem__)]
    ends = f" Not all do: {words[0]} and {words[-1]} of {total} problems need more." if len(words) > 1 else ""
    return f"After training {listed(always)} converge on every problem within {f['limit']} iterations.{ends}"


def tables(data: Dataset) -> list[Table]:
    f = facts(data)
    rows = [
        [s, *(f"{f[f'{stage}.{s}'][1]:g}, {f[f'{stage}.{s}'][2]:g}, {f[f'{stage}.{s}.failed']}" for stage in STAGES)]
        for s in solvers_of(data)
    ]
    return [Table("Iterations: median, most, and how many did not converge", ["solver", *STAGES], rows)]


STUDY = study_of(
    __name__,
    name="trained",
    question="What does training do to a recurrence, and which solvers still take few iterations?",
    dims=("network", "seed", "solver", "stage"),
    pictures=(Picture("condition", draw_condition, says_condition), Picture("counts", draw_counts, says_counts)),
)

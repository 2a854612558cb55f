"""Leaky tau RNN (Khajehabdollahi et al., arXiv 2309.12927): what a long memory costs, through tau or through W."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from recsolve.base.arrays import Array
from recsolve.studies.compare.measure import loop, lyapunov, measured
from recsolve.studies.draw.drawing import listed
from recsolve.studies.draw.series import outside_legend, series
from recsolve.studies.registry import Picture, Table, study_of
from recsolve.studies.store.records import Point, Row, product
from recsolve.studies.systems.system import get

if TYPE_CHECKING:
    from xarray import Dataset

SOLVERS = ("newton", "quasi_newton", "jacobi")
ROUTES = {"tau": "slow units: tau grows, W is small", "gain": "fast units: tau = 1 to 2, W grows"}


@dataclass(frozen=True)
class Config:
    """``taus`` with W of gain ``weak``, or ``gains`` of W with tau from 1 to 2."""

    taus: tuple[float, ...] = (1.0, 2.0, 4.0, 8.0, 16.0, 32.0)
    gains: tuple[float, ...] = (0.3, 0.8, 1.0, 1.1, 1.2, 1.25)
    weak: float = 0.3
    T: int = 512
    units: int = 24
    seeds: int = 4


TINY = Config(taus=(1.0, 8.0), gains=(0.3, 1.1), T=96, units=12, seeds=2)
FULL = Config(
    taus=tuple(float(t) for t in 2.0 ** np.arange(0, 7.5, 0.5)),
    gains=(0.3, *(round(0.6 + 0.05 * k, 2) for k in range(15))),
    T=4096,
    units=100,
    seeds=10,
)


def grid(config: Config) -> Iterator[Point]:
    levels = {"tau": config.taus, "gain": config.gains}
    for route, values in levels.items():
        yield from product(
            route=route, level=values, seed=range(config.seeds), T=config.T, units=config.units, weak=config.weak,
            dtype="float64",
        )  # fmt: skip


def run(*, route: str, level: float, seed: int, T: int, units: int, weak: float, dtype: str) -> list[Row]:
    changes = {"tau": level, "gain": weak} if route == "tau" else {"tau": 1.0, "gain": level}
    rec = get("leaky_outer").build(length=T, units=units, batch=1, seed=seed, dtype=dtype, **changes)
    truth = loop(rec)
    memory = -1 / lyapunov(rec, truth)
    return [{"memory": memory, **measured(rec, solver, truth)} for solver in SOLVERS]


def _points(data: Dataset, route: str, solver: str) -> tuple[Array, Array]:
    """Return the memory, in steps, and the iterations of every network of a route; those that forget nothing are out."""
    part = data.sel(route=route, solver=solver)
    memory, counts = (part[name].values.ravel() for name in ("memory", "iterations"))
    known = np.isfinite(memory) & np.isfinite(counts) & (memory > 0)
    return memory[known], counts[known]


def _between(data: Dataset, route: str, solver: str, low: float, high: float) -> float:
    """Return the median iterations of the networks of a route whose memory is within bounds."""
    memory, counts = _points(data, route, solver)
    return float(np.median(counts[(memory >= low) & (memory <= high)]))


def facts(data: Dataset) -> dict[str, Any]:
    """Compare where both routes have networks: from half the longest memory that both reach to that."""
    longest = {route: float(_points(data, route, "newton")[0].max()) for route in ROUTES}
    high = min(longest.values())
    found: dict[str, Any] = {f"longest.{route}": memory for route, memory in longest.items()}
    found |= {"low": high / 2, "high": high}
    for solver in SOLVERS:
        for route in ROUTES:
            found[f"{solver}.{route}"] = _between(data, route, solver, high / 2, high)
            memory, counts = _points(data, route, solver)
            found[f"{solver}.{route}.least"], found[f"{solver}.{route}.most"] = float(counts.min()), float(counts.max())
    return found


def draw(pyplot: Any, data: Dataset) -> Any:
    figure, axes = pyplot.subplots(1, len(SOLVERS), figsize=(10.5, 3.2), sharex=True, sharey=True)
    looks = {r: {**look, "label": ROUTES[r], "linestyle": "none"} for r, look in series(ROUTES).items()}
    for ax, solver in zip(axes, SOLVERS, strict=True):
        for route, look in looks.items():
            ax.plot(*_points(data, route, solver), **look)
        ax.set(xscale="log", yscale="log", title=solver, xlabel="memory: -1 / largest exponent (steps)")
    axes[0].set_ylabel("iterations")
    outside_legend(figure, pyplot, looks.values())
    return figure


def says(data: Dataset) -> str:
    f = facts(data)
    words = [f"{s} {f[f'{s}.tau']:.0f} through tau and {f[f'{s}.gain']:.0f} through W" for s in SOLVERS]
    return (
        f"At the same memory, {f['low']:.0f} to {f['high']:.0f} steps, the median iterations are: {listed(words)}. Over "
        f"all networks Newton takes {f['newton.tau.least']:.0f} to {f['newton.tau.most']:.0f} through tau and "
        f"{f['newton.gain.least']:.0f} to {f['newton.gain.most']:.0f} through W. Slow units are the diagonal of the "
        f"Jacobian, which quasi-Newton keeps whole; a memory in W it has to find by iterating, as Jacobi does for both."
    )


def tables(data: Dataset) -> list[Table]:
    f = facts(data)
    rows = [[s, f"{f[f'{s}.tau']:.0f}", f"{f[f'{s}.gain']:.0f}"] for s in SOLVERS]
    title = f"Median iterations at a memory of {f['low']:.0f} to {f['high']:.0f} steps"
    return [Table(title, ["solver", "through tau", "through W"], rows)]


STUDY = study_of(
    __name__,
    name="memory_routes",
    question="Which way to a long memory costs solvers more: slow units, or recurrent weights?",
    dims=("route", "level", "seed", "solver"),
    pictures=(Picture("routes", draw, says),),
)

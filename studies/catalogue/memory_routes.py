"""Leaky tau RNN (Khajehabdollahi et al., arXiv 2309.12927): what a long memory costs, through tau or through W."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from recsolve.base.arrays import Array
from recsolve.studies.compare.measure import loop, lyapunov, measured
from recsolve.studies.draw.drawing import listed, times
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
    gains: tuple[float, ...] = (0.3, 0.8, 1.1, 1.2, 1.3, 1.4)
    weak: float = 0.3
    T: int = 512
    units: int = 24
    seeds: int = 6


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
    changes: dict[str, Any] = {"tau": level, "gain": weak} if route == "tau" else {"tau": 1.0, "gain": level}
    rec = get("leaky_outer").build(length=T, units=units, batch=1, seed=seed, dtype=dtype, **changes)
    truth = loop(rec)
    memory = -1 / lyapunov(rec, truth)
    return [{"memory": memory, **measured(rec, solver, truth)} for solver in SOLVERS]


def _points(data: Dataset, route: str, solver: str) -> tuple[Array, Array]:
    """Return memory, in steps, and iterations of every network of a route, without those that forget nothing."""
    part = data.sel(route=route, solver=solver)
    memory, counts = (part[name].values.ravel() for name in ("memory", "iterations"))
    known = np.isfinite(memory) & np.isfinite(counts) & (memory > 0)
    return memory[known], counts[known]


def facts(data: Dataset) -> dict[str, Any]:
    """Compare at the same memory: that of the longer half of the networks with W, as far as those with tau reach."""
    slow, fast = (np.sort(_points(data, route, "newton")[0]) for route in ROUTES)
    both = fast[(fast >= slow[0]) & (fast <= slow[-1])]
    low, high = float(np.median(both)), float(both[-1])
    found: dict[str, Any] = {"low": low, "high": high}
    for solver in SOLVERS:
        for route in ROUTES:
            memory, counts = _points(data, route, solver)
            order = np.argsort(memory)
            at = both[both >= low]
            found[f"{solver}.{route}"] = float(np.median(np.interp(np.log(at), np.log(memory[order]), counts[order])))
            found[f"{solver}.{route}.range"] = [float(counts.min()), float(counts.max())]
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
    ratios = [f"{s} {times(f[f'{s}.gain'] / f[f'{s}.tau'])}" for s in SOLVERS]
    return (
        f"A memory through recurrent weights costs {listed(ratios)} the iterations of the same memory through slow "
        f"units, {f['low']:.0f} to {f['high']:.0f} steps. Slow units are the diagonal of the Jacobian, which is what "
        "quasi-Newton keeps."
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

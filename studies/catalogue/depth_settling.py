"""Depth as time: when loops over one layer settle, and what a parallel solver makes of it.

Universal Transformer (Dehghani et al., arXiv 1807.03819) without its embedding of depth, and the block of a model of
recurrent depth (Geiping, Yang and Su, arXiv 2510.14961).
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING, Any

import numpy as np

import recsolve as rs
from recsolve.base.arrays import Array
from recsolve.studies.compare.measure import loop, measured
from recsolve.studies.draw.drawing import band, converged, listed
from recsolve.studies.draw.series import outside_legend
from recsolve.studies.draw.style import line_arguments
from recsolve.studies.registry import Picture, Table, study_of
from recsolve.studies.store.records import Point, Row, product
from recsolve.studies.systems import recurrent_depth, universal

if TYPE_CHECKING:
    from xarray import DataArray, Dataset

TRANSFORMER, BLOCK = "universal transformer", "recurrent-depth block"
SETTLED = "loop, until it settles"
_NEAR = 1e-8  # changes from one depth to the next that count as settled, against the largest number


@dataclass(frozen=True)
class Config:
    """``gains`` scale all weights; a loop that has not settled at ``depth`` is not drawn."""

    models: tuple[str, ...] = (TRANSFORMER, BLOCK)
    gains: tuple[float, ...] = (0.25, 0.5, 0.75, 1.0, 1.5, 2.0, 3.0)
    depth: int = 256
    seeds: int = 4
    solvers: tuple[str, ...] = ("newton", "jacobi")


TINY = Config(gains=(0.5, 1.0, 4.0), depth=64, seeds=2)
FULL = Config(gains=tuple(float(g) for g in np.arange(1, 17) / 4), depth=1024, seeds=20)


def grid(config: Config) -> Iterator[Point]:
    return product(
        model=config.models, gain=config.gains, depth=config.depth, seed=range(config.seeds), dtype="float64",
        solvers=[*config.solvers],
    )  # fmt: skip


def recurrence(model: str, gain: float, depth: int, seed: int, dtype: str) -> rs.Recurrence:
    """Return the same layer applied again and again from a random state."""
    if model == TRANSFORMER:
        arrays = universal.draw(universal.Config(length=depth, gain=gain, seed=seed, dtype=dtype))
        return universal.transformer({**arrays, "P": np.zeros_like(arrays["P"])})
    arrays = recurrent_depth.draw(recurrent_depth.Config(length=1, gain=gain, seed=seed, dtype=dtype))
    given: dict[str, Any] = {
        "past": np.zeros_like(arrays["s0"]),
        "P": arrays["P"],
        "arrays": recurrent_depth.weights_of(arrays),
    }
    return rs.Recurrence.from_function(partial(_iterated, **given), initial=arrays["s0"], length=depth)


def _iterated(s: Any, u: Any, past: Array, P: Array, arrays: Any) -> Any:
    return recurrent_depth.iterate(s, past, P, 1, arrays)


def run(*, model: str, gain: float, depth: int, seed: int, dtype: str, solvers: list[str]) -> list[Row]:
    rec = recurrence(model, gain, depth, seed, dtype)
    states = loop(rec)
    settles = settling(states)
    status = "converged" if np.isfinite(settles) else "maxiter"
    rows = [{"solver": SETTLED, "status": status, "iterations": settles}]
    return [*rows, *(measured(rec, solver, states) for solver in solvers)]


def settling(states: Array) -> float:
    """Return after how many steps nothing changes any more, NaN where that is not seen."""
    change = np.abs(np.diff(states.reshape(len(states), -1), axis=0)).max(axis=1) / np.abs(states).max()
    moving = np.flatnonzero(~(change <= _NEAR))
    last = int(moving[-1]) + 2 if moving.size else 1
    return float(last) if last < len(states) else float("nan")


def _counts(data: Dataset, model: str, solver: str) -> DataArray:
    """Return iterations by gain and seed, NaN where not converged."""
    return converged(data.sel(model=model, solver=solver).isel(depth=-1), "iterations").transpose("gain", "seed")


def _names(data: Dataset, axis: str) -> list[str]:
    return [str(name) for name in data[axis].values]


def facts(data: Dataset) -> dict[str, Any]:
    gains = data["gain"].values
    found: dict[str, Any] = {"gains": [float(gains[0]), float(gains[-1])], "depth": int(data["depth"].max())}
    sweeps = []
    for model in _names(data, "model"):
        steps, jacobi = (_counts(data, model, solver).values for solver in (SETTLED, "jacobi"))
        settled = np.isfinite(steps)
        found[f"{model}.settled"] = settled.mean(axis=1).tolist()
        found[f"{model}.steps"] = [
            float(np.median(row[there])) if there.any() else None for row, there in zip(steps, settled, strict=True)
        ]
        sweeps.append((jacobi / steps)[settled & (jacobi < found["depth"] - 1)])
        for solver in _names(data, "solver"):
            if solver != SETTLED:
                medians = _counts(data, model, solver).median("seed", skipna=False).values
                found[f"{model}.{solver}"] = [float(n) for n in medians]
    found["sweeps"] = float(np.median(np.concatenate(sweeps)))
    return found


def draw(pyplot: Any, data: Dataset) -> Any:
    models, gains = _names(data, "model"), data["gain"].values
    shape = {"figsize": (4.0 * len(models) + 2.2, 4.4), "height_ratios": (3, 1)}
    figure, axes = pyplot.subplots(2, len(models), sharex=True, sharey="row", squeeze=False, **shape)
    looks = {
        solver: {**line_arguments("sequential" if solver == SETTLED else solver), "label": solver}
        for solver in _names(data, "solver")
    }
    looks[SETTLED] |= {"linestyle": "none"}  # a point a seed: some do not settle
    for (top, bottom), model in zip(axes.T, models, strict=True):
        for solver, look in looks.items():
            counts = _counts(data, model, solver)
            if solver == SETTLED:
                top.plot(gains, counts, **look)
                bottom.plot(gains, np.isfinite(counts.values).mean(axis=1), color="k", marker=".")
            else:
                band(top, gains, counts, "seed", solver, **look)
        top.set(yscale="log", title=model)
        bottom.set(xlabel="gain of the weights", ylim=(-0.05, 1.05))
    axes[0, 0].set_ylabel("steps, iterations")
    axes[1, 0].set_ylabel("share that\nsettles")
    outside_legend(figure, pyplot, looks.values())
    return figure


def says(data: Dataset) -> str:
    f = facts(data)
    shares = [f"{f[f'{model}.settled'][-1]:.0%} ({model})" for model in _names(data, "model")]
    return (
        f"Where the loop settles, Jacobi over depth takes {f['sweeps']:.1f}x as many sweeps as the loop takes steps, "
        f"however deep the stack is: it is the fixed-point iteration. Large weights do not always settle: at gain "
        f"{f['gains'][1]:g} {listed(shares)} of the seeds do."
    )


def tables(data: Dataset) -> list[Table]:
    f, gains = facts(data), data["gain"].values
    rows = [[model, *(f"{share:.0%}" for share in f[f"{model}.settled"])] for model in _names(data, "model")]
    return [Table("Seeds that settle, by gain", ["model", *(f"{g:g}" for g in gains)], rows)]


STUDY = study_of(
    __name__,
    name="depth",
    question="When do loops over one layer settle, and how many iterations does a solver over depth need then?",
    dims=("model", "gain", "depth", "seed", "solver"),
    pictures=(Picture("settling", draw, says),),
)

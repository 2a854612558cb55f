"""CfC (Hasani et al., arXiv 2106.13898): what a step of a closed-form network does when its duration changes.

A flow in continuous time does nothing in no time, and two halves of a step are the step. A closed form need not be one.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from recsolve.base.arrays import Array
from recsolve.studies.compare.measure import loop, lyapunov, measured
from recsolve.studies.draw.drawing import band, converged
from recsolve.studies.draw.series import level, outside_legend, series
from recsolve.studies.draw.style import line_arguments
from recsolve.studies.registry import Picture, Table, study_of
from recsolve.studies.store.records import Point, Row, product
from recsolve.studies.systems import cfc
from recsolve.studies.systems.system import Arrays

if TYPE_CHECKING:
    from xarray import DataArray, Dataset

SOLVERS = ("newton", "quasi_newton", "jacobi")


@dataclass(frozen=True)
class Config:
    """``T`` steps of each of the ``durations``; weights of states with a deviation of ``gain`` / sqrt(units)."""

    durations: tuple[float, ...] = (0.0, 0.1, 0.3, 1.0, 3.0, 10.0, 30.0)
    T: int = 128
    units: int = 16
    gain: float = 1.5
    seeds: int = 3


TINY = Config(durations=(0.0, 1.0, 30.0), T=48, units=8, seeds=2)
FULL = Config(durations=(0.0, 0.01, 0.03, 0.1, 0.3, 1.0, 3.0, 10.0, 30.0, 100.0), T=2048, units=64, seeds=20)


def grid(config: Config) -> Iterator[Point]:
    yield from product(
        duration=config.durations, seed=range(config.seeds), T=config.T, units=config.units, gain=config.gain,
        dtype="float64",
    )  # fmt: skip


def run(*, duration: float, seed: int, T: int, units: int, gain: float, dtype: str) -> list[Row]:
    arrays = cfc.draw(cfc.Config(length=T, batch=1, units=units, gain=gain, seed=seed, dtype=dtype))
    rec = cfc.make(lasting(arrays, duration, 1))
    truth = loop(rec)
    size = float(np.linalg.norm(truth))
    halves = loop(cfc.make(lasting(arrays, duration, 2)))[1::2]
    found = {
        "exponent": lyapunov(rec, truth),
        "split": float(np.linalg.norm(halves - truth)) / size,
        "moved": float(np.linalg.norm(truth[1:] - truth[:-1])) / size,
    }
    return [{**found, **measured(rec, solver, truth)} for solver in SOLVERS]


def lasting(arrays: Arrays, duration: float, parts: int) -> dict[str, Array]:
    """Return the arrays with steps of one duration, each in equal parts on the same input."""
    I = np.repeat(arrays["I"], parts, axis=0)  # noqa: E741
    return {**arrays, "I": I, "t": np.full((*I.shape[:2], 1), duration / parts, I.dtype)}


def _of(data: Dataset, name: str, solver: str) -> DataArray:
    return converged(data, name).sel(solver=solver).transpose("duration", "seed")


def facts(data: Dataset) -> dict[str, Any]:
    found: dict[str, Any] = {"durations": [float(t) for t in data["duration"].values]}
    for name in ("split", "moved", "exponent"):
        found[name] = [float(x) for x in _of(data, name, "newton").median("seed")]
    for solver in SOLVERS:
        counts = _of(data, "iterations", solver).median("seed", skipna=False)
        found[solver] = [float(x) for x in counts]
    return found


def draw(pyplot: Any, data: Dataset) -> Any:
    figure, (left, right) = pyplot.subplots(1, 2, figsize=(10, 3.4))
    x = data["duration"].values
    looks = series(("change from step to step", "two halves beside the whole"))
    for name, look in zip(("moved", "split"), looks.values(), strict=True):
        band(left, x, _of(data, name, "newton"), "seed", name, **look)
    level(left, 0.0, "what a flow changes in no time", "left")
    others = {solver: {**line_arguments(solver), "label": solver} for solver in SOLVERS}
    for solver, look in others.items():
        band(right, x, _of(data, "iterations", solver), "seed", solver, **look)
    for ax in (left, right):
        ax.set_xscale("symlog", linthresh=0.1, linscale=0.5)
        ax.set(xlabel="duration of a step (rates are about 1)", xlim=(-0.02, 1.2 * x[-1]))
        ax.set_xticks(x, [f"{t:g}" for t in x])
        ax.minorticks_off()
    left.set(ylabel="over the size of the states", ylim=(-0.05, None))
    right.set(ylabel="iterations", yscale="log")
    handles = [pyplot.Line2D([], [], **look) for look in looks.values()]
    left.legend(handles=handles, loc="center right", bbox_to_anchor=(1.0, 0.3))
    outside_legend(figure, pyplot, others.values())
    return figure


def says(data: Dataset) -> str:
    f = facts(data)
    zero = f["durations"][0]
    return (
        f"A closed form is no flow: a step of duration {zero:g} changes the state by {f['moved'][0]:.2f} of its size, "
        f"for both heads count half at t = 0. Durations are sharpness: the longer a step, the more its gate decides by "
        f"the state, and Newton goes from {f['newton'][0]:.0f} to {f['newton'][-1]:.0f} iterations."
    )


def tables(data: Dataset) -> list[Table]:
    f = facts(data)
    rows = [[name, *(f"{x:.2f}" for x in f[name])] for name in ("moved", "split", "exponent")]
    rows += [[solver, *(f"{x:.0f}" for x in f[solver])] for solver in SOLVERS]
    return [Table("Medians by duration", ["", *(f"{t:g}" for t in f["durations"])], rows)]


STUDY = study_of(
    __name__,
    name="durations",
    question="Is a closed-form network in continuous time one, and what do durations cost solvers?",
    dims=("duration", "seed", "solver"),
    pictures=(Picture("durations", draw, says),),
)

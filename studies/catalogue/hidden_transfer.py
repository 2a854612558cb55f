"""Hidden transfer (Wu et al., arXiv 2404.12022): how many states a pass finds, with linear drafts."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

import numpy as np

import recsolve as rs
from recsolve.studies.draw.drawing import band
from recsolve.studies.draw.series import outside_legend, series
from recsolve.studies.registry import Picture, Table, study_of
from recsolve.studies.store.records import Point, Row, product
from recsolve.studies.systems.hidden_transfer import Draft, verified
from recsolve.studies.systems.system import get

if TYPE_CHECKING:
    from xarray import DataArray, Dataset


@dataclass(frozen=True)
class Config:
    """``reaches`` k, of how many states are drafted; ``drives``, by which steps are further from linear."""

    reaches: tuple[int, ...] = (1, 2, 4, 8, 16)
    drives: tuple[float, ...] = (0.1, 0.25, 0.5, 1.0)
    levels: float = 2.0
    T: int = 1024
    seeds: int = 4


TINY = Config(reaches=(1, 4), drives=(0.1, 1.0), T=200, seeds=2)
FULL = Config(reaches=(1, 2, 4, 8, 16, 32), T=16384, seeds=10)


def grid(config: Config) -> Iterator[Point]:
    yield from product(
        drive=config.drives, k=config.reaches, levels=config.levels, T=config.T, seed=range(config.seeds), dtype="int64"
    )


def run(*, drive: float, k: int, levels: float, T: int, seed: int, dtype: str) -> list[Row]:
    assert dtype == "int64"
    system = get("hidden_transfer")
    config = replace(system.config, length=T, drive=drive, levels=levels, seed=seed)
    known = rs.solve(system.build(system.draw(replace(config, length=4 * T))), method="sequential")
    draft = Draft(known, k)
    arrays = {**system.draw(replace(config, seed=1000 + seed)), "W": known.recurrence.parameters.W}  # type: ignore[attr-defined]
    rec = system.build(arrays)
    truth = rs.solve(rec, method="sequential").states
    states, found = verified(rec, draft, k)
    return [
        {
            "status": "converged" if np.array_equal(states, truth) else "differs",
            "passes": len(found),
            "found": float(np.mean(found)),
            "first": float(np.mean(np.array(found[:-1]) > 1)),  # how often the first state of a draft is right
        }
    ]


def expected(alpha: Any, k: Any) -> Any:
    """Return how many states a pass finds where every drafted state is right with probability alpha, independently."""
    alpha = np.minimum(alpha, 1 - 1e-12)
    return (1 - alpha ** (np.asarray(k) + 1)) / (1 - alpha)


def _found(data: Dataset, drive: float) -> DataArray:
    return data["found"].sel(drive=drive).squeeze(["T", "levels"])


def _alpha(data: Dataset, drive: float) -> float:
    return float(data["first"].sel(drive=drive).mean())


def facts(data: Dataset) -> dict[str, Any]:
    found: dict[str, Any] = {
        "exact": bool((data["status"] == "converged").all()),
        "k": [int(k) for k in data["k"].values],
    }
    for drive in data["drive"].values:
        middle = _found(data, drive).median("seed").values
        alpha = _alpha(data, drive)
        found[f"{drive:g}.found"] = [float(x) for x in middle]
        found[f"{drive:g}.alpha"] = alpha
        found[f"{drive:g}.expected"] = [float(x) for x in expected(alpha, data["k"].values)]
    return found


def draw(pyplot: Any, data: Dataset) -> Any:
    figure, ax = pyplot.subplots(figsize=(6.8, 3.8))
    k = data["k"].values
    looks = series(f"drive {drive:g}" for drive in data["drive"].values)
    for look, drive in zip(looks.values(), data["drive"].values, strict=True):
        band(ax, k, _found(data, drive), "seed", "jacobi", **{**look, "linestyle": "-"})
        ax.plot(k, expected(_alpha(data, drive), k), color=look["color"], linestyle=":", linewidth=1)
    ax.set(xscale="log", yscale="log", xlabel="states drafted, k", ylabel="states found in a pass")
    for axis, ticks in ((ax.xaxis, k), (ax.yaxis, (1, 2, 4, 8))):
        axis.set_ticks(ticks, [str(x) for x in ticks])
        axis.set_ticks([], minor=True)
    shown = [{**look, "linestyle": "-"} for look in looks.values()]
    outside_legend(figure, pyplot, [*shown, {"color": "0.4", "linestyle": ":", "linewidth": 1, "label": "independent"}])
    return figure


def says(data: Dataset) -> str:
    f = facts(data)
    low, high = (f"{d:g}" for d in data["drive"].values[[0, -1]])
    return (
        f"Longer drafts end to pay as soon as a wrong state is likely among them: with {f['k'][-1]} a pass finds "
        f"{f[f'{low}.found'][-1]:.3g} states at the least drive and {f[f'{high}.found'][-1]:.3g} at the most, where "
        f"the first is right in {100 * f[f'{high}.alpha']:.0f} %. Every run gave the states of the "
        f"loop{'' if f['exact'] else ', but for some'}. Dotted: if states were right independently."
    )


def tables(data: Dataset) -> list[Table]:
    f = facts(data)
    rows = [[f"{d:g}", *(f"{x:.2f}" for x in f[f"{d:g}.found"])] for d in data["drive"].values]
    return [Table("Median states found in a pass", ["drive", *(f"k = {k}" for k in f["k"])], rows)]


STUDY = study_of(
    __name__,
    name="hidden_transfer",
    question="How many states does a pass find whose drafts are linear maps of the last state?",
    dims=("drive", "k", "levels", "T", "seed"),
    pictures=(Picture("found", draw, says),),
)

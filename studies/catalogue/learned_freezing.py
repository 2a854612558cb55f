"""Learn2PD (Bao et al., arXiv 2509.25188): a learned filter that freezes rows, beside a threshold and an oracle."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

import recsolve as rs
from recsolve.base.arrays import Array
from recsolve.studies.compare.measure import loop
from recsolve.studies.draw.series import outside_legend, series
from recsolve.studies.registry import Picture, Table, study_of
from recsolve.studies.store.records import Point, Row, product
from recsolve.studies.systems.learn2pd import Filter
from recsolve.studies.systems.system import Arrays, get

if TYPE_CHECKING:
    from xarray import DataArray, Dataset

LEARNED, ELSEWHERE, FIXED, ORACLE = "learned filter", "learned at gain 1", "|residual| < threshold", "oracle"
RULES = (LEARNED, ELSEWHERE, FIXED, ORACLE)
ERROR = 1e-2  # from which on a frozen row is wrong
FEW = 0.01  # share of wrong rows that is let pass
SPEEDUP = 22.58  # published, without a cache of keys and values


@dataclass(frozen=True)
class Config:
    """``chances`` from which on the filter freezes, ``thresholds`` of the residual, ``gains`` of the network."""

    gains: tuple[float, ...] = (0.7, 1.0, 1.3, 1.6)
    chances: tuple[float, ...] = (0.1, 0.3, 0.5, 0.7, 0.9, 0.97, 0.99, 0.999)
    thresholds: tuple[float, ...] = (1e-1, 3e-2, 1e-2, 3e-3, 1e-3, 1e-4)
    T: int = 512
    units: int = 16
    seeds: int = 5


TINY = Config(gains=(0.7, 1.6), chances=(0.5, 0.99), thresholds=(1e-1, 1e-3), T=96, seeds=2)
FULL = Config(gains=(0.5, 0.7, 1.0, 1.3, 1.6, 1.9), T=4096, units=64, seeds=20)


def grid(config: Config) -> Iterator[Point]:
    """Yield a point for every network and its input; all rules are tried on it."""
    yield from product(
        gain=config.gains, seed=range(config.seeds), T=config.T, units=config.units, dtype="float64",
        chances=[*config.chances], thresholds=[*config.thresholds],
    )  # fmt: skip


def run(
    *, gain: float, seed: int, T: int, units: int, dtype: str, chances: list[float], thresholds: list[float]
) -> list[Row]:
    """Return for every rule the rows that were worked on, of those of all sweeps, and the share that is wrong."""
    shape = {"length": T, "units": units, "batch": 1, "dtype": dtype}
    train = _drawn(gain, seed, shape)
    rec = get("learn2pd").build({**_drawn(gain, seed + 1_000, shape), "W": train["W"]})
    truth, whole = loop(rec), rs.solve(rec, method="jacobi")
    filters = {
        name: Filter.fitted(get("learn2pd").build(arrays), ERROR)
        for name, arrays in ((LEARNED, train), (ELSEWHERE, _drawn(1.0, seed + 2_000, shape)))
    }

    def known(problem: Any, iterate: Any) -> Array:
        near: Array = np.abs(iterate.states - truth[problem.index]).max(axis=-1) < ERROR
        return near

    rules: list[tuple[str, float, Any]] = [
        *((name, chance, Filter(rule.weights, chance)) for name, rule in filters.items() for chance in chances),
        *((FIXED, threshold, np.full(T, threshold)) for threshold in thresholds),
        (ORACLE, ERROR, known),
    ]
    rows = []
    for name, level, accept in rules:
        sol = rs.solve(rec, method="jacobi", options={"accept": accept})
        wrong = np.abs(sol.states - truth).max(axis=-1) >= ERROR
        rows.append(
            {
                "rule": name,
                "level": level,
                "status": str(sol.status),
                "sweeps": sol.nit,
                "work": sol.stats["rows"] / whole.stats["rows"],
                "wrong": float(wrong.mean()),
            }
        )
    return rows


def _drawn(gain: float, seed: int, shape: dict[str, Any]) -> Arrays:
    system = get("learn2pd")
    return system.draw(system.configured(gain=gain, seed=seed, **shape))


def _middle(data: Dataset, rule: str, gain: float, name: str) -> DataArray:
    """Return means over seeds by level, in the order of levels."""
    return data[name].sel(rule=rule, gain=gain).dropna("level", how="all").mean("seed")


def facts(data: Dataset) -> dict[str, Any]:
    """Return for every gain and rule the least work with few wrong rows, and the ranges of both."""
    found: dict[str, Any] = {"gains": [float(g) for g in data["gain"].values]}
    for gain in found["gains"]:
        for rule in RULES:
            work, wrong = (_middle(data, rule, gain, name).values for name in ("work", "wrong"))
            good = wrong <= FEW
            found[f"{gain:g}.{rule}"] = float(work[good].min()) if good.any() else None
            found[f"{gain:g}.{rule}.wrong"] = [float(wrong.min()), float(wrong.max())]
            found[f"{gain:g}.{rule}.work"] = [float(work.min()), float(work.max())]
    return found


def draw(pyplot: Any, data: Dataset) -> Any:
    """Draw wrong rows against work, a panel for every gain."""
    gains, looks = data["gain"].values, series(RULES)
    figure, axes = pyplot.subplots(1, len(gains), figsize=(2.6 * len(gains) + 2.2, 3.3), sharey=True, squeeze=False)
    for ax, gain in zip(axes[0], gains, strict=True):
        for rule, look in looks.items():
            work, wrong = (_middle(data, rule, gain, name).values for name in ("work", "wrong"))
            ax.plot(100 * work, 100 * wrong, **{**look, **({"markersize": 9} if rule == ORACLE else {})})
        ax.axhline(100 * FEW, color="0.4", linewidth=0.8, linestyle=":", zorder=0)
        ax.set_yscale("symlog", linthresh=100 * FEW)
        ax.set(title=f"gain {gain:g}", xlabel="work, % of all sweeps", ylim=(-0.1, 100))
    axes[0, 0].set_yticks([0, 1, 10, 100], ["0", "1", "10", "100"])
    axes[0, 0].set_ylabel(f"rows off by {ERROR:g} or more, %")
    outside_legend(figure, pyplot, looks.values())
    return figure


def says(data: Dataset) -> str:
    f = facts(data)
    gain = f["gains"][-1]
    works = (f[f"{gain:g}.{rule}"] for rule in (FIXED, LEARNED, ORACLE))
    fixed, learned, oracle = ("all" if work is None else f"{100 * work:.0f} %" for work in works)
    return (
        f"Where rows freeze from the front a residual tells the error: at gain {gain:g} a threshold on it leaves "
        f"{fixed} of the work of all sweeps, a learned filter {learned}, and the oracle that knows the solution "
        f"{oracle}, if at most {FEW:.0%} of the rows may be wrong."
    )


def tables(data: Dataset) -> list[Table]:
    """Return the least work of every rule."""
    f = facts(data)

    def share(work: float | None) -> str:
        return "-" if work is None else f"{work:.0%}"

    rows = [[rule, *(share(f[f"{gain:g}.{rule}"]) for gain in f["gains"])] for rule in RULES]
    title = f"Least work, of that of all sweeps, with at most {FEW:.0%} wrong (published, learned: {1 / SPEEDUP:.0%})"
    return [Table(title, ["rule", *(f"gain {g:g}" for g in f["gains"])], rows)]


STUDY = study_of(
    __name__,
    name="learn2pd",
    question="What does a learned rule save that says which states are settled, beside a threshold?",
    dims=("gain", "rule", "level", "seed"),
    pictures=(Picture("wrong", draw, says),),
)

"""Recurrences that are no networks: Langevin dynamics in two wells, chaotic flows, and observers of them.

After figure 3 and table 1 of Gonzalez et al., NeurIPS 2025 (arXiv 2508.16817): Newton takes about as many
iterations as there are steps on chaotic systems, and a few on observers of the same systems, which contract.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from recsolve.studies.compare.measure import loop, lyapunov, measured
from recsolve.studies.draw.drawing import band, converged, legend, powers_of_two, span
from recsolve.studies.draw.series import level, outside_legend, series
from recsolve.studies.problems.flows import FLOWS, observer, system, two_wells
from recsolve.studies.registry import Picture, Table, study_of
from recsolve.studies.store.records import Point, Row, product

if TYPE_CHECKING:
    from xarray import DataArray, Dataset

WELLS = "two wells"
SYSTEM = 0.0  # the nudge of a system that no observation corrects
# As the paper has them: two wells at T = 10^4, and nine flows at T = 30 000 in steps of 0.01.
PUBLISHED = {"two wells": "about 35 at most", "system": "hundreds to 30 000", "observer": "2 to 14"}


@dataclass(frozen=True)
class Config:
    """Particles at ``temperature`` in steps of 0.01; flows over ``steps`` steps, observers with each ``nudge``."""

    lengths: tuple[int, ...] = (128, 256, 512, 1024, 2048)
    temperature: float = 1.0
    wells: tuple[str, ...] = ("newton", "damped_newton", "clipped_newton", "multiple_shooting", "windowed")
    paths: int = 5
    flows: tuple[str, ...] = tuple(FLOWS)
    steps: int = 300
    nudges: tuple[float, ...] = (SYSTEM, 0.02, 0.05, 0.1, 0.2)
    solvers: tuple[str, ...] = ("newton", "quasi_newton", "multiple_shooting")
    seeds: int = 2
    tol: float = 1e-8


FULL = Config(
    lengths=tuple(2**k for k in range(7, 15)), wells=Config.wells, paths=10, steps=3000,
    nudges=(SYSTEM, 0.01, 0.02, 0.03, 0.05, 0.07, 0.1, 0.2), solvers=(*Config.solvers, "damped_newton", "jacobi"),
    seeds=5,
)  # fmt: skip
TINY = Config(
    lengths=(64, 256), wells=("newton", "clipped_newton"), paths=2, flows=("lorenz63", "rossler"), steps=120,
    nudges=(SYSTEM, 0.2), solvers=("newton", "multiple_shooting"), seeds=1,
)  # fmt: skip


def grid(config: Config) -> Iterator[Point]:
    yield from product(
        problem=WELLS, T=config.lengths, nudge=SYSTEM, seed=range(config.paths), temperature=config.temperature,
        solvers=[*config.wells], tol=config.tol, dtype="float64",
    )  # fmt: skip
    yield from product(
        problem=config.flows, T=config.steps, nudge=config.nudges, seed=range(config.seeds), temperature=0.0,
        solvers=[*config.solvers], tol=config.tol, dtype="float64",
    )  # fmt: skip


def run(
    *, problem: str, T: int, nudge: float, seed: int, temperature: float, solvers: list[str], tol: float, dtype: str
) -> list[Row]:
    assert dtype == "float64", "flows are in float64"
    if problem == WELLS:
        rec = two_wells(T, seed, temperature)
    else:
        rec = system(problem, T, seed) if nudge == SYSTEM else observer(problem, T, seed, nudge)
    truth = loop(rec)
    shared = {"exponent": lyapunov(rec, truth)}
    return [{**measured(rec, solver, truth, tol=tol), **shared} for solver in solvers]


def _wells(data: Dataset, solver: str) -> DataArray:
    """Return iterations by length and seed."""
    part = converged(data, "iterations").sel(problem=WELLS, nudge=SYSTEM, solver=solver)
    return part.dropna("T", how="all").transpose("T", "seed")


def _flows(data: Dataset) -> Dataset:
    part = data.sel(problem=[p for p in data["problem"].values if p != WELLS])
    for dim in ("T", "seed"):
        part = part.dropna(dim, how="all", subset=["exponent"])
    return part.squeeze("T")


def _ran(data: Dataset, flows: bool) -> list[str]:
    """Return the solvers that flows, or particles, were solved with."""
    part = _flows(data) if flows else data.sel(problem=WELLS)
    return [str(s) for s in data["solver"].values if np.isfinite(part["exponent"].sel(solver=s).values).any()]


def facts(data: Dataset) -> dict[str, Any]:
    found: dict[str, Any] = {}
    for solver in _ran(data, flows=False):
        counts = _wells(data, solver)
        middle, most = counts.median("seed", skipna=False).values, counts.max("seed", skipna=False).values
        found[f"wells.{solver}"] = [float(middle[0]), float(middle[-1]), float(most[-1])]
    found["wells.T"] = [int(T) for T in _wells(data, "newton")["T"].values[[0, -1]]]
    part = _flows(data)
    counts = converged(part, "iterations")
    found["steps"], found["nudges"] = int(part["T"]), [float(x) for x in part["nudge"].values[[0, -1]]]
    for solver in _ran(data, flows=True):
        for name, nudge in (("system", 0), ("observer", -1)):
            values = counts.sel(solver=solver).isel(nudge=nudge).values
            found[f"{solver}.{name}"] = [float(f(values)) for f in (np.nanmin, np.nanmax)]
    # Contractive and still not cheap: exponents below 0 where Newton takes more than a tenth of T.
    x, k = part["exponent"].sel(solver="newton").values, counts.sel(solver="newton").values
    dear = x[(x < 0) & (k > found["steps"] / 10)]
    found["dear_down_to"] = float(dear.min()) if dear.size else float("nan")
    found["unconverged"] = int((~np.isin(data["status"].values, ("", "converged"))).sum())
    return found


def draw_wells(pyplot: Any, data: Dataset) -> Any:
    figure, ax = pyplot.subplots(figsize=(6.8, 3.7))
    solvers = _ran(data, flows=False)
    for solver in solvers:
        counts = _wells(data, solver)
        band(ax, counts["T"].values, counts, "seed", solver)
    T = _wells(data, "newton")["T"].values
    ax.plot(T, T, color="0.5", linewidth=0.8, linestyle=":")
    ax.annotate("T", (T[-1], T[-1]), xytext=(-10, 0), textcoords="offset points", fontsize=8)
    ax.set(xscale="log", yscale="log", xlabel="T", ylabel="iterations to convergence")
    powers_of_two(ax.xaxis, [float(t) for t in T])
    legend(figure, pyplot, solvers)
    return figure


def says_wells(data: Dataset) -> str:
    f = facts(data)
    most = {s: f[f"wells.{s}"][2] for s in _ran(data, flows=False)}
    best = min(most, key=most.__getitem__)
    return (
        f"Where Newton gets lost between the wells, it gets lost for long: at T = {f['wells.T'][1]} its median is "
        f"{f['wells.newton'][1]:.0f} iterations and its most, of {data['seed'].size} paths, {most['newton']:.0f}. The "
        f"steadiest is {best}, which takes at most {most[best]:.0f}."
    )


def draw_observers(pyplot: Any, data: Dataset) -> Any:
    part, solvers = _flows(data), _ran(data, flows=True)
    figure, axes = pyplot.subplots(1, len(solvers), figsize=(3.3 * len(solvers) + 1.7, 3.5), sharey=True, squeeze=False)
    looks = series(map(str, part["problem"].values))
    for ax, solver in zip(axes[0], solvers, strict=True):
        at = part.sel(solver=solver)
        for flow, look in looks.items():
            x, k = at["exponent"].sel(problem=flow).values, converged(at, "iterations").sel(problem=flow).values
            ax.plot(x.ravel(), k.ravel(), **{**look, "linestyle": "none"})
        ax.axvline(0, color="0.4", linewidth=0.8)
        level(ax, int(part["T"]), "T", "left")
        ax.set(yscale="log", title=solver, xlabel="largest exponent per step")
    axes[0, 0].set_ylabel(f"iterations, T = {int(part['T'])}")
    outside_legend(figure, pyplot, [{**look, "linestyle": "none"} for look in looks.values()])
    return figure


def says_observers(data: Dataset) -> str:
    f = facts(data)
    dear = f"{f['dear_down_to']:.3f}" if np.isfinite(f["dear_down_to"]) else "0"
    return (
        "An observer that is drawn to a chaotic flow is solved in few iterations, and the flow is not: Newton takes "
        f"at most {f['newton.observer'][1]:.0f} (leftmost points) against up to {f['newton.system'][1]:.0f} of T = "
        f"{f['steps']} (rightmost). The knee is not sharp: down to an exponent of {dear} Newton can still take more "
        "than a tenth of T."
    )


def tables(data: Dataset) -> list[Table]:
    f, part = facts(data), _flows(data)
    counts = converged(part, "iterations").sel(solver="newton").median("seed", skipna=False)
    rows = []
    for flow in map(str, part["problem"].values):
        at = part["exponent"].sel(problem=flow, solver="newton").mean("seed")
        cells = [(float(at.isel(nudge=i)), float(counts.sel(problem=flow).isel(nudge=i))) for i in (0, -1)]
        rows.append([flow, *(text for x, k in cells for text in (f"{x:.3f}", f"{k:.0f}"))])
    head = ["flow", "exponent per step", "Newton, system", "exponent of the observer", "Newton, observer"]
    ours = [
        [
            "two wells",
            PUBLISHED["two wells"],
            f"{f['wells.newton'][1]:.0f} (most {f['wells.newton'][2]:.0f}), T = {f['wells.T'][1]}",
        ],
        ["system", PUBLISHED["system"], f"{span(f['newton.system'])}, T = {f['steps']}"],
        ["observer", PUBLISHED["observer"], span(f["newton.observer"])],
    ]
    return [
        Table(f"Newton's iterations at T = {f['steps']}", head, rows),
        Table("Newton's iterations as published (Gonzalez et al. 2025), and ours", ["", "published", "ours"], ours),
    ]


STUDY = study_of(
    __name__,
    name="langevin_lorenz",
    question="Do the rules found on networks hold for physical recurrences?",
    dims=("problem", "T", "nudge", "seed", "solver"),
    pictures=(Picture("wells", draw_wells, says_wells), Picture("observers", draw_observers, says_observers)),
)

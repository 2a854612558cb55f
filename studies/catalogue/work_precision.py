"""Work against precision: what an error costs in time and in evaluations of f, solver by solver.

The diagrams are those of Hairer, Norsett and Wanner, "Solving Ordinary Differential Equations I" (1993), II.10.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING, Any

import numpy as np

import recsolve as rs
from recsolve.analysis.condition import condition
from recsolve.studies.compare.measure import cell_recurrence, loop, measured, timed
from recsolve.studies.draw.drawing import converged, legend, listed, solvers_of, times
from recsolve.studies.draw.style import line_arguments
from recsolve.studies.registry import Picture, Table, study_of
from recsolve.studies.store.records import Point, Row, product
from recsolve.studies.timing import in_turns

if TYPE_CHECKING:
    from xarray import DataArray, Dataset

# Cell, mixing and gain by name: one that forgets fast, one that hardly does, and one whose units do not couple.
PROBLEMS: dict[str, tuple[str, str, float]] = {
    "dense gru": ("gru", "dense", 1.0),
    "dense elman, gain 1.5": ("elman", "dense", 1.5),
    "diagonal lstm": ("lstm", "diagonal", 1.0),
}
LOOP = "sequential"


@dataclass(frozen=True)
class Config:
    """Each solver with each tolerance; float64, input of standard deviation 1."""

    problems: tuple[str, ...] = tuple(PROBLEMS)
    solvers: tuple[str, ...] = (
        "newton", "quasi_newton", "jacobi", "damped_newton", "chord", "broyden", "multiple_shooting", "gauss_seidel",
    )  # fmt: skip
    tols: tuple[float, ...] = (1e-1, 1e-4, 1e-7, 1e-10, 1e-13)
    units: int = 16
    T: int = 512
    seeds: int = 1
    repeats: int = 9


FULL = Config(
    solvers=(*Config.solvers, "relaxed_newton", "triangular_anderson", "parareal", "mgrit", "newton_krylov"),
    tols=tuple(10.0**-k for k in range(1, 15)), units=64, T=4096, seeds=5, repeats=7,
)  # fmt: skip
TINY = Config(
    problems=("dense gru", "diagonal lstm"), solvers=("newton", "quasi_newton", "jacobi"), tols=(1e-3, 1e-11),
    units=8, T=128, repeats=1,
)  # fmt: skip


def grid(config: Config) -> Iterator[Point]:
    return product(
        problem=config.problems, seed=range(config.seeds), solver=(LOOP, *config.solvers), tols=[*config.tols],
        units=config.units, T=config.T, repeats=config.repeats, dtype="float64",
    )  # fmt: skip


def run(
    *, problem: str, solver: str, seed: int, tols: list[float], units: int, T: int, repeats: int, dtype: str
) -> list[Row]:
    cell, mixing, gain = PROBLEMS[problem]
    rec = cell_recurrence(cell, mixing, units=units, T=T, gain=gain, seed=seed, dtype=dtype)
    truth = loop(rec)
    shared = {"condition": condition(rec, truth)}
    if solver == LOOP:  # which has no tolerance: its row holds at all of them
        return [{**measured(rec, LOOP, truth), **shared, **timed(partial(rs.solve, rec, method=LOOP), repeats, 0.3)}]
    rows = [{"tol": tol, **measured(rec, solver, truth, tol=tol), **shared} for tol in tols]
    # In turns, so that other load meets all tolerances: one after the other, a tighter one could take less time.
    seconds = in_turns([partial(rs.solve, rec, method=solver, tol=tol) for tol in tols], repeats, enough=1.0)
    return [
        {**row, "sweeps": row.get("rows", np.nan) / T, "seconds": middle, "seconds_low": low, "seconds_high": high}
        for row, (low, middle, high) in zip(rows, np.quantile(seconds, (0.25, 0.5, 0.75), axis=1).T, strict=True)
    ]


def _median(data: Dataset, variable: str, problem: str, solver: str) -> DataArray:
    """Return the median over seeds of converged solves, from loose to tight; NaN where one seed did not converge."""
    part = converged(data.sel(problem=problem, solver=solver), variable).median("seed", skipna=False)
    return part.sortby("tol", ascending=False)


def _solvers(data: Dataset) -> list[str]:
    return [s for s in solvers_of(data) if s != LOOP]


def facts(data: Dataset) -> dict[str, Any]:
    found: dict[str, Any] = {"loosest": float(data["tol"].max()), "tightest": float(data["tol"].min())}
    for problem in map(str, data["problem"].values):
        loop_seconds = float(_median(data, "seconds", problem, LOOP)[0])
        for solver in _solvers(data):
            seconds, sweeps = (_median(data, v, problem, solver).values for v in ("seconds", "sweeps"))
            found[f"{problem}.{solver}.time"] = float(seconds[-1]) / loop_seconds
            found[f"{problem}.{solver}.sweeps"] = [float(sweeps[0]), float(sweeps[-1])]
        found[f"{problem}.fastest"] = _least(found, problem, "time", _solvers(data))
        found[f"{problem}.fewest"] = _least(found, problem, "sweeps", _solvers(data))
    asked = converged(data, "error").sel(solver=_solvers(data)) / (
        (data["tol"] + np.finfo(np.float64).eps) * data["condition"].sel(solver=_solvers(data))
    )
    found["error_over_asked"] = float(asked.max())
    unmet = ~np.isin(data["status"].values, ("", "converged"))
    found["unconverged"] = int(unmet.sum())
    return found


def _least(found: dict[str, Any], problem: str, what: str, solvers: list[str]) -> str:
    """Return the solver with the least of something at the tightest tolerance, of those that met it."""
    values = {s: np.ravel(found[f"{problem}.{s}.{what}"])[-1] for s in solvers}
    met = {s: value for s, value in values.items() if np.isfinite(value)}
    return min(met, key=met.__getitem__) if met else "none"


def _diagram(pyplot: Any, data: Dataset, variable: str, factor: float, label: str) -> Any:
    problems = [str(p) for p in data["problem"].values]
    figure, axes = pyplot.subplots(
        1, len(problems), figsize=(3.4 * len(problems) + 1.9, 3.7), sharey=True, squeeze=False
    )
    for ax, problem in zip(axes[0], problems, strict=True):
        for solver in _solvers(data):
            error = np.maximum(_median(data, "error", problem, solver), _FLOOR)
            ax.plot(factor * _median(data, variable, problem, solver), error, **line_arguments(solver))
        of_loop = float(_median(data, "seconds", problem, LOOP)[0]) if variable == "seconds" else 1.0
        ax.axvline(factor * of_loop, color="0.3", linewidth=1.0, linestyle=":")
        ax.set(xscale="log", yscale="log", title=problem, xlabel=label)
    axes[0, 0].set_ylabel("max |h - loop|")
    legend(figure, pyplot, _solvers(data), [pyplot.Line2D([], [], color="0.3", linestyle=":", label="the loop")])
    return figure


_FLOOR = 1e-17  # where errors of 0 are drawn


def draw_time(pyplot: Any, data: Dataset) -> Any:
    return _diagram(pyplot, data, "seconds", 1e3, "ms")


def says_time(data: Dataset) -> str:
    f = facts(data)
    fastest = {p: f[f"{p}.fastest"] for p in map(str, data["problem"].values) if f[f"{p}.fastest"] != "none"}
    parts = [f"{times(f[f'{p}.{s}.time'])} ({s} on {p})" for p, s in fastest.items()]
    unmet = " What did not converge is not drawn." if f["unconverged"] else ""
    return (
        f"At the tightest tolerance the fastest solvers take {listed(parts)} the time of the loop, on the machine "
        f"where this was timed. Errors are at most {f['error_over_asked']:.2g} times tolerance times "
        f"conditioning.{unmet}"
    )


def draw_evaluations(pyplot: Any, data: Dataset) -> Any:
    return _diagram(pyplot, data, "sweeps", 1.0, "evaluations of f / T")


def says_evaluations(data: Dataset) -> str:
    f, problem = facts(data), str(data["problem"].values[0])
    of = {s: f[f"{problem}.{s}.sweeps"] for s in ("newton", "jacobi") if f"{problem}.{s}.sweeps" in f}
    parts = [f"from {low:.0f} to {high:.0f} with {s}" for s, (low, high) in of.items()]
    return (
        "The loop evaluates f once a step, and solvers buy depth with more: from the loosest tolerance to the "
        f"tightest evaluations go {listed(parts)} on {problem}."
    )


def tables(data: Dataset) -> list[Table]:
    f = facts(data)
    rows = [
        [p, s, f"{f[f'{p}.{s}.time']:.2g}", *(f"{x:.1f}" for x in f[f"{p}.{s}.sweeps"])]
        for p in map(str, data["problem"].values)
        for s in _solvers(data)
    ]
    head = ["problem", "solver", f"time / loop at {f['tightest']:g}"]
    return [Table("Cost", [*head, *(f"evaluations / T at {f[x]:g}" for x in ("loosest", "tightest"))], rows)]


STUDY = study_of(
    __name__,
    name="work_precision",
    version=2,
    question="What does a given error cost?",
    dims=("problem", "seed", "tol", "solver"),
    pictures=(Picture("time", draw_time, says_time), Picture("evaluations", draw_evaluations, says_evaluations)),
    alone=True,
)

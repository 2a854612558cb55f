"""DEER in miniature (Lim et al., ICLR 2024, arXiv 2309.12252): speed over sizes, and what counts as solved.

The public code takes the state form of Newton's step, stops when iterates move little, clips at 1e8 and puts 0 for NaN.
Here that iteration is written out from this description and set against residuals of what it returns.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING, Any

import numpy as np

import recsolve as rs
from recsolve.base.arrays import Array
from recsolve.kernels.affine_scan import affine_scan
from recsolve.studies.compare.measure import distance, loop, measured, timed
from recsolve.studies.draw.drawing import converged, listed, powers_of_two, span
from recsolve.studies.draw.series import level, outside_legend, series
from recsolve.studies.registry import Picture, Table, study_of
from recsolve.studies.store.records import Point, Row, product

if TYPE_CHECKING:
    from xarray import DataArray, Dataset

GRU, SINE = "gru", "sine"
MOVED, OURS = "update test, state form", "residual test, correction form"
TIMED = ("newton", "quasi_newton")
_ZERO = 1e-9  # where residuals of 0 are drawn
BAD = 1e-2  # a residual that no use of single precision excuses
# h = p sin h + x in float32, T = 1000, as measured on the public code, which reported success on all: the largest
# residual of one step, and the share of steps with one above 1e-2.
PUBLISHED_SINE = {2.5: (4e6, 0.025), 6.0: (4e3, 0.88), 20.0: (1e8, 0.90)}
# Speed-up over a sequential scan on a V100: GRU of one unit, batch 16, by T; from the logs in the public repository.
PUBLISHED_SPEED = {1_000: 41.0, 300_000: 800.0}


@dataclass(frozen=True)
class Config:
    """h = p sin h + x; and dense GRUs, float32, timed on the NumPy backend, the loop too."""

    p: tuple[float, ...] = (0.5, 0.9, 1.2, 1.5, 2.5, 6.0, 20.0)
    T: int = 1000
    seeds: int = 2
    lengths: tuple[int, ...] = (128, 512, 1024)
    units: tuple[int, ...] = (1, 4, 16)
    batch: int = 16


FULL = Config(seeds=10, lengths=tuple(2**k for k in range(7, 15)), units=(1, 2, 4, 8, 16, 32))
TINY = Config(p=(0.5, 20.0), T=200, seeds=1, lengths=(32, 128), units=(1, 4), batch=2)


def grid(config: Config) -> Iterator[Point]:
    yield from product(
        problem=SINE, p=config.p, T=config.T, units=1, batch=1, seed=range(config.seeds), dtype="float32"
    )
    yield from product(
        problem=GRU, p=0.0, units=config.units, T=config.lengths, batch=config.batch, seed=0, dtype="float32"
    )


def run(*, problem: str, p: float, T: int, units: int, batch: int, seed: int, dtype: str) -> list[Row]:
    if problem == SINE:
        rec = sine(p, T, seed, dtype)
        truth = loop(rec)
        return [moved(rec, truth, cap=T + 2), _judged(rec, truth)]
    cell = rs.cells.GRU.random(input_size=4, hidden_size=units, rng=seed, dtype=np.dtype(dtype))
    rec = cell.recurrence(np.random.default_rng(seed + 1_000).standard_normal((T, batch, 4)).astype(dtype))
    with rs.backend("numpy"):
        truth = loop(rec)
        return [
            {**measured(rec, solver, truth), **timed(partial(rs.solve, rec, method=solver), 3, 0.3)}
            for solver in ("sequential", "newton", "quasi_newton")
        ]


def sine(p: float, T: int, seed: int, dtype: str) -> rs.Recurrence:
    """Return h = p sin h + x, x ~ N(0, 1): contractive for p < 1, chaotic for large p."""
    x = np.random.default_rng(seed).standard_normal((T, 1)).astype(dtype)
    factor = x.dtype.type(p)
    initial = np.zeros(1, dtype)
    return rs.Recurrence.from_function(
        lambda h, u: factor * np.sin(h) + u, inputs=x, initial=initial, structure="diagonal"
    )


def moved(rec: rs.Recurrence, truth: Array, cap: int, atol: float = 1e-4, rtol: float = 1e-3) -> Row:
    """Iterate h[t] <- J[t] h[t-1] + f - J h until it moves by less than atol + rtol |h|, and judge the result."""
    h: Array = np.zeros(rec.shape, rec.dtype)
    done, k = False, 0
    with np.errstate(all="ignore"):
        while not done and k < cap:
            F, J = rec.linearise(h)
            new = affine_scan(J, F - J.matvec(rec.previous(h)), initial=rec.initial)
            new = np.clip(np.nan_to_num(new, nan=0.0), -1e8, 1e8)
            done = bool((np.abs(new - h) <= atol + rtol * np.abs(new)).all())
            h, k = new, k + 1
    status = "converged" if done else "maxiter"
    return {"solver": MOVED, "status": status, "iterations": k, "error": distance(h, truth), **_residuals(rec, h)}


def _judged(rec: rs.Recurrence, truth: Array) -> Row:
    solution = rs.solve(rec, method="newton")
    trusted = int(bool(solution.success and solution.trusted))
    error = distance(solution.states, truth)
    row = {"solver": OURS, "status": str(solution.status), "iterations": solution.nit, "error": error}
    return {**row, **_residuals(rec, solution.states), "trusted": trusted}


def _residuals(rec: rs.Recurrence, h: Array) -> Row:
    """Return the largest residual of states, and the share of steps where it is bad; NaN is."""
    with np.errstate(all="ignore"):
        r = np.abs(rec.evaluate(h) - h)
    return {"residual": float(r.max()), "bad": float(np.mean(~(r <= BAD)))}


def _sine(data: Dataset, name: str) -> Dataset:
    """Return the verdicts of one test on h = p sin h + x, by p and seed."""
    part = data.sel(problem=SINE, solver=name)
    for dim in ("p", "seed", "T", "units"):
        part = part.dropna(dim, how="all", subset=["residual"])
    return part.squeeze(("T", "units")).transpose("p", "seed")


def _speedup(data: Dataset, solver: str) -> DataArray:
    """Return the time of the loop over that of a solver on GRUs, by units and T, where it converged."""
    part = data.sel(problem=GRU, p=0.0).isel(seed=0).dropna("T", how="all", subset=["seconds"])
    ratio = part["seconds"].sel(solver="sequential") / converged(part, "seconds").sel(solver=solver)
    return ratio.dropna("units", how="all").transpose("units", "T")


def facts(data: Dataset) -> dict[str, Any]:
    found: dict[str, Any] = {}
    for name in (MOVED, OURS):
        part = _sine(data, name)
        claimed = part["status"] == "converged"
        found[f"{name}.claims"] = float(claimed.mean())
        found[f"{name}.false"] = [float(p) for p in part["p"].values[(claimed & (part["bad"] > 0)).any("seed").values]]
        found[f"{name}.worst_claimed"] = float(part["residual"].where(claimed).max())
    part = _sine(data, OURS)
    trusted = np.logical_and.accumulate((part["trusted"] == 1).all("seed").values)
    found["trusted_up_to"] = float(part["p"].values[trusted].max(initial=0.0))
    for solver in ("newton", "quasi_newton"):
        ratio = _speedup(data, solver)
        found[f"{solver}.speedup"] = [float(ratio.min()), float(ratio.max())]
        place = np.unravel_index(int(np.nanargmax(ratio.values)), ratio.shape)
        found[f"{solver}.best"] = [int(ratio["units"][place[0]]), int(ratio["T"][place[1]])]
    counts = converged(data.sel(problem=GRU, solver="newton"), "iterations")
    found["newton.iterations"] = [float(counts.min()), float(counts.max())]
    return found


def draw_tests(pyplot: Any, data: Dataset) -> Any:
    figure, axes = pyplot.subplots(1, 2, figsize=(8.8, 3.5))
    looks = series((MOVED, OURS))
    for name, look in looks.items():
        part = _sine(data, name)
        residual, bad = (converged(part, variable).max("seed").values for variable in ("residual", "bad"))
        axes[0].plot(part["p"].values, np.maximum(residual, _ZERO), **look)
        axes[1].plot(part["p"].values, bad, **look)
    level(axes[0], _ZERO, "exactly 0", "left")
    axes[0].set(xscale="log", yscale="log", xlabel="p in h = p sin h + x", ylabel="largest residual, success claimed")
    axes[1].set(
        xscale="log",
        xlabel="p in h = p sin h + x",
        ylabel=f"share of steps with residual > {BAD:g}",
        ylim=(-0.03, 1.03),
    )
    outside_legend(figure, pyplot, looks.values())
    return figure


def says_tests(data: Dataset) -> str:
    f = facts(data)
    false = f[f"{MOVED}.false"]
    where = f"from p = {min(false):g} on on trajectories with bad steps" if false else "nowhere without solving"
    return (
        f"In h = p sin h + x, chaotic for large p, the test of how far iterates move claims success {where}, with "
        f"residuals up to {f[f'{MOVED}.worst_claimed']:.0e}; solves that test the residual leave none above "
        f"{f[f'{OURS}.worst_claimed']:.0e}. Beyond p = {f['trusted_up_to']:g} they say themselves that small "
        "residuals do not mean small errors."
    )


def draw_speed(pyplot: Any, data: Dataset) -> Any:
    figure, axes = pyplot.subplots(1, 2, figsize=(8.4, 3.5), sharey=True)
    for ax, solver in zip(axes, ("newton", "quasi_newton"), strict=True):
        ratio = 1 / _speedup(data, solver)
        looks = series(f"{units} unit{'s' * int(units > 1)}" for units in ratio["units"].values)
        for (_, look), row in zip(looks.items(), ratio.values, strict=True):
            ax.plot(ratio["T"].values, row, **look)
        level(ax, 1.0, "as fast as the loop", "left")
        ax.set(xscale="log", yscale="log", title=solver, xlabel="T")
        powers_of_two(ax.xaxis, [float(T) for T in ratio["T"].values])
    axes[0].set_ylabel("time / time of the loop")
    outside_legend(figure, pyplot, looks.values())
    return figure


def says_speed(data: Dataset) -> str:
    f = facts(data)
    parts = [f"{s} takes {span(1 / x for x in f[f'{s}.speedup'])} times as long as the loop of NumPy" for s in TIMED]
    return f"By width and length of a GRU {listed(parts)}; below the dotted line a solver is faster."


def tables(data: Dataset) -> list[Table]:
    ours = {name: _sine(data, name).isel(seed=0) for name in (MOVED, OURS)}
    rows = []
    for p in map(float, ours[MOVED]["p"].values):
        theirs = PUBLISHED_SINE.get(p)
        at = {name: part.sel(p=p) for name, part in ours.items()}
        rows.append([
            f"{p:g}", *(("", "") if theirs is None else (f"{theirs[0]:.0e}", f"{theirs[1]:.1%}")),
            *(text for part in at.values() for text in
              (str(part["status"].item()), f"{float(part['residual']):.0e}", f"{float(part['bad']):.1%}")),
        ])  # fmt: skip
    head = [
        "p",
        "residual, public code",
        "bad steps",
        *(f"{n}: {what}" for n in ours for what in ("status", "residual", "bad")),
    ]
    ratio = _speedup(data, "newton")
    speeds = [
        [f"{units} units", *(f"{x:.2g}x" for x in row)]
        for units, row in zip(ratio["units"].values, ratio.values, strict=True)
    ]
    published = [["1 unit, V100, published", ", ".join(f"{x:g}x at T = {T}" for T, x in PUBLISHED_SPEED.items())]]
    return [
        Table("h = p sin h + x, float32 (first seed)", head, rows),
        Table("Newton over the loop, by T", ["GRU", *(f"T = {T}" for T in ratio["T"].values)], speeds),
        Table("As published", ["GRU, batch 16", "DEER over a sequential scan"], published),
    ]


STUDY = study_of(
    __name__,
    name="paper/deer",
    question="How fast is DEER over sizes, and is what it returns a solution?",
    dims=("problem", "p", "T", "units", "seed", "solver"),
    pictures=(Picture("tests", draw_tests, says_tests), Picture("speed", draw_speed, says_speed)),
    alone=True,
)

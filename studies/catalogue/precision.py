"""float64, float32 and bfloat16 storage in Newton's method on recurrences: error floors, and the gain of mixing them.

In the correction form (docs/solvers/index.md) A only has to be good enough to contract: storing it in bfloat16 costs at
most iterations, while states in bfloat16 cost digits. Low precision first and high precision last is iterative
refinement (Higham, "Accuracy and Stability of Numerical Algorithms", 2002, chapter 12).
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

import recsolve as rs
from recsolve.analysis.condition import condition
from recsolve.base.arrays import Array
from recsolve.studies.compare.measure import distance, loop, timed
from recsolve.studies.compare.storage import as_stored, bfloat16, newton_errors
from recsolve.studies.draw.drawing import band, legend, solvers_of, times
from recsolve.studies.draw.series import level, outside_legend, series
from recsolve.studies.registry import Picture, Table, study_of
from recsolve.studies.store.records import Point, Row, product

if TYPE_CHECKING:
    from xarray import DataArray, Dataset

STORED = ("float64", "float32", "float32, A in bfloat16", "float32, states in bfloat16")
UNIT = dict(zip(STORED, (2.0**-53, 2.0**-24, 2.0**-24, 2.0**-9), strict=True))
TOO_MUCH = 1e-10  # a tolerance below the resolution of float32, tried within T / 4 iterations
MIXED = "mixed"  # a solve in float32 whose result a solve in float64 goes on from


@dataclass(frozen=True)
class Config:
    """Dense Elman networks, weights times ``gain``, all stored in float32; the truth is their loop in float64."""

    gains: tuple[float, ...] = (0.5, 1.0, 1.25, 1.5, 1.75, 2.0)
    solvers: tuple[str, ...] = ("newton", "quasi_newton", "jacobi")
    units: int = 32
    T: int = 256
    seeds: int = 2
    sweeps: int = 24


FULL = Config(gains=tuple(round(0.1 * k, 1) for k in range(3, 22)), units=64, T=2048, seeds=10, sweeps=60)
TINY = Config(gains=(0.5, 1.5), units=8, T=64, seeds=1, sweeps=12)


def grid(config: Config) -> Iterator[Point]:
    for point in product(
        gain=config.gains, seed=range(config.seeds), solvers=[*config.solvers], units=config.units, T=config.T,
        sweeps=config.sweeps, dtype="float32",
    ):  # fmt: skip
        yield {**point, "clocked": point["seed"] == 0}


def run(
    *, gain: float, seed: int, solvers: list[str], units: int, T: int, sweeps: int, clocked: bool, dtype: str
) -> list[Row]:
    single, double = recurrences(gain, units, T, seed, dtype)
    truth = loop(double)
    shared = {"condition": condition(double, truth)}
    rows: list[Row] = []
    for name, rec, store_A, store_h in (
        (STORED[0], double, as_stored, as_stored),
        (STORED[1], single, as_stored, as_stored),
        (STORED[2], single, bfloat16, as_stored),
        (STORED[3], single, as_stored, bfloat16),
    ):
        rows.append(
            {
                "storage": name,
                "solver": "newton",
                "errors": newton_errors(rec, truth, sweeps, store_A, store_h),
                **shared,
            }
        )
    return rows + [{"storage": MIXED, **mixed(single, double, s, truth, clocked), **shared} for s in solvers]


def recurrences(gain: float, units: int, T: int, seed: int, dtype: str) -> tuple[rs.Recurrence, rs.Recurrence]:
    """Return one network in ``dtype``, float32, and in float64, with equal weights and inputs."""
    cell = rs.cells.Elman.random(input_size=4, hidden_size=units, gain=gain, rng=seed, dtype=np.dtype(dtype))
    x = np.random.default_rng(seed + 1_000).standard_normal((T, 4)).astype(dtype)
    return cell.recurrence(x), cell.astype(np.float64).recurrence(x.astype(np.float64))


def mixed(single: rs.Recurrence, double: rs.Recurrence, solver: str, truth: Array, clocked: bool) -> Row:
    """Return iterations of a solve in float64, and of one in float32 with one in float64 from its result."""

    def both() -> tuple[rs.Solution, rs.Solution]:
        low = rs.solve(single, method=solver)
        return low, rs.solve(double, method=solver, guess=low.states.astype(np.float64))

    pure, (low, high) = rs.solve(double, method=solver), both()
    worst = next((s.status for s in (pure, low, high) if not s.success), high.status)
    asked = rs.solve(single, method=solver, tol=TOO_MUCH, maxiter=len(truth) // 4)
    row: Row = {
        "solver": solver, "status": str(worst), "pure": pure.nit, "low": low.nit,
        "high": high.nit, "error": distance(high.states, truth),
        "asked_too_much": str(asked.status), "asked_residual": float(asked.residuals[-1]),
    }  # fmt: skip
    if clocked:
        row["pure_seconds"] = timed(lambda: rs.solve(double, method=solver), 3, 0.2)["seconds"]
        row["mixed_seconds"] = timed(both, 3, 0.2)["seconds"]
    return row


def _errors(data: Dataset, storage: str) -> DataArray:
    return data["errors"].sel(storage=storage, solver="newton").transpose("gain", "seed", "sweep")


def _floors(data: Dataset, storage: str) -> DataArray:
    """Return the largest of the last errors, NaN where they have not settled."""
    last = _errors(data, storage).isel(sweep=slice(-4, None))
    high, low = last.max("sweep", skipna=False), last.min("sweep", skipna=False)
    return high.where(high < 10 * low)


def _relative_bytes(data: Dataset, solver: str) -> DataArray:
    """Return the bytes that mixed solves move over those of float64: float32 sweeps count half, a guess is a sweep."""
    part = data.sel(storage=MIXED, solver=solver)
    part = part.where(part["status"] == "converged")
    return ((part["low"] + 1) / 2 + part["high"] + 1) / (part["pure"] + 1)


def _relative_time(data: Dataset, solver: str) -> DataArray:
    """Return the same in wall time; these problems are small, so it hardly predicts large ones."""
    part = data.sel(storage=MIXED, solver=solver).isel(seed=0)
    part = part.where(part["status"] == "converged")
    return part["mixed_seconds"] / part["pure_seconds"]


def facts(data: Dataset) -> dict[str, Any]:
    kappa = data["condition"].sel(storage=STORED[0], solver="newton").transpose("gain", "seed").values
    found: dict[str, Any] = {"condition": [float(kappa.min()), float(kappa.max())]}
    for storage in STORED:
        floors = _floors(data, storage).values
        units = floors / UNIT[storage]
        found[f"{storage}.settled"] = int(np.isfinite(floors).sum())
        found[f"{storage}.units"] = [float(np.nanmin(units)), float(np.nanmax(units))]
        found[f"{storage}.units_of_condition"] = float(np.nanmax(units / kappa))
        # The first iterate within twice its own floor.
        there = _errors(data, storage).values <= 2 * floors[..., None]
        found[f"{storage}.sweeps"] = float(np.mean(np.argmax(there, axis=-1)[np.isfinite(floors)]))
    ratio = _floors(data, STORED[2]) / _floors(data, STORED[1])
    found["A.floor"] = float(ratio.max())
    found["A.sweeps"] = found[f"{STORED[2]}.sweeps"] - found[f"{STORED[1]}.sweeps"]
    found["states.floor"] = found[f"{STORED[3]}.units"][1]
    for solver in _mixed_solvers(data):
        part = data.sel(storage=MIXED, solver=solver)
        part = part.where(part["status"] == "converged")
        found[f"{solver}.high"] = [float(part["high"].min()), float(part["high"].max())]
        found[f"{solver}.bytes"] = [float(f(_relative_bytes(data, solver).values)) for f in (np.nanmin, np.nanmax)]
        found[f"{solver}.time"] = [float(f(_relative_time(data, solver).values)) for f in (np.nanmin, np.nanmax)]
    asked = data["asked_too_much"].sel(storage=MIXED).values.ravel()
    found["asked_too_much"] = {str(s): int((asked == s).sum()) for s in np.unique(asked[asked != ""])}
    return found


def _mixed_solvers(data: Dataset) -> list[str]:
    return [s for s in solvers_of(data) if np.isfinite(data["pure"].sel(storage=MIXED, solver=s).values).any()]


def draw_errors(pyplot: Any, data: Dataset) -> Any:
    gains = data["gain"].values[[0, -1]]
    figure, axes = pyplot.subplots(1, 2, figsize=(9.4, 3.6), sharey=True)
    looks = series(STORED)
    for ax, gain in zip(axes, gains, strict=True):
        for storage, look in looks.items():
            curve = _errors(data, storage).sel(gain=gain).transpose("sweep", "seed")
            band(ax, np.arange(curve.sizes["sweep"]), curve, "seed", storage, **look, markevery=2)
        kappa = float(data["condition"].sel(gain=gain, storage=STORED[0], solver="newton").max())
        ax.set(yscale="log", title=f"gain {gain:g}, conditioning up to {kappa:.0f}", xlabel="sweep")
    axes[0].set(ylabel="max |h - loop in float64|", ylim=(1e-17, None))  # of both panels
    outside_legend(figure, pyplot, looks.values())
    return figure


def says_errors(data: Dataset) -> str:
    f = facts(data)
    return (
        "Every sweep recovers what low precision lost before, so only what is stored sets the floor: A in bfloat16 "
        f"costs {f['A.sweeps']:.1f} sweeps, and leaves at most {f['A.floor']:.1f} times the floor of float32; states "
        f"in bfloat16 lose what their last rounding takes, {f['states.floor']:.2g} of its units at most, whatever the "
        "conditioning."
    )


def draw_floors(pyplot: Any, data: Dataset) -> Any:
    figure, ax = pyplot.subplots(figsize=(6.6, 3.6))
    kappa = data["condition"].sel(storage=STORED[0], solver="newton").transpose("gain", "seed").values.ravel()
    ends = np.array([kappa.min(), kappa.max()])
    looks = series(STORED)
    for storage, look in looks.items():
        ax.plot(kappa, _floors(data, storage).values.ravel(), **{**look, "linestyle": "none"})
        ax.plot(ends, UNIT[storage] * ends, color=look["color"], linewidth=0.7, linestyle=":")
    ax.set(xscale="log", yscale="log", xlabel="conditioning kappa", ylabel="error floor")
    outside_legend(figure, pyplot, [{**look, "linestyle": "none"} for look in looks.values()])
    return figure


def says_floors(data: Dataset) -> str:
    f = facts(data)
    return (
        f"Errors settle below kappa rounding units of what is stored (dotted), at "
        f"{max(f[f'{s}.units_of_condition'] for s in STORED):.2g} times that at most, with kappa from "
        f"{f['condition'][0]:.1f} to {f['condition'][1]:.0f}."
    )


def draw_mixed(pyplot: Any, data: Dataset) -> Any:
    figure, axes = pyplot.subplots(1, 2, figsize=(8.6, 3.4), sharey=True)
    solvers, gains = _mixed_solvers(data), data["gain"].values
    for solver in solvers:
        part = data.sel(storage=MIXED, solver=solver)
        left = (part["high"] / part["pure"]).where(part["status"] == "converged")
        for ax, ratio in zip(axes, (left, _relative_bytes(data, solver)), strict=True):
            band(ax, gains, ratio.transpose("gain", "seed"), "seed", solver)
    for ax, what in zip(axes, ("iterations left for float64", "bytes moved in all"), strict=True):
        level(ax, 1.0, "float64 alone", "left")
        ax.set(title=what, xlabel="gain", ylim=(0, None))
    axes[0].set_ylabel("float32, then float64 / float64 alone")
    legend(figure, pyplot, solvers)
    return figure


def says_mixed(data: Dataset) -> str:
    f = facts(data)
    most = {s: f[f"{s}.bytes"][1] for s in _mixed_solvers(data)}
    low, high = (pick(most, key=most.__getitem__) for pick in (min, max))
    claims = f["asked_too_much"].get("converged", 0)
    return (
        f"To solve in float32 first pays where fewer bytes are moved than in float64 alone: {low} moves at most "
        f"{times(most[low])} as many, {high} up to {times(most[high])}. Of solves in float32 that are asked for "
        f"{TOO_MUCH:g}, which it cannot resolve, {claims or 'none'} met it, by residuals of exactly zero."
    )


def tables(data: Dataset) -> list[Table]:
    rows = []
    for gain in data["gain"].values:
        for solver in _mixed_solvers(data):
            part = data.sel(gain=gain, storage=MIXED, solver=solver).isel(seed=0)
            counts = [f"{float(part[name]):.0f}" for name in ("pure", "low", "high")]
            rows.append([f"{gain:g}", solver, str(part["status"].item()), *counts, f"{float(part['error']):.1e}"])
    head = ["gain", "solver", "status", "float64 alone", "float32", "then float64", "error of the latter"]
    return [Table("Iterations in float64 alone, and in float32 followed by float64 (first seed)", head, rows)]


STUDY = study_of(
    __name__,
    name="precision",
    question="What does low precision cost, and where does it pay?",
    dims=("gain", "seed", "storage", "solver"),
    curves={"errors": ("sweep",)},
    pictures=(
        Picture("errors", draw_errors, says_errors),
        Picture("floors", draw_floors, says_floors),
        Picture("mixed", draw_mixed, says_mixed),
    ),
    alone=True,
)

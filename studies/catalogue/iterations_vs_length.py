"""Iterations against the number of steps, from contractive to chaotic: where they are constant, log T, or T."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from recsolve.studies.compare.measure import cell_recurrence, loop, lyapunov, measured
from recsolve.studies.draw.drawing import CONVERGED, band, chart, converged, legend, listed, powers_of_two, solvers_of
from recsolve.studies.registry import Picture, Table, study_of
from recsolve.studies.store.records import Point, Row, product

if TYPE_CHECKING:
    from xarray import Dataset

SOLVERS = (
    "newton", "quasi_newton", "scaled_newton", "damped_newton", "jacobi", "picard", "gauss_seidel",
    "multiple_shooting",
)  # fmt: skip
# Up to the first powers of T counts are called constant and log T, from the last one on T.
# log T itself has 0.17 from 2^6 to 2^12, and less beyond.
CONSTANT, LOG, LINEAR = 0.08, 0.25, 0.8
BETWEEN = "a power of T below 1"
_TYPICAL = 1024  # exponents are averages over as many steps at most


@dataclass(frozen=True)
class Config:
    """Dense Elman networks, random weights times ``gain``, normal input.

    A solver that has not converged after ``maxiter`` iterations is not run on longer recurrences.
    """

    units: int = 16
    lengths: tuple[int, ...] = tuple(2**p for p in range(6, 13))
    gains: tuple[float, ...] = (1.0, 1.5, 2.5, 5.0)
    seeds: int = 2
    solvers: tuple[str, ...] = SOLVERS
    tol: float = 1e-10
    maxiter: int = 256


FULL = Config(
    units=32,
    lengths=tuple(2**p for p in range(6, 18)),
    gains=(1.0, 1.5, 2.0, 2.5, 3.0, 5.0),
    seeds=10,
    solvers=(*SOLVERS, "relaxed_newton", "broyden", "parareal", "mgrit", "windowed"),
    maxiter=4096,
)
TINY = Config(lengths=(64, 128, 256), gains=(1.0, 5.0), seeds=1)


def grid(config: Config) -> Iterator[Point]:
    gains = config.gains[::-1]  # the longest first, so that no worker is left with one at the end
    return product(
        gain=gains, seed=range(config.seeds), solver=config.solvers, units=config.units, lengths=[*config.lengths],
        tol=config.tol, maxiter=config.maxiter, dtype="float64",
    )  # fmt: skip


def run(
    *, gain: float, seed: int, solver: str, units: int, lengths: list[int], tol: float, maxiter: int, dtype: str
) -> list[Row]:
    rows: list[Row] = []
    for T in sorted(lengths):
        rec = cell_recurrence("elman", "dense", units=units, T=T, gain=gain, seed=seed, dtype=dtype)
        truth = loop(rec)
        row = {"T": T, **measured(rec, solver, truth, tol=tol, maxiter=maxiter), "maxiter": maxiter}
        rows.append({**row, "exponent": lyapunov(rec, truth)} if T <= _TYPICAL else row)
        if row["status"] != CONVERGED:
            break
    return rows


def _counts(data: Dataset, gain: float, solver: str) -> tuple[Any, Any]:
    """Return the lengths at which all seeds converged, and their median iterations."""
    counts = converged(data, "iterations").sel(gain=gain, solver=solver).transpose("T", "seed").values
    whole = np.isfinite(counts).all(axis=1)
    return data["T"].values[whole], np.median(counts[whole], axis=1)


def _power(data: Dataset, gain: float, solver: str) -> float:
    """Return p of the fit k ~ T^p, NaN for fewer than three lengths."""
    T, k = _counts(data, gain, solver)
    return float(np.polyfit(np.log(T), np.log(np.maximum(k, 1)), 1)[0]) if len(T) > 2 else float("nan")


def _exponent(data: Dataset, gain: float) -> float:
    """Return the largest Lyapunov exponent over the most steps, the mean over seeds."""
    found = data["exponent"].sel(gain=gain).max("solver").dropna("T")
    return float(found.isel(T=-1).mean()) if found.sizes["T"] else float("nan")


def named(power: float) -> str:
    """Return the name of a growth."""
    if np.isnan(power):
        return "unknown"
    if power <= CONSTANT:
        return "constant"
    return "log T" if power <= LOG else "T" if power >= LINEAR else BETWEEN


def facts(data: Dataset) -> dict[str, Any]:
    gains, solvers = [float(g) for g in data["gain"].values], solvers_of(data)
    powers = {f"{g:g}": {s: _power(data, g, s) for s in solvers} for g in gains}
    last = {f"{g:g}": {s: int(max(_counts(data, g, s)[0], default=0)) for s in solvers} for g in gains}
    return {
        "exponents": {f"{g:g}": _exponent(data, g) for g in gains},
        "powers": powers,
        "growth": {g: {s: named(p) for s, p in found.items()} for g, found in powers.items()},
        "longest": last,
        "maxiter": int(data["maxiter"].max()),
        "lengths": [int(data["T"].min()), int(data["T"].max())],
    }


def draw_counts(pyplot: Any, data: Dataset) -> Any:
    f, gains = facts(data), [float(g) for g in data["gain"].values]
    T = data["T"].values
    columns = 2 if len(gains) > 3 else len(gains)
    rows = -(-len(gains) // columns)
    size = (3.1 * columns + 1.8, 2.7 * rows + 0.2)
    figure, axes = pyplot.subplots(rows, columns, figsize=size, sharex=True, sharey=True, squeeze=False)
    for ax in axes.flat[len(gains) :]:
        ax.set_visible(False)
    for ax, gain in zip(axes.flat, gains, strict=False):
        for solver in solvers_of(data):
            band(ax, T, converged(data, "iterations").sel(gain=gain, solver=solver), "seed", solver)
        ax.plot(T, T, color="0.5", linewidth=0.8, linestyle=":", zorder=1)
        ax.annotate("T", (T[1], T[1]), xytext=(-9, 2), textcoords="offset points", color="0.35", fontsize=8)
        ax.axhline(f["maxiter"], color="0.5", linewidth=0.8, linestyle="--", zorder=1)
        ax.set(xscale="log", yscale="log", title=f"gain {gain:g}, exponent {f['exponents'][f'{gain:g}']:.2f}")
        ax.set_ylim(0.8, 2 * f["maxiter"])
        powers_of_two(ax.xaxis, T)
        ax.set_xlabel("steps T")
    axes[0, 0].annotate(
        "limit of iterations", (0.02, f["maxiter"]), xycoords=("axes fraction", "data"), xytext=(0, 2),
        textcoords="offset points", fontsize=7.5, color="0.35",
    )  # fmt: skip
    figure.supylabel("iterations to convergence", fontsize=9)
    legend(figure, pyplot, solvers_of(data))
    return figure


def says_counts(data: Dataset) -> str:
    f = facts(data)
    gains = list(f["growth"])
    low, high = gains[0], gains[-1]
    words = {"constant": "do not grow", "unknown": "grow in a way that is not known"}

    def grows(solver: str, gain: str) -> str:
        kind = f["growth"][gain][solver]
        return words.get(kind, f"grow like {kind}")

    first = solvers_of(data)[0]
    others = [s for s in f["growth"][low] if f["growth"][low][s] != f["growth"][low][first]]
    also = f" Even there those of {listed(others)} grow otherwise." if others else ""
    return (
        f"Whether counts grow with T is decided by the exponent: those of {first} {grows(first, low)} at "
        f"{f['exponents'][low]:.2f}, and {grows(first, high)} at {f['exponents'][high]:.2f}.{also} Where a curve ends, "
        f"the next length was not solved with every seed within {f['maxiter']} iterations."
    )


def draw_powers(pyplot: Any, data: Dataset) -> Any:
    f = facts(data)
    columns = [f"{gain}\n({f['exponents'][gain]:.2f})" for gain in f["powers"]]
    solvers = solvers_of(data)
    numbers = np.round([[f["powers"][gain][s] for gain in f["powers"]] for s in solvers], 2) + 0.0  # no -0
    figure, ax = pyplot.subplots(figsize=(1.0 * len(columns) + 2.9, 0.34 * len(solvers) + 1.1))
    image = chart(ax, columns, solvers, numbers, "{:.2f}", vmin=0, vmax=1)
    ax.set(xlabel="gain (largest Lyapunov exponent)", ylabel="solver")
    figure.colorbar(image, ax=ax, label="p in iterations ~ T^p", extend="both")
    return figure


def says_powers(data: Dataset) -> str:
    f = facts(data)
    gains = list(f["powers"])
    steady, linear = f["growth"][gains[0]], f["growth"][gains[-1]]
    return (
        f"At an exponent of {f['exponents'][gains[0]]:.2f} the counts of "
        f"{listed([s for s in steady if steady[s] in ('constant', 'log T')])} grow like log T or slower; at "
        f"{f['exponents'][gains[-1]]:.2f} those of {listed([s for s in linear if linear[s] == 'T'])} grow like T. "
        "Hatched: solved at fewer than three lengths."
    )


def tables(data: Dataset) -> list[Table]:
    T, gains = int(data["T"].max()), [float(g) for g in data["gain"].values]
    counts = converged(data, "iterations").sel(T=T).transpose("solver", "gain", "seed").values
    with np.errstate(all="ignore"):
        middle = np.median(counts, axis=-1)
    rows = [
        [s, *("not converged" if np.isnan(k) else f"{k:g}" for k in row)]
        for s, row in zip(solvers_of(data), middle, strict=True)
    ]
    return [Table(f"Median iterations at T = {T}", ["solver", *(f"gain {g:g}" for g in gains)], rows)]


STUDY = study_of(
    __name__,
    name="iterations_vs_length",
    question="How do iterations grow with the number of steps, from contractive to chaotic?",
    dims=("T", "gain", "seed", "solver"),
    pictures=(Picture("counts", draw_counts, says_counts), Picture("powers", draw_powers, says_powers)),
)

"""Iterations against the largest Lyapunov exponent: figure 2 of Gonzalez et al., NeurIPS 2025 (arXiv 2508.16817)."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

import recsolve as rs
from recsolve.studies.compare.measure import loop, lyapunov, measured, tanh_network
from recsolve.studies.draw.drawing import converged, counted, legend, listed, solvers_of
from recsolve.studies.draw.style import integer_ticks, line_arguments
from recsolve.studies.registry import Picture, Table, study_of
from recsolve.studies.store.records import Point, Row, product

if TYPE_CHECKING:
    from xarray import Dataset

CHEAP = (
    "newton", "quasi_newton", "jacobi", "picard", "scaled_newton", "relaxed_newton", "damped_newton",
    "triangular_anderson", "multiple_shooting", "parareal", "mgrit",
)  # fmt: skip
CONTRACTIVE = -0.2  # predictions are to hold below this exponent
_POINTS = {"linestyle": "none", "markersize": 4, "alpha": 0.8}


@dataclass(frozen=True)
class Config:
    """h = W tanh(h) + u with W ~ N(0, gain^2 / units), zero diagonal, sinusoidal u; residuals to ``tol``."""

    units: int = 32
    lengths: tuple[int, ...] = (64, 256)
    gains: tuple[float, ...] = (0.5, 0.7, 0.9, 1.1, 1.3, 1.5, 1.7, 1.9, 2.2, 2.6)
    seeds: int = 2
    solvers: tuple[str, ...] = CHEAP
    tol: float = 1e-10
    pilot: int = 128


FULL = Config(
    units=100,
    lengths=(100, 1000),
    gains=tuple(round(0.5 + 0.05 * i, 2) for i in range(31)),
    seeds=20,
    solvers=(*CHEAP, "newton_krylov", "elk", "anderson", "broyden", "clipped_newton", "chord", "gauss_seidel"),
    pilot=256,
)
TINY = Config(units=16, lengths=(64, 256), gains=(0.6, 0.9, 2.4), seeds=1, pilot=128)


def grid(config: Config) -> Iterator[Point]:
    return product(
        T=config.lengths, gain=config.gains, seed=range(config.seeds), units=config.units, solvers=[*config.solvers],
        tol=config.tol, pilot=config.pilot, dtype="float64",
    )  # fmt: skip


def run(
    *, T: int, gain: float, seed: int, units: int, solvers: list[str], tol: float, pilot: int, dtype: str
) -> list[Row]:
    rec = tanh_network(gain, units, T, seed, dtype)
    truth = loop(rec)
    exponent = lyapunov(rec, truth)
    predicted: dict[str, int] = {}
    if pilot < T:  # else it would be no prediction
        predicted = rs.diagnose(rec, pilot=pilot, exponents=1, methods=solvers, tol=tol, budget=3600).predicted
    shared = {"exponent": exponent}
    return [
        {**measured(rec, name, truth, tol=tol), **shared, "predicted": predicted.get(name, np.nan)} for name in solvers
    ]


def _flat(data: Dataset, solver: str, T: int) -> tuple[Any, Any, Any]:
    """Return exponents, iterations (NaN where not converged) and predictions of one solver at one length."""
    part = data.sel(solver=solver, T=T)
    return (
        part["exponent"].values.ravel(),
        converged(part, "iterations").values.ravel(),
        part["predicted"].values.ravel(),
    )


def _knee(x: Any, k: Any, T: int) -> tuple[float, float]:
    """Return where counts first pass the geometric mean of T and their median in the contractive regime, and it."""
    middle = float(np.sqrt(T * np.median(k[x < CONTRACTIVE]))) if (x < CONTRACTIVE).any() else np.nan
    above = x[k > middle]
    return (float(above.min()) if above.size else np.nan), middle


def _of_solver(data: Dataset, solver: str) -> dict[str, float]:
    """Return medians in both regimes, the knee, growth with T and the worst prediction of one solver."""
    first, last = int(data["T"][0]), int(data["T"][-1])
    before, few, _ = _flat(data, solver, first)
    x, k, predicted = _flat(data, solver, last)
    contractive = (x < CONTRACTIVE) & (before < CONTRACTIVE) & np.isfinite(few) & np.isfinite(k)
    growth = (k / few)[contractive]
    # Of the numbers of iterates, the guess included: 1 iteration for 2 is no failure of a prediction.
    ratio = ((predicted + 1) / (k + 1))[contractive]
    knee, middle = _knee(x, k, last)
    return {
        "negative": _median(k[x < CONTRACTIVE]),
        "positive": _median(k[x > 0]),
        "knee": knee,
        "middle": middle,
        "growth": _median(growth),
        "off": float(np.maximum(ratio, 1 / ratio).max(initial=1.0)) if ratio.size else np.nan,
    }


def _median(counts: Any) -> float:
    return float(np.median(counts)) if counts.size else np.nan  # NaN, if one run did not converge


def facts(data: Dataset) -> dict[str, Any]:
    lengths = [int(T) for T in data["T"].values]
    found: dict[str, Any] = {solver: _of_solver(data, solver) for solver in solvers_of(data)}
    found["lengths"] = lengths
    found["growth_allowed"] = float((np.log(lengths[-1]) / np.log(lengths[0])) ** 2)
    found["exponents"] = [float(data["exponent"].min()), float(data["exponent"].max())]
    return found


def draw_knee(pyplot: Any, data: Dataset) -> Any:
    lengths = [int(T) for T in data["T"].values]
    shown = [lengths[0], lengths[-1]] if len(lengths) > 1 else lengths
    figure, axes = pyplot.subplots(1, len(shown), figsize=(3.4 * len(shown) + 1.7, 3.6), sharey=True, squeeze=False)
    for ax, T in zip(axes[0], shown, strict=True):
        for solver in solvers_of(data):
            x, k, _ = _flat(data, solver, T)
            ax.plot(x, np.maximum(k, 1), **{**line_arguments(solver), **_POINTS})
        ax.axvline(0, color="0.4", linewidth=0.8)
        ax.axhline(T, color="0.4", linewidth=0.8, linestyle=":")
        ax.annotate(
            "T, as many as the loop", (0.02, T), xycoords=("axes fraction", "data"), xytext=(0, 4),
            textcoords="offset points", fontsize=7.5,
        )  # fmt: skip
        ax.set(
            yscale="log",
            title=f"T = {T}, {counted(data['seed'].size, 'seed')}",
            xlabel="largest Lyapunov exponent per step",
        )
    axes[0, 0].set(ylabel="iterations to convergence", ylim=(0.8, 1.8 * shown[-1]))
    legend(figure, pyplot, solvers_of(data), linestyle="none")
    return figure


def says_knee(data: Dataset) -> str:
    f = facts(data)
    newton, first, T = f["newton"], f["lengths"][0], f["lengths"][-1]
    steep = [s for s in solvers_of(data) if not f[s]["growth"] <= f["growth_allowed"]]
    growth = f"every solver but {listed(steep)}" if steep else "every solver"
    slow = f" Where states contract, counts of {growth} grow more slowly with T than the square of log T does."
    return (
        f"Counts rise towards T as the largest Lyapunov exponent reaches 0: at T = {T} the median of Newton is "
        f"{newton['negative']:.0f} below {CONTRACTIVE} and {newton['positive']:.0f} in chaos."
        f"{slow if first < T else ''} Runs that did not converge are not drawn."
    )


def draw_predicted(pyplot: Any, data: Dataset) -> Any:
    figure, axes = pyplot.subplots(1, 2, figsize=(8.4, 3.6), sharey=True, sharex=True)
    T = int(data["T"].values[-1])
    for ax, name, side in zip(axes, ("exponent below -0.2", "above"), (True, False), strict=True):
        for solver in solvers_of(data):
            x, k, predicted = _flat(data, solver, T)
            chosen = (x < CONTRACTIVE) == side
            ax.plot(predicted[chosen], np.maximum(k[chosen], 1), **{**line_arguments(solver), **_POINTS})
        line = np.array([1.0, T])
        ax.plot(line, line, color="0.4", linewidth=0.8)
        ax.fill_between(line, line / 1.5, line * 1.5, color="0.9", zorder=0)
        ax.set(xscale="log", yscale="log", title=f"T = {T}, {name}", xlabel="predicted from the first steps")
        integer_ticks(ax.xaxis)
        integer_ticks(ax.yaxis)
    axes[0].set_ylabel("iterations to convergence")
    legend(figure, pyplot, solvers_of(data), linestyle="none")
    return figure


def says_predicted(data: Dataset) -> str:
    f = facts(data)
    off = {s: f[s]["off"] for s in solvers_of(data)}
    bad = [s for s in off if off[s] > 1.5]
    good = listed([s for s in off if off[s] <= 1.5]) if bad else "every solver"
    others = f"; only those of {listed(bad)} are not, by up to {max(off[s] for s in bad):.3g}x" if bad else ""
    most = "most solvers" if bad else "all"
    return (
        f"Where states contract the first steps predict the iterations of {most}: below {CONTRACTIVE} the counts of "
        f"{good} are within 1.5x of what was predicted (grey){others}."
    )


def tables(data: Dataset) -> list[Table]:
    f = facts(data)
    columns = ("negative", "positive", "knee", "growth", "off")
    rows = [[s, *(f"{f[s][name]:.3g}" for name in columns)] for s in solvers_of(data)]
    head = [
        "solver",
        "iterations below -0.2",
        "above 0",
        "knee at",
        "growth with T below -0.2",
        "prediction off, at most",
    ]
    return [Table(f"Median iterations at T = {f['lengths'][-1]}", head, rows)]


STUDY = study_of(
    __name__,
    name="lyapunov",
    question="How do iterations depend on the largest Lyapunov exponent, and can they be predicted?",
    dims=("T", "gain", "seed", "solver"),
    pictures=(Picture("knee", draw_knee, says_knee), Picture("predicted", draw_predicted, says_predicted)),
)

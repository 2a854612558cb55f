"""Iterations against the largest Lyapunov exponent: figure 2 of Gonzalez et al., NeurIPS 2025 (arXiv 2508.16817)."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

import recsolve as rs
from recsolve.studies.drawing import converged, legend, listed, solvers_of, span
from recsolve.studies.measure import loop, lyapunov, measured, tanh_network
from recsolve.studies.records import Point, Row
from recsolve.studies.registry import Picture, Study, Table
from recsolve.studies.style import line_arguments

if TYPE_CHECKING:
    from xarray import Dataset

CHEAP = (
    "newton", "quasi_newton", "jacobi", "picard", "scaled_newton", "relaxed_newton", "damped_newton",
    "triangular_anderson", "multiple_shooting", "parareal", "mgrit",
)  # fmt: skip
CONTRACTIVE = -0.2  # predictions are to hold below this exponent


@dataclass(frozen=True)
class Config:
    """h = W tanh(h) + u with W ~ N(0, gain^2 / units), zero diagonal, sinusoidal u; residuals to ``tol``."""

    units: int = 32
    lengths: tuple[int, ...] = (128, 512)
    gains: tuple[float, ...] = (0.5, 0.7, 0.9, 1.1, 1.3, 1.5, 1.7, 1.9, 2.2, 2.6)
    seeds: int = 2
    solvers: tuple[str, ...] = CHEAP
    tol: float = 1e-10
    pilot: int = 256


FULL = Config(
    units=100,
    lengths=(100, 300, 1000, 3000, 10_000),
    gains=tuple(round(float(g), 3) for g in np.linspace(0.5, 2.0, 50)),
    seeds=20,
    solvers=(*CHEAP, "newton_krylov", "elk", "anderson", "broyden", "clipped_newton", "chord", "gauss_seidel"),
)
TINY = Config(units=16, lengths=(64, 256), gains=(0.6, 0.9, 2.4), seeds=1, pilot=128)


def grid(config: Config) -> Iterator[Point]:
    for T in config.lengths:
        for gain in config.gains:
            for seed in range(config.seeds):
                yield {
                    "T": T, "gain": gain, "seed": seed, "units": config.units, "solvers": [*config.solvers],
                    "tol": config.tol, "pilot": config.pilot, "dtype": "float64",
                }  # fmt: skip


def run(
    *, T: int, gain: float, seed: int, units: int, solvers: list[str], tol: float, pilot: int, dtype: str
) -> list[Row]:
    rec = tanh_network(gain, units, T, seed, dtype)
    truth = loop(rec)
    exponent = lyapunov(rec, truth)
    predicted: dict[str, int] = {}
    if pilot < T:  # else it would be no prediction
        predicted = rs.diagnose(rec, pilot=pilot, exponents=1, methods=solvers, tol=tol).predicted
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


def facts(data: Dataset) -> dict[str, Any]:
    lengths = [int(T) for T in data["T"].values]
    found: dict[str, Any] = {"lengths": lengths}
    for solver in solvers_of(data):
        share: dict[str, float] = {}
        for name, side in (("negative", lambda x: x < CONTRACTIVE), ("positive", lambda x: x > 0)):
            x, k, _ = _flat(data, solver, lengths[-1])
            share[name] = float(np.nanmedian(k[side(x)])) if np.isfinite(k[side(x)]).any() else float("nan")
        found[f"{solver}.negative"], found[f"{solver}.positive"] = share["negative"], share["positive"]
        x, first, _ = _flat(data, solver, lengths[0])
        same, last, predicted = _flat(data, solver, lengths[-1])
        contractive = (x < CONTRACTIVE) & (same < CONTRACTIVE) & np.isfinite(first) & np.isfinite(last)
        found[f"{solver}.growth"] = (
            float(np.median(last[contractive] / first[contractive])) if contractive.any() else np.nan
        )
        # Of the numbers of iterates, the guess included: 1 iteration for 2 is no failure of a prediction.
        ratio = ((predicted + 1) / (last + 1))[contractive]
        found[f"{solver}.off"] = float(np.maximum(ratio, 1 / ratio).max()) if ratio.size else np.nan
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
            style = {**line_arguments(solver), "linestyle": "none", "markersize": 4, "alpha": 0.8}
            ax.plot(x, np.maximum(k, 1), **style)
        ax.axvline(0, color="0.4", linewidth=0.8)
        ax.axhline(T, color="0.4", linewidth=0.8, linestyle=":")
        ax.annotate(
            "T: as many as the loop",
            (0.01, T),
            xycoords=("axes fraction", "data"),
            xytext=(0, 5),
            textcoords="offset points",
            fontsize=7.5,
        )
        ax.set(yscale="log", title=f"T = {T}, {data['seed'].size} seeds", xlabel="largest Lyapunov exponent per step")
    axes[0, 0].set_ylabel("iterations to convergence")
    legend(figure, pyplot, solvers_of(data))
    return figure


def says_knee(data: Dataset) -> str:
    f = facts(data)
    flat = [s for s in solvers_of(data) if f[f"{s}.growth"] <= f["growth_allowed"]]
    return (
        f"Exponents run from {f['exponents'][0]:.2f} to {f['exponents'][1]:.2f}. At T = {f['lengths'][-1]} Newton takes a "
        f"median of {f['newton.negative']:.0f} iterations below {CONTRACTIVE} and {f['newton.positive']:.0f} above 0, "
        f"Jacobi {f['jacobi.negative']:.0f} and {f['jacobi.positive']:.0f}: the knee is at 0. Below {CONTRACTIVE} the "
        f"counts of {listed(flat)} grow from T = {f['lengths'][0]} to {f['lengths'][-1]} by less than (log T)^2 does, "
        f"which is {f['growth_allowed']:.2f}x. Runs that did not converge are not drawn."
    )


def draw_predicted(pyplot: Any, data: Dataset) -> Any:
    figure, axes = pyplot.subplots(1, 2, figsize=(8.4, 3.6), sharey=True, sharex=True)
    T = int(data["T"].values[-1])
    for ax, name, side in zip(axes, ("exponent below -0.2", "above"), (True, False), strict=True):
        for solver in solvers_of(data):
            x, k, predicted = _flat(data, solver, T)
            chosen = (x < CONTRACTIVE) == side
            style = {**line_arguments(solver), "linestyle": "none", "markersize": 4, "alpha": 0.8}
            ax.plot(predicted[chosen], np.maximum(k[chosen], 1), **style)
        line = np.array([1.0, T])
        ax.plot(line, line, color="0.4", linewidth=0.8)
        ax.fill_between(line, line / 1.5, line * 1.5, color="0.9", zorder=0)
        ax.set(xscale="log", yscale="log", title=f"T = {T}, {name}", xlabel="predicted from the first steps")
    axes[0].set_ylabel("iterations to convergence")
    legend(figure, pyplot, solvers_of(data))
    return figure


def says_predicted(data: Dataset) -> str:
    f = facts(data)
    good = [s for s in solvers_of(data) if f[f"{s}.off"] <= 1.5]
    bad = [s for s in solvers_of(data) if f[f"{s}.off"] > 1.5]
    return (
        f"Grey: within 1.5x. Below {CONTRACTIVE} every prediction of {listed(good)} is within 1.5x of the count; "
        f"the others ({listed(bad)}) are off by at most {span([max([f[f'{s}.off'] for s in bad], default=1.0)])}x."
    )


def tables(data: Dataset) -> list[Table]:
    f = facts(data)
    rows = [
        [s, *(f"{f[f'{s}.{name}']:.3g}" for name in ("negative", "positive", "growth", "off"))]
        for s in solvers_of(data)
    ]
    head = ["solver", "iterations below -0.2", "above 0", "growth with T below -0.2", "prediction off by, at most"]
    return [Table(f"Median iterations at T = {f['lengths'][-1]}", head, rows)]


STUDY = Study(
    name="lyapunov",
    question="How do iterations depend on the largest Lyapunov exponent, and can they be predicted?",
    quick=Config(),
    full=FULL,
    tiny=TINY,
    grid=grid,
    run=run,
    dims=("T", "gain", "seed", "solver"),
    facts=facts,
    pictures=(Picture("knee", draw_knee, says_knee), Picture("predicted", draw_predicted, says_predicted)),
    tables=tables,
)

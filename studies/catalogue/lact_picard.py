"""Chunks of fast weights in parallel (LaCT, arXiv 2505.23884): which A stands for a Jacobian that is near I."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from recsolve.jacobians import Jacobian, Pairs
from recsolve.jacobians.pattern import Pattern
from recsolve.solvers import Picard, Problem
from recsolve.studies.compare.measure import loop, measured
from recsolve.studies.draw.drawing import band, converged
from recsolve.studies.draw.series import ending, level, outside_legend, series
from recsolve.studies.draw.style import integer_ticks
from recsolve.studies.registry import Picture, Table, study_of
from recsolve.studies.store.records import Point, Row, product
from recsolve.studies.systems import lact

if TYPE_CHECKING:
    from xarray import DataArray, Dataset

PLAIN, NORM, MUON = "lact", "lact_norm", "lact_muon"
SYSTEMS = {PLAIN: "no norms", NORM: "norms of rows", MUON: "norms, momentum, Muon"}
MAKERS = {PLAIN: lact.lact, NORM: lact.lact_norm, MUON: lact.lact_muon}
MUON_RATE = 0.002
PICARD, ROWS, NEWTON, JACOBI = "A = I", "A = projector of rows", "A = J", "A = 0"
_WITHIN = {"W0": "h", "W1": "v", "W2": "h"}


@dataclass(frozen=True, kw_only=True)
class RowProjector(Picard):
    """A keeps the lengths of rows w of all weights, I - w w^T / |w|^2, and decays momenta."""

    name = "row_projector"
    matrix = "I - w w^T / |w|^2"

    def preconditioner(self, problem: Problem, iterate: Any) -> Jacobian:
        rec = problem.recurrence
        states, blocks = rec.named(iterate.values), {}
        pairs: dict[tuple[str, str], Any] = {(name, name): (axis,) for name, axis in _WITHIN.items()}
        for name in _WITHIN:
            rows = states[name] / lact.row_norms(states[name])
            blocks[name, name] = np.eye(rows.shape[-1]) - rows[..., :, None] * rows[..., None, :]
        mu = dict(rec.contain(rec.inputs)).get("mu")  # type: ignore[attr-defined]
        if mu is not None:
            for name in ("m0", "m1", "m2"):
                size, pairs[name, name] = states[name][0, 0].size, "diagonal"
                blocks[name, name] = np.broadcast_to(mu[..., None, None, None], (*mu.shape, size, 1, 1))
        return Pairs(blocks, Pattern(rec.state, pairs), rec.layout, iterate.values)  # type: ignore[attr-defined]


SOLVERS: dict[str, Any] = {PICARD: "picard", ROWS: RowProjector(), NEWTON: "newton", JACOBI: "jacobi"}


@dataclass(frozen=True)
class Config:
    """``chunks`` chunks of ``tokens`` tokens; Muon takes the last of the ``rates`` that are below 0.002.

    Rows of weights have a norm of about 1; with Muon, whose steps have size 1, of ``gains``.
    """

    rates: tuple[float, ...] = (1e-4, 3e-4, 1e-3, 3e-3, 1e-2)
    gains: tuple[float, ...] = (1.0, 4.0, 16.0, 64.0)
    chunks: int = 64
    tokens: int = 16
    keys: int = 3
    hidden: int = 4
    seeds: int = 3
    tol: float = 1e-9


TINY = Config(rates=(1e-3, 1e-2), gains=(1.0, 16.0), chunks=16, keys=2, hidden=3, seeds=2)
FULL = Config(rates=(1e-5, *Config.rates), chunks=256, keys=8, hidden=12, tokens=64, seeds=5)


def grid(config: Config) -> Iterator[Point]:
    sizes = {name: getattr(config, name) for name in ("tokens", "keys", "hidden", "tol")}
    shared = {"T": config.chunks, **sizes, "seed": range(config.seeds), "dtype": "float64"}
    yield from product(system=(PLAIN, NORM), rate=config.rates, gain=1.0, **shared)
    rate = max(rate for rate in config.rates if rate < MUON_RATE)
    yield from product(system=MUON, rate=rate, gain=config.gains, **shared)


def run(
    *,
    system: str,
    rate: float,
    seed: int,
    T: int,
    tokens: int,
    keys: int,
    hidden: int,
    gain: float,
    tol: float,
    dtype: str,
) -> list[Row]:
    sizes = {"chunk": tokens, "keys": keys, "values": keys, "hidden": hidden}
    config = lact.Config(length=T, **sizes, eta=rate, gain=gain, seed=seed, dtype=dtype)
    rec = MAKERS[system](lact.draw(config))
    truth = loop(rec)
    tried = {name: solver for name, solver in SOLVERS.items() if name != ROWS or system != PLAIN}
    return [measured(rec, solver, truth, name=name, tol=tol) for name, solver in tried.items()]


def _counts(data: Dataset, system: str) -> DataArray:
    """Return iterations by rate, of Muon by gain, and by seed and solver; NaN where not converged."""
    part = data.sel(system=system).isel(T=0)
    ran = part["status"] != ""
    over, other = ("gain", "rate") if system == MUON else ("rate", "gain")
    at = {other: ran.any([name for name in ran.dims if name != other]).values.argmax()}
    counts = converged(part.isel(at), "iterations")
    return counts.isel({over: ran.isel(at).any([name for name in counts.dims if name != over]).values})


def facts(data: Dataset) -> dict[str, Any]:
    found: dict[str, Any] = {"error": float(converged(data, "error").max())}
    for system in SYSTEMS:
        counts = _counts(data, system)
        found[system] = [float(x) for x in counts["gain" if system == MUON else "rate"].values]
        for solver in SOLVERS:
            part = counts.sel(solver=solver)
            if part.notnull().any():
                found[f"{system}.{solver}"] = [float(x) for x in part.median("seed", skipna=False).values]
    return found


def draw(pyplot: Any, data: Dataset) -> Any:
    figure, axes = pyplot.subplots(1, 3, figsize=(10, 3.3), sharey=True)
    looks, last = series(SOLVERS), int(data["T"].max()) - 1
    for ax, (system, title) in zip(axes, SYSTEMS.items(), strict=True):
        counts = _counts(data, system)
        x = counts["gain" if system == MUON else "rate"].values
        for name, look in looks.items():
            if counts.sel(solver=name).notnull().any():
                band(ax, x, counts.sel(solver=name), "seed", name, **look)
        ending(ax, x, counts.sel(solver=NEWTON).median("seed", skipna=False), "the loop overflows")
        ax.set(xscale="log", yscale="log", title=title, xlabel="norm of rows" if system == MUON else "rate of learning")
        ax.set_xlim(x[0] / 1.3, x[-1] * 1.3)
        level(ax, last, "the loop", "left")
    axes[0].set_ylabel("iterations")
    integer_ticks(axes[0].yaxis)
    outside_legend(figure, pyplot, looks.values())
    return figure


def says(data: Dataset) -> str:
    f, last = facts(data), int(data["T"].max()) - 1
    picard, rows, newton = (f[f"{NORM}.{solver}"][-1] for solver in (PICARD, ROWS, NEWTON))
    lost = np.isnan(f[f"{PLAIN}.{PICARD}"]).any()
    overflow = " Without norms the weights of the loop itself overflow at the largest rates." if lost else ""
    return (
        f"Norms of rows defeat Picard's A = I, and the projector that keeps them mends it: for {last + 1} chunks at "
        f"the largest rate they take {picard:.0f} and {rows:.0f} iterations, Newton {newton:.0f}.{overflow}"
    )


def tables(data: Dataset) -> list[Table]:
    f = facts(data)
    found = []
    for system, title in SYSTEMS.items():
        rows = [
            [solver, *(f"{x:.0f}" if np.isfinite(x) else "-" for x in f[f"{system}.{solver}"])]
            for solver in SOLVERS
            if f"{system}.{solver}" in f
        ]
        what = "norm of rows" if system == MUON else "rate"
        found.append(Table(f"{title}: median iterations by {what}", ["A", *(f"{x:g}" for x in f[system])], rows))
    return found


STUDY = study_of(
    __name__,
    name="lact",
    question="Which A solves chunks of fast weights in parallel?",
    dims=("system", "rate", "gain", "T", "seed", "solver"),
    pictures=(Picture("iterations", draw, says),),
)

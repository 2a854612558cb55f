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
from recsolve.studies.draw.drawing import band, converged, listed, powers_of_two, span
from recsolve.studies.draw.series import level, outside_legend, series
from recsolve.studies.registry import Picture, Table, study_of
from recsolve.studies.store.records import Point, Row, product
from recsolve.studies.systems import lact

if TYPE_CHECKING:
    from xarray import Dataset

SYSTEMS = {"lact": "no norms", "lact_norm": "norms of rows", "lact_muon": "norms, momentum, Muon"}
_MAKERS = {"lact": lact.lact, "lact_norm": lact.lact_norm, "lact_muon": lact.lact_muon}
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
    """``chunks`` chunks of ``tokens`` tokens."""

    rates: tuple[float, ...] = (1e-4, 3e-4, 1e-3, 3e-3, 1e-2)
    chunks: int = 64
    tokens: int = 16
    keys: int = 3
    hidden: int = 4
    gain: float = 1.0
    seeds: int = 3
    tol: float = 1e-9


TINY = Config(rates=(1e-4, 1e-2), chunks=16, keys=2, hidden=3, seeds=2)
FULL = Config(rates=(1e-5, *Config.rates), chunks=256, keys=8, hidden=12, tokens=64, seeds=5)


def grid(config: Config) -> Iterator[Point]:
    sizes = {name: getattr(config, name) for name in ("tokens", "keys", "hidden", "gain", "tol")}
    yield from product(
        system=tuple(SYSTEMS), rate=config.rates, seed=range(config.seeds), T=config.chunks, **sizes, dtype="float64"
    )


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
    rec = _MAKERS[system](lact.draw(config))
    truth = loop(rec)
    tried = {name: solver for name, solver in SOLVERS.items() if name != ROWS or system != "lact"}
    return [measured(rec, solver, truth, name=name, tol=tol) for name, solver in tried.items()]


def facts(data: Dataset) -> dict[str, Any]:
    found: dict[str, Any] = {}
    counts = converged(data, "iterations")
    for system in SYSTEMS:
        for solver in SOLVERS:
            part = counts.sel(system=system, solver=solver).isel(T=0)
            if part.notnull().any():
                found[f"{system}.{solver}"] = [float(x) for x in part.median("seed", skipna=False).values]
    found["rates"] = [float(x) for x in data["rate"].values]
    found["error"] = float(converged(data, "error").max())
    return found


def draw(pyplot: Any, data: Dataset) -> Any:
    figure, axes = pyplot.subplots(1, 3, figsize=(10, 3.3), sharex=True, sharey=True)
    looks = series(SOLVERS)
    for ax, (system, title) in zip(axes, SYSTEMS.items(), strict=True):
        counts = converged(data.sel(system=system), "iterations").isel(T=0)
        for name, look in looks.items():
            part = counts.sel(solver=name)
            if part.notnull().any():
                band(ax, data["rate"].values, part, "seed", name, **look)
        ax.set(xscale="log", yscale="log", title=title, xlabel="rate of learning")
        level(ax, int(data["T"].max()) - 1, "the loop", "left")
    axes[0].set_ylabel("iterations")
    powers_of_two(axes[0].yaxis, [2.0**k for k in range(1, int(data["T"].max()).bit_length())])
    outside_legend(figure, pyplot, looks.values())
    return figure


def says(data: Dataset) -> str:
    f, last = facts(data), int(data["T"].max()) - 1
    rates = listed([f"{rate:g}" for rate in f["rates"]])

    def counts(system: str, solver: str) -> str:
        return listed([f"{x:.0f}" if np.isfinite(x) else "no" for x in f[f"{system}.{solver}"]])

    overflow = " (no: the weights of the loop itself overflow)" if np.isnan(f[f"lact.{PICARD}"]).any() else ""
    return (
        f"For {last + 1} chunks and rates of {rates}: without norms Picard's A = I takes {counts('lact', PICARD)} "
        f"iterations{overflow}; with norms of rows {counts('lact_norm', PICARD)}, the projector that keeps them "
        f"{counts('lact_norm', ROWS)}, Newton {counts('lact_norm', NEWTON)}. With momentum and Muon, whose steps have "
        f"size 1 whatever the rate, Newton needs {span(f[f'lact_muon.{NEWTON}'])} and the projector "
        f"{span(f[f'lact_muon.{ROWS}'])} of at most {last}: none of these pays there. A = 0 needs "
        f"{span(f[f'lact.{JACOBI}'] + f[f'lact_norm.{JACOBI}'])}."
    )


def tables(data: Dataset) -> list[Table]:
    f = facts(data)
    rows = [
        [title, solver, *(f"{x:.0f}" for x in f[f"{system}.{solver}"])]
        for system, title in SYSTEMS.items()
        for solver in SOLVERS
        if f"{system}.{solver}" in f
    ]
    return [Table("Median iterations by rate", ["system", "A", *(f"{rate:g}" for rate in f["rates"])], rows)]


STUDY = study_of(
    __name__,
    name="lact",
    question="Which A solves chunks of fast weights in parallel?",
    dims=("system", "rate", "T", "seed", "solver"),
    pictures=(Picture("iterations", draw, says),),
)

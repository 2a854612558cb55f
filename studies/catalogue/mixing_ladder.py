"""Structure of the mixing, from none to dense: iterations and cost of exact Newton, quasi-Newton and Jacobi.

Newton on the structured Jacobian is DEER (Lim et al., ICLR 2024, arXiv 2309.12252), with the k x k block per unit alone
quasi-DEER (Gonzalez et al., NeurIPS 2024, arXiv 2407.19115), with none of it Jacobi (Song et al., ICML 2021).
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING, Any

import numpy as np

import recsolve as rs
from recsolve.base.arrays import Array
from recsolve.math import tanh
from recsolve.mixings import Dense, Diagonal, Heads, Mixing
from recsolve.studies.compare.measure import loop, measured, timed
from recsolve.studies.draw.drawing import band, converged, legend, listed, times
from recsolve.studies.draw.series import level
from recsolve.studies.draw.style import line_arguments
from recsolve.studies.registry import Picture, Table, study_of
from recsolve.studies.store.records import Point, Row, product

if TYPE_CHECKING:
    from xarray import DataArray, Dataset

RUNGS = ("zero", "scalar", "diagonal", "2x2", "heads", "dense")
SOLVERS = ("newton", "quasi_newton", "jacobi")
CONTRACTIVE = 1.0  # coupling up to which h = tanh(M h + u) is a contraction, whatever u
HEADS = 4


@dataclass(frozen=True)
class Config:
    """h = tanh(M h + u), M orthogonal in each structure times ``coupling``, u ~ N(0, 1); the first seed is timed."""

    couplings: tuple[float, ...] = (0.3, 0.5, 0.7, 0.9, 1.1, 1.3, 1.5, 1.8)
    units: int = 32
    T: int = 256
    seeds: int = 2
    tol: float = 1e-10


FULL = Config(couplings=tuple(round(0.1 * k, 1) for k in range(1, 21)), units=64, T=1024, seeds=5)
TINY = Config(couplings=(0.3, 0.9, 1.5), units=8, T=64, seeds=1)


def grid(config: Config) -> Iterator[Point]:
    for point in product(
        rung=tuple(RUNGS), coupling=config.couplings, seed=range(config.seeds), units=config.units, T=config.T,
        tol=config.tol, dtype="float64",
    ):  # fmt: skip
        yield {**point, "clocked": point["seed"] == 0}


def run(
    *, rung: str, coupling: float, seed: int, units: int, T: int, tol: float, dtype: str, clocked: bool
) -> list[Row]:
    rec = recurrence(rung, coupling, units, T, seed, dtype)
    truth = loop(rec)
    rows = []
    for solver in ("sequential", *SOLVERS):
        row = measured(rec, solver, truth, tol=tol)
        if clocked:
            row |= timed(partial(rs.solve, rec, method=solver, tol=tol), repeats=3, enough=0.5)
        rows.append(row)
    return rows


def _pair(s: Any, W: Any, u: Any, p: Any) -> Any:
    """Two components that couple within a unit: the Jacobian is 2 x 2 per unit."""
    return tanh(p.aa * s.a + p.ab * s.b + u.a), tanh(p.ba * s.a + p.bb * s.b + u.b)


PAIR = rs.Cell(_pair, state=("a", "b"), output="a")


def _orthogonal(n: int, rng: np.random.Generator) -> Array:
    q, r = np.linalg.qr(rng.standard_normal((n, n)))
    return np.asarray(q * np.sign(np.diagonal(r)))


def recurrence(rung: str, coupling: float, units: int, T: int, seed: int, dtype: str = "float64") -> rs.Recurrence:
    """Return h = tanh(M h + u). M scales every vector by ``coupling`` on all rungs but the first, where it is zero."""
    rng = np.random.default_rng(seed)
    drive = rng.standard_normal((T, units)).astype(dtype)
    if rung == "2x2":
        angle, half = rng.uniform(0, 2 * np.pi, units // 2), units // 2
        c, s = (coupling * f(angle).astype(dtype) for f in (np.cos, np.sin))
        cell = PAIR.with_weights(parameters={"aa": c, "ab": -s, "ba": s, "bb": c}, hidden_size=half)
        return cell.recurrence(drive={"a": drive[:, :half], "b": drive[:, half:]})
    if rung == "heads":
        drive = drive.reshape(T, HEADS, units // HEADS)
    mixing = _mixing(rung, coupling, units, rng).map(lambda w: w.astype(dtype))
    return rs.cells.Elman.with_weights(mixings={"h": mixing}).recurrence(drive={"h": drive})


def _mixing(rung: str, coupling: float, units: int, rng: np.random.Generator) -> Mixing:
    if rung == "zero":
        return Diagonal(np.zeros(units))
    if rung == "scalar":
        return Diagonal(np.full(units, coupling))
    if rung == "diagonal":
        return Diagonal(coupling * rng.choice([-1.0, 1.0], units))
    if rung == "heads":
        return Heads(coupling * np.stack([_orthogonal(units // HEADS, rng) for _ in range(HEADS)]))
    return Dense(coupling * _orthogonal(units, rng))


def _counts(data: Dataset, rung: str, solver: str) -> DataArray:
    return converged(data, "iterations").sel(rung=rung, solver=solver).transpose("coupling", "seed")


def _relative(data: Dataset, rung: str, solver: str) -> DataArray:
    """Return wall time over that of the loop, by coupling, where converged."""
    part = data.isel(seed=0).sel(rung=rung)
    return converged(part, "seconds").sel(solver=solver) / part["seconds"].sel(solver="sequential")


def facts(data: Dataset) -> dict[str, Any]:
    couplings = data["coupling"].values
    inside = int(np.flatnonzero(couplings < CONTRACTIVE)[-1])
    found: dict[str, Any] = {
        "first": float(couplings[0]),
        "inside": float(couplings[inside]),
        "last": float(couplings[-1]),
    }
    for rung in RUNGS:
        for solver in SOLVERS:
            middle = _counts(data, rung, solver).median("seed", skipna=False).values
            found[f"{rung}.{solver}"] = [float(middle[i]) for i in (0, inside, -1)]
            relative = _relative(data, rung, solver).values
            found[f"{rung}.{solver}.time"] = [float(relative[i]) for i in (inside, -1)]
    return found


def draw_counts(pyplot: Any, data: Dataset) -> Any:
    shown = [rung for rung in RUNGS if rung != "zero"]  # which takes no iteration at all
    figure, axes = pyplot.subplots(1, len(shown), figsize=(2.4 * len(shown) + 1.6, 3.2), sharey=True)
    for ax, rung in zip(axes, shown, strict=True):
        for solver in SOLVERS:
            band(ax, data["coupling"].values, _counts(data, rung, solver), "seed", solver)
        ax.axvline(CONTRACTIVE, color="0.4", linewidth=0.8, linestyle=":")
        ax.set(yscale="log", title=rung, xlabel="coupling")
    axes[0].set_ylabel("iterations to convergence")
    legend(figure, pyplot, SOLVERS)
    return figure


def says_counts(data: Dataset) -> str:
    f = facts(data)
    same = [r for r in RUNGS if r != "zero" and f[f"{r}.newton"] == f[f"{r}.quasi_newton"]]
    newton, quasi, jacobi = (f[f"dense.{s}"][1] for s in SOLVERS)
    return (
        f"Quasi-Newton takes what Newton takes on {listed(same)} mixings, whose blocks it has. On dense ones at "
        f"coupling {f['inside']:g} it takes {quasi:.0f} iterations beside {newton:.0f} of Newton's and {jacobi:.0f} "
        "of Jacobi's. Right of the dotted line f need not contract; with no mixing the first guess is the answer."
    )


def draw_cost(pyplot: Any, data: Dataset) -> Any:
    f = facts(data)
    figure, axes = pyplot.subplots(1, 2, figsize=(8.6, 3.4), sharey=True)
    place = np.arange(len(RUNGS))
    for ax, i, coupling in zip(axes, (0, 1), (f["inside"], f["last"]), strict=True):
        for j, solver in enumerate(SOLVERS):  # side by side, and no line: structures are no numbers
            look = {**line_arguments(solver), "linestyle": "none"}
            ax.plot(place + 0.16 * (j - 1), [f[f"{rung}.{solver}.time"][i] for rung in RUNGS], **look)
        level(ax, 1.0, "as fast as the loop")
        ax.set(yscale="log", title=f"coupling {coupling:g}", xlabel="structure of the mixing")
        ax.set_xticks(place, RUNGS)
    axes[0].set_ylabel("time / time of the loop")
    legend(figure, pyplot, SOLVERS, linestyle="none")
    return figure


def says_cost(data: Dataset) -> str:
    f = facts(data)
    least = {rung: min(f[f"{rung}.{s}.time"][0] for s in SOLVERS) for rung in RUNGS}
    mixed = {rung: ratio for rung, ratio in least.items() if rung != "zero"}
    low, high = (pick(mixed, key=mixed.__getitem__) for pick in (min, max))
    return (
        f"With a mixing the fastest solver takes {times(mixed[low])} ({low}) to {times(mixed[high])} ({high}) "
        f"the time of the loop at coupling {f['inside']:g}, on the machine where this was timed; with no mixing it "
        f"takes {times(least['zero'])}."
    )


def tables(data: Dataset) -> list[Table]:
    f = facts(data)
    rows = [
        [rung, solver, *(f"{k:.0f}" for k in f[f"{rung}.{solver}"]), *(f"{t:.2g}" for t in f[f"{rung}.{solver}.time"])]
        for rung in RUNGS
        for solver in SOLVERS
    ]
    at = [f"{f[name]:g}" for name in ("first", "inside", "last")]
    head = ["mixing", "solver", *(f"iterations at {x}" for x in at), *(f"time / loop at {x}" for x in at[1:])]
    return [Table("Median iterations, and time over that of the loop, by coupling", head, rows)]


STUDY = study_of(
    __name__,
    name="mixing_ladder",
    question="What does structure of the mixing buy as coupling grows?",
    dims=("rung", "coupling", "seed", "solver"),
    pictures=(Picture("counts", draw_counts, says_counts), Picture("cost", draw_cost, says_cost)),
    alone=True,
)

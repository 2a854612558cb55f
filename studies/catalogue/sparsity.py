"""Sparse networks (Darji, arXiv 2407.20601): iterations against what is pruned, and Jacobi against the longest path."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from recsolve.studies.compare.measure import loop, lyapunov, measured
from recsolve.studies.draw.drawing import converged, family, span
from recsolve.studies.draw.series import outside_legend, series
from recsolve.studies.draw.style import integer_ticks
from recsolve.studies.registry import Picture, Table, study_of
from recsolve.studies.store.records import Point, Row, product
from recsolve.studies.systems.system import get

if TYPE_CHECKING:
    from xarray import Dataset

SOLVERS = ("newton", "quasi_newton", "jacobi")
CELLS = ("tanh", "relu", "gru", "lstm")
LAYERED = "dag"


@dataclass(frozen=True)
class Config:
    """Shares of the recurrent weights that are ``pruned``; longest ``paths`` of networks without cycles."""

    pruned: tuple[float, ...] = (0.0, 0.3, 0.6, 0.8, 0.9, 0.95)
    paths: tuple[int, ...] = (1, 2, 4, 8, 16)
    lengths: tuple[int, ...] = (64, 256, 1024)
    T: int = 256
    units: int = 24
    gain: float = 1.5
    seeds: int = 3


TINY = Config(pruned=(0.0, 0.9), paths=(1, 4), lengths=(32, 128), T=48, units=12, seeds=2)
FULL = Config(
    pruned=tuple(round(0.05 * k, 2) for k in range(20)), paths=(1, 2, 4, 8, 16, 32), lengths=(64, 512, 4096, 32768),
    T=1024, units=100, seeds=10,
)  # fmt: skip


def grid(config: Config) -> Iterator[Point]:
    shared = {"seed": range(config.seeds), "units": config.units, "gain": config.gain, "dtype": "float64"}
    yield from product(cell=CELLS, amount=config.pruned, T=config.T, **shared)
    yield from product(cell=LAYERED, amount=tuple(map(float, config.paths)), T=config.lengths, **shared)


def run(*, cell: str, amount: float, T: int, seed: int, units: int, gain: float, dtype: str) -> list[Row]:
    changes: dict[str, Any] = {"path": int(amount)} if cell == LAYERED else {"pruned": amount}
    changes |= {"length": T, "batch": 1, "units": units, "gain": gain, "seed": seed, "dtype": dtype}
    rec = get(f"sparse_{cell}").build(**changes)
    truth = loop(rec)
    exponent = lyapunov(rec, truth)
    return [{"exponent": exponent, **measured(rec, solver, truth)} for solver in SOLVERS]


def facts(data: Dataset) -> dict[str, Any]:
    counts = converged(data, "iterations")
    found: dict[str, Any] = {}
    for cell in CELLS:
        for solver in SOLVERS:
            of = counts.sel(cell=cell, solver=solver).dropna("amount", how="all").dropna("T", how="all").isel(T=0)
            middle = of.median("seed", skipna=False)
            found[f"{cell}.{solver}"] = [float(middle[0]), float(middle[-1])]
        exponents = data["exponent"].sel(cell=cell, solver="newton").dropna("amount", how="all").dropna("T", how="all")
        found[f"{cell}.exponent"] = [float(x) for x in exponents.isel(T=0, amount=[0, -1]).median("seed")]
        found["pruned"] = [float(exponents["amount"][0]), float(exponents["amount"][-1])]
    layered = counts.sel(cell=LAYERED, solver="jacobi").dropna("amount", how="all").dropna("T", how="all")
    excess = layered - layered["amount"]
    found["beyond_path"] = [float(excess.min()), float(excess.max())]
    found["spread_over_T"] = float((layered.max("T") - layered.min("T")).max())
    found["lengths"] = [int(layered["T"].min()), int(layered["T"].max())]
    return found


def draw_pruned(pyplot: Any, data: Dataset) -> Any:
    figure, axes = pyplot.subplots(1, len(SOLVERS), figsize=(10.5, 3.2), sharey=True)
    looks = series(CELLS)
    for ax, solver in zip(axes, SOLVERS, strict=True):
        part = converged(data, "iterations").sel(solver=solver, cell=list(CELLS)).dropna("T", how="all").isel(T=0)
        family(ax, part, "amount", "cell", looks)
        ax.set(yscale="log", title=solver, xlabel="share of recurrent weights pruned")
    axes[0].set_ylabel("iterations")
    outside_legend(figure, pyplot, looks.values())
    return figure


def says_pruned(data: Dataset) -> str:
    f = facts(data)
    before, after = (span(f[f"{c}.newton"][i] for c in CELLS) for i in (0, 1))
    contracts = all(f[f"{c}.exponent"][1] < f[f"{c}.exponent"][0] for c in CELLS)
    return (
        f"Pruning {'contracts' if contracts else 'does not always contract'}, and what contracts is solved sooner: "
        f"with {100 * f['pruned'][1]:.0f}% of the weights pruned the medians of Newton over the cells are {after} "
        f"iterations, with whole weights {before}."
    )


def draw_paths(pyplot: Any, data: Dataset) -> Any:
    figure, ax = pyplot.subplots(figsize=(6, 3.2))
    part = converged(data, "iterations").sel(cell=LAYERED, solver="jacobi")
    part = part.dropna("amount", how="all").dropna("T", how="all")
    path = part["amount"].values
    bound = {"color": "0.5", "linewidth": 0.8, "linestyle": ":", "label": "as many as the longest path"}
    ax.plot(path, path, **bound)
    looks = series(f"T = {T}" for T in part["T"].values)
    for i, (T, look) in enumerate(zip(part["T"].values, looks.values(), strict=True)):
        look |= {"linestyle": "none", "markersize": 12 - 3 * i, "markerfacecolor": "none"}  # one around the other
        ax.plot(path, part.sel(T=T).median("seed", skipna=False), **look)
    ax.set(xlabel="longest path p of the connections (edges)", ylabel="iterations of Jacobi")
    integer_ticks(ax.yaxis)
    outside_legend(figure, pyplot, [*looks.values(), bound])
    return figure


def says_paths(data: Dataset) -> str:
    f = facts(data)
    low, high = f["beyond_path"]
    taken = "p" if low == high == 0 else f"p {low:+.0f} to p {high:+.0f}"
    return (
        f"Without cycles Jacobi takes {taken} iterations, p the longest path, at most {f['spread_over_T']:.0f} more "
        f"or fewer from T = {f['lengths'][0]} to {f['lengths'][1]}: a state does not depend on inputs older than p "
        f"steps. The first guess, f(h[0], u), is a sweep already."
    )


def tables(data: Dataset) -> list[Table]:
    f = facts(data)
    rows = [[c, s, *(f"{x:.0f}" for x in f[f"{c}.{s}"])] for c in CELLS for s in SOLVERS]
    return [Table("Median iterations", ["cell", "solver", *(f"{100 * x:.0f}% pruned" for x in f["pruned"])], rows)]


STUDY = study_of(
    __name__,
    name="sparsity",
    question="What does sparsity of the recurrent weights save a solver?",
    dims=("cell", "amount", "T", "seed", "solver"),
    pictures=(Picture("pruned", draw_pruned, says_pruned), Picture("paths", draw_paths, says_paths)),
)

"""Why are linear RNNs more parallelizable (Merrill et al., arXiv 2603.03612): pointers beside words of permutations."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

import recsolve as rs
from recsolve.base.arrays import Array
from recsolve.studies.compare.measure import loop, measured
from recsolve.studies.draw.drawing import band, converged, powers_of_two, times
from recsolve.studies.draw.series import level, outside_legend, series
from recsolve.studies.draw.style import line_arguments
from recsolve.studies.registry import Picture, Table, study_of
from recsolve.studies.store.records import Point, Row, product
from recsolve.studies.systems.system import get
from recsolve.studies.timing import in_turns

if TYPE_CHECKING:
    from xarray import DataArray, Dataset

WORDS, EDGES, PATH = "words in S5", "pointer, random edges", "pointer along a path"
JACOBI, NEWTON, SCAN = "jacobi", "newton", "scan, depth"
MAPS, PD, LOOP = "maps of n nodes", "PD matrices", "loop"
COST = "cost"


@dataclass(frozen=True)
class Config:
    """``nodes`` of the maps that are timed, over ``timed`` steps."""

    lengths: tuple[int, ...] = (32, 64, 128, 256, 512)
    nodes: tuple[int, ...] = (4, 8, 16, 32, 64, 128)
    timed: int = 4096
    seeds: int = 3


TINY = Config(lengths=(16, 64), nodes=(4, 64), timed=1024, seeds=2)
FULL = Config(lengths=tuple(2**k for k in range(5, 13)), nodes=tuple(2**k for k in range(1, 10)), timed=16384, seeds=10)


def grid(config: Config) -> Iterator[Point]:
    for seed in range(config.seeds):
        yield from product(problem=(WORDS, EDGES, PATH), T=config.lengths, n=8, seed=seed, dtype="float64")
        yield from product(problem=COST, T=config.timed, n=config.nodes, seed=seed, dtype="float64")


def run(*, problem: str, T: int, n: int, seed: int, dtype: str) -> list[Row]:
    if problem == COST:
        return _timed(T, n, seed, dtype)
    rec, exact = _words(T, seed, dtype) if problem == WORDS else _pointer(problem, T, n, seed, dtype)
    truth = loop(rec)
    rows = [measured(rec, solver, truth) for solver in (JACOBI, NEWTON)]
    status = "converged" if np.array_equal(exact, truth) else "differs"
    return [*rows, {"solver": SCAN, "status": status, "iterations": int(np.ceil(np.log2(T)))}]


def _words(T: int, seed: int, dtype: str) -> tuple[rs.Recurrence, Array]:
    system = get("lrnn_s5")
    rec = system.build(length=T, batch=1, seed=seed, dtype=dtype)
    assert system.scan is not None
    return rec, system.scan(rec)


def _pointer(problem: str, T: int, n: int, seed: int, dtype: str) -> tuple[rs.Recurrence, Array]:
    """Return a pointer as a recurrence of real numbers, to which Newton's method applies, and what the scan gives."""
    system = get("pointer")
    if problem == PATH:
        i = np.arange(T)[:, None]
        whole = system.build({"i": i, "j": i + 1, "nodes": np.array(T + 1)})
    else:
        whole = system.build(length=T, batch=1, states=n, seed=seed)
    assert system.scan is not None
    edges = tuple(u.astype(dtype) for u in whole.inputs)  # type: ignore[attr-defined]
    initial = np.zeros((1, 1), dtype)
    return rs.Recurrence.from_function(_chase, inputs=edges, initial=initial, structure="diagonal"), system.scan(whole)


def _chase(h: Any, u: Any) -> Any:
    return np.where(h == u[0], u[1], h)


def _timed(T: int, n: int, seed: int, dtype: str) -> list[Row]:
    """Time scans of maps of n nodes and of PD matrices of n units, and the loop of one pointer."""
    pointer = get("pointer").build(length=T, batch=1, states=n, seed=seed)
    system = get("lrnn_pd")
    matrices = system.build(length=T, batch=1, units=n, seed=seed, dtype=dtype)
    scan, scan_pd = get("pointer").scan, system.scan
    assert scan is not None
    assert scan_pd is not None
    runs: dict[str, Callable[[], Any]] = {
        MAPS: lambda: scan(pointer),
        PD: lambda: scan_pd(matrices),
        LOOP: lambda: rs.solve(pointer, method="sequential"),
    }
    for once in runs.values():
        once()  # compiles
    seconds = in_turns(list(runs.values()), 3, 0.5).min(axis=1)
    return [{"solver": name, "status": "converged", "seconds": float(x)} for name, x in zip(runs, seconds, strict=True)]


def _counts(data: Dataset, problem: str, solver: str) -> DataArray:
    part = converged(data.sel(problem=problem, solver=solver, n=8), "iterations")
    return part.dropna("T", how="all")


def _ratio(data: Dataset, solver: str) -> DataArray:
    """Return by number of nodes and seed the time over that of the loop."""
    seconds = data["seconds"].sel(problem=COST).dropna("T", how="all").isel(T=0).dropna("n", how="all")
    return seconds.sel(solver=solver) / seconds.sel(solver=LOOP)


def facts(data: Dataset) -> dict[str, Any]:
    found: dict[str, Any] = {}
    for problem in (WORDS, EDGES, PATH):
        for solver in (JACOBI, NEWTON, SCAN):
            counts = _counts(data, problem, solver)
            middle = counts.median("seed", skipna=False).values
            found |= {f"{problem}.{solver}": float(middle[-1]), "T": int(counts["T"].values[-1])}
    for solver in (MAPS, PD):
        ratio = _ratio(data, solver).median("seed")
        found[f"{solver}.ratio"] = [float(x) for x in ratio.values]
        found["n"] = [int(n) for n in ratio["n"].values]
    return found


def draw_counts(pyplot: Any, data: Dataset) -> Any:
    figure, axes = pyplot.subplots(1, 3, figsize=(10.5, 3.2), sharey=True)
    alike = {JACOBI: JACOBI, NEWTON: NEWTON, SCAN: "sequential"}
    looks = {name: {**line_arguments(solver), "label": name} for name, solver in alike.items()}
    for ax, problem in zip(axes, (WORDS, EDGES, PATH), strict=True):
        for solver, look in looks.items():
            counts = _counts(data, problem, solver)
            band(ax, counts["T"].values, counts, "seed", solver, **look)
        ax.set(xscale="log", yscale="log", title=problem, xlabel="T")
        powers_of_two(ax.xaxis, [float(t) for t in counts["T"].values])
    axes[0].set_ylabel("iterations")
    outside_legend(figure, pyplot, looks.values())
    return figure


def says_counts(data: Dataset) -> str:
    f = facts(data)
    return (
        f"A scan takes {f[f'{PATH}.{SCAN}']:.0f} rounds for T = {f['T']}, and is equal to the loop bit for bit; along "
        f"a path Jacobi takes {f[f'{PATH}.{JACOBI}']:.0f} iterations and Newton {f[f'{PATH}.{NEWTON}']:.0f}. The "
        "derivative of a pointer tells nothing until the pointer is met: Newton learns one edge in an iteration, as "
        "Jacobi does."
    )


def draw_cost(pyplot: Any, data: Dataset) -> Any:
    figure, ax = pyplot.subplots(figsize=(6.4, 3.6))
    looks = series((MAPS, PD))
    for solver, look in looks.items():
        ratio = _ratio(data, solver)
        band(ax, ratio["n"].values, ratio, "seed", solver, **look)
    level(ax, 1.0, "as long as the loop of one pointer")
    ax.set(xscale="log", yscale="log", xlabel="nodes of the map, units of the matrix", ylabel="time of the scan / loop")
    powers_of_two(ax.xaxis, [float(n) for n in ratio["n"].values])
    outside_legend(figure, pyplot, looks.values())
    return figure


def says_cost(data: Dataset) -> str:
    f = facts(data)
    maps, matrices, n = f[f"{MAPS}.ratio"], f[f"{PD}.ratio"], f["n"]
    return (
        f"An exact scan exists for every finite state, and its elements are as large as the set of states: with "
        f"{n[-1]} nodes the scan of maps takes {times(maps[-1])} the time of the loop of one pointer, with {n[0]} "
        f"{times(maps[0])}. That of PD matrices, which have a state for each unit, takes {times(matrices[-1])}."
    )


def tables(data: Dataset) -> list[Table]:
    f = facts(data)
    rows = [
        [problem, *(f"{f[f'{problem}.{solver}']:.0f}" for solver in (JACOBI, NEWTON, SCAN))]
        for problem in (WORDS, EDGES, PATH)
    ]
    return [Table(f"Median iterations for T = {f['T']}", ["problem", JACOBI, NEWTON, SCAN], rows)]


STUDY = study_of(
    __name__,
    name="state_maps",
    question="What does it cost to compose steps that permute, and steps that choose?",
    dims=("problem", "T", "n", "seed", "solver"),
    pictures=(Picture("counts", draw_counts, says_counts), Picture("cost", draw_cost, says_cost)),
    alone=True,
)

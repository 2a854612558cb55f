"""MinMax cells (Ronca, arXiv 2605.06384): the exact clamp scan, semismooth Newton (Qi and Sun 1993) and Jacobi."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

import recsolve as rs
from recsolve.base.arrays import Array
from recsolve.studies.compare.measure import cell_recurrence, distance, loop, measured, tanh_network
from recsolve.studies.draw.drawing import band, converged, listed, powers_of_two
from recsolve.studies.draw.series import level, outside_legend, series
from recsolve.studies.draw.style import line_arguments
from recsolve.studies.registry import Picture, Table, study_of
from recsolve.studies.store.records import Point, Row, product
from recsolve.studies.systems import minmax

if TYPE_CHECKING:
    from xarray import DataArray, Dataset

SCAN, STATE, BOUND, JACOBI = "clamp scan", "newton, ties to the state", "newton, ties to the bound", "jacobi"
RULES = {STATE: 1.0, BOUND: 0.0}  # the share of the state in the derivative at a tie
PROBLEMS = {
    "continuum": "normal gates:\nno ties",
    "bits": "gates and states of bits:\nties everywhere",
    "parity": "parity:\n2 x 2 over (max, min)",
    "ceiling": "worst case:\na ceiling that comes down",
}
_AS_MANY = {"color": "0.5", "linewidth": 0.8, "linestyle": ":", "label": "T"}
_LEAST = 1e-60  # of norms that are drawn
COUNTED, SLOPES = "counted", "slopes"  # the two kinds of points
WIDEST = {"minmax, wide gates": 4.0, "minmax, narrow gates": 2.5}  # widths run from 0 to this over the units
CHAOTIC = "tanh network, gain 3"


@dataclass(frozen=True)
class Config:
    """Gates r, s ~ N(+-``width``, 1); problems that can need T iterations stop at length ``longest_slow``."""

    lengths: tuple[int, ...] = (32, 64, 128, 256, 512, 1024)
    longest_slow: int = 256
    units: int = 8
    width: float = 1.5
    seeds: int = 3
    cells: tuple[str, ...] = (*WIDEST, "gru", "lstm", "elman", CHAOTIC)
    lags: int = 128


TINY = Config(lengths=(16, 32, 64), longest_slow=32, units=4, seeds=2, lags=40)
FULL = Config(lengths=tuple(2**k for k in range(5, 14)), longest_slow=2048, units=16, seeds=10, lags=1000)


def grid(config: Config) -> Iterator[Point]:
    for shared in product(seed=range(config.seeds), units=config.units, dtype="float64"):
        for cell in config.cells:
            width = WIDEST.get(cell, config.width)
            yield {"problem": SLOPES, "cell": cell, "T": config.lags, "width": width, **shared}
        for point in product(problem=tuple(PROBLEMS), cell=COUNTED, T=config.lengths, width=config.width, **shared):
            if point["problem"] in ("continuum", "bits") or config.longest_slow >= point["T"]:
                yield point


def run(*, problem: str, cell: str, T: int, seed: int, units: int, width: float, dtype: str) -> list[Row]:
    assert dtype == "float64", "clamps never round: one dtype is enough"
    if problem == SLOPES:
        return [{"solver": "loop", **slopes(_slope_problem(cell, T, seed, units, width), T)}]
    truth = loop(recurrence(problem, T, seed, units, width))
    rows = [
        measured(recurrence(problem, T, seed, units, width, ties), "newton", truth, name=name)
        for name, ties in RULES.items()
    ]
    rows.append(measured(recurrence(problem, T, seed, units, width), "jacobi", truth))
    if problem != "parity":  # whose elements are matrices over (max, min)
        r, s, initial = gates(problem, T, seed, units, width)
        y = rs.scan("clamp", (r, s), initial=initial)
        status = "converged" if np.array_equal(y, truth) else "differs"
        rows.append({"solver": SCAN, "status": status, "iterations": 1, "error": distance(y, truth)})
    return rows


def gates(problem: str, T: int, seed: int, units: int, width: float | Array) -> tuple[Array, Array, Array]:
    """Return ceilings r, floors s, (T, units), and the initial state."""
    rng = np.random.default_rng(seed)
    if problem == "bits":
        s, r = np.sort(rng.integers(0, 2, (2, T, units)).astype(float), axis=0)
        return r, s, np.zeros(units)
    if problem == "ceiling":
        # The state falls to 0 at once and stays. From f(h[0]) every iterate presses against ceilings that it should
        # pass under, and learns so one step at a time: T - 1 iterations of any causal method.
        r = np.linspace(1.0, 0.0, T, endpoint=False)
        r[0] = 0.0
        return np.repeat(r[:, None], units, axis=1), np.full((T, units), -1.0), np.full(units, 2.0)
    r, s = rng.standard_normal((2, T, units))
    return r + width, s - width, np.zeros(units)


def recurrence(problem: str, T: int, seed: int, units: int, width: float | Array, ties: Any = None) -> rs.Recurrence:
    if problem == "parity":
        return parity(T, seed, ties)[0]
    r, s, initial = gates(problem, T, seed, units, width)
    return rs.cells.MinMax.with_weights(hidden_size=units).recurrence(
        drive={"r": r, "s": s}, initial=initial, ties=ties
    )


def parity(T: int, seed: int, ties: Any = None) -> tuple[rs.Recurrence, Array]:
    """Return the recurrence of the parity of random bits, with ties at every step, and that parity."""
    bits = np.random.default_rng(seed).integers(0, 2, T)
    return minmax.parity(bits, ties, (0.0, 1.0)), np.cumsum(bits) % 2


def _slope_problem(cell: str, T: int, seed: int, units: int, widest: float) -> rs.Recurrence:
    if cell in WIDEST:
        return recurrence("continuum", T, seed, units, np.linspace(0.0, widest, units))
    if cell == CHAOTIC:
        return tanh_network(3.0, 4 * units, T, seed)
    return cell_recurrence(cell, units=units, T=T, seed=seed)


def slopes(rec: rs.Recurrence, lags: int) -> Row:
    """Return the norm of d h[T] / d h[T-k] for every lag k, and whether all entries were exactly 0 or 1."""
    J = rec.linearise(loop(rec))[1].todense()
    product, norms, binary = np.eye(J.shape[-1]), [], True
    for t in range(len(J) - 1, len(J) - 1 - lags, -1):
        product = product @ J[t]
        norms.append(float(np.linalg.norm(product, 2)))
        binary = binary and bool(np.isin(product, (0.0, 1.0)).all())
    return {"status": "converged", "slope": norms, "binary": int(binary)}


def _counts(data: Dataset, problem: str, solver: str) -> DataArray:
    """Return iterations by length and seed, NaN where not converged, of the lengths that were run."""
    part = converged(data.sel(problem=problem, solver=solver, cell=COUNTED), "iterations")
    return part.dropna("T", how="all")


def _slopes(data: Dataset, cell: str) -> DataArray:
    """Return norms by lag and seed."""
    return data["slope"].sel(problem=SLOPES, solver="loop", cell=cell).dropna("T", how="all").isel(T=0)


def facts(data: Dataset) -> dict[str, Any]:
    found: dict[str, Any] = {"scan.error": float(data["error"].sel(solver=SCAN).max())}
    for problem in PROBLEMS:
        for solver in (SCAN, STATE, BOUND, JACOBI):
            counts = _counts(data, problem, solver)
            if counts["T"].size:
                T, middle = counts["T"].values, counts.median("seed", skipna=False).values
                name = f"{problem}.{solver}"
                found |= {name: float(middle[-1]), f"{name}.T": int(T[-1]), f"{name}.growth": middle[-1] / middle[0]}
                found[f"{problem}.log"] = float(np.log(T[-1]) / np.log(T[0]))
    for cell in _cells(data):
        last, exact = _slopes(data, cell)[..., -1].values, data["binary"].sel(problem=SLOPES, cell=cell)
        found[f"slope.{cell}"] = [float(last.min()), float(last.max())]
        found[f"slope.{cell}.binary"] = bool((exact.values[np.isfinite(exact.values)] == 1).all())
    return found


def _cells(data: Dataset) -> list[str]:
    return [str(cell) for cell in data["cell"].values if cell != COUNTED]


def _looks() -> dict[str, dict[str, Any]]:
    alike = {SCAN: "sequential", STATE: "newton", BOUND: "chord", JACOBI: "jacobi"}
    return {name: {**line_arguments(solver), "label": name} for name, solver in alike.items()}


def draw_counts(pyplot: Any, data: Dataset) -> Any:
    figure, axes = pyplot.subplots(1, 4, figsize=(12.5, 3.2), sharey=True)
    for ax, (problem, title) in zip(axes, PROBLEMS.items(), strict=True):
        drawn = {name: _counts(data, problem, name) for name in _looks()}
        for name, counts in drawn.items():
            band(ax, counts["T"].values, counts, "seed", name, **_looks()[name])
        T = drawn[STATE]["T"].values
        ax.plot(T, T, **_AS_MANY)
        ax.set(xscale="log", yscale="log", title=title, xlabel="T")
        powers_of_two(ax.xaxis, [float(t) for t in T])
    axes[0].set_ylabel("iterations")
    outside_legend(figure, pyplot, [*_looks().values(), _AS_MANY])
    return figure


def says_counts(data: Dataset) -> str:
    f = facts(data)
    return (
        f"The clamp scan takes one pass and is {'' if f['scan.error'] == 0 else 'not '}equal to the loop bit for bit. "
        f"Where there are ties the rule for them decides: on bits Newton takes {f[f'bits.{STATE}']:.0f} iterations "
        f"with ties to the state and {f[f'bits.{BOUND}']:.0f} to the bound. Under a ceiling that comes down both "
        f"rules need {f[f'ceiling.{STATE}']:.0f} of T = {f[f'ceiling.{STATE}.T']}: the worst case is real."
    )


def draw_slopes(pyplot: Any, data: Dataset) -> Any:
    figure, ax = pyplot.subplots(figsize=(6.6, 3.6))
    looks = series(_cells(data))
    norms = {cell: _slopes(data, cell) for cell in looks}
    least = min(float(n.where(n > 0).min()) for n in norms.values())
    zero = 10.0 ** (np.floor(np.log10(max(least, _LEAST))) - 2)  # where exact zeros are drawn, below all else
    for cell, look in looks.items():
        lag = 1 + np.arange(norms[cell]["lag"].size)
        drawn = norms[cell].where(norms[cell] > 0, zero)
        band(ax, lag, drawn.transpose("lag", "seed"), "seed", cell, **look, markevery=max(len(lag) // 12, 1))
    level(ax, zero, "exactly 0", "left")
    ax.set(yscale="log", xlabel="lag k", ylabel="norm of d h[T] / d h[T-k]", ylim=(zero / 30, None))
    outside_legend(figure, pyplot, looks.values())
    return figure


def says_slopes(data: Dataset) -> str:
    f = facts(data)
    exact = [cell for cell in _cells(data) if f[f"slope.{cell}.binary"]]
    others = sorted((cell for cell in _cells(data) if cell not in exact), key=lambda cell: f[f"slope.{cell}"][1])
    ends = f": {others[0]} has at most {f[f'slope.{others[0]}'][1]:.0e}, {others[-1]} at least "
    return (
        f"Every derivative of a state by an earlier one is exactly 0 or 1 for {listed(exact)}: it neither decays nor "
        f"explodes, it is there until the state is overwritten. Those of other cells do, at the largest lag"
        f"{ends}{f[f'slope.{others[-1]}'][0]:.0e}."
    )


def tables(data: Dataset) -> list[Table]:
    f = facts(data)
    rows = [
        [title.replace("\n", " "), solver, f"{f[f'{problem}.{solver}']:.0f}", str(f[f"{problem}.{solver}.T"])]
        for problem, title in PROBLEMS.items()
        for solver in (SCAN, STATE, BOUND, JACOBI)
        if f"{problem}.{solver}" in f
    ]
    return [Table("Median iterations at the largest T", ["problem", "solver", "iterations", "T"], rows)]


STUDY = study_of(
    __name__,
    name="minmax",
    question="What do MinMax cells cost to solve in parallel, and what becomes of their gradients?",
    dims=("problem", "cell", "T", "seed", "solver"),
    curves={"slope": ("lag",)},
    pictures=(Picture("counts", draw_counts, says_counts), Picture("slopes", draw_slopes, says_slopes)),
)

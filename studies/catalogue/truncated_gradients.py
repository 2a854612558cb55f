"""Truncated backpropagation (Lipton et al., arXiv 1506.00019): how much of a gradient the last k steps have."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

import recsolve as rs
from recsolve.base.arrays import Array
from recsolve.studies.compare.measure import lyapunov, measured
from recsolve.studies.draw.drawing import converged
from recsolve.studies.draw.series import level, series
from recsolve.studies.registry import Picture, Table, study_of
from recsolve.studies.store.records import Point, Row, product
from recsolve.studies.systems.system import get

if TYPE_CHECKING:
    from xarray import DataArray, Dataset

CELLS = ("elman", "jordan", "lstm_review")
SOLVERS = ("newton", "jacobi")
GOOD = 0.01  # an error of the gradient that is good enough


@dataclass(frozen=True)
class Config:
    """``gains`` of the recurrent weights: small ones forget, large ones remember, the largest are chaos."""

    gains: tuple[float, ...] = (0.4, 0.8, 1.2, 1.6, 2.0, 3.0)
    T: int = 192
    units: int = 12
    seeds: int = 3


TINY = Config(gains=(0.5, 1.2), T=96, units=8, seeds=2)
FULL = Config(gains=tuple(round(0.2 + 0.1 * k, 1) for k in range(18)), T=2048, units=64, seeds=10)


def grid(config: Config) -> Iterator[Point]:
    """Yield every cell at every gain."""
    yield from product(
        cell=CELLS, gain=config.gains, seed=range(config.seeds), T=config.T, units=config.units, dtype="float64"
    )


def run(*, cell: str, gain: float, seed: int, T: int, units: int, dtype: str) -> list[Row]:
    """Return the error of the gradient against the steps it goes back, the largest exponent, and iterations."""
    system = get(cell)
    arrays = system.draw(system.configured(length=T, batch=1, units=units, gain=gain, seed=seed, dtype=dtype))
    rec = system.build(arrays)
    truth = rs.solve(rec, method="sequential")
    shared = {
        "exponent": lyapunov(rec, truth.states),
        "lost": [float(x) for x in lost(truth, arrays["x"], seed)],
    }
    return [{**shared, **measured(rec, solver, truth.states)} for solver in SOLVERS]


def lost(solution: rs.Solution, x: Array, seed: int) -> Array:
    """Return the share of the gradient by U, of a loss of the last state, that the last k = 0, 1, ..., T steps lack."""
    towards = np.zeros_like(solution.states)
    towards[-1] = np.random.default_rng(seed).standard_normal(towards[-1].shape)
    drives = rs.adjoint(solution, states=towards).drive
    parts = np.concatenate([np.einsum("tbn,tbi->tni", drives[name], x) for name in drives], axis=1)
    parts = parts.reshape(len(x), -1)
    before = np.concatenate([np.zeros_like(parts[:1]), np.cumsum(parts, axis=0)])  # of the steps before the last k
    norms = np.linalg.norm(before[::-1], axis=-1)
    share: Array = norms / norms[0]
    return share


def _curve(data: Dataset, cell: str, gain: float) -> Array:
    """Return the median share that is lost, by the steps that are kept."""
    curves = data["lost"].sel(cell=cell, gain=gain, solver="newton").transpose("seed", "kept")
    middle: Array = np.median(curves.values, axis=0)
    return middle


def _points(data: Dataset, cell: str) -> dict[str, Array]:
    """Return for every gain and seed the memory, the steps that a good gradient needs, and iterations."""
    part = data.sel(cell=cell)
    curves = part["lost"].sel(solver="newton").transpose("gain", "seed", "kept").values
    steps = [[int(np.flatnonzero(curve > GOOD)[-1]) + 1 for curve in of] for of in curves]
    counts = converged(part, "iterations").transpose("solver", "gain", "seed")
    exponents: DataArray = part["exponent"].sel(solver="newton").transpose("gain", "seed")
    named = {solver: counts.sel(solver=solver).values.ravel() for solver in SOLVERS}
    return {"exponent": exponents.values.ravel(), "steps": np.ravel(steps).astype(float), **named}


def facts(data: Dataset) -> dict[str, Any]:
    """Return the steps that a good gradient needs beside what the exponent says, and iterations beside both."""
    found: dict[str, Any] = {"T": int(data.sizes["kept"]) - 1, "gains": [float(g) for g in data["gain"].values]}
    off = []
    for cell in CELLS:
        points = _points(data, cell)
        forgets = points["exponent"] < -4 / found["T"]  # whose memory is much shorter than the sequence
        predicted = np.log(GOOD) / points["exponent"][forgets]
        off.append(points["steps"][forgets] / predicted)
        found[f"{cell}.half"] = float(_curve(data, cell, found["gains"][-1])[found["T"] // 2])
        for name, values in points.items():
            of = values.reshape(len(found["gains"]), -1)
            found[f"{cell}.{name}"] = [float(np.median(row)) for row in of]
    ratios = np.concatenate(off)
    return {**found, "off": [float(ratios.min()), float(np.median(ratios)), float(ratios.max())]}


def draw(pyplot: Any, data: Dataset) -> Any:
    """Draw what is lost against the steps that are kept, and the steps that are needed against memory."""
    figure, axes = pyplot.subplots(1, 2, figsize=(11, 3.8))
    looks = series(f"gain {gain:g}" for gain in data["gain"].values)
    for look, gain in zip(looks.values(), data["gain"].values, strict=True):
        curve = _curve(data, "elman", gain)
        axes[0].plot(np.arange(len(curve)), np.where(curve > 0, curve, np.nan), **look, markevery=len(curve) // 8)
    level(axes[0], GOOD, f"{GOOD:.0%}", "left")
    axes[0].set(yscale="log", ylim=(1e-12, 10), xlabel="steps k that are kept", ylabel="gradient that is lost / whole")
    axes[0].set_title("elman")
    cells = {name: {**look, "linestyle": "none"} for name, look in series(CELLS).items()}
    reach = []
    for cell, look in cells.items():
        points = _points(data, cell)
        forgets = points["exponent"] < 0
        memory = -1 / points["exponent"][forgets]
        reach.append(memory)
        axes[1].plot(memory, points["steps"][forgets], **look)
    ends = np.array([np.concatenate(reach).min(), np.concatenate(reach).max()])
    line = {"color": "0.5", "linewidth": 0.9, "linestyle": ":", "label": f"{-np.log(GOOD):.1f} x memory"}
    axes[1].plot(ends, -np.log(GOOD) * ends, **line)
    axes[1].set(xscale="log", yscale="log", xlabel="memory: -1 / largest exponent (steps)")
    axes[1].set_ylabel(f"steps for an error of {GOOD:.0%}")
    axes[1].set_title("all cells")
    for ax, title, place in zip(axes, ("left", "right"), ("upper", "lower"), strict=True):  # their marks are the same
        figure.legend(*ax.get_legend_handles_labels(), title=title, loc=f"outside right {place}")
    return figure


def says(data: Dataset) -> str:
    """Say how far gradients go back, and what that is to solvers."""
    f = facts(data)
    halves = {cell: 100 * f[f"{cell}.half"] for cell in CELLS}
    least, most = (pick(halves, key=halves.__getitem__) for pick in (min, max))
    return (
        f"Gradients go back as far as states remember: the steps that have all but {GOOD:.0%} of the gradient are, in "
        f"the median, {f['off'][1]:.2g} times what the largest exponent says. The larger the gain, the less may be "
        f"left out: at gain {f['gains'][-1]:g} the last half of the steps lacks {halves[most]:.3g} % of the gradient "
        f"of {most}, and {halves[least]:.1g} % of that of {least}."
    )


def tables(data: Dataset) -> list[Table]:
    """Return exponents and steps by gain."""
    f = facts(data)
    rows = [
        [
            cell,
            f"{gain:g}",
            f"{f[f'{cell}.exponent'][i]:.2f}",
            *(f"{f[f'{cell}.{n}'][i]:.0f}" for n in ("steps", *SOLVERS)),
        ]
        for cell in CELLS
        for i, gain in enumerate(f["gains"])
    ]
    head = ["cell", "gain", "largest exponent", f"steps for {GOOD:.0%}", *SOLVERS]
    return [Table("Medians over seeds", head, rows)]


STUDY = study_of(
    __name__,
    name="truncation",
    question="How many steps back does a gradient need, and is it what solvers need?",
    dims=("cell", "gain", "seed", "solver"),
    curves={"lost": ("kept",)},
    pictures=(Picture("lost", draw, says),),
)

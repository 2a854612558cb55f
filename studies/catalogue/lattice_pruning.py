"""Lattice-based pruning (Sengupta, arXiv 2502.16525): which neurons it keeps, what they remember, what solvers gain."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

import recsolve as rs
from recsolve.base.arrays import Array
from recsolve.mixings import Dense, Masked
from recsolve.studies.compare.measure import loop, measured
from recsolve.studies.draw.drawing import converged
from recsolve.studies.draw.series import level, outside_legend, series
from recsolve.studies.registry import Picture, Table, study_of
from recsolve.studies.store.records import Point, Row, product
from recsolve.studies.systems import poset
from recsolve.studies.systems.system import Arrays

if TYPE_CHECKING:
    from xarray import Dataset

WHOLE, LATTICE, LARGEST, RANDOM = "none", "meet-irreducible", "largest weights", "at random"
RULES = (LATTICE, LARGEST, RANDOM)
SOLVERS = ("newton", "jacobi")
LAGS = 20  # up to which inputs are read back from the state
RIDGE = 1e-6
KEPT_OF_ACCURACY = 0.98  # published, at about half of the neurons


@dataclass(frozen=True)
class Config:
    """``degrees``: connections of a neuron, on average; ``gains``: a small one forgets, a large one remembers."""

    degrees: tuple[float, ...] = (0.5, 1.0, 1.5, 2.0, 2.5, 3.0, 4.0, 8.0)
    gains: tuple[float, ...] = (0.4, 0.9)
    T: int = 512
    solved: int = 128
    units: int = 32
    seeds: int = 5


TINY = Config(degrees=(1.0, 1.5, 8.0), gains=(0.9,), T=256, solved=64, units=24, seeds=2)
FULL = Config(
    degrees=(0.5, 1.0, 1.5, 2.0, 2.5, 3.0, 3.5, 4.0, 6.0, 8.0, 16.0), T=4096, solved=1024, units=100, seeds=20
)


def grid(config: Config) -> Iterator[Point]:
    """Yield every network once; all rules prune the same one."""
    yield from product(
        gain=config.gains, degree=config.degrees, seed=range(config.seeds), T=config.T, solved=config.solved,
        units=config.units, dtype="float64",
    )  # fmt: skip


def run(*, gain: float, degree: float, seed: int, T: int, solved: int, units: int, dtype: str) -> list[Row]:
    """Return what is left of a network by every rule, what its states remember, and iterations."""
    arrays = poset.draw(poset.Config(T, 1, 1, units, degree, gain, seed, dtype))
    connected = poset.connections(arrays["W"], arrays["theta"])
    rows = []
    for rule, kept in _kept(arrays["W"], connected, seed).items():
        left = connected & kept & kept[:, None]
        shared = {
            "rule": rule,
            "kept": float(kept.mean()),
            "memory": memory(loop(_network(arrays, left, kept))[:, 0][:, kept], arrays["x"][:, 0, 0]),
        }
        short = _network({**arrays, "x": arrays["x"][:solved]}, left, kept)
        truth = loop(short)
        rows += [{**shared, **measured(short, solver, truth)} for solver in SOLVERS]
    return rows


def _kept(W: Array, connected: Array, seed: int) -> dict[str, Array]:
    """Return which neurons each rule keeps: the others as many as there are meet-irreducible ones."""
    lattice = poset.meet_irreducible(poset.order(connected))
    count, strength = int(lattice.sum()), np.where(connected, abs(W), 0.0)
    orders = {
        LARGEST: np.argsort(-(strength.sum(axis=0) + strength.sum(axis=1)), kind="stable"),
        RANDOM: np.random.default_rng(seed).permutation(len(W)),
    }
    found = {WHOLE: np.ones_like(lattice), LATTICE: lattice}
    for rule, order in orders.items():
        found[rule] = np.zeros_like(lattice)
        found[rule][order[:count]] = True
    return found


def _network(arrays: Arrays, connected: Array, kept: Array) -> rs.Recurrence:
    """Return the network that has these connections and, of the neurons, those that are kept."""
    cell = rs.cells.Elman.with_weights(
        mixings={"h": Masked(Dense(arrays["W"]), connected)},
        projection=rs.Projection({"h": kept[:, None] * arrays["U"]}, {"h": kept * arrays["b"]}),
    )
    return cell.recurrence(arrays["x"])


def memory(states: Array, x: Array) -> float:
    """Return the sum over lags of the share of the variance of x[t - lag] that a linear reader of h[t] explains.

    The reader is fitted by ridge regression to the first half and judged by the second.
    """
    if not states.shape[1]:
        return 0.0
    h = np.concatenate([states, np.ones_like(states[:, :1])], axis=1)[LAGS:]
    past = np.stack([x[LAGS - lag : len(x) - lag] for lag in range(LAGS + 1)], axis=1)
    half = len(h) // 2
    gram = h[:half].T @ h[:half] + RIDGE * half * np.eye(h.shape[1])
    read = h[half:] @ np.linalg.solve(gram, h[:half].T @ past[:half])
    explained = 1 - ((past[half:] - read) ** 2).mean(axis=0) / past[half:].var(axis=0)
    return float(np.maximum(explained, 0).sum())


def _flat(data: Dataset, rule: str, name: str, gain: float) -> Array:
    """Return one number for every network of a gain: by degree and seed."""
    part = data[name].sel(rule=rule, solver="newton", gain=gain)
    return np.asarray(part.transpose("degree", "seed"))


def _left(data: Dataset, rule: str, gain: float) -> Array:
    """Return the memory that is left, of that of the whole network."""
    return _flat(data, rule, "memory", gain) / _flat(data, WHOLE, "memory", gain)


def facts(data: Dataset) -> dict[str, Any]:
    """Return what is kept by degree, and what is left where about half is kept."""
    degrees, gains = ([float(x) for x in data[name].values] for name in ("degree", "gain"))
    kept = _flat(data, LATTICE, "kept", gains[-1])  # the order does not depend on the gain
    found: dict[str, Any] = {"degrees": degrees, "gains": gains}
    found["kept"] = [[float(row.min()), float(np.median(row)), float(row.max())] for row in kept]
    half = (kept > 0.3) & (kept < 0.7)
    found["half"] = int(half.sum())
    for gain in gains:
        for rule in RULES:
            found[f"{gain:g}.{rule}"] = float(np.median(_left(data, rule, gain)[half])) if half.any() else None
        for solver in SOLVERS:
            counts = converged(data, "iterations").sel(solver=solver, gain=gain).transpose("rule", "degree", "seed")
            whole, pruned = (counts.sel(rule=rule).values[half] for rule in (WHOLE, LATTICE))
            found[f"{gain:g}.{solver}"] = [float(np.median(n)) for n in (whole, pruned)] if half.any() else None
    return found


def draw(pyplot: Any, data: Dataset) -> Any:
    """Draw the share of neurons that is kept against degree, and the memory that is left against that share."""
    gains, degrees = data["gain"].values, data["degree"].values
    figure, axes = pyplot.subplots(1, 1 + len(gains), figsize=(3.2 * len(gains) + 5.4, 3.5))
    kept = 100 * _flat(data, LATTICE, "kept", gains[-1])
    looks = {rule: {**look, "linestyle": "none"} for rule, look in series(RULES).items()}
    axes[0].plot(np.repeat(degrees, kept.shape[1]), kept.ravel(), **looks[LATTICE])
    axes[0].plot(degrees, np.median(kept, axis=1), color="0.5", linewidth=0.9)
    axes[0].set(xscale="log", xlabel="connections of a neuron, mean", ylabel="neurons kept, %")
    for ax, gain in zip(axes[1:], gains, strict=True):
        share = 100 * _flat(data, LATTICE, "kept", gain).ravel()
        for rule, look in looks.items():
            ax.plot(share, 100 * _left(data, rule, gain).ravel(), **look)
        level(ax, 100 * KEPT_OF_ACCURACY, "98 %", side="left")
        ax.set(title=f"gain {gain:g}", xlabel="neurons kept, %", xlim=(-3, 103))
        ax.set_ylabel("memory left, % of the whole")
    middle = {"color": "0.5", "linewidth": 0.9, "label": "median"}
    outside_legend(figure, pyplot, [*looks.values(), middle])
    return figure


def says(data: Dataset) -> str:
    """Say what the order keeps, and what others remember beside it."""
    f = facts(data)
    spread = [row[2] - row[0] for row in f["kept"]]
    widest, gain = int(np.argmax(spread)), f["gains"][-1]
    least, _, most = f["kept"][widest]
    left = {rule: f[f"{gain:g}.{rule}"] for rule in RULES}
    found = ""
    if f["half"]:
        best = max(left, key=lambda rule: left[rule] or 0.0)
        found = (
            f" Where about half is kept, a reader that is fitted anew finds {left[LATTICE]:.0%} of the memory, and "
            f"{left[best]:.0%} if {'they are' if best == LATTICE else 'as many are'} chosen by '{best}'."
        )
    return (
        "Neurons that reach each other are one element of the order, kept or pruned whole: at "
        f"{f['degrees'][widest]:g} connections a neuron {least:.0%} to {most:.0%} are kept, by seed.{found}"
    )


def tables(data: Dataset) -> list[Table]:
    """Return what is kept by degree."""
    f = facts(data)
    rows = [[f"{d:g}", *(f"{x:.0%}" for x in kept)] for d, kept in zip(f["degrees"], f["kept"], strict=True)]
    return [Table("Neurons kept", ["connections of a neuron", "least", "median", "most"], rows)]


STUDY = study_of(
    __name__,
    name="lattice",
    question="Which neurons does a lattice keep, and what do they remember beside as many others?",
    dims=("gain", "degree", "seed", "rule", "solver"),
    pictures=(Picture("kept", draw, says),),
)

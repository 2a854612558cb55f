"""Recall of values that were written again: DeltaNet, RWKV-7 and Titans beside a memory that adds.

The rules and their papers are in studies/systems/delta_rule.py and studies/systems/titans.py. Nothing is trained.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

import recsolve as rs
from recsolve.base.arrays import Array
from recsolve.studies.compare.measure import loop, measured
from recsolve.studies.draw.drawing import band, converged, powers_of_two
from recsolve.studies.draw.series import level, outside_legend, series
from recsolve.studies.registry import Picture, Table, study_of
from recsolve.studies.store.records import Point, Row, product
from recsolve.studies.systems import delta_rule, memory_caching, titans
from recsolve.studies.systems.system import get

if TYPE_CHECKING:
    from xarray import DataArray, Dataset

ADDS, DELTA, RWKV, TITANS = "sum (linear attention)", "DeltaNet", "RWKV-7", "Titans"
SYSTEMS = {ADDS: "memory_caching", DELTA: "deltanet", RWKV: "rwkv7", TITANS: "titans"}
WAYS = tuple(SYSTEMS)
SOLVERS = ("newton", "jacobi")
REWRITTEN, LOADED = "rewritten", "loaded"  # the two kinds of points


@dataclass(frozen=True)
class Config:
    """Keys of ``width`` numbers; ``load`` keys for each of them are written ``writes`` times each, in any order."""

    width: int = 16
    writes: tuple[int, ...] = (1, 2, 4, 8, 16, 32)
    loads: tuple[float, ...] = (0.25, 0.5, 1.0, 1.5, 2.0)
    load: float = 0.5
    often: int = 4
    batch: int = 4
    seeds: int = 3


TINY = Config(width=8, writes=(1, 8), loads=(0.5, 2.0), batch=2, seeds=2)
FULL = Config(width=64, writes=(1, 2, 4, 8, 16, 32, 64), loads=(0.25, 0.5, 0.75, 1.0, 1.25, 1.5, 2.0, 4.0), seeds=10)
RATES = (0.25, 0.5, 0.75, 1.0)  # of learning; 1 puts a value where one was
# What a rule can be set to, a rate and a number of its own: what RWKV-7 keeps at a step, and the momentum of Titans.
SETTINGS = {
    ADDS: ((1.0, 0.0),),
    DELTA: tuple((rate, 0.0) for rate in RATES),
    RWKV: tuple((rate, kept) for rate in RATES for kept in (1.0, 0.97)),
    TITANS: tuple((rate, momentum) for rate in RATES for momentum in (0.0, 0.3)),
}


def grid(config: Config) -> Iterator[Point]:
    shared = {
        "way": WAYS, "seed": range(config.seeds), "width": config.width, "batch": config.batch, "dtype": "float64",
    }  # fmt: skip
    yield from product(kind=REWRITTEN, writes=config.writes, load=config.load, **shared)
    yield from product(kind=LOADED, writes=config.often, load=config.loads, **shared)


def run(*, kind: str, way: str, writes: int, load: float, seed: int, width: int, batch: int, dtype: str) -> list[Row]:
    keys, k, v, wanted = task(writes, max(1, round(load * width)), width, batch, seed, dtype)
    system, found = get(SYSTEMS[way]), []
    assert system.scan is not None, "all of these are affine"
    for rate, other in SETTINGS[way]:
        rec = memory(way, k, v, rate, other)
        read = np.einsum("bvk,bnk->bnv", last_memory(way, rec, system.scan(rec)), keys)
        found.append((float(np.sqrt(((read - wanted) ** 2).mean() / (wanted**2).mean())), rate, other))
    missed, rate, other = min(found)
    rec = memory(way, k, v, rate, other)
    truth = loop(rec)
    best = {"missed": missed, "rate": rate, "other": other, "length": len(k)}
    return [{**best, **measured(rec, solver, truth)} for solver in SOLVERS]


def task(writes: int, keys: int, width: int, batch: int, seed: int, dtype: str) -> tuple[Array, ...]:
    """Return keys (batch, keys, width), keys and values in the order of writing, and the last value of every key."""
    random = np.random.default_rng(seed)
    known = random.standard_normal((batch, keys, width))
    known /= np.linalg.norm(known, axis=-1, keepdims=True)
    order = random.permuted(np.tile(np.arange(keys), (batch, writes)), axis=1)
    k = np.take_along_axis(known, order[..., None], axis=1).swapaxes(0, 1)
    v = random.standard_normal(k.shape)
    wanted = np.empty_like(known)
    for t, of in enumerate(order.T):
        wanted[np.arange(batch), of] = v[t]
    return known.astype(dtype), k.astype(dtype), v.astype(dtype), wanted


def memory(way: str, k: Array, v: Array, rate: float, other: float) -> rs.Recurrence:
    ones = np.ones(k.shape[:2], k.dtype)
    if way == ADDS:
        arrays = {"k": k, "v": v, "q": k, "u": k, "segment": np.zeros(len(k), k.dtype)}
        return memory_caching.linear(arrays, read="residual")
    if way == DELTA:
        return delta_rule.deltanet({"k": k, "v": v, "b": rate * ones})
    if way == RWKV:
        of = {"c": k, "a": np.full_like(k, rate), "w": np.full_like(k, other), "r": k}
        return delta_rule.rwkv7({"k": k, "v": rate * v, **of})
    gates = {"eta": other * ones, "theta": rate / 2 * ones, "alpha": 0 * ones}
    return titans.make({"k": k, "v": v, "q": k, **gates})


def last_memory(way: str, rec: Any, states: Array) -> Array:
    """Return the memory after the last step, (batch, values, keys)."""
    if way not in (ADDS, TITANS):
        return np.reshape(states[-1], rec.initial.shape)
    last: Array = rec.named(np.reshape(states[-1:], (1, *rec.initial.shape)))["M"][-1]
    return last[:, 0] if way == ADDS else last


def _of(data: Dataset, name: str, kind: str, way: str) -> DataArray:
    """Return what was measured by what was varied, and seed."""
    over, other = ("writes", "load") if kind == REWRITTEN else ("load", "writes")
    part = converged(data, name).sel(kind=kind, way=way, solver="newton")
    return part.dropna(other, how="all").isel({other: 0}).dropna(over, how="all").transpose(over, "seed")


def facts(data: Dataset) -> dict[str, Any]:
    found: dict[str, Any] = {"error": float(converged(data, "error").max())}
    found["momentum"] = float(data["other"].sel(way=TITANS).max())
    found["T"] = [float(data["length"].min()), float(data["length"].max())]
    for solver in SOLVERS:
        counts = converged(data, "iterations").sel(solver=solver)
        found[solver] = [float(counts.min()), float(counts.max())]
    for kind in (REWRITTEN, LOADED):
        for way in WAYS:
            missed = _of(data, "missed", kind, way)
            found[kind] = [float(x) for x in missed[missed.dims[0]].values]
            found[f"{kind}.{way}"] = [float(x) for x in missed.median("seed")]
    return found


def draw(pyplot: Any, data: Dataset) -> Any:
    figure, axes = pyplot.subplots(1, 2, figsize=(10, 3.4), sharey=True)
    looks = series(WAYS)
    for ax, kind in zip(axes, (REWRITTEN, LOADED), strict=True):
        for way, look in looks.items():
            missed = _of(data, "missed", kind, way)
            band(ax, missed[missed.dims[0]].values, missed, "seed", way, **look)
        level(ax, 1.0, "as if 0 were read")
        ax.set(yscale="log")
    f = facts(data)
    axes[0].set(xscale="log", xlabel="times that each key is written", ylabel="error of recall over values")
    powers_of_two(axes[0].xaxis, f[REWRITTEN])
    axes[1].set(xlabel="number of keys over their width")
    outside_legend(figure, pyplot, looks.values())
    return figure


def says(data: Dataset) -> str:
    f = facts(data)
    rules = (DELTA, RWKV, TITANS)
    kept, loaded = (max(f[f"{kind}.{way}"][-1] for way in rules) for kind in (REWRITTEN, LOADED))
    return (
        "To correct what is stored keeps the error of recall from growing with the times that a key was written: "
        f"after {f[REWRITTEN][-1]:g} times it is at most {kept:.2g} of the values with the three rules that correct, "
        f"which are one here, and {f[f'{REWRITTEN}.{ADDS}'][-1]:.2g} with a memory that adds. It does not help "
        f"against random keys that overlap: {loaded:.2g} with most keys."
    )


def tables(data: Dataset) -> list[Table]:
    f = facts(data)
    return [
        Table(
            title,
            ["memory", *(f"{x:g}" for x in f[kind])],
            [[w, *(f"{x:.2g}" for x in f[f"{kind}.{w}"])] for w in WAYS],
        )
        for kind, title in ((REWRITTEN, "Error by times written"), (LOADED, "Error by keys over their width"))
    ]


STUDY = study_of(
    __name__,
    name="overwriting",
    question="What does recall gain when a memory corrects what it has stored under a key?",
    dims=("kind", "way", "writes", "load", "seed", "solver"),
    pictures=(Picture("recall", draw, says),),
)

"""What long chunks cost a memory that learns as it reads (TTT, arXiv 2407.04620), and what TNT (2511.07343) saves.

Values are a linear map of keys that drifts, and noise. The error of a memory is that of its output for fresh keys.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

import recsolve as rs
from recsolve.base.arrays import Array
from recsolve.studies.draw.drawing import band, powers_of_two, times
from recsolve.studies.draw.series import outside_legend, series
from recsolve.studies.registry import Picture, Table, study_of
from recsolve.studies.store.records import Point, Row, product
from recsolve.studies.systems import ttt
from recsolve.studies.systems.delta_rule import times as applied

if TYPE_CHECKING:
    from xarray import DataArray, Dataset

TTT, TNT, PLAIN, GLOBAL = "TTT", "TNT", "TNT, queries as they are", "TNT, global memory alone"


@dataclass(frozen=True)
class Config:
    """The map forgets itself within ``memory`` steps; global chunks and shards have ``long`` steps."""

    length: int = 1024
    units: int = 8
    chunks: tuple[int, ...] = (1, 2, 4, 8, 16, 32, 64, 128)
    long: int = 128
    rates: tuple[float, ...] = (0.01, 0.02, 0.05, 0.1, 0.2, 0.4, 0.8)
    memory: float = 512.0
    noise: float = 0.3
    seeds: int = 3


TINY = Config(length=256, units=4, chunks=(1, 8, 64), long=64, rates=(0.02, 0.1, 0.4), memory=128.0, seeds=2)
FULL = Config(
    length=16384,
    units=32,
    chunks=tuple(2**k for k in range(11)),
    rates=(0.003, *Config.rates),
    memory=4096.0,
    long=1024,
    seeds=5,
)


def grid(config: Config) -> Iterator[Point]:
    yield from product(
        chunk=config.chunks,
        seed=range(config.seeds),
        rate=config.rates,
        T=config.length,
        units=config.units,
        long=config.long,
        memory=config.memory,
        noise=config.noise,
        dtype="float64",
    )


def task(*, T: int, units: int, memory: float, noise: float, seed: int, dtype: str) -> tuple[dict[str, Array], Array]:
    """Return keys, values and queries, (T, 1, units), and what the map of that step makes of the queries."""
    rng = np.random.default_rng(seed)
    keep = np.exp(-1 / memory)
    steps = rng.standard_normal((T, units, units))
    A = rs.scan("affine", (np.full((T, 1, 1), keep), np.sqrt(1 - keep**2) * steps), initial=steps[0])
    k, q = rng.standard_normal((2, T, 1, units))
    k, q = (x / np.linalg.norm(x, axis=-1, keepdims=True) for x in (k, q))
    maps = A[:, None]
    given = {"k": k, "v": applied(maps, k) + noise * rng.standard_normal(k.shape), "q": q}
    return {name: x.astype(dtype) for name, x in given.items()}, applied(maps, q)


def run(
    *, chunk: int, seed: int, rate: float, T: int, units: int, long: int, memory: float, noise: float, dtype: str
) -> list[Row]:
    given, truth = task(T=T, units=units, memory=memory, noise=noise, seed=seed, dtype=dtype)
    sizes = ttt.Config(length=T, keys=units, values=units, memories=1, chunk=chunk, shard=long, long_chunk=long)
    fixed = ttt.draw(sizes)
    ones = np.ones((T, 1), dtype)
    arrays = {**fixed, **given, "eta": rate * ones, "eta_long": units / long * ones, "W0": 0 * fixed["W0"]}

    def row(name: str, depth: float, *outputs: Array) -> Row:
        return {"solver": name, "status": "converged", "error": fitted(outputs, truth), "depth": depth}

    rows = [row(TTT, T / chunk, rs.solve(ttt.ttt(arrays), method="sequential").output)]
    if chunk <= long:
        tnt = rs.solve(ttt.tnt(arrays), method="sequential")
        memory_of_all = applied(tnt.named.V_anchor, arrays["q"])
        plain = applied(tnt.named.W[:, :, 0], arrays["q"])
        depth = T / long + long / chunk
        rows += [
            row(TNT, depth, memory_of_all, tnt.output - memory_of_all),
            row(PLAIN, depth, memory_of_all, plain),
            row(GLOBAL, T / long, memory_of_all),
        ]
    return rows


def fitted(outputs: tuple[Array, ...], truth: Array) -> float:
    """Return the error in the second half, over the size of the truth, with the weights that are best in the first."""
    half = len(truth) // 2
    X = np.stack([y.reshape(len(truth), -1) for y in outputs], axis=-1)
    y = truth.reshape(len(truth), -1)
    if not np.isfinite(X).all():
        return float("inf")
    weights = np.linalg.lstsq(X[:half].reshape(-1, len(outputs)), y[:half].ravel())[0]
    return float(np.linalg.norm(X[half:] @ weights - y[half:]) / np.linalg.norm(y[half:]))


def _best(data: Dataset, solver: str) -> DataArray:
    """Return the error of the best rate, by chunk and seed."""
    return data["error"].sel(solver=solver).min("rate").dropna("chunk", how="all")


def facts(data: Dataset) -> dict[str, Any]:
    found: dict[str, Any] = {}
    for solver in (TTT, TNT, PLAIN, GLOBAL):
        errors = _best(data, solver).median("seed")
        found[f"{solver}.error"] = [float(x) for x in errors.values]
        found[f"{solver}.chunks"] = [int(x) for x in errors["chunk"].values]
        depth = data["depth"].sel(solver=solver).max(("rate", "seed")).dropna("chunk")
        found[f"{solver}.depth"] = [float(x) for x in depth.values]
        rate = data["error"].sel(solver=solver).median("seed").idxmin("rate").dropna("chunk")
        found[f"{solver}.rate"] = [float(x) for x in rate.values]
    found["gains"] = [
        min(
            (x for x, e in zip(found[f"{TTT}.depth"], found[f"{TTT}.error"], strict=True) if e <= error), default=np.inf
        )
        / depth
        for depth, error in zip(found[f"{PLAIN}.depth"], found[f"{PLAIN}.error"], strict=True)
    ]
    return found


def draw(pyplot: Any, data: Dataset) -> Any:
    figure, axes = pyplot.subplots(1, 2, figsize=(9, 3.4), sharey=True)
    looks = series((TTT, TNT, PLAIN, GLOBAL))
    for name, look in looks.items():
        errors = _best(data, name)
        chunks = errors["chunk"].values
        band(axes[0], chunks, errors, "seed", name, **look)
        if name != GLOBAL:
            depth = data["depth"].sel(solver=name, chunk=chunks).max(("rate", "seed")).values
            band(axes[1], depth, errors, "seed", name, **look)
    axes[0].set(xscale="log", xlabel="steps in a chunk", ylabel="error of the output")
    axes[1].set(xscale="log", xlabel="gradient steps that wait for each other")
    powers_of_two(axes[0].xaxis, [float(c) for c in data["chunk"].values])
    outside_legend(figure, pyplot, looks.values())
    return figure


def says(data: Dataset) -> str:
    f = facts(data)
    chunks, errors = f[f"{TTT}.chunks"], f[f"{TTT}.error"]
    gain = max(x for x in f["gains"] if np.isfinite(x))
    return (
        f"Gradients from an old state must be small, so that long chunks cost: TTT's error grows from {errors[0]:.3f} "
        f"to {errors[-1]:.3f} as chunks grow to {chunks[-1]} steps. Global and local memories, where nothing is "
        f"trained, save at most {times(gain)} the gradient steps that wait for each other for the same error (the "
        "paper, trained: up to 17x)."
    )


def tables(data: Dataset) -> list[Table]:
    f = facts(data)
    rows = [
        [solver, str(chunk), f"{depth:.0f}", f"{error:.3f}"]
        for solver in (TTT, TNT, PLAIN, GLOBAL)
        for chunk, depth, error in zip(*(f[f"{solver}.{part}"] for part in ("chunks", "depth", "error")), strict=True)
    ]
    return [Table("Median error with the best rate", ["memory", "chunk", "depth", "error"], rows)]


STUDY = study_of(
    __name__,
    name="staleness",
    question="What do long chunks cost a memory that learns at test time, and what do global and local ones save?",
    dims=("chunk", "rate", "seed", "solver"),
    pictures=(Picture("staleness", draw, says),),
)

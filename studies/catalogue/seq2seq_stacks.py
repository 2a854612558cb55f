"""Sequence to Sequence Learning (Sutskever, Vinyals and Le, arXiv 1409.3215): layers pipelined, sources reversed."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING, Any

import numpy as np

import recsolve as rs
from recsolve.base.arrays import Array
from recsolve.studies.compare.measure import distance, loop, timed
from recsolve.studies.draw.drawing import band, converged, times
from recsolve.studies.draw.series import outside_legend, series
from recsolve.studies.registry import Picture, Table, study_of
from recsolve.studies.store.records import Point, Row, product
from recsolve.studies.systems.seq2seq import Config as Stack
from recsolve.studies.systems.seq2seq import draw as drawn
from recsolve.studies.systems.seq2seq import make
from recsolve.studies.systems.system import Arrays

if TYPE_CHECKING:
    from xarray import DataArray, Dataset

WAVEFRONT, IN_TURN = "wavefront", "layer by layer"  # ways to solve
WAYS = (f"{WAVEFRONT}, loop", f"{IN_TURN}, loop", f"{WAVEFRONT}, newton", f"{IN_TURN}, newton")
REVERSED, AS_IS = "source reversed", "source as it is"
COST, LAG = "cost", "lag"  # the two kinds of points


@dataclass(frozen=True)
class Config:
    """Stacks of ``depths`` layers over ``steps``; for lags one of ``lag_depth`` with ``words`` to read and to write."""

    depths: tuple[int, ...] = (1, 2, 4, 8)
    steps: int = 512
    units: int = 8
    words: int = 16
    lag_depth: int = 2
    seeds: int = 6
    repeats: int = 3
    enough: float = 0.5


TINY = Config(depths=(1, 3), steps=32, units=4, words=8, lag_depth=1, seeds=4, repeats=1, enough=0.1)
FULL = Config(depths=(1, 2, 4, 8, 16), steps=4096, units=32, words=30, lag_depth=4, seeds=10, repeats=7, enough=5.0)


def grid(config: Config) -> Iterator[Point]:
    shared = {"units": config.units, "dtype": "float64", "repeats": config.repeats, "enough": config.enough}
    yield from product(problem=COST, layers=config.depths, T=config.steps, seed=0, **shared)
    seeds = range(config.seeds)
    yield from product(problem=LAG, layers=config.lag_depth, T=2 * config.words, seed=seeds, **shared)


def run(
    *, problem: str, layers: int, T: int, seed: int, units: int, dtype: str, repeats: int, enough: float
) -> list[Row]:
    config = Stack(length=T, batch=1, layers=layers, units=units, seed=seed, dtype=dtype)
    arrays = drawn(config)
    arrays["b"][..., units : 2 * units] += 1  # forget gates open at first
    if problem == LAG:
        S = len(arrays["source"])
        orders = {REVERSED: np.arange(S)[::-1], AS_IS: np.arange(S)}
        return [
            {"solver": name, "status": "converged", "slope": [float(s) for s in slopes(arrays, order)]}
            for name, order in orders.items()
        ]
    truth, rows = loop(make(arrays)), []
    for way in WAYS:
        place, method = way.split(", ")
        solve = whole if place == WAVEFRONT else in_turn
        method = "sequential" if method == "loop" else method
        states, iterations = solve(arrays, method)
        row = {"solver": way, "status": "converged", "iterations": iterations, "error": distance(states, truth)}
        levels = layers + T - 1 if place == WAVEFRONT else layers * T
        rows.append({**row, "levels": levels, **timed(partial(solve, arrays, method), repeats, enough)})
    return rows


def whole(arrays: Arrays, method: str) -> tuple[Array, int]:
    """Return the states of all layers from one solve, and how many iterations it took."""
    solution = rs.solve(make(arrays), method=method, fallback="raise")
    return solution.states, solution.nit


def in_turn(arrays: Arrays, method: str) -> tuple[Array, int]:
    """Return the same from a solve for each layer, which sees the layer below as its input, and the most iterations."""
    n, S, states, iterations = arrays["Wh"].shape[2], len(arrays["source"]), [], 0
    source, target, Wx = arrays["source"], arrays["target"], arrays["Wx"]
    for layer in range(arrays["Wh"].shape[1]):
        one = {name: arrays[name][:, layer : layer + 1] for name in ("Wh", "b")}
        below = {"source": source, "target": target, "Wx": Wx, "Wbelow": arrays["Wbelow"][:, :0]}
        found, count = whole({**one, **below}, method)
        states.append(found[0])
        iterations = max(iterations, count)
        source, target = found[0, :S, :, :n][::-1], found[0, S:, :, :n]
        Wx = arrays["Wbelow"][:, min(layer, arrays["Wbelow"].shape[1] - 1)] if arrays["Wbelow"].size else Wx
    return np.stack(states), iterations


def slopes(arrays: Arrays, order: Array) -> Array:
    """Return the norm of the derivative of the decoder's output i by word i of the source, for every i.

    ``order`` is that in which words are read. Each unit is asked for in a sequence of its own, all of which are the
    same.
    """
    n, S = arrays["Wh"].shape[2], len(arrays["source"])
    repeated = {name: np.repeat(arrays[name], n, axis=1) for name in ("source", "target")}
    repeated["source"] = repeated["source"][order][::-1]  # it is read from the last one on
    solution = rs.solve(make({**arrays, **repeated}))
    found = np.empty(S)
    for i in range(S):
        cotangent = np.zeros_like(solution.states)
        cotangent[-1, S + i, :, :n] = np.eye(n)
        read = rs.adjoint(solution, states=cotangent).inputs["x"][0, :S]
        found[i] = np.linalg.norm(read[order.tolist().index(i)] @ arrays["Wx"][0].T)
    return found


def _costs(data: Dataset, name: str, way: str) -> DataArray:
    """Return what is measured of a way by layers and seed."""
    found = converged(data.sel(problem=COST, solver=way), name).dropna("T", how="all").isel(T=-1)
    return found.dropna("seed", how="all").dropna("layers", how="all")


def _lags(data: Dataset, order: str) -> DataArray:
    """Return slopes by word and seed."""
    found = data["slope"].sel(problem=LAG, solver=order).dropna("T", how="all").isel(T=-1)
    return found.dropna("layers", how="all").isel(layers=-1).transpose("word", "seed")


def facts(data: Dataset) -> dict[str, Any]:
    found: dict[str, Any] = {"error": float(data["error"].max())}
    for way in WAYS:
        found[f"{way}.seconds"] = [float(s) for s in _costs(data, "seconds", way).median("seed")]
        found[f"{way}.levels"] = [int(n) for n in _costs(data, "levels", way).max("seed")]
        found[f"{way}.iterations"] = [int(n) for n in _costs(data, "iterations", way).max("seed")]
    found["layers"] = [int(n) for n in _costs(data, "seconds", WAYS[0])["layers"].values]
    near, far = _lags(data, REVERSED), _lags(data, AS_IS)
    ratio = (near / far).median("seed").values
    found |= {"words": len(ratio), "first": float(ratio[0]), "last": float(ratio[-1])}
    found["crossing"] = int((ratio > 1).sum())
    found["mean"] = float((near.mean("word") / far.mean("word")).median("seed"))
    return found


def draw_cost(pyplot: Any, data: Dataset) -> Any:
    figure, (left, right) = pyplot.subplots(1, 2, figsize=(9.4, 3.3))
    looks = series(WAYS)
    for way, look in looks.items():
        seconds, levels = _costs(data, "seconds", way), _costs(data, "levels", way)
        layers = seconds["layers"].values
        if way.endswith("loop"):
            left.plot(layers, levels.max("seed"), **look)
        right.plot(layers, 1e3 * seconds.median("seed"), **look)
    for ax, label in ((left, "steps that wait for each other"), (right, "milliseconds")):
        ax.set(xscale="log", yscale="log", xlabel="layers", ylabel=label)
        ax.set_xticks(layers, [f"{n}" for n in layers])
        ax.set_xticks([], minor=True)
    outside_legend(figure, pyplot, looks.values())
    return figure


def says_cost(data: Dataset) -> str:
    f = facts(data)
    front, turn, newton, _ = (f[f"{way}.seconds"][-1] for way in WAYS)
    levels = [f[f"{way}.levels"][-1] for way in WAYS]
    return (
        f"A wavefront does what waits for the same together: at {f['layers'][-1]} layers its loop has "
        f"{levels[0] / levels[1]:.2g} times the steps of layer by layer, and takes {times(front / turn)} the time. "
        f"Newton on all layers at once, with its dense blocks, takes {times(newton / front)} the time of that loop."
    )


def draw_lag(pyplot: Any, data: Dataset) -> Any:
    figure, ax = pyplot.subplots(figsize=(6.6, 3.4))
    looks = series((REVERSED, AS_IS))
    for order, look in looks.items():
        y = _lags(data, order)
        band(ax, 1 + np.arange(len(y)), y, "seed", order, **look)
    ax.set(yscale="log", xlabel="word i, counted from the first", ylabel="norm of d output i / d source i")
    outside_legend(figure, pyplot, looks.values())
    return figure


def says_lag(data: Dataset) -> str:
    f = facts(data)
    return (
        "To reverse the source makes a few strong links of many weak ones: the steps between a word and its output "
        f"are as many in the mean, but the derivative is {times(f['first'])} that of the other order at the first "
        f"word and {times(f['last'])} at the last. Since it decays by factors, its mean over the words is "
        f"{times(f['mean'])} as large, with random weights."
    )


def tables(data: Dataset) -> list[Table]:
    f = facts(data)
    rows = [
        [
            way,
            *(f"{1e3 * s:.3g}" for s in f[f"{way}.seconds"]),
            str(f[f"{way}.levels"][-1]),
            str(f[f"{way}.iterations"][-1]),
        ]
        for way in WAYS
    ]
    head = ["", *(f"{n} layers" for n in f["layers"]), "steps that wait", "iterations"]
    return [Table("Milliseconds; steps and iterations of the deepest stack", head, rows)]


STUDY = study_of(
    __name__,
    name="seq2seq",
    question="What does it save to solve a stack as a wavefront, and what does a reversed source change?",
    dims=("problem", "layers", "T", "seed", "solver"),
    curves={"slope": ("word",)},
    pictures=(Picture("cost", draw_cost, says_cost), Picture("lag", draw_lag, says_lag)),
    alone=True,
)

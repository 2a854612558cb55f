"""PGN (Jia et al., arXiv 2409.17703): a gate on a window of inputs, beside the same gate on the state before."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

import recsolve as rs
from recsolve.base.arrays import Array
from recsolve.studies.compare.measure import loop, measured
from recsolve.studies.draw.drawing import band, converged, powers_of_two, times
from recsolve.studies.draw.series import outside_legend, series
from recsolve.studies.draw.style import line_arguments
from recsolve.studies.registry import Picture, Table, study_of
from recsolve.studies.store.records import Point, Row, product
from recsolve.studies.systems import pgn
from recsolve.studies.systems.fsmn import windows
from recsolve.studies.systems.system import Arrays

if TYPE_CHECKING:
    from xarray import DataArray, Dataset

WINDOW, STATE = "window", "state before"
SOLVERS = ("newton", "jacobi")
DIRECTIONS = 8  # in which an input moves, one for each sequence of the batch
LONGEST = 4096  # that has the weights of all shorter ones
SMALL = 0.01  # of the largest derivative: below it an input counts as forgotten


@dataclass(frozen=True)
class Config:
    """``windows`` of PGN in steps; ``biases`` of the update gate of the gated network: closed or open for the past."""

    windows: tuple[int, ...] = (4, 16, 64)
    biases: tuple[float, ...] = (-2.0, 0.0, 2.0, 4.0)
    lengths: tuple[int, ...] = (64, 128, 256, 512)
    lags: int = 128
    seeds: int = 3


TINY = Config(windows=(4, 16), biases=(-2.0, 4.0), lengths=(64, 128), lags=48, seeds=2)
FULL = Config(windows=(4, 16, 64, 256), lengths=tuple(2**k for k in range(6, 13)), lags=512, seeds=10)


def grid(config: Config) -> Iterator[Point]:
    """Yield both kinds of networks at all lengths."""
    shared = {"T": config.lengths, "lags": config.lags, "seed": range(config.seeds), "dtype": "float64"}
    yield from product(past=WINDOW, size=tuple(map(float, config.windows)), **shared)
    yield from product(past=STATE, size=config.biases, **shared)


def run(*, past: str, size: float, T: int, lags: int, seed: int, dtype: str) -> list[Row]:
    """Return iterations, products a step and derivatives of states by one input, by lag."""
    window = int(size) if past == WINDOW else 1
    config = pgn.Config(length=max(T, LONGEST), batch=DIRECTIONS, window=window, seed=seed, dtype=dtype)
    drawn = pgn.draw(config)
    arrays = {**drawn, "x": drawn["x"][:T]}  # the same weights at all lengths
    rec = pgn.make(arrays) if past == WINDOW else recurrent(arrays, size)
    truth = loop(rec)
    seen = config.inputs + config.units
    weights = 2 * config.units * seen + (config.units * config.inputs * window if past == WINDOW else 0)
    moved = {"products": weights, "slopes": _slopes(rec, past, window, min(lags, T - 1), seed)}
    return [{**moved, **measured(rec, solver, truth)} for solver in SOLVERS]


def recurrent(arrays: Arrays, bias: float) -> rs.Recurrence:
    """Return the gated network that has the state before in place of PGN's window: h' = g h + (1 - g) c."""
    b = arrays["b"].copy()
    b[1] += bias
    return rs.Recurrence.from_function(
        pgn.gated,
        inputs=arrays["x"],
        initial=np.zeros((*arrays["x"].shape[1:-1], b.shape[-1]), b.dtype),
        parameters={"W_g": arrays["W_g"], "W_c": arrays["W_c"], "b": b},
    )


def _slopes(rec: rs.Recurrence, past: str, window: int, lags: int, seed: int) -> list[float]:
    """Return the median norm of the derivative of h[t] by x[t - lag] along unit directions, for lags from 0 on."""
    sol = rs.solve(rec, method="sequential")
    u = rec.contain(rec.inputs)  # type: ignore[attr-defined]
    x = np.zeros_like(u["x"] if past == WINDOW else u)
    towards = np.random.default_rng(seed).standard_normal(x.shape[1:])
    start = len(x) - 1 - lags
    x[start] = towards / np.linalg.norm(towards, axis=-1, keepdims=True)
    tangent = {"x": x, "window": windows(x, window, 0)[..., :-1]} if past == WINDOW else x
    moved: Array = rs.tangent(sol, inputs=tangent)[start:]
    return [float(n) for n in np.median(np.linalg.norm(moved, axis=-1), axis=-1)]


def _networks(data: Dataset) -> dict[str, tuple[str, float]]:
    """Return names of the networks, and where they are in the data."""
    found: dict[str, tuple[str, float]] = {}
    for past, name in ((WINDOW, "PGN, window {:g}"), (STATE, "gated network, bias {:g}")):
        sizes = data["iterations"].sel(past=past).dropna("size", how="all")["size"].values
        found |= {name.format(size): (past, float(size)) for size in sizes}
    return found


def _part(data: Dataset, network: tuple[str, float]) -> Dataset:
    past, size = network
    return data.sel(past=past, size=size)


def _counts(data: Dataset, network: tuple[str, float], solver: str) -> DataArray:
    return converged(_part(data, network).sel(solver=solver), "iterations").transpose("T", "seed")


def _curve(data: Dataset, network: tuple[str, float]) -> DataArray:
    """Return derivatives by lag and seed, in the longest sequences."""
    return _part(data, network)["slopes"].sel(solver="newton").isel(T=-1).transpose("lag", "seed").dropna("lag")


def facts(data: Dataset) -> dict[str, Any]:
    """Return for every network iterations, its reach and what is left at the largest lag."""
    found: dict[str, Any] = {"networks": list(_networks(data)), "T": [int(data["T"][0]), int(data["T"][-1])]}
    for name, network in _networks(data).items():
        slopes = _curve(data, network).median("seed").values
        found[f"{name}.reach"] = int(np.flatnonzero(slopes > SMALL * slopes.max())[-1])
        found[f"{name}.left"] = float(slopes[-1] / slopes.max())
        found[f"{name}.products"] = float(_part(data, network)["products"].max())
        for solver in SOLVERS:
            middle = _counts(data, network, solver).median("seed", skipna=False).values
            found[f"{name}.{solver}"] = [float(middle[0]), float(middle[-1])]
    found["lag"] = int(_curve(data, network).sizes["lag"]) - 1
    return found


def draw(pyplot: Any, data: Dataset) -> Any:
    """Draw derivatives against lag, and iterations of the gated networks against length."""
    networks = _networks(data)
    figure, axes = pyplot.subplots(1, 2, figsize=(11.5, 3.8), width_ratios=(1.5, 1))
    looks = series(networks)
    for name, network in networks.items():
        slopes = _curve(data, network).median("seed").values
        lag = np.arange(len(slopes))
        marked = [0, *(2**k for k in range(len(slopes).bit_length()) if 2**k < len(slopes))]
        axes[0].plot(lag, np.where(slopes > 0, slopes, np.nan), **looks[name], markevery=marked)
        if network[0] == STATE:
            for solver in SOLVERS:
                look = {**looks[name], **{k: line_arguments(solver)[k] for k in ("marker", "markerfacecolor")}}
                look |= {"markersize": line_arguments(solver)["markersize"]}
                band(axes[1], data["T"].values, _counts(data, network, solver), "seed", solver, **look)
    axes[0].set_xscale("symlog", base=2, linthresh=1)
    axes[0].set(
        yscale="log",
        ylim=(1e-8, 2),
        xlabel="lag (steps)",
        ylabel="|d state / d input|, median",
        title="PGN and gated network",
    )
    axes[1].set(xscale="log", yscale="log", xlabel="T (steps)", ylabel="iterations", title="gated network")
    powers_of_two(axes[1].xaxis, data["T"].values)
    marks = [{**line_arguments(s), "color": "0.3", "linestyle": "none", "label": s} for s in SOLVERS]
    outside_legend(figure, pyplot, [*looks.values(), *marks])
    return figure


def says(data: Dataset) -> str:
    """Say what a window reaches, and what a state does."""
    f = facts(data)
    names = {past: [n for n, (p, _) in _networks(data).items() if p == past] for past in (WINDOW, STATE)}
    wide, closed, opened = names[WINDOW][-1], names[STATE][0], names[STATE][-1]
    ratio = f[f"{wide}.products"] / f[f"{opened}.products"]
    return (
        "In a window the past is one step away, whatever its age, and beyond it there is nothing: inputs of the "
        f"widest count for {f[f'{wide}.reach']} steps, while a closed gate forgets them, to {SMALL:.0%}, after "
        f"{f[f'{closed}.reach']}. There is no recurrence to solve, but a step costs {times(ratio)} the products of "
        "one of the gated network."
    )


def tables(data: Dataset) -> list[Table]:
    """Return iterations, reach and products of every network."""
    f = facts(data)
    rows = [
        [n, f"{f[f'{n}.reach']}", *(f"{f[f'{n}.{s}'][1]:.0f}" for s in SOLVERS), f"{f[f'{n}.products']:.0f}"]
        for n in f["networks"]
    ]
    return [Table(f"At T = {f['T'][1]}", ["network", f"steps until {SMALL:.0%}", *SOLVERS, "products a step"], rows)]


STUDY = study_of(
    __name__,
    name="pgn",
    question="What does a window of inputs remember, and cost, in place of a gated recurrence?",
    dims=("past", "size", "T", "seed", "solver"),
    curves={"slopes": ("lag",)},
    pictures=(Picture("reach", draw, says),),
)

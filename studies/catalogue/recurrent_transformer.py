"""Recurrent Transformer (Oncescu et al., arXiv 2604.21215): how many parallel layers make one recurrent layer."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

import numpy as np

from recsolve.base.arrays import Array
from recsolve.studies.compare.measure import distance, loop, measured
from recsolve.studies.draw.drawing import band, converged, held, powers_of_two, times
from recsolve.studies.draw.series import outside_legend, series
from recsolve.studies.registry import Picture, Table, study_of
from recsolve.studies.store.records import Point, Row, product
from recsolve.studies.systems.recurrent_transformer import finish, kept, root
from recsolve.studies.systems.system import get

if TYPE_CHECKING:
    from xarray import DataArray, Dataset

_SMALLEST = 1e-17  # where exact zeros are drawn
_AS_MANY = {"color": "0.5", "linewidth": 0.8, "linestyle": ":", "label": "T"}


@dataclass(frozen=True)
class Config:
    """``gains`` of all weights."""

    gains: tuple[float, ...] = (0.5, 1.0, 2.0, 4.0)
    lengths: tuple[int, ...] = (16, 32, 64, 128, 256)
    width: int = 8
    seeds: int = 3


TINY = Config(gains=(0.5, 2.0), lengths=(12, 24), seeds=2)
FULL = Config(gains=(0.25, 0.5, 1.0, 2.0, 4.0, 8.0), lengths=(32, 64, 128, 256, 512, 1024), width=32, seeds=10)


def grid(config: Config) -> Iterator[Point]:
    yield from product(
        gain=config.gains, T=config.lengths, width=config.width, seed=range(config.seeds), dtype="float64"
    )


def run(*, gain: float, T: int, width: int, seed: int, dtype: str) -> list[Row]:
    system = get("recurrent_transformer")
    arrays = system.draw(replace(system.config, gain=gain, length=T, width=width, seed=seed, dtype=dtype))
    rec = system.build(arrays)
    truth = loop(rec)
    row = measured(rec, "jacobi", truth, guess=arrays["x"], curves=True)
    size = float(np.abs(truth).max())
    outputs, moved = tiled(rec)
    traffic = {"tiled": moved, "by_row": T * (T - 1), "tiled_error": distance(outputs, truth) / size}
    return [{**row, **traffic, "error": row["error"] / size, "errors": [x / size for x in row["errors"]]}]


def tiled(rec: Any) -> tuple[Array, int]:
    """Return the outputs one by one, exactly, and how many rows of numbers were moved to and from memory.

    After t rows, with 2^j the largest power of two in t, the last 2^j keys and values are read for the 2^j queries
    that come next, whose weighted sums are in memory meanwhile. By rows each query reads all keys and values before.
    """
    u, p = rec.contain(rec.inputs), rec.parameters
    q, outputs, moved = u["q"], np.empty_like(u["x"]), 0
    K, V = np.empty_like(q), np.empty_like(q)
    sums = (np.full(q.shape[:-1], -np.inf), np.zeros(q.shape[:-1]), np.zeros_like(q))
    for t in range(len(q)):
        row = slice(t, t + 1)
        own = (u["q"] * u["k"])[row].sum(axis=-1)[:, None] / root(q)
        _, c, a = _joined([x[row] for x in sums], own, u["v"][row])
        outputs[row] = finish(a / c[..., None], u["x"][row], p)
        K[row], V[row] = kept(outputs[row], p)
        size = (t + 1) & -(t + 1)
        of, to = np.arange(t + 1 - size, t + 1), np.arange(t + 1, min(t + 1 + size, len(q)))
        age = (to[:, None] - of)[..., None, None]
        scores = np.einsum("tbhd,sbhd->tsbh", q[to], K[of]) / root(q) - age * p.slopes
        for x, new in zip(sums, _joined([x[to] for x in sums], scores, V[of]), strict=True):
            x[to] = new
        moved += 2 * len(of) + 3 * len(to)  # keys and values; queries, and their sums to and fro
    return outputs, moved


def _joined(sums: list[Array], scores: Array, values: Array) -> tuple[Array, Array, Array]:
    """Return weighted sums, with their largest score, that have more scores (queries, keys, batch, heads) in them."""
    m, c, a = sums
    top = np.maximum(m, scores.max(axis=1))
    kept, weights = np.exp(m - top), np.exp(scores - top[:, None])
    return top, c * kept + weights.sum(axis=1), a * kept[..., None] + np.einsum("tsbh,sbhd->tbhd", weights, values)


def _counts(data: Dataset, gain: float) -> DataArray:
    return converged(data, "iterations").sel(gain=gain).squeeze("width")


def facts(data: Dataset) -> dict[str, Any]:
    found: dict[str, Any] = {"T": [int(t) for t in data["T"].values]}
    for gain in data["gain"].values:
        counts = _counts(data, gain).median("seed", skipna=False)
        errors = data["errors"].sel(gain=gain).isel(T=-1).squeeze("width")
        found[f"{gain:g}.counts"] = [float(x) for x in counts.transpose("T").values]
        found[f"{gain:g}.ordinary"] = float(errors.isel(iteration=1).median())  # after one sweep
    found["worst_error"] = float(data["error"].max())
    found["tiled_errors"] = [float(data["tiled_error"].sel(gain=gain).max()) for gain in data["gain"].values]
    for name in ("by_row", "tiled"):
        found[name] = [int(n) for n in data[name].isel(gain=0, seed=0).squeeze("width").values]
    return found


def draw(pyplot: Any, data: Dataset) -> Any:
    figure, axes = pyplot.subplots(1, 2, figsize=(10, 3.6))
    looks, T = series(f"gain {gain:g}" for gain in data["gain"].values), data["T"].values
    for look, gain in zip(looks.values(), data["gain"].values, strict=True):
        curves = held(data["errors"].sel(gain=gain).isel(T=-1).squeeze("width").transpose("seed", "iteration").values)
        middle = np.median(np.maximum(curves, _SMALLEST), axis=0)
        axes[0].plot(np.arange(len(middle)), middle, **look, markevery=max(len(middle) // 10, 1))
        counts = _counts(data, gain)
        band(axes[1], T, counts, "seed", "jacobi", **look)
    axes[1].plot(T, T, **_AS_MANY)
    axes[0].set(yscale="log", xlabel=f"sweeps, T = {T[-1]}, until nothing changes", ylabel="error / largest output")
    axes[1].set(xscale="log", yscale="log", xlabel="T", ylabel="sweeps")
    powers_of_two(axes[1].xaxis, [float(t) for t in T])
    outside_legend(figure, pyplot, [*looks.values(), _AS_MANY])
    return figure


def says(data: Dataset) -> str:
    f = facts(data)
    counts = {g: f[f"{g:g}.counts"][-1] for g in data["gain"].values}
    few, many = (pick(counts, key=counts.__getitem__) for pick in (min, max))
    off = {g: f"{100 * f[f'{g:g}.ordinary']:.0f} %" for g in (few, many)}
    return (
        "The first sweep is the ordinary Transformer layer, and what it is off tells how many more it takes: at T = "
        f"{f['T'][-1]} {counts[few]:.0f} sweeps where it is off by {off[few]} of the largest output, "
        f"{counts[many]:.0f} where it is off by {off[many]}."
    )


def draw_traffic(pyplot: Any, data: Dataset) -> Any:
    """Draw the rows of numbers that are moved, against T."""
    figure, ax = pyplot.subplots(figsize=(6.4, 3.4))
    f, looks = facts(data), series(("row by row", "in tiles"))
    T = np.array(f["T"])
    for look, name in zip(looks.values(), ("by_row", "tiled"), strict=True):
        ax.plot(T, f[name], **look)
    grown = {"color": "0.5", "linewidth": 0.8, "linestyle": ":", "label": "5/2 T log2 T"}
    ax.plot(T, 2.5 * T * np.log2(T), **grown)
    ax.set(xscale="log", yscale="log", xlabel="T", ylabel="rows of d numbers moved")
    powers_of_two(ax.xaxis, [float(t) for t in T])
    outside_legend(figure, pyplot, [*looks.values(), grown])
    return figure


def says_traffic(data: Dataset) -> str:
    f = facts(data)
    return (
        f"Tiles of powers of two move T log T rows of keys and values, as the paper says, where exact decoding reads T "
        f"squared: {times(f['tiled'][-1] / f['by_row'][-1])} as many at T = {f['T'][-1]}. Outputs are those of the "
        f"loop to {max(f['tiled_errors']):.0e} of the largest: parts of a softmax can be joined in any order."
    )


def tables(data: Dataset) -> list[Table]:
    f = facts(data)
    rows = [[f"{g:g}", *(f"{x:.0f}" for x in f[f"{g:g}.counts"])] for g in data["gain"].values]
    return [Table("Median sweeps", ["gain", *(f"T = {T}" for T in f["T"])], rows)]


STUDY = study_of(
    __name__,
    name="recurrent_transformer",
    question="How many parallel layers does one layer take that attends to its own outputs?",
    dims=("gain", "T", "width", "seed"),
    curves={"errors": ("iteration",), "residuals": ("iteration",)},
    pictures=(Picture("sweeps", draw, says), Picture("traffic", draw_traffic, says_traffic)),
    version=2,
)

"""Tiled Flash Linear Attention (Beck et al., arXiv 2503.14376): how long chunks should be, and what tiles save."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING, Any

import numpy as np

from recsolve.base.arrays import Array
from recsolve.studies.draw.drawing import CONVERGED, band, powers_of_two, times
from recsolve.studies.draw.series import outside_legend, series
from recsolve.studies.registry import Picture, Table, study_of
from recsolve.studies.store.records import Point, Row, product
from recsolve.studies.systems import mlstm
from recsolve.studies.systems.system import Arrays
from recsolve.studies.timing import in_turns

if TYPE_CHECKING:
    from xarray import DataArray, Dataset

WHOLE, TILED, EXP = "sigmoid in whole chunks", "sigmoid in tiles", "exponential in tiles"
FORMS = {WHOLE: (False, False), TILED: (False, True), EXP: (True, True)}  # exponential gates; tiles


@dataclass(frozen=True)
class Config:
    """``chunks`` in steps; one head of ``width`` keys and values; chunks of more than ``tile`` steps are cut up."""

    length: int = 2048
    chunks: tuple[int, ...] = (16, 32, 64, 128, 256, 512, 1024, 2048)
    width: int = 64
    tile: int = 128
    repeats: int = 5
    seeds: int = 3


TINY = Config(length=512, chunks=(8, 64, 512), width=16, tile=32, repeats=3, seeds=2)
FULL = Config(length=16384, chunks=tuple(2**k for k in range(4, 15)), width=128, repeats=25, seeds=5)


def grid(config: Config) -> Iterator[Point]:
    """Yield one point for every seed and chunk."""
    yield from product(
        chunk=config.chunks, seed=range(config.seeds), length=config.length, width=config.width, tile=config.tile,
        repeats=config.repeats, dtype="float32",
    )  # fmt: skip


def run(*, chunk: int, seed: int, length: int, width: int, tile: int, repeats: int, dtype: str) -> list[Row]:
    """Return seconds and counts of all forms."""
    arrays = _one_head(length, width, seed, dtype)
    sides = {form: min(tile, chunk) if tiled else chunk for form, (_, tiled) in FORMS.items()}
    runs = [partial(chunked, arrays, chunk, sides[form], exponential) for form, (exponential, _) in FORMS.items()]
    seconds = in_turns(runs, repeats, 2.0).min(axis=1)
    return [
        {"solver": form, "status": CONVERGED, "seconds": float(took), **counts(length, chunk, sides[form], width)}
        for form, took in zip(FORMS, seconds, strict=True)
    ]


def _one_head(length: int, width: int, seed: int, dtype: str) -> Arrays:
    """Return q, k, v and gates of one sequence and head, (length, width) and (length,)."""
    config = mlstm.Config(length=length, batch=1, heads=1, keys=width, values=width, seed=seed, dtype=dtype)
    return {name: x[:, 0, 0] for name, x in mlstm.draw(config).items()}


def chunked(arrays: Arrays, chunk: int, tile: int, exponential: bool) -> Array:
    """Return C^T q / max(|n q|, e^-m) of an mLSTM, or C^T q of an mLSTMsig, by chunks whose scores come in tiles.

    Parameters
    ----------
    arrays : mapping
        q, k, v of shape (T, width), gates i and f of shape (T,).
    chunk, tile : int
        Steps of a chunk, and of the sides of a tile, of which those above the diagonal are left out.
    exponential : bool
        Whether the input gate is exponential: weights then share a running maximum, and n is a column more of C.
    """
    q, k, v, i, f = (arrays[name] for name in ("q", "k", "v", "i", "f"))
    q, log_f = q * q.dtype.type(q.shape[-1] ** -0.5), mlstm.log_sigmoid(f)
    v = np.concatenate([v, np.ones_like(v[:, :1])], axis=1) if exponential else v
    C, m, out = np.zeros((k.shape[1], v.shape[1]), k.dtype), -np.inf if exponential else 0.0, np.empty_like(v)
    top = np.zeros_like(i)  # m, where there is one
    for start in range(0, len(q), chunk):
        steps = slice(start, start + chunk)
        Q, K, V, b = q[steps], k[steps], v[steps], np.cumsum(log_f[steps])
        # Step s counts at step t >= s with exp(row[t] + column[s]), and what was before the chunk with exp(row[t] + m).
        column = (i[steps] if exponential else mlstm.log_sigmoid(i[steps])) - b
        row = -np.maximum(np.maximum.accumulate(column), m).astype(k.dtype) if exponential else b
        out[steps] = np.exp(row + m)[:, None] * (Q @ C) + _inside(Q, K, V, row, column, tile)
        C = np.exp(row[-1] + m) * C + (K * np.exp(row[-1] + column)[:, None]).T @ V
        top[steps] = b - row
        m = top[steps][-1] if exponential else m
    if not exponential:
        return out
    shown: Array = out[:, :-1] / np.maximum(abs(out[:, -1]), np.exp(-top))[:, None]
    return shown


def _inside(Q: Array, K: Array, V: Array, row: Array, column: Array, tile: int) -> Array:
    """Return what the steps of a chunk give each other, tile by tile."""
    found = np.zeros((len(Q), V.shape[1]), V.dtype)
    cuts = [slice(at, at + tile) for at in range(0, len(Q), tile)]
    for n, to in enumerate(cuts):
        for of in cuts[: n + 1]:
            weights = row[to, None] + column[of]
            if of == to:
                weights = np.where(np.tri(len(weights), dtype=bool), weights, -np.inf)
            found[to] += (Q[to] @ K[of].T * np.exp(weights)) @ V[of]
    return found


def counts(length: int, chunk: int, tile: int, width: int) -> dict[str, float]:
    """Return products a step, numbers of the states between chunks, and of the scores that are there at once."""
    tiles = chunk // tile
    inside = tiles * (tiles + 1) / 2 * tile * tile * 2 * width  # scores, and their sums of values
    return {
        "products": inside / chunk + 2 * width * width,
        "states": length // chunk * width * width,
        "scores": tile * tile,
    }


def _of(data: Dataset, form: str, name: str) -> DataArray:
    return data[name].sel(solver=form).transpose("chunk", "seed")


def facts(data: Dataset) -> dict[str, Any]:
    """Return the fastest chunk of every form, and that of a fit a / L + b + c L to its times."""
    chunks = data["chunk"].values.astype(float)
    found: dict[str, Any] = {"chunks": [int(chunks[0]), int(chunks[-1])]}
    design = np.stack([1 / chunks, np.ones_like(chunks), chunks], axis=1)
    for form in FORMS:
        seconds = _of(data, form, "seconds").median("seed").values
        # Relative errors: the long chunks would decide alone otherwise.
        a, _, c = np.linalg.lstsq(design / seconds[:, None], np.ones_like(seconds), rcond=None)[0]
        found[f"{form}.best"] = int(chunks[seconds.argmin()])
        found[f"{form}.fitted"] = float(np.sqrt(a / c)) if min(a, c) > 0 else None
        found[f"{form}.ends"] = [float(seconds[at] / seconds.min()) for at in (0, -1)]
        found[f"{form}.least"] = float(seconds.min())
        for name in ("products", "states", "scores"):
            found[f"{form}.{name}"] = [float(n) for n in _of(data, form, name).isel(seed=0, chunk=[0, -1])]
    return found


def draw(pyplot: Any, data: Dataset) -> Any:
    """Draw times, products and memory against the length of chunks."""
    figure, axes = pyplot.subplots(1, 3, figsize=(12, 3.5))
    looks, chunks, f = series(FORMS), data["chunk"].values, facts(data)
    for form, look in looks.items():
        seconds = _of(data, form, "seconds")
        band(axes[0], chunks, 1e3 * seconds, "seed", form, **look)
        axes[0].plot(f[f"{form}.best"], 1e3 * f[f"{form}.least"], "o", color="0.5", markersize=12, fillstyle="none")
        axes[1].plot(chunks, _of(data, form, "products").isel(seed=0), **look)
        memory = _of(data, form, "states") + _of(data, form, "scores")
        axes[2].plot(chunks, memory.isel(seed=0), **look)
    for ax, label in zip(axes, ("milliseconds", "products a step", "numbers held: states, scores"), strict=True):
        ax.set(xscale="log", yscale="log", xlabel="steps of a chunk", ylabel=label)
        powers_of_two(ax.xaxis, chunks)
    best = {"color": "0.5", "marker": "o", "markersize": 12, "fillstyle": "none", "linestyle": "none"}
    outside_legend(figure, pyplot, [*looks.values(), {**best, "label": "fastest"}])
    return figure


def says(data: Dataset) -> str:
    """Say which chunk is fastest, and what tiles change."""
    f = facts(data)
    whole, tiled = (times(f[f"{form}.ends"][1]) for form in (WHOLE, TILED))
    return (
        f"Chunks are fastest where states and scores cost alike, at {f[f'{WHOLE}.best']} steps for whole ones. Tiles "
        f"leave out what is above the diagonal: the longest chunk takes {tiled} the least time in tiles and {whole} as "
        f"a whole. Exponential gates cost {times(f[f'{EXP}.least'] / f[f'{TILED}.least'])} the time of sigmoid ones."
    )


def tables(data: Dataset) -> list[Table]:
    """Return the fastest chunks."""
    f = facts(data)
    rows = [
        [form, str(f[f"{form}.best"]), f"{1e3 * f[f'{form}.least']:.3g}", *(f"{x:.2g}" for x in f[f"{form}.ends"])]
        for form in FORMS
    ]
    ends = [f"chunks of {n}, times it" for n in f["chunks"]]
    return [Table("Fastest chunks", ["form", "steps", "milliseconds", *ends], rows)]


STUDY = study_of(
    __name__,
    name="paper/tfla_chunks",
    question="How long should chunks of an mLSTM be, and what do tiles within them save?",
    dims=("chunk", "seed", "solver"),
    pictures=(Picture("times", draw, says),),
    alone=True,
)

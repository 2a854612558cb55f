"""Chunked forms of gated linear recurrences in float32: GLA's quotients, Languini's differences of running sums."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from recsolve.base.arrays import Array
from recsolve.studies.compare.measure import distance, loop
from recsolve.studies.draw.drawing import CONVERGED, band, converged, powers_of_two
from recsolve.studies.draw.series import ending, outside_legend, series
from recsolve.studies.registry import Picture, Table, study_of
from recsolve.studies.store.records import Point, Row, product
from recsolve.studies.systems import gla
from recsolve.studies.systems.system import Arrays, get

if TYPE_CHECKING:
    from xarray import DataArray, Dataset

QUOTIENT, DIFFERENCE, SCAN = "(Q b) (K / b), as GLA", "exp(c_i - c_j), as Languini", "scan"
FORMS = (QUOTIENT, DIFFERENCE, SCAN)
LARGEST = float(np.log(np.finfo(np.float32).max))  # e^LARGEST is where float32 ends
GOOD = 1e-4  # an error that is good enough
EPSILON = 1e-8  # what Languini adds to gates before it takes logarithms


@dataclass(frozen=True)
class Config:
    """Gates alpha = sigmoid(g + bias) of normal g, in float32."""

    length: int = 1024
    chunks: tuple[int, ...] = (4, 8, 16, 32, 64, 128, 256, 512, 1024)
    biases: tuple[float, ...] = (-2.0, 0.0, 2.0, 4.0, 6.0)
    seeds: int = 3


TINY = Config(length=256, chunks=(4, 16, 64, 256), biases=(-2.0, 2.0, 6.0), seeds=2)
FULL = Config(
    length=4096, chunks=tuple(2**k for k in range(2, 13)), biases=(-4.0, -2.0, 0.0, 2.0, 4.0, 6.0, 8.0), seeds=10
)


def grid(config: Config) -> Iterator[Point]:
    yield from product(
        bias=config.biases, chunk=config.chunks, seed=range(config.seeds), length=config.length, dtype="float32"
    )


def run(*, bias: float, chunk: int, seed: int, length: int, dtype: str) -> list[Row]:
    system = get("gla")
    small = system.draw(gla.Config(length=length, batch=1, heads=1, keys=4, values=4, seed=seed, dtype=dtype))
    logits = np.random.default_rng(seed).standard_normal(small["alpha"].shape) + bias
    arrays: Arrays = {**small, "alpha": (1 / (1 + np.exp(-logits))).astype(dtype)}
    exact = {name: array.astype(np.float64) for name, array in arrays.items()}
    truth = system.build(exact)
    y = truth.output(loop(truth))
    rec = system.build(arrays)
    assert system.scan is not None
    with np.errstate(all="ignore"):
        found = {
            QUOTIENT: gla.chunked(arrays, chunk),
            DIFFERENCE: differences(arrays, chunk),
            SCAN: rec.output(system.scan(rec)),
        }
    log_alpha = float(np.log(exact["alpha"]).mean())
    return [
        {
            "solver": form,
            "status": CONVERGED if np.isfinite(x).all() else "nonfinite",
            "error": distance(x, y) / float(abs(y).max()),
            "log_alpha": log_alpha,
        }
        for form, x in found.items()
    ]


def differences(arrays: Arrays, size: int) -> Array:
    """Return y by chunks in which weights are exp of differences of a running sum of log(alpha + 1e-8)."""
    q, k, v, alpha = (arrays[name] for name in ("q", "k", "v", "alpha"))
    S, parts = np.zeros((*k.shape[1:], v.shape[-1]), k.dtype), []
    for start in range(0, len(k), size):
        Q, K, V, a = (x[start : start + size] for x in (q, k, v, alpha))
        c = np.cumsum(np.log(a + a.dtype.type(EPSILON)), axis=0)
        past = np.tri(len(c), dtype=bool).reshape(len(c), len(c), *(1,) * (c.ndim - 1))
        weights = np.exp(np.where(past, c[:, None] - c, -np.inf))
        scores = np.sum(Q[:, None] * K * weights, axis=-1)
        parts.append(np.einsum("t...k,...kv->t...v", Q * np.exp(c), S) + np.einsum("ts...,s...v->t...v", scores, V))
        S = np.exp(c[-1])[..., None] * S + np.einsum("s...k,s...v->...kv", weights[-1] * K, V)
    return np.concatenate(parts)


def _errors(data: Dataset, form: str, bias: float) -> DataArray:
    return converged(data.sel(solver=form, bias=bias), "error")


def _longest(data: Dataset, form: str, bias: float) -> float:
    """Return the longest chunk that is good in all seeds, 0 if none is."""
    good = (_errors(data, form, bias) < GOOD).all("seed")
    return float(data["chunk"].where(good).max().fillna(0))


def facts(data: Dataset) -> dict[str, Any]:
    found: dict[str, Any] = {"scan.error": float(data["error"].sel(solver=SCAN).max())}
    for bias in data["bias"].values:
        log_alpha = float(data["log_alpha"].sel(bias=bias).mean())
        found[f"{bias:g}.mean"] = float(np.exp(log_alpha))
        found[f"{bias:g}.predicted"] = -LARGEST / log_alpha
        for form in FORMS:
            found[f"{bias:g}.{form}"] = _longest(data, form, bias)
        ends = _errors(data, DIFFERENCE, bias).median("seed").values[[0, -1]]
        found[f"{bias:g}.growth"] = float(ends[1] / ends[0])
        found[f"{bias:g}.{DIFFERENCE}.error"] = float(_errors(data, DIFFERENCE, bias).max())
    return found


def draw_errors(pyplot: Any, data: Dataset) -> Any:
    biases, f = [float(b) for b in data["bias"].values], facts(data)
    figure, axes = pyplot.subplots(1, len(biases), figsize=(2.3 * len(biases) + 2.2, 3.1), sharey=True, squeeze=False)
    looks, chunks = series(FORMS), data["chunk"].values
    for ax, bias in zip(axes[0], biases, strict=True):
        for form, look in looks.items():
            errors = _errors(data, form, bias)
            band(ax, chunks, errors, "seed", form, **look)
            ending(ax, chunks, errors.median("seed", skipna=False), "overflows")
        ax.axvline(f[f"{bias:g}.predicted"], color="0.4", linewidth=0.9, linestyle=":")
        ax.set(xscale="log", yscale="log", xlabel="steps of a chunk", title=f"mean alpha {f[f'{bias:g}.mean']:.3g}")
        ax.set_xlim(chunks[0] / 1.3, chunks[-1] * 1.3)
        powers_of_two(ax.xaxis, chunks)
    axes[0, 0].set_ylabel("error of y over max |y|, float32")
    dotted = {"color": "0.4", "linewidth": 0.9, "linestyle": ":", "label": "1 / b leaves float32"}
    outside_legend(figure, pyplot, [*looks.values(), dotted])
    return figure


def says_errors(data: Dataset) -> str:
    f, first = facts(data), f"{data['bias'].values[0]:g}"
    growth = max(f[f"{b:g}.growth"] for b in data["bias"].values)
    return (
        f"Quotients fail at once and not by degrees: at a mean alpha of {f[f'{first}.mean']:.3g} they are right in "
        f"float32 for chunks of up to {f[f'{first}.{QUOTIENT}']:.0f} steps, and as exact as a scan before. Differences "
        f"of running sums never overflow, but what is summed cancels: their error grows up to {growth:.0f} times from "
        "the shortest to the longest chunk."
    )


def draw_limits(pyplot: Any, data: Dataset) -> Any:
    f, biases = facts(data), data["bias"].values
    figure, ax = pyplot.subplots(figsize=(6.4, 3.4))
    mean = [f[f"{b:g}.mean"] for b in biases]
    for form, look in series(FORMS).items():
        ax.plot([1 - m for m in mean], [f[f"{b:g}.{form}"] or np.nan for b in biases], **look)
    predicted = {"color": "0.4", "linewidth": 0.9, "linestyle": ":", "label": "88.7 / mean of log(1 / alpha)"}
    ax.plot([1 - m for m in mean], [f[f"{b:g}.predicted"] for b in biases], **predicted)
    tried = f"longest chunk with an error below {GOOD:g}\n(of up to {data['chunk'].max().item()})"
    ax.set(xscale="log", yscale="log", xlabel="1 - mean alpha", ylabel=tried)
    ax.set_ylim(float(data["chunk"].min()) / 2, 4 * float(data["chunk"].max()))
    outside_legend(figure, pyplot, [*series(FORMS).values(), predicted])
    return figure


def says_limits(data: Dataset) -> str:
    f = facts(data)
    low, paper = f"{data['bias'].values[0]:g}", -LARGEST / (np.log(0.5) / 16)  # alpha = sigmoid(0)^(1/16)
    return (
        f"The largest number of float32 says how long chunks may be: about {paper:.0f} steps with the gates of the "
        f"paper, which chunks of 64 do not reach; with a mean alpha of {f[f'{low}.mean']:.2g} only "
        f"{f[f'{low}.{QUOTIENT}']:.0f} were right."
    )


def tables(data: Dataset) -> list[Table]:
    f = facts(data)
    rows = [
        [f"{f[f'{b:g}.mean']:.3g}", f"{f[f'{b:g}.predicted']:.0f}", *(f"{f[f'{b:g}.{form}']:.0f}" for form in FORMS)]
        for b in data["bias"].values
    ]
    return [Table(f"Longest chunk with an error below {GOOD:g}", ["mean alpha", "1 / b overflows", *FORMS], rows)]


STUDY = study_of(
    __name__,
    name="chunks",
    question="How long may the chunks of a gated linear recurrence be before float32 gives way?",
    dims=("bias", "chunk", "seed", "solver"),
    pictures=(Picture("errors", draw_errors, says_errors), Picture("limits", draw_limits, says_limits)),
)

"""Recall from memories of segments (Memory Caching, arXiv 2602.24281): from one linear memory to attention."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

import recsolve as rs
from recsolve.base.arrays import Array
from recsolve.studies.draw.drawing import band, powers_of_two
from recsolve.studies.draw.series import outside_legend, series
from recsolve.studies.registry import Picture, Table, study_of
from recsolve.studies.store.records import Point, Row, product
from recsolve.studies.systems import memory_caching as caching

if TYPE_CHECKING:
    from xarray import DataArray, Dataset

NAMES = {"residual": "residual", "grm": "gated residual (GRM)", "ssc": "sparse selection (SSC)"}
# Reads of networks, DLA, whose first weights are large enough that units differ.
DEEP = {"dla grm": "DLA, GRM", "dla soup": "DLA, soup"}
GAIN = 2.0


@dataclass(frozen=True)
class Config:
    """Every step stores a pair, and asks for one of those so far; ``words`` values to tell apart.

    The query of a segment is the key times the length of a segment and one of ``sharpness``. Networks have ``hidden``
    units and learn at the ``rate``.
    """

    length: int = 128
    keys: int = 16
    words: int = 32
    segments: tuple[int, ...] = (1, 2, 4, 8, 16, 32, 64, 128)
    sharpness: tuple[float, ...] = (0.5, 1.0, 2.0, 4.0, 8.0, 16.0)
    top: int = 2
    hidden: int = 32
    rate: float = 1.0
    seeds: int = 10


TINY = Config(length=32, keys=8, words=16, segments=(1, 4, 32), sharpness=(1.0, 8.0), hidden=12, seeds=3)
FULL = Config(length=512, keys=32, words=128, segments=(1, 2, 4, 8, 16, 32, 64, 128, 256), seeds=20)


def grid(config: Config) -> Iterator[Point]:
    yield from product(
        segments=config.segments,
        seed=range(config.seeds),
        T=config.length,
        keys=config.keys,
        words=config.words,
        sharpness=[*config.sharpness],
        top=config.top,
        hidden=config.hidden,
        rate=config.rate,
        dtype="float64",
    )


def run(
    *,
    segments: int,
    seed: int,
    T: int,
    keys: int,
    words: int,
    sharpness: list[float],
    top: int,
    hidden: int,
    rate: float,
    dtype: str,
) -> list[Row]:
    arrays, vocabulary, asked = task(segments=segments, seed=seed, T=T, keys=keys, words=words, dtype=dtype)
    late = slice(T // 2, None)

    def answered(name: str, beta: float, gamma: Array, y: Array) -> Row:
        wrong = float(((y @ vocabulary.T).argmax(axis=-1)[:, 0] != asked[late]).mean())
        reads = float((gamma > 0).sum(axis=-1).mean())
        return {"solver": name, "beta": beta, "status": "converged", "wrong": wrong, "reads": reads}

    linear, deep = (
        late_memories(rec, late) for rec in (caching.linear(arrays), caching.dla(network(arrays, hidden, rate, seed)))
    )
    rows = []
    for beta in sharpness:
        queried = {**arrays, "u": beta * T / segments * arrays["q"]}
        for read in caching.READS:
            if read == "residual" and beta != sharpness[0]:  # which has no use for it
                continue
            u = {"gamma": caching.weights(queried, read, top)[late], "q": arrays["q"][late]}
            rows.append(answered(read, beta, u["gamma"], caching.linear_readout(linear, u)))
            if read == "grm":
                apart, soup = caching.dla_readout(deep, u), caching.soup_readout(deep, u)
                moved = float(np.linalg.norm(soup - apart) / np.linalg.norm(apart))
                rows.append(answered("dla grm", beta, u["gamma"], apart))
                rows.append({**answered("dla soup", beta, u["gamma"], soup), "moved": moved})
    return rows


def late_memories(rec: rs.Recurrence, late: slice) -> Any:
    sol = rs.solve(rec, method="sequential")
    return rec.named(sol.states[late])


def network(arrays: dict[str, Array], hidden: int, rate: float, seed: int) -> dict[str, Array]:
    """Return the arrays with weights of networks that answer 0 until they have read something."""
    k, v = arrays["k"], arrays["v"]
    first = GAIN * np.random.default_rng(1000 + seed).standard_normal((hidden, k.shape[-1]))
    return {
        **arrays,
        "W0": first.astype(k.dtype),
        "W1": np.zeros((v.shape[-1], hidden), k.dtype),
        "eta": np.full(k.shape[:2], rate, k.dtype),
    }


def task(
    *, segments: int, seed: int, T: int, keys: int, words: int, dtype: str
) -> tuple[dict[str, Array], Array, Array]:
    """Return the arrays of the system, the values that there are, and which one each query asks for."""
    rng = np.random.default_rng(seed)
    config = caching.Config(length=T, batch=1, keys=keys, values=keys, segments=segments, seed=seed, dtype=dtype)
    arrays = dict(caching.draw(config))
    vocabulary = rng.standard_normal((words, keys))
    vocabulary /= np.linalg.norm(vocabulary, axis=-1, keepdims=True)
    word, back = rng.integers(words, size=T), rng.integers(np.arange(1, T + 1))
    arrays["v"] = vocabulary[word][:, None].astype(dtype)
    arrays["q"] = arrays["k"][back]
    return arrays, vocabulary, word[back]


def _wrong(data: Dataset, read: str) -> DataArray:
    """Return the share of wrong answers by segments and seed, of the sharpness that is best over all seeds."""
    shares = data["wrong"].sel(solver=read)
    best = shares.median("seed").fillna(np.inf).argmin("beta")
    return shares.isel(beta=best)


def facts(data: Dataset) -> dict[str, Any]:
    found: dict[str, Any] = {"segments": [int(n) for n in data["segments"].values]}
    found["moved"] = float(data["moved"].max())
    for read in (*NAMES, *DEEP):
        found[read] = [float(x) for x in _wrong(data, read).median("seed").values]
        reads = data["reads"].sel(solver=read).median("seed").min("beta")
        found[f"{read}.reads"] = [float(x) for x in reads.values]
    return found


def draw(pyplot: Any, data: Dataset) -> Any:
    figure, axes = pyplot.subplots(1, 2, figsize=(9, 3.4), sharey=True)
    names = NAMES | DEEP
    looks = {read: {**look, "label": names[read]} for read, look in series(names).items()}
    f = facts(data)
    for read, look in looks.items():
        wrong = _wrong(data, read)
        band(axes[0], data["segments"].values, wrong, "seed", read, **look)
        if read in NAMES:  # those of networks are as many
            axes[1].plot(f[f"{read}.reads"], f[read], **look)
    for ax in axes:
        ax.set(xscale="log", ylim=(-0.03, 1.03))
    powers_of_two(axes[0].xaxis, f["segments"])
    axes[0].set(xlabel="segments N", ylabel="share of wrong answers")
    axes[1].set(xlabel="memories that a query reads")
    outside_legend(figure, pyplot, looks.values())
    return figure


def says(data: Dataset) -> str:
    f = facts(data)
    N = f["segments"]
    first = next((n for n, x in zip(N, f["grm"], strict=True) if x <= f["residual"][0] / 2), None)
    reach = f"Gates (GRM) halve that from N = {first} on" if first else "Gates (GRM) do not halve that with any N"
    return (
        f"Sums of memories (residual) are the same memory as one, with {100 * f['residual'][-1]:.0f} % wrong answers. "
        f"{reach}, since a mean of many keys says little about each. With a segment for each step, "
        f"{f['ssc.reads'][-1]:.0f} memories (SSC) in place of all {f['grm.reads'][-1]:.0f} leave "
        f"{100 * f['ssc'][-1]:.0f} % wrong."
    )


def tables(data: Dataset) -> list[Table]:
    f = facts(data)
    names = NAMES | DEEP
    rows = [[names[read], *(f"{x:.2f}" for x in f[read])] for read in names]
    return [Table("Share of wrong answers by segments", ["read", *map(str, f["segments"])], rows)]


STUDY = study_of(
    __name__,
    name="memory_caching",
    version=2,
    question="What does recall gain from keeping the memories of segments?",
    dims=("segments", "seed", "solver", "beta"),
    pictures=(Picture("recall", draw, says),),
)

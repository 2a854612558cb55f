"""Chain of Layers (Li et al., arXiv 2507.07996): what a search over paths finds in a stack that was never trained."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from recsolve.base.arrays import Array
from recsolve.studies.draw.drawing import band
from recsolve.studies.draw.series import level, outside_legend, series
from recsolve.studies.registry import Picture, Table, study_of
from recsolve.studies.store.records import Point, Row, product
from recsolve.studies.systems.cola import Config as Stack
from recsolve.studies.systems.cola import causal_mean
from recsolve.studies.systems.cola import draw as drawn
from recsolve.studies.systems.system import Arrays

if TYPE_CHECKING:
    from xarray import DataArray, Dataset

KEPT, FIXED = "kept", "fixed"
PUBLISHED = {KEPT: 0.75, FIXED: 0.60}  # shares of samples of language models, at least


@dataclass(frozen=True)
class Config:
    """All paths of up to ``longest`` of ``blocks`` blocks; an answer is the largest of ``classes`` random read-outs."""

    classes: tuple[int, ...] = (4, 16, 64)
    blocks: int = 4
    longest: int = 6
    samples: int = 100
    gain: float = 1.0
    seeds: int = 3


TINY = Config(classes=(4, 64), longest=5, samples=30, seeds=2)
FULL = Config(classes=(4, 16, 64, 256), blocks=6, samples=400, seeds=15)


def grid(config: Config) -> Iterator[Point]:
    return product(
        classes=config.classes, seed=range(config.seeds), blocks=config.blocks, longest=config.longest,
        samples=config.samples, gain=config.gain, dtype="float64",
    )  # fmt: skip


def run(*, classes: int, seed: int, blocks: int, longest: int, samples: int, gain: float, dtype: str) -> list[Row]:
    arrays = drawn(Stack(batch=samples, blocks=blocks, gain=gain, seed=seed, dtype=dtype))
    random = np.random.default_rng(seed + 1)
    heads = random.standard_normal((arrays["H"].shape[-1], classes))
    answers = [np.argmax(H[..., -1, :] @ heads, axis=-1) for H in by_length(arrays, longest)]  # (paths, samples)
    own = answers[blocks - 1][number(range(blocks), blocks)]
    # Of wrong samples the answer that is wanted is any other one, each as likely.
    wanted = (own + random.integers(1, classes, samples)) % classes
    curves = {
        name: [float(share) for share in np.mean(_found(answers, label), axis=-1)]
        for name, label in ((KEPT, own), (FIXED, wanted))
    }
    return [{"solver": "search", "status": "converged", "shorter": curves[KEPT][blocks - 2], **curves}]


def _found(answers: list[Array], label: Array) -> Array:
    """Return whether a path of up to each length gives the label: (lengths, samples)."""
    return np.logical_or.accumulate([(found == label).any(axis=0) for found in answers])


def by_length(arrays: Arrays, longest: int) -> Iterator[Array]:
    """Yield the states at the end of all paths of length 1, 2, ...: (paths, samples, tokens, width)."""
    A, b, B, H = (arrays[name] for name in ("A", "b", "B", "H"))
    C = causal_mean(H.shape[-2])
    ends = H[None]
    for _ in range(longest):
        steps = [ends + np.tanh(C @ ends @ A[block] + b[block]) @ B[block] for block in range(len(A))]
        ends = np.stack(steps, axis=1).reshape(-1, *H.shape)
        yield ends


def number(path: Any, blocks: int) -> int:
    """Return which of the paths of its length a path is."""
    found = 0
    for block in path:
        found = found * blocks + block
    return found


def _curve(data: Dataset, name: str, classes: int) -> DataArray:
    """Return shares by length and seed."""
    return data[name].sel(solver="search", classes=classes).transpose("length", "seed")


def facts(data: Dataset) -> dict[str, Any]:
    found: dict[str, Any] = {"longest": data["length"].size}
    for classes in data["classes"].values:
        found[f"{classes}.shorter"] = float(data["shorter"].sel(solver="search", classes=classes).mean())
        found[f"{classes}.{FIXED}"] = [float(x) for x in _curve(data, FIXED, classes).mean("seed")]
    return found


def draw(pyplot: Any, data: Dataset) -> Any:
    figure, axes = pyplot.subplots(1, 2, figsize=(9.0, 3.4), sharey=True)
    names = {f"{classes} answers": classes for classes in data["classes"].values}
    looks = series(names)
    titles = {KEPT: "a path gives the stack's answer", FIXED: "a path gives another, given answer"}
    for ax, (which, title) in zip(axes, titles.items(), strict=True):
        for name, classes in names.items():
            y = _curve(data, which, classes)
            band(ax, 1 + np.arange(len(y)), 100 * y, "seed", name, **looks[name])
        level(ax, 100 * PUBLISHED[which], "published", side="right" if which == KEPT else "left")
        ax.set(title=title, xlabel="longest path", ylim=(-3, 103))
    axes[0].set_ylabel("samples, %")
    outside_legend(figure, pyplot, looks.values())
    return figure


def says(data: Dataset) -> str:
    f, classes = facts(data), [int(n) for n in data["classes"].values]
    few, many = classes[0], classes[-1]
    return (
        f"Nothing was trained here, so where answers are few such shares show how many paths were tried, and not what "
        f"blocks know: some path gives an answer that was drawn at random for {f[f'{few}.{FIXED}'][-1]:.0%} of the "
        f"samples where there are {few} answers, and for {f[f'{many}.{FIXED}'][-1]:.0%} where there are {many}."
    )


def tables(data: Dataset) -> list[Table]:
    f, classes = facts(data), data["classes"].values
    rows = [[str(n), f"{f[f'{n}.shorter']:.0%}", *(f"{x:.0%}" for x in f[f"{n}.{FIXED}"])] for n in classes]
    head = ["answers", "shorter path, same answer", *(f"fixed by up to {k + 1}" for k in range(f["longest"]))]
    return [Table("Shares of samples, means over seeds", head, rows)]


STUDY = study_of(
    __name__,
    name="paths",
    question="What does a search over paths through a stack find where nothing was trained?",
    dims=("classes", "seed", "solver"),
    curves={KEPT: ("length",), FIXED: ("length",)},
    pictures=(Picture("found", draw, says),),
)

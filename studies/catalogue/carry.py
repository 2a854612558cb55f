"""Carries and trees by truncated Jacobi: right on most of what is random, and never where it has to reach far.

What Zhang et al. (arXiv 2401.12947) find of Transformers that learn structural recursion, with sweeps in place of
layers.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

import numpy as np

import recsolve as rs
from recsolve.base.arrays import Array
from recsolve.studies.draw.series import outside_legend, series
from recsolve.studies.registry import Picture, Table, study_of
from recsolve.studies.store.records import Point, Row, product
from recsolve.studies.systems.system import get

if TYPE_CHECKING:
    from xarray import DataArray, Dataset

CARRIES, SUCCESSORS, TREES = "carries of a sum", "successors, whole", "traversals below nodes of trees"
WHAT = (CARRIES, SUCCESSORS, TREES)


@dataclass(frozen=True)
class Config:
    """``numbers`` pairs of numbers with ``bits`` bits; trees into which as many values are sorted as there are bits."""

    bits: int = 128
    numbers: int = 20000
    sweeps: int = 10
    seeds: int = 3


TINY = Config(bits=40, numbers=4000, sweeps=4, seeds=2)
FULL = Config(bits=512, numbers=100000, sweeps=14, seeds=10)


def grid(config: Config) -> Iterator[Point]:
    yield from product(
        seed=range(config.seeds), bits=config.bits, numbers=config.numbers, sweeps=config.sweeps, dtype="bool"
    )


def run(*, seed: int, bits: int, numbers: int, sweeps: int, dtype: str) -> list[Row]:
    assert dtype == "bool"
    rows = []
    for name, what in (("adder", CARRIES), ("successor", SUCCESSORS)):
        rec = get(name).build(length=bits, batch=numbers, seed=seed)
        truth = rs.solve(rec, method="sequential").states
        engine, states = rec.bind(), np.zeros(rec.shape, bool)
        for k in range(1, sweeps + 1):
            states = engine.evaluate(states)
            right, long = _judged(rec, what, states == truth, truth, k)
            rows.append(_row(what, k, right, long, float(1 - expected(what, k))))
    return rows + _trees(bits, sweeps, seed)


def _row(what: str, k: int, right: Array, long: Array, predicted: float) -> Row:
    far = float(right[long].mean()) if long.any() else float("nan")
    return {"what": what, "k": k, "right": float(right.mean()), "long": far, "predicted": predicted}


def _trees(nodes: int, sweeps: int, seed: int) -> list[Row]:
    """Return the same of a tree in order: what is below a node, from empty lists, and nodes that are higher than k."""
    system = get("tree_inorder")
    arrays = system.draw(replace(system.config, length=nodes, seed=seed))
    rec, height = system.build(arrays), heights(arrays["children"])
    truth = rs.solve(rec, method="sequential").states
    rows = []
    for k in range(1, sweeps + 1):
        found = rs.solve(rec, method="jacobi", guess=np.zeros_like(truth), maxiter=k).states
        right = (found == truth).all(axis=-1)
        root = {"root": float(right[0]), "height": int(height[0])}
        rows.append({**_row(TREES, k, right, height > k, float((height <= k).mean())), **root})
    return rows


def heights(children: Array) -> Array:
    """Return the number of nodes on the longest way down from every node; children come after their parents."""
    height = np.zeros(len(children), int)
    for node in range(len(children))[::-1]:
        height[node] = 1 + max((height[child] for child in children[node] if child >= 0), default=0)
    return height


def _judged(rec: Any, what: str, right: Array, truth: Array, k: int) -> tuple[Array, Array]:
    """Return what is right, and which of it depends on a carry that has come k bits or more."""
    if what == SUCCESSORS:
        return np.asarray(right[..., 1].all(axis=0)), rec.inputs[0][:k].all(axis=0)
    a, b = rec.inputs
    passed = np.cumsum(a ^ b, axis=0)
    run = passed[k - 1 :] - np.concatenate([np.zeros_like(passed[:1]), passed[:-k]]) == k
    long = np.concatenate([np.zeros_like(run, shape=(k - 1, run.shape[1])), run]) & truth[..., 0]
    return right[..., 0], long


def expected(what: str, k: Any) -> Any:
    """Return the share that is wrong after k sweeps from no carry, of infinitely many bits."""
    return 2.0 ** -(k + 1) if what == CARRIES else 2.0**-k


def _wrong(data: Dataset, what: str) -> DataArray:
    return 1 - data["right"].sel(what=what)


def _predicted(data: Dataset, what: str) -> Array:
    """Return the share that is expected to be right, by k."""
    found: Array = data["predicted"].sel(what=what).mean("seed").values
    return found


def facts(data: Dataset) -> dict[str, Any]:
    found: dict[str, Any] = {"sweeps": int(data["k"].max())}
    for what in WHAT:
        wrong, predicted = _wrong(data, what).mean("seed").values, 1 - _predicted(data, what)
        found[f"{what}.right"] = [float(1 - x) for x in wrong]
        found[f"{what}.off"] = float(np.abs(wrong / predicted - 1)[: len(wrong) // 2 + 1].max())
        found[f"{what}.long"] = float(data["long"].sel(what=what).max())
    height = data["height"].sel(what=TREES)
    found["height"] = [int(height.min()), int(height.max())]
    found["root"] = float(data["root"].sel(what=TREES).mean("seed")[-1])
    return found


def draw(pyplot: Any, data: Dataset) -> Any:
    figure, ax = pyplot.subplots(figsize=(6.4, 3.6))
    looks, k = series(WHAT), data["k"].values
    for what, look in looks.items():
        wrong = _wrong(data, what).mean("seed").values
        ax.plot(k, np.where(wrong > 0, wrong, np.nan), **{**look, "linestyle": "none"})
        ax.plot(k, 1 - _predicted(data, what), color=look["color"], linestyle=look["linestyle"], linewidth=1)
    ax.set(yscale="log", xlabel="sweeps k", ylabel="share that is wrong", xticks=k)
    outside_legend(figure, pyplot, looks.values())
    return figure


def says(data: Dataset) -> str:
    f = facts(data)
    long = 100 * max(f[f"{CARRIES}.long"], f[f"{SUCCESSORS}.long"])
    return (
        f"An algorithm cut short fits the distribution and fails where it is thin: {f['sweeps']} sweeps get "
        f"{100 * f[f'{CARRIES}.right'][-1]:.4g} % of the carries of a sum right, and {long:.0f} % of those that come "
        f"from as many bits away as there were sweeps. Below the nodes of a tree values are right up to the height of "
        f"as many sweeps: whole trees in {100 * f['root']:.0f} %. Lines are predicted, markers measured."
    )


def tables(data: Dataset) -> list[Table]:
    f = facts(data)
    rows = [
        [what, str(k + 1), f"{share:.6f}", f"{_predicted(data, what)[k]:.6f}"]
        for what in WHAT
        for k, share in enumerate(f[f"{what}.right"])
    ]
    return [Table("Share that is right", ["of", "sweeps", "measured", "expected"], rows)]


STUDY = study_of(
    __name__,
    name="carry",
    version=2,
    question="What does Jacobi's iteration get right of sums, successors and trees when it is cut short?",
    dims=("what", "k", "seed"),
    pictures=(Picture("shares", draw, says),),
)

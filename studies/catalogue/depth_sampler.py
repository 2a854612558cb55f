"""The sampler of models of recurrent depth (Geiping, Yang and Su, arXiv 2510.14961): its tokens and passes."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from recsolve.base.arrays import Array
from recsolve.studies.draw.drawing import band, times
from recsolve.studies.draw.series import outside_legend, series
from recsolve.studies.registry import Picture, Table, study_of
from recsolve.studies.store.records import Point, Row, product
from recsolve.studies.systems.recurrent_depth import Config as Model
from recsolve.studies.systems.recurrent_depth import draw as drawn
from recsolve.studies.systems.recurrent_depth import iterate, weights_of
from recsolve.studies.systems.system import Arrays

if TYPE_CHECKING:
    from xarray import DataArray, Dataset

ITERATIONS = 32  # r: what a token takes that waits for the one before it
INNER, EPS, SPEED = 4, 0.03, "4.4 to 4.8"  # as published
_SETTLED, _LIMIT = 1e-12, 10_000


@dataclass(frozen=True)
class Config:
    """``inner`` iterations a pass of all positions under way, of which the first ones freeze below ``eps``."""

    inner: tuple[int, ...] = (1, 2, 4, 8)
    eps: tuple[float, ...] = (0.3, 0.1, 0.03, 0.01, 1e-3, 1e-6)
    positions: int = 128
    gain: float = 0.5
    memory: float = 0.8
    seeds: int = 5


TINY = Config(inner=(1, 4), eps=(0.3, 0.03, 1e-6), positions=24, seeds=2)
FULL = Config(positions=1024, seeds=20)


def grid(config: Config) -> Iterator[Point]:
    return product(
        inner=config.inner, eps=config.eps, seed=range(config.seeds), positions=config.positions, gain=config.gain,
        memory=config.memory, dtype="float64",
    )  # fmt: skip


def run(*, inner: int, eps: float, seed: int, positions: int, gain: float, memory: float, dtype: str) -> list[Row]:
    arrays = drawn(Model(length=positions, gain=gain, memory=memory, seed=seed, dtype=dtype))
    truth = in_turn(arrays)
    tokens, passes, rows = sampled(arrays, inner, eps)
    in_order = positions * ITERATIONS
    return [
        {
            "solver": "sampler",
            "status": "converged",
            "mismatch": float((tokens != truth).mean()),
            "speed": in_order / passes,  # passes that wait for each other
            "work": rows / in_order,  # iterations of a position
        }
    ]


def in_turn(arrays: Arrays) -> Array:
    """Return the tokens where every position is iterated until it settles before the next one begins."""
    weights, past, tokens = weights_of(arrays), arrays["s0"], []
    for P in arrays["P"]:
        s, change = arrays["s0"], np.inf
        for _ in range(_LIMIT):
            s, before = iterate(s, past, P, 1, weights), s
            change = float(np.abs(s - before).max())
            if change < _SETTLED:
                break
        else:
            raise ValueError(f"a position still moves by {change:.1e} after {_LIMIT} iterations; wanted a smaller gain")
        tokens.append(int(np.argmax(s @ weights["C"])))
        past = s
    return np.array(tokens)


def sampled(arrays: Arrays, inner: int, eps: float) -> tuple[Array, int, int]:
    """Return the sampler's tokens, the iterations that wait for each other, and those of all positions together.

    A position joins in every pass. The positions on the left whose state has changed by less than ``eps`` of its norm
    in a pass stay as they are.
    """
    weights, s0, P = weights_of(arrays), arrays["s0"], arrays["P"]
    states, frozen, passes, rows = np.zeros_like(s0[:0]), 0, 0, 0
    while frozen < len(P):
        states = np.concatenate([states, s0]) if len(states) < len(P) else states
        past = np.concatenate([s0, states[:-1]])
        under_way = slice(frozen, len(states))
        new = iterate(states[under_way], past[under_way], P[under_way], inner, weights)
        change = np.linalg.norm(new - states[under_way], axis=1) / np.linalg.norm(new, axis=1)
        states = np.concatenate([states[:frozen], new])
        passes, rows = passes + inner, rows + inner * len(new)
        moves = np.flatnonzero(change >= eps)
        frozen = frozen + int(moves[0]) if moves.size else len(states)
        if passes > _LIMIT * len(P):
            raise ValueError(f"no position settles to {eps:g} any more; wanted a smaller gain")
    tokens: Array = np.argmax(states @ weights["C"], axis=-1)
    return tokens, passes, rows


def _measured(data: Dataset, name: str, inner: int) -> DataArray:
    """Return what is measured, by eps and seed."""
    return data[name].sel(solver="sampler", inner=inner).transpose("eps", "seed")


def facts(data: Dataset) -> dict[str, Any]:
    found: dict[str, Any] = {"smallest_eps": float(data["eps"].min()), "largest_eps": float(data["eps"].max())}
    for inner in data["inner"].values:
        mismatch = _measured(data, "mismatch", inner)
        found[f"{inner}.equal"] = float(mismatch.sel(eps=found["smallest_eps"]).max()) == 0
        found[f"{inner}.worst"] = float(mismatch.sel(eps=found["largest_eps"]).median())
        for name in ("mismatch", "speed", "work"):
            found[f"{inner}.{name}"] = float(_measured(data, name, inner).sel(eps=EPS).mean())
    return found


def draw(pyplot: Any, data: Dataset) -> Any:
    figure, (left, right) = pyplot.subplots(1, 2, figsize=(9.0, 3.4), sharex=True)
    names = {f"r' = {inner}": inner for inner in data["inner"].values}
    looks = series(names)
    for name, inner in names.items():
        band(left, data["eps"].values, 100 * _measured(data, "mismatch", inner), "seed", name, **looks[name])
        band(right, data["eps"].values, _measured(data, "speed", inner), "seed", name, **looks[name])
    left.set(xscale="log", xlabel="eps", ylabel="wrong tokens, %")
    right.set(xscale="log", yscale="log", xlabel="eps", ylabel="r T / passes that wait")
    outside_legend(figure, pyplot, looks.values())
    return figure


def says(data: Dataset) -> str:
    f, default = facts(data), INNER
    least = int(data["inner"].values[0])
    return (
        f"With the published settings {f[f'{default}.mismatch']:.1%} of the tokens differ from those of the loop, and "
        f"{times(f[f'{default}.speed'])} fewer passes wait for each other (published: {SPEED}x the tokens a second). "
        f"The fewest iterations a pass and the largest eps make {f[f'{least}.worst']:.0%} wrong: a wrong token that "
        "settles before the one on its left is frozen with it."
    )


def tables(data: Dataset) -> list[Table]:
    f = facts(data)
    rows = [
        [str(n), *(f"{f[f'{n}.{name}']:.3g}" for name in ("mismatch", "speed", "work"))] for n in data["inner"].values
    ]
    head = ["r'", "wrong tokens", "r T over passes that wait", "work over r T"]
    return [Table(f"At eps = {EPS:g}, means over seeds", head, rows)]


STUDY = study_of(
    __name__,
    name="sampler",
    question="Which tokens does the sampler of a recurrent-depth model get wrong, and how many passes does it save?",
    dims=("inner", "eps", "seed", "solver"),
    pictures=(Picture("tokens", draw, says),),
)

"""RecurrentGPT's shape (Zhou et al., arXiv 2305.13304): how long a fact is known that was read once, at the first step.

Closed-form weights, nothing is trained: a unit for the fact, one that marks it for the search, one that is always on.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from recsolve.base.arrays import Array
from recsolve.studies.compare.measure import loop, measured
from recsolve.studies.draw.drawing import band, converged
from recsolve.studies.draw.series import level, outside_legend, series
from recsolve.studies.registry import Picture, Table, study_of
from recsolve.studies.store.records import Point, Row, product
from recsolve.studies.systems import recurrent_gpt

if TYPE_CHECKING:
    from xarray import DataArray, Dataset

FACT, MARK, ON = range(3)  # units
STRENGTH = 2.0  # of what the first step says, which tanh takes for nearly 1
SOLVERS = ("newton", "jacobi")
OVER = 8  # steps of a mean
ALL = 0  # slots: as many as there are steps


@dataclass(frozen=True)
class Memory:
    """``slots`` of the long memory, None where there is none; ``keeps`` is the weight of the fact's unit on itself."""

    slots: int | None = None
    keeps: float = 0.0
    sharpness: float = 8.0


MEMORIES = {
    "short, forgets (w = 0.9)": Memory(keeps=0.9),
    "short, holds (w = 1.5)": Memory(keeps=1.5),
    "long, the last 8": Memory(8),
    "long, the last 64": Memory(64),
    "long, all": Memory(ALL),
    "long, all, vague search": Memory(ALL, sharpness=2.0),
}


@dataclass(frozen=True)
class Config:
    """``stories`` of ``T`` steps whose fact is -1 or 1, and noise in its unit; solvers get two of ``solved`` steps."""

    memories: tuple[str, ...] = tuple(MEMORIES)
    T: int = 256
    stories: int = 64
    noise: float = 0.5
    solved: int = 64
    seeds: int = 3


TINY = Config(T=96, stories=24, solved=24, seeds=2)
FULL = Config(T=1024, stories=256, solved=128, seeds=10)


def grid(config: Config) -> Iterator[Point]:
    yield from product(
        memory=config.memories, seed=range(config.seeds), T=config.T, stories=config.stories, noise=config.noise,
        solved=config.solved, dtype="float64",
    )  # fmt: skip


def run(*, memory: str, seed: int, T: int, stories: int, noise: float, solved: int, dtype: str) -> list[Row]:
    rec, fact = story(MEMORIES[memory], T, stories, noise, seed, dtype)
    h = rec.named(loop(rec))["h"][..., FACT]
    short, _ = story(MEMORIES[memory], solved, 2, noise, seed, dtype)
    truth = loop(short)
    rows = [measured(short, solver, truth) for solver in SOLVERS]
    return [{"known": [*map(float, (np.sign(h) == fact).mean(axis=1))], "length": solved, **row} for row in rows]


def story(memory: Memory, T: int, stories: int, noise: float, seed: int, dtype: str) -> tuple[Any, Array]:
    """Return the recurrence, and the facts of its stories."""
    random, units = np.random.default_rng(seed), ON + 1
    fact = random.choice((-1.0, 1.0), stories)
    slots = T if memory.slots == ALL else memory.slots or 1
    x = np.zeros((T, stories, units), dtype)
    x[..., FACT] = noise * random.standard_normal((T, stories))
    x[..., ON] = STRENGTH
    x[0, :, FACT], x[0, :, MARK] = STRENGTH * fact, STRENGTH
    W, V, P = np.zeros((3, units, units), dtype)
    W[FACT, FACT], P[MARK, ON] = memory.keeps, memory.sharpness
    V[FACT, FACT] = memory.slots is not None
    places = 1 + np.arange(T) % slots
    write = (np.arange(slots + 1) == places[:, None]).astype(dtype)
    arrays = {"x": x, "W": W, "V": V, "P": P, "first": np.zeros(units, dtype), "write": write}
    return recurrent_gpt.make(arrays), fact


def _known(data: Dataset, memory: str) -> DataArray:
    return data["known"].sel(memory=memory, solver="newton").transpose("step", "seed")


def facts(data: Dataset) -> dict[str, Any]:
    found: dict[str, Any] = {"T": int(data["step"].size), "solved": int(data["length"].max())}
    for memory in map(str, data["memory"].values):
        known = _known(data, memory).mean("seed").values
        found[f"{memory}.last"] = float(known[-(len(known) // 4) :].mean())
        lost = np.flatnonzero(_smooth(known) < 0.75)
        found[f"{memory}.until"] = int(lost[0]) if lost.size else len(known)
    for solver in SOLVERS:
        counts = converged(data, "iterations").sel(solver=solver)
        found[solver] = [float(counts.min()), float(counts.max())]
    return found


def _smooth(known: Array) -> Array:
    """Return means over eight steps from each step on."""
    return np.convolve(known, np.full(OVER, 1 / OVER), "valid")


def draw(pyplot: Any, data: Dataset) -> Any:
    figure, ax = pyplot.subplots(figsize=(7.4, 3.6))
    looks = series(map(str, data["memory"].values))
    steps = 1 + np.arange(data["step"].size - (OVER - 1))
    shown = np.unique(np.geomspace(1, len(steps), 14).round().astype(int)) - 1
    for memory, look in looks.items():
        known = _known(data, memory)
        known = known[: len(steps)].copy(data=np.apply_along_axis(_smooth, 0, known.values)).isel(step=shown)
        band(ax, steps[shown], known, "seed", memory, **look)
    level(ax, 0.5, "chance", "left")
    ax.set(
        xscale="log",
        xlabel=f"step (means of {OVER} from there on)",
        ylabel="share of stories whose fact is known",
        ylim=(0.4, 1.02),
    )
    outside_legend(figure, pyplot, looks.values())
    return figure


def says(data: Dataset) -> str:
    f, names = facts(data), [str(memory) for memory in data["memory"].values]
    best, worst = (pick(names, key=lambda name: f[f"{name}.last"]) for pick in (max, min))
    return (
        f"What is appended to a list is not forgotten, but by lists that end: in the last quarter of {f['T']} steps "
        f"the fact is known in {f[f'{best}.last']:.0%} of the stories by '{best}', and in {f[f'{worst}.last']:.0%} by "
        f"'{worst}'. A unit that holds its sign is turned over by noise, a list of the last entries lives on copies "
        "of what it found, and a vague search is diluted by what has come since."
    )


def tables(data: Dataset) -> list[Table]:
    f = facts(data)
    rows = [[name, f"{f[f'{name}.last']:.2f}", str(f[f"{name}.until"])] for name in map(str, data["memory"].values)]
    return [Table("Share of stories", ["memory", "known in the last quarter", "steps until 75 %"], rows)]


STUDY = study_of(
    __name__,
    name="planted",
    question="How long is a fact known that was read once, by the kind of memory?",
    dims=("memory", "seed", "solver"),
    curves={"known": ("step",)},
    pictures=(Picture("known", draw, says),),
)

"""M2RNN (Mishra et al., arXiv 2603.14360): a row of its state tracks words of S3, and what solvers make of that."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from itertools import permutations
from typing import TYPE_CHECKING, Any

import numpy as np

import recsolve as rs
from recsolve.base.arrays import Array
from recsolve.studies.compare.measure import loop, lyapunov, measured
from recsolve.studies.draw.drawing import band, converged, powers_of_two
from recsolve.studies.draw.series import outside_legend, series
from recsolve.studies.draw.style import line_arguments
from recsolve.studies.registry import Picture, Table, study_of
from recsolve.studies.store.records import Point, Row, product
from recsolve.studies.systems import m2rnn

if TYPE_CHECKING:
    from xarray import DataArray, Dataset

STATES = list(permutations(range(3)))
SWAP, CYCLE, RESET = 0, 1, 2  # letters: two that generate S3, and one that forgets
_GENERATORS = ((1, 0, 2), (1, 2, 0))
SOLVERS = ("newton", "jacobi")


@dataclass(frozen=True)
class Config:
    """``sharpness`` of the units, shares of ``resets`` among the letters."""

    sharpness: tuple[float, ...] = (2.0, 3.0, 4.0, 6.0, 8.0, 16.0)
    resets: tuple[float, ...] = (0.0, 0.1)
    lengths: tuple[int, ...] = (64, 128, 256, 512)
    solved: float = 8.0
    seeds: int = 3


TINY = Config(sharpness=(2.0, 8.0), lengths=(32, 64), seeds=2)
FULL = Config(lengths=tuple(2**k for k in range(6, 13)), seeds=10)


def grid(config: Config) -> Iterator[Point]:
    """Yield words of all lengths for the sharpness at which they are solved, and the longest for all others."""
    shared = {"reset": config.resets, "seed": range(config.seeds), "dtype": "float64"}
    yield from product(T=config.lengths, sharpness=config.solved, **shared)
    others = tuple(beta for beta in config.sharpness if beta != config.solved)
    yield from product(T=config.lengths[-1], sharpness=others, **shared)


def run(*, T: int, sharpness: float, reset: float, seed: int, dtype: str) -> list[Row]:
    """Return the share of states that are those of the word, and iterations."""
    letters = np.random.default_rng(seed).choice(3, T, p=[(1 - reset) / 2, (1 - reset) / 2, reset])
    rec = tracking(letters, sharpness, dtype)
    states = loop(rec)
    right = float((decoded(states) == words(letters)).mean())
    run = np.diff(np.flatnonzero(np.concatenate([[True], letters == RESET, [True]]))).max()
    shared = {"right": right, "exponent": lyapunov(rec, states), "longest": int(run)}
    return [{**shared, **measured(rec, solver, states)} for solver in SOLVERS]


def after(state: int, letter: int) -> int:
    """Return the state that a letter leads to."""
    if letter == RESET:
        return 0
    return STATES.index(tuple(STATES[state][i] for i in _GENERATORS[letter]))


def words(letters: Array) -> Array:
    """Return the states of a word, from the identity on."""
    states = [0]
    for letter in letters:
        states.append(after(states[-1], int(letter)))
    return np.array(states[1:])


_PAIRS = [(state, letter) for state in range(len(STATES)) for letter in range(3)]
# [state, pair]: 1 where the pair of a state before and its letter leads to the state.
_LEADS = np.array([[after(*pair) == state for pair in _PAIRS] for state in range(len(STATES))], dtype=float)
_OF = np.array([state for state, _ in _PAIRS])


def tracking(letters: Array, sharpness: float, dtype: str) -> rs.Recurrence:
    """Return an M2RNN of one row and no forgetting, f = 0, whose units are pairs of a state and the letter read in it.

    A unit is near 1 where both are there: tanh(b (a + d - 3/2)), a the sum of (1 + h) / 2 over the pairs that lead to
    its state, d = 1 for its letter, b the sharpness; else it is near -1.
    """
    T, V = len(letters), len(_PAIRS)
    of = _LEADS[_OF]  # [unit, pair]
    here = letters[:, None] == np.array([letter for _, letter in _PAIRS])
    drive = sharpness * (of.sum(axis=1) / 2 + here - 1.5)
    ones = np.ones((T, 1, 1, 1), dtype)
    arrays = {
        "q": ones,
        "k": ones,
        "v": drive[:, None, None].astype(dtype),
        "f": np.zeros((T, 1, 1), dtype),
        "W": (sharpness / 2 * of.T)[None].astype(dtype),
    }
    start = np.where(np.arange(V) == _PAIRS.index((0, RESET)), 1.0, -1.0) * np.tanh(sharpness / 2)
    rec = m2rnn.make(arrays)
    return rec.window(0, T, start.reshape(rec.initial.shape).astype(dtype))


def decoded(states: Array) -> Array:
    """Return the state that the units lead to."""
    found: Array = ((1 + states.reshape(len(states), -1)) @ _LEADS.T).argmax(axis=1)
    return found


def _over(data: Dataset, reset: float, along: str, solver: str, name: str) -> DataArray:
    """Return a variable against sharpness at the largest T, or against T at the sharpness of all lengths."""
    part = data.sel(reset=reset, solver=solver)
    if along == "sharpness":
        part = part.isel(T=-1)
    else:
        full = part["right"].notnull().all(["T", "seed"])
        part = part.isel(sharpness=int(np.flatnonzero(full)[0]))
    values = converged(part, name) if name == "iterations" else part[name]
    return values.transpose(along, "seed")


def facts(data: Dataset) -> dict[str, Any]:
    """Return what is right, exponents and iterations, by sharpness and by length."""
    found: dict[str, Any] = {name: [float(x) for x in data[name].values] for name in ("sharpness", "T", "reset")}
    for reset in found["reset"]:
        for name in ("right", "exponent"):
            middle = _over(data, reset, "sharpness", "newton", name).median("seed")
            found[f"{reset:g}.{name}"] = [float(x) for x in middle]
        found[f"{reset:g}.longest"] = float(_over(data, reset, "T", "newton", "longest").isel(T=-1).median())
        for solver in SOLVERS:
            for along in ("sharpness", "T"):
                counts = _over(data, reset, along, solver, "iterations").median("seed", skipna=False)
                found[f"{reset:g}.{solver}.{along}"] = [float(n) for n in counts]
    return found


def draw(pyplot: Any, data: Dataset) -> Any:
    """Draw what is right and iterations against sharpness, and iterations against length."""
    figure, axes = pyplot.subplots(1, 3, figsize=(12, 3.5))
    resets, T, beta = (data[name].values for name in ("reset", "T", "sharpness"))
    names = {float(reset): f"{100 * reset:.0f} % of the letters forget" for reset in resets}
    looks = series(names.values())
    for reset, name in names.items():
        band(axes[0], beta, 100 * _over(data, reset, "sharpness", "newton", "right"), "seed", name, **looks[name])
        for solver in SOLVERS:
            marks = {key: line_arguments(solver)[key] for key in ("marker", "markersize", "markerfacecolor")}
            look = {**looks[name], **marks}
            band(axes[1], beta, _over(data, reset, "sharpness", solver, "iterations"), "seed", solver, **look)
            band(axes[2], T, _over(data, reset, "T", solver, "iterations"), "seed", solver, **look)
    axes[0].set(ylabel=f"states that are right, %, T = {T[-1]}", ylim=(0, 105))
    axes[1].set(yscale="log", ylabel=f"iterations, T = {T[-1]}")
    for ax in axes[:2]:
        ax.set(xscale="log", xlabel="sharpness of the units")
        powers_of_two(ax.xaxis, beta[np.log2(beta) % 1 == 0])
    axes[2].set(xscale="log", yscale="log", xlabel="T", ylabel="iterations where states are right")
    powers_of_two(axes[2].xaxis, T)
    kinds = [{**line_arguments(s), "color": "0.3", "linestyle": "none", "label": s} for s in SOLVERS]
    outside_legend(figure, pyplot, [*looks.values(), *kinds])
    return figure


def says(data: Dataset) -> str:
    """Say what tracks, and what it costs."""
    f = facts(data)
    none, some = f["reset"][0], f["reset"][-1]
    newton, right = f[f"{none:g}.newton.sharpness"][-1], f[f"{none:g}.right"][-1]
    return (
        f"What tracks words of a group is not solved in parallel: at T = {f['T'][-1]:.0f} the sharpest units have "
        f"{right:.0%} of the states right, and Newton takes {newton:.0f} iterations, although the largest exponent is "
        f"{f[f'{none:g}.exponent'][-1]:.1f}. Units that saturate contract what is near, and tell nothing of what is "
        f"not. Where some letters forget, {f[f'{some:g}.newton.T'][-1]:.0f} iterations are enough; permutations have a "
        "scan, which takes one pass."
    )


def tables(data: Dataset) -> list[Table]:
    """Return medians by sharpness."""
    f = facts(data)
    rows = [
        [f"{100 * reset:.0f} %", f"{beta:g}", f"{f[f'{reset:g}.right'][i]:.0%}", f"{f[f'{reset:g}.exponent'][i]:.2f}"]
        + [f"{f[f'{reset:g}.{solver}.sharpness'][i]:.0f}" for solver in SOLVERS]
        for reset in f["reset"]
        for i, beta in enumerate(f["sharpness"])
    ]
    head = ["letters that forget", "sharpness", "right", "largest exponent", *SOLVERS]
    return [Table(f"Medians at T = {f['T'][-1]:.0f}", head, rows)]


STUDY = study_of(
    __name__,
    name="state_tracking",
    question="Can a network whose state is a matrix track words of a group, and is it solved in parallel then?",
    dims=("reset", "sharpness", "T", "seed", "solver"),
    pictures=(Picture("words", draw, says),),
)

"""ConvS5 beside ConvLSTM (arXiv 2310.19694): what it is worth that states do not couple between the points."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

import recsolve as rs
from recsolve.base.arrays import Array
from recsolve.studies.compare.measure import distance, timed
from recsolve.studies.draw.drawing import CONVERGED, converged, powers_of_two, times
from recsolve.studies.draw.series import outside_legend, series
from recsolve.studies.registry import Picture, Table, study_of
from recsolve.studies.store.records import Point, Row, product
from recsolve.studies.systems import convs5
from recsolve.studies.systems.system import get

if TYPE_CHECKING:
    from xarray import Dataset

SCAN, LINEAR, NEWTON, LOOP = "ConvS5, scan", "ConvS5, loop", "ConvLSTM, newton", "ConvLSTM, loop"
_LOOKS = series((LOOP, NEWTON, LINEAR, SCAN))


@dataclass(frozen=True)
class Config:
    """Pictures of ``side`` x ``side`` points with ``channels`` channels, and as many states at each point."""

    lengths: tuple[int, ...] = (16, 64, 256, 1024)
    side: int = 8
    channels: int = 4
    gain: float = 0.5
    dtype: str = "float32"
    repeats: int = 5
    enough: float = 1.0
    seed: int = 0


TINY = Config(lengths=(8, 32), side=4, channels=2, repeats=2, enough=0.02)
FULL = Config(lengths=tuple(2**k for k in range(4, 13)), side=16, channels=16, repeats=15, enough=20.0)


def grid(config: Config) -> Iterator[Point]:
    yield from product(
        T=config.lengths, side=config.side, channels=config.channels, gain=config.gain, repeats=config.repeats,
        enough=config.enough, seed=config.seed, dtype=config.dtype,
    )  # fmt: skip


def run(
    *, T: int, side: int, channels: int, gain: float, repeats: int, enough: float, seed: int, dtype: str
) -> list[Row]:
    config = convs5.Config(
        length=T, height=side, width=side, channels=channels, states=channels, gain=gain, seed=seed, dtype=dtype
    )
    s5, lstm = (get(name).build(**vars(config)) for name in ("convs5", "convlstm"))

    def solved(rec: rs.Recurrence, method: str) -> Array:
        return np.asarray(rs.solve(rec, method=method).output)

    runs: dict[str, tuple[Callable[[], Array], str]] = {
        SCAN: (lambda: s5.output(convs5.scan(s5)), LINEAR),
        LINEAR: (lambda: solved(s5, "sequential"), LINEAR),
        NEWTON: (lambda: solved(lstm, "newton"), LOOP),
        LOOP: (lambda: solved(lstm, "sequential"), LOOP),
    }
    found = {name: made() for name, (made, _) in runs.items()}
    return [
        {
            "solver": name,
            "status": CONVERGED,
            "error": distance(found[name], found[like]) / float(abs(found[like]).max()),
            "iterations": rs.solve(lstm, method="newton").nit if name == NEWTON else 0,
            **timed(made, repeats, enough),
        }
        for name, (made, like) in runs.items()
    ]


def facts(data: Dataset) -> dict[str, Any]:
    seconds, T = converged(data, "seconds").isel(seed=0), data["T"].values
    found: dict[str, Any] = {"error": float(data["error"].max()), "T": int(T[-1])}
    for name in (SCAN, LINEAR, NEWTON):
        ratio = (seconds.sel(solver=LOOP) / seconds.sel(solver=name)).values
        found[name], found[f"{name}, shortest"] = float(ratio[-1]), float(ratio[0])
    found["iterations"] = int(data["iterations"].sel(solver=NEWTON).max())
    return found


def draw_times(pyplot: Any, data: Dataset) -> Any:
    figure, ax = pyplot.subplots(figsize=(6.4, 3.4))
    T = data["T"].values
    for name, look in _LOOKS.items():
        part = data.sel(solver=name).isel(seed=0)
        ax.plot(T, 1e3 * part["seconds"], **look)
        ax.fill_between(T, 1e3 * part["seconds_low"], 1e3 * part["seconds_high"], color=look["color"], alpha=0.15)
    ax.set(xscale="log", yscale="log", xlabel="T", ylabel="milliseconds, outputs included")
    powers_of_two(ax.xaxis, T)
    outside_legend(figure, pyplot, _LOOKS.values())
    return figure


def says_times(data: Dataset) -> str:
    f = facts(data)
    return (
        f"ConvS5 takes {times(1 / f[SCAN])} the time of ConvLSTM's loop by its scan, at T = {f['T']} and equal "
        "channels (the paper reports a third, for training on GPUs). Most of it is that its convolutions stand outside "
        f"the recurrence, all steps in one product: {times(1 / f[LINEAR])} even by a loop. Newton's method on "
        f"ConvLSTM takes {times(1 / f[NEWTON])} the time of its loop."
    )


def tables(data: Dataset) -> list[Table]:
    T = data["T"].values
    rows = [
        [name, *(f"{1e3 * x:.3g}" for x in data["seconds"].sel(solver=name).isel(seed=0).values)] for name in _LOOKS
    ]
    return [Table("Milliseconds by T", ["", *(str(t) for t in T)], rows)]


STUDY = study_of(
    __name__,
    name="paper/convssm",
    question="How much faster is a recurrence on pictures whose points do not couple?",
    dims=("T", "seed", "solver"),
    pictures=(Picture("times", draw_times, says_times),),
    alone=True,
)

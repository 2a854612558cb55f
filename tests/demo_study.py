"""A study of powers for the tests of the machinery, in a file that worker processes can import."""

import os
import time
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from recsolve.studies.draw.drawing import converged, line_arguments
from recsolve.studies.registry import Picture, Study, Table


@dataclass(frozen=True)
class Config:
    log: str = ""  # a file that every run adds a line to
    bases: tuple[float, ...] = (0.5, 2.0, 3.0)
    seeds: int = 2
    bad: float = 0.0  # the base whose runs raise
    pause: float = 0.0
    deadly: float = 0.0  # the base whose runs end the process


def grid(config):
    for base in config.bases:
        for seed in range(config.seeds):
            yield {"base": base, "seed": seed, "dtype": "float64", "log": config.log, "bad": config.bad,
                   "pause": config.pause, "deadly": config.deadly}  # fmt: skip


def run(*, base, seed, dtype, log, bad, pause, deadly):
    if log:
        with Path(log).open("a") as file:
            file.write(f"{base} {seed}\n")
    time.sleep(pause)
    if base == deadly:
        os._exit(1)
    if base == bad:
        raise ArithmeticError(f"no powers of {base}")
    powers = [float(base**k) for k in range(seed + 2)]
    shared = {"powers": powers, "nothing": float("nan"), "count": np.int64(seed)}
    return [
        {"solver": "newton", "status": "converged", "value": base, **shared},
        {"solver": "jacobi", "status": "maxiter", "value": base**2, **shared},
    ]


def facts(data):
    return {"largest": float(np.nanmax(converged(data, "value"))), "failed": int((data["status"] == "failed").sum())}


def draw(pyplot, data):
    figure, axes = pyplot.subplots()
    for solver in ("newton", "jacobi"):
        y = converged(data, "value").sel(solver=solver, seed=0)
        axes.plot(data["base"], y, label=solver, **line_arguments(solver))
    return figure


def says(data):
    return f"The largest value is {facts(data)['largest']:g}, which is more than 1 & less than 1e9."


STUDY = Study(
    name="paper/demo",
    question="What are powers?",
    quick=Config(),
    full=Config(bases=(0.5, 2.0, 3.0, 4.0), seeds=5),
    tiny=Config(seeds=1),
    grid=grid,
    run=run,
    dims=("base", "seed", "solver"),
    curves={"powers": ("exponent",)},
    facts=facts,
    pictures=(Picture("values", draw, says),),
    tables=lambda data: [Table("values", ["base"], [[f"{base:g}"] for base in data["base"].values])],
)

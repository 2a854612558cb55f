"""Parallel MCMC (Zoltowski et al., arXiv 2508.18413): Newton on chains of MALA and HMC against the step size."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from recsolve.studies.compare.measure import loop, lyapunov, measured
from recsolve.studies.draw.drawing import converged, family
from recsolve.studies.draw.series import outside_legend, series
from recsolve.studies.registry import Picture, Table, study_of
from recsolve.studies.store.records import Point, Row, product
from recsolve.studies.systems.system import get

if TYPE_CHECKING:
    from xarray import Dataset

CHAINS = {
    "mala_gaussian": "MALA, Gaussian",
    "mala_wells": "MALA, double wells",
    "hmc_gaussian": "HMC, Gaussian",
    "hmc_wells": "HMC, double wells",
}
SOLVERS = ("newton", "clipped_newton", "jacobi")


@dataclass(frozen=True)
class Config:
    steps: tuple[float, ...] = (0.01, 0.03, 0.1, 0.2, 0.4, 0.8)
    T: int = 512
    width: int = 4
    seeds: int = 3


TINY = Config(steps=(0.03, 0.4), T=96, width=2, seeds=1)
FULL = Config(steps=tuple(round(float(e), 4) for e in np.geomspace(0.003, 1.6, 19)), T=8192, width=16, seeds=10)


def grid(config: Config) -> Iterator[Point]:
    return product(
        chain=tuple(CHAINS), step=config.steps, seed=range(config.seeds), T=config.T, width=config.width,
        dtype="float64",
    )  # fmt: skip


def run(*, chain: str, step: float, seed: int, T: int, width: int, dtype: str) -> list[Row]:
    rec = get(chain).build(length=T, chains=1, width=width, step=step, seed=seed, dtype=dtype)
    truth = loop(rec)
    moved = (truth != np.concatenate([rec.initial[None], truth[:-1]])).any(axis=-1)
    found = {"length": T, "accepted": float(moved.mean()), "exponent": lyapunov(rec, truth)}
    return [{**found, **measured(rec, solver, truth)} for solver in SOLVERS]


def facts(data: Dataset) -> dict[str, Any]:
    found: dict[str, Any] = {"length": int(data["length"].max()), "steps": [float(e) for e in data["step"].values]}
    for chain in CHAINS:
        for solver in SOLVERS:
            counts = converged(data, "iterations").sel(chain=chain, solver=solver).median("seed", skipna=False)
            found[f"{chain}.{solver}"] = [float(x) for x in counts.values]
        for name in ("accepted", "exponent"):
            found[f"{chain}.{name}"] = [float(x) for x in data[name].sel(chain=chain, solver="newton").median("seed")]
    return found


def draw(pyplot: Any, data: Dataset) -> Any:
    figure, axes = pyplot.subplots(1, 3, figsize=(10.5, 3.2))
    looks = {name: {**look, "label": CHAINS[name]} for name, look in series(CHAINS).items()}
    newton = data.sel(solver="newton")
    for ax, values, label in (
        (axes[0], converged(newton, "iterations"), "iterations of Newton"),
        (axes[1], newton["exponent"], "largest exponent (below 0: contracts)"),
        (axes[2], newton["accepted"], "share of steps accepted"),
    ):
        family(ax, values, "step", "chain", looks)
        ax.set(xscale="log", xlabel="step size", ylabel=label)
    axes[0].set_yscale("log")
    axes[1].axhline(0.0, color="0.4", linewidth=0.8, linestyle=":", zorder=0)
    outside_legend(figure, pyplot, looks.values())
    return figure


def says(data: Dataset) -> str:
    f = facts(data)
    points = [
        (chain, x, n) for chain in CHAINS for x, n in zip(f[f"{chain}.exponent"], f[f"{chain}.newton"], strict=True)
    ]
    hard = sum(x < 0 and n > f["length"] / 4 for _, x, n in points)
    most = {chain: max(f[f"{chain}.newton"]) for chain in CHAINS}
    low, high = (pick(most, key=most.__getitem__) for pick in (min, max))
    return (
        f"What is sampled decides: Newton takes at most {most[low]:.0f} iterations on {CHAINS[low]}, and up to "
        f"{most[high]:.0f} on {CHAINS[high]}. To contract along the chain is not enough: {hard} of the {len(points)} "
        "points do so and take more than a quarter of T."
    )


def tables(data: Dataset) -> list[Table]:
    f = facts(data)
    head = ["chain", "solver", *(f"step {e:g}" for e in f["steps"])]
    rows = [[CHAINS[c], s, *(f"{x:.0f}" for x in f[f"{c}.{s}"])] for c in CHAINS for s in SOLVERS]
    return [Table("Median iterations", head, rows)]


STUDY = study_of(
    __name__,
    name="mala",
    question="How do the iterations of a chain solved in parallel depend on its step size?",
    dims=("chain", "step", "seed", "solver"),
    pictures=(Picture("steps", draw, says),),
)

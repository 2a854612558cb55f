"""Parallel MCMC (Zoltowski et al., arXiv 2508.18413): Newton on chains of MALA and HMC against the step size."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from recsolve.studies.compare.measure import loop, lyapunov, measured
from recsolve.studies.draw.drawing import converged, family, listed, span
from recsolve.studies.draw.series import level, outside_legend, series
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
    for ax, values, title in (
        (axes[0], converged(newton, "iterations"), "iterations of Newton"),
        (axes[1], newton["exponent"], "largest Lyapunov exponent"),
        (axes[2], newton["accepted"], "share of steps accepted"),
    ):
        family(ax, values, "step", "chain", looks)
        ax.set(xscale="log", title=title, xlabel="step size")
    axes[0].set_yscale("log")
    level(axes[1], 0.0, "contracts below", side="left")
    outside_legend(figure, pyplot, looks.values())
    return figure


def says(data: Dataset) -> str:
    f = facts(data)
    words, clipped, hard = [], [], 0
    for chain, label in CHAINS.items():
        counts, exponents = f[f"{chain}.newton"], f[f"{chain}.exponent"]
        least, most = int(np.argmin(counts)), int(np.argmax(counts))
        words.append(
            f"{label}: {counts[least]:.0f} at step {f['steps'][least]:g} (exponent {exponents[least]:.2f}, "
            f"{100 * f[f'{chain}.accepted'][least]:.0f}% accepted), {counts[most]:.0f} at {f['steps'][most]:g} "
            f"({exponents[most]:.2f}, {100 * f[f'{chain}.accepted'][most]:.0f}%)."
        )
        ratios = np.divide(f[f"{chain}.clipped_newton"], counts)
        clipped.append(f"{label} {span(ratios)}")
        hard += sum(x < 0 and n > f["length"] / 4 for x, n in zip(exponents, counts, strict=True))
    return (
        f"Least and most median iterations of Newton over the step sizes. {' '.join(words)} With the Jacobian clipped "
        f"the counts are these multiples: {listed(clipped)}. To contract along the chain is not enough: {hard} of the "
        f"{len(CHAINS) * len(f['steps'])} points do so and take more than T / 4 iterations."
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

"""GTF-DEER (Hess et al., arXiv 2605.12683): how much forcing makes a chaotic network solvable in parallel."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from recsolve.studies.compare.measure import loop, lyapunov, measured
from recsolve.studies.draw.drawing import converged, family
from recsolve.studies.draw.series import level, outside_legend, series
from recsolve.studies.registry import Picture, Table, study_of
from recsolve.studies.store.records import Point, Row, product
from recsolve.studies.systems.system import get

if TYPE_CHECKING:
    from xarray import Dataset

RUNS = {
    "newton": "Newton from f(h[0], u)",
    "newton, data": "Newton from the data",
    "jacobi": "Jacobi from f(h[0], u)",
}


@dataclass(frozen=True)
class Config:
    """Clipped shallow PLRNNs of this gain; the data are their own trajectories with noise of deviation ``noise``."""

    alphas: tuple[float, ...] = (0.0, 0.1, 0.2, 0.3, 0.4, 0.5, 0.7, 0.9)
    T: int = 256
    units: int = 24
    gain: float = 3.0
    noise: float = 0.1
    seeds: int = 3


TINY = Config(alphas=(0.0, 0.5, 0.9), T=64, units=16, seeds=2)
FULL = Config(alphas=tuple(round(0.05 * k, 2) for k in range(20)), T=4096, units=50, seeds=10)


def grid(config: Config) -> Iterator[Point]:
    return product(
        alpha=config.alphas, seed=range(config.seeds), T=config.T, units=config.units, gain=config.gain,
        noise=config.noise, dtype="float64",
    )  # fmt: skip


def run(*, alpha: float, seed: int, T: int, units: int, gain: float, noise: float, dtype: str) -> list[Row]:
    given: dict[str, Any] = {"length": T, "units": units, "gain": gain, "noise": noise, "seed": seed, "dtype": dtype}
    rec = get("gtf_deer").build(alpha=alpha, **given)
    truth = loop(rec)
    data = rec.drive["d"]  # type: ignore[attr-defined]
    ahead = np.concatenate([data[1:], truth[-1:]])  # d[t + 1] is what is wanted of z[t]; the last is not in the data
    exponent = lyapunov(rec, truth)
    guesses = {"newton": None, "newton, data": ahead, "jacobi": None}
    return [
        {"length": T, "exponent": exponent, **measured(rec, name.split(",")[0], truth, name=name, guess=guess)}
        for name, guess in guesses.items()
    ]


def facts(data: Dataset) -> dict[str, Any]:
    alphas = [float(a) for a in data["alpha"].values]
    exponents = data["exponent"].sel(solver="newton").transpose("alpha", "seed").values
    found: dict[str, Any] = {"alphas": alphas, "exponent": [float(x) for x in np.median(exponents, axis=1)]}
    found["T"] = int(data["length"].max())
    free = exponents[0]
    found["free"], found["needed"] = [float(x) for x in free], [float(1 - np.exp(-max(x, 0.0))) for x in free]
    drop = exponents - np.log1p(-np.array(alphas))[:, None] - free  # 0 if forcing only scaled the Jacobian
    found["off_rule"] = float(np.abs(drop).max())
    for name in RUNS:
        counts = converged(data, "iterations").sel(solver=name).median("seed", skipna=False)
        found[name] = [float(x) for x in counts.values]
    return found


def draw(pyplot: Any, data: Dataset) -> Any:
    figure, (left, right) = pyplot.subplots(1, 2, figsize=(9, 3.3))
    looks = {name: {**look, "label": RUNS[name]} for name, look in series(RUNS).items()}
    family(left, converged(data, "iterations"), "alpha", "solver", looks)
    left.set(yscale="log", xlabel="teacher forcing alpha", ylabel="iterations")
    alphas = data["alpha"].values
    exponents = data["exponent"].sel(solver="newton").transpose("alpha", "seed").values
    rule = {"color": "0.5", "linewidth": 0.9, "linestyle": ":", "label": "free + log(1 - alpha)"}
    own = {"color": "0.35", "marker": "x", "markersize": 5, "label": "largest exponent, a line per seed"}
    for seed in range(exponents.shape[1]):
        right.plot(alphas, exponents[:, seed], **own)
        right.plot(alphas, exponents[0, seed] + np.log1p(-alphas), **rule)
    level(right, 0.0, "contracts below")
    right.set(xlabel="teacher forcing alpha", ylabel="largest Lyapunov exponent")
    outside_legend(figure, pyplot, [*looks.values(), own, rule])
    return figure


def says(data: Dataset) -> str:
    f = facts(data)
    a, few = f["alphas"], f["T"] / 16
    contracts = next((i for i, x in enumerate(f["exponent"]) if x < 0), -1)
    fast = next((i for i, x in enumerate(f["newton"]) if x <= few), -1)
    enough = "To contract is not enough" if fast > contracts else "What contracts is solved at once"
    return (
        f"{enough}: the median exponent is negative from alpha = {a[contracts]:g} on, and Newton takes at most a "
        f"sixteenth of T from {a[fast]:g} on. The forced path is another than the free one: that forcing scales the "
        f"Jacobian by 1 - alpha is off by up to {f['off_rule']:.2f} in the exponent."
    )


def tables(data: Dataset) -> list[Table]:
    f = facts(data)
    columns = f["alphas"], f["exponent"], *(f[name] for name in RUNS)
    rows = [[f"{a:g}", f"{x:.2f}", *(f"{n:.0f}" for n in counts)] for a, x, *counts in zip(*columns, strict=True)]
    return [Table("Median over seeds", ["alpha", "exponent", *RUNS.values()], rows)]


STUDY = study_of(
    __name__,
    name="teacher_forcing",
    question="How much teacher forcing makes a chaotic network contract, and how many iterations does that save?",
    dims=("alpha", "seed", "solver"),
    pictures=(Picture("alphas", draw, says),),
)

"""ELK in miniature: Newton damped by a Kalman filter (Gonzalez et al., NeurIPS 2024, arXiv 2407.19115).

As in the paper's figures 4 and 7 (an autoregressive GRU, iterations over the damping) and 8 (Lorenz-96, error against
iteration). Our GRU is random where the paper's is trained.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

import recsolve as rs
from recsolve.base.arrays import Array
from recsolve.solvers import Elk, Method
from recsolve.studies.compare.measure import loop, measured
from recsolve.studies.draw.drawing import band, converged, counted, listed, span
from recsolve.studies.draw.series import ending, outside_legend
from recsolve.studies.draw.style import line_arguments
from recsolve.studies.problems.flows import system
from recsolve.studies.registry import Picture, Table, study_of
from recsolve.studies.store.records import Point, Row, product

if TYPE_CHECKING:
    from xarray import DataArray, Dataset

GRU, LORENZ = "autoregressive gru", "lorenz96"
NEWTON, QUASI, ELK, QUASI_ELK, ADAPTIVE = "newton", "quasi_newton", "elk", "quasi-elk", "elk, adaptive"
_HIGHEST = 1e6  # of errors that are drawn
ALIKE = {NEWTON: "newton", QUASI: "quasi_newton", ELK: "elk", QUASI_ELK: "levenberg_marquardt", ADAPTIVE: "auto"}
# The paper's settings: the length of its GRU, and the damping 1 / sigma^2 of ELK and quasi-ELK on it.
PUBLISHED = {"T": 10_000, ELK: 1e-6, QUASI_ELK: 1e-2}


@dataclass(frozen=True)
class Config:
    """A GRU of ``units`` that hears its own output, weights ~ N(0, gain^2 / units); Lorenz-96 with 8 variables."""

    dampings: tuple[float, ...] = (1e-6, 1e-4, 1e-3, 1e-2, 1e-1)
    gain: float = 4.0
    units: int = 3
    T: int = 150
    seeds: int = 3
    lorenz_T: int = 200
    lorenz_damping: float = 1e-2
    lorenz_iterations: int = 60
    lorenz_seeds: int = 2
    tol: float = 1e-8


FULL = Config(
    dampings=tuple(float(f"{10**k:.0e}") for k in np.arange(-10, 1.1, 0.5)), T=1000, seeds=10, lorenz_T=1000,
    lorenz_iterations=300, lorenz_seeds=5,
)  # fmt: skip
TINY = Config(dampings=(1e-4, 1e-1), T=60, seeds=1, lorenz_T=120, lorenz_iterations=40, lorenz_seeds=1)


def grid(config: Config) -> Iterator[Point]:
    for shared in product(
        problem=GRU, T=config.T, seed=range(config.seeds), gain=config.gain, units=config.units, tol=config.tol,
        maxiter=config.T + 2, dtype="float64",
    ):  # fmt: skip
        yield {**shared, "solvers": [NEWTON, QUASI, ADAPTIVE]}  # has no damping: holds along it
        yield from product(**shared, solvers=[ELK, QUASI_ELK], damping=config.dampings)
    yield from product(
        problem=LORENZ, T=config.lorenz_T, seed=range(config.lorenz_seeds), gain=0.0, units=8, tol=config.tol,
        maxiter=config.lorenz_iterations, solvers=[NEWTON, QUASI, ELK, QUASI_ELK], damping=config.lorenz_damping,
        dtype="float64",
    )  # fmt: skip


def run(
    *, problem: str, T: int, seed: int, gain: float, units: int, tol: float, maxiter: int, solvers: list[str],
    dtype: str, damping: float = 0.0,
) -> list[Row]:  # fmt: skip
    assert dtype == "float64", "these recurrences are in float64"
    rec = system("lorenz96", T, seed) if problem == LORENZ else autoregressive_gru(units, T, gain, seed)
    truth = loop(rec)
    rows = []
    for name in solvers:
        method = solver(name, damping)
        row = measured(rec, method, truth, name=name, tol=tol, maxiter=maxiter)
        if problem == LORENZ:
            row["typical"] = typical_errors(rec, method, truth, tol, maxiter)
        rows.append(row)
    return rows


def typical_errors(rec: rs.Recurrence, method: str | Method, truth: Array, tol: float, maxiter: int) -> list[float]:
    """Return the median error of every iterate: in chaos the largest is large until the end."""
    found: list[float] = []

    def watch(iterate: rs.IntermediateResult) -> None:
        with np.errstate(all="ignore"):
            found.append(float(np.median(np.abs(iterate.states - truth))))

    rs.solve(rec, method=method, tol=tol, maxiter=maxiter, callback=watch)
    return found


def solver(name: str, damping: float) -> str | Method:
    if name in (NEWTON, QUASI):
        return name
    if name == ADAPTIVE:
        return Elk()
    return Elk(damping=damping, approximation="diagonal" if name == QUASI_ELK else "none")


def autoregressive_gru(units: int, T: int, gain: float, seed: int) -> rs.Recurrence:
    """Return a GRU with random weights whose input is a projection of its state, and noise."""
    rng = np.random.default_rng(seed)
    W = gain * rng.standard_normal((3, units, units)) / np.sqrt(units)
    bias, into = 0.5 * rng.standard_normal((3, units)), rng.standard_normal((3, units))
    out = gain * rng.standard_normal(units) / np.sqrt(units)

    def step(h: Any, noise: Array) -> Any:
        y = (h * out).sum(-1)[..., None] + noise
        r, z, n = (h @ W[i].T + bias[i] for i in range(3))
        r, z = (1 / (1 + np.exp(-(x + y * w))) for x, w in ((r, into[0]), (z, into[1])))
        return (1 - z) * np.tanh(y * into[2] + r * n) + z * h

    noise = 0.1 * rng.standard_normal((T, 1))
    return rs.Recurrence.from_function(step, inputs=noise, initial=rng.standard_normal(units), structure="dense")


def _part(data: Dataset, problem: str) -> Dataset:
    """Return the part of the data that was run: one problem at its length, dampings and seeds."""
    part = data.sel(problem=problem)
    for dim in ("T", "seed"):
        part = part.dropna(dim, how="all", subset=["iterations"])
    damped = part["iterations"].sel(solver=ELK).dropna("damping", how="all")["damping"]
    return part.sel(damping=damped.values).squeeze("T")


def _gru(data: Dataset, name: str) -> DataArray:
    """Return iterations by damping and seed; solvers without damping are the same at all."""
    return converged(_part(data, GRU).sel(solver=name), "iterations").transpose("damping", "seed")


def _curves(data: Dataset, name: str) -> DataArray:
    """Return the median error by iteration and seed on Lorenz-96."""
    return _part(data, LORENZ)["typical"].sel(solver=name).squeeze("damping").transpose("iteration", "seed")


def facts(data: Dataset) -> dict[str, Any]:
    found: dict[str, Any] = {}
    for name in (NEWTON, QUASI, ADAPTIVE):
        found[f"gru.{name}"] = float(_gru(data, name).isel(damping=0).median(skipna=False))
    for name in (ELK, QUASI_ELK):
        counts = _gru(data, name).median("seed", skipna=False)
        best = int(np.nanargmin(counts.values))
        found[f"gru.{name}"], found[f"gru.{name}.damping"] = float(counts[best]), float(counts["damping"][best])
    lorenz = _part(data, LORENZ).squeeze("damping")
    for name in (NEWTON, QUASI, ELK, QUASI_ELK):
        curves = _curves(data, name).values
        ran = lorenz["status"].sel(solver=name).values
        found[f"lorenz.{name}.status"] = sorted({str(s) for s in ran if s})
        # The first iterate whose typical error is below 1e-3, where there is one for every seed.
        there = np.isfinite(curves) & (curves < 1e-3)
        found[f"lorenz.{name}.right_after"] = float(np.argmax(there, 0).max()) if there.any(0).all() else np.nan
        found[f"lorenz.{name}.lost"] = float(np.mean(~np.isfinite(curves) | (curves > 100)))
    found["lorenz.damping"] = float(lorenz["damping"])
    return found


def _looks() -> dict[str, dict[str, Any]]:
    return {name: {**line_arguments(alike), "label": name} for name, alike in ALIKE.items()}


def draw_damping(pyplot: Any, data: Dataset) -> Any:
    figure, ax = pyplot.subplots(figsize=(6.6, 3.6))
    looks = _looks()
    for i, name in enumerate((ELK, QUASI_ELK)):
        counts, look = _gru(data, name), looks[name]
        at = counts["damping"].values
        ax.plot(at, counts.median("seed", skipna=False), **look)
        for seed in counts.transpose("seed", "damping").values:  # points: bands of the two would hide each other
            ax.plot(
                at * 1.25 ** (2 * i - 1),
                seed,
                color=look["color"],
                marker=look["marker"],
                linestyle="none",
                markersize=9,
                alpha=0.7,
            )
    for name in (NEWTON, QUASI, ADAPTIVE):
        level = float(_gru(data, name).isel(damping=0).median(skipna=False))
        x = _gru(data, name)["damping"].values[[0, -1]]
        ax.plot(x, [level, level], **looks[name])
    ax.set(xscale="log", yscale="log", xlabel="damping lambda = 1 / sigma^2 (points: a seed each)")
    ax.set_ylabel("iterations to convergence")
    outside_legend(figure, pyplot, looks.values())
    return figure


def says_damping(data: Dataset) -> str:
    f, seeds = facts(data), counted(_part(data, GRU)["seed"].size, "seed")
    return (
        f"Damping saves little on an autoregressive GRU: in the median of {seeds} ELK takes {f[f'gru.{ELK}']:.0f} "
        f"iterations at the best of the dampings tried and {f[f'gru.{ADAPTIVE}']:.0f} where the damping adapts, Newton "
        f"{f[f'gru.{NEWTON}']:.0f}."
    )


def draw_lorenz(pyplot: Any, data: Dataset) -> Any:
    figure, ax = pyplot.subplots(figsize=(6.6, 3.6))
    looks = {name: look for name, look in _looks().items() if name != ADAPTIVE}
    for name, look in looks.items():
        curves = _curves(data, name)
        every = max(curves.sizes["iteration"] // 10, 1)
        x = np.arange(curves.sizes["iteration"])
        band(ax, x, curves, "seed", name, **{**look, "markevery": every})
        middle = curves.median("seed", skipna=False)
        ending(ax, x, middle.where(middle < _HIGHEST), "overflows")
    ax.set(yscale="log", xlabel="iteration", ylabel="median |h - loop|", ylim=(1e-10, _HIGHEST))
    outside_legend(figure, pyplot, looks.values())
    return figure


def says_lorenz(data: Dataset) -> str:
    f = facts(data)
    after = {name: f[f"lorenz.{name}.right_after"] for name in (NEWTON, QUASI, ELK, QUASI_ELK)}
    there = [f"{name} after {n:.0f} iterations" for name, n in after.items() if np.isfinite(n)]
    lost = {name: f[f"lorenz.{name}.lost"] for name, n in after.items() if not np.isfinite(n)}
    others = (
        f" {listed(list(lost))} do not: {min(lost.values()):.0%} and more of their iterates overflow or are far off"
    )
    return (
        f"On Lorenz-96 {listed(there)} {'comes' if len(there) == 1 else 'come'} within a thousandth of the loop."
        f"{others + '.' if lost else ''} A line ends where an iterate is not finite."
    )


def tables(data: Dataset) -> list[Table]:
    f = facts(data)
    rows = [
        [name, f"{PUBLISHED[name]:g}", f"{f[f'gru.{name}.damping']:g}", f"{f[f'gru.{name}']:.0f}"]
        for name in (ELK, QUASI_ELK)
    ]
    rows += [[name, "", "", f"{f[f'gru.{name}']:.0f}"] for name in (NEWTON, QUASI, ADAPTIVE)]
    head = [
        "solver",
        f"damping in the paper (T = {PUBLISHED['T']})",
        f"best here (T = {int(_part(data, GRU)['T'])})",
        "iterations here",
    ]
    lorenz = [
        [n, ", ".join(f[f"lorenz.{n}.status"]), span([f[f"lorenz.{n}.right_after"]])]
        for n in (NEWTON, QUASI, ELK, QUASI_ELK)
    ]
    return [
        Table("Damping on the autoregressive GRU", head, rows),
        Table("Lorenz-96, in a limited number of iterations", ["solver", "status", "within 1e-3 after"], lorenz),
    ]


STUDY = study_of(
    __name__,
    name="paper/elk",
    question="Where does damping by a Kalman filter, as in ELK, save what Newton loses?",
    dims=("problem", "T", "damping", "seed", "solver"),
    curves={"typical": ("iteration",)},
    pictures=(Picture("damping", draw_damping, says_damping), Picture("lorenz", draw_lorenz, says_lorenz)),
)

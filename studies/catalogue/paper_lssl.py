"""Linear state-space layers (arXiv 2110.13985): depth as Picard's iteration, a diagonal HiPPO, and other rates."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

import recsolve as rs
from recsolve.studies.compare.measure import distance, loop, measured
from recsolve.studies.draw.drawing import CONVERGED, band, converged
from recsolve.studies.draw.series import level, outside_legend, series
from recsolve.studies.draw.style import line_arguments
from recsolve.studies.registry import Picture, Table, study_of
from recsolve.studies.store.records import Point, Row, product
from recsolve.studies.systems import lssl

if TYPE_CHECKING:
    from xarray import DataArray, Dataset

DEPTH = "LSSL, a layer per iteration"
_LIKE = {"jacobi": "jacobi", "picard": "picard", DEPTH: "chord", "quasi_newton": "quasi_newton", "newton": "newton"}
EIGEN, DENSE = "through eigenvectors", "dense scan"
DEPTHS, DIAGONAL, RESAMPLED = "depth", "diagonal", "resampled"  # the kinds of points
ALPHAS = {"Euler, alpha = 0": 0.0, "bilinear, alpha = 1/2": 0.5, "backward, alpha = 1": 1.0}
KEPT = "bilinear, Delta as it was"
DELTA, SINES = 0.02, 6  # the step of the layer at its own rate, and of what the signal is made of


@dataclass(frozen=True)
class Config:
    """x' = (1 - g) x + g tanh(W x + u) to ``tol``, W ~ N(0, gain^2 / units); LegS with up to 64 states.

    A layer of 16 states reads a signal at ``rates`` times the rate for which it was made.
    """

    length: int = 512
    units: int = 8
    gain: float = 0.5
    steps: tuple[float, ...] = (1.0, 0.3, 0.1, 0.03, 0.01)
    tol: float = 1e-10
    seeds: int = 3
    states: tuple[int, ...] = (2, 4, 8, 12, 16, 20, 24, 32)
    rates: tuple[float, ...] = (0.25, 0.5, 1.0, 2.0, 4.0)


TINY = Config(length=128, steps=(1.0, 0.1), seeds=2, states=(4, 12, 32), rates=(0.5, 1.0, 2.0))
FULL = Config(
    length=4096, units=64, steps=(1.0, 0.3, 0.1, 0.03, 0.01, 0.003), seeds=10, states=(*Config.states, 48, 64)
)


def grid(config: Config) -> Iterator[Point]:
    shared = {"seed": range(config.seeds), "length": config.length, "dtype": "float64"}
    tanh = {"units": config.units, "gain": config.gain, "tol": config.tol}
    yield from product(kind=DEPTHS, g=config.steps, N=0, **tanh, **shared)
    yield from product(kind=DIAGONAL, g=0.0, N=config.states, **tanh, **shared)
    yield from product(kind=RESAMPLED, g=config.rates, N=16, **tanh, **shared)


def run(
    *, kind: str, g: float, N: int, seed: int, length: int, units: int, gain: float, tol: float, dtype: str
) -> list[Row]:
    assert dtype == "float64", "what is studied is the number of iterations, and what float64 holds"
    if kind == DIAGONAL:
        return _by_eigenvectors(N, seed, length)
    if kind == RESAMPLED:
        return _at_another_rate(g, N, seed, length)
    rec, layered = (relaxed(g, length, units, gain, seed, constant) for constant in (False, True))
    truth = loop(rec)
    rows = [measured(rec, name, truth, tol=tol) for name in ("jacobi", "picard", "quasi_newton", "newton")]
    rows.append(measured(layered, "newton", truth, name=DEPTH, tol=tol))
    return [{"T": length, **row} for row in rows]


def relaxed(g: float, length: int, units: int, gain: float, seed: int, constant: bool) -> rs.Recurrence:
    """Return x' = (1 - g) x + g tanh(W x + u), a step of x' = -x + tanh(W x + u); of J maybe the constant (1 - g) I."""
    rng = np.random.default_rng(seed)
    W, u = gain * units**-0.5 * rng.standard_normal((units, units)), rng.standard_normal((length, units))

    def step(x: Any, u: Any) -> Any:
        return (1 - g) * x + g * np.tanh(x @ W.T + u)

    def leak(x: Any, u: Any) -> Any:
        return np.full(x.shape, 1 - g)

    given = {"structure": "diagonal", "jacobian": leak} if constant else {"structure": "dense"}
    return rs.Recurrence.from_function(step, inputs=u, initial=np.zeros(units), **given)


def _by_eigenvectors(N: int, seed: int, length: int) -> list[Row]:
    """Solve LegS, bilinear with Delta = 0.01, by a scan of matrices, and by scans of its eigenvalues."""
    A, B = lssl.sampled(*lssl.legs(N), np.array(0.01), 0.5)
    u = B * np.random.default_rng(seed).standard_normal((length, 1))
    truth = loop(rs.Recurrence.from_function(lambda x, u: x @ A.T + u, inputs=u, initial=np.zeros(N)))
    values, V = np.linalg.eig(lssl.legs(N)[0])
    discrete = (1 + 0.005 * values) / (1 - 0.005 * values)
    with np.errstate(all="ignore"):
        z = rs.scan("affine", (discrete[None].astype(complex), np.linalg.solve(V, u.T).T.astype(complex)))
        found = {EIGEN: (z @ V.T).real, DENSE: rs.scan("affine", (A[None], u))}
    scale, condition = float(abs(truth).max()), float(np.linalg.cond(V))
    return [
        {"solver": name, "status": CONVERGED, "error": distance(x, truth) / scale, "condition": condition}
        for name, x in found.items()
    ]


def _at_another_rate(rate: float, N: int, seed: int, length: int) -> list[Row]:
    """Return how far the output is from that at the layer's own rate, at the times that both have."""
    random = np.random.default_rng(seed)
    C = random.standard_normal(N) * N**-0.5
    height, speed, phase = random.standard_normal(SINES), random.uniform(0.5, 3, SINES), random.uniform(0, 7, SINES)

    def output(rate: float, delta: float, alpha: float) -> tuple[Any, Any]:
        ticks = np.arange(1, round(length * rate) + 1)
        u = np.sin(speed * (DELTA / rate * ticks)[:, None] + phase) @ height
        A, B = lssl.sampled(*lssl.legs(N), np.array(delta), alpha)
        return ticks / rate, rs.scan("affine", (A[None], B * u[:, None])) @ C

    rows = []
    for name, alpha in {**ALPHAS, KEPT: 0.5}.items():
        (at, own), (times, other) = (
            output(1.0, DELTA, alpha),
            output(rate, DELTA / (1.0 if name == KEPT else rate), alpha),
        )
        known, places = np.isin(times, at), np.isin(at, times)
        error = float(np.linalg.norm(other[known] - own[places]) / np.linalg.norm(own[places]))
        rows.append({"solver": name, "status": CONVERGED, "error": error})
    return rows


def _counts(data: Dataset, solver: str) -> DataArray:
    ran = data["status"].sel(kind=DEPTHS, N=0, solver=solver) != ""
    return converged(data.sel(kind=DEPTHS, N=0, solver=solver), "iterations").isel(g=ran.any("seed").values)


def _errors(data: Dataset, name: str, variable: str = "error") -> DataArray:
    part = data.sel(kind=DIAGONAL, g=0.0, solver=name)
    return part[variable].isel(N=(part["status"] != "").any("seed").values)


def _moved(data: Dataset, name: str) -> DataArray:
    """Return errors at other rates, by rate and seed."""
    part = data["error"].sel(kind=RESAMPLED, solver=name).dropna("N", how="all").isel(N=0)
    return part.dropna("g", how="all").transpose("g", "seed")


def facts(data: Dataset) -> dict[str, Any]:
    found: dict[str, Any] = {"T": int(data["T"].max())}
    for solver in _LIKE:
        counts = _counts(data, solver)
        found[solver] = [float(x) for x in counts.median("seed", skipna=False).values]
        found[f"{solver}.g"] = [float(g) for g in counts["g"].values]
    for name in (EIGEN, DENSE):
        found[name] = [float(x) for x in _errors(data, name).max("seed").values]
    found["condition"] = [float(x) for x in _errors(data, EIGEN, "condition").max("seed").values]
    found["N"] = [int(n) for n in _errors(data, EIGEN)["N"].values]
    for name in (*ALPHAS, KEPT):
        moved = _moved(data, name)
        found[f"{name}.moved"] = [float(x) for x in moved.median("seed")]
        found["rates"] = [float(rate) for rate in moved["g"].values]
    return found


def draw_depth(pyplot: Any, data: Dataset) -> Any:
    figure, ax = pyplot.subplots(figsize=(6.4, 3.4))
    looks = {name: {**line_arguments(like), "label": name} for name, like in _LIKE.items()}
    for name, look in looks.items():
        counts = _counts(data, name)
        band(ax, counts["g"].values, counts, "seed", name, **look)
    ax.set(xscale="log", yscale="log", xlabel="g, the step in units of the time constant", ylabel="iterations")
    ax.invert_xaxis()
    outside_legend(figure, pyplot, looks.values())
    return figure


def says_depth(data: Dataset) -> str:
    f = facts(data)
    return (
        f"A stack of linear layers solves the nonlinear equation in at most {max(f[DEPTH]):.0f} layers for every step "
        "g: A is the leak (1 - g) I alone, and depth does not grow with the time constant. Jacobi, with no memory "
        f"inside a layer, takes up to {max(f['jacobi']):.0f}, and so does A = I, which is called Picard's elsewhere, "
        f"{max(f['picard']):.0f}: what the paper calls Picard's iteration is that of the leaky equation."
    )


def draw_diagonal(pyplot: Any, data: Dataset) -> Any:
    f, looks = facts(data), series((EIGEN, DENSE, "condition of the eigenvectors, times eps"))
    figure, ax = pyplot.subplots(figsize=(6.4, 3.4))
    curves = (f[EIGEN], f[DENSE], [c * np.finfo(float).eps for c in f["condition"]])
    for curve, look in zip(curves, looks.values(), strict=True):
        ax.plot(f["N"], np.maximum(curve, 1e-17), **look)  # what is exact is drawn there
    level(ax, 1.0, "nothing is right", side="left")
    ax.set(yscale="log", xlabel="states N of HiPPO-LegS", ylabel="error of x over max |x|, float64")
    outside_legend(figure, pyplot, looks.values())
    return figure


def says_diagonal(data: Dataset) -> str:
    f = facts(data)
    useless = [n for n, error in zip(f["N"], f[EIGEN], strict=True) if not error < 0.01]
    return (
        f"LegS has different eigenvalues, and yet no diagonal form in float64: at N = {f['N'][-1]} the eigenvectors "
        f"that are computed have a condition of {f['condition'][-1]:.0e}, and states found through them are wrong by "
        f"more than a hundredth from N = {useless[0] if useless else 'none'} on. The scan of matrices has an error of "
        f"at most {max(f[DENSE]):.0e}."
    )


def draw_resampled(pyplot: Any, data: Dataset) -> Any:
    figure, ax = pyplot.subplots(figsize=(6.8, 3.4))
    looks = series((*ALPHAS, KEPT))
    for name, look in looks.items():
        moved = _moved(data, name)
        moved = moved.isel(g=moved["g"].values != 1)  # where there is nothing to differ from
        band(ax, moved["g"].values, moved, "seed", name, **look)
    ax.set(xscale="log", yscale="log", xlabel="rate of sampling over the layer's own")
    ax.set_ylabel("change of the output over its size")
    rates = [rate for rate in facts(data)["rates"] if rate != 1]
    ax.set_xticks(rates, [f"{rate:g}" for rate in rates])
    ax.set_xticks([], minor=True)
    outside_legend(figure, pyplot, looks.values())
    return figure


def says_resampled(data: Dataset) -> str:
    f = facts(data)
    first, middle, _ = ALPHAS
    change = {name: f[f"{name}.moved"][0] for name in (first, middle, KEPT)}
    return (
        f"A layer made for one rate serves others if Delta is scaled with it: at {f['rates'][0]:g} times the rate the "
        f"output changes by {change[middle]:.2g} of its size by the bilinear rule, and by {change[KEPT]:.2g} with "
        f"Delta as it was. Euler's rule is not stable for long steps: {change[first]:.2g}."
    )


def tables(data: Dataset) -> list[Table]:
    f = facts(data)
    rows = [[name, *("-" if not np.isfinite(n) else f"{n:.0f}" for n in f[name])] for name in _LIKE]
    errors = [[name, *(f"{x:.1e}" for x in f[name])] for name in ("condition", EIGEN, DENSE)]
    return [
        Table("Median iterations by g", ["A", *(f"{g:g}" for g in f["jacobi.g"])], rows),
        Table("HiPPO-LegS by N", ["", *map(str, f["N"])], errors),
        Table(
            "Change of the output by rate",
            ["rule", *(f"{rate:g}" for rate in f["rates"])],
            [[name, *(f"{x:.1e}" for x in f[f"{name}.moved"])] for name in (*ALPHAS, KEPT)],
        ),
    ]


STUDY = study_of(
    __name__,
    name="paper/lssl",
    question="Are deep linear state-space layers a solver, is HiPPO's matrix diagonal, and do other rates work?",
    dims=("kind", "g", "N", "seed", "solver"),
    pictures=(
        Picture("depth", draw_depth, says_depth),
        Picture("diagonal", draw_diagonal, says_diagonal),
        Picture("resampled", draw_resampled, says_resampled),
    ),
)

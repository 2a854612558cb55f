"""A filter of finite length in place of a recurrence (FSMN, MossFormer2): Jacobi's method, stopped after N sweeps."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

import recsolve as rs
from recsolve.base.arrays import Array
from recsolve.studies.compare.measure import distance, loop
from recsolve.studies.draw.drawing import CONVERGED, band
from recsolve.studies.draw.series import outside_legend, series
from recsolve.studies.registry import Picture, Table, study_of
from recsolve.studies.store.records import Point, Row, product

if TYPE_CHECKING:
    from xarray import Dataset

JACOBI, TAPS, DILATED, SCAN = "N sweeps of jacobi", "N taps", "N taps, 4 steps apart", "affine scan"
FORMS = (JACOBI, TAPS, DILATED, SCAN)
APART = 4
ENOUGH = 0.01


@dataclass(frozen=True)
class Config:
    """h' = lambda h + p with normal p; filters of ``taps`` numbers."""

    length: int = 1024
    units: int = 4
    decays: tuple[float, ...] = (0.5, 0.9, 0.97, 0.99)
    taps: tuple[int, ...] = (1, 2, 5, 10, 20, 40, 80, 160)
    seeds: int = 3


TINY = Config(length=200, units=2, decays=(0.5, 0.97), taps=(1, 5, 20), seeds=2)
FULL = Config(length=16384, decays=(0.5, 0.9, 0.97, 0.99, 0.999), taps=(*Config.taps, 320, 640, 1280), seeds=10)


def grid(config: Config) -> Iterator[Point]:
    yield from product(
        decay=config.decays, N=config.taps, seed=range(config.seeds), length=config.length, units=config.units,
        dtype="float64",
    )  # fmt: skip


def run(*, decay: float, N: int, seed: int, length: int, units: int, dtype: str) -> list[Row]:
    p = np.random.default_rng(seed).standard_normal((length, units)).astype(dtype)
    rec = rs.Recurrence.from_function(
        lambda h, p: decay * h + p, inputs=p, initial=np.zeros(units), structure="diagonal"
    )
    truth = loop(rec)
    powers = decay ** np.arange(N)
    apart = np.zeros(APART * N)
    apart[::APART] = decay ** (APART * np.arange(N)) * sum(decay**i for i in range(APART))
    found = {
        # From f(0) = p, which is the first sweep already.
        JACOBI: rs.solve(rec, method="jacobi", maxiter=N - 1, tol=0).states if N > 1 else rec.apply(np.zeros_like(p)),
        TAPS: filtered(p, powers),
        DILATED: filtered(p, apart),
        SCAN: rs.scan("affine", (np.full((1, 1), decay), p)),
    }
    scale = float(abs(truth).max())
    return [
        {
            "solver": name,
            "status": CONVERGED,
            "error": distance(x, truth) / scale,
            "from_taps": distance(x, found[TAPS]) / scale,
        }
        for name, x in found.items()
    ]


def filtered(p: Array, taps: Array) -> Array:
    """Return sum of taps[i] p[t - i], (T, n)."""
    return np.stack([np.convolve(column, taps)[: len(p)] for column in p.T], axis=1)


def facts(data: Dataset) -> dict[str, Any]:
    error, N = data["error"].max("seed"), data["N"].values
    found: dict[str, Any] = {
        "jacobi.from_taps": float(data["from_taps"].sel(solver=JACOBI).max()),
        "scan.error": float(error.sel(solver=SCAN).max()),
    }
    for decay in data["decay"].values:
        measured = error.sel(decay=decay, solver=TAPS).values
        seen = decay**N > 1e-10  # below that it is rounding that is seen
        found[f"{decay:g}.over_bound"] = float((measured / decay**N)[seen].max())
        enough = N[measured < ENOUGH]
        found[f"{decay:g}.taps"] = int(enough[0]) if enough.size else 0
        found[f"{decay:g}.dilated"] = float(error.sel(decay=decay, solver=DILATED).min())
        found[f"{decay:g}.plain"] = float(measured.min())
    return found


def draw_errors(pyplot: Any, data: Dataset) -> Any:
    decays, N = data["decay"].values, data["N"].values
    figure, axes = pyplot.subplots(1, len(decays), figsize=(2.4 * len(decays) + 2, 3.1), sharey=True, squeeze=False)
    looks = series(FORMS)
    theory = {"color": "0.4", "linewidth": 0.9, "linestyle": ":", "label": "lambda^N"}
    for ax, decay in zip(axes[0], decays, strict=True):
        for name, look in looks.items():
            band(ax, N, data["error"].sel(decay=decay, solver=name).clip(min=1e-17), "seed", name, **look)
        ax.plot(N, decay ** N.astype(float), **theory)
        ax.set(xscale="log", yscale="log", xlabel="N", title=f"lambda = {decay:g}", ylim=(1e-17, 3))
    axes[0, 0].set_ylabel("error over max |h|")
    outside_legend(figure, pyplot, [*looks.values(), theory])
    return figure


def says_errors(data: Dataset) -> str:
    f, decays = facts(data), [f"{decay:g}" for decay in data["decay"].values]
    taps = {d: f[f"{d}.taps"] or f"more than {data['N'].max().item()}" for d in (decays[0], decays[-1])}
    return (
        f"A network without a recurrence is one that was not solved to the end: N sweeps of Jacobi's method and the "
        f"filter with N taps are the same states. Their error is lambda^N of what came before: {ENOUGH:g} takes "
        f"{taps[decays[0]]} taps at lambda = {decays[0]} and {taps[decays[-1]]} at {decays[-1]}. The scan has none, in "
        "work that does not depend on lambda."
    )


def tables(data: Dataset) -> list[Table]:
    f = facts(data)
    rows = [
        [f"{d:g}", str(f[f"{d:g}.taps"] or "-"), f"{f[f'{d:g}.over_bound']:.2f}", f"{f[f'{d:g}.dilated']:.2g}"]
        for d in data["decay"].values
    ]
    head = ["lambda", f"taps for {ENOUGH:g}", "error over lambda^N", f"best of taps {APART} apart"]
    return [Table("Filters in place of a recurrence", head, rows)]


STUDY = study_of(
    __name__,
    name="paper/fsmn",
    question="What is lost when a filter of N taps takes the place of a recurrence?",
    dims=("decay", "N", "seed", "solver"),
    pictures=(Picture("errors", draw_errors, says_errors),),
)

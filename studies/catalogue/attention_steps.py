"""Attention as an RNN (Feng et al., arXiv 2405.13956): softmax in constant memory, by its scan, loop and solvers."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from recsolve.base.arrays import Array
from recsolve.studies.compare.measure import distance, loop, measured
from recsolve.studies.draw.drawing import CONVERGED, band, converged, powers_of_two
from recsolve.studies.draw.series import ending, outside_legend, series
from recsolve.studies.draw.style import line_arguments
from recsolve.studies.registry import Picture, Table, study_of
from recsolve.studies.store.records import Point, Row, product
from recsolve.studies.systems.system import Arrays, get

if TYPE_CHECKING:
    from xarray import DataArray, Dataset

FLAT, RANDOM, RISING = "flat", "random", "rising"
KINDS = {
    FLAT: "flat scores: all tokens count alike",
    RANDOM: "random scores",
    RISING: "rising scores: the last tokens count",
}
SLOPES = {FLAT: 0.0, RISING: 0.5}  # of scores, a token
NAIVE, SCAN, LOOP = "running sums of exp(s)", "scan with a maximum", "loop with a maximum"
FORMS = (NAIVE, SCAN, LOOP)
SOLVERS = ("newton", "jacobi")


@dataclass(frozen=True)
class Config:
    """Solvers over ``lengths`` in float64; forms by ``scales`` of random scores in float32, at the last length."""

    lengths: tuple[int, ...] = (64, 128, 256, 512, 1024)
    scales: tuple[float, ...] = (1.0, 3.0, 10.0, 30.0, 100.0, 300.0, 1000.0)
    width: int = 8
    seeds: int = 3


TINY = Config(lengths=(32, 128), scales=(1.0, 100.0), width=4, seeds=2)
FULL = Config(lengths=tuple(2**k for k in range(6, 14)), seeds=10)


def grid(config: Config) -> Iterator[Point]:
    """Yield solves by kind of scores, in double precision, and forms by scale of random ones, in single precision."""
    shared = {"width": config.width, "seed": range(config.seeds)}
    yield from product(kind=tuple(KINDS), T=config.lengths, scale=1.0, dtype="float64", **shared)
    yield from product(kind=RANDOM, T=config.lengths[-1], scale=config.scales, dtype="float32", **shared)


def run(*, kind: str, T: int, scale: float, width: int, seed: int, dtype: str) -> list[Row]:
    """Return iterations of the solvers in double precision, errors of the forms in single precision."""
    system, arrays = get("attention_rnn"), _scored(kind, T, scale, width, seed)
    exact = system.build(arrays)
    if dtype == "float64":
        truth = loop(exact)
        return [measured(exact, solver, truth) for solver in SOLVERS]
    y = exact.output(loop(exact))
    rec = system.build({name: x.astype(dtype) for name, x in arrays.items()})
    assert system.scan is not None
    with np.errstate(all="ignore"):
        found = {NAIVE: _sums(rec), SCAN: rec.output(system.scan(rec)), LOOP: rec.output(loop(rec))}
    return [
        {
            "solver": form,
            "status": CONVERGED if np.isfinite(x).all() else "nonfinite",
            "error": distance(x, y) / float(abs(y).max()),
        }
        for form, x in found.items()
    ]


def _scored(kind: str, T: int, scale: float, width: int, seed: int) -> Arrays:
    """Return arrays of the system whose scores are of a kind: the query is along the first axis of the keys."""
    rng = np.random.default_rng(seed)
    s = scale * rng.standard_normal(T) if kind == RANDOM else SLOPES[kind] * np.arange(T)
    k, v, q = np.zeros((T, 1, width)), rng.standard_normal((T, 1, width)), np.zeros(width)
    k[..., 0], q[0] = s[:, None], width**0.5
    return {"q": q, "k": k, "v": v}


def _sums(rec: Any) -> Array:
    """Return the averages from running sums of exp(s), as they stand."""
    u = rec.contain(rec.inputs)
    w = np.exp(u["s"])[..., None]
    out: Array = np.cumsum(w * u["v"], axis=0) / np.cumsum(w, axis=0)
    return out


def _counts(data: Dataset, kind: str, solver: str) -> DataArray:
    part = data.sel(kind=kind, solver=solver, dtype="float64", scale=1.0)
    return converged(part, "iterations").transpose("T", "seed")


def _errors(data: Dataset, form: str) -> DataArray:
    part = data.sel(kind=RANDOM, solver=form, dtype="float32").isel(T=-1)
    return converged(part, "error").transpose("scale", "seed")


def facts(data: Dataset) -> dict[str, Any]:
    """Return median iterations by kind, and where and by how much the forms fail."""
    found: dict[str, Any] = {"T": [int(data["T"][0]), int(data["T"][-1])]}
    for kind in KINDS:
        for solver in SOLVERS:
            counts = _counts(data, kind, solver).median("seed", skipna=False).values
            found[f"{kind}.{solver}"] = [float(counts[0]), float(counts[-1])]
    for form in FORMS:
        errors = _errors(data, form)
        whole = errors.notnull().all("seed").values
        found[f"{form}.error"] = float(errors.max())
        found[f"{form}.ends"] = None if whole.all() else float(data["scale"].values[~whole][0])
    found["scale"] = float(data["scale"].max())
    return found


def draw_counts(pyplot: Any, data: Dataset) -> Any:
    """Draw iterations against length, a panel for every kind of scores."""
    figure, axes = pyplot.subplots(1, len(KINDS), figsize=(11, 3.3), sharey=True)
    T = data["T"].values
    for ax, (kind, title) in zip(axes, KINDS.items(), strict=True):
        for solver in SOLVERS:
            band(ax, T, _counts(data, kind, solver), "seed", solver)
        ax.axhline(1, color="0.4", linewidth=0.9, linestyle=":", zorder=0)
        ax.set(xscale="log", yscale="log", title=title, xlabel="tokens T")
        powers_of_two(ax.xaxis, T)
    axes[0].set_ylabel("iterations")
    once = {"color": "0.4", "linewidth": 0.9, "linestyle": ":", "label": "the scan: one pass"}
    outside_legend(figure, pyplot, [*({**line_arguments(s), "label": s} for s in SOLVERS), once])
    return figure


def says_counts(data: Dataset) -> str:
    """Say what iterating costs by kind of scores."""
    f = facts(data)
    newton, jacobi, flat = (f[name][1] for name in (f"{RANDOM}.newton", f"{RANDOM}.jacobi", f"{FLAT}.newton"))
    return (
        f"The scan takes one pass whatever the scores are. At T = {f['T'][1]} Newton takes {newton:.0f} iterations on "
        f"random scores, to find the records of their maximum, and {flat:.0f} on flat ones, where the step is linear. "
        f"Jacobi takes {jacobi:.0f} on random ones: between records no token is forgotten."
    )


def draw_errors(pyplot: Any, data: Dataset) -> Any:
    """Draw errors in single precision against the scale of the scores."""
    figure, ax = pyplot.subplots(figsize=(6.6, 3.4))
    looks = series(FORMS)
    for form, look in looks.items():
        errors = _errors(data, form)
        band(ax, data["scale"].values, errors, "seed", form, **look)
        ending(ax, data["scale"].values, errors.median("seed", skipna=False), "overflows from here on")
    ax.set(xscale="log", yscale="log", xlabel="deviation of the scores", ylabel="error / largest output, float32")
    outside_legend(figure, pyplot, looks.values())
    return figure


def says_errors(data: Dataset) -> str:
    """Say where sums of exponentials end, and what a maximum keeps."""
    f = facts(data)
    ends = f[f"{NAIVE}.ends"]
    fails = "nowhere" if ends is None else f"from a deviation of {ends:g} on"
    return (
        f"Running sums of exp(s) leave float32 {fails}. With a running maximum nothing overflows up to {f['scale']:g}, "
        f"and scan and loop have errors of at most {max(f[f'{SCAN}.error'], f[f'{LOOP}.error']):.0e}, those of scores "
        "which are rounded themselves."
    )


def tables(data: Dataset) -> list[Table]:
    """Return median iterations."""
    f = facts(data)
    rows = [[kind, solver, *(f"{n:.0f}" for n in f[f"{kind}.{solver}"])] for kind in KINDS for solver in SOLVERS]
    return [Table("Median iterations", ["scores", "solver", *(f"T = {T}" for T in f["T"])], rows)]


STUDY = study_of(
    __name__,
    name="attention_rnn",
    question="What does it cost to run the softmax of one query as a recurrence, and what keeps its numbers finite?",
    dims=("kind", "T", "scale", "seed", "dtype", "solver"),
    pictures=(Picture("counts", draw_counts, says_counts), Picture("errors", draw_errors, says_errors)),
)

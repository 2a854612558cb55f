"""Three Newton iterations and no test, as in ParaRNN (Danieli et al., ICLR 2026, arXiv 2510.21450): when that fails.

The paper justifies three iterations by residuals of cells whose weights are clipped to a small norm.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

import recsolve as rs
from recsolve.analysis.condition import condition
from recsolve.studies.compare.measure import loop, measured
from recsolve.studies.draw.drawing import band, converged, listed
from recsolve.studies.draw.series import ending, level, outside_legend, series
from recsolve.studies.registry import Picture, Table, study_of
from recsolve.studies.store.records import Point, Row, product

if TYPE_CHECKING:
    from xarray import DataArray, Dataset

FIXED = 3  # ParaRNN's MAX_NEWTON_ITS
WRONG = 1e-3  # above it the residual check of pararnn-torch logs
COUNTS = (1, 2, 3, 4, 6)
# Error after three iterations of the fused kernels of ParaRNN and of pararnn-torch, by (batch, T, units), on an H200:
# weights ~ N(0, 0.5^2), gate inputs ~ N(0, 1), float32. Measured for this project, side by side with other peers.
PUBLISHED: dict[tuple[int, int, int], tuple[float, float | None]] = {
    (8, 512, 1024): (6.1e-3, 2.4e-2),
    (8, 2048, 1024): (3.7e-2, 3.5e-3),
    (8, 16384, 1024): (6.1e-3, None),
    (1, 16384, 256): (9.3e-3, None),
    (1, 131072, 256): (3.8e-1, None),
    (32, 2048, 2048): (8.4e-3, 1.9e-2),
}
PUBLISHED_SCALE = 0.5
SWEEP, BOARD = "sweep", "board"  # the two kinds of points


@dataclass(frozen=True)
class Config:
    """Diagonal cells, weights ~ N(0, scale^2), gate inputs ~ N(0, 1); ``boards``: batch, T, units as published."""

    cells: tuple[str, ...] = ("pararnn_gru", "pararnn_lstm")
    scales: tuple[float, ...] = (0.1, 0.25, 0.5, 0.75, 1.0, 1.25, 1.5, 2.0, 3.0)
    lengths: tuple[int, ...] = (128, 512)
    units: int = 64
    seeds: int = 3
    dtype: str = "float32"
    boards: tuple[tuple[int, int, int], ...] = ((8, 512, 1024), (1, 16384, 256))


# The largest boards hold 134 million states: some 10 GB with their Jacobian.
FULL = Config(lengths=(128, 512, 2048, 8192), seeds=10, boards=tuple(PUBLISHED))
TINY = Config(scales=(0.25, 1.0, 2.0), lengths=(64,), units=16, seeds=2, boards=((1, 64, 32),))


def grid(config: Config) -> Iterator[Point]:
    for batch, T, units in config.boards:
        yield {
            "kind": BOARD, "cell": "pararnn_gru", "scale": PUBLISHED_SCALE, "T": T, "batch": batch,
            "units": units, "seed": 0, "dtype": "float32", "maxiter": max(COUNTS),
        }  # fmt: skip
    for point in product(
        kind=SWEEP, cell=config.cells, T=config.lengths, scale=config.scales, batch=1, units=config.units,
        seed=range(config.seeds), dtype=config.dtype,
    ):  # fmt: skip
        yield {**point, "maxiter": point["T"] + 2}


def run(
    *, kind: str, cell: str, scale: float, T: int, batch: int, units: int, seed: int, dtype: str, maxiter: int
) -> list[Row]:
    rec = recurrence(cell, scale, T, batch, units, seed, dtype)
    truth = loop(rec)
    row = measured(rec, "newton", truth, curves=True, maxiter=maxiter)
    if "errors" in row:
        # Iterations after convergence keep its result.
        last = row["errors"][-1] if row["status"] == "converged" else np.nan
        row["errors"] = (row["errors"] + max(COUNTS) * [last])[: max(COUNTS) + 1]
        row["residuals"] = row["residuals"][: max(COUNTS) + 1]
    return [{**row, "condition": condition(rec, truth)}]


def recurrence(cell: str, scale: float, T: int, batch: int, units: int, seed: int, dtype: str) -> rs.Recurrence:
    """Return a diagonal cell whose gate inputs are given, as the fused kernels get them."""
    kind, rng = rs.cells.get(cell), np.random.default_rng(seed)

    def draw(*shape: int, deviation: float = 1.0) -> Any:
        return (deviation * rng.standard_normal(shape)).astype(dtype)

    weighted = kind.with_weights(
        mixings={name: rs.mixings.Diagonal(draw(units, deviation=scale)) for name in kind.mixings},
        parameters={name: draw(units, deviation=scale) for name in kind.parameters},
        hidden_size=units,
    )
    return weighted.recurrence(drive={name: draw(T, batch, units) for name in kind.drives})


def _sweep(data: Dataset) -> Dataset:
    """Return the part that sweeps the scale, with the dimensions cell, scale, T and seed."""
    part = data.sel(kind=SWEEP)
    for dim in ("scale", "T", "batch", "units"):  # of the boards alone
        part = part.dropna(dim, how="all", subset=["error"])
    return part.squeeze(("batch", "units"))


def _after(part: Dataset, k: int) -> DataArray:
    return part["errors"].isel(iteration=k)


def _solved(part: Dataset) -> DataArray:
    """Return the error of solves that converged where rounding is not amplified beyond a hundredth."""
    eps = np.finfo(np.float32).eps
    return converged(part, "error").where(8 * eps * part["condition"] < 1e-2)


def facts(data: Dataset) -> dict[str, Any]:
    part = _sweep(data)
    found: dict[str, Any] = {"T": int(part["T"].values[-1])}
    for cell in map(str, part["cell"].values):
        at = part.sel(cell=cell).isel(T=-1)
        fixed, solved = _after(at, FIXED).max("seed", skipna=False), _solved(at).max("seed", skipna=False)
        wrong = at["scale"].values[~(fixed <= WRONG).values]
        right = at["scale"].values[np.isfinite(solved.values)]
        found[f"{cell}.wrong"] = float(wrong[0]) if wrong.size else np.nan
        found[f"{cell}.enough"] = float(at["scale"].values[(fixed <= WRONG).values].max(initial=0.0))
        found[f"{cell}.solved_to"] = float(right.max(initial=0.0))
        both = np.isfinite(solved.values) & ~(fixed <= WRONG).values
        found[f"{cell}.fixed_error"] = float(np.max(fixed.values[both], initial=0.0))
        found[f"{cell}.solved_error"] = float(np.nanmax(solved.values, initial=0.0))
        counts = converged(at, "iterations").max("seed", skipna=False).values
        found[f"{cell}.iterations"] = [float(counts[0]), float(counts[-1])]
    return found


def draw_errors(pyplot: Any, data: Dataset) -> Any:
    part = _sweep(data)
    cells = [str(cell) for cell in part["cell"].values]
    figure, axes = pyplot.subplots(1, len(cells), figsize=(4 * len(cells) + 2, 3.7), sharey=True, squeeze=False)
    looks = series([*(f"{k} iteration{'s' * (k > 1)}" for k in COUNTS), "converged"])
    for ax, cell in zip(axes[0], cells, strict=True):
        at = part.sel(cell=cell).isel(T=-1).transpose("scale", "seed", ...)
        for (name, look), errors in zip(looks.items(), [*(_after(at, k) for k in COUNTS), _solved(at)], strict=True):
            band(ax, at["scale"].values, errors, "seed", name, **look)
            ending(ax, at["scale"].values, errors.median("seed", skipna=False), "beyond, rounding is amplified")
        level(ax, WRONG, "wrong from here up", "left")
        ax.set(xscale="log", yscale="log", title=f"{cell}, T = {int(at['T'])}", xlabel="deviation of the weights")
        ax.set_xticks(at["scale"].values[::2], [f"{x:g}" for x in at["scale"].values[::2]])
        ax.set_xticks([], minor=True)
    axes[0, 0].set_ylabel("max |h - loop|")
    outside_legend(figure, pyplot, looks.values())
    return figure


def says_errors(data: Dataset) -> str:
    f, cells = facts(data), [*map(str, data["cell"].values)]
    enough = listed([f"{f[f'{cell}.enough']:g} ({cell})" for cell in cells])
    return (
        f"Three iterations are within {WRONG:g} up to weights of deviation {enough}, and wrong by up to "
        f"{max(f[f'{cell}.fixed_error'] for cell in cells):.1e} beyond, where converged solves are right to "
        f"{max(f[f'{cell}.solved_error'] for cell in cells):.0e}, until rounding itself is amplified."
    )


def draw_needed(pyplot: Any, data: Dataset) -> Any:
    part = _sweep(data)
    figure, ax = pyplot.subplots(figsize=(6.4, 3.6))
    names = {f"{cell}, T = {T}": (cell, T) for cell in part["cell"].values for T in part["T"].values}
    looks = series(names)
    for name, (cell, T) in names.items():
        counts = converged(part, "iterations").sel(cell=cell, T=T).transpose("scale", "seed")
        band(ax, part["scale"].values, counts, "seed", name, **looks[name])
    level(ax, FIXED, "what ParaRNN takes")
    ax.set(xscale="log", yscale="log", xlabel="deviation of the weights", ylabel="iterations to convergence")
    ax.set_xticks(part["scale"].values[::2], [f"{x:g}" for x in part["scale"].values[::2]])
    ax.set_xticks([], minor=True)
    outside_legend(figure, pyplot, looks.values())
    return figure


def says_needed(data: Dataset) -> str:
    f = facts(data)
    most = listed([f"{f[f'{cell}.iterations'][1]:.0f} ({cell})" for cell in map(str, data["cell"].values)])
    return (
        f"Three iterations are enough for small weights; as these grow, up to {most} are needed at T = {f['T']}, where "
        "all seeds are to converge."
    )


def tables(data: Dataset) -> list[Table]:
    rows = []
    for (batch, T, units), (theirs, other) in PUBLISHED.items():
        ours = [""] * 3
        if BOARD in data["kind"].values and all(
            x in data[d].values for d, x in (("batch", batch), ("T", T), ("units", units))
        ):
            at = data.sel(kind=BOARD, cell="pararnn_gru", scale=PUBLISHED_SCALE, batch=batch, T=T, units=units)
            at = at.dropna("seed", how="all", subset=["error"])
            if at["seed"].size:
                errors = [*(_after(at, k) for k in (FIXED, 6)), converged(at, "iterations")]
                ours = [f"{float(e.isel(seed=0)):.2g}" for e in errors]
        rows.append([f"B{batch} T{T} D{units}", f"{theirs:.1e}", "" if other is None else f"{other:.1e}", *ours])
    head = ["shape", "ParaRNN, 3", "pararnn-torch, 3", "ours, 3", "ours, 6", "ours, iterations to converge"]
    title = "Error after a number of iterations, diagonal GRU, weights of deviation 0.5 (peers as measured on an H200)"
    return [Table(title, head, rows)]


STUDY = study_of(
    __name__,
    name="paper/pararnn",
    question="When do three Newton iterations, as ParaRNN takes them, fail?",
    dims=("kind", "cell", "scale", "T", "batch", "units", "seed"),
    curves={"errors": ("iteration",), "residuals": ("iteration",)},
    pictures=(Picture("errors", draw_errors, says_errors), Picture("needed", draw_needed, says_needed)),
)

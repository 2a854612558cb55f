"""Residual and true error against iteration, of every solver on every kind of cell and mixing, and the causal front."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

import recsolve as rs
from recsolve.base.arrays import Array
from recsolve.base.tolerance import tolerance_for
from recsolve.solvers import REGISTRY
from recsolve.studies.compare.measure import cell_recurrence, loop, measured
from recsolve.studies.draw.drawing import converged, heat, held, legend, listed, solvers_of
from recsolve.studies.draw.figures import QUANTITIES, by_group, scale_iterations
from recsolve.studies.draw.style import integer_ticks, line_arguments
from recsolve.studies.groups import grouped
from recsolve.studies.registry import Picture, Table, study_of
from recsolve.studies.store.records import Point, Row, product

if TYPE_CHECKING:
    from xarray import Dataset

ALL = tuple(name for name in REGISTRY if name not in ("sequential", "auto"))
SHOWN = (
    "newton", "quasi_newton", "scaled_newton", "damped_newton", "broyden", "multiple_shooting", "jacobi", "picard"
)  # fmt: skip
FRONTS = ("newton", "quasi_newton", "scaled_newton", "jacobi", "picard", "multiple_shooting")
_FLOOR = 0.2 * float(np.finfo(np.float64).eps)
_TICKS = 64  # of a heat map, along time and along iterations


@dataclass(frozen=True)
class Config:
    """Random cells times ``gain`` on normal input, float64, default tolerance; fronts are of the first panel."""

    panels: tuple[str, ...] = (
        "gru dense", "gru heads", "gru diagonal", "lstm dense", "lstm heads", "lstm diagonal",
        "pararnn_lstm dense", "pararnn_lstm heads", "pararnn_lstm diagonal", "elman dense", "elman heads",
        "elman diagonal", "minmax",
    )  # fmt: skip
    units: int = 16
    T: int = 256
    gain: float = 1.5
    seeds: int = 2
    solvers: tuple[str, ...] = ALL
    fronts: tuple[str, ...] = FRONTS


FULL = Config(units=64, T=2048, gain=2.0, seeds=10)
TINY = Config(panels=("gru dense", "gru diagonal", "minmax"), units=8, T=64, seeds=1)


def grid(config: Config) -> Iterator[Point]:
    for point in product(
        panel=config.panels, seed=range(config.seeds), units=config.units, T=config.T, gain=config.gain,
        solvers=[*config.solvers], dtype="float64",
    ):  # fmt: skip
        first = (point["panel"], point["seed"]) == (config.panels[0], 0)
        yield {**point, "fronts": [*config.fronts] if first else []}


def run(
    *, panel: str, seed: int, units: int, T: int, gain: float, solvers: list[str], fronts: list[str], dtype: str
) -> list[Row]:
    cell, _, mixing = panel.partition(" ")
    rec = cell_recurrence(cell, mixing or "dense", units=units, T=T, gain=gain, seed=seed, dtype=dtype)
    truth, tolerance = loop(rec), tolerance_for(rec, None).atol
    rows = [{**measured(rec, name, truth, curves=True), "tolerance": tolerance} for name in solvers]
    return [{**row, **_front(rec, row["solver"])} if row["solver"] in fronts else row for row in rows]


def _front(rec: rs.Recurrence, solver: str) -> Row:
    """Return the residual over time and iterations, in blocks, and the rows that are solved after every iteration."""
    trace = rs.solve(rec, method=solver, options={"trace": True}).trace
    assert trace is not None
    at = np.unique(np.linspace(0, len(trace.residual) - 1, _TICKS).round().astype(int))
    edges = np.unique(np.linspace(0, rec.length, min(rec.length, _TICKS) + 1).astype(int)[:-1])
    front = np.maximum.reduceat(trace.residual[at], edges, axis=1)
    return {"front": front, "front_at": at, "front_time": edges + 1, "solved": trace.converged_prefix}


def _median(data: Dataset, panel: str, solver: str) -> float:
    """Return median iterations, NaN if one seed did not converge."""
    counts = converged(data, "iterations").sel(panel=panel, solver=solver).values
    return float(np.median(counts))


def _reduction(data: Dataset, solver: str) -> float:
    """Return the factor by which an iteration reduces the residual: the geometric mean, the median over solves."""
    part = data.sel(solver=solver).stack(run=("panel", "seed"))
    first, last = part["residuals"].isel(iteration=0), np.maximum(converged(part, "residual"), _FLOOR)
    return float(((first / last) ** (1 / np.maximum(part["iterations"], 1))).median())


def facts(data: Dataset) -> dict[str, Any]:
    panels, solvers = [str(p) for p in data["panel"].values], solvers_of(data)
    bad = (data["status"] != "converged").values
    where = [f"{solvers[j]} on {panels[i]}" for i, _, j in np.argwhere(bad)]
    shown = [s for s in ("newton", "jacobi") if s in solvers]
    fronts = {s: _solved(data, s) for s in solvers if np.isfinite(_solved(data, s)).any()}
    return {
        "iterations": {p: {s: _median(data, p, s) for s in solvers} for p in panels},
        "unconverged": sorted(set(where)),
        "worst_error": float(converged(data, "error").max()),
        "reduction": {s: _reduction(data, s) for s in shown},
        # Rows solved after k iterations, less k: the law is that it is never negative.
        "lead": {s: int(np.nanmin((k - np.arange(len(k)))[:-1], initial=0)) for s, k in fronts.items()},
        "speed": {s: float(np.nanmax(k) / max(np.isfinite(k).sum() - 1, 1)) for s, k in fronts.items()},
    }


def _solved(data: Dataset, solver: str) -> Array:
    """Return how many leading rows are solved after each iteration, NaN after the last."""
    return np.asarray(data["solved"].sel(solver=solver).isel(panel=0, seed=0).values)


def draw_curves(quantity: str) -> Any:
    """Return the function that draws residuals or errors: a row per cell, a column per mixing."""

    def draw(pyplot: Any, data: Dataset) -> Any:
        names = [str(panel) for panel in data["panel"].values]
        cells = list(dict.fromkeys(name.split(" ")[0] for name in names))
        mixings = list(dict.fromkeys(name.partition(" ")[2] for name in names if " " in name)) or [""]
        size = (2.7 * len(mixings) + 1.9, 1.75 * len(cells) + 0.7)
        figure, axes = pyplot.subplots(len(cells), len(mixings), figsize=size, sharey=True, squeeze=False)
        for ax in axes.flat:
            ax.set_visible(False)
        solvers = [s for s in SHOWN if s in solvers_of(data)]
        for name in names:
            cell, _, mixing = name.partition(" ")
            ax = axes[cells.index(cell), mixings.index(mixing) if mixing else 0]
            ax.set_visible(True)
            ax.set_title(name if mixing else f"{cell} (no mixing)", fontsize=9)
            for solver in solvers:
                _curve(ax, data[quantity].sel(panel=name, solver=solver).values, solver)
        _scale_visible(axes)
        figure.supxlabel("iteration", fontsize=9)
        figure.supylabel(QUANTITIES[quantity], fontsize=9)
        legend(figure, pyplot, solvers)
        return figure

    return draw


def _curve(axes: Any, curves: Array, solver: str) -> None:
    """Draw the median over seeds and their range; a solve that has ended stays where it is."""
    y = np.maximum(held(curves), _FLOOR)
    x = np.arange(y.shape[-1])
    marks = np.unique(np.round(np.geomspace(1, max(len(x), 1), 7)).astype(int) - 1)
    style = line_arguments(solver)
    axes.plot(x, np.median(y, axis=0), markevery=marks.tolist(), **{**style, "markersize": 0.7 * style["markersize"]})
    if len(y) > 1:
        axes.fill_between(x, y.min(axis=0), y.max(axis=0), color=style["color"], alpha=0.15, linewidth=0)


def _scale_visible(axes: Any) -> None:
    visible = np.array([ax for ax in axes.flat if ax.get_visible()], dtype=object)
    scale_iterations(visible[None])
    for ax in visible:
        ax.set_xlabel("")
        ax.set_ylim(0.3 * _FLOOR, 1e5)
        ax.tick_params(labelleft=ax.get_subplotspec().is_first_col())


def draw_family(pyplot: Any, data: Dataset) -> Any:
    first = data.isel(panel=0, seed=0)
    entries = [
        {"solver": s, "group": REGISTRY[s].group, **{q: _ended(first[q].sel(solver=s).values) for q in QUANTITIES}}
        for s in solvers_of(data)
    ]
    panel = {"title": str(first["panel"].values), "tolerance": float(first["tolerance"].max()), "entries": entries}
    groups = grouped([s for s in solvers_of(data) if s in REGISTRY], lambda s: REGISTRY[s].group)
    figure = by_group(pyplot, [panel], groups, _FLOOR)
    figure.set_figwidth(figure.get_figwidth() + 1.3)  # for the names that the legends get
    for ax in figure.axes:
        _name_alike(ax.get_legend(), _alike(data))
    return figure


def _alike(data: Dataset) -> dict[str, list[str]]:
    """Return solvers whose residuals on the first panel are the same to three digits, by the first of them."""
    residuals = data["residuals"].isel(panel=0, seed=0)
    found: dict[str, list[str]] = {}
    for solver in solvers_of(data):
        curve = np.maximum(residuals.sel(solver=solver).values, _FLOOR)
        same = (s for s in found if np.allclose(np.maximum(residuals.sel(solver=s), _FLOOR), curve, 1e-3, 0, True))
        found.setdefault(next(same, solver), []).append(solver)
    return found


def _name_alike(legend: Any, alike: dict[str, list[str]]) -> None:
    """Name in a legend of one group the solver whose curve another one has."""
    for text in legend.get_texts() if legend else ():
        first = next((s for s, names in alike.items() if text.get_text() in names[1:]), None)
        if first:
            text.set_text(f"{text.get_text()} (as {first})")


def _ended(curve: Array) -> Array:
    return curve[: int(np.isfinite(curve).nonzero()[0].max(initial=-1)) + 1]


def draw_front(pyplot: Any, data: Dataset) -> Any:
    shown = [s for s in solvers_of(data) if np.isfinite(_solved(data, s)).any()]
    columns = min(3, len(shown))
    size = (2.7 * columns + 1.0, 2.4 * -(-len(shown) // columns) + 0.3)
    figure, axes = pyplot.subplots(-(-len(shown) // columns), columns, figsize=size, sharex=True, squeeze=False)
    for ax in axes.flat[len(shown) :]:
        ax.set_visible(False)
    figure.suptitle(f"{data['panel'].values[0]}: the residual over time", fontsize=10)
    for ax, solver in zip(axes.flat, shown, strict=False):
        part = data.sel(solver=solver).isel(panel=0, seed=0)
        at, time = (_ended(part[name].values) for name in ("front_at", "front_time"))
        front = np.log10(np.maximum(part["front"].values[: len(at), : len(time)], _FLOOR))
        image = heat(ax, time, at, front, vmin=np.log10(_FLOOR), vmax=0)
        ax.plot(np.arange(1, at[-1] + 1), np.arange(1, at[-1] + 1), color="white", linewidth=1.2, linestyle="--")
        integer_ticks(ax.yaxis)
        ax.set(title=solver, xlabel="step t", ylabel="iteration", xlim=(time[0], time[-1]), ylim=(at[-1] + 0.5, -0.5))
    figure.colorbar(image, ax=axes, label="log10 of the residual", shrink=0.7, extend="max")
    return figure


def says_curves(quantity: str) -> Any:
    """Return the function that describes in words the curves of a quantity."""

    def says(data: Dataset) -> str:
        f = facts(data)
        if quantity == "errors":
            return (
                f"Against the sequential loop every solve that converged ends with an error of at most "
                f"{f['worst_error']:.1e}. {_unconverged(f)}"
            )
        words = [f"{factor:.2g} ({s})" for s, factor in f["reduction"].items()]
        return (
            f"In the median over all solves an iteration divides the residual by {listed(words)}, the geometric mean "
            f"of a solve. {_unconverged(f)}"
        )

    return says


def _unconverged(f: dict[str, Any]) -> str:
    return f"Not converged: {listed(f['unconverged'])}." if f["unconverged"] else "Every solve converged."


def says_family(data: Dataset) -> str:
    panel = str(data["panel"].values[0])
    counts = {s: k for s, k in facts(data)["iterations"][panel].items() if np.isfinite(k)}
    few, many = min(counts.values()), max(counts.values())
    same = "; ".join(listed(names) for names in _alike(data).values() if len(names) > 1)
    return (
        f"On {panel} the counts of all {len(counts)} solvers that converged lie between {few:.0f} "
        f"({listed([s for s in counts if counts[s] == few])}) and {many:.0f} "
        f"({listed([s for s in counts if counts[s] == many])}). {f'Curves that coincide: {same}.' * bool(same)}"
    ).rstrip()


def says_front(data: Dataset) -> str:
    f = facts(data)
    late = [s for s, lead in f["lead"].items() if lead < 0]
    law = "for every solver shown" if not late else f"but not for {listed(late)}"
    fast, slow = (pick(f["speed"], key=f["speed"].__getitem__) for pick in (max, min))
    return (
        f"After k iterations at least the first k steps are solved (the white line t = k), {law}. On average an "
        f"iteration solves {f['speed'][fast]:.0f} more steps with {fast}, and {f['speed'][slow]:.0f} with {slow}."
    )


def tables(data: Dataset) -> list[Table]:
    f = facts(data)
    solvers = solvers_of(data)
    rows = [
        [
            s,
            *(
                "not converged" if np.isnan(f["iterations"][p][s]) else f"{f['iterations'][p][s]:g}"
                for p in f["iterations"]
            ),
        ]
        for s in solvers
    ]
    return [Table("Median iterations over seeds", ["solver", *f["iterations"]], rows)]


STUDY = study_of(
    __name__,
    name="convergence",
    question="How do residual and true error fall, iteration by iteration, and how does what is solved spread in time?",
    dims=("panel", "seed", "solver"),
    curves={
        **dict.fromkeys(("residuals", "errors", "solved"), ("iteration",)),
        "front": ("front_row", "front_column"),
        "front_at": ("front_row",),
        "front_time": ("front_column",),
    },
    pictures=(
        Picture("residuals", draw_curves("residuals"), says_curves("residuals")),
        Picture("errors", draw_curves("errors"), says_curves("errors")),
        Picture("family", draw_family, says_family),
        Picture("front", draw_front, says_front),
    ),
)

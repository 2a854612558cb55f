"""Shared parts of the pictures of studies: files, curves with bands over seeds, maps, numbers in words."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from recsolve.base.arrays import Array
from recsolve.plot.axes import MAP as MAP  # the studies take these from here
from recsolve.plot.axes import counted as counted
from recsolve.plot.axes import heat as heat
from recsolve.studies.draw.style import house_style, line_arguments, plain_ticks
from recsolve.studies.store.files import replace_into_place

if TYPE_CHECKING:
    from xarray import DataArray, Dataset

    from recsolve.studies.registry import Picture

FORMATS = ("png", "pdf", "svg")
CONVERGED = "converged"


def save(picture: Picture, data: Dataset, folder: Path, formats: Iterable[str] = FORMATS) -> list[Path]:
    """Draw a picture and write it in some formats."""
    folder.mkdir(parents=True, exist_ok=True)
    paths = []
    with house_style() as pyplot:
        pyplot.rcParams["svg.hashsalt"] = picture.name  # the same numbers give the same file
        figure = drawn(pyplot, picture, data)
        figure.draw_without_rendering()  # lays it out, once for all formats
        pyplot.rcParams["figure.constrained_layout.use"] = False
        figure.set_layout_engine(None)  # an engine that does nothing ("none") would have every format drawn twice
        for suffix in formats:
            path = folder / f"{picture.name}.{suffix}"
            dates = {"pdf": {"CreationDate": None}, "svg": {"Date": None}}.get(suffix)
            with replace_into_place(path) as part:
                figure.savefig(part, format=suffix, metadata=dates)
            paths.append(path)
        pyplot.close(figure)
    return paths


def drawn(pyplot: Any, picture: Picture, data: Dataset) -> Any:
    """Return the figure of a picture, with ticks that can be read: 0.5, 1 and 2 on logarithms of few decades."""
    figure = picture.draw(pyplot, data)
    for axis in (axis for axes in figure.axes for axis in (axes.xaxis, axes.yaxis)):
        if axis.get_scale() == "log" and type(axis.get_major_locator()) is pyplot.matplotlib.ticker.LogLocator:
            low, high = sorted(axis.get_view_interval())
            if low > 1e-3 and high < 1e5:
                plain_ticks(axis, least=1 if low > 0.5 else 0)
    return figure


def solvers_of(data: Dataset) -> list[str]:
    return [str(name) for name in data["solver"].values]


def converged(data: Dataset, variable: str) -> DataArray:
    """Return a variable where the solve converged, NaN elsewhere."""
    return data[variable].where(data["status"] == CONVERGED)


def band(axes: Any, x: Array, y: DataArray, over: str, solver: str, **changes: Any) -> None:
    """Draw the median of ``y`` over a dimension as a solver's line, and its range as a band.

    Points where not all of the runs converged are left out: a median of the survivors would flatter.
    """
    values = np.asarray(y.transpose(..., over))
    whole = np.isfinite(values).all(axis=-1)
    middle = np.where(whole, np.median(values, axis=-1), np.nan)
    style = {**line_arguments(solver), **changes}
    axes.plot(x, middle, **style)
    if values.shape[-1] > 1:
        low, high = (np.where(whole, f(values, axis=-1), np.nan) for f in (np.min, np.max))
        axes.fill_between(x, low, high, color=style["color"], alpha=0.15, linewidth=0)


def family(axes: Any, values: DataArray, x: str, by: str, looks: Mapping[Any, dict[str, Any]]) -> None:
    """Draw a band along a dimension for each value of another one, at the places where it was measured."""
    for value, look in looks.items():
        part = values.sel({by: value}).dropna(x, how="all").transpose(x, "seed")
        band(axes, part[x].values, part, "seed", str(value), **look)


def held(curves: Array) -> Array:
    """Return curves (seeds, iterations) in which those that end early stay at their last value; NaN inside stays."""
    ends = [int(np.isfinite(curve).nonzero()[0].max(initial=-1)) for curve in curves]
    longest = max(ends, default=-1) + 1
    rows = [
        np.where(np.arange(longest) > end, curve[end], curve[:longest]) for curve, end in zip(curves, ends, strict=True)
    ]
    return np.array(rows).reshape(len(curves), longest)


def legend(figure: Any, pyplot: Any, solvers: Iterable[str], extra: Iterable[Any] = (), **changes: Any) -> None:
    """Put the solvers' lines at the right of a figure; changes are of the lines, as in ``linestyle="none"``."""
    handles = [pyplot.Line2D([], [], label=solver, **{**line_arguments(solver), **changes}) for solver in solvers]
    figure.legend(handles=[*handles, *extra], loc="outside right upper")


def powers_of_two(axis: Any, values: Sequence[float] | Array) -> None:
    """Label a logarithmic axis by powers of two."""
    shown = [v for i, v in enumerate(values) if len(values) <= 8 or i % 2 == 0]
    axis.set_ticks(shown, [f"$2^{{{round(np.log2(v))}}}$" for v in shown])
    axis.set_ticks([], minor=True)


def chart(
    axes: Any, columns: Sequence[str], rows: Sequence[str], numbers: Array, form: str = "{:.3g}", **arguments: Any
) -> Any:
    """Draw a table of numbers as a map with the numbers in its cells; what is NaN is hatched."""
    image = labelled(axes, columns, rows, numbers, **arguments)
    for (i, j), number in np.ndenumerate(numbers):
        if np.isfinite(number):
            dark = image.norm(number) < 0.55
            axes.text(j, i, form.format(number), ha="center", va="center", fontsize=8, color="w" if dark else "k")
    axes.set_ylim(len(rows) - 0.5, -0.5)  # not inverted: panels that share the axis would do it again
    return image


def labelled(axes: Any, columns: Sequence[str], rows: Sequence[str], numbers: Array, **arguments: Any) -> Any:
    """Draw a map of equal cells, with a label per column and row, the first row at the bottom."""
    image = heat(axes, np.arange(len(columns)), np.arange(len(rows)), numbers, **arguments)
    axes.set_xticks(np.arange(len(columns)), columns)
    axes.set_yticks(np.arange(len(rows)), rows)
    axes.tick_params(length=0)
    return image


def times(ratio: float) -> str:
    """Return a ratio in words."""
    return f"{ratio:.2g}x" if ratio < 10 else f"{ratio:.0f}x"


def listed(items: Sequence[str]) -> str:
    """Return items as an enumeration: "a, b and c"."""
    return items[0] if len(items) == 1 else f"{', '.join(items[:-1])} and {items[-1]}" if items else "none"


def span(values: Iterable[float]) -> str:
    """Return "3" or "3 to 7" for the range of finite numbers."""
    finite = [v for v in values if np.isfinite(v)]
    if not finite:
        return "none"
    low, high = min(finite), max(finite)
    return f"{low:.3g}" if low == high else f"{low:.3g} to {high:.3g}"

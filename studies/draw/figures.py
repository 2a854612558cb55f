"""Figures drawn from stored numbers only."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np

from recsolve.plot.axes import scale_iterations as scale_iterations  # the studies take it from here
from recsolve.plot.curves import RESIDUAL, draw_curve, draw_levels
from recsolve.studies.draw.style import house_style, line_arguments
from recsolve.studies.groups import grouped
from recsolve.studies.store.files import replace_into_place

FORMATS = ("png", "pdf")
_TOGETHER = 9  # curves that can be distinguished in one panel
QUANTITIES = {"residuals": RESIDUAL, "errors": "error  max |h − h of the loop|"}


def convergence_figure(record: dict[str, Any], folder: Path, stem: str = "compare") -> list[Path]:
    """Draw residual and error against iteration, a column per panel, as PNG and PDF.

    When there are more solvers than can be distinguished, each of their groups gets a row, where the others are grey.

    Parameters
    ----------
    record : dict
        What ``compare`` stores.
    folder : Path
        Where to write.

    Returns
    -------
    list of Path
        Empty when there is nothing to draw.
    """
    panels = [panel for panel in record["panels"] if any(_drawn(entry) for entry in panel["entries"])]
    if not panels:
        return []
    drawn = {entry["solver"]: entry["group"] for panel in panels for entry in panel["entries"] if _drawn(entry)}
    layout = _together if len(drawn) <= _TOGETHER else by_group
    with house_style() as pyplot:
        floor = 0.2 * float(np.finfo(record["config"]["dtype"]).eps)
        figure = layout(pyplot, panels, grouped(drawn, lambda solver: str(drawn[solver])), floor)
        figure.suptitle(record["title"], fontsize=10.5, wrap=True)
        paths = [folder / f"{stem}.{kind}" for kind in FORMATS]
        for path in paths:
            with replace_into_place(path) as part:
                figure.savefig(part, format=path.suffix[1:])
        pyplot.close(figure)
    return paths


def _together(pyplot: Any, panels: list[Any], groups: dict[str, list[str]], floor: float) -> Any:
    """Draw all solvers over each other, the residual above the error, a column per panel."""
    size = (3.6 * len(panels) + 2.0, 5.4)
    figure, axes = pyplot.subplots(2, len(panels), figsize=size, sharex="col", sharey="row", squeeze=False)
    for column, panel in zip(axes.T, panels, strict=True):
        column[0].set_title(panel["title"])
        for axis, quantity in zip(column, QUANTITIES, strict=True):
            _draw(axis, panel, quantity, [*groups], floor)
    for axis, text in zip(axes[:, 0], QUANTITIES.values(), strict=True):
        axis.set_ylabel(text)
    scale_iterations(axes)
    handles = []
    for group, solvers in groups.items():
        handles += [pyplot.Line2D([], [], linestyle="none", label=group), *_handles(pyplot, solvers)]
    for text in figure.legend(handles=handles, loc="outside right center").get_texts():
        text.set_fontweight("bold" if text.get_text() in groups else "normal")
    return figure


def by_group(pyplot: Any, panels: list[Any], groups: dict[str, list[str]], floor: float) -> Any:
    """Draw a row per group, and for each panel a column of the residual and one of the error.

    Parameters
    ----------
    pyplot : module
    panels : list of dict
        As in the record of :func:`convergence_figure`.
    groups : dict of list of str
        The solvers by group.
    floor : float
        Where what is smaller is drawn.
    """
    columns = [(panel, quantity) for panel in panels for quantity in QUANTITIES]
    size = (2.8 * len(columns) + 2.0, 1.9 * len(groups) + 1.0)
    figure, axes = pyplot.subplots(len(groups), len(columns), figsize=size, sharex="col", sharey=True, squeeze=False)
    for column, (panel, quantity) in zip(axes.T, columns, strict=True):
        column[0].set_title(f"{panel['title']}\n{QUANTITIES[quantity]}", fontsize=9)
        for axis, group in zip(column, groups, strict=True):
            _draw(axis, panel, quantity, [group], floor)
    scale_iterations(axes)
    figure.supylabel("residual, error", fontsize=9)
    for row, (group, solvers) in zip(axes, groups.items(), strict=True):
        legend = row[-1].legend(handles=_handles(pyplot, solvers), loc="center left", bbox_to_anchor=(1.02, 0.5))
        legend.set_title(group, prop={"weight": "bold", "size": 8.5})
    return figure


def _drawn(entry: dict[str, Any]) -> bool:
    """Return whether a solver has a curve: the loop is the reference, and a curve of nothing finite shows nothing."""
    finite = any(np.isfinite(float(r)) for r in entry["residuals"])
    return finite and entry["solver"] != "sequential"


def _draw(axes: Any, panel: dict[str, Any], quantity: str, groups: list[str], floor: float) -> None:
    """Plot some groups of solvers in their styles, and the others in grey behind them."""
    for entry in filter(_drawn, panel["entries"]):
        y = np.array([float(v) for v in entry[quantity]])
        shown = entry["group"] in groups
        look = line_arguments(entry["solver"]) if shown else {"color": "0.85", "linewidth": 1.0, "zorder": 1.5}
        draw_curve(axes, np.arange(len(y)), y, floor, look)
    draw_levels(axes, floor, [panel["tolerance"]] if quantity == "residuals" else ())


def _handles(pyplot: Any, solvers: list[str]) -> list[Any]:
    """Return the entries of a legend."""
    return [pyplot.Line2D([], [], label=solver, **line_arguments(solver)) for solver in solvers]

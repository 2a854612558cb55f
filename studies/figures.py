"""Figures drawn from stored numbers only."""

from __future__ import annotations

from math import ceil
from pathlib import Path
from typing import Any

import numpy as np

from recsolve.studies.files import replace_into_place
from recsolve.studies.style import house_style, line_arguments


def convergence_figure(record: dict[str, Any], folder: Path, stem: str = "compare") -> list[Path]:
    """Draw residual and error against iteration, a column per panel, as PNG and PDF.

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
    with house_style() as pyplot:
        drawn = {entry["solver"] for panel in panels for entry in panel["entries"] if _drawn(entry)}
        columns = min(len(drawn), 5) if len(drawn) <= 5 and len(panels) > 1 else 4 if len(panels) > 1 else 3
        size = (max(3.6 * len(panels), 4.6) + 0.4, 5.2 + 0.2 * ceil(len(drawn) / columns))
        figure, axes = pyplot.subplots(2, len(panels), figsize=size, sharex="col", sharey="row", squeeze=False)
        floor = 0.2 * float(np.finfo(record["config"]["dtype"]).eps)
        for column, panel in zip(axes.T, panels, strict=True):
            for entry in panel["entries"]:
                if _drawn(entry):
                    _curve(column[0], entry["solver"], entry["residuals"], floor)
                    _curve(column[1], entry["solver"], entry["errors"], floor)
            column[0].set_title(panel["title"])
            column[1].set_xlabel("iteration")
            if panel["tolerance"] > 4 * floor:
                _note(column[0], panel["tolerance"], "tolerance")
                column[0].axhline(panel["tolerance"], color="0.45", linewidth=0.8, linestyle="--", zorder=0)
        _label(axes, floor)
        handles, labels = axes[0, 0].get_legend_handles_labels()
        if handles:
            figure.legend(handles, labels, loc="outside lower center", ncols=columns)
        figure.suptitle(record["title"], fontsize=10.5)
        paths = [folder / f"{stem}.png", folder / f"{stem}.pdf"]
        for path in paths:
            with replace_into_place(path) as part:
                figure.savefig(part, format=path.suffix[1:])
        pyplot.close(figure)
    return paths


def _drawn(entry: dict[str, Any]) -> bool:
    """Return whether a solver has a curve: the loop is the reference, and a curve of nothing finite shows nothing."""
    finite = any(np.isfinite(float(r)) for r in entry["residuals"])
    return finite and entry["solver"] != "sequential"


def _curve(axes: Any, solver: str, values: list[Any], floor: float) -> None:
    """Plot one solver; numbers below the floor (0 among them) are drawn on it, non-finite ones leave a gap."""
    y = np.array([float(v) for v in values])
    y = np.where(np.isfinite(y), np.maximum(y, floor), np.nan)
    marks = np.unique(np.round(np.geomspace(1, len(y), 10)).astype(int) - 1)
    axes.plot(np.arange(len(y)), y, label=solver, markevery=marks.tolist(), **line_arguments(solver))


def _label(axes: Any, floor: float) -> None:
    axes[0, 0].set_ylabel("residual  max |f(h[t-1]) − h[t]|")
    axes[1, 0].set_ylabel("error  max |h − h of the loop|")
    for row in axes:
        for panel in row:
            panel.set_yscale("log")
            panel.set_xscale("symlog", linthresh=1, linscale=0.4)
            last = _last_iteration(panel)
            panel.set_xlim(-0.15, 1.4 * last + 0.3)
            panel.xaxis.set_major_locator(_decades(last))
            panel.xaxis.set_major_formatter("{x:.0f}")
            panel.axhline(floor, color="0.75", linewidth=0.8, zorder=0)
            _note(panel, floor, "0 to rounding")


def _note(panel: Any, height: float, text: str) -> None:
    """Name a horizontal line at its left end, where no curve passes."""
    panel.annotate(
        text, (0.015, height), xycoords=("axes fraction", "data"), fontsize=7.5, color="0.35", ha="left", va="bottom"
    )


def _last_iteration(panel: Any) -> float:
    """Return the largest iteration of a curve; horizontal lines carry a transform of their own."""
    curves = [line.get_xdata() for line in panel.get_lines() if line.get_transform() == panel.transData]
    return float(max((x.max() for x in curves), default=1))


def _decades(last: float) -> Any:
    from matplotlib.ticker import FixedLocator

    ticks = [0, 1]
    while ticks[-1] * 10 <= last * 1.4:
        ticks.append(10 * ticks[-1])
    return FixedLocator(ticks)

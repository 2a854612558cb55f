"""Legends of cells, storages and guesses, whose looks :mod:`recsolve.plot.style` has."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import numpy as np

from recsolve.plot.axes import level as level  # who draws takes both from here
from recsolve.plot.style import series as series


def outside_legend(figure: Any, pyplot: Any, looks: Iterable[dict[str, Any]]) -> None:
    """Put lines of the given looks at the right of a figure."""
    handles = [pyplot.Line2D([], [], **look) for look in looks]
    figure.legend(handles=handles, loc="outside right upper")


def ending(axes: Any, x: Any, y: Any, why: str) -> None:
    """Say at the last finite point of a line why it goes no further; nothing where it does."""
    x, y = np.asarray(x, float), np.asarray(y, float)
    drawn = np.flatnonzero(np.isfinite(y))
    if drawn.size and drawn[-1] < len(y) - 1:
        at = x[drawn[-1]], y[drawn[-1]]
        line = {"arrowstyle": "-", "linewidth": 0.6, "color": "0.4", "shrinkB": 3}
        axes.annotate(why, at, xytext=(6, 14), textcoords="offset points", fontsize=7.5, arrowprops=line)


def legend_of(figure: Any, axes: Any) -> None:
    """Put the labelled lines of one panel at the right of a figure."""
    handles, labels = axes.get_legend_handles_labels()
    figure.legend(handles, labels, loc="outside right upper")

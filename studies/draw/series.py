"""Line styles for cells, storages and guesses. They differ by marker and dash as well as by colour."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import numpy as np

# Colours of Okabe and Ito from dark to light, so that neighbours differ in grey too.
_LOOKS: tuple[tuple[str, str, Any], ...] = (
    ("#000000", "o", "-"),
    ("#E69F00", "s", "--"),
    ("#0072B2", "^", (0, (1, 1))),
    ("#56B4E9", "D", "-."),
    ("#882255", "v", (0, (5, 1, 1, 1))),
    ("#999933", "P", (0, (6, 2))),
    ("#D55E00", "X", (0, (3, 1, 1, 1, 1, 1))),
    ("#009E73", "*", "-"),
)


def series(names: Iterable[str]) -> dict[str, dict[str, Any]]:
    """Return the arguments of ``Axes.plot`` for up to eight series, label included."""
    return {
        name: {
            "label": name,
            "color": color,
            "marker": marker,
            "linestyle": dashes,
            "markersize": 5,
            "markerfacecolor": "none" if i % 2 else color,
        }
        for i, (name, (color, marker, dashes)) in enumerate(zip(names, _LOOKS, strict=False))
    }


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


def level(axes: Any, height: float, text: str, side: str = "right") -> None:
    """Draw a thin horizontal line, and name it at one end."""
    axes.axhline(height, color="0.4", linewidth=0.8, linestyle=":", zorder=0)
    place = {"right": 0.99, "left": 0.01}[side]
    at = {"xycoords": ("axes fraction", "data"), "ha": side, "va": "bottom", "fontsize": 7.5}
    axes.annotate(text, (place, height), **at)

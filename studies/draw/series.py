"""Legends of cells, storages and guesses, whose looks :mod:`recsolve.plot.style` has."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from recsolve.plot.axes import level as level  # who draws takes both from here
from recsolve.plot.style import series as series


def outside_legend(figure: Any, pyplot: Any, looks: Iterable[dict[str, Any]]) -> None:
    """Put lines of the given looks at the right of a figure."""
    handles = [pyplot.Line2D([], [], **look) for look in looks]
    figure.legend(handles=handles, loc="outside right upper")

"""Shared parts of plots: axes to draw on, scales of iterations, maps, horizontal lines with a name."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

import numpy as np

from recsolve.base.arrays import Array
from recsolve.plot.style import house_style, integer_ticks

if TYPE_CHECKING:
    from matplotlib.axes import Axes

MAP = "cividis"  # its lightness grows evenly, so that it prints in grey
_FEW = 20  # iterations that an even scale shows


def hook(x: Any, name: str, argument: str, wanted: str) -> Any:
    """Return the method by which an object says what is drawn of it; TypeError for objects that have none."""
    found = getattr(x, name, None)
    if found is None or isinstance(x, type):
        own = f" (of the own steps {argument}.local is one)" if hasattr(getattr(x, "local", None), name) else ""
        raise TypeError(
            f"{argument} is {x.__name__ if isinstance(x, type) else type(x).__name__}; wanted {wanted}{own}"
        )
    return found


@contextmanager
def drawn_on(ax: Any, size: tuple[float, float] = (5.6, 3.6)) -> Iterator[Axes]:
    """Yield the axes to draw on, those of a new figure for None, in the house style and with even scales.

    Raises
    ------
    TypeError, ValueError
        For what is no Axes of matplotlib, and for polar axes and the like.
    """
    from matplotlib.axes import Axes

    if ax is not None and not isinstance(ax, Axes):
        raise TypeError(
            f"ax is {type(ax).__name__}; wanted one Axes of matplotlib, as pyplot.subplots() makes it, or None"
        )
    if ax is not None and ax.name != "rectilinear":
        raise ValueError(f"ax is a {ax.name} Axes; wanted a rectilinear one")
    with house_style() as pyplot:
        axes = pyplot.subplots(figsize=size)[1] if ax is None else ax
        axes.set_xscale("linear")
        axes.set_yscale("linear")
        yield axes


def level(axes: Any, height: float, text: str, side: str = "right", **line: Any) -> None:
    """Draw a thin horizontal line, and name it at one end."""
    axes.axhline(height, **{"color": "0.4", "linewidth": 0.8, "linestyle": ":", "zorder": 0, **line})
    place = {"right": 0.99, "left": 0.01}[side]
    at = {"xycoords": ("axes fraction", "data"), "ha": side, "va": "bottom", "fontsize": 7.5}
    axes.annotate(text, (place, height), **at)


def name_lines(axes: Any, own: bool, title: str | None = None) -> None:
    """Add a legend: beside axes of an own figure, which makes room for it, and inside those of the user."""
    if own:
        axes.legend(loc="upper left", bbox_to_anchor=(1.0, 1.0), title=title)
    else:
        axes.legend(loc="best", frameon=True, framealpha=0.8, title=title)


def counted(number: int, what: str = "iteration") -> str:
    """Return "1 iteration" or "3 iterations"."""
    return f"{number} {what}{'s' * (number != 1)}"


def note(axes: Any, text: str) -> None:
    """Say in the middle of axes why there is nothing else."""
    axes.text(0.5, 0.5, text, transform=axes.transAxes, ha="center", va="center", color="0.35")


def heat(axes: Any, x: Array, y: Array, z: Array, **arguments: Any) -> Any:
    """Draw a map ``z[y, x]`` of cells centred at the coordinates, as one image within vector files.

    With ``shading="flat"`` coordinates are the edges of cells, one more than there are. NaN is hatched: there was no
    answer.
    """
    axes.grid(False)
    axes.set_facecolor("0.85")
    axes.patch.set_hatch("xxxx")
    axes.patch.set_edgecolor("0.55")
    look = {"cmap": MAP, "shading": "nearest", "rasterized": True, **arguments}
    return axes.pcolormesh(x, y, np.ma.masked_invalid(z), **look)


def scale_iterations(axes: Any) -> None:
    """Make the axes logarithmic in y, iterations from 0 on in x, with room for the markers at the ends.

    Small counts can be read off: to 20 the scale is even, beyond that it is logarithmic, with a tick at each of 1 to 9.

    Parameters
    ----------
    axes : array of Axes, shape (rows, columns)
        Of which the last row gets labels.
    """
    for axis in axes[-1]:
        axis.set_xlabel("iteration")
    for axis in axes.flat:
        axis.set_yscale("log")
        # Axes that share their x share the scale, which the longest curve needs.
        last = max(_last_iteration(other) for other in axis.get_shared_x_axes().get_siblings(axis))
        _scale(axis, last)


def _scale(axis: Any, last: float) -> None:
    from matplotlib.ticker import MultipleLocator

    if last <= _FEW:
        axis.set_xscale("linear")
        axis.set_xlim(-0.04 * max(last, 1) - 0.1, 1.04 * max(last, 1) + 0.1)
        axis.xaxis.set_minor_locator(MultipleLocator(1))
    else:
        axis.set_xscale("symlog", linthresh=1, linscale=0.4)
        axis.set_xlim(-0.15, 1.4 * last + 0.3)
    integer_ticks(axis.xaxis)


def _last_iteration(panel: Any) -> float:
    """Return the largest iteration of a curve; horizontal lines carry a transform of their own."""
    curves = [line.get_xdata() for line in panel.get_lines() if line.get_transform() == panel.transData]
    return float(max((np.max(x) for x in curves if len(x)), default=1))

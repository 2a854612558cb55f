"""The residual of every step and every iterate: the front that solvers push through time."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from recsolve.base.arrays import Array
from recsolve.plot.axes import drawn_on, heat, hook, note
from recsolve.plot.sequences import AXES, chosen
from recsolve.plot.style import integer_ticks

if TYPE_CHECKING:
    from matplotlib.axes import Axes

_MOST = 512  # cells along an axis; what is finer is drawn by the largest of neighbours


@dataclass(frozen=True)
class History:
    """What is drawn of a trace.

    Attributes
    ----------
    residual : array, shape (nit + 1, T, *batch)
    solved : array of bool, shape (nit + 1, T, *batch)
        Whether a row is within tolerance, as are all before it.
    batch : int
        The number of axes of the batch.
    floor : float
        What 0 is drawn at.
    title, steps : str
        What was solved by which method, and what the axis of steps is called.
    """

    residual: Array
    solved: Array
    batch: int
    floor: float
    title: str
    steps: str


def residual_map(sol: Any, ax: Axes | None = None, *, sequence: Any = None) -> Axes:
    """Draw the residual of every step at every iteration as a map, time from left to right, iterations downwards.

    Parameters
    ----------
    sol : Solution
        Of a solve with ``options={"trace": True}``.
    ax : matplotlib Axes, optional
        Rectilinear; default: of a new figure. A bar of colours goes beside it.
    sequence : int or tuple of int, optional
        Which sequence of the batch; default: the largest residual over all.

    Returns
    -------
    matplotlib Axes
        Colours are logarithmic, light where the residual is large. The white line is the end of the leading rows within
        tolerance; hatched is what a window has not come to yet, or is not finite.

    Raises
    ------
    TypeError
        For anything but a Solution, and for another ``ax``.
    ValueError
        For a solution without trace (the message names the option that keeps it), and a sequence that there is not.

    Examples
    --------
    >>> import numpy as np, recsolve as rs
    >>> rec = rs.cells.GRU.random(input_size=3, hidden_size=4, rng=0).recurrence(np.ones((60, 3)))
    >>> ax = rs.plot.residual_map(rs.solve(rec, method="jacobi", options={"trace": True}))
    >>> ax.get_title().split(",")[0], ax.get_ylabel()
    ('jacobi: converged', 'iteration')
    """
    found: History = hook(sol, "_history", "sol", "a Solution of a solve with options={'trace': True}")()
    residual, solved = (chosen(x, sequence, 2, found.batch) for x in (found.residual, found.solved))
    batch = tuple(range(2, residual.ndim))
    rows = residual.astype(np.float64).max(axis=batch, initial=0.0)  # where one is inf or NaN, so is the whole
    prefix = solved.all(axis=batch).sum(axis=1)
    with drawn_on(ax) as axes:
        axes.set(title=found.title, xlabel=AXES[found.steps], ylabel="iteration")
        if not rows.size:
            note(axes, "no steps")
            return axes
        _draw(axes, rows, prefix, found.floor)
    return axes


def _draw(axes: Any, rows: Array, prefix: Array, floor: float) -> None:
    from matplotlib.colors import LogNorm

    count, T = rows.shape
    edges, z = _coarse(rows)
    z = np.where(np.isfinite(z), np.maximum(z, floor), np.nan)
    top = float(np.nanmax(z)) if np.isfinite(z).any() else floor
    image = heat(axes, edges[1], edges[0], z, norm=LogNorm(floor, max(top, 10 * floor)), shading="flat")
    axes.step(prefix - 0.5, np.arange(count), where="mid", color="w", linewidth=2.2)
    axes.step(prefix - 0.5, np.arange(count), where="mid", color="k", linewidth=0.8, linestyle="--")
    axes.set(xlim=(-0.5, T - 0.5), ylim=(count - 0.5, -0.5))
    axes.set_xlabel(f"{axes.get_xlabel()}   (dashed: up to here all rows are within tolerance)")
    integer_ticks(axes.xaxis)
    integer_ticks(axes.yaxis)
    bar = axes.figure.colorbar(image, ax=axes, label="residual  |f(h[t−1]) − h[t]|")
    bar.ax.annotate("0 to rounding", (1.2, 0.0), xycoords="axes fraction", fontsize=7.5, va="top", color="0.35")


def _coarse(rows: Array) -> tuple[list[Array], Array]:
    """Return the edges of cells along both axes, and the largest residual in each."""
    edges = []
    for axis, n in enumerate(rows.shape):
        starts = np.unique(np.linspace(0, n, min(n, _MOST) + 1).astype(int))
        rows = np.maximum.reduceat(rows, starts[:-1], axis=axis)
        edges.append(starts - 0.5)
    return edges, rows

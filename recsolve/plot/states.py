"""States against time."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from recsolve.base.arrays import Array
from recsolve.plot.axes import drawn_on, hook, name_lines, note
from recsolve.plot.sequences import AXES, chosen, selected
from recsolve.plot.style import integer_ticks, series

if TYPE_CHECKING:
    from matplotlib.axes import Axes

_MOST = 8  # lines that can be told from each other


@dataclass(frozen=True)
class Trajectory:
    """What is drawn of states.

    Attributes
    ----------
    parts : dict of array, each of shape (T, *batch, *its own)
        The components by name.
    solved : array of bool, shape (T, *batch)
        Rows within tolerance.
    batch : tuple of int
    title, steps : str
        What was solved by which method, and what the axis of steps is called.
    """

    parts: dict[str, Array]
    solved: Array
    batch: tuple[int, ...]
    title: str
    steps: str


def trajectory(
    sol: Any, ax: Axes | None = None, *, component: str | None = None, units: Any = None, sequence: Any = None
) -> Axes:
    """Draw states against time: units of the components of one sequence.

    Parameters
    ----------
    sol : Solution, WindowsSolution or LayersSolution
        Of the last two the output is drawn, for their states are not kept or in several layers.
    ax : matplotlib Axes, optional
        Rectilinear; default: of a new figure.
    component : str, optional
        The name of a component, as in ``sol.named``; default: all. States without names are called "h".
    units : sequence of int or of tuple of int, optional
        Which units of each component; tuples where a component has several axes. Default: up to eight lines in all,
        spread evenly.
    sequence : int or tuple of int, optional
        Which sequence of the batch; default: the first.

    Returns
    -------
    matplotlib Axes
        Steps that are not within the tolerance are shaded; the title says how much is left out.

    Raises
    ------
    TypeError
        For another kind of ``sol``, ``ax`` or ``units``.
    ValueError
        For a component, units or a sequence that there are not.

    Examples
    --------
    >>> import numpy as np, recsolve as rs
    >>> rec = rs.cells.LSTM.random(input_size=3, hidden_size=4, rng=0).recurrence(np.ones((60, 3)))
    >>> ax = rs.plot.trajectory(rs.solve(rec), units=[0, 3])
    >>> [line.get_label() for line in ax.get_lines()], ax.get_xlabel()
    (['h[0]', 'h[3]', 'c[0]', 'c[3]'], 'step t')
    """
    found: Trajectory = hook(sol, "_trajectory", "sol", "a Solution, a WindowsSolution or a LayersSolution")()
    batch, place = found.batch, sequence
    empty = sequence is None and 0 in batch
    if sequence is None and not empty:
        place = (0,) * len(batch)
    parts = {
        name: x.reshape(len(x), 0) if empty else chosen(x, place, 1, len(batch)) for name, x in found.parts.items()
    }
    lines, total = selected(parts, component, units, _MOST)
    with drawn_on(ax, (6.8, 3.6)) as axes:
        name = next(iter(parts)) if len(parts) == 1 else component
        axes.set(xlabel=AXES[found.steps], ylabel="state" if name is None else f"state {name}")
        axes.set_title(found.title + _left_out(lines, total, batch, place))
        T = len(found.solved)
        if empty or not T or not lines:
            note(axes, "no sequences" if empty else "no steps" if not T else "no units")
            return axes
        axes.set_xlim(-0.02 * T - 0.5, 1.02 * T - 0.5)
        integer_ticks(axes.xaxis)
        looks = series(name for name, _ in lines)
        marks = np.unique(np.linspace(0, T - 1, 9).astype(int))
        for i, (name, y) in enumerate(lines):
            # Markers of neighbours lie beside each other, so that lines that coincide are seen.
            places = np.unique(np.minimum(marks + i * (T // 80), T - 1)).tolist()
            axes.plot(np.arange(T), y, markevery=places, **{**looks[name], "linewidth": 1.1})
        _shade(axes, ~chosen(found.solved, place, 1, len(batch)))
        name_lines(axes, ax is None)
    return axes


def _left_out(lines: list[Any], total: int, batch: tuple[int, ...], place: Any) -> str:
    """Return in words what of the states is not drawn."""
    left = [f"{len(lines)} of {total} numbers"] if len(lines) < total else []
    if int(np.prod(batch)) > 1:
        left.append(f"sequence {place[0] if isinstance(place, tuple) and len(place) == 1 else place}")
    return f" ({'; '.join(left)})" if left else ""


def _shade(axes: Any, missed: Array) -> None:
    """Shade the steps that are not within the tolerance."""
    edges = np.flatnonzero(np.diff(np.concatenate([[False], missed, [False]]).astype(np.int8)))
    if len(edges):
        runs = [(start - 0.5, stop - start) for start, stop in edges.reshape(-1, 2).tolist()]
        place = {"transform": axes.get_xaxis_transform(), "facecolor": "0.88", "zorder": 0}
        axes.broken_barh(runs, (0, 1), label="not within\ntolerance", **place)

"""What a diagnosis found: exponents, and the iterations that solvers are expected to need."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from recsolve.base.arrays import Array
from recsolve.plot.axes import drawn_on, hook, level, note
from recsolve.plot.style import line_arguments

if TYPE_CHECKING:
    from matplotlib.axes import Axes

_SIGNS = {1: ("#D55E00", "^"), 0: ("#000000", "s"), -1: ("#0072B2", "o")}  # told apart by the marker too


@dataclass(frozen=True)
class Spectrum:
    """What is drawn of exponents.

    Attributes
    ----------
    exponents : array, shape (n,)
        Per step, largest first.
    title : str
    """

    exponents: Array
    title: str


@dataclass(frozen=True)
class Predictions:
    """What is drawn of predicted iterations.

    Attributes
    ----------
    counts : dict of int
        By method.
    length : int
        T, which is the count of a method that only the pin would end.
    left_out : tuple of str
    """

    counts: dict[str, int]
    length: int
    left_out: tuple[str, ...]


def spectrum(diagnosis: Any, ax: Axes | None = None, *, exponents: int | None = None, pilot: int | None = None) -> Axes:
    """Draw the leading Lyapunov exponents.

    Parameters
    ----------
    diagnosis : Diagnosis or Solution
        Of a Solution the exponents along its states are computed, whatever its status.
    ax : matplotlib Axes, optional
        Rectilinear; default: of a new figure.
    exponents, pilot : int, optional
        Of a Solution: how many exponents (default 4), and the number of leading steps that are looked at (default 256).

    Returns
    -------
    matplotlib Axes
        Triangles above 0 are directions in which perturbations grow: chaos. Circles below 0 are those that forget.

    Raises
    ------
    TypeError
        For another kind of ``diagnosis`` or ``ax``.
    ValueError
        For ``exponents`` or ``pilot`` that are no such numbers, or are given for a Diagnosis, which has its own; and
        for a Solution that has no exponents: on a graph, of discrete states, of fewer than 2 steps, or whose Jacobian
        is not known.

    Examples
    --------
    >>> import numpy as np, recsolve as rs
    >>> rec = rs.cells.GRU.random(input_size=3, hidden_size=4, rng=0).recurrence(np.ones((60, 3)))
    >>> ax = rs.plot.spectrum(rs.solve(rec), exponents=3)
    >>> ax.get_ylabel(), [round(float(x), 2) for x in ax.get_lines()[-1].get_ydata()]
    ('Lyapunov exponent (1 / step)', [-0.29, -0.39, -0.51])
    """
    found: Spectrum = hook(diagnosis, "_spectrum", "diagnosis", "a Diagnosis (rs.diagnose) or a Solution")(
        exponents, pilot
    )
    values = found.exponents
    with drawn_on(ax) as axes:
        level(axes, 0.0, "perturbations grow above, die out below", linestyle="-")
        finite, places = np.isfinite(values), np.arange(1, len(values) + 1)
        axes.vlines(places[finite], 0, values[finite], color="0.6", linewidth=1.2)
        for sign, (color, marker) in _SIGNS.items():
            of = finite & (np.sign(values) == sign)
            axes.plot(places[of], values[of], linestyle="none", marker=marker, color=color, markersize=7)
        for place, value in zip(places[~finite], values[~finite], strict=True):
            text = "−∞" if value < 0 else str(value)  # in a direction that J maps to 0 nothing is left
            axes.annotate(text, (place, 0.02), xycoords=axes.get_xaxis_transform(), ha="center")
        axes.set(title=found.title, xlabel="exponent, largest first", ylabel="Lyapunov exponent (1 / step)")
        axes.set_xlim(0.5, len(values) + 0.5)
        if len(values) <= 20:
            axes.set_xticks(places)
        axes.margins(y=0.15)
    return axes


def prediction(diagnosis: Any, ax: Axes | None = None) -> Axes:
    """Draw the iterations that solvers are expected to need, fewest at the top.

    Parameters
    ----------
    diagnosis : Diagnosis
        From :func:`recsolve.diagnose`.
    ax : matplotlib Axes, optional
        Rectilinear; default: of a new figure.

    Returns
    -------
    matplotlib Axes
        The dashed line is T, where only the pin ends a method: as many steps as the sequential loop takes.

    Raises
    ------
    TypeError
        For another kind of ``diagnosis`` or ``ax``.
    ValueError
        For axes that are not rectilinear.

    Examples
    --------
    >>> import numpy as np, recsolve as rs
    >>> rec = rs.cells.GRU.random(input_size=3, hidden_size=4, rng=0).recurrence(np.ones((60, 3)))
    >>> ax = rs.plot.prediction(rs.diagnose(rec, methods=["jacobi", "newton"]))
    >>> ax.get_xlabel(), [label.get_text() for label in ax.get_yticklabels()]
    ('predicted iterations for T = 60', ['newton', 'jacobi'])
    """
    found: Predictions = hook(diagnosis, "_predictions", "diagnosis", "a Diagnosis, which rs.diagnose returns")()
    counts = dict(sorted(found.counts.items(), key=lambda item: item[1]))
    with drawn_on(ax, (5.6, 1.2 + 0.21 * max(len(counts), 4))) as axes:
        axes.set_xlabel(f"predicted iterations for T = {found.length}")
        if found.left_out:
            axes.set_title(f"left out for want of time: {', '.join(found.left_out)}", fontsize=8.5, wrap=True)
        if not counts:
            note(axes, "no method was predicted")
            return axes
        for i, (name, count) in enumerate(counts.items()):
            axes.plot([1, max(count, 1)], [i, i], color="0.8", linewidth=1.0, zorder=1)
            axes.plot([max(count, 1)], [i], **{**line_arguments(name), "linestyle": "none"})
            axes.annotate(
                str(count), (max(count, 1), i), xytext=(8, 0), textcoords="offset points", va="center", fontsize=8
            )
        axes.set_xscale("log")
        axes.axvline(found.length, color="0.45", linewidth=0.8, linestyle="--", zorder=0)
        axes.set_xlim(0.9, 2.2 * max(found.length, *counts.values()))
        axes.annotate(
            "T", (found.length, 1.0), xycoords=("data", "axes fraction"), ha="center", va="bottom", fontsize=8
        )
        axes.xaxis.set_major_formatter("{x:.0f}")
        axes.set_yticks(range(len(counts)), list(counts))
        axes.set_ylim(len(counts) - 0.4, -0.6)
    return axes

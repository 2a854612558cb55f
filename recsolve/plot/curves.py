"""Residual and error against iteration."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

import numpy as np

from recsolve.base.arrays import Array, is_discrete
from recsolve.base.tolerance import Tolerance
from recsolve.plot.axes import counted, drawn_on, hook, name_lines, note, scale_iterations
from recsolve.plot.style import legible, line_arguments, look_of

if TYPE_CHECKING:
    from matplotlib.axes import Axes

RESIDUAL = "residual  max |f(h[t−1]) − h[t]|"
_WANTED = "a Solution, a LayersSolution or a Comparison, or a list or dict of such"
_PALE = {"alpha": 0.5, "linewidth": 0.9}


@dataclass(frozen=True)
class Curve:
    """What is drawn of one solve.

    Attributes
    ----------
    label, solver, status : str
        What the curve is called, the name of its method, and how the solve ended.
    iterations, last : int
        How many there were, and the number of the last iterate: one more after a completion.
    residuals : array, shape (n,)
        Of the last n iterates.
    errors : array, shape (m,)
        Of the last m iterates; none where no truth is known.
    tolerance, floor : float
        Up to where a residual of ordinary size is accepted, and below which numbers are rounding.

    Examples
    --------
    >>> import numpy as np
    >>> from recsolve.plot.curves import Curve
    >>> Curve("newton", "newton", "converged", 2, 2, np.array([1.0, 1e-3, 0.0]), np.empty(0), 8e-16, 4e-17).described
    'newton: converged, 2 iterations'
    """

    label: str
    solver: str
    status: str
    iterations: int
    last: int
    residuals: Array
    errors: Array
    tolerance: float
    floor: float

    @property
    def described(self) -> str:
        """The label, and how the solve ended."""
        return f"{self.label}: {self.status}, {counted(self.iterations)}"


def height_of(tolerance: Tolerance) -> float:
    """Return up to where a residual of states of ordinary size is accepted, apart from the part by ``rtol``."""
    return tolerance.atol * (1.0 if tolerance.lanes is None else tolerance.unit)


def floor_of(dtype: Any) -> float:
    """Return what numbers of a dtype are drawn at that are 0, or rounding."""
    return 0.2 * float(np.finfo(np.float64 if is_discrete(np.dtype(dtype)) else dtype).eps)


def convergence(sol: Any, ax: Axes | None = None, *, reference: Any = None) -> Axes:
    """Draw the residual of every iterate, and its error where the truth is known.

    Parameters
    ----------
    sol : Solution, LayersSolution, Comparison, or a sequence or mapping of these
        A mapping names its curves; of stacks each layer and direction is a curve.
    ax : matplotlib Axes, optional
        Rectilinear; default: of a new figure.
    reference : array of the shape of the states, float32 or float64, or Solution, optional
        The trajectory that errors are distances from, max |h - reference|: those of all iterates of solutions with
        ``options={"trace": "states"}``, of others that of the states returned. A Comparison knows its errors.

    Returns
    -------
    matplotlib Axes
        Logarithmic. Lines are residuals, pale ones errors; the dashed line is the tolerance, and the legend says how
        each solve ended. What is below a fifth of eps is drawn there. Numbers that are not finite leave a gap.

    Raises
    ------
    TypeError
        For another ``sol`` or ``ax``; the message names it.
    ValueError
        For an empty sequence, axes that are not rectilinear, or a reference of another shape.

    Examples
    --------
    >>> import numpy as np, recsolve as rs
    >>> rec = rs.cells.GRU.random(input_size=3, hidden_size=4, rng=0).recurrence(np.ones((60, 3)))
    >>> ax = rs.plot.convergence([rs.solve(rec, method=name) for name in ("newton", "jacobi")])
    >>> ax.get_xlabel(), [text.get_text().split(":")[0] for text in ax.get_legend().get_texts()]
    ('iteration', ['newton', 'jacobi'])
    """
    curves = _distinct(_curves(sol, reference))
    with drawn_on(ax, (7.4, 3.8)) as axes:
        if not curves:
            axes.set(xlabel="iteration", ylabel=RESIDUAL)
            note(axes, "no method that iterates")
            return axes
        many = len({curve.solver for curve in curves}) < len(curves)  # a method that comes twice needs two looks
        for i, curve in enumerate(curves):
            look = {**look_of(i), **_nested(i)} if many else line_arguments(curve.solver)
            draw_curve(axes, _numbers(curve, curve.residuals), curve.residuals, curve.floor, look)
            if curve.errors.size:
                draw_curve(axes, _numbers(curve, curve.errors), curve.errors, curve.floor, {**look, **_PALE})
            axes.plot([], [], label=legible(curve.described), **look)
        erring = any(curve.errors.size for curve in curves)
        if erring:
            axes.plot([], [], color="0.2", label="pale: error")
        draw_levels(axes, min(curve.floor for curve in curves), {curve.tolerance for curve in curves})
        axes.set_ylabel(RESIDUAL + (",\nerror  max |h − reference|" if erring else ""))
        scale_iterations(np.array([[axes]]))
        partial = getattr(sol, "complete", True) is False
        name_lines(axes, ax is None, "partial: not all have run" if partial else None)
    return axes


def _curves(sol: Any, reference: Any) -> list[Curve]:
    """Return the curves of one solution, or of several."""
    if isinstance(sol, Mapping):
        named = {str(name): _of_one(x, f"sol[{name!r}]", reference) for name, x in sol.items()}
        found = [
            replace(c, label=name if len(some) == 1 else f"{name}, {c.label}")
            for name, some in named.items()
            for c in some
        ]
    elif isinstance(sol, (list, tuple)):
        found = [curve for i, x in enumerate(sol) for curve in _of_one(x, f"sol[{i}]", reference)]
    else:
        return _of_one(sol, "sol", reference)
    if not found:
        raise ValueError(f"sol is an empty {type(sol).__name__}; wanted {_WANTED}")
    return found


def _of_one(x: Any, argument: str, reference: Any) -> list[Curve]:
    return hook(x, "_curves", argument, _WANTED)(reference)  # type: ignore[no-any-return]


def _nested(i: int) -> dict[str, Any]:
    """Return the marker of series ``i``: small ones lie within large ones where curves coincide."""
    return {"markersize": 10 - 1.6 * (i % 5), "markerfacecolor": "none", "markeredgewidth": 1.3}


def _distinct(curves: Sequence[Curve]) -> list[Curve]:
    """Return curves with labels that differ: those that come again are counted."""
    labels = [curve.label for curve in curves]
    seen = [labels[: i + 1].count(label) for i, label in enumerate(labels)]
    return [
        curve if labels.count(curve.label) == 1 else replace(curve, label=f"{curve.label} ({n})")
        for curve, n in zip(curves, seen, strict=True)
    ]


def _numbers(curve: Curve, y: Array) -> Array:
    """Return the iterations that numbers belong to: the last ones, where a compiled loop kept no others."""
    return np.arange(len(y)) + max(curve.last + 1 - len(y), 0)


def draw_curve(axes: Any, x: Array, y: Array, floor: float, look: Mapping[str, Any]) -> None:
    """Plot numbers of iterates: those below the floor (0 among them) on it, a gap where they are not finite."""
    y = np.where(np.isfinite(y), np.maximum(y, floor), np.nan)
    marks = np.unique(np.round(np.geomspace(1, max(len(y), 1), 10)).astype(int) - 1)
    axes.plot(x, y, markevery=marks.tolist(), **look)


def draw_levels(axes: Any, floor: float, tolerances: Iterable[float]) -> None:
    """Draw the floor, and tolerances where they are above it."""
    axes.axhline(floor, color="0.75", linewidth=0.8, zorder=0)
    _name(axes, floor, "0 to rounding")
    for tolerance in tolerances:
        if tolerance > 4 * floor:
            axes.axhline(tolerance, color="0.45", linewidth=0.8, linestyle="--", zorder=0)
            _name(axes, tolerance, "tolerance")


def _name(axes: Any, height: float, text: str) -> None:
    """Name a horizontal line at its left end, where no curve passes."""
    at = {"xycoords": ("axes fraction", "data"), "fontsize": 7.5, "color": "0.35", "ha": "left", "va": "bottom"}
    axes.annotate(text, (0.015, height), **at)

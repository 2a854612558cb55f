"""One colour, marker and line per solver, the same in every figure of the project; looks of other series; ticks."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from importlib.resources import as_file, files
from typing import Any
from zlib import crc32


@dataclass(frozen=True)
class Style:
    """How a solver is drawn: colours of Okabe and Ito, sizes that keep coinciding curves visible."""

    color: str
    marker: Any
    line: Any
    size: float
    filled: bool = False


STYLES: dict[str, Style] = {
    "sequential": Style("#000000", "*", "-", 8, filled=True),
    "newton": Style("#0072B2", "o", "-", 9),
    "quasi_newton": Style("#E69F00", "s", "--", 6),
    "damped_newton": Style("#009E73", "x", "-.", 4.5),
    "jacobi": Style("#D55E00", "^", (0, (1, 1)), 6, filled=True),
    "picard": Style("#CC79A7", "v", (0, (6, 2)), 6, filled=True),
    "chord": Style("#56B4E9", "D", "-", 5),
    "scaled_newton": Style("#332288", "P", "--", 6, filled=True),
    "clipped_newton": Style("#882255", "X", "-.", 4.5, filled=True),
    "relaxed_newton": Style("#999933", "h", "-", 7),
    "broyden": Style("#117733", ">", "--", 6),
    "diagonal_broyden": Style("#44AA99", "<", "-.", 6),
    "triangular_anderson": Style("#661100", "p", (0, (3, 1, 1, 1)), 7),
    "gauss_seidel": Style("#6699CC", "d", (0, (5, 1)), 6, filled=True),
    "multiple_shooting": Style("#AA4499", "H", (0, (5, 1, 1, 1)), 7),
    "parareal": Style("#DDAA33", "8", (0, (2, 2)), 6),
    "elk": Style("#EE6677", "1", "-", 11),
    "levenberg_marquardt": Style("#7733CC", "2", "--", 8),
    "newton_krylov": Style("#66CCEE", "3", "-.", 8),
    "anderson": Style("#BBBB44", "4", (0, (1, 3)), 11),
    "auto": Style("#222255", (8, 2, 0), (0, (6, 1)), 7),
    "windowed": Style("#777777", "|", "-", 8),
    "chain": Style("#AA3377", "_", (0, (1, 2)), 8),
    "adaptive_shooting": Style("#BB5566", (5, 1, 0), "-", 9),
    "mgrit": Style("#004488", "+", (0, (4, 1, 1, 1, 1, 1)), 7),
}


def style_of(solver: str) -> Style:
    """Return the style of a solver; one that is not listed gets a star in a colour that follows from its name."""
    if solver in STYLES:
        return STYLES[solver]
    number = crc32(solver.encode())
    return Style(f"#{number & 0xBFBFBF:06x}", (4 + number % 5, 1, 0), "-", 8)  # no channel above 0xBF: never pale


def line_arguments(solver: str) -> dict[str, Any]:
    """Return the arguments of ``Axes.plot`` for a solver."""
    style = style_of(solver)
    return {
        "color": style.color,
        "marker": style.marker,
        "linestyle": style.line,
        "markersize": style.size,
        "markerfacecolor": style.color if style.filled else "none",
        "markeredgewidth": 1.3,
        "zorder": 3 - style.size / 20,  # small markers lie on large ones where curves coincide
    }


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
    """Return the arguments of ``Axes.plot`` for series, label included; up to eight differ in colour too."""
    return {name: {"label": legible(name), **look_of(i)} for i, name in enumerate(names)}


def legible(label: str) -> str:
    """Return a label that legends show: they leave out those that begin with an underscore, without a word."""
    return f"\u200b{label}" if label.startswith("_") else label


def look_of(i: int) -> dict[str, Any]:
    """Return the arguments of ``Axes.plot`` for series ``i``; after eight the colours come again with other markers."""
    color = _LOOKS[i % 8][0]
    _, marker, dashes = _LOOKS[(i + i // 8) % 8]
    return {
        "color": color,
        "marker": marker,
        "linestyle": dashes,
        "markersize": 5,
        "markerfacecolor": "none" if i % 2 else color,
    }


@contextmanager
def house_style() -> Iterator[Any]:
    """Yield pyplot on a backend without a display, in the house style, leaving global settings as they were."""
    import matplotlib
    from matplotlib import pyplot

    # Now a backend that is still to be loaded makes its settings: that of notebooks turns interactive mode on.
    pyplot.draw_if_interactive()  # type: ignore[no-untyped-call]
    with as_file(files("recsolve.plot") / "recsolve.mplstyle") as path:
        with matplotlib.rc_context(), matplotlib.style.context(str(path)):
            yield pyplot


def integer_ticks(axis: Any) -> None:
    """Put the ticks of an axis that counts at whole numbers, written as such: 0, 1, 2, 5, 10, not 2.5 or 10^0.

    Parameters
    ----------
    axis : matplotlib Axis
        ``axes.xaxis`` or ``axes.yaxis``, whose scale is set already: linear, "log" or "symlog" (with a threshold of 1).
    """
    from matplotlib.ticker import MaxNLocator

    if axis.get_scale() == "linear":
        axis.set_major_locator(MaxNLocator(nbins="auto", integer=True, steps=[1, 2, 5, 10], min_n_ticks=1))
        axis.set_major_formatter("{x:.0f}")
    else:
        plain_ticks(axis, least=1)


def plain_ticks(axis: Any, least: float = 0) -> None:
    """Write the ticks of a logarithmic axis as plain numbers, as many as fit: 0.5, 1, 2, 5, not 5 x 10^-1."""
    from matplotlib.ticker import NullFormatter

    from recsolve.plot.ticks import Decades

    axis.set_major_locator(Decades(least))
    axis.set_minor_locator(Decades(least, labelled=False))
    axis.set_major_formatter("{x:g}")
    axis.set_minor_formatter(NullFormatter())

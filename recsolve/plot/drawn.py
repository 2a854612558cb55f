"""What can be drawn has a method ``plot``."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, ClassVar

from recsolve.plot.curves import convergence
from recsolve.plot.exponents import prediction, spectrum
from recsolve.plot.maps import residual_map
from recsolve.plot.states import trajectory

if TYPE_CHECKING:
    from matplotlib.axes import Axes

# Every plot, and the method by which an object says that it has what is drawn.
PLOTS: dict[str, tuple[Any, str]] = {
    "convergence": (convergence, "_curves"),
    "residual_map": (residual_map, "_history"),
    "trajectory": (trajectory, "_trajectory"),
    "spectrum": (spectrum, "_spectrum"),
    "prediction": (prediction, "_predictions"),
}


class Drawn:
    """The base of results that draw themselves: what they have a hook of is a kind of plot."""

    _first: ClassVar[str] = "convergence"

    def plot(self, kind: str | None = None, ax: Axes | None = None, **settings: Any) -> Axes:
        """Draw it: one of the functions of :mod:`recsolve.plot`, by name.

        Parameters
        ----------
        kind : str, optional
            "convergence" (the default of solutions and comparisons), "residual_map", "trajectory" (the default of
            solutions in windows), "spectrum" or "prediction" (the default of diagnoses), as far as there is
            what they draw.
        ax : matplotlib Axes, optional
            Rectilinear; default: of a new figure.
        **settings
            Of that function.

        Returns
        -------
        matplotlib Axes

        Raises
        ------
        TypeError, ValueError
            For a kind that there is not, and as that function.

        Examples
        --------
        >>> import numpy as np, recsolve as rs
        >>> rec = rs.cells.GRU.random(input_size=3, hidden_size=4, rng=0).recurrence(np.ones((60, 3)))
        >>> rs.solve(rec).plot().get_xlabel(), rs.solve(rec).plot("trajectory").get_xlabel()
        ('iteration', 'step t')
        """
        kinds = [name for name, (_, hook) in PLOTS.items() if hasattr(type(self), hook)]
        name = self._first if kind is None else kind
        if name not in kinds:
            raise ValueError(f"kind is {kind!r}; wanted one of {', '.join(kinds)} for a {type(self).__name__}")
        draw, _ = PLOTS[name]
        return draw(self, ax, **settings)  # type: ignore[no-any-return]

"""Ticks of logarithmic axes at plain numbers; matplotlib is imported with this module."""

from __future__ import annotations

from typing import Any

import numpy as np
from matplotlib.ticker import Locator, MaxNLocator

# Digits of every decade that get a tick: of these the most whose labels do not touch.
_DIGITS = (tuple(range(1, 10)), (1, 2, 3, 4, 5), (1, 2, 3, 5), (1, 2, 5), (1, 3), (1,))
_WIDTH, _GAP, _HEIGHT = 0.22, 0.2, 0.6  # of a digit, between labels, of a line: in units of ``Axis.get_tick_space``


class Decades(Locator):
    """Ticks at 0, where it is in view, and at digits of the decades from ``least`` on, at all without labels."""

    def __init__(self, least: float = 0, labelled: bool = True):
        self.least, self.labelled = least, labelled

    def __call__(self) -> Any:
        axis: Any = self.axis
        return self.tick_values(*sorted(axis.get_view_interval()))

    def tick_values(self, vmin: float, vmax: float) -> Any:
        low = max(vmin, self.least) if vmin > 0 else 1.0
        decades = 10.0 ** np.arange(np.floor(np.log10(low)), np.ceil(np.log10(max(vmax, low))) + 1)
        ticks = np.empty(0)
        for digits in _DIGITS:
            ticks = np.ravel(np.outer(decades, digits))
            ticks = np.concatenate([[0.0] if vmin <= 0 else [], ticks[(ticks >= low) & (ticks <= vmax)]])
            if not self.labelled or self._fit(ticks, vmin, vmax):
                break
        if not self.labelled or len(ticks) > (0 if self.least else 1):
            return ticks
        return MaxNLocator(3, integer=self.least >= 1).tick_values(vmin, vmax)

    def _fit(self, ticks: Any, vmin: float, vmax: float) -> bool:
        """Return whether labels at some places do not touch."""
        axis: Any = self.axis
        transform = axis.get_transform().transform
        low, high = transform(np.array([vmin, vmax]))
        gaps = np.diff(transform(ticks)) / (high - low) * axis.get_tick_space()
        digits = np.array([len(f"{tick:g}") for tick in ticks])
        needed = _GAP + _WIDTH * (digits[1:] + digits[:-1]) / 2 if axis.axis_name == "x" else _HEIGHT
        return bool((gaps >= needed).all())

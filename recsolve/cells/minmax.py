"""The elementwise neuron of MinMax recurrent neural cascades: a clamp that moves."""

from __future__ import annotations

from typing import Any

from recsolve.math import maximum, minimum
from recsolve.recurrence.cell import Cell


def minmax(s: Any, W: Any, u: Any, p: Any) -> Any:
    """x = max(min(r, x), s): r bounds from above, s writes from below; s > r is a hard reset to s."""
    return maximum(minimum(u.r, s.x), u.s)


MinMax = Cell(minmax, state=("x",), output="x", cite="Ronca, arXiv 2605.06384")

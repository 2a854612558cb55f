"""An iterate: a trajectory, f evaluated there, its residual, and the Jacobian if it has been computed."""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from functools import cached_property
from typing import Any, Self

import numpy as np

from recsolve.base.arrays import Array, to_host
from recsolve.base.tolerance import Tolerance
from recsolve.jacobians import Jacobian
from recsolve.kernels.gpu.judged import Judged
from recsolve.solvers.state import PerRow, State


@dataclass(frozen=True)
class Iterate(State):
    """A trajectory with its evaluation and tests; nothing in it belongs to another trajectory.

    ``Problem.evaluate`` makes iterates; their arrays are not to be written.

    Attributes
    ----------
    states, values, residual : array, shape (T, *batch, *event), dtype of the recurrence
        h, F[t] = f(h[t-1], u[t]) and r = F - h.
    converged : array of bool, shape (T, *batch)
        Rows whose every entry meets ``tolerance``.
    tolerance : Tolerance
        The test that was applied.
    leading : array of bool, shape (T, *batch)
        Exact rows, and only such rows before them, back to the start of their sequence or the last reset. They are
        the sequential loop's own: their residual is 0, or was when the pin took F from an exact row before (f of other
        rows beside them may round otherwise).
    front : array of bool, shape (T, *batch)
        The row after the leading ones in each segment.
    worst : float
        max |r|, NaN if any entry is.
    judged : Judged or None
        What kernels on a GPU have found out about it, where they did.
    blocked : bool
        Whether each segment has converged, or has converged up to a row that equals its own non-finite F: no method can
        go further.

    Examples
    --------
    >>> import numpy as np, recsolve as rs
    >>> rec = rs.Recurrence.from_function(lambda h, u: h / 2 + u, inputs=np.ones((4, 1)), initial=np.zeros(1))
    >>> problem = rs.solvers.Problem(rec, rs.solve(rec).tolerance, pin=True, jacobian=False)
    >>> iterate = problem.evaluate(np.array([[1.0], [1.5], [0.0], [0.0]]))
    >>> iterate.worst, iterate.leading.tolist(), iterate.front.tolist()
    (1.75, [True, True, False, False], [False, False, True, False])
    """

    states: PerRow[Array]
    values: PerRow[Array]
    residual: PerRow[Array]
    converged: PerRow[Array]
    tolerance: Tolerance
    leading: PerRow[Array]
    front: PerRow[Array]
    worst: float
    blocked: bool
    judged: Judged | None = field(default=None, kw_only=True, repr=False)  # what kernels on a GPU have told of it

    @cached_property
    def progress(self) -> int:
        """The number of leading rows, over all sequences."""
        return int(self.leading.sum()) if self.judged is None else self.judged.progress

    @cached_property
    def done(self) -> bool:
        """Whether all rows have converged."""
        return bool(self.converged.all()) if self.judged is None else self.judged.done

    @property
    def leading_times(self) -> int:
        """How many times there are, from the first one on, at which all sequences lead."""
        return leading_times(self.leading) if self.judged is None else self.judged.leading_times

    @property
    def converged_times(self) -> int:
        """How many times there are, from the first one on, at which all sequences have converged."""
        return leading_times(self.converged) if self.judged is None else self.judged.converged_times

    def part(self, index: tuple[Any, ...]) -> Self:
        """Return the iterate at some times and sequences (an index of the axes (T, *batch))."""
        part = super().part(index)
        return replace(part, worst=largest(part.residual), judged=None)


@dataclass(frozen=True)
class Linearised(Iterate):
    """An iterate that carries its Jacobian, for solvers whose matrix A is made of it.

    Attributes
    ----------
    jacobian : Jacobian
        J[t] = d F[t] / d h[t-1], in the structure of the recurrence.

    Examples
    --------
    >>> import numpy as np, recsolve as rs
    >>> rec = rs.Recurrence.from_function(lambda h, u: h / 2 + u, inputs=np.ones((4, 1)), initial=np.zeros(1))
    >>> problem = rs.solvers.Problem(rec, rs.solve(rec).tolerance, pin=True, jacobian=True)
    >>> iterate = problem.evaluate(rec.guess())
    >>> type(iterate).__name__, iterate.jacobian.data.ravel().tolist()
    ('Linearised', [0.5, 0.5, 0.5, 0.5])
    """

    jacobian: PerRow[Jacobian]


def largest(residual: Array) -> float:
    """Return max |r|, NaN if any entry is, 0 of nothing."""
    return float(to_host(abs(residual).max())) if residual.size else 0.0


def leading_times(rows: Array) -> int:
    """Return how many leading times are true in all sequences, of rows (T, *batch, ...)."""
    host = to_host(rows)
    good: Array = host.reshape(len(host), -1).all(axis=1) if host.size else np.ones(len(host), bool)  # type: ignore[assignment]
    first = int(good.argmin()) if len(good) else 0  # the first False, where there is one
    return len(host) if not len(good) or good[first] else first

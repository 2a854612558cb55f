"""What happened during a solve, iterate by iterate."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping

import numpy as np

from recsolve.base.arrays import Array, to_host
from recsolve.recurrence.base import Recurrence
from recsolve.solvers.active import Active
from recsolve.solvers.iterate import Iterate


class Trace:
    """The history of a solve: rs.solve(..., options={"trace": True}).trace.

    Attributes
    ----------
    residual : array, shape (nit + 1, T, *batch)
        max |r| of every row of every iterate (a heat map of the causal front); inf where a window has not come to yet.
    converged_prefix : array of int, shape (nit + 1, *batch)
        Leading rows of every sequence within tolerance.
    leading : array of bool, shape (nit + 1, T, *batch)
        These rows.
    iterates : tuple of array, each of shape (T, *batch, *event)
        The states of every iterate, on the host, with ``"trace": "states"``; else empty.
    counts : dict of array, each of shape (nit + 1,)
        ``nfev``, ``njev``, ``nscan`` and ``rows`` (at how many (t, sequence) f has been evaluated) up to each iterate.
    settings : dict of array, each of shape (nit + 1, *batch)
        What the solver adapts, by name: ``weight`` of damped_newton, ``damping`` of elk and levenberg_marquardt. NaN
        for sequences that had been set aside.

    Examples
    --------
    >>> import numpy as np, recsolve as rs
    >>> rec = rs.Recurrence.from_function(
    ...     lambda h, u: 0.5 * h + u, inputs=np.ones((3, 1)), initial=np.zeros(1), structure="diagonal")
    >>> trace = rs.solve(rec, method="jacobi", options={"trace": True}).trace
    >>> trace.converged_prefix.tolist(), trace.residual[:, -1].tolist()  # a step more is solved in each iteration
    ([1, 2, 3], [0.5, 0.25, 0.0])
    """

    def __init__(self, counts: Counter[str], recurrence: Recurrence | None = None):
        self._counts, self._recurrence = counts, recurrence  # None: states are not kept
        self._states: list[Array] = []
        self._residuals: list[Array] = []
        self._converged: list[Array] = []
        self._counted: list[dict[str, int]] = []
        self._settings: list[dict[str, Array]] = []

    def record(self, active: Active, iterate: Iterate, report: Mapping[str, Array]) -> None:
        """Add an iterate."""
        self._residuals.append(active.sizes(iterate))
        if self._recurrence is not None:
            self._states.append(to_host(self._recurrence.as_given(active.states(iterate))).copy())
        self._converged.append(active.converged(iterate))
        self._counted.append(dict(self._counts))
        self._settings.append({name: active.over_batch(value) for name, value in report.items()})

    def finish(self, iterate: Iterate) -> None:
        """Replace the record of the last iterate by its evaluation with f for all t at once."""
        axes = tuple(range(self._residuals[-1].ndim, iterate.residual.ndim))
        self._residuals[-1] = to_host(abs(iterate.residual).max(axis=axes))
        self._converged[-1] = to_host(iterate.converged.copy())

    @property
    def residual(self) -> Array:
        return np.stack(self._residuals)

    @property
    def leading(self) -> Array:
        return np.asarray(np.logical_and.accumulate(np.stack(self._converged), axis=1))

    @property
    def converged_prefix(self) -> Array:
        return np.asarray(self.leading.sum(axis=1))

    @property
    def iterates(self) -> tuple[Array, ...]:
        return tuple(self._states)

    @property
    def counts(self) -> dict[str, Array]:
        return {name: np.array([counted[name] for counted in self._counted]) for name in self._counted[0]}

    @property
    def settings(self) -> dict[str, Array]:
        names = {name for settings in self._settings for name in settings}
        missing = np.full(self._converged[0].shape[1:], np.nan)
        return {name: np.stack([settings.get(name, missing) for settings in self._settings]) for name in sorted(names)}

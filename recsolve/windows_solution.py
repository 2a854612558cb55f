"""What a solve in windows of time returns: its output, and of its states the last of each window."""

from __future__ import annotations

from functools import cached_property
from typing import TYPE_CHECKING, Any, Generic

import numpy as np

from recsolve.analysis.structure_truth import Verification
from recsolve.analysis.trust import Estimate, EstimateInOrder, not_trusted
from recsolve.base.arrays import Array, UserArray, is_discrete, namespace, ordered_empty, to_host
from recsolve.base.links import RECORDERS, Leaf, linked
from recsolve.base.names import Names
from recsolve.dataset import dataset_of_windows
from recsolve.plot.drawn import Drawn
from recsolve.plot.states import Trajectory
from recsolve.shown import title
from recsolve.solution import ConvergenceError, Solution
from recsolve.windows import InWindows, SolvedWindow, Windows

if TYPE_CHECKING:
    from xarray import Dataset


class WindowsSolution(InWindows, Drawn, Generic[UserArray]):
    """A trajectory that was solved window after window: its output, and of its states the last of each window.

    :func:`recsolve.solve` returns it with ``every=L``. States in between are solved again where they are needed: by
    :func:`recsolve.adjoint`, by ``trusted`` and what else asks for an error, and by :meth:`again`.

    Attributes
    ----------
    output : array, shape (T, *batch, ...)
        What the recurrence shows of its states at all t; of a function without ``readout`` that is the states.
    ends : array, shape (windows, *batch, *event)
        The last state of every window.
    final : array, shape (*batch, *event)
        The last one (``initial`` when T = 0). Of tensors that require grad, gradients go back from ``output``, ``ends``
        and ``final``, window by window as :func:`recsolve.adjoint` does it; second derivatives are not known.
    named_ends, named_final : Names
        By component, of a cell or a function with named states.
    windows : tuple of SolvedWindow
        Of every window its ``status``, ``message``, ``nit``, ``residual``, ``tolerance``, ``converged_prefix`` and
        ``stats``.
    nit : int
        Iterations of all windows together.
    residuals : array, shape (windows,)
        max |f(h[t-1]) - h[t]| of every window, of the states that its output shows.
    converged_prefix : int
        How many leading rows of the whole, of all sequences, meet the tolerance.
    stats : dict
        The sums of those of all windows; ``completed_from`` is the first row that a sequential fallback computed.
    solver : Method
    recurrence : Recurrence
    every : int
        L.
    cut : Cut
        Where windows begin and end: ``sol.cut.steps(index)``.

    Examples
    --------
    >>> import numpy as np, recsolve as rs
    >>> rec = rs.cells.GRU.random(input_size=3, hidden_size=4, rng=0).recurrence(np.ones((100, 3)))
    >>> sol = rs.solve(rec, every=32)
    >>> sol.success, sol.output.shape, sol.ends.shape
    (True, (100, 4), (4, 4))
    >>> bool(np.array_equal(sol.ends[1], sol.again(1).final))
    True
    """

    def __init__(
        self,
        windows: Windows,
        solved: tuple[SolvedWindow, ...],
        ends: Array,
        output: Array,
        linked: dict[Leaf, Any] | None = None,
    ):
        self.recurrence, self.every, self.solver = windows.recurrence, windows.every, windows.solver
        self.windows, self.cut = solved, windows.cut
        self._windows, self._ends, self._output = windows, ends, output
        self._recorded: dict[str, Any] = RECORDERS["windows"](self, linked) if linked else {}

    def __getstate__(self) -> dict[str, Any]:
        """Return what a copy in another process needs: there is no graph of tensors there."""
        return {**vars(self), "_recorded": {}}

    @property
    def output(self) -> UserArray:
        return self._recorded.get("output", self.recurrence.wrap(self._output))  # type: ignore[no-any-return]

    @property
    def ends(self) -> UserArray:
        return self._recorded.get("ends", self.recurrence.wrap(self._ends))  # type: ignore[no-any-return]

    @property
    def final(self) -> UserArray:
        if "final" in self._recorded:
            return self._recorded["final"]  # type: ignore[no-any-return]
        return self.recurrence.wrap(self._ends[-1] if len(self._ends) else self.recurrence.initial)  # type: ignore[no-any-return]

    @property
    def named_ends(self) -> Names:
        return self.recurrence.named(self.ends)

    @property
    def named_final(self) -> Names:
        return self.recurrence.named(self.final)

    def again(self, index: int) -> Solution[UserArray]:
        """Return the solution of one window with its states, solved again as it was.

        Parameters
        ----------
        index : int
            0 <= index < windows.

        Returns
        -------
        Solution
            Of ``recurrence.window(start, stop, initial)`` from the last state of the window before; bit for bit what it
            was, unless the method is not deterministic.

        Raises
        ------
        ValueError
            For anything else.
        """
        if not isinstance(index, (int, np.integer)) or not 0 <= index < len(self.windows):
            raise ValueError(
                f"index is {index!r}; wanted an integer 0 <= index < {len(self.windows)}, the number of windows"
            )
        return self._windows.solved(index, self._ends)

    @property
    def message(self) -> str:
        """The status with its advice, and where; once ``trusted`` has been asked for, also what it means."""
        text = super().message
        if self._worst is not None or self._discrete or "_looked" not in vars(self) or self.trusted:
            return text
        derivative, found, _ = self._looked
        return f"{text}; {not_trusted(derivative, found)}"

    @property
    def _discrete(self) -> bool:
        return is_discrete(self.recurrence.dtype)

    @cached_property
    def _looked(self) -> tuple[Verification, Estimate, float]:
        """Whether the Jacobian is the derivative in all windows, the error of the whole, and kappa; solves again."""
        running, derivative = EstimateInOrder(self.recurrence), Verification(True, 0.0)
        for index in range(len(self.windows)):
            solution = self.again(index)
            found = solution._derivative
            if found.holds is False or found.missing:
                return found, Estimate(float("nan"), float("nan"), linear=False), float("nan")
            derivative = derivative if found.holds else found
            running.add(solution.recurrence, solution._iterate.states)
        return derivative, running.estimate, running.condition

    @property
    def condition(self) -> float:
        """kappa of the whole, where J is diagonal; else NaN, for its estimate needs all states at once."""
        return self._looked[2]

    @property
    def error_estimate(self) -> float:
        """An estimate of max |h - h of the exact recurrence| over all t, as that of a :class:`recsolve.Solution`.

        What a window is off by at its end is carried into the next one. On first use all windows are solved again.
        """
        return 0.0 if self._discrete and self.success else self._looked[1].error

    @property
    def trusted(self) -> bool:
        """Whether every window converged, and the error of the whole is estimated to be small.

        As ``trusted`` of a :class:`recsolve.Solution`, but where f has no finer arithmetic (float64 on a GPU, say) and
        units couple it is False: rounding is then judged by kappa, which is not known.
        """
        if self._discrete or not self.success:
            return self.success
        derivative, found, _ = self._looked
        return derivative.holds is True and found.small

    def to_xarray(self) -> Dataset:
        """Return the output, the last states and how the windows ended as a Dataset of xarray, on the host.

        Returns
        -------
        Dataset
            ``output`` (time, batch, ...), ``ends_NAME`` (window, batch, ...) of every component, ``residuals`` and
            ``iterations`` (window); else as that of a :class:`recsolve.Solution`.

        Examples
        --------
        >>> import numpy as np, recsolve as rs
        >>> rec = rs.cells.GRU.random(input_size=3, hidden_size=4, rng=0).recurrence(np.ones((100, 3)))
        >>> data = rs.solve(rec, every=32).to_xarray()
        >>> dict(data.sizes), data.attrs["every"]
        ({'time': 100, 'unit': 4, 'window': 4}, 32)
        """
        return dataset_of_windows(self)

    _first = "trajectory"

    def _trajectory(self) -> Trajectory:
        rec = self.recurrence
        counts = np.repeat([window.converged_prefix for window in self.windows], self.every)[: rec.length]
        solved = np.arange(rec.length) % self.every < counts
        over = np.broadcast_to(solved.reshape(-1, *(1,) * len(rec.batch)), (rec.length, *rec.batch))
        return Trajectory({"output": to_host(self._output)}, over, rec.batch, title(self), "step")

    def _facts(self) -> dict[str, str]:
        asked = "_looked" in vars(self)
        known = f"{self.trusted} (error about {self.error_estimate:.1e})" if asked else "ask sol.trusted"
        return {**super()._facts(), "recurrence": repr(self.recurrence), "trusted": known}

    def _details(self) -> dict[str, str]:
        """Return also what asks for all windows to be solved again."""
        trusted, stats, found = self.trusted, self.stats, self.residuals
        counts = [window.nit for window in self.windows]
        more = {
            "residual": f"{found.max():.1e} at most, in window {int(found.argmax())}" if len(found) else "no windows",
            "iterations": f"{min(counts, default=0)} to {max(counts, default=0)} a window",
            "evaluations": f"f {stats.get('nfev', 0)}, J {stats.get('njev', 0)}, scans {stats.get('nscan', 0)}",
            "error": f"about {self.error_estimate:.1e}, kappa {self.condition:.1e}",
        }
        return self._facts() | more | {"trusted": str(trusted)}


def solve_windows(windows: Windows) -> WindowsSolution:
    """Solve window after window, and keep the output and the last state of each.

    Parameters
    ----------
    windows : Windows

    Returns
    -------
    WindowsSolution

    Raises
    ------
    ConvergenceError
        Where the settings say so: of the first window that does not converge, which a note names.
    """
    windows.check()
    rec = windows.recurrence
    tensors = linked(rec, rec.kind)
    ends = namespace(rec.initial).empty((len(windows) if rec.length else 0, *rec.shape[1:]), dtype=rec.dtype)
    output, known = None, []
    for index in range(len(windows)):
        try:
            solution = windows.solved(index, ends)
        except ConvergenceError as error:
            error.add_note(f"in {windows.cut.place(index)}")
            raise
        states = solution._iterate.states
        shown = solution.recurrence.output(states)
        if output is None:
            output = ordered_empty((rec.length, *shown.shape[1:]), shown, rec._order)
        output[windows.cut.steps(index)] = shown
        if len(states):
            ends[index] = states[-1]
        known.append(SolvedWindow.of(solution))
    assert output is not None
    return WindowsSolution(windows, tuple(known), ends, output, tensors)

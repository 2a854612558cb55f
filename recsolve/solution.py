"""What a solve returns."""

from __future__ import annotations

from functools import cached_property
from typing import TYPE_CHECKING, Any, Generic

import numpy as np

from recsolve import shown
from recsolve.analysis.condition import condition
from recsolve.analysis.error_bound import error_bound
from recsolve.analysis.structure_truth import Verification, verify_jacobian
from recsolve.analysis.trust import Estimate, estimate
from recsolve.base.arrays import Array, UserArray, is_discrete, to_host
from recsolve.base.links import RECORDERS, Leaf
from recsolve.base.names import Names
from recsolve.base.report import Reported
from recsolve.base.status import Status
from recsolve.base.tolerance import Tolerance
from recsolve.dataset import dataset
from recsolve.plot.curves import Curve
from recsolve.plot.drawn import Drawn
from recsolve.plot.exponents import Spectrum
from recsolve.plot.maps import History
from recsolve.plot.states import Trajectory
from recsolve.recurrence.base import Recurrence
from recsolve.solve_trace import Trace
from recsolve.solvers.evaluation import Settled
from recsolve.solvers.iterate import Iterate, leading_times
from recsolve.solvers.method import Method

if TYPE_CHECKING:
    from xarray import Dataset


class Solution(Reported, Drawn, Generic[UserArray]):
    """A trajectory with its residual, status and counts.

    Attributes
    ----------
    states : array, shape (T, *batch, *event)
        The iterate that all of the following speaks about.
    named, named_final : Names
        ``states`` and ``final`` by component, as views in their own shapes, of a cell or a function with named states.
    output : array, shape (T, *batch, *lanes, n)
        What the cell shows of the states; of a function, the states; with a ``readout`` what that gives.
    final : array, shape (*batch, *event)
        The last state, to be the ``initial`` of the next call (``initial`` itself when T = 0).
        Of tensors that require grad, gradients go back from ``states``, ``named``, ``output`` and ``final``, unless the
        solve was under ``torch.no_grad()``.
    success : bool
        Whether the status is ``converged``: every entry meets ``tolerance``. Not yet whether the trajectory is close
        to the true one, which ``trusted`` says.
    status : Status
        See :class:`recsolve.Status`.
    nit : int
        Iterations, which is one less than the number of iterates.
    residuals : array, shape (nit + 1,)
        max |f(h[t-1]) - h[t]| of every iterate, 1 while discrete states differ; the last entry is that of ``states``. A
        sequential completion appends its own. Where compiled loops iterate by themselves (``windowed`` on NumPy arrays,
        ``quasi_newton`` and ``jacobi`` on a GPU, unless a callback or trace asks for iterates) the last entry is the
        only one.
    converged_prefix, exact_prefix : int
        How many leading rows, of all sequences, meet ``tolerance``; have a residual of exactly 0. On a graph, how many
        leading levels.
    converged_rows : array of bool, shape (T, *batch)
        Rows of which every entry meets ``tolerance``.
    converged_entries : array of bool, shape (T, *batch, *event)
        Entries that meet it: where the status is ``nonfinite``, what is right beside the numbers that are not.
    stats : dict
        ``nfev`` and ``njev`` (evaluations of f and of its Jacobian at all t that were not solved yet, the guess and the
        sequential loop counting as one each), ``njvp`` (products with a Jacobian that is not formed), ``rows`` (at how
        many steps of sequences f was evaluated; pilots of ``auto`` and products with J not counted), ``nscan``,
        ``seconds`` (wall time, without what follows), ``compile_seconds`` (how long the calling thread waited for
        loops and kernels to be compiled, or loaded from disk: seconds on first use, then 0), and ``completed_from``
        (the first row that the sequential fallback computed, or None).
    solver : Method
        The settings that were used.
    trace : Trace or None
        The residual of every row of every iterate and more, with ``options={"trace": True}``.
    tolerance : Tolerance
        What has been tested, of every entry of ``states``: |r| <= atol m + rtol max(|h|, |f|), see
        :class:`recsolve.base.tolerance.Tolerance`; ``str`` of it states it with its numbers. It is the requested one,
        unless f rounds otherwise for all t at once than for the part of the rows that was solved last: then atol and
        rtol are larger by 1, 2, 4, 8 or 16 default tolerances, as few as are needed, and the message says so.
    recurrence : Recurrence

    Examples
    --------
    >>> import numpy as np, recsolve as rs
    >>> rec = rs.Recurrence.from_function(
    ...     lambda h, u: 0.5 * h + u, inputs=np.ones((3, 1)), initial=np.zeros(1), structure="diagonal")
    >>> sol = rs.solve(rec)
    >>> sol.success, sol.trusted, sol.nit, sol.states.ravel().tolist()
    (True, True, 1, [1.0, 1.5, 1.75])
    """

    def __init__(
        self,
        recurrence: Recurrence[UserArray],
        solver: Method,
        iterate: Iterate | Settled,
        status: Status,
        residuals: list[float],
        nit: int,
        stats: dict[str, Any],
        remark: str,
        asked: Tolerance,
        trace: Trace | None = None,
        linked: dict[Leaf, Any] | None = None,
    ):
        self.recurrence, self.solver, self.tolerance, self.status = recurrence, solver, iterate.tolerance, status
        self.nit, self.stats, self.residuals = nit, stats, np.array(residuals)
        self.trace: Trace | Any = trace  # Any, for whoever asks has given the option
        self._iterate, self._remark, self._asked = iterate, remark, asked
        self._linked = linked or {}
        # What gradients go back from, by name. Recorded here, so that torch tells which tensors change after the solve.
        self._recorded: dict[str, Any] = RECORDERS["solution"](self, self._linked) if linked else {}

    def __getstate__(self) -> dict[str, Any]:
        """Return what a copy in another process needs: there is no graph of tensors there."""
        gone = ("states", "output", "final") if self._linked else ()
        return {**{n: x for n, x in vars(self).items() if n not in gone}, "_linked": {}, "_recorded": {}}

    @cached_property
    def states(self) -> UserArray:
        if "states" in self._recorded:
            return self._recorded["states"]  # type: ignore[no-any-return]
        return self.recurrence.wrap(self.recurrence.as_given(self._iterate.states))  # type: ignore[no-any-return]

    @cached_property
    def output(self) -> UserArray:
        if "output" in self._recorded:
            return self._recorded["output"]  # type: ignore[no-any-return]
        shown = self.recurrence.output(self._iterate.states)
        return self.recurrence.wrap(self.recurrence.as_given(shown))  # type: ignore[no-any-return]

    @cached_property
    def final(self) -> UserArray:
        states = self._iterate.states
        if self.recurrence.graph is not None:
            raise AttributeError("final is the state after the last step, and a graph has none; take it from states")
        if "final" in self._recorded:
            return self._recorded["final"]  # type: ignore[no-any-return]
        return self.recurrence.wrap(states[-1] if len(states) else self.recurrence.initial)  # type: ignore[no-any-return]

    @property
    def named(self) -> Names:
        return self.recurrence.named(self.states)

    @property
    def named_final(self) -> Names:
        return self.recurrence.named(self.final)

    @property
    def success(self) -> bool:
        return self.status is Status.CONVERGED

    @cached_property
    def converged_rows(self) -> Array:
        return to_host(self.recurrence.as_given(self._iterate.converged.copy()))

    @cached_property
    def converged_entries(self) -> Array:
        iterate = self._iterate
        return to_host(
            self.recurrence.as_given(iterate.tolerance.met(iterate.states, iterate.values, iterate.residual))
        )

    @property
    def converged_prefix(self) -> int:
        return self.recurrence.depth_of(leading_times(self._iterate.converged))

    @property
    def exact_prefix(self) -> int:
        return self.recurrence.depth_of(exact_prefix(self._iterate))

    @cached_property
    def condition(self) -> float:
        """kappa, by which a residual may be amplified into an error; computed on first use (a few scans).

        NaN where it is not known: f has no derivative that automatic differentiation finds, or the declared structure
        or jacobian is not its derivative at the states. NaN of discrete states, to which it does not apply.
        """
        return float("nan") if self._without_derivative else condition(self.recurrence, self._iterate.states)

    @cached_property
    def _derivative(self) -> Verification:
        """Whether the Jacobian that the recurrence gives is the derivative at the states."""
        return verify_jacobian(self.recurrence, self.recurrence.previous(self._iterate.states))

    @property
    def _without_derivative(self) -> bool:
        return self._derivative.holds is False or self._derivative.missing

    @property
    def _discrete(self) -> bool:
        """Whether equality was the test, so that what has converged is the one solution, bit for bit."""
        return is_discrete(self.recurrence.dtype)

    @cached_property
    def _estimate(self) -> Estimate:
        """The error to first order; NaN where ``condition`` is."""
        if self._discrete and self.success:
            return Estimate(0.0, 0.0, linear=True)
        if self._without_derivative:
            return Estimate(float("nan"), float("nan"), linear=False)
        return estimate(self.recurrence, self._iterate.states)

    @property
    def error_estimate(self) -> float:
        """An estimate of max |h - h of the exact recurrence|, rounding included; computed on first use.

        It is the next step of Newton's method, from a residual in finer arithmetic (float64 for float32, NumPy's long
        double for float64), which sees the rounding of f too, and what one more step adds to it. It is no bound: where
        the second step is small it is the error to a few percent, as in a calibration of docs/reliability.md. Where
        there is no finer arithmetic (float64 on a GPU, functions that take one dtype only, matrix products that would
        take seconds) rounding counts as kappa eps max(1, ``recurrence.rounding``) max |h|, which is more than it is.
        Infinite when the scan overflows; NaN where ``condition`` is, but 0 of discrete states that have converged.
        """
        return self._estimate.error

    @cached_property
    def error_bound(self) -> float:
        """A rigorous bound on max |h - h of the exact recurrence| for the states returned, whatever the status.

        Exact means without rounding, from the weights, drives and parameters as they are stored (the input projection
        of a cell is data). The sequential loop in the dtype of the states is within the same bound: the rounding of f
        is counted twice. Computed on first use, by interval arithmetic: several evaluations of f and as many scans.

        It is infinite where nothing could be proved:

        - the states are not all finite;
        - the recurrence expands (chaos, a very long memory), so that the balls in which J is enclosed grow without end;
          lanes of more than 128 coupled numbers count as expanding when |J|, entry by entry, does;
        - a condition, a step (sign, floor) or a pole lies within reach of the states, or f bends too much for states so
          far from the truth;
        - f uses more than elementwise operations (and, for states of up to 128 numbers, indexing, shape functions and
          matmul), powers other than multiples of 1/2, or array methods that intervals lack; a declared ``jacobian`` is
          no help, for it cannot be enclosed;
        - the recurrence is on a graph;
        - the arrays are CuPy's.

        Discrete states that have converged are the loop's own: the bound is 0.

        Notes
        -----
        The mean value form over balls, verified by induction over t: see :mod:`recsolve.analysis.error_bound`, and
        Moore, Kearfott and Cloud, "Introduction to Interval Analysis" (2009). NumPy's elementary functions are taken to
        be within 4 units in the last place.

        Examples
        --------
        >>> import numpy as np, recsolve as rs
        >>> cell = rs.cells.GRU.random(input_size=3, hidden_size=8, mixing="diagonal", rng=0)
        >>> sol = rs.solve(cell.recurrence(np.ones((100, 3))), tol=1e-6)
        >>> sol.error_bound < 1e-5
        True
        """
        if self._discrete:
            return 0.0 if self.success else float("inf")
        return error_bound(self.recurrence, self._iterate.states)

    @cached_property
    def trusted(self) -> bool:
        """Whether it converged, and the error that its residual and rounding cause is estimated to be small.

        Small is one percent of the largest |h| of what belongs together: the units of a lane where they couple, or a
        unit and its components, of one sequence at all t. The estimate is ``error_estimate``, which must also be seen
        to be good: a second step of Newton's method is to add less than half of the first. It is no proof;
        ``error_bound`` proves. Nothing is trusted whose Jacobian is not known to be the derivative: see ``condition``.
        Of discrete states no error is left to estimate: it is ``success``, and the message says so.
        """
        if self._discrete:
            return self.success
        return self.success and self._derivative.holds is True and self._estimate.small

    @property
    def message(self) -> str:
        """The status with its advice; once ``trusted`` has been asked for, also what it means for the trajectory."""
        remark = self._remark
        if self.success:
            remark = "; ".join(filter(None, [_tested(self.tolerance, self._asked), remark]))
        text = f"{self.status}: {remark or self.status.advice}"
        if self.success and self._discrete and "trusted" in vars(self):
            return f"{text}; no error is left to trust or doubt, since states are discrete"
        if not self.success or vars(self).get("trusted", True):
            return text
        if not self._derivative.holds:
            return f"{text}; but it is not trusted: {self._derivative.reason}"
        found = self._estimate
        off = f"about {found.error:.1e}" if found.linear and np.isfinite(found.error) else "more than is known"
        return (
            f"{text}; but the trajectory may be off by {off} although its residual is small, which is not small for "
            f"states of this size (kappa = {self.condition:.1e}: chaos, a very long memory, or a coarse tolerance)"
        )

    def to_xarray(self) -> Dataset:
        """Return the states by component, the residuals and how it ended as a Dataset of xarray, on the host.

        Returns
        -------
        Dataset
            A variable per component (``h`` where they have no names) with the dimensions ``time``, or ``node`` on a
            graph, ``batch``, and those of the component: ``lane`` and ``unit``, or the axes that the user named; where
            there are several of a kind they are numbered. Also ``output`` where a readout shows something else,
            ``residuals`` (iteration), ``converged`` (time, batch), and ``row_residual`` (iteration, time, batch) of a
            trace; on a graph its dimension is ``row``, the nodes in the order of levels. Names of the user's that are
            taken get an underscore. Attributes are the method, status, message, counts and the tolerance. It can be
            written to NetCDF.

        Examples
        --------
        >>> import numpy as np, recsolve as rs
        >>> rec = rs.cells.LSTM.random(input_size=3, hidden_size=4, rng=0).recurrence(np.ones((60, 5, 3)))
        >>> data = rs.solve(rec).to_xarray()
        >>> data["c"].dims, data.attrs["status"], data.sizes["time"]
        (('time', 'batch', 'unit'), 'converged', 60)
        """
        return dataset(self)

    def _curves(self, reference: Any) -> list[Curve]:
        return shown.curves(self, reference)

    def _history(self) -> History:
        return shown.history(self)

    def _trajectory(self) -> Trajectory:
        return shown.trajectory(self)

    def _spectrum(self, exponents: int | None, pilot: int | None) -> Spectrum:
        return shown.spectrum(self, exponents, pilot)

    def _facts(self) -> dict[str, str]:
        return shown.facts(self)

    def _details(self) -> dict[str, str]:
        trusted = self.trusted  # asked first, for the message then says what it means
        return self._facts() | shown.details(self) | {"trusted": str(trusted)}


def _tested(tolerance: Tolerance, asked: Tolerance) -> str:
    """Return in words the test that every entry has met."""
    if tolerance == asked:
        return str(tolerance)
    return (
        f"{tolerance} (wider than asked by {tolerance.atol - asked.atol:.1e}, because f rounds otherwise for all t at "
        "once than for the rows that were solved last, or one by one)"
    )


def exact_prefix(iterate: Iterate | Settled) -> int:
    """Return how many leading rows have a residual of exactly 0 in all sequences."""
    if isinstance(iterate, Settled) and iterate.worst == 0:
        return len(iterate.states)
    return leading_times(iterate.residual == 0)


class ConvergenceError(RuntimeError):
    """Raised by ``fallback="raise"``.

    Parameters
    ----------
    solution : Solution
        What was computed; also an attribute.

    Examples
    --------
    >>> import numpy as np, recsolve as rs
    >>> rec = rs.cells.GRU.random(input_size=2, hidden_size=4, rng=0).recurrence(np.ones((30, 2)))
    >>> try:
    ...     rs.solve(rec, method="jacobi", maxiter=1, fallback="raise")
    ... except rs.ConvergenceError as error:
    ...     print(error.solution.status, error.solution.nit)
    maxiter 1
    """

    def __init__(self, solution: Solution):
        super().__init__(solution.message)
        self.solution = solution

    def __reduce__(self) -> Any:
        return type(self), (self.solution,), self.__dict__

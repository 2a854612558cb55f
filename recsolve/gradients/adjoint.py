"""Gradients through a solution: one reverse scan with the true Jacobian, whichever solver made the states.

At a solution h[t] = f(h[t-1], u[t]) the adjoint variables obey g[t] = J[t+1]^T g[t+1] + c[t], with c[t] the cotangent
of h[t]. They are exact however the states were found, and every gradient is a local product with them.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from functools import cached_property
from typing import Any, NamedTuple, overload

import numpy as np

from recsolve.analysis.structure_truth import verify_jacobian
from recsolve.base.arrays import Array, is_discrete, namespace
from recsolve.base.names import Names
from recsolve.gradients.function_gradients import Cotangents, OfCell, pull_function
from recsolve.gradients.of_history import adjoint_of, pass_back, pull
from recsolve.gradients.of_windows import WindowsGradients
from recsolve.gradients.sensitivity import CellSensitivity, projection_of
from recsolve.gradients.transposes import sum_to
from recsolve.jacobians import Jacobian
from recsolve.kernels.affine_scan import reverse_solve
from recsolve.mixings import from_plain
from recsolve.recurrence.base import Recurrence, check_known
from recsolve.recurrence.cell_recurrence import CellRecurrence
from recsolve.recurrence.function import FunctionRecurrence
from recsolve.recurrence.history import HistoryRecurrence
from recsolve.recurrence.ragged_recurrence import RaggedRecurrence, weight_name
from recsolve.solution import Solution
from recsolve.windows_solution import WindowsSolution


class _Compiled(NamedTuple):
    """Gradients that compiled loops have computed along with the adjoint variables, as engines return them."""

    drives: list[Array]
    constants: Array
    initial: Array


class Gradients:
    """The result of :func:`adjoint`; each gradient is computed when it is first read.

    Arrays are of the kind and dtype of the recurrence. An attribute that the recurrence does not have raises
    AttributeError.

    Attributes
    ----------
    states : array, shape (T, *batch, *event)
        The adjoint variables g[t], the gradient with respect to a perturbation added to h[t].
    named : Names
        ``states`` by component, of a cell or a function with named states.
    initial : array, shape (*batch, *event), or Names
        With respect to h[0], by component where a function has named states; resets included where they go back to it
        (those of a window go to h[0] of the whole).
    drive : Names
        Of a cell: with respect to each drive, in its own shape.
    inputs : array, or tuple or dict of arrays
        With respect to x (when the recurrence came from an input), or to the inputs of a function, in their shapes.
    parameters : Names
        With respect to the parameters of a function, or the elementwise ones of a cell, in their own shapes.
    mixings : Names
        Of a cell: with respect to mixing weights, in their own shapes.
    projection : Names
        Of a cell on an input: ``weights`` and ``biases``, each by drive.

    Examples
    --------
    >>> import numpy as np, recsolve as rs
    >>> rec = rs.Recurrence.from_function(
    ...     lambda h, u: 0.5 * h + u, inputs=np.ones((3, 1)), initial=np.zeros(1), structure="diagonal")
    >>> g = rs.adjoint(rs.solve(rec), final=np.ones(1))
    >>> g.inputs.ravel().tolist(), g.initial.tolist()
    ([0.25, 0.5, 1.0], [0.125])
    """

    def __init__(self, recurrence: Recurrence, trajectory: Array, cotangent: Array, direct: Cotangents | None = None):
        self._recurrence = recurrence
        self._direct = direct  # what a readout depends on besides the states
        engine = recurrence.bind()
        self._compiled: _Compiled | None = None
        self._trajectory = trajectory
        if isinstance(recurrence, HistoryRecurrence):
            self._g = adjoint_of(recurrence, trajectory, cotangent)
            return
        if (found := engine.adjoint(trajectory, cotangent)) is not None:
            self._g, self._compiled = found[0], _Compiled(*found[1:])
            return
        with np.errstate(all="ignore"):
            self._previous = recurrence.previous(trajectory)
            _, self._J = engine.differentiate(self._previous)
            check_jacobian(recurrence, self._previous, self._J)
            self._g = reverse_solve(self._J, recurrence.over_event(recurrence.starts), cotangent)

    @property
    def states(self) -> Any:
        """g[t], shape (T, *batch, *event)."""
        return self._recurrence.wrap(self._recurrence.as_given(self._g.copy()))

    @property
    def named(self) -> Names:
        """g[t] by component."""
        return self._recurrence.named(self.states)

    @property
    def initial(self) -> Any:
        """With respect to h[0], shape (*batch, *event); by component where a function has named states."""
        return self._by_component(self._initial)

    def _by_component(self, x: Array) -> Any:
        rec = self._recurrence
        found = rec.wrap(x)
        return rec.named(found) if isinstance(rec, FunctionRecurrence) and rec.state is not None else found

    @cached_property
    def _initial(self) -> Array:
        xp, rec = namespace(self._g), self._recurrence
        if isinstance(rec, HistoryRecurrence):  # F does not look at it
            return xp.zeros_like(rec.initial)  # type: ignore[no-any-return]
        if self._compiled is not None:
            into = self._compiled.initial
            initial = np.moveaxis(into, 0, len(rec.batch)) if rec.layout.components > 1 else into[0]
            return xp.ascontiguousarray(initial, self._g.dtype)  # type: ignore[no-any-return]
        return self._into(rec.from_initial)

    @cached_property
    def _restart(self) -> Array:
        """With respect to what resets of a window go back to, where that is not the state before it."""
        xp, rec = namespace(self._g), self._recurrence
        if rec.reset is None or rec.restart is rec.initial or self._compiled is not None:  # then there are no resets
            return xp.zeros_like(rec.initial)  # type: ignore[no-any-return]
        return self._into(rec.reset)

    def _into(self, steps: Array) -> Array:
        """Return the cotangent of one state that is seen at these steps, (T, *batch)."""
        xp, rec = namespace(self._g), self._recurrence
        into = xp.where(rec.over_event(steps), self._J.rmatvec(self._g), self._g.dtype.type(0))
        return into.sum(axis=tuple(range(into.ndim - rec.initial.ndim)))  # type: ignore[no-any-return]

    @cached_property
    def _function(self) -> tuple[list[Array], dict[str, Array] | None]:
        """With respect to inputs and parameters of a function; None where the ``pull`` of a history has none."""
        rec = self._recurrence
        assert isinstance(rec, FunctionRecurrence)
        parameters: dict[str, Array] | None
        if isinstance(rec, HistoryRecurrence):
            inputs, parameters = pull(rec, self._trajectory, self._g)
        else:
            check_known(rec, FunctionRecurrence)
            _, inputs, parameters = pull_function(rec, rec.f, self._previous, self._g)
        if self._direct is None:
            return inputs, parameters
        inputs = [a + b for a, b in zip(inputs, self._direct.inputs, strict=True)]
        return inputs, None if parameters is None else _sums(parameters, self._direct.parameters)

    @cached_property
    def _sensitivity(self) -> CellSensitivity:
        return CellSensitivity(self._cell("drive"), self._previous)

    @cached_property
    def _pulled(self) -> tuple[dict[Any, Array], list[tuple[str, Array, Array]]]:
        if self._compiled is None:
            return self._sensitivity.pull(self._g)
        names = self._cell("gradients").cell.cell
        constants = [*(("mixing", n) for n in names.mixings), *(("parameter", n) for n in names.parameters)]
        leaves = {("drive", n): g for n, g in zip(names.drives, self._compiled.drives, strict=True)}
        totals, batch = self._compiled.constants, tuple(range(1, 1 + len(self._recurrence.batch)))
        totals = totals.sum(axis=batch) if batch else totals  # of all at once: on a GPU each sum is a launch
        totals = totals.astype(self._g.dtype)
        return leaves | dict(zip(constants, totals, strict=True)), []

    @cached_property
    def _weights(self) -> dict[str, Array]:
        if isinstance(self._recurrence, RaggedRecurrence):
            gradients = self._function[1] or {}
            return {n: gradients[weight_name(n)] for n in self._recurrence.cell.mixings}
        if self._compiled is not None:
            mixings = self._cell("mixings").cell.mixings
            pulled = {n: sum_to(self._pulled[0]["mixing", n], m.weight.shape) for n, m in mixings.items()}
            return {n: from_plain(mixings[n], g) for n, g in pulled.items()}
        return self._sensitivity.weights(self._pulled[1])

    def _cell(self, what: str) -> CellRecurrence:
        if not isinstance(self._recurrence, CellRecurrence):
            raise AttributeError(f"{what} belongs to cells; a function has inputs")
        return self._recurrence

    def _drives_of(self, what: str) -> CellRecurrence | RaggedRecurrence:
        return self._recurrence if isinstance(self._recurrence, RaggedRecurrence) else self._cell(what)

    def _of(self, kind: str, like: Mapping[str, Array]) -> dict[str, Array]:
        leaves, _ = self._pulled
        zeros, dtype = namespace(self._g).zeros, self._g.dtype  # of indices too, which have no gradient
        return {
            n: sum_to(leaves[kind, n], x.shape) if (kind, n) in leaves else zeros(x.shape, dtype)
            for n, x in like.items()
        }

    def _names(self, entries: Mapping[str, Array], what: str) -> Names:
        return Names({n: self._recurrence.wrap(x) for n, x in entries.items()}, what)

    @property
    def drive(self) -> Names:
        """With respect to each drive of a cell, in its own shape."""
        return self._names(self._drive, "drive")

    @cached_property
    def _drive(self) -> dict[str, Array]:
        drive = self._drives_of("drive").drive
        if isinstance(self._recurrence, RaggedRecurrence):
            return dict(zip(drive, self._function[0], strict=True))
        found = self._of("drive", drive)
        return found if self._direct is None else _sums(found, dict(zip(drive, self._direct.inputs, strict=True)))

    @property
    def parameters(self) -> Names:
        """With respect to the parameters of a function, or the elementwise ones of a cell, each in its own shape."""
        rec = self._recurrence
        if isinstance(rec, FunctionRecurrence):
            if (gradients := self._function[1]) is None:
                raise TypeError(
                    f"pull of {rec.description} returned the cotangents of y and u alone; wanted those of p"
                )
            names = rec.cell.parameters if isinstance(rec, RaggedRecurrence) else gradients
            return self._names({n: gradients[n] for n in names}, "parameter")
        found = self._of("parameter", self._cell("parameters").cell.parameters)
        return self._names(found if self._direct is None else _sums(found, self._direct.parameters), "parameter")

    @property
    def mixings(self) -> Names:
        """With respect to the weights of the mixings of a cell, each in its own shape."""
        self._drives_of("mixings")
        return self._names(self._weights, "mixing")

    @cached_property
    def inputs(self) -> Any:
        """With respect to x, or to the inputs of a function in the container they came in."""
        rec = self._recurrence
        if isinstance(rec, FunctionRecurrence) and not isinstance(rec, RaggedRecurrence):
            return rec.contain([rec.wrap(rec.as_given(g)) for g in self._function[0]])
        projection, _ = self._projected()
        return rec.wrap(projection.pull(self._drive))

    @cached_property
    def projection(self) -> Names:
        """With respect to ``weights`` and ``biases`` of the input projection of a cell, each by drive."""
        projection, x = self._projected()
        weights, biases = projection.weight_cotangents(self._drive, x)
        return Names({"weights": self._names(weights, "weight"), "biases": self._names(biases, "bias")}, "gradient")

    def _projected(self) -> tuple[Any, Array]:
        rec = self._drives_of("projection")
        projection = projection_of(rec)
        if projection is None or rec.x is None:
            raise AttributeError("the recurrence was given drives, not an input x; its gradients are in .drive")
        return projection, rec.x


@overload
def adjoint(
    solution: Solution, *, states: Any = ..., output: Any = ..., final: Any = ..., unconverged: bool = ...
) -> Gradients: ...


@overload
def adjoint(
    solution: WindowsSolution, *, states: Any = ..., output: Any = ..., final: Any = ..., unconverged: bool = ...
) -> WindowsGradients: ...


def adjoint(
    solution: Any, *, states: Any = None, output: Any = None, final: Any = None, unconverged: bool = False
) -> Any:
    """Return the gradients of a scalar function of a solution, given its derivatives with respect to the states.

    Parameters
    ----------
    solution : Solution or WindowsSolution
        Of one that was solved with ``every=L`` windows are gone through from the last to the first, the states of each
        solved again, so that the memory is that of the states of one window.
    states : array, shape (T, *batch, *event), or mapping of arrays, optional
        Cotangent of ``solution.states``, or of some of its components by name; as the other two of the kind and dtype
        of the states.
    output : array, optional
        Cotangent of ``solution.output``, in its shape. Cotangents that are given add up.
    final : array, shape (*batch, *event), or mapping of arrays, optional
        Cotangent of ``solution.final``, or of some of its components by name.
    unconverged : bool
        Whether to differentiate a solution that has not converged, at which these are not gradients.

    Returns
    -------
    Gradients or WindowsGradients

    Raises
    ------
    ValueError
        For an unconverged solution, no cotangent, a wrong shape, or a function whose declared structure or jacobian is
        not its derivative.
    TypeError
        For another kind or dtype of arrays. Gradients with respect to drives, parameters and weights raise it where a
        subclass of a recurrence overrides f; those of weights, where a mixing defines no ``weight_cotangent``; and all
        where an F of a history uses operations without a transpose and has no ``pull``.

    Notes
    -----
    Lim et al., ICLR 2024 (arXiv 2309.12252), section 3; the Jacobian is the true one for every solver.

    Examples
    --------
    >>> import numpy as np, recsolve as rs
    >>> cell = rs.cells.GRU.random(input_size=2, hidden_size=4, rng=0)
    >>> sol = rs.solve(cell.recurrence(np.ones((30, 2))), method="quasi_newton")
    >>> g = rs.adjoint(sol, output=2 * sol.output)  # of the sum of squares
    >>> g.mixings.r.shape, g.inputs.shape
    ((4, 4), (30, 2))
    """
    rec = recurrence_of(solution, unconverged, windows=True)
    given = {"states": states, "output": output, "final": final}
    if all(x is None for x in given.values()):
        raise ValueError("no cotangent is given; pass states=, output= or final=")
    if isinstance(solution, WindowsSolution):
        return WindowsGradients(solution, given, adjoint)
    trajectory = solution._iterate.states

    def native(x: Any, name: str, like: Array) -> Array:
        return rec.in_order(rec.by_name(x, name, rec.as_given(like).shape), name)

    if states is not None and output is None and final is None:
        return Gradients(rec, trajectory, native(states, "states", trajectory))
    c = namespace(trajectory).zeros_like(trajectory)
    if states is not None:
        c += native(states, "states", trajectory)
    direct = None
    if output is not None and rec.readout is not None:
        shape = tuple(solution.output.shape)
        shown = rec.in_order(rec.native(output, "output", shape), "output")
        direct = _pull_readout(rec, rec.readout, trajectory, shown)
        c += direct.states
    elif output is not None:
        shown = rec.output(c)
        if isinstance(output, Mapping) and shown.shape != c.shape:  # components are those of states
            raise TypeError(f"output is {type(output).__name__}; wanted an array of shape {tuple(shown.shape)}")
        rec.pull_output(native(output, "output", shown), c)
    if final is not None:
        if rec.graph is not None:
            raise TypeError("final is given, and a graph has no last step; put its cotangent into states")
        last = rec.by_name(final, "final", rec.initial.shape)
        if len(c) == 0:
            raise ValueError("final is given, but T = 0: the final state is the initial one")
        c[-1] += last
    return Gradients(rec, trajectory, c, direct)


def _sums(first: dict[str, Array], second: dict[str, Array]) -> dict[str, Array]:
    return {name: namespace(x).asarray(x + second[name]) for name, x in first.items()}  # a number is an array too


def _pull_readout(rec: Recurrence, readout: Callable[..., Any], trajectory: Array, cotangent: Array) -> Cotangents:
    """Return the cotangents of states, inputs and parameters for one of what a readout gives."""
    for base in (FunctionRecurrence, CellRecurrence):
        if isinstance(rec, base) and type(rec).output is base.output:
            if isinstance(rec, HistoryRecurrence):
                return pass_back(rec, readout, trajectory, cotangent)
            known = rec if isinstance(rec, FunctionRecurrence) else OfCell(rec)
            return pull_function(known, readout, trajectory, cotangent, state=True)
    raise TypeError(f"{type(rec).__name__} overrides output, so how it depends on the states is not known")


def recurrence_of(solution: Any, unconverged: bool, *, windows: bool = False) -> Recurrence:
    """Return what a solution solves; raise for what is no solution, or one that is not to be differentiated.

    With ``windows`` that of windows is one too.
    """
    if not isinstance(solution, Solution) and not (windows and isinstance(solution, WindowsSolution)):
        own = "; it has an adjoint of its own, solution.adjoint()" if hasattr(solution, "adjoint") else ""
        if isinstance(solution, WindowsSolution):
            own = "; one of every= has an adjoint alone, as tangents take all states: solve without it"
        raise TypeError(f"solution is {type(solution).__name__}; wanted a Solution, as recsolve.solve returns{own}")
    if is_discrete(solution.recurrence.dtype):
        raise TypeError(f"solution has states of {solution.recurrence.dtype}, which have no derivatives")
    if not solution.success and not unconverged:
        raise ValueError(
            f"solution is {solution.status}, and its derivative is that of the recurrence only where the residual is "
            "met; solve with fallback='sequential', or pass unconverged=True"
        )
    return solution.recurrence


def check_jacobian(rec: Recurrence, previous: Array, J: Jacobian) -> None:
    """Refuse a declared structure or Jacobian that is not the derivative: solvers tolerate it, gradients are wrong."""
    found = verify_jacobian(rec, previous, J)
    if found.holds is False:
        raise ValueError(
            f"{found.reason}, at the solution; a gradient needs the true one: recsolve.check_structure finds which "
            "structure holds"
        )

"""Gradients through a solution: one reverse scan with the true Jacobian, whichever solver made the states.

At a solution h[t] = f(h[t-1], u[t]) the adjoint variables obey g[t] = J[t+1]^T g[t+1] + c[t], with c[t] the cotangent
of h[t]. They are exact however the states were found, and every gradient is a local product with them.
"""

from __future__ import annotations

from collections.abc import Mapping
from functools import partial
from typing import Any, overload

from recsolve.base.arrays import Array, namespace
from recsolve.base.shard import OVER_RANKS
from recsolve.gradients.of_windows import WindowsGradients
from recsolve.gradients.result import Gradients
from recsolve.gradients.solved import cotangent_of, recurrence_of, shown_part
from recsolve.recurrence.base import Recurrence
from recsolve.solution import Solution
from recsolve.windows_solution import WindowsSolution


@overload
def adjoint(
    solution: Solution,
    *,
    states: Any = ...,
    output: Any = ...,
    final: Any = ...,
    unconverged: bool = ...,
    clamp: float | None = ...,
) -> Gradients:
    """Return the gradients of a function of a solution; ``help(recsolve.adjoint)`` describes the arguments."""


@overload
def adjoint(
    solution: WindowsSolution,
    *,
    states: Any = ...,
    output: Any = ...,
    final: Any = ...,
    unconverged: bool = ...,
    clamp: float | None = ...,
) -> WindowsGradients:
    """Return those of a function of a solution in windows; ``help(recsolve.adjoint)`` describes the arguments."""


def adjoint(
    solution: Any,
    *,
    states: Any = None,
    output: Any = None,
    final: Any = None,
    unconverged: bool = False,
    clamp: float | None = None,
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

    clamp : float, optional
        The size to which every entry of the adjoint variables is limited, step by step: g[t] is that of
        J[t+1]^T g[t+1] + c[t]. Then these are gradients only where no limit is met; training is done with it all the
        same. Steps are taken one by one from the last one on that meets it.

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
    given = {"states": states, "output": output, "final": final}
    if getattr(getattr(solution, "recurrence", None), "timeline", None) is not None:
        return OVER_RANKS["adjoint"](solution, given, unconverged=unconverged, clamp=clamp)
    rec = recurrence_of(solution, unconverged, windows=True)
    check_given(given)
    if isinstance(solution, WindowsSolution):
        return WindowsGradients(solution, given, partial(adjoint, clamp=clamp))
    trajectory = solution._iterate.states
    if final is not None and len(trajectory) == 0:
        raise ValueError("final is given, but T = 0: the final state is the initial one")
    return gradients(rec, trajectory, **native_cotangents(solution, given), clamp=clamp)


def check_given(given: Mapping[str, Any]) -> None:
    """Raise ValueError where there is no cotangent."""
    if all(x is None for x in given.values()):
        raise ValueError("no cotangent is given; pass states=, output= or final=")


def native_cotangents(solution: Solution, given: Mapping[str, Any]) -> dict[str, Array | None]:
    """Return the user's cotangents of a solution as native arrays with steps as their first axis, checked."""
    rec, trajectory = solution.recurrence, solution._iterate.states
    states, output, final = given["states"], given["output"], given["final"]

    def native(x: Any, name: str, like: Array) -> Array:
        return rec.in_order(rec.by_name(x, name, rec.as_given(like).shape), name)

    c: dict[str, Array | None] = dict.fromkeys(given)
    if states is not None:
        c["states"] = native(states, "states", trajectory)
    if output is not None and rec.readout is not None:
        c["output"] = rec.in_order(rec.native(output, "output", tuple(solution.output.shape)), "output")
    elif output is not None:
        shown = rec.output(trajectory if shown_part(rec) else _nothing(trajectory))  # for its shape
        if isinstance(output, Mapping) and shown.shape != trajectory.shape:  # components are those of states
            raise TypeError(f"output is {type(output).__name__}; wanted an array of shape {tuple(shown.shape)}")
        c["output"] = native(output, "output", shown)
    if final is not None:
        if rec.graph is not None:
            raise TypeError("final is given, and a graph has no last step; put its cotangent into states")
        c["final"] = rec.by_name(final, "final", rec.initial.shape)
    return c


def _nothing(like: Array) -> Array:
    """Return zeros of a shape, which are one number."""
    xp = namespace(like)
    return xp.broadcast_to(xp.zeros((), like.dtype), like.shape)  # type: ignore[no-any-return]


def gradients(
    rec: Recurrence,
    trajectory: Array,
    states: Array | None,
    output: Array | None,
    final: Array | None,
    *,
    clamp: float | None = None,
) -> Gradients:
    """Return what :func:`adjoint` does, of native arrays with steps as their first axis."""
    cotangent, direct = cotangent_of(rec, trajectory, states, output)
    return Gradients(rec, trajectory, cotangent, direct, clamp, final)

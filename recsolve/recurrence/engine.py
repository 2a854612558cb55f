"""The engine of a recurrence: how its f is computed for all t, from its own definition or by compiled loops.

A solve binds one engine, and one for every part of the times and sequences that it sets apart. This one calls the
methods of the recurrence, on NumPy or CuPy arrays; engines that are compiled from the function of a cell replace what
they know.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from types import MappingProxyType
from typing import TYPE_CHECKING, Any, Literal, NamedTuple, TypeAlias, TypeVar

import numpy as np

from recsolve.base.arrays import Array, is_discrete, namespace, same_bits
from recsolve.base.status import MIXES, NOT_A_FUNCTION
from recsolve.base.tolerance import Tolerance
from recsolve.jacobians import Jacobian
from recsolve.kernels.cpu.jit import ready
from recsolve.kernels.cpu.jit.module_cache import label

if TYPE_CHECKING:
    from recsolve.kernels.gpu.cell.bound_cell import Bound
    from recsolve.kernels.gpu.iterate import Iterations
    from recsolve.recurrence.base import Recurrence
    from recsolve.recurrence.compilation import Backend
    from recsolve.recurrence.current import Traced

_REPEATS = 3

Found = TypeVar("Found")
Way: TypeAlias = Literal["walk", "windows", "sweeps", "jacobi"]
Backward: TypeAlias = tuple[Array, list[Array], Array, Array]  # what Engine.adjoint returns


class Verdict(NamedTuple):
    """The states that compiled loops have found, with what they know of them.

    Attributes
    ----------
    states : array, shape (T, *batch, *event)
    iterations : int
    worst : float or None
        max |f(h[t-1], u[t]) - h[t]|, where the loops have tested every number that they have written, and found it
        finite and within the tolerance. None where that is not so, and the driver has to evaluate f.
    values : array or None
        F of these states, where the loops have it anyway.
    counts : mapping of int
        What to add to the counters of the problem.
    largest : float or None
        max |h|, where the loops have it anyway.
    """

    states: Array
    iterations: int
    worst: float | None = None
    values: Array | None = None
    counts: Mapping[str, int] = MappingProxyType({})
    largest: float | None = None


class Brief(NamedTuple):
    """What is known of states that compiled loops have found, without them.

    Attributes
    ----------
    good : bool
        Whether all were written, tested, finite and within the tolerance.
    worst : float
    iterations : int
    largest : float
    """

    good: bool
    worst: float
    iterations: int
    largest: float


class Asked(NamedTuple):
    """A solve that a device has been asked for, which the host has not waited for.

    Attributes
    ----------
    states : array, shape (T, *batch, *event)
    told : array of int32
        What the device tells of the solve, once ``judge`` has asked for that too.
    sizes : tuple of int
        What it takes beside that to say what has become of it.
    judge : callable
        Asks for that, which reads the states again: until then they are not written to.
    verdict : callable
        ``verdict(told, sizes)`` returns the verdict, given these on the host: those of this solve, or of one of other
        steps.
    brief : callable
        ``brief(told, sizes)`` returns what ranks want to know of each other's solves, given the rows that devices have
        told and as many sizes.
    """

    states: Array
    told: Array
    sizes: tuple[int, int]
    judge: Callable[[], None]
    verdict: Callable[[Array, tuple[int, int]], Verdict]
    brief: Callable[[Array, list[tuple[float, float]]], list[Brief]]


class Pulled(NamedTuple):
    """The cotangents of what one step at all t is computed of.

    Attributes
    ----------
    leaves : dict of array
        By kind (``"drive"``, ``"parameter"``; ``"mixing"``: the weight of a diagonal one) and name, each of the shape
        (T, *batch, *lanes, n).
    mixed : list of tuple
        The name of a mixing, the cotangent of its result, and its input, for every call.
    """

    leaves: dict[Any, Array]
    mixed: list[tuple[str, Array, Array]]


class Engine:
    """Computes f of one recurrence by the methods of the recurrence itself.

    Parameters
    ----------
    recurrence : Recurrence

    Attributes
    ----------
    compiled : bool
        Whether compiled loops walk through time; else Python calls f at every step.
    whole : bool
        Whether compiled loops solve in windows.
    weight : int
        Bytes of the matrices that every step of a compiled walk reads.

    Examples
    --------
    >>> import numpy as np, recsolve as rs
    >>> rec = rs.Recurrence.from_function(lambda h, u: 0.5 * h + u, inputs=np.ones((3, 1)), initial=np.zeros(1))
    >>> engine = rec.bind()
    >>> engine.walk().ravel().tolist(), engine.evaluate(np.ones((3, 1))).ravel().tolist()
    ([1.0, 1.5, 1.75], [1.0, 1.5, 1.5])
    """

    compiled: bool = False
    whole: bool = False
    weight: int = 0
    mixes: str = MIXES  # what to say of a step that differs

    def __init__(self, recurrence: Recurrence):
        self.recurrence = recurrence

    def apply(self, previous: Array) -> Array:
        """Return f(previous[t], u[t]) at all t, shape (T, *batch, *event)."""
        return self.recurrence.apply(previous)

    def differentiate(self, previous: Array) -> tuple[Array, Jacobian]:
        """Return f(previous[t], u[t]) at all t and its Jacobian with respect to ``previous``."""
        return self.recurrence.differentiate(previous)

    def evaluate(self, states: Array) -> Array:
        """Return F[t] = f(h[t-1], u[t]) at all t."""
        with np.errstate(all="ignore"):
            return self.apply(self.recurrence.previous(states))

    def linearise(self, states: Array) -> tuple[Array, Jacobian]:
        """Return F and J[t] = d F[t] / d h[t-1] at all t."""
        with np.errstate(all="ignore"):
            return self.differentiate(self.recurrence.previous(states))

    def guess(self) -> Array:
        """Return f(h[0], u[t]) at all t."""
        previous = self.recurrence.everywhere(self.recurrence.initial)
        with np.errstate(all="ignore"):
            # A copy: a function that ignores the state may return its drive itself.
            return namespace(previous).array(self.apply(previous))  # type: ignore[no-any-return]

    def walk(self, known: Array | None = None, start: int = 0) -> Array:
        """Return h[t] = f(h[t-1], u[t]), one step after the other, keeping the rows of ``known`` before ``start``."""
        if not 0 <= start <= self.recurrence.length or (start and known is None):
            raise ValueError(f"start is {start}; wanted 0, or a step of 0..{self.recurrence.length} with known states")
        states = self.recurrence.empty()
        if known is not None:
            states[:start] = known[:start]
        self._follow(states, start)
        return states

    def _follow(self, states: Array, start: int) -> None:
        """Fill the rows from ``start`` on."""
        rec = self.recurrence
        with np.errstate(all="ignore"):
            for t in range(start, rec.length):
                states[t] = rec.step(self._before(states, t), t)

    def _before(self, states: Array, t: int) -> Array:
        """Return the state before one step."""
        rec = self.recurrence
        state = states[t - 1] if t else rec.initial
        if rec.reset is None:
            return state
        return namespace(states).where(rec.over_event(rec.reset)[t], rec.restart, state)  # type: ignore[no-any-return]

    def solve(self, way: Way, tolerance: Tolerance, window: int = 256, most: int | None = None) -> Verdict | None:
        """Return what compiled loops find without the driver; None where there are none.

        Parameters
        ----------
        way : {"walk", "windows", "sweeps", "jacobi"}
            One step after the other; Newton in windows of time (ParaRNN: Danieli et al., arXiv 2510.21450), or what a
            GPU takes in its place; quasi-Newton for all t at once (quasi-DEER: arXiv 2407.19115); the same with A = 0.
        tolerance : Tolerance
        window : int
            Steps that are iterated together.
        most : int, optional
            Sweeps, after which there is no answer.
        """
        return None

    def ask(self, tolerance: Tolerance, start: Array | None = None) -> Asked | None:
        """Ask for what ``solve("windows", tolerance)`` returns, without waiting for it; None where nothing does that.

        Parameters
        ----------
        tolerance : Tolerance
        start : array, shape (*batch, *event), optional
            The state before the first step; default: that of the recurrence.
        """
        return None

    def pull(self, previous: Array, cotangent: Array) -> Pulled | None:
        """Return the cotangents of what F is computed of at all t, for one of F; None where nothing compiled does.

        Parameters
        ----------
        previous, cotangent : array, shape (T, *batch, *event)
            h[t-1], and the cotangent of F[t].
        """
        return None

    def bound(self, iterations: Iterations) -> Bound | None:
        """Return f and J as kernels evaluate and test them in one launch; None where there are no such kernels."""
        return None

    def check_repeats(self) -> None:
        """Raise ValueError unless f gives the same at one step whenever it is called: else there is no solution."""
        rec = self.recurrence
        if 0 in rec.shape or rec.repeats:
            return
        xp, t, state = namespace(rec.initial), rec.length // 2, rec.initial
        if not is_discrete(rec.dtype):  # of which f may know some only
            ramp = xp.linspace(0.25, 0.75, state.size, dtype=rec.dtype).reshape(state.shape)
            state = xp.where(xp.isfinite(state), state, rec.dtype.type(0)) + ramp
        state = rec.as_seen(state)
        with np.errstate(all="ignore"):
            try:
                first, *others = (xp.array(rec.step(state, t)) for _ in range(_REPEATS))
            except Exception:  # an f that fails at a single step is reported when it is solved
                return
        if not all(same_bits(first, other) for other in others):
            raise ValueError(NOT_A_FUNCTION.format(name=rec.description))

    def step_that_differs(self, states: Array, values: Callable[[], Array]) -> int | None:
        """Return a step at which f, evaluated alone, differs grossly from f evaluated for all t at once; else None.

        They may differ by rounding. More means that f mixes times or sequences, or branches on values of other steps.

        Parameters
        ----------
        states : array, shape (T, *batch, *event)
        values : callable
            Returns F of these states; called where it is needed.

        Returns
        -------
        int or None
            One of the first, the middle and the last step, where an entry differs by more than sqrt(eps) (s + max |f|),
            with s = 1, or ``state_scale`` where states are tiny or huge; of discrete states, where one differs at all.
        """
        return step_that_differs(self.recurrence, lambda t: self._before(states, t), values)

    def adjoint(self, states: Array, cotangent: Array, incoming: Array | None = None) -> Backward | None:
        """Return all gradients from compiled loops; None where there are none.

        Parameters
        ----------
        states, cotangent : array, shape (T, *batch, *event)
        incoming : array, shape (*batch, *event), optional
            What steps after the last one hand to its state, beside its cotangent.

        Returns
        -------
        adjoint : array, shape (T, *batch, *event)
        drives : list of array, shape (T, *batch, *lanes, n)
        constants : array, shape (constants, *batch, *lanes, n)
            Of mixings and parameters, in the order of the cell; float64, in which they are added up, or where there is
            one sequence perhaps rounded to the dtype of the states.
        initial : array, shape (k, *batch, *lanes, n)
            As those.
        """
        return None


def step_that_differs(rec: Recurrence, before: Callable[[int], Array], values: Callable[[], Array]) -> int | None:
    """Return what :meth:`Engine.step_that_differs` does, for any state ``before(t)`` before every step."""
    if 0 in rec.shape:
        return None
    together = values()
    xp, event = namespace(together), tuple(range(len(rec.batch), together.ndim - 1))
    with np.errstate(all="ignore"):
        for t in sorted({0, rec.length // 2, rec.length - 1}):
            alone = rec.step(before(t), t)
            if is_discrete(rec.dtype):
                if (alone != together[t]).any():
                    return t
                continue
            known = xp.isfinite(together[t])
            size = rec.state_scale + xp.where(known, abs(together[t]), rec.dtype.type(0)).max(axis=event, keepdims=True)
            close = abs(alone - together[t]) <= float(np.finfo(rec.dtype).eps) ** 0.5 * size
            if not (close | ~known).all():
                return t
    return None


class CompiledEngine(Engine):
    """An engine of loops that are compiled from the traced function of a cell.

    Parameters
    ----------
    recurrence : CellRecurrence
    traced : Traced
        Its cell.
    backend : {"numba", "cuda"}

    Attributes
    ----------
    small : bool
        Whether the problem is too small to compile anything for: it runs what is compiled already.
    """

    small = False

    def __init__(self, recurrence: Recurrence, traced: Traced, backend: Backend):
        super().__init__(recurrence)
        self.traced, self.backend = traced, backend

    def _if_ready(self, loop: str, call: Callable[[], Found]) -> Found | None:
        """Return what a call of a loop gives; None where the problem is small and the loop is not compiled."""
        if not self.small:
            return call()
        rec, program = self.recurrence, self.traced.program
        return ready.attempt((self.traced, rec.dtype, loop), rec.length, call, label(program.name))

    def differentiate(self, previous: Array) -> tuple[Array, Jacobian]:
        found = self._if_ready("linearise", lambda: self._differentiated(previous))
        if found is None:  # F comes from the loops all the same: all iterates of a solve round alike
            found = self.apply(previous), self.recurrence.differentiate(previous)[1]
        return found

    def _differentiated(self, previous: Array) -> tuple[Array, Jacobian]:
        """Return what :meth:`differentiate` does, from compiled loops."""
        return super().differentiate(previous)

    def _follow(self, states: Array, start: int) -> None:
        if self._if_ready("walk", lambda: self._walked(states, start)) is None:
            for t in range(start, self.recurrence.length):  # as the loop would round
                step = type(self)(self.recurrence.window(t, t + 1), self.traced, self.backend)
                states[t] = step.apply(self._before(states, t)[None])[0]

    def _walked(self, states: Array, start: int) -> bool:
        """Fill the rows from ``start`` on by a compiled loop, or as every engine does; return True."""
        super()._follow(states, start)
        return True

    def check_repeats(self) -> None:
        """Do nothing: tracing has run the function several times."""

    def step_that_differs(self, states: Array, values: Callable[[], Array]) -> int | None:
        """Compare once for each number of batch axes and dtype: what is traced looks at one step, and has no branch."""
        seen = len(self.recurrence.batch), self.recurrence.dtype  # on which it may still depend
        if seen in self.traced.verified:
            return None
        step = super().step_that_differs(states, values)
        if step is None and states.size:
            self.traced.verified.add(seen)
        return step

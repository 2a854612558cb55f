"""The recurrence h[t] = f(h[t-1], u[t]): evaluate all t at once, linearise, step once."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

import numpy as np

from recsolve.base.arrays import (
    Array,
    Kind,
    empty_in_order,
    from_native,
    kind_of,
    namespace,
    same_bits,
    to_host,
    to_native,
)
from recsolve.base.layout import Layout
from recsolve.base.overriding import derive, stale
from recsolve.base.ties import check_ties
from recsolve.jacobians import Jacobian

if TYPE_CHECKING:
    from recsolve.recurrence.function import FunctionRecurrence


_REPEATS = 3
NOT_A_FUNCTION = (
    "{name} is not a function: called again with the same arguments, it returned something else. Give what it draws, "
    "counts or reads from a clock as a drive"
)


class Recurrence(ABC):
    """A nonlinear recurrence of length T on states (T, *batch, *event).

    Build one with ``cell.recurrence(x)`` or :meth:`from_function`. Solvers see only this interface. Its methods take
    and return *native* arrays: NumPy arrays, or CuPy arrays on a GPU, in the dtype of the recurrence. They raise what f
    raises, ValueError where f returns another shape, and TypeError where it returns another dtype.

    A subclass that changes f overrides ``step`` or ``apply``, of which one is derived from the other, and
    ``differentiate`` for the methods that take a Jacobian: without it they raise TypeError, as gradients with respect
    to anything but the states and h[0] do. Compiled loops do not take it. Arrays over time that it adds are sliced in
    ``_cut`` and picked in ``_select``; all else goes with it into windows of time.

    Attributes
    ----------
    length : int
        T, the number of steps.
    batch : tuple of int
        Shape of the independent sequences.
    layout : Layout
        How the event axes are read.
    initial : array
        h[0], shape (*batch, *event).
    reset : array of bool or None
        (T, *batch): steps that start afresh from ``initial``.
    dtype : dtype
        float32 or float64.
    kind : str
        The kind of arrays the user gave and gets back.
    ties : dict of float
        The derivative at ties, by operation.

    Examples
    --------
    >>> import numpy as np, recsolve as rs
    >>> rec = rs.cells.GRU.random(input_size=2, hidden_size=4, rng=0).recurrence(np.ones((9, 2)))
    >>> rec
    CellRecurrence(gru, T=9, batch=(), Layout(components=1, lanes=(), units=4), float64)
    """

    def __init_subclass__(cls, **kwargs: Any):
        super().__init_subclass__(**kwargs)
        for name in ("previous", "starts", "from_initial", "evaluate"):
            if getattr(cls, name) is not getattr(Recurrence, name):
                raise TypeError(
                    f"{cls.__name__} overrides {name}, which all solvers and gradients take for granted; put what "
                    "else f sees into step or apply"
                )
        if stale(cls, "apply", "step"):
            cls.apply = Recurrence._apply_by_steps  # type: ignore[method-assign]
        if stale(cls, "step", "apply"):
            cls.step = Recurrence._step_by_window  # type: ignore[method-assign]
        if stale(cls, "differentiate", "apply"):
            cls.differentiate = Recurrence._refuse_to_differentiate  # type: ignore[method-assign]
        derive(cls, Recurrence, "differentiate", ("operator",))

    description: str = "recurrence"
    opaque: bool = False  # whether f may hold arrays that are not in its drive

    def __init__(
        self,
        length: int,
        batch: tuple[int, ...],
        layout: Layout,
        initial: Array,
        reset: Any,
        kind: Kind,
        ties: Any = None,
    ):
        self.length, self.batch, self.layout, self.kind = length, batch, layout, kind
        self.initial = initial
        self.restart = initial  # where resets start from; a window keeps that of the whole
        self.dtype = initial.dtype
        self.reset = _check_reset(reset, length, batch, namespace(initial))
        self.ties = check_ties(ties)

    # What a recurrence must define -----------------------------------------------------------------------------

    @abstractmethod
    def apply(self, previous: Array) -> Array:
        """Return f(previous[t], u[t]) for all t.

        Parameters
        ----------
        previous : array, shape (T, *batch, *event)
            A state before every step; nothing is shifted or reset.

        Returns
        -------
        array, shape (T, *batch, *event)

        Examples
        --------
        >>> import numpy as np, recsolve as rs
        >>> rec = rs.Recurrence.from_function(
        ...     lambda h, u: 0.5 * h + u, inputs=np.arange(3.0)[:, None], initial=np.ones(1))
        >>> rec.apply(np.full((3, 1), 4.0)).ravel().tolist()
        [2.0, 3.0, 4.0]
        """

    @abstractmethod
    def differentiate(self, previous: Array) -> tuple[Array, Jacobian]:
        """Return f(previous[t], u[t]) for all t and its Jacobian with respect to ``previous``.

        Parameters
        ----------
        previous : array, shape (T, *batch, *event)
            A state before every step; nothing is shifted or reset.

        Returns
        -------
        values : array, shape (T, *batch, *event)
        jacobian : Jacobian
            J[t] = d values[t] / d previous[t], in the structure that is known of f.

        Raises
        ------
        TypeError
            When a subclass overrides f without its derivative, or automatic differentiation cannot follow f.

        Notes
        -----
        Forward differentiation on dual numbers; at ties it takes ``ties``.

        Examples
        --------
        >>> import numpy as np, recsolve as rs
        >>> rec = rs.Recurrence.from_function(lambda h, u: h * h + u, inputs=np.ones((2, 1)), initial=np.ones(1))
        >>> values, J = rec.differentiate(np.array([[3.0], [4.0]]))
        >>> values.ravel().tolist(), J.todense().ravel().tolist()
        ([10.0, 17.0], [6.0, 8.0])
        """

    @abstractmethod
    def step(self, state: Array, t: int) -> Array:
        """Return f(state, u[t]) for one t.

        Parameters
        ----------
        state : array, shape (*batch, *event)
        t : int
            0 <= t < T.

        Returns
        -------
        array, shape (*batch, *event)

        Examples
        --------
        >>> import numpy as np, recsolve as rs
        >>> rec = rs.Recurrence.from_function(
        ...     lambda h, u: 0.5 * h + u, inputs=np.arange(3.0)[:, None], initial=np.ones(1))
        >>> rec.step(np.array([4.0]), 2).tolist()
        [4.0]
        """

    def _apply_by_steps(self, previous: Array) -> Array:
        values = namespace(previous).empty_like(previous)
        for t in range(self.length):
            values[t] = self.step(previous[t], t)
        return values  # type: ignore[no-any-return]

    def _step_by_window(self, state: Array, t: int) -> Array:
        return self.window(t, t + 1).apply(state[None])[0]  # type: ignore[no-any-return]

    def _refuse_to_differentiate(self, previous: Array) -> tuple[Array, Jacobian]:
        raise TypeError(
            f"{type(self).__name__} overrides step or apply and no differentiate(previous), so its Jacobian is not "
            "known; define it, or take a method that needs f alone: jacobi, gauss_seidel, anderson, sequential"
        )

    def window(self, start: int, stop: int, initial: Any = None) -> Recurrence:
        """Return the recurrence of the steps start..stop-1 alone.

        Resets inside it go back to where those of the whole go.

        Parameters
        ----------
        start, stop : int
            0 <= start <= stop <= T.
        initial : array, shape (*batch, *event), optional
            The state before step ``start``; default: h[0] of the whole.

        Returns
        -------
        Recurrence
            Of length stop - start, of the same class.

        Raises
        ------
        ValueError
            Unless 0 <= start <= stop <= T.

        Examples
        --------
        >>> import numpy as np, recsolve as rs
        >>> rec = rs.Recurrence.from_function(lambda h, u: 0.5 * h + u, inputs=np.ones((8, 1)), initial=np.zeros(1))
        >>> rec.window(2, 5).length
        3
        """
        if not 0 <= start <= stop <= self.length:
            raise ValueError(f"window is {start}..{stop}; wanted 0 <= start <= stop <= {self.length}")
        first = self.initial if initial is None else initial
        part = self._cut(slice(start, stop), first if kind_of(first) == self.kind else self.wrap(first))
        own = initial is None and self.restart is self.initial
        part.restart = part.initial if own else self.restart
        return part

    @abstractmethod
    def _cut(self, cut: slice, initial: Any) -> Recurrence:
        """Return the recurrence of some steps, from ``initial`` of the user's kind."""

    def sequences(self, chosen: Array) -> Recurrence | None:
        """Return the recurrence of some sequences, or None where the drive does not show what belongs to which.

        Parameters
        ----------
        chosen : array of int
            Their places in the flattened batch; the batch shape of the result is (len(chosen),).

        Returns
        -------
        Recurrence or None
            None for a function whose inputs do not have the batch axes.

        Examples
        --------
        >>> import numpy as np, recsolve as rs
        >>> rec = rs.cells.GRU.random(input_size=2, hidden_size=4, rng=0).recurrence(np.ones((9, 5, 2)))
        >>> rec.sequences(np.array([0, 3])).shape
        (9, 2, 4)
        """
        place = np.unravel_index(chosen, self.batch)
        part = self._select(place, self.wrap(self.initial[place]))
        if part is not None:
            part.restart = part.initial if self.restart is self.initial else self.restart[place]
        return part

    @abstractmethod
    def _select(self, place: tuple[Array, ...], initial: Any) -> Recurrence | None:
        """Return the recurrence of the sequences at ``place`` in the batch, None if the drive does not part them."""

    @property
    @abstractmethod
    def rounding(self) -> float:
        """The rounding of f as a multiple of that of elementwise arithmetic; 0 when units do not couple.

        A sum of n products w h rounds to about eps sqrt(n) ||w|| max|h|, so this is max sqrt(n) ||w|| / 8 over the rows
        of the matrices inside f, where they are known, and sqrt(n) / 8 for a function of structure dense or heads.

        Examples
        --------
        >>> import recsolve as rs, numpy as np
        >>> cell = rs.cells.Elman.with_weights(mixings={"h": rs.mixings.Dense(np.eye(4))})
        >>> cell.recurrence(drive={"h": np.ones((9, 4))}).rounding
        0.25
        """

    @abstractmethod
    def drive_is_finite(self, t: int) -> bool:
        """Return whether everything that drives step ``t`` is finite (the advice of a failed solve depends on it)."""

    @property
    def drive_like(self) -> Array:
        """An array whose first axes (T, *batch) are in the memory order that the states should have."""
        return namespace(self.initial).empty(self.shape, dtype=self.dtype)  # type: ignore[no-any-return]

    @property
    def compiled(self) -> bool:
        """Whether compiled loops walk this recurrence; else Python calls f at every step."""
        return False

    @property
    def solved_whole(self) -> bool:
        """Whether :meth:`newton` is compiled for this recurrence."""
        return False

    # What is derived from that ---------------------------------------------------------------------------------

    @property
    def shape(self) -> tuple[int, ...]:
        """The shape of the states, (T, *batch, *event)."""
        return (self.length, *self.batch, *self.layout.event)

    @property
    def starts(self) -> Array:
        """(T, *batch) of bool: the first step and every reset, which do not see the state before."""
        xp = namespace(self.initial)
        starts = xp.zeros((self.length, *self.batch), dtype=bool) if self.reset is None else self.reset.copy()
        starts[:1] = True
        return starts

    @property
    def from_initial(self) -> Array:
        """(T, *batch) of bool: the starts that see ``initial``; resets of a window see what those of the whole do."""
        if self.restart is self.initial:
            return self.starts
        seen = namespace(self.initial).zeros((self.length, *self.batch), dtype=bool)
        seen[:1] = True if self.reset is None else ~self.reset[:1]
        return seen  # type: ignore[no-any-return]

    def over_event(self, mask: Array) -> Array:
        """Return a mask (T, *batch) with axes of size 1 for the event, so that it broadcasts over states."""
        return mask.reshape(mask.shape + (1,) * len(self.layout.event))

    def previous(self, states: Array) -> Array:
        """Return h[t-1] for every t: the states one step later, with ``initial`` selected at starts.

        Parameters
        ----------
        states : array, shape (T, *batch, *event)

        Returns
        -------
        array, shape (T, *batch, *event)

        Examples
        --------
        >>> import numpy as np, recsolve as rs
        >>> rec = rs.Recurrence.from_function(
        ...     lambda h, u: h + u, inputs=np.ones((3, 1)), initial=np.zeros(1), reset=np.array([False, False, True]))
        >>> rec.previous(np.array([[5.0], [6.0], [7.0]])).ravel().tolist()
        [0.0, 5.0, 0.0]
        """
        previous = namespace(states).empty_like(states)
        previous[1:] = states[:-1]
        previous[:1] = self.initial
        if self.reset is not None:
            namespace(states).copyto(previous, self.restart, where=self.over_event(self.reset))
        return previous  # type: ignore[no-any-return]

    def evaluate(self, states: Array) -> Array:
        """Return F[t] = f(h[t-1], u[t]) for all t; the states solve the recurrence where F = h.

        Parameters
        ----------
        states : array, shape (T, *batch, *event)
            The trajectory h.

        Returns
        -------
        array, shape (T, *batch, *event)

        Examples
        --------
        >>> import numpy as np, recsolve as rs
        >>> rec = rs.Recurrence.from_function(lambda h, u: 0.5 * h + u, inputs=np.ones((3, 1)), initial=np.zeros(1))
        >>> rec.evaluate(np.ones((3, 1))).ravel().tolist()
        [1.0, 1.5, 1.5]
        """
        with np.errstate(all="ignore"):
            return self.apply(self.previous(states))

    def linearise(self, states: Array) -> tuple[Array, Jacobian]:
        """Return F[t] = f(h[t-1], u[t]) and its Jacobian J[t] = d F[t] / d h[t-1] for all t.

        Parameters
        ----------
        states : array, shape (T, *batch, *event)
            The trajectory h.

        Returns
        -------
        values : array, shape (T, *batch, *event)
            F.
        jacobian : Jacobian
            In the structure that is known of f: for a function the declared one, for a cell whose mixings couple units
            :class:`recsolve.jacobians.factored.Factored`.

        Raises
        ------
        TypeError
            As :meth:`differentiate`.

        Notes
        -----
        One such linearisation and one affine scan are an iteration of DEER (Lim et al., ICLR 2024, arXiv 2309.12252).

        Examples
        --------
        >>> import numpy as np, recsolve as rs
        >>> rec = rs.Recurrence.from_function(
        ...     lambda h, u: h * h + u, inputs=np.ones((3, 1)), initial=np.zeros(1), structure="diagonal")
        >>> F, J = rec.linearise(np.array([[1.0], [2.0], [5.0]]))
        >>> F.ravel().tolist(), J.data.ravel().tolist()
        ([1.0, 2.0, 5.0], [0.0, 2.0, 4.0])
        """
        with np.errstate(all="ignore"):
            return self.differentiate(self.previous(states))

    def operator(self, states: Array) -> tuple[Callable[[Array], Array], Jacobian | None]:
        """Return the product v -> J v at ``states``, and the block part of J, without forming a dense matrix.

        Parameters
        ----------
        states : array, shape (T, *batch, *event)

        Returns
        -------
        product : callable
            Takes and returns an array of the shape of the states.
        block : Jacobian or None
            The k x k block of each unit, or None where only products are known.

        Raises
        ------
        TypeError
            As :meth:`differentiate`; the product may raise it too.

        Examples
        --------
        >>> import numpy as np, recsolve as rs
        >>> rec = rs.Recurrence.from_function(lambda h, u: 3 * h + u, inputs=np.ones((2, 1)), initial=np.zeros(1))
        >>> product, block = rec.operator(np.ones((2, 1)))
        >>> product(np.ones((2, 1))).ravel().tolist(), block
        ([3.0, 3.0], None)
        """
        J = self.linearise(states)[1]
        return J.matvec, J.block()

    def follow(self, states: Array, start: int = 0) -> None:
        """Fill the rows of ``states`` from ``start`` on, h[t] = f(h[t-1], u[t]) one after the other, in place.

        Parameters
        ----------
        states : array, shape (T, *batch, *event)
            Row ``start`` - 1 is read, rows from ``start`` on are written.
        start : int
            The first step to take.

        Examples
        --------
        >>> import numpy as np, recsolve as rs
        >>> rec = rs.Recurrence.from_function(lambda h, u: 0.5 * h + u, inputs=np.ones((3, 1)), initial=np.zeros(1))
        >>> states = np.empty((3, 1))
        >>> rec.follow(states)
        >>> states.ravel().tolist()
        [1.0, 1.5, 1.75]
        """
        xp, state = namespace(states), states[start - 1] if start else self.initial
        resets = None if self.reset is None else self.over_event(self.reset)
        with np.errstate(all="ignore"):
            for t in range(start, self.length):
                if resets is not None:
                    state = xp.where(resets[t], self.restart, state)
                states[t] = state = self.step(state, t)

    def newton(self, window: int, tol: tuple[float, float]) -> tuple[Array, int, float, dict[str, int]] | None:
        """Return what compiled Newton finds in windows of time, or None where it is not compiled for this recurrence.

        Parameters
        ----------
        window : int
            Steps that are iterated together, at least 1.
        tol : tuple of float
            (atol, rtol) of the test |r| <= atol + rtol max(|h|, |F|).

        Returns
        -------
        states : array, shape (T, *batch, *event)
        iterations : int
            Iterations of the lanes that need most, summed over the windows.
        sweeps : float
            How often f and its Jacobian were evaluated at a row, on average.
        counts : dict of int
            Other counts, by name.

        Notes
        -----
        Newton on elementwise cells in one kernel: Danieli et al., ICLR 2026 (ParaRNN, arXiv 2510.21450).

        Examples
        --------
        >>> import numpy as np, recsolve as rs
        >>> rec = rs.Recurrence.from_function(lambda h, u: np.sin(h) + u, inputs=np.ones((9, 1)), initial=np.zeros(1))
        >>> rec.newton(4, (1e-9, 1e-9)) is None  # a function is not compiled
        True
        """
        return None

    def sweep(self, tol: tuple[float, float], *, scanned: bool = True) -> tuple[Array, int, Array | None] | None:
        """Return what quasi-Newton finds by sweeps on a GPU, or None where they do not run for this recurrence.

        Parameters
        ----------
        tol : tuple of float
            (atol, rtol) of the test |r| <= atol + rtol max(|h|, |F|), entry by entry.
        scanned : bool
            Whether to scan with the k x k blocks of J; False takes A = 0, which is Jacobi's iteration.

        Returns
        -------
        states : array, shape (T, *batch, *event)
        iterations : int
        residual : array or None
            F - h where the last sweep has left it.

        Notes
        -----
        Quasi-DEER: Gonzalez et al., NeurIPS 2024 (arXiv 2407.19115).
        """
        return None

    def guess(self) -> Array:
        """Return the default first iterate, f(h[0], u[t]) for all t: a new array, shape (T, *batch, *event).

        Examples
        --------
        >>> import numpy as np, recsolve as rs
        >>> rec = rs.Recurrence.from_function(
        ...     lambda h, u: 0.5 * h + u, inputs=np.arange(3.0)[:, None], initial=np.ones(1))
        >>> rec.guess().ravel().tolist()
        [0.5, 1.5, 2.5]
        """
        previous = empty_in_order(self.shape, self.drive_like, 1 + len(self.batch))
        previous[...] = self.initial
        with np.errstate(all="ignore"):
            # A copy: a function that ignores the state may return its drive itself.
            return namespace(previous).array(self.apply(previous))  # type: ignore[no-any-return]

    def one_step_differs(self, previous: Array, values: Array | None = None) -> int | None:
        """Return a step at which f, evaluated alone, differs grossly from f evaluated for all t at once; else None.

        They may differ by rounding. More means that f mixes times or sequences, or branches on values of other steps.

        Parameters
        ----------
        previous : array, shape (T, *batch, *event)
            A state before every step.
        values : array, shape (T, *batch, *event), optional
            ``apply(previous)``, where it is known.

        Returns
        -------
        int or None
            One of the first, the middle and the last step, where an entry differs by more than sqrt(eps) (1 + max |f|).

        Examples
        --------
        >>> import numpy as np, recsolve as rs
        >>> rec = rs.Recurrence.from_function(lambda h, u: h.mean() + u, inputs=np.ones((3, 1)), initial=np.zeros(1))
        >>> rec.one_step_differs(np.array([[0.0], [1.0], [5.0]]))
        0
        """
        if not previous.size:
            return None
        with np.errstate(all="ignore"):
            values = self.apply(previous) if values is None else values
            for t in sorted({0, self.length // 2, self.length - 1}):
                alone, together = self.step(previous[t], t), values[t]
                xp = namespace(alone)
                known = xp.isfinite(together)
                event = tuple(range(len(self.batch), together.ndim))
                size = 1 + xp.where(known, abs(together), together.dtype.type(0)).max(axis=event, keepdims=True)
                close = abs(alone - together) <= float(np.finfo(self.dtype).eps) ** 0.5 * size
                if not (close | ~known).all():
                    return t
        return None

    def check_repeats(self) -> None:
        """Raise unless f gives the same at one step whenever it is called; without that there is no solution.

        Raises
        ------
        ValueError
            When it gives something else.
        """
        if 0 in self.shape:
            return
        xp, t = namespace(self.initial), self.length // 2
        ramp = xp.linspace(0.25, 0.75, self.initial.size, dtype=self.dtype).reshape(self.initial.shape)
        state = xp.where(xp.isfinite(self.initial), self.initial, self.dtype.type(0)) + ramp
        with np.errstate(all="ignore"):
            try:
                first, *others = (xp.array(self.step(state, t)) for _ in range(_REPEATS))
            except Exception:  # an f that fails at a single step is reported when it is solved
                return
        if not all(same_bits(first, other) for other in others):
            raise ValueError(NOT_A_FUNCTION.format(name=self.description))

    def output(self, states: Array) -> Array:
        """Return what the recurrence shows of its states: a cell's output component, else the states.

        Parameters
        ----------
        states : array, shape (T, *batch, *event)

        Returns
        -------
        array, shape (T, *batch, *lanes, n)
            A view.

        Examples
        --------
        >>> import numpy as np, recsolve as rs
        >>> rec = rs.cells.LSTM.random(input_size=2, hidden_size=4, rng=0).recurrence(np.ones((9, 2)))
        >>> rec.shape, rec.output(np.zeros(rec.shape)).shape
        ((9, 2, 4), (9, 4))
        """
        return states

    def native(self, x: Any, name: str, shape: tuple[int, ...] | None = None) -> Array:
        """Return an array of the user's as a native one of this recurrence's kind and dtype.

        Parameters
        ----------
        x : array
        name : str
            Of the argument, for messages.
        shape : tuple of int, optional
            The shape it must have.

        Returns
        -------
        array

        Raises
        ------
        TypeError
            When x is of another kind or dtype.
        ValueError
            When it has another shape.

        Examples
        --------
        >>> import numpy as np, recsolve as rs
        >>> rec = rs.Recurrence.from_function(lambda h, u: h + u, inputs=np.ones((3, 1)), initial=np.zeros(1))
        >>> rec.native(np.zeros((2, 1)), "states", rec.shape)
        Traceback (most recent call last):
        ValueError: states has shape (2, 1); wanted (3, 1)
        """
        if kind_of(x) != self.kind:
            raise TypeError(f"{name} is {kind_of(x)} and the recurrence is {self.kind}; convert it first")
        native = to_native(x, name)
        if native.dtype != self.dtype:
            raise TypeError(f"{name} has dtype {native.dtype}; wanted {self.dtype}")
        if shape is not None and native.shape != shape:
            raise ValueError(f"{name} has shape {tuple(native.shape)}; wanted {tuple(shape)}")
        return native

    def wrap(self, native: Array) -> Any:
        """Return a native array as the kind that the user gave: NumPy, CuPy or torch (sharing memory)."""
        return from_native(native, self.kind)

    @staticmethod
    def from_function(
        f: Callable[[Any, Any], Any],
        *,
        inputs: Any = None,
        initial: Any,
        structure: str = "dense",
        jacobian: Callable[[Any, Any], Any] | None = None,
        reset: Any = None,
        length: int | None = None,
        ties: Any = None,
    ) -> FunctionRecurrence:
        """Build a recurrence from any function.

        Parameters
        ----------
        f : callable
            ``f(h_prev, u_t)`` gets all steps at once: ``h_prev`` (T, *batch, *event) and ``inputs`` as given, and
            returns the next states in the shape of ``h_prev``. It must not mix times or sequences. Arrays are NumPy's
            (CuPy's on the GPU) for torch tensors too.
        inputs : array, or tuple or dict of arrays, optional
            The drive; every array has time first. ``None`` for an autonomous recurrence (then give ``length``).
        initial : array
            h[0] with its full shape (*batch, *event).
        structure : str
            What J[t] = df/dh_prev is known to be: zero, identity, scalar, diagonal (event axes: the last one), block
            (event (k, n): k components that couple within a unit), dense (event (n,)), heads (event (H, n)). A wrong
            declaration costs iterations or convergence, is not trusted and has no gradients;
            :func:`recsolve.check_structure` tests it.
        jacobian : callable, optional
            ``jacobian(h_prev, u_t)`` with entries in the shape of the structure. Default: automatic forward
            differentiation of ``f``, which raises (never silently approximates) where it cannot follow.
        reset : array of bool, optional
            (T, *batch): steps that start from ``initial`` again.
        length : int, optional
            T when there are no inputs.
        ties : float or mapping, optional
            The derivative at ties that automatic differentiation takes, as in
            :meth:`recsolve.WeightedCell.recurrence`. A ``jacobian`` sees to its own.

        Returns
        -------
        Recurrence

        Raises
        ------
        TypeError
            For mixed array kinds or dtypes, ties that are no numbers, or a function that automatic differentiation
            cannot follow.
        ValueError
            For an unknown structure, wrong shapes, or ties of unknown operations or out of range.

        Examples
        --------
        >>> import numpy as np, recsolve as rs
        >>> u = np.linspace(0.0, 1.0, 50)[:, None]
        >>> rec = rs.Recurrence.from_function(
        ...     lambda h, u: 0.5 * np.sin(h) + u, inputs=u, initial=np.zeros(1), structure="diagonal")
        >>> rs.solve(rec).success
        True
        """
        from recsolve.recurrence.function import FunctionRecurrence

        return FunctionRecurrence(f, inputs, initial, structure, jacobian, reset, length, ties)

    def __repr__(self) -> str:
        shape = f"T={self.length}, batch={self.batch}, {self.layout}, {self.dtype}"
        return f"{type(self).__name__}({self.description}, {shape})"


def _check_reset(reset: Any, length: int, batch: tuple[int, ...], xp: Any) -> Array | None:
    if reset is None:
        return None
    reset = reset.numpy() if kind_of(reset) == "torch" and not reset.is_cuda else reset
    mask = xp.asarray(reset)
    if mask.dtype != bool:
        raise TypeError(f"reset has dtype {mask.dtype}; wanted bool")
    if mask.shape == (length,) and batch:
        mask = mask.reshape((length,) + (1,) * len(batch))
    try:
        if mask.ndim != 1 + len(batch):
            raise ValueError
        return xp.array(xp.broadcast_to(mask, (length, *batch)))  # type: ignore[no-any-return]
    except ValueError:
        raise ValueError(f"reset has shape {tuple(mask.shape)}; wanted (T, *batch) = {(length, *batch)}") from None


def check_recurrence(recurrence: Any) -> None:
    """Raise TypeError for an argument that is no recurrence."""
    if not isinstance(recurrence, Recurrence):
        raise TypeError(f"recurrence is {type(recurrence).__name__}; wanted a Recurrence, as cell.recurrence(x) gives")


def check_known(recurrence: Recurrence, base: type[Recurrence]) -> None:
    """Raise unless f is what ``base`` computes, so that how it depends on other things than the state is known.

    Raises
    ------
    TypeError
        When a subclass overrides it.
    """
    kind = type(recurrence)
    changed = [
        name for name in ("step", "apply", "differentiate", "_call") if getattr(kind, name) != getattr(base, name)
    ]
    if changed:
        raise TypeError(
            f"{kind.__name__} overrides {', '.join(changed)}, so how f depends on anything but the state is not known"
        )


def packed_resets(lengths: Any) -> Array:
    """Return the reset mask of sequences packed one after the other.

    Parameters
    ----------
    lengths : sequence of int
        Length of each packed sequence, all positive; T is their sum.

    Returns
    -------
    array of bool, shape (T,)
        True at the first step of each sequence.

    Raises
    ------
    ValueError
        When a length is not positive.

    Examples
    --------
    >>> import recsolve as rs
    >>> rs.packed_resets([2, 3]).astype(int)
    array([1, 0, 1, 0, 0])
    """
    sizes = np.asarray(lengths, dtype=np.int64)
    if sizes.ndim != 1 or (sizes < 1).any():
        raise ValueError(f"lengths is {lengths!r}; wanted a list of positive integers")
    mask = np.zeros(int(sizes.sum()), dtype=bool)
    mask[np.concatenate([[0], np.cumsum(sizes)[:-1]]).astype(np.int64)[: sizes.size]] = True
    return mask


def check_initial(initial: Any, shape: tuple[int, ...], like: Array, kind: Kind) -> Array:
    """Return h[0] as a native array (*batch, *event), broadcast where it lacks batch axes.

    Raises
    ------
    TypeError, ValueError
        When kind, dtype or shape do not fit; the message names ``initial``.
    """
    xp = namespace(like)
    if initial is None:
        return xp.zeros(shape, dtype=like.dtype)  # type: ignore[no-any-return]
    if not np.isscalar(initial) and kind_of(initial) != kind:
        raise TypeError(f"initial is {kind_of(initial)} and the drive is {kind}; convert them to one kind first")
    native = xp.asarray(initial, dtype=like.dtype) if np.isscalar(initial) else to_native(initial, "initial")
    if native.dtype != like.dtype:
        raise TypeError(f"initial has dtype {native.dtype}; wanted {like.dtype}, as the drive")
    try:
        return xp.broadcast_to(native.copy(), shape)  # type: ignore[no-any-return]
    except ValueError:
        raise ValueError(f"initial has shape {tuple(native.shape)}; wanted (*batch, *event) = {shape}") from None


def all_finite(x: Array) -> bool:
    """Return whether every entry is finite."""
    return bool(to_host(namespace(x).isfinite(x).all()))

"""The recurrence h[t] = f(h[t-1], u[t]): evaluate all t at once, linearise, step once."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping
from functools import cached_property
from typing import Any, Generic

import numpy as np

from recsolve.base.arrays import Array, Kind, UserArray, kind_of, memory_order, namespace, ordered_empty
from recsolve.base.graph import Graph
from recsolve.base.layout import Layout
from recsolve.base.links import Leaf, sever_all
from recsolve.base.overriding import derive, refuse_stale, stale
from recsolve.base.shard import Timeline
from recsolve.base.ties import check_ties
from recsolve.jacobians import Identity, Jacobian
from recsolve.recurrence.engine import Engine
from recsolve.recurrence.given import check_reset
from recsolve.recurrence.makers import Makers
from recsolve.recurrence.scale import scale_of
from recsolve.recurrence.users_arrays import UsersArrays

_HERE = __name__.rpartition(".")[0] + "."


def _own(kind: type) -> type[Recurrence]:
    """Return the nearest class of this package that a class of recurrences comes from."""
    return next(c for c in kind.__mro__ if c.__module__.startswith(_HERE))


class Recurrence(Makers, UsersArrays, ABC, Generic[UserArray]):
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
        float32 or float64; of discrete states, bool or one of the integers.
    kind : str
        The kind of arrays the user gave and gets back.
    ties : dict of float
        The derivative at ties, by operation.
    applies : frozenset of str or None
        The names of the methods that can solve it; None: all. The others are refused, and ``why`` ends the sentence.

    Examples
    --------
    >>> import numpy as np, recsolve as rs
    >>> rec = rs.cells.GRU.random(input_size=2, hidden_size=4, rng=0).recurrence(np.ones((9, 2)))
    >>> rec
    CellRecurrence(gru, T=9, batch=(), Layout(components=1, lanes=(), units=4), float64)
    """

    def __init_subclass__(cls, **kwargs: Any):
        super().__init_subclass__(**kwargs)
        for name in ("previous", "starts", "from_initial", "evaluate", "linearise", "guess"):
            if getattr(cls, name) is not getattr(_own(cls), name):
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
        refuse_stale(cls, "pull_output", "output")

    description: str = "recurrence"
    readout: Callable[..., Any] | None = None  # what is shown of the states, where the user gave it
    opaque: bool = False  # whether f may hold arrays that are not in its drive
    applies: frozenset[str] | None = None  # names of the methods that can solve it; None: all
    why: str = ""  # what the others lack, to end a sentence with
    stepwise: bool = True  # whether f needs the state before alone, so that a few steps tell what all cost
    graph: Graph | None = None  # what steps see of each other, where that is not the step before
    first_step: int = 0  # the number of its first step, for messages, where it is a part of another
    timeline: Timeline | None = None  # where ranks share the time axis: whose steps come before and after these

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
        self.reset = check_reset(reset, length, batch, namespace(initial))
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
        values = self.empty()
        for t in range(self.length):
            values[t] = self.step(previous[t], t)
        return values

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
        given = isinstance(first, Mapping) or kind_of(first) == self.kind
        part = self._cut(slice(start, stop), first if given else self.wrap(first))
        part.timeline = None  # it is a recurrence of its own
        sever_all(part, self)
        own = initial is None and self.restart is self.initial
        part.restart = part.initial if own else self.restart
        return part

    def between(self, start: int, stop: int, states: Array) -> Recurrence:
        """Return the recurrence of the steps start..stop-1 alone, as they follow from the states before them.

        Parameters
        ----------
        start, stop : int
            0 <= start <= stop <= T.
        states : array, shape (T, *batch, *event)
            Of which the rows before ``start`` are taken.
        """
        return self.window(start, stop, self.wrap(states[start - 1].copy()) if start else None)

    def sampled(self, every: slice) -> Recurrence:
        """Return a recurrence of some steps, from h[0], on which to measure f."""
        part = self._cut(every, self.wrap(self.initial))
        part.timeline = None
        sever_all(part, self)
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
            part.timeline = None
            part.restart = part.initial if self.restart is self.initial else self.restart[place]
            sever_all(part, self)
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

    @cached_property
    def state_scale(self) -> float:
        """The size of the states, a power of two, in whose units the default absolute tolerance counts.

        1 where it is ordinary, 1/128 to 128, which is seen at h[0] and f(h[0], u[t]) at some t.

        Examples
        --------
        >>> import numpy as np, recsolve as rs
        >>> u = np.full((9, 1), 1e-20)
        >>> rec = rs.Recurrence.from_function(lambda h, u: 0.5 * h + u, inputs=u, initial=np.zeros(1))
        >>> rec.state_scale == 2.0**-66
        True
        """
        return scale_of(self)

    def take_scale(self, size: float) -> None:
        """Take this as ``state_scale``: that of a whole of which this is a part, so that all of it is tested alike."""
        self.state_scale = size

    @abstractmethod
    def drive_is_finite(self, t: int) -> bool:
        """Return whether everything that drives step ``t`` is finite (the advice of a failed solve depends on it)."""

    @property
    def drive_like(self) -> Array:
        """An array whose first axes (T, *batch) are in the memory order that the states should have."""
        return namespace(self.initial).empty(self.shape, dtype=self.dtype)  # type: ignore[no-any-return]

    @property
    def repeats(self) -> bool:
        """Whether f is known to be a function of its arguments; else it is called again to see."""
        return False

    def leaves(self) -> dict[Leaf, Array]:
        """Return the native arrays that states depend on, by what gradients call them."""
        return {("initial", None): self.initial}

    # What is derived from that ---------------------------------------------------------------------------------

    @cached_property
    def shape(self) -> tuple[int, ...]:
        """The shape of the states, (T, *batch, *event)."""
        return (self.length, *self.batch, *self.layout.event)

    @property
    def depth(self) -> int:
        """How many steps follow one after the other: T, or the number of levels of a graph."""
        return self.length if self.graph is None else self.graph.depth

    def depth_of(self, steps: int) -> int:
        """Return how many whole levels the first steps are: as many, where there is no graph."""
        return steps

    def as_seen(self, state: Array) -> Array:
        """Return what a step sees where the states before it are all ``state``, as :meth:`step` takes it."""
        return state

    def everywhere(self, state: Array) -> Array:
        """Return what all steps see where the states before them are all ``state``, as :meth:`apply` takes it."""
        previous = self.empty()
        previous[...] = state
        return previous

    def unit(self, values: Array) -> Jacobian:
        """Return the Jacobian of the state before, I; ``values`` is an array like the states."""
        return Identity(values, self.layout)

    def seen_at(self, steps: Array) -> Array:
        """Return at which steps the states are seen by some of the given ones, all (T, *batch, *event) of bool."""
        seen = namespace(steps).zeros_like(steps)
        seen[:-1] = steps[1:]
        return seen  # type: ignore[no-any-return]

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

    @property
    def compiled(self) -> bool:
        """Whether compiled loops walk this recurrence; else Python calls f at every step."""
        return self.bind().compiled

    def empty(self, shape: tuple[int, ...] | None = None) -> Array:
        """Return uninitialised memory whose axes (T, *batch) lie in the memory order of those of the drive.

        Parameters
        ----------
        shape : tuple of int, optional
            (T, *batch, ...); default: that of the states.
        """
        return ordered_empty(self.shape if shape is None else shape, self.initial, self._order)

    @cached_property
    def _order(self) -> tuple[int, ...]:
        """The axes (T, *batch) from the slowest to the fastest."""
        return memory_order(self.drive_like, 1 + len(self.batch))

    def bind(self) -> Engine:
        """Return the engine that computes f for all t fastest: one that calls this recurrence, or a compiled one.

        Returns
        -------
        Engine
            Bound to these arrays and to the backend that is chosen now. All engines compute what ``apply``,
            ``differentiate`` and ``step`` define, up to rounding.

        Raises
        ------
        TypeError
            When a backend that compiles is forced and f cannot be traced; the message has the line.
        ValueError
            When f is no function: called again with the same arguments, it returns something else.

        Examples
        --------
        >>> import numpy as np, recsolve as rs
        >>> rec = rs.Recurrence.from_function(lambda h, u: 0.5 * h + u, inputs=np.ones((3, 1)), initial=np.zeros(1))
        >>> rec.bind().walk().ravel().tolist()
        [1.0, 1.5, 1.75]
        """
        return Engine(self)

    def takes(self, method: str) -> bool:
        """Return whether a method, by its name, can solve this recurrence."""
        return self.applies is None or method in self.applies

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
        return self.bind().evaluate(states)

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
        return self.bind().linearise(states)

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
        return self.bind().guess()

    def output(self, states: Array) -> Array:
        """Return what the recurrence shows of its states: a readout, a cell's output component, else the states.

        Parameters
        ----------
        states : array, shape (T, *batch, *event)

        Returns
        -------
        array, shape (T, *batch, *lanes, n)
            A view; of a readout (T, *batch, ...) and new.

        Examples
        --------
        >>> import numpy as np, recsolve as rs
        >>> rec = rs.cells.LSTM.random(input_size=2, hidden_size=4, rng=0).recurrence(np.ones((9, 2)))
        >>> rec.shape, rec.output(np.zeros(rec.shape)).shape
        ((9, 2, 4), (9, 4))
        """
        return states

    def pull_output(self, output: Array, states: Array) -> None:
        """Add to a cotangent of the states (T, *batch, *event), in place, what a cotangent of the output gives."""
        shown = self.output(states)
        shown += output

    def __repr__(self) -> str:
        shared = "" if self.timeline is None else f" of {self.timeline.total}, rank {self.timeline.ranks.rank}"
        shape = f"T={self.length}{shared}, batch={self.batch}, {self.layout}, {self.dtype}"
        return f"{type(self).__name__}({self.description}, {shape})"


def check_recurrence(recurrence: Any, *, graphs: bool = True, shards: bool = False) -> None:
    """Raise TypeError for an argument that is no recurrence, or one on a graph where these are not looked at.

    Also for one of which this rank holds some steps alone, unless ``shards``.
    """
    if not isinstance(recurrence, Recurrence):
        raise TypeError(f"recurrence is {type(recurrence).__name__}; wanted a Recurrence, as cell.recurrence(x) gives")
    if recurrence.graph is not None and not graphs:
        raise TypeError(f"recurrence is {recurrence!r}; wanted one along time, h[t] = f(h[t-1], u[t])")
    if recurrence.timeline is not None and not shards:
        raise TypeError(
            f"recurrence is {recurrence!r}, of whose steps other ranks hold the rest; wanted one with all its steps "
            "here, or its own steps alone: recurrence.window(0, recurrence.length, initial)"
        )


def check_known(recurrence: Recurrence, base: type[Recurrence]) -> None:
    """Raise unless f is what ``base`` computes, so that how it depends on other things than the state is known.

    Raises
    ------
    TypeError
        When a subclass overrides it.
    """
    kind, own = type(recurrence), _own(type(recurrence))
    if not recurrence.stepwise:
        raise TypeError(f"f of {kind.__name__} depends on more than the state before")
    known = own if issubclass(own, base) else base
    changed = [
        name for name in ("step", "apply", "differentiate", "_call") if getattr(kind, name) != getattr(known, name)
    ]
    if changed:
        raise TypeError(
            f"{kind.__name__} overrides {', '.join(changed)}, so how f depends on anything but the state is not known"
        )

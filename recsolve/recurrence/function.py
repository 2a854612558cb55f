"""A recurrence from a user's function: what f gets, what it returns, and the parts of it."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from math import prod
from typing import Any, Self

import numpy as np

from recsolve.base.arrays import (
    Array,
    UserArray,
    all_finite,
    common_kind,
    freeze,
    is_discrete,
    namespace,
    picked,
)
from recsolve.base.links import Leaf, follow, sever_all
from recsolve.base.names import Names
from recsolve.base.overriding import changed
from recsolve.recurrence.engine import Engine
from recsolve.recurrence.forms import ByPairs
from recsolve.recurrence.function_arguments import (
    COPYING,
    OF_F,
    advice_on,
    check_functions,
    checked,
    declared_structure,
    layout_of,
    leaves_of,
    length_of,
    natives,
)
from recsolve.recurrence.function_engine import FunctionEngine
from recsolve.recurrence.function_jacobian import FunctionJacobian
from recsolve.recurrence.function_names import arrays_of, components, described, parameters_by_name
from recsolve.recurrence.readout import read_out
from recsolve.symbolic.constants import state_dtype
from recsolve.symbolic.dual import Dual

# Numbers of states from which on f gets so many of them at a time: what it makes on the way stays in the cache.
_LARGE, _TOGETHER = 1 << 18, 1 << 16

# What the loop of the engine stands for.
_STEPS = ("step", "apply", "call", "contain", "seen", "shown", "weights", "_call")


class FunctionRecurrence(FunctionJacobian[UserArray]):
    """The recurrence of a user's function; :meth:`recsolve.Recurrence.from_function` makes it.

    Attributes
    ----------
    f : callable
    inputs : list of array
        The arrays of the drive, time first.
    parameters : Names
        The arrays that f gets by name, the same at all times.
    structure : str
        The declared structure of J; ``"pairs"`` where it is declared by pairs of components.
    form : Form or None
        What is declared of it beside its name.
    declaration : str, pair or Form
        Both, as ``structure=`` takes them.
    state : NamedState or None
        How states hold named components.
    readout : callable or None
    jacobian : callable or None

    Examples
    --------
    >>> import numpy as np, recsolve as rs
    >>> u = {"a": np.full((9, 2), 0.5), "b": np.ones((9, 2))}
    >>> rec = rs.Recurrence.from_function(
    ...     lambda h, u: u["a"] * h + u["b"], inputs=u, initial=np.zeros(2), structure="diagonal")
    >>> type(rec).__name__, rec.structure, len(rec.inputs)
    ('FunctionRecurrence', 'diagonal', 2)
    """

    opaque = True

    def __init__(
        self,
        f: Callable[..., Any],
        *,
        inputs: Any = None,
        initial: Any,
        parameters: Any = None,
        state: Any = None,
        structure: Any = "dense",
        jacobian: Callable[..., Any] | None = None,
        reset: Any = None,
        length: int | None = None,
        ties: Any = None,
        readout: Callable[..., Any] | None = None,
    ):
        check_functions(f, jacobian, readout, weighted=parameters is not None)
        if initial is None:
            raise TypeError("initial is None; wanted h[0], an array of shape (*batch, *event)")
        if isinstance(structure, str) and structure == "none" and jacobian is not None:
            raise ValueError("jacobian is given, but structure 'none' means that there is none")
        named, given = leaves_of(inputs), parameters_by_name(parameters)
        constants = {f"parameters[{name!r}]": x for name, x in given.items()}
        first = arrays_of(initial, state)
        kind = common_kind({**first, **named, **constants})
        native = natives(first, {**named, **constants}, free=isinstance(structure, str) and structure == "none")
        self.state, start = described(state, [native.pop(name) for name in first], initial)
        units = start.shape[-1] if start.ndim else 1
        self.form: Any  # of a class that the structure has
        self.structure, self.form = declared_structure(structure, self.state, units, jacobian is not None)
        self.declaration = self.form if isinstance(self.form, ByPairs) else structure
        weights = [_frozen(native.pop(name)) for name in constants]
        self.parameters = Names(dict(zip(given, weights, strict=True)), "parameter")
        self.takes_parameters = parameters is not None
        layout, batch = layout_of(self.structure, start)
        self.f, self.jacobian, self.readout = f, jacobian, readout
        self.description = getattr(f, "__name__", "function")
        self.inputs = [_frozen(x) for x in native.values()]
        self._container = dict.fromkeys(inputs) if isinstance(inputs, dict) else type(inputs)
        super().__init__(length_of(native, length), batch, layout, start, reset, kind, ties)
        if structure == "none":
            self._set_applies()

    def _set_applies(self) -> None:
        """State which methods apply to a function without derivative."""
        discrete = is_discrete(self.dtype)
        self.applies = COPYING if discrete else OF_F
        self.why = f"states are {self.dtype}, not real numbers" if discrete else "structure='none' has no derivative"

    def leaves(self) -> dict[Leaf, Array]:
        inputs: dict[Leaf, Array] = {("input", place): u for place, u in enumerate(self.inputs)}
        return {**super().leaves(), **inputs, **{("parameter", n): p for n, p in self.parameters.items()}}

    def contain(self, arrays: list[Any]) -> Any:
        """Return one array per input in the container that the inputs came in."""
        if isinstance(self._container, dict):
            return dict(zip(self._container, arrays, strict=True))
        if self._container is tuple:
            return tuple(arrays)
        return arrays[0] if arrays else None

    def leaves_of(self, inputs: Any, what: str = "inputs") -> dict[str, Any]:
        """Return arrays that came in the container of the inputs, by the names that messages use; none of None.

        Raises
        ------
        ValueError
            When there are others than the inputs are, or in another container.
        """
        given = leaves_of(inputs)
        wanted = leaves_of(self.contain(list(self.inputs)))
        if inputs is not None and given.keys() != wanted.keys():
            raise ValueError(f"{what} has {tuple(given)}; wanted {tuple(wanted)}")
        return {name: given[name] for name in wanted} if given else {}

    def call(self, function: Callable[..., Any], state: Any, inputs: list[Any], parameters: Mapping[str, Any]) -> Any:
        """Return what a function of the user's gives: arguments are arrays, or what stands for them.

        Parameters
        ----------
        function : callable
            ``f``, or another one that takes what it takes.
        state : array, shape (T, *batch, *event)
        inputs : list of array
            In the order of ``inputs``; f gets them in the container they came in.
        parameters : mapping of arrays
        """
        return function(self.seen(state), self.contain(inputs), *self.weights(parameters))

    def seen(self, state: Any) -> Any:
        """Return what functions of the user's get for ``state``: its components, where they have names."""
        if self.state is None:
            return state
        return self.state.split(state) if type(state) is np.ndarray else components(self.state, state)

    def weights(self, parameters: Mapping[str, Any]) -> tuple[Names, ...]:
        """Return the last arguments of the user's functions: the parameters, if there are any."""
        if not self.takes_parameters:
            return ()
        return (parameters if type(parameters) is Names else Names(parameters, "parameter"),)

    def results(self, function: Callable[..., Any], out: Any, cotangent: Array) -> list[tuple[Any, Array]]:
        """Return the arrays that a function returned, each with its part of the cotangent: f has one per component."""
        if self.state is None or function is not self.f:
            return [(out, cotangent)]
        return list(zip(self.state.ordered(out), self.state.split(cotangent).values(), strict=True))

    def flat(self, out: Any, lead: tuple[int, ...], dtype: Any = None) -> Any:
        """Return what f returned as flat states behind the axes ``lead``: components, of this dtype, are joined."""
        return out if self.state is None else self.state.pack(out, lead, dtype)

    def after(self, previous: Any) -> tuple[int, ...]:
        """Return the shape of f at what steps see."""
        return tuple(previous.shape)

    def shown(self, previous: Any) -> Any:
        """Return what steps see so that f cannot write into it."""
        return previous if isinstance(previous, Dual) else freeze(previous)

    def _call(
        self,
        previous: Any,
        index: slice,
        inputs: list[Any] | None = None,
        parameters: Mapping[str, Any] | None = None,
    ) -> Any:
        if inputs is None:
            inputs = self.inputs if index == slice(None) else [u[index] for u in self.inputs]
        parameters = self.parameters if parameters is None else parameters
        try:
            with state_dtype(self.dtype):
                out = self.call(self.f, self.shown(previous), inputs, parameters)
        except (ValueError, TypeError) as error:
            if (advice := advice_on(error)) is None:
                shapes = [tuple(u.shape) for u in self.inputs]
                error.add_note(f"h_prev has shape {self.after(previous)}, inputs have shapes {shapes}")
                raise
            raise TypeError(f"{self.description} {advice} ({error})") from error
        if self.state is not None:
            return self.flat(out, self.after(previous)[:-1], self.dtype)
        return checked(out, self.after(previous), self.dtype)

    def output(self, states: Array) -> Array:
        if self.readout is None:
            return states
        readout = self.readout

        def evaluate(cut: slice) -> Any:
            return self.call(readout, freeze(states[cut]), [u[cut] for u in self.inputs], self.parameters)

        with state_dtype(self.dtype), np.errstate(all="ignore"):
            return read_out(evaluate, states, 1 + len(self.batch), whole=not self.stepwise)

    def pull_output(self, output: Array, states: Array) -> None:
        states += output  # of a readout it is not asked: adjoint goes through that itself

    def _split(self, states: Array) -> dict[str, Array]:
        return super()._split(states) if self.state is None else dict(self.state.split(states))

    @property
    def drive_like(self) -> Array:
        axes = 1 + len(self.batch)
        fitting = [u for u in self.inputs if u.ndim >= axes and u.shape[:axes] == self.shape[:axes]]
        return fitting[0] if fitting else super().drive_like

    def bind(self) -> Engine:
        theirs = any(getattr(type(self), name) is not getattr(FunctionRecurrence, name) for name in _STEPS)
        return Engine(self) if theirs else FunctionEngine(self)

    def apply(self, previous: Array) -> Array:
        return self.in_parts(previous, lambda part: self._call(previous[part], part))

    def in_parts(self, like: Array, of: Callable[[slice], Array]) -> Array:
        """Return F from ``of(part)`` at all t, or at some at a time where NumPy's states are large."""
        if type(like) is not np.ndarray or (size := prod(self.shape)) < _LARGE:
            return of(slice(0, self.length))
        values, rows = self.empty(), -(-_TOGETHER * self.length // size)
        for start in range(0, self.length, rows):
            part = slice(start, min(start + rows, self.length))
            values[part] = of(part)
        return values

    def step(self, state: Array, t: int) -> Array:
        return self._call(state[None], slice(t, t + 1))[0]  # type: ignore[no-any-return]

    def _cut(self, cut: slice, initial: Any) -> FunctionRecurrence:
        inputs = self.contain([self.wrap(u[cut]) for u in self.inputs])
        reset = None if self.reset is None else self.reset[cut]
        length = None if self.inputs else len(range(*cut.indices(self.length)))
        return self._remade(inputs, initial, reset, length)

    def _select(self, place: tuple[Array, ...], initial: Any) -> FunctionRecurrence | None:
        index: Any = (slice(None), *place)
        axes = 1 + len(self.batch)
        parts = []
        for u in self.inputs:
            if u.ndim < axes:
                parts.append(u)  # one for all sequences
            elif all(n in (1, b) for n, b in zip(u.shape[1:axes], self.batch, strict=True)):
                parts.append(picked(u, (self.length, *self.batch), index))
            else:
                return None
        reset = None if self.reset is None else self.reset[index]
        inputs = self.contain([self.wrap(u) for u in parts])
        length = None if self.inputs else self.length
        return self._remade(inputs, initial, reset, length)

    def _remade(
        self, inputs: Any, initial: Any, reset: Array | None, length: int | None, parameters: Any = None
    ) -> Self:
        """Return a recurrence of the same class, with all that a subclass has added, on other inputs."""
        part = changed(self)
        if parameters is None:
            parameters = self._wrapped_parameters(lambda p: p)
        FunctionRecurrence.__init__(
            part,
            self.f,
            inputs=inputs,
            initial=initial,
            parameters=parameters,
            state=self.state,
            structure=self.declaration,
            jacobian=self.jacobian,
            reset=reset,
            length=length,
            ties=self.ties,
            readout=self.readout,
        )
        return part

    def with_a_step(self) -> Self:
        """Return the recurrence of one step, on zeros."""
        zeros = [namespace(u).zeros((1, *u.shape[1:]), u.dtype) for u in self.inputs]
        return self._remade(
            self.contain([self.wrap(u) for u in zeros]), self.wrap(self.initial), None, None if zeros else 1
        )

    def _wrapped_parameters(self, change: Callable[[Array], Array]) -> dict[str, Any] | None:
        """Return the parameters of the user's kind, changed."""
        return {n: self.wrap(change(p)) for n, p in self.parameters.items()} if self.takes_parameters else None

    def astype(self, dtype: Any) -> Self:
        """Return the recurrence with all its arrays in another dtype, integers and bools aside; f may refuse it."""

        def cast(x: Array) -> Array:
            return x if is_discrete(x.dtype) else x.astype(dtype)

        inputs, length = self.contain([self.wrap(cast(u)) for u in self.inputs]), None if self.inputs else self.length
        weights = self._wrapped_parameters(cast)
        made = self._remade(inputs, self.wrap(cast(self.initial)), self.reset, length, weights)
        sever_all(made, self)
        return made

    def drive_is_finite(self, t: int) -> bool:
        return all(all_finite(x) for x in (*self.parameters.values(), *(u[t] for u in self.inputs)))


def _frozen(x: Array) -> Array:
    """Return a read-only view that gradients go back through."""
    return follow(freeze(x), [x], lambda tensors: tensors[0])

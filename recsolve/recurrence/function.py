"""A recurrence from a user's function, differentiated forward in as few directions as its structure needs."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any, Self

import numpy as np

from recsolve.base.arguments import check_callable
from recsolve.base.arrays import (
    DISCRETE,
    FLOATS,
    Array,
    Kind,
    all_finite,
    common_dtype,
    common_kind,
    freeze,
    is_discrete,
    namespace,
    to_native,
)
from recsolve.base.layout import Layout
from recsolve.base.links import Leaf, follow, sever_all, to_linked
from recsolve.base.named_state import DTYPE_ADVICE, NamedState
from recsolve.base.names import Names
from recsolve.base.overriding import changed
from recsolve.base.ties import ties_in_force
from recsolve.jacobians import (
    Banded,
    Block,
    Diagonal,
    Identity,
    Jacobian,
    LaneDense,
    LowRank,
    PermutationDiagonal,
    Scalar,
    Zero,
)
from recsolve.jacobians.pattern import Pattern
from recsolve.recurrence.base import Recurrence
from recsolve.recurrence.engine import Engine
from recsolve.recurrence.forms import ByPairs, Form, read_structure
from recsolve.recurrence.function_engine import FunctionEngine
from recsolve.recurrence.function_names import arrays_of, components, described, joined, parameters_by_name
from recsolve.recurrence.function_tangent import Tangent
from recsolve.recurrence.readout import read_out
from recsolve.symbolic.constants import state_dtype
from recsolve.symbolic.dual import Dual, value_of

STRUCTURES: dict[str, type[Jacobian]] = {
    "zero": Zero,
    "identity": Identity,
    "scalar": Scalar,
    "diagonal": Diagonal,
    "block": Block,
    "permutation_diagonal": PermutationDiagonal,
    "low_rank": LowRank,
    "banded": Banded,
    "heads": LaneDense,
    "dense": LaneDense,
}
_EVENT_AXES = {"block": 2, "heads": 2}
_NO_UNITS = ("zero", "identity", "scalar", "diagonal", "none")  # whose event may be one number

# The methods that need f alone; of these, those that compare and copy states, and do no arithmetic with them.
_COPYING = frozenset(("sequential", "jacobi", "gauss_seidel", "parareal", "windowed", "chain", "auto"))
_OF_F = _COPYING | {"picard", "anderson", "triangular_anderson", "broyden", "diagonal_broyden"}

# What the loop of the engine stands for.
_STEPS = ("step", "apply", "call", "contain", "shown", "_call")

# Words in the errors of NumPy and torch for common mistakes, and the advice to add.
_ADVICE = {
    "read-only": "writes into its arguments; return new arrays, h * 2 not h *= 2",
    "truth value": "branches in Python on a value, but gets all steps at once; write np.where(condition, a, b)",
    "Python scalar": "uses a function of one number; take NumPy's, np.tanh not math.tanh",
    "must be Tensor": "uses torch, but gets NumPy arrays (CuPy arrays for CUDA tensors); use NumPy's functions",
}


def _layout(structure: str, initial: Array) -> tuple[Layout, tuple[int, ...]]:
    """Split the shape of h[0] into batch and the event that the structure reads."""
    axes = _EVENT_AXES.get(structure, 1)
    if initial.ndim == 0 and structure in _NO_UNITS:
        return Layout(units=None), ()
    if initial.ndim < axes:
        wanted = {"block": "(*batch, k, n)", "heads": "(*batch, H, n)"}.get(structure, "(*batch, n)")
        raise ValueError(f"initial has shape {initial.shape}; wanted {wanted} for structure {structure!r}")
    batch, event = initial.shape[: initial.ndim - axes], initial.shape[initial.ndim - axes :]
    if structure == "block":
        if event[0] < 2:
            raise ValueError(f"initial has shape {initial.shape}; wanted (*batch, k, n) with k >= 2 for 'block'")
        return Layout(components=event[0], units=event[1]), batch
    return Layout(lanes=tuple(event[:-1]), units=event[-1]), batch


def _leaves(inputs: Any) -> dict[str, Any]:
    """Name every array of the inputs; a tuple or a dict holds several, anything else is one."""
    if inputs is None:
        return {}
    if isinstance(inputs, dict):
        return {f"inputs[{name!r}]": x for name, x in inputs.items()}
    if isinstance(inputs, tuple):
        return {f"inputs[{i}]": x for i, x in enumerate(inputs)}
    return {"inputs": inputs}


def _declared(structure: Any, state: NamedState | None, units: int, given: bool) -> tuple[str, Form | None]:
    """Return the name of a declared structure and what is declared beside the name, which may need a ``jacobian``."""
    if isinstance(structure, Mapping):
        if state is None:
            raise ValueError("structure is declared by pairs of components, and state is not given")
        structure = ByPairs(state.size, Pattern(state, structure))
    if isinstance(structure, ByPairs):
        if given:
            raise ValueError("jacobian is given with a structure by pairs of components; wanted one of them")
        return "pairs", structure
    name, form = read_structure(structure, units)
    if name not in (*STRUCTURES, "none"):
        raise ValueError(f"structure is {structure!r}; wanted one of {', '.join(STRUCTURES)}, none")
    if form is not None and not given and form.seeds() is None:
        raise ValueError(f"structure is {structure!r} without jacobian; wanted one that returns {form.returned}")
    if state is not None and name in _EVENT_AXES:
        raise ValueError(f"structure is {structure!r}; wanted one by pairs of components, or one of a flat state")
    return name, form


class FunctionRecurrence(Recurrence):
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
        inputs: Any,
        initial: Any,
        structure: Any,
        jacobian: Callable[..., Any] | None,
        reset: Any,
        length: int | None,
        ties: Any = None,
        parameters: Any = None,
        state: Any = None,
        readout: Callable[..., Any] | None = None,
    ):
        taken = "(h_prev, u_t)" if parameters is None else "(h_prev, u_t, p)"
        check_callable("f", f, f"f{taken}")
        if jacobian is not None:
            check_callable("jacobian", jacobian, f"jacobian{taken}")
        if readout is not None:
            check_callable("readout", readout, f"readout{taken.replace('h_prev', 'h')}")
        if initial is None:
            raise TypeError("initial is None; wanted h[0], an array of shape (*batch, *event)")
        if isinstance(structure, str) and structure == "none" and jacobian is not None:
            raise ValueError("jacobian is given, but structure 'none' means that there is none")
        named, given = _leaves(inputs), parameters_by_name(parameters)
        constants = {f"parameters[{name!r}]": x for name, x in given.items()}
        first = arrays_of(initial, state)
        kind: Kind = common_kind({**first, **named, **constants})
        free = isinstance(structure, str) and structure == "none"
        numbers: Sequence[np.dtype[Any]] = (*FLOATS, *DISCRETE)  # tokens, say, may stand beside probabilities
        native = {name: to_linked(x, name, numbers if free else FLOATS) for name, x in first.items()}
        native |= {name: to_linked(x, name, numbers) for name, x in {**named, **constants}.items()}
        alike = {name: x for name, x in native.items() if name in first or not (free or is_discrete(x.dtype))}
        common_dtype(alike)
        self.state, start = described(state, [native.pop(name) for name in first], initial)
        units = start.shape[-1] if start.ndim else 1
        self.structure, self.form = _declared(structure, self.state, units, jacobian is not None)
        self.declaration = self.form if isinstance(self.form, ByPairs) else structure
        weights = [_frozen(native.pop(name)) for name in constants]
        self.parameters = Names(dict(zip(given, weights, strict=True)), "parameter")
        self.takes_parameters = parameters is not None
        layout, batch = _layout(self.structure, start)
        self.f, self.jacobian, self.readout = f, jacobian, readout
        self.description = getattr(f, "__name__", "function")
        self.inputs = [_frozen(x) for x in native.values()]
        self._container = dict.fromkeys(inputs) if isinstance(inputs, dict) else type(inputs)
        super().__init__(_length(native, length), batch, layout, start, reset, kind, ties)
        if structure == "none":
            self._set_applies()

    def _set_applies(self) -> None:
        """State which methods apply to a function without derivative."""
        discrete = is_discrete(self.dtype)
        self.applies = _COPYING if discrete else _OF_F
        self.why = f"states are {self.dtype}, not real numbers" if discrete else "structure='none' has no derivative"

    def leaves(self) -> dict[Leaf, Array]:
        inputs: dict[Leaf, Array] = {("input", place): u for place, u in enumerate(self.inputs)}
        return {**super().leaves(), **inputs, **{("parameter", n): p for n, p in self.parameters.items()}}

    def _shapes(self) -> list[tuple[int, ...]]:
        return [tuple(u.shape) for u in self.inputs]

    def contain(self, arrays: list[Any]) -> Any:
        """Return one array per input in the container that the inputs came in."""
        if isinstance(self._container, dict):
            return dict(zip(self._container, arrays, strict=True))
        if self._container is tuple:
            return tuple(arrays)
        return arrays[0] if arrays else None

    def leaves_of(self, inputs: Any) -> dict[str, Any]:
        """Return arrays that came in the container of the inputs, by the names that messages use; none of None.

        Raises
        ------
        ValueError
            When there are others than the inputs are, or in another container.
        """
        given = _leaves(inputs)
        wanted = _leaves(self.contain(list(self.inputs)))
        if inputs is not None and given.keys() != wanted.keys():
            raise ValueError(f"inputs has {tuple(given)}; wanted {tuple(wanted)}")
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
        named = parameters if type(parameters) is Names else Names(parameters, "parameter")
        given = (named,) if self.takes_parameters else ()
        if self.state is not None:
            state = self.state.split(state) if type(state) is np.ndarray else components(self.state, state)
        return function(state, self.contain(inputs), *given)

    def results(self, function: Callable[..., Any], out: Any, cotangent: Array) -> list[tuple[Any, Array]]:
        """Return the arrays that a function returned, each with its part of the cotangent: f has one per component."""
        if self.state is None or function is not self.f:
            return [(out, cotangent)]
        return list(zip(self.state.ordered(out), self.state.split(cotangent).values(), strict=True))

    def flat(self, out: Any, lead: tuple[int, ...], dtype: Any = None) -> Any:
        """Return what f returned as flat states behind the axes ``lead``: components, of this dtype, are joined."""
        if self.state is None:
            return out
        parts = self.state.ordered(out)
        self.state.check(parts, lead, dtype)
        if not any(isinstance(part, Dual) for part in parts):
            return self.state.join(parts, lead)
        return np.concatenate([part.reshape((*lead, -1)) for part in parts], axis=-1)

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
        inputs = [u[index] for u in self.inputs] if inputs is None else inputs
        parameters = self.parameters if parameters is None else parameters
        try:
            with state_dtype(self.dtype):
                out = self.call(self.f, self.shown(previous), inputs, parameters)
        except (ValueError, TypeError) as error:
            advice = next((text for words, text in _ADVICE.items() if words in str(error)), None)
            if advice is None:
                error.add_note(f"h_prev has shape {self.after(previous)}, inputs have shapes {self._shapes()}")
                raise
            raise TypeError(f"{self.description} {advice} ({error})") from error
        if self.state is not None:
            lead = tuple(previous.shape[:-1])
            packed = self.state.pack(out, lead, self.dtype)
            return joined(self.state, self.state.ordered(out), lead, self.dtype) if packed is None else packed
        if not hasattr(value_of(out), "dtype"):
            raise TypeError(f"f returned {type(out).__name__}; wanted an array like h_prev")
        shape, wanted = tuple(np.shape(value_of(out))), self.after(previous)
        if shape != wanted:
            raise ValueError(f"f returned shape {shape}; wanted that of h_prev, {wanted}")
        if out.dtype != self.dtype:
            raise TypeError(f"f returned dtype {out.dtype}; wanted {self.dtype}, {DTYPE_ADVICE}")
        return out

    def output(self, states: Array) -> Array:
        if self.readout is None:
            return states
        readout = self.readout

        def evaluate(cut: slice) -> Any:
            return self.call(readout, freeze(states[cut]), [u[cut] for u in self.inputs], self.parameters)

        with state_dtype(self.dtype), np.errstate(all="ignore"):
            return read_out(evaluate, states, 1 + len(self.batch))

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
        return self._call(previous, slice(None))  # type: ignore[no-any-return]

    def step(self, state: Array, t: int) -> Array:
        return self._call(state[None], slice(t, t + 1))[0]  # type: ignore[no-any-return]

    @property
    def is_automatic(self) -> bool:
        """Whether f is differentiated with respect to the state; not where a ``jacobian`` or the structure gives J."""
        return self.jacobian is None and self.structure not in ("zero", "identity", "none")

    def differentiate(self, previous: Array) -> tuple[Array, Jacobian]:
        if self.structure == "none":
            raise TypeError(f"{self.description} has no derivative, as its structure is 'none'")
        kind, layout = STRUCTURES.get(self.structure), self.layout
        if kind is Zero or kind is Identity:
            values = self.apply(previous)
            return values, kind(values, layout)
        if self.jacobian is not None:
            return self.apply(previous), self._declared(previous)
        seeds = self._seeds(previous)
        out = self._push(previous, seeds) if len(seeds) else self.apply(previous)
        if not isinstance(out, Tangent) or not out.partials:  # f ignores the state, or has steps of it
            values = value_of(out)
            return values, Zero(values, layout)
        return out.value, self._gather(out.directions)

    def operator(self, states: Array) -> tuple[Callable[[Array], Array], Jacobian | None]:
        if self.jacobian is not None or STRUCTURES.get(self.structure) is not LaneDense:
            return super().operator(states)
        previous = self.previous(states)

        def product(v: Array) -> Array:
            with np.errstate(all="ignore"):
                return self.push_state(previous, v[None])[0]  # type: ignore[no-any-return]

        return product, None

    def _push(self, previous: Array, directions: Array) -> Any:
        with ties_in_force(self.ties):
            return self._call(Tangent.seeded(previous, directions), slice(None))

    def push_state(self, previous: Array, directions: Array) -> Array:
        """Return the automatic derivatives of F along directions of the state, whatever structure and ``jacobian`` say.

        Parameters
        ----------
        previous : array, shape (T, *batch, *event)
        directions : array, shape (m, T, *batch, *event)

        Returns
        -------
        array, shape (m, T, *batch, *event)

        Raises
        ------
        TypeError
            When automatic differentiation cannot follow f.

        Examples
        --------
        >>> import numpy as np, recsolve as rs
        >>> rec = rs.Recurrence.from_function(lambda h, u: h * h + u, inputs=np.ones((2, 1)), initial=np.ones(1))
        >>> rec.push_state(np.array([[3.0], [4.0]]), np.ones((1, 2, 1))).ravel().tolist()
        [6.0, 8.0]
        """
        out, shape = self._push(previous, directions), (len(directions), *self.after(previous))
        if not isinstance(out, Tangent) or not out.partials:
            return namespace(previous).zeros(shape, directions.dtype)  # type: ignore[no-any-return]
        return namespace(previous).broadcast_to(out.directions, shape)  # type: ignore[no-any-return]

    def _seeds(self, previous: Array) -> Array:
        """Return the directions that reveal every entry of the structure: unit vectors, the same in all lanes."""
        xp, layout = namespace(previous), self.layout
        if self.form is not None:
            seeds = xp.asarray(self.form.seeds(), dtype=self.dtype)
        elif self.structure in ("scalar", "diagonal"):
            seeds = xp.ones((1, *layout.event), dtype=self.dtype)
        elif self.structure == "block":
            seeds = xp.broadcast_to(
                xp.eye(layout.components, dtype=self.dtype)[:, :, None], (layout.components, *layout.event)
            )
        else:
            width = layout.lane_width
            eye = xp.eye(width, dtype=self.dtype).reshape(width, *(1,) * len(layout.lanes), width)
            seeds = xp.broadcast_to(eye, (width, *layout.event))
        spread = seeds.reshape(len(seeds), *(1,) * (1 + len(self.batch)), *layout.event)
        return xp.broadcast_to(spread, (len(seeds), *previous.shape))  # type: ignore[no-any-return]

    def _gather(self, directions: Array) -> Jacobian:
        """Read the structured Jacobian off the derivatives (m, T, *batch, *event) along the seeds."""
        xp, layout = namespace(directions), self.layout
        directions = xp.broadcast_to(directions.astype(self.dtype, copy=False), (len(directions), *self.shape))
        if self.form is not None:
            return self.form.gather(directions, layout)
        if self.structure == "scalar":
            return Scalar(directions[0][(..., *(0,) * len(layout.event))], layout)
        if self.structure == "diagonal":
            return Diagonal(directions[0], layout)
        if self.structure == "block":
            return Block(xp.moveaxis(directions, 0, -2), layout)
        return LaneDense(xp.moveaxis(directions, 0, -1), layout)

    def _declared(self, previous: Array) -> Jacobian:
        assert self.jacobian is not None
        given = self.call(self.jacobian, previous, self.inputs, self.parameters)
        layout, leading = self.layout, (self.length, *self.batch)
        if self.form is not None:
            return self.form.declared(given, layout, leading, previous)
        data = to_native(given, "jacobian")
        if data.dtype != self.dtype:
            raise TypeError(f"jacobian returned dtype {data.dtype}; wanted {self.dtype}")
        width = layout.lane_width
        shape: tuple[int, ...] = {
            "scalar": leading,
            "diagonal": leading + layout.event,
            "block": (*leading, layout.components, *layout.event),
        }.get(self.structure, (*leading, *layout.lanes, width, width))
        try:
            entries = namespace(previous).broadcast_to(data, shape)
        except ValueError:
            raise ValueError(
                f"jacobian returned shape {tuple(data.shape)}; wanted {shape} for structure {self.structure!r}"
            ) from None
        return STRUCTURES[self.structure](entries, layout)  # type: ignore[call-arg]

    def _cut(self, cut: slice, initial: Any) -> FunctionRecurrence:
        inputs = self.contain([self.wrap(u[cut]) for u in self.inputs])
        reset = None if self.reset is None else self.reset[cut]
        length = None if self.inputs else len(range(*cut.indices(self.length)))
        return self._remade(inputs, initial, reset, length)

    def _select(self, place: tuple[Array, ...], initial: Any) -> FunctionRecurrence | None:
        index: Any = (slice(None), *place)
        axes = 1 + len(self.batch)
        picked = []
        for u in self.inputs:
            if u.ndim < axes:
                picked.append(u)  # one for all sequences
            elif all(n in (1, b) for n, b in zip(u.shape[1:axes], self.batch, strict=True)):
                picked.append(namespace(u).broadcast_to(u, (self.length, *self.batch, *u.shape[axes:]))[index])
            else:
                return None
        reset = None if self.reset is None else self.reset[index]
        inputs = self.contain([self.wrap(u) for u in picked])
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
            part, self.f, inputs, initial, self.declaration, self.jacobian, reset, length, self.ties, parameters,
            self.state, self.readout,
        )  # fmt: skip
        return part

    def _wrapped_parameters(self, change: Callable[[Array], Array]) -> dict[str, Any] | None:
        """Return the parameters of the user's kind, changed."""
        return {n: self.wrap(change(p)) for n, p in self.parameters.items()} if self.takes_parameters else None

    def astype(self, dtype: Any) -> Self:
        """Return the recurrence with all its arrays in another dtype; f may refuse it (TypeError)."""
        start = self.initial if is_discrete(self.dtype) else self.initial.astype(dtype)
        parameters = self._wrapped_parameters(lambda p: p if is_discrete(p.dtype) else p.astype(dtype))
        length = None if self.inputs else self.length
        made = self._remade(self._inputs_as(dtype), self.wrap(start), self.reset, length, parameters)
        sever_all(made, self)
        return made

    def _inputs_as(self, dtype: Any) -> Any:
        """Return the inputs in another dtype; integers and bools stay what they are."""
        return self.contain([self.wrap(u if is_discrete(u.dtype) else u.astype(dtype)) for u in self.inputs])

    @property
    def rounding(self) -> float:
        # The matrices are not known: rows of norm 1 are assumed.
        if self.form is not None:
            return float(self.form.terms) ** 0.5 / 8 if self.form.terms > 1 else 0.0
        couples = STRUCTURES.get(self.structure, LaneDense) is LaneDense and not is_discrete(self.dtype)
        return float(self.layout.lane_width) ** 0.5 / 8 if couples else 0.0

    def drive_is_finite(self, t: int) -> bool:
        return all(all_finite(x) for x in (*self.parameters.values(), *(u[t] for u in self.inputs)))


def _frozen(x: Array) -> Array:
    """Return a read-only view that gradients go back through."""
    return follow(freeze(x), [x], lambda tensors: tensors[0])


def _length(inputs: dict[str, Array], length: int | None) -> int:
    lengths = {name: x.shape[0] if x.ndim else None for name, x in inputs.items()}
    if None in lengths.values():
        raise ValueError(f"inputs have lengths {lengths}; wanted arrays with time as their first axis")
    if not lengths:
        if not isinstance(length, (int, np.integer)) or length < 0:
            raise ValueError(f"length is {length!r}; wanted an integer T >= 0, since there are no inputs")
        return length
    if len(set(lengths.values())) > 1 or (length is not None and length not in lengths.values()):
        seen = lengths if length is None else {**lengths, "length": length}
        raise ValueError(f"lengths along time (the first axis) differ: {seen}")
    return int(next(iter(lengths.values())) or 0)

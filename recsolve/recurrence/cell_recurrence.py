"""The recurrence of a cell: evaluate its function on arrays, differentiate it on duals."""

from __future__ import annotations

from collections.abc import Callable
from functools import cached_property
from typing import TYPE_CHECKING, Any, Self

import numpy as np

from recsolve.base.arguments import check_callable
from recsolve.base.arrays import Array, Kind, UserArray, all_finite, common_kind, freeze, namespace, picked, to_host
from recsolve.base.links import Leaf, follow
from recsolve.base.names import Names
from recsolve.base.overriding import changed
from recsolve.base.ties import ties_in_force
from recsolve.jacobians import Jacobian
from recsolve.jacobians.factored import Call
from recsolve.kernels.held import Held, identical
from recsolve.kernels.starts import Starts
from recsolve.mixings import Mixing, couples, form_of, plain_of
from recsolve.recurrence.base import Recurrence
from recsolve.recurrence.binding import engine_of
from recsolve.recurrence.cell_jacobian import structured
from recsolve.recurrence.current import sees_arguments_alone
from recsolve.recurrence.engine import Engine
from recsolve.recurrence.given import check_initial
from recsolve.recurrence.readout import read_out
from recsolve.symbolic.constants import ConstantError, component, state_dtype, watched
from recsolve.symbolic.dual import ONE, Dual, value_of
from recsolve.symbolic.units import units_in_force

if TYPE_CHECKING:
    from recsolve.recurrence.weighted_cell import WeightedCell


class CellRecurrence(Recurrence[UserArray]):
    """The recurrence of a cell; :meth:`recsolve.WeightedCell.recurrence` makes it.

    Attributes
    ----------
    cell : WeightedCell
    drive : Names
        One array per drive, broadcasting to (T, *batch, *lanes, n).
    x : array or None
        The input (T, *batch, input_size) that the drives were projected from.
    readout : callable or None

    Examples
    --------
    >>> import numpy as np, recsolve as rs
    >>> rec = rs.cells.GRU.random(input_size=3, hidden_size=8, rng=0).recurrence(np.ones((20, 3)))
    >>> values, J = rec.linearise(rec.guess())
    >>> type(J).__name__, values.shape
    ('Factored', (20, 8))
    """

    compilable = True  # not inherited: compiled loops do not know what a subclass overrides
    _held: tuple[Held, Starts] | None = None

    def __init__(
        self,
        cell: WeightedCell,
        drive: Names,
        initial: Any,
        reset: Any,
        kind: Kind,
        x: Array | None = None,
        ties: Any = None,
        readout: Callable[..., Any] | None = None,
    ):
        if readout is not None:
            check_callable("readout", readout, "readout(s, u, p)")
        self.cell, self.drive, self.x, self.readout = cell, drive, x, readout
        self._held = None
        self.description = cell.cell.name
        length, batch = _leading(drive, cell)
        like = cell.like(drive)
        start = _initial(initial, cell, batch, like, kind)
        super().__init__(length, batch, cell.layout, start, reset, kind, ties)
        self._parameters = Names(cell.parameters, "parameter")
        self._mixings = Names(cell.mixings, "mixing")

    def leaves(self) -> dict[Leaf, Array]:
        return {**super().leaves(), **self.cell.leaves_on(self.drive, self.x)}

    def _components(self, states: Array) -> Names:
        states = freeze(states)  # a cell that writes into its state must fail, not change the iterate
        return Names(self._split(states), "component")

    def _split(self, states: Array) -> dict[str, Array]:
        return {name: self.layout.component(states, i) for i, name in enumerate(self.cell.cell.state)}

    @cached_property
    def _has_constants(self) -> bool:
        """Whether the function uses NumPy numbers or arrays of its own, as found by running one step.

        Then it is called on duals, which give these the dtype of the state; otherwise on arrays, which is faster.
        """
        if 0 in self.shape:
            return False
        with watched() as seen, np.errstate(all="ignore"):
            try:
                self._on_duals(self._components(self.initial[None]), self._drive_at(slice(0, 1)))
            except ConstantError:
                raise
            except Exception:  # an operation that duals do not carry is reported where they are needed
                return False
        return bool(seen)

    def _drive_at(self, t: int | slice) -> Names:
        return Names({name: u[t] for name, u in self.drive.items()}, "drive")

    def _on_duals(self, s: Names, u: Names, tape: _Tape | None = None) -> Any:
        tape = _Tape(self.layout.components) if tape is None else tape
        W = tape.mixings(self.cell.mixings)
        with units_in_force(self._units, tape.call):
            return self.cell.cell.function(
                _duals(s, "component"), W, _duals(u, "drive"), _duals(self._parameters, "parameter")
            )

    @cached_property
    def _units(self) -> int:
        """Of a lane, in one component."""
        return self.layout.lane_width // self.layout.components

    def _call(self, s: Names, u: Names, tape: _Tape | None = None) -> list[Any]:
        try:
            with state_dtype(self.dtype):
                if self._has_constants:
                    out = self._on_duals(s, u, tape)
                else:
                    W = self._mixings if tape is None else tape.mixings(self.cell.mixings)
                    with units_in_force(self._units, None if tape is None else tape.call):
                        out = self.cell.cell.function(s, W, u, self._parameters)
        except ValueError as error:
            if "truth value" in str(error):
                raise TypeError(
                    f"{self.description} branches in Python on a value of the state; it gets all steps at once, so "
                    "write where(condition, a, b), minimum or maximum"
                ) from error
            raise
        return list(out) if isinstance(out, tuple) else [out]

    def _states(self, values: list[Any], like: Array) -> Array:
        """Return states from the components that the function returned, which may lack broadcast axes."""
        part = self.layout.component(like, 0)
        names = self.cell.cell.state
        values = [component(value_of(v), part, name) for v, name in zip(values, names, strict=True)]
        full = [v if v.shape == part.shape else namespace(like).broadcast_to(v, part.shape) for v in values]
        return self.cell.stack_components(full, part)

    def held(self, inputs: list[Array]) -> tuple[Held, Starts]:
        """Return inputs of a compiled loop and what it starts from: the lists of the last time if all are the same."""
        starts = Starts(self.initial, self.restart, self.reset)
        known = self._held
        if known is None or not (known[0].same(inputs) and identical(known[1], starts)):
            known = self._held = Held(inputs), starts
        return known

    def __getstate__(self) -> dict[str, Any]:
        """Return what a copy needs; where its arrays lie it finds out itself."""
        return {**vars(self), "_held": None}

    def bind(self) -> Engine:
        return engine_of(self)

    def apply(self, previous: Array) -> Array:
        return self._states(self._call(self._components(previous), self.drive), previous)

    def step(self, state: Array, t: int) -> Array:
        return self._states(self._call(self._components(state), self._drive_at(t)), state)

    @property
    def repeats(self) -> bool:
        return type(self) is CellRecurrence and sees_arguments_alone(self.cell.cell.function)

    def differentiate(self, previous: Array) -> tuple[Array, Jacobian]:
        tape = _Tape(self.layout.components)
        s = {name: Dual(part, {i: ONE}) for i, (name, part) in enumerate(self._components(previous).items())}
        with ties_in_force(self.ties):
            out = self._call(Names(s, "component"), self.drive, tape)
        values = self._states(out, previous)
        part = self.layout.component(previous, 0)
        xp = namespace(previous)

        def spread(partials: Any) -> dict[int, Array]:
            return {leaf: xp.broadcast_to(xp.asarray(p, part.dtype), part.shape) for leaf, p in partials.items()}

        outputs: list[dict[int, Array]] = [spread(x.partials) if isinstance(x, Dual) else {} for x in out]
        calls = [Call(mixing, spread(partials)) for mixing, partials in tape.calls]
        return values, structured(values, calls, outputs, self.layout, (self.length, *self.batch))

    @property
    def drive_like(self) -> Array:
        widest = max(self.drive.values(), key=lambda u: u.size)
        return widest if widest.ndim > len(self.batch) + 1 else super().drive_like

    def output(self, states: Array) -> Array:
        if self.readout is None:
            return self.cell.output(states)
        readout = self.readout

        def evaluate(cut: slice) -> Any:
            return readout(self._components(states[cut]), self._drive_at(cut), self._parameters)

        with np.errstate(all="ignore"):
            return read_out(evaluate, states, 1 + len(self.batch))

    def pull_output(self, output: Array, states: Array) -> None:
        self.cell.pull_output(output, states)

    def _cut(self, cut: slice, initial: Any) -> CellRecurrence:
        drive = self._drive_at(cut)
        reset = None if self.reset is None else self.reset[cut]
        x = None if self.x is None else self.x[cut]
        return self._remade(drive, initial, reset, x)

    def _select(self, place: tuple[Array, ...], initial: Any) -> CellRecurrence:
        index: Any = (slice(None), *place)
        lead = (self.length, *self.batch)
        drive = Names({name: picked(u, lead, index) for name, u in self.drive.items()}, "drive")
        reset = None if self.reset is None else self.reset[index]
        x = None if self.x is None else picked(self.x, lead, index)
        return self._remade(drive, initial, reset, x)

    def single_steps(self, place: tuple[Array, ...], previous: Array) -> Self | None:
        """Return the recurrence of single steps, each as a sequence of its own; None where weights move with time.

        Parameters
        ----------
        place : tuple of array of int
            The times of R steps, and their places in the batch.
        previous : array, shape (R, *event)
            The states before them.
        """
        if any(m.moves for m in self.cell.mixings.values()):
            return None
        lead = (self.length, *self.batch)
        drive = Names({name: picked(u, lead, place)[None] for name, u in self.drive.items()}, "drive")
        return self._remade(drive, self.wrap(previous), None, None)

    def _remade(self, drive: Names, initial: Any, reset: Array | None, x: Array | None) -> Self:
        """Return a recurrence of the same class, with all that a subclass has added, on another drive."""
        part = changed(self, **self._of_function)
        CellRecurrence.__init__(part, self.cell, drive, initial, reset, self.kind, x, self.ties, self.readout)
        return part

    def starting(self, initial: Array) -> Self:
        """Return the same steps from another native state; resets go back to where they did."""
        return changed(self, initial=initial, _held=None, **self._of_function)

    @property
    def _of_function(self) -> dict[str, Any]:
        """What is known of the function and its weights, not of the drive."""
        return {name: vars(self)[name] for name in ("_has_constants", "rounding") if name in vars(self)}

    @cached_property
    def rounding(self) -> float:
        coupled = [m for m in map(plain_of, self.cell.mixings.values()) if couples(m)]
        known = [m for m in coupled if form_of(m)]
        with np.errstate(all="ignore"):
            found = [m.rounding for m in coupled if not form_of(m)]
            squares = [(m.weight.astype(np.float64) ** 2).sum(axis=-1).max() for m in known]
        if squares:
            norms = to_host(namespace(squares[0]).stack(squares)) ** 0.5  # the host waits for a device once
            found.append(float(max(norms * [m.units**0.5 / 8 for m in known])))
        return max(found, default=0.0)

    def drive_is_finite(self, t: int) -> bool:
        return all(all_finite(u[t]) for u in self.drive.values())


def _duals(arrays: Names, what: str) -> Names:
    """Return arrays as duals; those that are none yet get no partials."""
    return Names({n: x if isinstance(x, Dual) else Dual(x, {}) for n, x in arrays.items()}, what)


class _Tape:
    """Records the mixing calls of one pass; each opens a new leaf. Diagonal mixings are elementwise and inline."""

    def __init__(self, components: int):
        self.components = components
        self.calls: list[tuple[Mixing, dict[Any, Any]]] = []

    def mixings(self, mixings: dict[str, Mixing]) -> Names:
        return Names({name: self._caller(mixing) for name, mixing in mixings.items()}, "mixing")

    def _caller(self, mixing: Mixing) -> Any:
        return lambda x: self.call(mixing, x) if isinstance(x, Dual) else mixing(x)

    def call(self, mixing: Mixing, x: Dual) -> Any:
        if not couples(mixing):
            return Dual(mixing.weight, {}) * x  # a weight is no constant of the function
        if not x.partials:
            return Dual(mixing(x.value), {})
        leaf = self.components + len(self.calls)
        self.calls.append((mixing, x.partials))
        return Dual(mixing(x.value), {leaf: ONE})


def _leading(drive: Names, cell: WeightedCell) -> tuple[int, tuple[int, ...]]:
    """Return T and the batch shape that the drives span together."""
    event = cell.layout.event[-(len(cell.layout.lanes) + 1) :]
    shapes = {name: tuple(u.shape) for name, u in drive.items()}
    wanted = f"({', '.join(['T', '*batch', *map(str, event)])})"
    lengths = {shape[0] if len(shape) > len(event) else None for shape in shapes.values()}
    if None in lengths or len(lengths) > 1:
        raise ValueError(f"drives have shapes {shapes}; wanted {wanted} with one T")
    try:
        # Equal ranks: NumPy would align a missing batch axis with time.
        if len({len(shape) for shape in shapes.values()}) > 1:
            raise ValueError
        full = np.broadcast_shapes(*shapes.values())
        if np.broadcast_shapes(full[len(full) - len(event) :], event) != event:
            raise ValueError
    except ValueError:
        raise ValueError(f"drives have shapes {shapes}; wanted shapes that broadcast to {wanted}") from None
    return full[0], tuple(full[1 : len(full) - len(event)])


def _initial(initial: Any, cell: WeightedCell, batch: tuple[int, ...], like: Array, kind: Kind) -> Array:
    """Return h[0] (*batch, *event) from an array, or from one array per component."""
    layout = cell.layout
    if not isinstance(initial, dict):
        return check_initial(initial, batch + layout.event, like, kind)
    unknown = set(initial) ^ set(cell.cell.state)
    if unknown:
        raise ValueError(f"initial has components {tuple(initial)}; wanted {cell.cell.state}")
    common_kind({f"initial[{n!r}]": x for n, x in initial.items()})
    part = batch + layout.event[-(len(layout.lanes) + 1) :]
    parts = [check_initial(initial[n], part, like, kind) for n in cell.cell.state]
    if layout.components == 1:
        return parts[0]

    def stacked(tensors: list[Any]) -> Any:
        import torch

        return torch.stack(tensors, dim=len(batch))

    return follow(namespace(like).stack(parts, axis=len(batch)), parts, stacked)

"""The recurrence on a graph: h[n] = f(h[parents of n], u[n]).

Inside, nodes lie along the axis of time, in the order of levels: a node comes after its parents, as a step comes after
the one before it, so that what is known of some leading steps is known of nodes whose ancestors are all among them.
What steps see, ``previous``, has one axis more, (N, P, *batch, *event), which f gets as P arrays.
"""

from __future__ import annotations

from functools import cached_property
from typing import Any, NamedTuple, Self

import numpy as np

from recsolve.base.arrays import (
    DISCRETE,
    FLOATS,
    Array,
    UserArray,
    freeze,
    kind_of,
    namespace,
    to_host,
)
from recsolve.base.graph import Graph
from recsolve.base.links import follow, from_linked, sever_all, to_linked
from recsolve.jacobians import ByParent, Identity, Jacobian, Scalar, Zero
from recsolve.recurrence.base import Recurrence
from recsolve.recurrence.engine import Engine
from recsolve.recurrence.function import FunctionRecurrence
from recsolve.recurrence.function_arguments import STRUCTURES
from recsolve.recurrence.function_engine import attempt
from recsolve.recurrence.function_tangent import Tangent
from recsolve.symbolic.constants import state_dtype


class GraphRecurrence(FunctionRecurrence[UserArray]):
    """A recurrence on a graph; :meth:`recsolve.Recurrence.from_graph` makes it.

    Its methods take and return native arrays in the order of levels; ``in_order`` and ``as_given`` lead there from the
    user's layout of the nodes, and back. A ``window`` is of nodes in that order, which see ``initial`` in place of
    others.

    Attributes
    ----------
    graph : Graph
    known : array, shape (K, *batch, *event)
        The states of parents that are no nodes: ``initial``, and in a part those of nodes that are not in it.

    Examples
    --------
    >>> import numpy as np, recsolve as rs
    >>> rec = rs.Recurrence.from_graph(lambda h, u: h[0] + u, [[1], [-1]], inputs=np.ones((2, 1)), initial=np.zeros(1))
    >>> rec, rs.solve(rec).states.ravel().tolist()
    (GraphRecurrence(<lambda>, Graph((2,) nodes, 1 parents each, 2 levels), batch=(), float64), [2.0, 1.0])
    """

    graph: Graph

    def __init__(self, f: Any, parents: Any, *, inputs: Any = None, **given: Any):
        self.graph = parents if isinstance(parents, Graph) else Graph(parents)
        length = self.graph.size if inputs is None or (isinstance(inputs, (dict, tuple)) and not inputs) else None
        super().__init__(f, inputs=self._ordered(inputs), length=length, **given)
        self.known = self.initial[None]

    def _ordered(self, inputs: Any) -> Any:
        """Return the inputs, in their container, with nodes in the order of levels as their first axis."""

        def ordered(x: Any, name: str) -> Any:
            native = to_linked(x, name, (*FLOATS, *DISCRETE))
            made = follow(self.in_order(native, name), [native], lambda tensors: self._tensor_in_order(tensors[0]))
            return from_linked(made, kind_of(x))

        if isinstance(inputs, dict):
            return {n: ordered(x, f"inputs[{n!r}]") for n, x in inputs.items()}
        if isinstance(inputs, tuple):
            return tuple(ordered(x, f"inputs[{i}]") for i, x in enumerate(inputs))
        return None if inputs is None else ordered(inputs, "inputs")

    def _tensor_in_order(self, x: Any) -> Any:
        import torch

        flat = x.reshape(self.graph.size, *x.shape[len(self.graph.shape) :])
        return flat if self.graph.ordered else flat[torch.as_tensor(self.graph.order, device=x.device)]

    # The user's layout of nodes --------------------------------------------------------------------------------

    def as_given(self, x: Array) -> Array:
        if not self.graph.ordered:
            out = namespace(x).empty(x.shape, x.dtype)
            out[namespace(x).asarray(self.graph.order)] = x
            x = out
        return x.reshape(*self.graph.shape, *x.shape[1:])

    def in_order(self, x: Array, name: str) -> Array:
        axes = len(self.graph.shape)
        if tuple(x.shape[:axes]) != self.graph.shape:
            raise ValueError(f"{name} has shape {tuple(x.shape)}; wanted the nodes first, {self.graph.shape}")
        flat = x.reshape(self.graph.size, *x.shape[axes:])
        return flat if self.graph.ordered else flat[namespace(x).asarray(self.graph.order)]

    def name_of(self, step: int) -> int | tuple[int, ...]:
        return self.graph.name(step)

    def depth_of(self, steps: int) -> int:
        return int(np.searchsorted(self.graph.starts, steps, side="right")) - 1

    # What nodes see --------------------------------------------------------------------------------------------

    @cached_property
    def _gathers(self) -> list[tuple[Array, Array, Array]]:
        """For every slot: the places of the parents, the nodes where they are no nodes, and what these see."""
        xp, parents = namespace(self.initial), self.graph.parents
        found = []
        for p in range(self.graph.slots):
            missing = np.flatnonzero(parents[:, p] < 0)
            found.append((np.maximum(parents[:, p], 0), missing, -1 - parents[missing, p]))
        return [tuple(map(xp.asarray, arrays)) for arrays in found]

    def previous(self, states: Array) -> Array:
        return self.seen_by(slice(0, self.length), states)

    def seen_by(self, nodes: slice, states: Array) -> Array:
        """Return what some nodes see, (n, P, *batch, *event)."""
        xp = namespace(states)
        shape = (self.graph.slots, nodes.stop - nodes.start, *states.shape[1:])
        slots = xp.empty(shape, states.dtype)  # one after the other in memory
        for slot, (places, missing, seen) in zip(slots, self._gathers, strict=True):
            if xp is np:
                states.take(places[nodes], axis=0, out=slot, mode="clip")
            else:
                slot[...] = states[places[nodes]]
            part = slice(None)
            if len(slot) < self.length:
                part = slice(*np.searchsorted(to_host(missing), (nodes.start, nodes.stop)))
            slot[missing[part] - nodes.start] = self.known[seen[part]]
        return slots.swapaxes(0, 1)  # type: ignore[no-any-return]

    @property
    def starts(self) -> Array:
        return self._over_batch(np.asarray(~self.graph.present.any(axis=1)))

    @property
    def from_initial(self) -> Array:
        """(N, P, *batch) of bool: the parents that are missing, in whose place ``initial`` is seen."""
        return self._over_batch(np.equal(self.graph.parents, -1))

    def _over_batch(self, mask: Array) -> Array:
        xp = namespace(self.initial)
        spread = xp.asarray(mask).reshape(*mask.shape, *(1,) * len(self.batch))
        return xp.array(xp.broadcast_to(spread, (*mask.shape, *self.batch)))  # type: ignore[no-any-return]

    def as_seen(self, state: Array) -> Array:
        return namespace(state).broadcast_to(state, (self.graph.slots, *state.shape))  # type: ignore[no-any-return]

    def everywhere(self, state: Array) -> Array:
        return namespace(state).broadcast_to(state, (self.length, self.graph.slots, *state.shape))  # type: ignore[no-any-return]

    def seen_at(self, steps: Array) -> Array:
        host = to_host(steps)
        seen = np.zeros_like(host)
        for parents in self.graph.parents.T:
            there = np.flatnonzero(parents >= 0)
            np.logical_or.at(seen, parents[there], host[there])
        return namespace(steps).asarray(seen)  # type: ignore[no-any-return]

    # f ---------------------------------------------------------------------------------------------------------

    def after(self, previous: Any) -> tuple[int, ...]:
        if isinstance(previous, Slots):
            return tuple(previous.arrays[0].shape)
        return (*previous.shape[:1], *previous.shape[2:])

    def shown(self, previous: Any) -> Any:
        return previous if isinstance(previous, Slots) else super().shown(previous)

    def seen(self, state: Any) -> Any:
        """Return a tuple of what is in each slot; of states (N, *batch, *event), as readouts take them, these."""
        if isinstance(state, Slots):
            slots = state.arrays
        elif len(state.shape) == len(self.shape):
            return super().seen(state)
        else:
            part: Any = _slot if isinstance(state, Tangent) else lambda x, p: x[:, p]
            slots = tuple(part(state, p) for p in range(self.graph.slots))
        return tuple(map(super().seen, slots))

    # Stated here beside ``differentiate``, so that a subclass that overrides one of them does not keep the others.
    def apply(self, previous: Array) -> Array:
        return super().apply(previous)

    def step(self, state: Array, t: int) -> Array:
        return super().step(state, t)

    def differentiate(self, previous: Array) -> tuple[Array, Jacobian]:
        kind, P = STRUCTURES.get(self.structure), self.graph.slots
        if kind is Zero or kind is Identity:
            values = self.apply(previous)
            return values, ByParent([kind(values, self.layout)] * P, self.graph)
        if self.structure == "none" or self.jacobian is not None:
            return super().differentiate(previous)
        xp, event = namespace(previous), self.layout.event
        ones = (1,) * len(self.batch)
        seeds = self._seeds(xp.empty((1, *ones, *event), self.dtype))
        m = len(seeds)
        each = xp.zeros((P * m, 1, P, *ones, *event), self.dtype)
        for p in range(P):
            each[p * m : (p + 1) * m, :, p] = seeds
        out = self._push(previous, xp.broadcast_to(each, (P * m, *previous.shape)))
        if not isinstance(out, Tangent) or not out.partials:  # f ignores the states
            values = out.value if isinstance(out, Tangent) else out
            return values, ByParent([Zero(values, self.layout)] * P, self.graph)
        slots = [self._gather(out.directions[p * m : (p + 1) * m]) for p in range(P)]
        return out.value, ByParent(slots, self.graph)

    def _declared(self, previous: Array) -> Jacobian:
        assert self.jacobian is not None
        given = self.call(self.jacobian, self.shown(previous), self.inputs, self.parameters)
        wanted = f"wanted a tuple of {self.graph.slots}, one for each slot of parents"
        if not isinstance(given, (tuple, list)):
            raise TypeError(f"jacobian returned {type(given).__name__}; {wanted}")
        if len(given) != self.graph.slots:
            raise ValueError(f"jacobian returned {len(given)} of them; {wanted}")
        return ByParent([self._read(entries, previous) for entries in given], self.graph)

    def unit(self, values: Array) -> ByParent:
        """Return the Jacobian of the mean over the parents that are there."""
        count = np.maximum(self.graph.present.sum(axis=1), 1)
        share = namespace(values).asarray((1 / count).astype(self.dtype)).reshape(-1, *(1,) * len(self.batch))
        entries = namespace(values).broadcast_to(share, (self.length, *self.batch))
        return ByParent([Scalar(entries, self.layout)] * self.graph.slots, self.graph)

    @property
    def rounding(self) -> float:
        return float(super().rounding * self.graph.slots**0.5)

    def bind(self) -> Engine:
        return GraphEngine(self)

    # Parts -----------------------------------------------------------------------------------------------------

    def between(self, start: int, stop: int, states: Array) -> Recurrence:
        part = self._with(slice(start, stop), self.wrap(self.initial))
        sever_all(part, self)
        part.graph, outside = self.graph.part(start, stop, known=True)
        xp = namespace(states)
        nodes, others = xp.asarray(outside[outside >= 0]), xp.asarray(-1 - outside[outside < 0])
        part.known = xp.concatenate([self.initial[None], self.known[others], states[nodes]])
        return part

    def _cut(self, cut: slice, initial: Any) -> GraphRecurrence:
        """Return the recurrence of some nodes alone, which see ``initial`` in place of others."""
        part = self._with(cut, initial)
        start, stop, step = cut.indices(self.length)
        if step == 1:
            part.graph, outside = self.graph.part(start, max(start, stop), known=False)
            part.known = namespace(part.initial).concatenate([part.initial[None], self.known[-1 - outside]])
        else:
            part.graph = Graph(np.full((part.length, self.graph.slots), -1))
        return part

    def _with(self, cut: slice, initial: Any) -> GraphRecurrence:
        inputs = self.contain([self.wrap(u[cut]) for u in self.inputs])
        length = None if self.inputs else len(range(*cut.indices(self.length)))
        return self._remade(inputs, initial, None, length)

    def _select(self, place: tuple[Array, ...], initial: Any) -> GraphRecurrence | None:
        part: Any = super()._select(place, initial)
        if part is not None:
            index: Any = (slice(None), *place)
            part.known = self.known[index]
        return part  # type: ignore[no-any-return]

    def _remade(
        self, inputs: Any, initial: Any, reset: Array | None, length: int | None, parameters: Any = None
    ) -> Self:
        part = super()._remade(inputs, initial, reset, length, parameters)
        part.known = part.initial[None]
        return part

    def astype(self, dtype: Any) -> Self:
        part = super().astype(dtype)
        part.known = self.known.astype(dtype)
        return part

    def __repr__(self) -> str:
        return f"{type(self).__name__}({self.description}, {self.graph}, batch={self.batch}, {self.dtype})"


class Slots(NamedTuple):
    """What some nodes see, one array for each slot, (nodes, *batch, *event)."""

    arrays: tuple[Array, ...]


def _slot(previous: Tangent, p: int) -> Tangent:
    moved = {leaf: directions[:, :, p] for leaf, directions in previous.partials.items()}
    return type(previous)(previous.value[:, p], moved)


class GraphEngine(Engine):
    """The engine of a recurrence on a graph: its loop goes level by level."""

    recurrence: GraphRecurrence

    def _before(self, states: Array, t: int) -> Array:
        rec = self.recurrence
        parents = rec.graph.parents[t].tolist()
        return namespace(states).stack([states[p] if p >= 0 else rec.known[-1 - p] for p in parents])  # type: ignore[no-any-return]

    def evaluate(self, states: Array) -> Array:
        """Return F, of many large states part by part: what all nodes see together is as large as all that they are."""
        rec = self.recurrence
        if type(rec).apply is not GraphRecurrence.apply:
            return super().evaluate(states)
        with np.errstate(all="ignore"):
            return rec.in_parts(states, lambda part: rec._call(rec.seen_by(part, states), part))

    def walk(self, known: Array | None = None, start: int = 0) -> Array:
        if not 0 <= start <= self.recurrence.length or (start and known is None):
            raise ValueError(f"start is {start}; wanted 0, or a node of 0..{self.recurrence.length} with known states")
        rec, K = self.recurrence, len(self.recurrence.known)
        if any(getattr(type(rec), name) is not getattr(GraphRecurrence, name) for name in ("step", "apply", "_call")):
            return super().walk(known, start)  # a subclass has another f, which is taken node by node
        xp = namespace(rec.initial)
        table = xp.empty((K + rec.length, *rec.shape[1:]), rec.dtype)  # known states and nodes as one array
        table[:K], states = rec.known, table[K:]
        if known is not None:
            states[:start] = known[:start]
        shown, index, runs, event = freeze(table), xp.asarray(self._index), self._runs, rec.shape[1:]
        given = (rec.parameters,) if rec.takes_parameters else ()
        with np.errstate(all="ignore"), state_dtype(rec.dtype):
            for level, whole in enumerate(rec.graph.levels):
                if whole.stop <= start:
                    continue
                rows = slice(max(whole.start, start), whole.stop)
                skip = rows.start - whole.start
                slots = tuple(
                    shown[first + skip : first + whole.stop - whole.start]
                    if (first := runs[p][level]) >= 0
                    else table.take(index[p, rows], axis=0)
                    for p in range(rec.graph.slots)
                )
                found = None
                if xp is np and rec.state is None:
                    drive, size = rec.contain([u[rows] for u in rec.inputs]), rows.stop - rows.start
                    found = attempt(rec.f, (size, *event), rec.dtype, slots, drive, *given)
                states[rows] = rec._call(Slots(slots), rows) if found is None else found
        return states  # type: ignore[no-any-return]

    @cached_property
    def _index(self) -> Array:
        """(P, N): the places of what nodes see in an array of known states and nodes."""
        parents = self.recurrence.graph.parents.T
        return np.ascontiguousarray(np.where(parents >= 0, parents + len(self.recurrence.known), -1 - parents))

    @cached_property
    def _runs(self) -> list[list[int]]:
        """For every slot and level: the first of those places where they follow each other as a slice, else -1."""
        starts, index = self.recurrence.graph.starts, self._index
        if not self.recurrence.length:
            return [[] for _ in index]
        breaks = np.zeros(index.shape, np.int64)
        breaks[:, 1:] = np.cumsum(np.diff(index, axis=1) != 1, axis=1)
        first, last = starts[:-1], starts[1:] - 1
        return np.where(breaks[:, first] == breaks[:, last], index[:, first], -1).tolist()  # type: ignore[no-any-return]

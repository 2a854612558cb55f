"""The gradients of a solution, each of which is computed when it is first read."""

from __future__ import annotations

from collections.abc import Mapping
from functools import cached_property
from math import prod
from typing import Any, NamedTuple

import numpy as np

from recsolve.base.arrays import Array, kind_of, namespace
from recsolve.base.links import Leaf
from recsolve.base.names import Names
from recsolve.gradients.function_gradients import Cotangents, pull_function
from recsolve.gradients.of_history import adjoint_of, pull
from recsolve.gradients.sensitivity import CellSensitivity, projection_of, weight_cotangents
from recsolve.gradients.solved import check_clamp, check_jacobian, clamp_adjoint, with_last
from recsolve.gradients.transposes import sum_to
from recsolve.kernels.affine_scan import reverse_solve
from recsolve.kernels.gpu.ranks import added
from recsolve.recurrence.base import Recurrence, check_known
from recsolve.recurrence.cell_recurrence import CellRecurrence
from recsolve.recurrence.engine import Backward, Engine, Pulled
from recsolve.recurrence.function import FunctionRecurrence
from recsolve.recurrence.history import HistoryRecurrence
from recsolve.recurrence.ragged_recurrence import RaggedRecurrence, weight_name


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

    def __init__(
        self,
        recurrence: Recurrence,
        trajectory: Array,
        cotangent: Array,
        direct: Cotangents | None = None,
        clamp: float | None = None,
        incoming: Array | None = None,
        engine: Engine | None = None,
        found: Backward | None = None,
    ):
        self._recurrence = recurrence
        self._direct = direct  # what a readout depends on besides the states
        engine = recurrence.bind() if engine is None else engine
        self._compiled: _Compiled | None = None
        self._trajectory = trajectory
        check_clamp(clamp, recurrence)
        if isinstance(recurrence, HistoryRecurrence):
            self._g = adjoint_of(recurrence, trajectory, with_last(cotangent, incoming))
            return
        found = engine.adjoint(trajectory, cotangent, incoming) if found is None else found
        if found is not None and (clamp is None or bool((abs(found[0]) <= clamp).all())):
            self._g, self._compiled = found[0], _Compiled(*found[1:])
            return
        cotangent = with_last(cotangent, incoming)
        with np.errstate(all="ignore"):
            self._previous = recurrence.previous(trajectory)
            _, self._J = engine.differentiate(self._previous)
            check_jacobian(recurrence, self._previous, self._J)
            starts = recurrence.over_event(recurrence.starts)
            self._g = reverse_solve(self._J, starts, cotangent)
            if clamp is not None:
                clamp_adjoint(self._g, self._J, starts, cotangent, clamp)

    def add_to_last(self, found: Backward) -> None:
        """Add what compiled loops have found of another cotangent of the last steps, which these forget.

        So the gradient of the initial state stays as it is; no other has been read yet.
        """
        compiled = self._compiled
        assert compiled is not None
        g, drives, constants, _ = found
        last = slice(len(self._g) - len(g), None)
        there = [*(x[last] for x in (self._g, *compiled.drives)), compiled.constants]
        pairs = list(zip(there, (g, *drives, constants), strict=True))
        if kind_of(g) != "cupy" or not added(pairs):
            for x, more in pairs:
                x += more

    @property
    def states(self) -> Any:
        """The adjoint variables g[t]."""
        return self._recurrence.wrap(self._recurrence.as_given(self._g.copy()))

    @property
    def named(self) -> Names:
        """g[t] by component."""
        return self._recurrence.named(self.states)

    @property
    def initial(self) -> Any:
        """With respect to h[0], by component where a function has named states."""
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
            return initial_of(rec, self._compiled.initial, self._g.dtype)
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
        with np.errstate(all="ignore"):
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
    def _pulled(self) -> Pulled:
        if self._compiled is None:
            rec = self._cell("drive")
            check_known(rec, CellRecurrence)
            found = rec.bind().pull(self._previous, self._g)
            return CellSensitivity(rec, self._previous).pull(self._g, states=False) if found is None else found
        names = self._cell("gradients").cell.cell
        constants = [*(("mixing", n) for n in names.mixings), *(("parameter", n) for n in names.parameters)]
        leaves = {("drive", n): g for n, g in zip(names.drives, self._compiled.drives, strict=True)}
        totals, batch = self._compiled.constants, tuple(range(1, 1 + len(self._recurrence.batch)))
        if batch:  # of all at once, for on a GPU each sum is a launch; one of one sequence is none
            one = prod(self._recurrence.batch) == 1
            totals = totals.reshape(len(totals), *totals.shape[1 + len(batch) :]) if one else totals.sum(axis=batch)
        totals = totals.astype(self._g.dtype, copy=False)
        return Pulled(leaves | dict(zip(constants, totals, strict=True)), [])

    @cached_property
    def _weights(self) -> dict[str, Array]:
        if isinstance(self._recurrence, RaggedRecurrence):
            gradients = self._function[1] or {}
            return {n: gradients[weight_name(n)] for n in self._recurrence.cell.mixings}
        return weight_cotangents(self._cell("mixings").cell.mixings, self._pulled)

    def _cell(self, what: str) -> CellRecurrence:
        if not isinstance(self._recurrence, CellRecurrence):
            raise AttributeError(f"{what} belongs to cells; a function has inputs")
        return self._recurrence

    def _drives_of(self, what: str) -> CellRecurrence | RaggedRecurrence:
        return self._recurrence if isinstance(self._recurrence, RaggedRecurrence) else self._cell(what)

    def _of(self, kind: str, like: Mapping[str, Array]) -> dict[str, Array]:
        leaves = self._pulled.leaves
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
        return self._names(self._parameters, "parameter")

    @cached_property
    def _parameters(self) -> dict[str, Array]:
        rec = self._recurrence
        if isinstance(rec, FunctionRecurrence):
            if (gradients := self._function[1]) is None:
                raise TypeError(
                    f"pull of {rec.description} returned the cotangents of y and u alone; wanted those of p"
                )
            names = rec.cell.parameters if isinstance(rec, RaggedRecurrence) else gradients
            return {n: gradients[n] for n in names}
        found = self._of("parameter", self._cell("parameters").cell.parameters)
        return found if self._direct is None else _sums(found, self._direct.parameters)

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
            return rec.contain([rec.wrap(rec.as_given(g)) for g in self._inputs])
        return rec.wrap(self._inputs[0])

    @cached_property
    def _inputs(self) -> list[Array]:
        if isinstance(self._recurrence, FunctionRecurrence) and not isinstance(self._recurrence, RaggedRecurrence):
            return self._function[0]
        return [self._projected()[0].pull(self._drive)]

    @cached_property
    def projection(self) -> Names:
        """With respect to ``weights`` and ``biases`` of the input projection of a cell, each by drive."""
        weights, biases = self._projections
        return Names({"weights": self._names(weights, "weight"), "biases": self._names(biases, "bias")}, "gradient")

    @cached_property
    def _projections(self) -> tuple[dict[str, Array], dict[str, Array]]:
        projection, x = self._projected()
        return projection.weight_cotangents(self._drive, x)  # type: ignore[no-any-return]

    def of(self, leaf: Leaf) -> Array:
        """Return the native gradient by one of ``recurrence.leaves()``, in its shape, or by ("state", None)."""
        kind, name = leaf
        if kind == "state":
            return self._g
        if kind == "initial":
            return self._initial
        if kind in ("mixing", "drive"):
            return (self._weights if kind == "mixing" else self._drive)[str(name)]
        if kind == "parameter":
            return self._parameters[str(name)]
        if kind == "input":
            return self._inputs[int(str(name))]
        weights, biases = self._projections
        return (weights if kind == "weight" else biases)[str(name)]

    def _projected(self) -> tuple[Any, Array]:
        rec = self._drives_of("projection")
        projection = projection_of(rec)
        if projection is None or rec.x is None:
            raise AttributeError("the recurrence was given drives, not an input x; its gradients are in .drive")
        return projection, rec.x


def initial_of(rec: Recurrence, into: Array, dtype: Any) -> Array:
    """Return the cotangent of h[0] that loops have added up, (k, *batch, *lanes, n), in the shape of a state."""
    initial = np.moveaxis(into, 0, len(rec.batch)) if rec.layout.components > 1 else into[0]
    return namespace(into).ascontiguousarray(initial, dtype)  # type: ignore[no-any-return]


def _sums(first: dict[str, Array], second: dict[str, Array]) -> dict[str, Array]:
    return {name: namespace(x).asarray(x + second[name]) for name, x in first.items()}  # a number is an array too

"""The solution of a stack of layers as one system: its status, its conditioning, its gradients."""

from __future__ import annotations

from dataclasses import replace
from functools import cached_property
from typing import TYPE_CHECKING, Any

import numpy as np

from recsolve.analysis.condition import inverse_norm
from recsolve.analysis.trust import Estimate
from recsolve.base.arrays import Array, Kind, common_kind, from_native, namespace, to_host, to_native
from recsolve.base.report import Reported
from recsolve.base.status import Status
from recsolve.gradients.adjoint import adjoint
from recsolve.gradients.result import Gradients
from recsolve.gradients.tangent import tangent
from recsolve.interop.layers_gradients import LayersGradients
from recsolve.interop.layers_trust import estimate_of_stack
from recsolve.interop.order import Order
from recsolve.plot.curves import Curve
from recsolve.plot.drawn import Drawn
from recsolve.plot.states import Trajectory
from recsolve.solution import Solution

if TYPE_CHECKING:
    from recsolve.interop.layers import Layers


class LayersSolution(Reported, Drawn):
    """The result of :meth:`Layers.solve`.

    Attributes
    ----------
    output : array, shape (T, [B], directions n)
        The output of the last layer, shaped as torch's (``batch_first`` included); 0 at steps beyond ``lengths``.
    final : array or tuple of arrays, shape (layers directions, [B], n)
        torch's ``h_n`` (for an LSTM ``(h_n, c_n)``): the states after the last step of every sequence.
    solutions : tuple of Solution
        One per layer and direction, in torch's order; each has time in the order in which its direction takes it.

    Examples
    --------
    >>> import numpy as np, recsolve as rs
    >>> first = rs.cells.GRU.random(input_size=3, hidden_size=8, rng=0)
    >>> second = rs.cells.GRU.random(input_size=8, hidden_size=8, rng=1)
    >>> sol = rs.Layers([[first], [second]]).solve(np.ones((20, 3)))
    >>> sol.status.value, sol.trusted, sol.condition >= max(s.condition for s in sol.solutions)
    ('converged', True, True)
    """

    def __init__(self, layers: Layers, order: Order, kind: Kind, solutions: tuple[Solution, ...], shown: Array):
        self.solutions = solutions
        self._layers, self._order, self._kind, self._shown = layers, order, kind, shown

    @cached_property
    def output(self) -> Any:
        return self._outward(self._shown)

    @cached_property
    def final(self) -> Any:
        order, states = self._order, [to_native(s.states, "states") for s in self.solutions]
        last = [order.last(h, s.recurrence.initial) for h, s in zip(states, self.solutions, strict=True)]
        parts = self._parts(last)
        parts[self._shown_index] = namespace(last[0]).stack(
            [s.recurrence.output(h) for s, h in zip(self.solutions, last, strict=True)]
        )
        return self._as_torch(parts)

    @property
    def success(self) -> bool:
        """Whether every layer converged."""
        return self.status is Status.CONVERGED

    @property
    def status(self) -> Status:
        """That of the first layer and direction that has not converged; ``converged`` where all have."""
        return Status.CONVERGED if self._worst is None else self.solutions[self._worst].status

    @property
    def message(self) -> str:
        """The status with its advice, and where; once ``trusted`` has been asked for, also what it means."""
        if self._worst is not None:
            return f"{self._place(self._worst)}: {self.solutions[self._worst].message}"
        text = f"{Status.CONVERGED}: every entry of the residual of each layer and direction meets its test"
        if "_estimate" not in vars(self) or self.trusted:
            return text
        found = self._estimate
        off = f"about {found.error:.1e}" if found.linear and np.isfinite(found.error) else "more than is known"
        return f"{text}; but it is not trusted: states of the whole stack may be off by {off}"

    @cached_property
    def condition(self) -> float:
        """kappa of the whole stack, by which residuals of all layers may be amplified into an error of any state.

        The infinity norm of the inverse of the system of all layers, steps and directions, an estimate by a few
        tangents and adjoints of the stack; at least as large as that of any layer alone, and NaN where that of one is.
        """
        alone = [solution.condition for solution in self.solutions]
        if len(alone) == 1 or np.isnan(alone).any() or not self._shown.size:
            return float(np.max(alone))
        first = self.solutions[0].recurrence
        axis = len(first.batch)
        xp = namespace(first.initial)
        like = xp.stack([s.recurrence.initial for s in self.solutions], axis=axis)

        def split(x: Array) -> list[Array]:
            return [x[(slice(None),) * (1 + axis) + (i,)] for i in range(len(self.solutions))]

        def forward(x: Array) -> Array:
            return xp.stack(self._push(split(x)), axis=1 + axis)  # type: ignore[no-any-return]

        def backward(x: Array) -> Array:
            found, _ = self._pull(split(x), [None] * len(self.solutions), None)
            return xp.stack([to_native(g.states, "states") for g in found], axis=1 + axis)  # type: ignore[no-any-return]

        with np.errstate(all="ignore"):
            kappa = inverse_norm(forward, backward, like, first.length, axis)
        return max(kappa, *alone) if np.isfinite(kappa) else float("inf")

    @cached_property
    def _estimate(self) -> Estimate:
        if any(s._without_derivative for s in self.solutions):
            return Estimate(float("nan"), float("nan"), linear=False)
        width = len(self._layers.directions[0])
        return estimate_of_stack(self.solutions, width, self._order, self._push, lambda: self.condition)

    @property
    def error_estimate(self) -> float:
        """An estimate of max |h - h of the exact stack| over all layers, as ``error_estimate`` of a :class:`Solution`.

        What a layer is off by is what those above it are fed with, the rounding of their input projections included.
        """
        return self._estimate.error

    @property
    def trusted(self) -> bool:
        """Whether every layer converged, and the error that all residuals together cause is estimated to be small.

        Small is what it is for ``trusted`` of a :class:`Solution`: one percent of the largest |h| of what belongs
        together, in every layer and direction, with the errors of the layers below it.
        """
        return self.success and all(s._derivative.holds is True for s in self.solutions) and self._estimate.small

    def adjoint(
        self, *, states: Any = None, output: Any = None, final: Any = None, unconverged: bool = False
    ) -> LayersGradients:
        """Return the gradients of a scalar function of the stack, as :func:`recsolve.adjoint` does of one layer.

        Parameters
        ----------
        states : sequence of arrays, optional
            Cotangents of ``solutions[i].states``, or None for those that have none; as the others of the kind and dtype
            of the input.
        output : array, optional
            Cotangent of ``output``, in its shape. Cotangents that are given add up.
        final : array or tuple of arrays, optional
            Cotangent of ``final``, in its shapes.
        unconverged : bool
            Whether to differentiate a solution that has not converged, at which these are not gradients.

        Returns
        -------
        LayersGradients

        Raises
        ------
        TypeError, ValueError
            As :func:`recsolve.adjoint`.

        Examples
        --------
        >>> import numpy as np, recsolve as rs
        >>> cells = [[rs.cells.LSTM.random(input_size=n, hidden_size=8, rng=n)] for n in (3, 8)]
        >>> sol = rs.Layers(cells).solve(np.ones((20, 5, 3)), lengths=[20, 3, 0, 7, 9])
        >>> g = sol.adjoint(output=2 * sol.output)  # of the sum of squares
        >>> g.inputs.shape, g.initial[0].shape, g.weights.weight_ih_l1.shape
        ((20, 5, 3), (2, 5, 8), (32, 8))
        """
        if states is None and output is None and final is None:
            raise ValueError("no cotangent is given; pass states=, output= or final=")
        if not self.success and not unconverged:
            raise ValueError(
                f"solution is {self.message}; its derivative is that of the stack only where residuals are met: solve "
                "with fallback='sequential', or pass unconverged=True"
            )
        wanted, above = self._cotangents(states), None
        if output is not None:
            above = self._layers.time_first(self._checked(output, "output", tuple(self.output.shape)))
        shown, starts = self._pull_final(final, wanted)
        found, inputs = self._pull(wanted, shown, above)
        parts, k = self._parts([to_native(g.initial, "initial") for g in found]), self._shown_index
        each = [cell for layer in self._layers.directions for cell in layer]
        parts[k] = namespace(parts[k]).stack([c.pull_shown_by(g) for c, g in zip(each, parts[k], strict=True)])
        for i, part in enumerate(parts):
            starts[i] = part if starts[i] is None else starts[i] + part
        width = len(self._layers.directions[0])
        return LayersGradients(self._outward(inputs), self._as_torch(starts), tuple(found), width)

    def _cotangents(self, states: Any) -> list[Array]:
        """Return one native cotangent of states for each solution, zeros where none is given."""
        count = len(self.solutions)
        if states is not None and (not isinstance(states, (list, tuple)) or len(states) != count):
            seen = f"{len(states)} arrays" if isinstance(states, (list, tuple)) else type(states).__name__
            raise ValueError(f"states is {seen}; wanted a list of {count}, one (or None) per layer and direction")
        native = []
        for i, solution in enumerate(self.solutions):
            like = to_native(solution.states, "states")
            c = namespace(like).zeros_like(like)
            if states is not None and states[i] is not None:
                c += self._checked(states[i], f"states[{i}]", tuple(like.shape))
            native.append(c)
        return native

    def _checked(self, x: Any, name: str, shape: tuple[int, ...]) -> Array:
        common_kind({"x": from_native(self._shown, self._kind), name: x})
        native = to_native(x, name, (self._shown.dtype,))
        if tuple(native.shape) != shape:
            raise ValueError(f"{name} has shape {tuple(native.shape)}; wanted {shape}")
        return native

    def _pull_final(self, final: Any, states: list[Array]) -> tuple[list[Any], list[Any]]:
        """Return the cotangents of outputs and of initial states for one of the final states; add to that of states."""
        layout, cell = self.solutions[0].recurrence.layout, self._layers.cell
        shown: list[Any] = [None] * len(states)
        starts: list[Any] = [None] * layout.components
        if final is None:
            return shown, starts
        for k, part in enumerate(self._layers.parts_of(final, "final", self._shown, self._kind)):
            pulled = [self._order.pull_last(last) for last in part]
            starts[k] = namespace(part).stack([start for _, start in pulled])
            for i, (at, _) in enumerate(pulled):
                if cell.state[k] == cell.output:
                    shown[i] = at
                else:
                    c = layout.component(states[i], k)
                    c += at
        return shown, starts

    def _pull(self, states: list[Array], shown: list[Any], above: Array | None) -> tuple[list[Gradients], Array]:
        """Return the gradients of each solution and the cotangent of the input.

        Parameters
        ----------
        states, shown : list of array
            Cotangents of the states and of the output of each solution, in its own order of time.
        above : array or None
            Cotangent of the output of the stack.
        """
        found: list[Gradients] = []
        for layer in reversed(self._layers.directions):
            first, below = len(states) - len(found) - len(layer), []
            parts = [None] * len(layer) if above is None else namespace(above).split(above, len(layer), axis=-1)
            here = []
            for reverse, part in enumerate(parts):
                i = first + reverse
                output = (
                    shown[i]
                    if part is None
                    else self._order.read(part, reverse) + (0 if shown[i] is None else shown[i])
                )
                wrap = self.solutions[i].recurrence.wrap
                g = adjoint(
                    self.solutions[i], states=wrap(states[i]), output=None if output is None else wrap(output),
                    unconverged=True,
                )  # fmt: skip
                here.append(g)
                below.append(self._order.read(to_native(g.inputs, "inputs"), reverse))
            found[:0] = here
            above = sum(below[1:], start=below[0])
        assert above is not None
        return found, above

    def _push(self, added: list[Array]) -> list[Array]:
        """Return the tangents of all states for tangents of what is added to f in every layer and direction."""
        found: list[Array] = []
        below: Array | None = None
        for layer in self._layers.directions:
            shown = []
            for reverse in range(len(layer)):
                solution = self.solutions[len(found)]
                wrap = solution.recurrence.wrap
                moved = tangent(
                    solution, states=wrap(added[len(found)]), unconverged=True,
                    inputs=None if below is None else wrap(self._order.read(below, reverse)),
                )  # fmt: skip
                found.append(to_native(moved, "states"))
                shown.append(self._order.read(solution.recurrence.output(found[-1]), reverse))
            below = namespace(shown[0]).concatenate(shown, axis=-1)
        return found

    @property
    def _shown_index(self) -> int:
        return self._layers.cell.state.index(self._layers.cell.output)

    @property
    def _worst(self) -> int | None:
        return next((i for i, solution in enumerate(self.solutions) if not solution.success), None)

    def _place(self, index: int) -> str:
        layer, reverse = divmod(index, len(self._layers.directions[0]))
        return f"layer {layer}{', reverse' if reverse else ''}"

    def _outward(self, x: Array) -> Any:
        """Return an array (T, [B], n) as the user has them."""
        return from_native(self._layers.time_first(x), self._kind)

    def _parts(self, states: list[Array]) -> list[Array]:
        """Return states of all layers and directions in torch's shapes, one array per component."""
        layout, xp = self.solutions[0].recurrence.layout, namespace(states[0])
        return [xp.stack([layout.component(h, k) for h in states]) for k in range(layout.components)]

    def _as_torch(self, parts: list[Array]) -> Any:
        native = [from_native(part, self._kind) for part in parts]
        return native[0] if len(native) == 1 else tuple(native)

    def _curves(self, reference: Any) -> list[Curve]:
        """Return those of every layer and direction; a reference is a list of one trajectory for each."""
        truths = getattr(reference, "solutions", reference)  # of another stack
        if truths is None:
            truths = [None] * len(self.solutions)
        if not isinstance(truths, (list, tuple)) or len(truths) != len(self.solutions):
            seen, count = type(reference).__name__, len(self.solutions)
            raise ValueError(f"reference is {seen}; wanted a list of {count}, one per layer and direction")
        found = []
        for i, (solution, truth) in enumerate(zip(self.solutions, truths, strict=True)):
            found += [replace(c, label=f"{self._place(i)}, {c.label}") for c in solution._curves(truth)]
        return found

    def _trajectory(self) -> Trajectory:
        output = to_host(self._shown)
        batch = output.shape[1:-1]
        solved = np.full(output.shape[:-1], self.success)  # a layer that is not solved feeds those above it
        nit = "+".join(str(solution.nit) for solution in self.solutions)
        return Trajectory({"output": output}, solved, batch, f"{self.status}, {nit} iterations", "step")

    def _facts(self) -> dict[str, str]:
        known = "_estimate" in vars(self)
        trusted = f"{self.trusted} (error about {self.error_estimate:.1e})" if known else "ask sol.trusted"
        nit = "+".join(str(solution.nit) for solution in self.solutions)
        return {"message": self.message, "layers": f"{self._layers!r}, {nit} iterations", "trusted": trusted}

    def _details(self) -> dict[str, str]:
        trusted = self.trusted
        each = {
            self._place(i): f"{s.solver.name}, {s.status} after {s.nit}, residual {s.residuals[-1]:.1e}"
            for i, s in enumerate(self.solutions)
        }
        error = f"about {self.error_estimate:.1e}, kappa {self.condition:.1e}"
        return self._facts() | each | {"error": error, "trusted": str(trusted)}

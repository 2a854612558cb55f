"""Evaluate and linearise a cell with mixings that couple units: compiled stages, and products for all times at once."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from recsolve.base.arrays import Array, empty_in_order, namespace
from recsolve.jacobians.factored import Call
from recsolve.kernels.cpu.cell.mixing import FusedMixing
from recsolve.kernels.cpu.cell.stage_loops import FusedStages
from recsolve.kernels.gpu.cell.products import ProductsCuda
from recsolve.kernels.gpu.cell.stage_launches import StagesCuda
from recsolve.symbolic.graph import Leaf, Node
from recsolve.symbolic.program import MixingCall, Output

if TYPE_CHECKING:
    from recsolve.recurrence.cell_recurrence import CellRecurrence

Partials = list[dict[int, Array]]


class Staged:
    """The compiled stages of a cell, bound to the arrays of one recurrence.

    Parameters
    ----------
    loops : FusedStages or StagesCuda
    products : FusedMixing or ProductsCuda
    recurrence : CellRecurrence
    """

    def __init__(
        self, loops: FusedStages | StagesCuda, products: FusedMixing | ProductsCuda, recurrence: CellRecurrence
    ):
        cell = recurrence.cell
        self.xp = namespace(recurrence.initial)
        self.loops, self.program, self.recurrence = loops, loops.program, recurrence
        self.products, self.mixings = products, cell.mixings
        self.weights = {name: m.weight for name, m in cell.mixings.items()}
        self.constants: dict[Leaf, Array] = {Leaf("drive", name): u for name, u in recurrence.drive.items()}
        self.constants |= {Leaf("weight", name): m.weight for name, m in cell.mixings.items()}
        self.constants |= {Leaf("parameter", name): p for name, p in cell.parameters.items()}

    def evaluate(self, previous: Array) -> Array:
        """Return f of the states ``previous`` at all t."""
        return self._run(previous, False)[0]

    def linearise(self, previous: Array) -> tuple[Array, list[Call], Partials]:
        """Return f, its mixing calls with the partials of their inputs, and the partials of the new components."""
        values, found = self._run(previous, True)
        calls = sorted((call for call in self.program.calls if call.number is not None), key=_number)
        inputs = [Call(self.mixings[call.mixing], self._partials(call.input, found)) for call in calls]
        return values, inputs, [self._partials(output, found) for output in self.program.stages[-1].outputs]

    def _run(self, previous: Array, partials: bool) -> tuple[Array, dict[Node, Array]]:
        """Return the new states, and every node that the stages have computed."""
        layout = self.recurrence.layout
        values = self._empty(self.recurrence.shape)
        names = self.program.components
        known = self.constants | {Leaf("component", s): layout.component(previous, i) for i, s in enumerate(names)}
        new = [layout.component(values, i) for i in range(len(names))]
        found: dict[Node, Array] = {}
        for number, stage in enumerate(self.program.stages):
            last = () if stage.calls else tuple(zip(stage.outputs, new, strict=True))
            into = {output.value: part for output, part in reversed(last)}
            nodes = self.loops.jobs[partials][number].nodes
            results = [into[node] if node in into else self._empty(new[0].shape) for node in nodes]
            self.loops.run(number, partials, known, results)
            found |= zip(nodes, results, strict=True)
            for output, part in last:
                if found.get(output.value) is not part:
                    part[...] = self._value(output.value, found, known)
            self._mix(number, found, known)
        return values, found | {node: self._value(node, {}, known) for node in self._plain()}

    def _mix(self, stage: int, found: dict[Node, Array], known: dict[Leaf, Array]) -> None:
        """Add the results of the mixing calls after a stage to the known values."""
        calls, plan = self.program.stages[stage].calls, self.products.plan
        inputs = dict.fromkeys(call.input.value for call in calls)
        for node, product in zip(inputs, plan.stages[stage] if calls else (), strict=True):
            x = self.xp.broadcast_to(self._value(node, found, known), self._part)
            results = self.products.mix(product, self.weights, x, 1 + len(self.recurrence.batch))
            shared = [call for call in calls if call.input.value is node]
            known |= {call.result.content: result for call, result in zip(shared, results, strict=True)}

    def _value(self, node: Node, found: dict[Node, Array], known: dict[Leaf, Array]) -> Array:
        if node in found:
            return found[node]
        if node.operation == "leaf":
            return known[node.content]
        return self.xp.asarray(node.content, self.recurrence.dtype)  # type: ignore[no-any-return]

    def _plain(self) -> list[Node]:
        """Return the leaves and constants among the partials."""
        nodes = [node for stage in self.program.stages for node in stage.nodes()]
        return [node for node in nodes if not node.arguments]

    def _partials(self, output: Output, found: dict[Node, Array]) -> dict[int, Array]:
        return {leaf: self.xp.broadcast_to(found[node], self._part) for leaf, node in output.partials.items()}

    @property
    def _part(self) -> tuple[int, ...]:
        """The shape of a component of the states."""
        shape, batch = self.recurrence.shape, 1 + len(self.recurrence.batch)
        return shape if len(self.program.components) == 1 else (*shape[:batch], *shape[batch + 1 :])

    def _empty(self, shape: tuple[int, ...]) -> Array:
        return empty_in_order(shape, self.recurrence.drive_like, 1 + len(self.recurrence.batch))


def _number(call: MixingCall) -> Any:
    return call.number

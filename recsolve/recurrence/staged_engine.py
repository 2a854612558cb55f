"""The engine of a cell with mixings that couple units: compiled stages, and products for all times at once."""

from __future__ import annotations

from functools import cached_property
from typing import TYPE_CHECKING, Any

from recsolve.base.arrays import Array, broadcast, namespace
from recsolve.base.tolerance import Tolerance
from recsolve.jacobians import Jacobian
from recsolve.jacobians.factored import Call
from recsolve.kernels.registry import has
from recsolve.kernels.starts import Starts
from recsolve.mixings import couples
from recsolve.recurrence.cell_jacobian import structured
from recsolve.recurrence.compilation import Backend, kernel_of, plain_mixings
from recsolve.recurrence.current import Traced
from recsolve.recurrence.engine import CompiledEngine, Pulled, Verdict, Way
from recsolve.recurrence.sweep_engine import sweep
from recsolve.symbolic.graph import Leaf, Node
from recsolve.symbolic.program import MixingCall, Output

if TYPE_CHECKING:
    from recsolve.recurrence.cell_recurrence import CellRecurrence

_AT_ONCE = "stages", "products"


class StagedEngine(CompiledEngine):
    """The compiled stages, products and walk of a cell, bound to the arrays of one recurrence.

    Parameters
    ----------
    recurrence : CellRecurrence
        With mixings that couple units.
    traced : Traced
        Its cell.
    backend : {"numba", "cuda"}
    """

    recurrence: CellRecurrence

    def __init__(self, recurrence: CellRecurrence, traced: Traced, backend: Backend):
        super().__init__(recurrence, traced, backend)
        cell = recurrence.cell
        self.xp, self.mixings = namespace(recurrence.initial), plain_mixings(cell)
        self._walk = kernel_of("walk", backend, traced, recurrence.dtype)
        self.compiled = self._walk.takes(recurrence.initial[None], len(recurrence.batch))
        self.loops, self.products = (kernel_of(name, backend, traced, recurrence.dtype) for name in _AT_ONCE)
        self.program = self.loops.program
        self.weights = {name: m.weight for name, m in self.mixings.items()}
        self.weight = sum(w.nbytes for w in self.weights.values())
        self.constants: dict[Leaf, Array] = {Leaf("drive", name): u for name, u in recurrence.drive.items()}
        self.constants |= {Leaf("weight", name): w for name, w in self.weights.items()}
        self.constants |= {Leaf("parameter", name): p for name, p in cell.parameters.items()}
        self.starts = Starts(recurrence.initial, recurrence.restart, recurrence.reset)

    def apply(self, previous: Array) -> Array:
        return self._run(previous, False)[0]

    def _differentiated(self, previous: Array) -> tuple[Array, Jacobian]:
        values, found = self._run(previous, True)
        calls = sorted((call for call in self.program.calls if call.number is not None), key=_number)
        inputs = [Call(self.mixings[call.mixing], self._partials(call.input, found)) for call in calls]
        outputs = [self._partials(output, found) for output in self.program.stages[-1].outputs]
        rec = self.recurrence
        return values, structured(values, inputs, outputs, rec.layout, (rec.length, *rec.batch))

    def pull(self, previous: Array, cotangent: Array) -> Pulled | None:
        if not has("pull", self.backend):
            return None
        kernel = kernel_of("pull", self.backend, self.traced, self.recurrence.dtype)
        layout, names = self.recurrence.layout, self.program.components
        inputs = [call.input.value for call in self.program.calls]
        if any(x.operation != "leaf" or x.content.kind != "component" for x in inputs):
            return None  # what mixings see depends on more than the state, to which they would be taken back
        known = self.constants | {Leaf("component", s): layout.component(previous, i) for i, s in enumerate(names)}
        known |= {Leaf("cotangent", s): layout.component(cotangent, i) for i, s in enumerate(names)}
        self._mix(0, {}, known)
        found = {node: self.recurrence.empty(self._part) for node in kernel.job.nodes}
        kernel.run(known, list(found.values()))
        full = {leaf: broadcast(self._value(node, found, known), self._part) for leaf, node in kernel.back.items()}
        pairs = zip(self.program.calls, inputs, strict=True)
        mixed = [(call.mixing, full.pop(call.result.content), known[x.content]) for call, x in pairs]
        of = {"weight": "mixing"}
        return Pulled({(of.get(leaf.kind, leaf.kind), leaf.name): g for leaf, g in full.items()}, mixed)

    def _walked(self, states: Array, start: int) -> bool:
        if not self.compiled:
            return super()._walked(states, start)
        rec, names = self.recurrence, self.recurrence.cell.cell
        inputs = [rec.drive[name][start:] for name in names.drives]
        inputs += [m.weight for m in self.mixings.values() if not couples(m)]
        inputs += [rec.cell.parameters[name] for name in names.parameters]
        rest = self.starts.rest(states, start)
        matrices = {name: m.weight for name, m in self.mixings.items() if couples(m)}
        self._walk.walk(inputs, matrices, states[start:], len(rec.batch), rest)
        return True

    def solve(self, way: Way, tolerance: Tolerance, window: int = 256, most: int | None = None) -> Verdict | None:
        if not has("sweeps", self.backend) or way not in ("sweeps", "jacobi"):
            return None
        sweeps = kernel_of("sweeps", self.backend, self.traced, self.recurrence.dtype)
        return sweep(self.recurrence, sweeps, tolerance, scanned=way == "sweeps", most=most)

    def _run(self, previous: Array, partials: bool) -> tuple[Array, dict[Node, Array]]:
        """Return the new states, and every node that the stages have computed."""
        layout = self.recurrence.layout
        values = self.recurrence.empty()
        names = self.program.components
        known = self.constants | {Leaf("component", s): layout.component(previous, i) for i, s in enumerate(names)}
        new = [layout.component(values, i) for i in range(len(names))]
        found: dict[Node, Array] = {}
        for number, stage in enumerate(self.program.stages):
            last = () if stage.calls else tuple(zip(stage.outputs, new, strict=True))
            into = {output.value: part for output, part in reversed(last)}
            nodes = self.loops.jobs[partials][number].nodes
            results = [into[node] if node in into else self.recurrence.empty(new[0].shape) for node in nodes]
            self.loops.run(number, partials, known, results)
            found |= zip(nodes, results, strict=True)
            for output, part in last:
                if found.get(output.value) is not part:
                    part[...] = self._value(output.value, found, known)
            self._mix(number, found, known)
        return values, found | {node: self._value(node, {}, known) for node in self._plain}

    def _mix(self, stage: int, found: dict[Node, Array], known: dict[Leaf, Array]) -> None:
        """Add the results of the mixing calls after a stage to the known values."""
        calls, plan = self.program.stages[stage].calls, self.products.plan
        inputs = dict.fromkeys(call.input.value for call in calls)
        for node, product in zip(inputs, plan.stages[stage] if calls else (), strict=True):
            x = broadcast(self._value(node, found, known), self._part)
            results = self.products.mix(product, self.weights, x, 1 + len(self.recurrence.batch))
            shared = [call for call in calls if call.input.value is node]
            known |= {call.result.content: result for call, result in zip(shared, results, strict=True)}

    def _value(self, node: Node, found: dict[Node, Array], known: dict[Leaf, Array]) -> Array:
        if node in found:
            return found[node]
        if node.operation == "leaf":
            return known[node.content]
        return self.xp.asarray(node.content, self.recurrence.dtype)  # type: ignore[no-any-return]

    @cached_property
    def _plain(self) -> list[Node]:
        """Return the leaves and constants among the partials."""
        nodes = [node for stage in self.program.stages for node in stage.nodes()]
        return [node for node in nodes if not node.arguments]

    def _partials(self, output: Output, found: dict[Node, Array]) -> dict[int, Array]:
        return {leaf: broadcast(found[node], self._part) for leaf, node in output.partials.items()}

    @cached_property
    def _part(self) -> tuple[int, ...]:
        """The shape of a component of the states."""
        shape, batch = self.recurrence.shape, 1 + len(self.recurrence.batch)
        return shape if len(self.program.components) == 1 else (*shape[:batch], *shape[batch + 1 :])


def _number(call: MixingCall) -> Any:
    return call.number

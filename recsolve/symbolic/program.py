"""The result of tracing a cell: elementwise stages around its mixings, as nodes of one expression graph."""

from __future__ import annotations

import hashlib
from collections import Counter
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from functools import cached_property

from recsolve.symbolic.emit import LISTING
from recsolve.symbolic.graph import Node, reachable


@dataclass(frozen=True, eq=False)
class Output:
    """A value that a stage computes, and its partials by leaf number.

    Leaves 0..k-1 are the components of the state, and k + i is the i-th mixing call that depends on it, as in
    :class:`recsolve.jacobians.factored.Factored`.
    """

    value: Node
    partials: Mapping[int, Node]


@dataclass(frozen=True, eq=False)
class MixingCall:
    """One call of a mixing that couples units.

    Attributes
    ----------
    mixing, kind : str
        Its name in the cell, and what it is: ``"dense"``, ``"heads"``.
    input : Output
        What it is called with.
    result : Node
        The leaf that stands for what it returns.
    number : int or None
        The number of that leaf in partials; None where the input does not depend on the state.
    level : int
        The stage that computes the input.
    """

    mixing: str
    kind: str
    input: Output
    result: Node
    number: int | None
    level: int


@dataclass(frozen=True, eq=False)
class Stage:
    """Elementwise work between mixings.

    Attributes
    ----------
    outputs : tuple of Output
        The inputs of ``calls``; in the last stage the components of the new state.
    calls : tuple of MixingCall
        The mixing calls that follow, in the order of ``outputs``; none after the last stage.
    """

    outputs: tuple[Output, ...]
    calls: tuple[MixingCall, ...] = ()

    def nodes(self, *, partials: bool = True) -> list[Node]:
        """Return all computed nodes: the values, and then the partials, output by output in the order of leaves."""
        values = [output.value for output in self.outputs]
        return values + [p for output in self.outputs for p in output.partials.values()] if partials else values

    def operations(self, *, partials: bool = True) -> Counter[str]:
        """Return how often it computes each operation."""
        return Counter(node.operation for node in reachable(self.nodes(partials=partials)) if node.arguments)


@dataclass(frozen=True, eq=False)
class Program:
    """A traced cell.

    Attributes
    ----------
    name : str
        Of the cell.
    components, drives, parameters : tuple of str
        The names that it uses.
    mixings : mapping
        The kind of each mixing by name.
    stages : tuple of Stage
    """

    name: str
    components: tuple[str, ...]
    drives: tuple[str, ...]
    parameters: tuple[str, ...]
    mixings: Mapping[str, str]
    stages: tuple[Stage, ...]

    @property
    def calls(self) -> list[MixingCall]:
        """The mixing calls, in the order of the stages."""
        return [call for stage in self.stages for call in stage.calls]

    @property
    def elementwise(self) -> bool:
        """Whether there is only one stage, so that every unit is a recurrence of its own."""
        return len(self.stages) == 1

    @property
    def jacobian(self) -> list[list[Node | None]]:
        """The k x k partials of an elementwise cell, [i][j] = d h'_i / d h_j; None where that is zero throughout."""
        if not self.elementwise:
            raise ValueError(f"{self.name} has the mixings {dict(self.mixings)}, so its Jacobian is no block per unit")
        places = range(len(self.components))
        rows = [[output.partials.get(j) for j in places] for output in self.stages[0].outputs]
        return [[None if entry is None or entry.equals(0.0) else entry for entry in row] for row in rows]

    def operations(self, *, partials: bool = True) -> Counter[str]:
        """Return how often it computes each operation, without the mixings."""
        return sum((stage.operations(partials=partials) for stage in self.stages), Counter())

    @cached_property
    def fingerprint(self) -> str:
        """A hash of all that is computed, the same in every process."""
        return hashlib.sha256("\n".join(self._listing()).encode()).hexdigest()

    def __repr__(self) -> str:
        return f"Program({self.name}: {len(self.stages)} stages, {self.operations().total()} operations)"

    def __str__(self) -> str:
        return "\n".join([self.name, *self._listing()])

    def _listing(self) -> Iterator[str]:
        yield f"components {', '.join(self.components)}; drives {', '.join(self.drives)}; " + (
            f"parameters {', '.join(self.parameters) or 'none'}; "
            f"mixings {', '.join(f'{name} {kind}' for name, kind in self.mixings.items()) or 'none'}"
        )
        for place, stage in enumerate(self.stages):
            total, values = (stage.operations(partials=p).total() for p in (True, False))
            yield f"stage {place}: {total} operations, {values} of them for the values"
            yield from (f"  {line}" for line in self._lines(stage))

    def _lines(self, stage: Stage) -> Iterator[str]:
        """Return the statements of a stage, and the names of its outputs and their partials."""
        statements, names = LISTING.write(stage.nodes())
        yield from statements
        name = iter(names)
        inputs = [f"{call.kind} m.{call.result.content.name} = W.{call.mixing}" for call in stage.calls]
        titles = inputs or [f"new s.{component}" for component in self.components]
        for title in titles:
            yield f"{title}({next(name)})" if inputs else f"{title} = {next(name)}"
        for title, output in zip(titles, stage.outputs, strict=True):
            for leaf in output.partials:
                what = f"input of {title.split()[1]}" if inputs else title
                yield f"d {what} / d {self._leaf(leaf)} = {next(name)}"

    def _leaf(self, number: int) -> str:
        if number < len(self.components):
            return f"s.{self.components[number]}"
        return next(f"m.{call.result.content.name}" for call in self.calls if call.number == number)

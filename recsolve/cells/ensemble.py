"""An ensemble of cells, each with weights of its own, as one cell."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

from recsolve.base.arrays import Array, common_dtype, common_kind, namespace
from recsolve.base.links import follow
from recsolve.mixings import Dense, Diagonal, Heads, Masked, Mixing
from recsolve.recurrence.projection import Projection
from recsolve.recurrence.weighted_cell import WeightedCell


def ensemble(cells: Sequence[WeightedCell]) -> WeightedCell:
    """Return cells that differ in their weights as one cell, whose members are lanes.

    Member e of E is what ``states[..., e, :]`` and ``output[..., e, :]`` show, (T, *batch, E, n), and a gradient has an
    entry for every member: weights of ``Dense`` become (E, n, n), those of ``Diagonal`` and parameters (E, n). Members
    share the input of ``recurrence(x)``; drives (T, *batch, E, n) give each its own. They do not see each other, and
    are solved together: iterations go on until all have converged. Compiled loops take an ensemble as they take heads.

    Parameters
    ----------
    cells : sequence of WeightedCell
        Of one Cell and one shape, with mixings Dense, Diagonal or Heads, or such ones Masked. Those with heads give
        lanes (E H): the heads of the first member, then those of the next.

    Returns
    -------
    WeightedCell

    Raises
    ------
    TypeError
        For what is no WeightedCell, other mixings, and mixed dtypes or kinds.
    ValueError
        For no cells, cells of several definitions, mixings or shapes, and cells without mixings, which have no lanes.

    Examples
    --------
    >>> import numpy as np, recsolve as rs
    >>> members = [rs.cells.GRU.random(input_size=3, hidden_size=8, rng=seed) for seed in range(5)]
    >>> cell, x = rs.cells.ensemble(members), np.ones((50, 2, 3))
    >>> sol = rs.solve(cell.recurrence(x))
    >>> alone = rs.solve(members[4].recurrence(x))
    >>> sol.output.shape, bool(abs(sol.output[:, :, 4] - alone.output).max() < 1e-12)
    ((50, 2, 5, 8), True)
    >>> rs.adjoint(sol, output=sol.output).mixings.r.shape
    (5, 8, 8)
    """
    cells = list(cells)
    for number, cell in enumerate(cells):
        if type(cell) is not WeightedCell:
            raise TypeError(f"cells[{number}] is {type(cell).__name__}; wanted a WeightedCell")
    if not cells:
        raise ValueError("cells is empty; wanted one member at least")
    first = cells[0]
    if not first.mixings:
        raise ValueError(f"cells[0] is {first.cell.name}, which has no mixings to give its members lanes")
    for number, cell in enumerate(cells):
        seen, wanted = _shape(cell), _shape(first)
        if seen != wanted:
            raise ValueError(f"cells[{number}] is {seen}, and cells[0] {wanted}; wanted members alike")
    weights = {f"cells[{number}]": weight for number, cell in enumerate(cells) for _, weight in cell._weights()}
    common_kind(weights)
    common_dtype(weights)
    joined = _joining(bool(first.layout.lanes))
    mixings = {name: _mixing([cell.mixings[name] for cell in cells], joined) for name in first.mixings}
    parameters = {name: joined([cell.parameters[name] for cell in cells]) for name in first.parameters}
    projection = None
    if first.projection is not None:
        members = [cell.projection for cell in cells if cell.projection is not None]
        weights, biases = (_by_name([getattr(p, of) for p in members], joined) for of in ("weights", "biases"))
        projection = Projection(weights, biases)
    return WeightedCell(first.cell, mixings, parameters, projection, len(cells) * first.hidden_size)


def _shape(cell: WeightedCell) -> tuple[Any, ...]:
    """Return all that members must have in common."""
    mixings = {name: (type(m).__name__, tuple(m.weight.shape)) for name, m in cell.mixings.items()}
    return cell.cell, mixings, cell.layout, None if cell.projection is None else cell.projection.input_size


def _joining(lanes: bool) -> Callable[[Sequence[Array]], Array]:
    """Return what puts arrays one after the other, along their first lane axis or along a new one."""

    def joined(arrays: Sequence[Array]) -> Array:
        xp = namespace(arrays[0])
        return follow(xp.concatenate(arrays) if lanes else xp.stack(arrays), arrays, tensors)

    def tensors(parts: list[Any]) -> Any:
        import torch

        return torch.cat(parts) if lanes else torch.stack(parts)

    return joined


def _by_name(members: Sequence[Mapping[str, Array]], joined: Callable[[Sequence[Array]], Array]) -> dict[str, Array]:
    return {name: joined([arrays[name] for arrays in members]) for name in members[0]}


def _mixing(members: Sequence[Any], joined: Callable[[Sequence[Array]], Array]) -> Mixing:
    """Return the mixing of an ensemble."""
    kinds = {type(m) for m in members}
    if kinds == {Masked}:
        return Masked(_mixing([m.within for m in members], joined), joined([m.mask for m in members]))
    into = {Dense: Heads, Heads: Heads, Diagonal: Diagonal}
    kind = kinds.pop() if len(kinds) == 1 else None
    if kind not in into:
        seen = ", ".join(sorted({type(m).__name__ for m in members}))
        raise TypeError(f"mixings of the members are {seen}; wanted Dense, Diagonal or Heads, or one of these Masked")
    return into[kind](joined([m.weight for m in members]))

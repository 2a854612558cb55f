"""Stacked and bidirectional torch.nn.RNN, GRU and LSTM, run by any solver."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from recsolve.base.arrays import Array, Kind, common_kind, from_native, namespace, to_native
from recsolve.interop import checkpoint
from recsolve.recurrence import torch_weights
from recsolve.recurrence.weighted_cell import WeightedCell
from recsolve.solution import Solution
from recsolve.solve import solve


@dataclass(frozen=True)
class LayersSolution:
    """The result of :meth:`Layers.solve`.

    Attributes
    ----------
    output : array, shape (T, [B], directions n)
        The output of the last layer, shaped as torch's (``batch_first`` included).
    final : array or tuple of arrays, shape (layers directions, [B], n)
        torch's ``h_n`` (for an LSTM ``(h_n, c_n)``).
    solutions : tuple of Solution
        One per layer and direction, in torch's order.
    """

    output: Any
    final: Any
    solutions: tuple[Solution, ...]

    @property
    def success(self) -> bool:
        """Whether every layer converged."""
        return all(solution.success for solution in self.solutions)


class Layers:
    """A stack of layers, each with one or two directions.

    Parameters
    ----------
    directions : list of list of WeightedCell
        For each layer its forward cell and, if bidirectional, its reverse cell.
    batch_first : bool
        Whether inputs are (B, T, D), as in torch.

    Examples
    --------
    >>> import numpy as np, recsolve as rs
    >>> first = rs.cells.GRU.random(input_size=3, hidden_size=8, rng=0)
    >>> second = rs.cells.GRU.random(input_size=8, hidden_size=8, rng=1)
    >>> sol = rs.Layers([[first], [second]]).solve(np.ones((20, 3)))
    >>> sol.success, sol.output.shape, sol.final.shape
    (True, (20, 8), (2, 8))
    """

    def __init__(self, directions: list[list[WeightedCell]], *, batch_first: bool = False):
        self.directions, self.batch_first = directions, batch_first
        self.cell = directions[0][0].cell
        self.hidden_size = directions[0][0].hidden_size
        self.output_shape = directions[0][0].output_shape

    @classmethod
    def from_torch(cls, module: Any) -> Layers:
        """Return all layers and directions of a ``torch.nn.RNN``, ``GRU`` or ``LSTM``, or of one that was scripted.

        Raises
        ------
        TypeError
            When the module is none of these, or its weights have mixed dtypes, or other ones than float32 and float64.
        ValueError
            With dropout in training mode (its draws cannot be reproduced), or weights that are reparametrized, missing
            or of a wrong shape.

        Notes
        -----
        Weights that are NaN or inf are taken as they are, as torch takes them; a solve then ends as ``nonfinite``.

        Examples
        --------
        >>> import torch, recsolve as rs
        >>> len(rs.Layers.from_torch(torch.nn.LSTM(3, 8, num_layers=2)).directions)
        2
        """
        from recsolve import cells

        name = torch_weights.CELL_OF_MODE.get(getattr(module, "mode", None) or "")
        if name is None:
            raise TypeError(_unknown(module))
        weights = torch_weights.plain_weights(module)
        if module.dropout and module.training:
            raise ValueError(f"module has dropout {module.dropout} in training mode; call module.eval() first")
        return cls(_stack(cells.get(name), weights), batch_first=module.batch_first)

    @classmethod
    def load(
        cls,
        path: str | os.PathLike[str],
        *,
        keys: str | Sequence[str] | None = None,
        nonlinearity: str = "tanh",
        batch_first: bool = False,
    ) -> Layers:
        """Return all layers and directions of a saved module.

        Formats, arguments and errors are those of :func:`recsolve.load`. Layers of ONNX and Keras files are one module
        where they are of one kind and size, and each gets just the output of the one before.

        Examples
        --------
        >>> import os, tempfile, torch, recsolve as rs
        >>> model = torch.nn.ModuleDict({"rnn": torch.nn.LSTM(3, 8, 2, bidirectional=True)})
        >>> path = os.path.join(tempfile.mkdtemp(), "model.pt")
        >>> torch.save(model.state_dict(), path)
        >>> rs.Layers.load(path, keys="rnn.*")
        Layers(lstm, 2 layers, bidirectional, 8 units)
        """
        from recsolve import cells

        name, weights = checkpoint.read_weights(path, keys, nonlinearity)
        if (0, False) not in torch_weights.ends(weights):
            raise ValueError(
                f"{path} holds a reverse direction alone; load it by recsolve.load(reverse=True), and turn its input "
                "and output round"
            )
        return cls(_stack(cells.get(name), weights), batch_first=batch_first)

    def below(self, layer: int, x: Any, **settings: Any) -> Any:
        """Return the input of a layer: x itself for layer 0, and else the output of the layers below it.

        Parameters
        ----------
        layer : int
        x : array
            As in :meth:`solve`.
        **settings
            As in :meth:`run`.

        Returns
        -------
        array
            In the shape of x but for its last axis.

        Raises
        ------
        ValueError
            For a layer that is not there; and as :meth:`run`.

        Examples
        --------
        >>> import numpy as np, recsolve as rs
        >>> cells = [[rs.cells.GRU.random(input_size=n, hidden_size=8, rng=n)] for n in (3, 8)]
        >>> rs.Layers(cells).below(1, np.ones((20, 3))).shape
        (20, 8)
        """
        if not 0 <= layer < len(self.directions):
            raise ValueError(f"layer is {layer}; wanted 0 to {len(self.directions) - 1}")
        if layer == 0:
            return x
        return Layers(self.directions[:layer], batch_first=self.batch_first).run(x, **settings)[0]

    def solve(self, x: Any, hx: Any = None, **settings: Any) -> LayersSolution:
        """Solve every layer and direction.

        Parameters
        ----------
        x : array
            (T, D), (T, B, D), or (B, T, D) with ``batch_first``; any kind, in the dtype of the weights.
        hx : array or tuple of arrays, optional
            Initial states in torch's shape (layers * directions, [B], n); for an LSTM ``(h_0, c_0)``.
        **settings
            Passed to :func:`recsolve.solve`.

        Returns
        -------
        LayersSolution

        Raises
        ------
        TypeError, ValueError
            For mixed kinds or dtypes, wrong shapes, and the settings that :func:`recsolve.solve` refuses.
        """
        sequence, kind = self._sequence(x)
        starts = self._starts(hx, sequence, kind)
        solutions: list[Solution] = []
        for layer in self.directions:
            outputs = []
            for reverse, cell in enumerate(layer):
                drive_input = sequence[::-1] if reverse else sequence
                start = starts[len(solutions)] if starts else None
                solution = solve(cell.recurrence(drive_input, initial=start), **settings)
                solutions.append(solution)
                shown = cell.output(to_native(solution.states, "states"))
                outputs.append(shown[::-1] if reverse else shown)
            sequence = outputs[0] if len(outputs) == 1 else np.concatenate(outputs, axis=-1)
        if self.batch_first and sequence.ndim == 3:
            sequence = sequence.swapaxes(0, 1)
        return LayersSolution(from_native(sequence, kind), self._final(solutions, kind), tuple(solutions))

    def check_arguments(self, x: Any, hx: Any = None) -> None:
        """Look at arguments as :meth:`solve` does, which refuses what does not fit."""
        self._starts(hx, *self._sequence(x))

    def run(self, x: Any, hx: Any = None, *, fallback: str = "sequential", **settings: Any) -> tuple[Any, Any]:
        """Return ``(output, h_n)`` as the torch module would.

        There is no status to look at, so a solver that does not converge is completed by the sequential loop
        (``fallback="sequential"``) or raises (``"raise"``). Outputs carry no gradient.

        Parameters
        ----------
        x, hx, **settings
            As in :meth:`solve`, but for ``callback``.
        fallback : {"sequential", "raise"}

        Returns
        -------
        output, h_n
            Shapes and kind as torch's.

        Raises
        ------
        ConvergenceError
            With ``fallback="raise"``.
        TypeError, ValueError
            For mixed kinds or dtypes, and wrong shapes.
        """
        if fallback == "none":
            raise ValueError(
                "fallback is 'none', but run returns no status; use Layers.solve, or 'sequential', 'raise'"
            )
        if "callback" in settings:
            raise ValueError("callback is given, but it may stop a solve and run returns no status; use Layers.solve")
        result = self.solve(x, hx, fallback=fallback, **settings)
        return result.output, result.final

    def _sequence(self, x: Any) -> tuple[Array, Kind]:
        """Return the input with time first."""
        kind = common_kind({"x": x})
        native = to_native(x, "x")
        if native.ndim not in (2, 3):
            wanted = "(B, T, D)" if self.batch_first else "(T, B, D)"
            raise ValueError(f"x has shape {tuple(native.shape)}; wanted (T, D) or {wanted}")
        return native.swapaxes(0, 1) if self.batch_first and native.ndim == 3 else native, kind

    def _starts(self, hx: Any, sequence: Array, kind: Kind) -> list[dict[str, Array]] | None:
        """Return one initial state by component name per layer and direction."""
        if hx is None:
            return None
        names = self.cell.state
        parts = hx if isinstance(hx, (tuple, list)) else (hx,)
        each = [cell for layer in self.directions for cell in layer]
        sizes = [self.output_shape if name == self.cell.output else (self.hidden_size,) for name in names]
        if len(parts) != len(names):
            raise ValueError(f"hx has {len(parts)} parts; wanted {len(names)}: {names}")
        common_kind({"x": from_native(sequence, kind), **{f"hx[{i}]": p for i, p in enumerate(parts)}})
        native = [to_native(p, f"hx[{i}]") for i, p in enumerate(parts)]
        for i, (part, size) in enumerate(zip(native, sizes, strict=True)):
            if part.shape != (shape := (len(each), *sequence.shape[1:-1], *size)):
                raise ValueError(f"hx[{i}] has shape {tuple(part.shape)}; wanted {shape}")
        starts = [{name: part[i] for name, part in zip(names, native, strict=True)} for i in range(len(each))]
        shown = self.cell.output
        return [{**start, shown: cell.shown_by(start[shown])} for cell, start in zip(each, starts, strict=True)]

    def _final(self, solutions: list[Solution], kind: Kind) -> Any:
        """Return torch's final states: what each layer shows at the end, and its other components."""
        layout = solutions[0].recurrence.layout
        each = [cell for layer in self.directions for cell in layer]
        finals = [to_native(solution.final, "final") for solution in solutions]
        xp, shown = namespace(finals[0]), self.cell.state.index(self.cell.output)
        parts = []
        for i in range(layout.components):
            rows = [
                cell.output(final) if i == shown else layout.component(final, i)
                for cell, final in zip(each, finals, strict=True)
            ]
            parts.append(from_native(xp.stack(rows), kind))
        return parts[0] if len(parts) == 1 else tuple(parts)

    def __repr__(self) -> str:
        each = "bidirectional" if len(self.directions[0]) == 2 else "one direction"
        return f"Layers({self.cell.name}, {len(self.directions)} layers, {each}, {self.hidden_size} units)"


def _stack(cell: Any, weights: Mapping[str, Any]) -> list[list[WeightedCell]]:
    layers: list[list[WeightedCell]] = []
    for layer, reverse in torch_weights.ends(weights):
        if not reverse:
            layers.append([])
        layers[-1].append(torch_weights.cell_from_weights(cell, weights, layer, reverse))
    return layers


def _unknown(module: Any) -> str:
    """Return what is said of a module that is no torch RNN, GRU or LSTM."""
    if isinstance(module, type):
        return (
            f"module is the class {module.__name__}; wanted an instance of torch.nn.RNN, torch.nn.GRU or torch.nn.LSTM"
        )
    name = type(module).__name__
    if torch_weights.mode_of(module) is not None:
        return (
            f"module is {name}, which runs one step; recsolve.cells.{name[:-4]}.from_torch(module) makes a cell of it"
        )
    if type(module).__module__.startswith("torch.jit"):
        return (
            f"module is {name}: TorchScript that was traced, or holds more than an RNN, GRU or LSTM; pass the module "
            "that it was made from, the part of it that is one, or what recsolve.Layers.load reads of its saved file"
        )
    return f"module is {name}; wanted an instance of torch.nn.RNN, torch.nn.GRU or torch.nn.LSTM"

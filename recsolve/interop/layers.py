"""Stacked and bidirectional torch.nn.RNN, GRU and LSTM, run by any solver."""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np

from recsolve.base.arrays import Array, Kind, common_kind, from_native, namespace, to_native
from recsolve.base.links import unrecorded
from recsolve.base.shard import Shard
from recsolve.interop import checkpoint
from recsolve.interop.layers_over_ranks import run_over_ranks
from recsolve.interop.layers_solution import LayersSolution
from recsolve.interop.order import Order
from recsolve.recurrence import torch_weights
from recsolve.recurrence.weighted_cell import WeightedCell
from recsolve.solution import Solution
from recsolve.solve import solve


class Layers:
    """A stack of layers, each with one or two directions.

    Parameters
    ----------
    directions : list of list of WeightedCell
        For each layer its forward cell and, if bidirectional, its reverse cell.
    batch_first : bool
        Whether inputs are (B, T, D), as in torch.

    Raises
    ------
    ValueError
        For cells that do not fit together: all are of one kind and width, and take the outputs of the layer below.

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
        if not directions or not directions[0]:
            raise ValueError("directions is empty; wanted at least one layer with one cell")
        for number, layer in enumerate(directions):
            if wrong := [type(cell).__name__ for cell in layer if not isinstance(cell, WeightedCell)]:
                raise TypeError(f"directions[{number}] has {wrong}; wanted objects of WeightedCell")
        self.directions, self.batch_first = directions, batch_first
        self.cell = directions[0][0].cell
        self.hidden_size = directions[0][0].hidden_size
        self.output_shape = directions[0][0].output_shape
        self._check()

    def _check(self) -> None:
        count, width = len(self.directions[0]), self.directions[0][0].input_size
        kind = (self.cell.name, self.hidden_size, self.output_shape)
        for number, layer in enumerate(self.directions):
            if len(layer) != count or count > 2:
                raise ValueError(f"directions[{number}] has {len(layer)} cells; wanted {min(count, 2)}, as every layer")
            for cell in layer:
                if (cell.cell.name, cell.hidden_size, cell.output_shape, cell.input_size) != (*kind, width):
                    raise ValueError(
                        f"directions[{number}] has {cell!r} on {cell.input_size} inputs; wanted {self.cell.name} of "
                        f"{self.hidden_size} units on {width}"
                    )
            width = count * int(np.prod(self.output_shape))

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
        return cls.of_weights(module, cls.weights_of(module))

    @classmethod
    def of_weights(cls, module: Any, weights: Mapping[str, Any]) -> Layers:
        """Return layers of what :meth:`weights_of` has returned of a module."""
        from recsolve import cells

        return cls(_stack(cells.get(torch_weights.CELL_OF_MODE[module.mode]), weights), batch_first=module.batch_first)

    @staticmethod
    def weights_of(module: Any, *, linked: bool = False) -> dict[str, Any]:
        """Return the weights of which :meth:`from_torch` makes layers, by torch's names; it raises what this raises.

        Where they are linked, gradients go back to them.
        """
        if torch_weights.CELL_OF_MODE.get(getattr(module, "mode", None) or "") is None:
            raise TypeError(_unknown(module))
        weights = torch_weights.plain_weights(module, linked=linked)
        if module.dropout and module.training:
            raise ValueError(f"module has dropout {module.dropout} in training mode; call module.eval() first")
        return weights

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

    def map(self, function: Callable[[Array], Array]) -> Layers:
        """Return the stack with ``function`` applied to every weight array; it must keep their shapes.

        Examples
        --------
        >>> import recsolve as rs
        >>> stack = rs.Layers([[rs.cells.GRU.random(input_size=3, hidden_size=8, rng=0)]])
        >>> stack.map(lambda w: w.astype("float32")).directions[0][0].dtype
        dtype('float32')
        """
        mapped = [[cell.map(function) for cell in layer] for layer in self.directions]
        return type(self)(mapped, batch_first=self.batch_first)

    def solve(
        self, x: Any, hx: Any = None, *, lengths: Any = None, reset: Any = None, **settings: Any
    ) -> LayersSolution:
        """Solve every layer and direction.

        Parameters
        ----------
        x : array
            (T, D), (T, B, D), or (B, T, D) with ``batch_first``; any kind, in the dtype of the weights.
        hx : array or tuple of arrays, optional
            Initial states in torch's shape (layers * directions, [B], n); for an LSTM ``(h_0, c_0)``.
        lengths : sequence of int, optional
            (B,), or one number for x (T, D): how many leading steps of each sequence are there, 0 to T. A reverse
            direction begins at the end of each. What x holds beyond is not looked at; outputs there are 0, as those of
            ``torch.nn.utils.rnn.pad_packed_sequence``.
        reset : array of bool, optional
            (T, B) or (T,), whatever the order of axes of x: steps at which another sequence begins, from ``hx`` again,
            in all layers. A reverse direction begins at the end of each, so the outputs are those of the sequences one
            by one. :func:`recsolve.packed_resets` makes it from lengths.
        **settings
            Passed to :func:`recsolve.solve`.

        Returns
        -------
        LayersSolution

        Raises
        ------
        TypeError, ValueError
            For mixed kinds or dtypes, wrong shapes, lengths out of range, and the settings that
            :func:`recsolve.solve` refuses.

        Examples
        --------
        >>> import numpy as np, recsolve as rs
        >>> cells = [rs.cells.GRU.random(input_size=3, hidden_size=8, rng=rng) for rng in (0, 1)]
        >>> sol = rs.Layers([cells]).solve(np.ones((20, 5, 3)), lengths=[20, 3, 0, 7, 9])
        >>> sol.output.shape, float(abs(sol.output[3:, 1]).max())
        ((20, 5, 16), 0.0)
        """
        if isinstance(x, Shard):
            raise TypeError("x is a Shard, whose solution as one system is not known; Layers.run takes it")
        sequence, kind = self._sequence(x)
        order = Order(sequence, lengths, reset)
        starts = None if hx is None else self.states_of(hx, sequence, kind)
        solutions: list[Solution] = []
        for layer in self.directions:
            shown = []
            for reverse, cell in enumerate(layer):
                rec = cell.recurrence(
                    from_native(order.read(sequence, reverse), kind),
                    initial=None if starts is None else from_native(starts[len(solutions)], kind),
                    reset=order.resets(reverse),
                )
                with unrecorded(kind):  # cells may be of tensors that require grad; gradients are those of .adjoint
                    solutions.append(solve(rec, **settings))
                shown.append(order.read(to_native(solutions[-1].output, "output"), reverse))
            sequence = shown[0] if len(shown) == 1 else namespace(shown[0]).concatenate(shown, axis=-1)
        return LayersSolution(self, order, kind, tuple(solutions), sequence)

    def check_arguments(self, x: Any, hx: Any = None) -> None:
        """Look at arguments as :meth:`solve` does, which refuses what does not fit."""
        sequence, kind = self._sequence(x)
        if hx is not None:
            self.states_of(hx, sequence, kind)

    def run(self, x: Any, hx: Any = None, *, fallback: str = "sequential", **settings: Any) -> tuple[Any, Any]:
        """Return ``(output, h_n)`` as the torch module would.

        There is no status to look at, so a solver that does not converge is completed by the sequential loop
        (``fallback="sequential"``) or raises (``"raise"``). Outputs carry no gradient, but for those of shards: these
        carry those of tensors that require grad.

        Parameters
        ----------
        x, hx, **settings
            As in :meth:`solve`, ``lengths`` and ``reset`` included, but for ``callback``. Of a Shard x (T, [B], D)
            (:func:`recsolve.distributed.shard`) the output is one, a ``reset`` too, and ``h_n`` is there on every rank.
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
        if isinstance(x, Shard):
            return run_over_ranks(self, x, hx, fallback=fallback, **settings)
        result = self.solve(x, hx, fallback=fallback, **settings)
        return result.output, result.final

    def time_first(self, x: Array) -> Array:
        """Return an array in the user's order of axes with time first; one with time first in the user's order."""
        return x.swapaxes(0, 1) if self.batch_first and x.ndim == 3 else x

    def _sequence(self, x: Any) -> tuple[Array, Kind]:
        """Return the input with time first."""
        kind = common_kind({"x": x})
        native = to_native(x, "x")
        if native.ndim not in (2, 3):
            wanted = "(B, T, D)" if self.batch_first else "(T, B, D)"
            raise ValueError(f"x has shape {tuple(native.shape)}; wanted (T, D) or {wanted}")
        return self.time_first(native), kind

    def states_of(self, hx: Any, sequence: Array, kind: Kind) -> list[Array]:
        """Return one state per layer and direction, ([B], *event), from initial states in torch's shape."""
        parts, layout = self.parts_of(hx, "hx", sequence, kind), self.directions[0][0].layout
        shown = self.cell.state.index(self.cell.output)
        each = [cell for layer in self.directions for cell in layer]
        rows: list[Any] = [[*part] for part in parts]
        rows[shown] = [cell.shown_by(y) for cell, y in zip(each, rows[shown], strict=True)]
        if len(rows) == 1:
            return rows[0]  # type: ignore[no-any-return]
        return [namespace(sequence).stack(state, axis=layout.component_axis) for state in zip(*rows, strict=True)]

    def parts_of(self, hx: Any, name: str, sequence: Array, kind: Kind) -> list[Array]:
        """Return states in torch's shape as native arrays, one per component, of the kind and dtype of x (T, [B], D).

        Parameters
        ----------
        hx : array or tuple of arrays
        name : str
            Of the argument, for errors.
        sequence : array, shape (T, [B], D)
            Native.
        kind : str
        """
        layout, names = self.directions[0][0].layout, self.cell.state
        parts = hx if isinstance(hx, (tuple, list)) else (hx,)
        count = sum(len(layer) for layer in self.directions)
        event = layout.event[layout.components > 1 :]
        sizes = [self.output_shape if name == self.cell.output else event for name in names]
        if len(parts) != len(names):
            raise ValueError(f"{name} has {len(parts)} parts; wanted {len(names)}: {names}")
        common_kind({"x": from_native(sequence, kind), **{f"{name}[{i}]": p for i, p in enumerate(parts)}})
        native = [to_native(p, f"{name}[{i}]") for i, p in enumerate(parts)]
        for i, (part, size) in enumerate(zip(native, sizes, strict=True)):
            if part.shape != (shape := (count, *sequence.shape[1:-1], *size)):
                raise ValueError(f"{name}[{i}] has shape {tuple(part.shape)}; wanted {shape}")
            if part.dtype != sequence.dtype:
                raise TypeError(f"{name}[{i}] has dtype {part.dtype}; wanted {sequence.dtype}, as x")
        return native

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

"""Layers of any cell: built in, or of five lines of the user's."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
from torch import nn

from recsolve import cells
from recsolve.mixings import Mixing, form_of
from recsolve.nn.counters import Counters
from recsolve.nn.direction import Direction, stored, wide
from recsolve.nn.solving import Settings
from recsolve.nn.stack import Stack
from recsolve.nn.weights import Weights
from recsolve.recurrence.cell import Cell
from recsolve.recurrence.weighted_cell import WeightedCell
from recsolve.solve import solve

_NORMS: dict[Any, Any] = {False: None, True: nn.LayerNorm, "layer": nn.LayerNorm, "rms": nn.RMSNorm}


class Recurrent(Stack, nn.Module):  # type: ignore[misc]
    """Layers of any cell, solved in parallel over time.

    Parameters
    ----------
    cell : str or Cell
        The name of a built-in cell, or a definition, of five lines of your own say.
    input_size, hidden_size : int
        Width of the input, and of the state (all heads together).
    mixing, heads, gain
        How units are coupled, as of :meth:`recsolve.Cell.random`, from which initial weights come, by torch's seed.
    num_layers, bidirectional, dropout, batch_first
        As of torch's modules; dropout acts on the output of all layers but the last.
    norm : {False, True, "layer", "rms"}
        Whether the input of every layer is normalised, by a ``LayerNorm`` (also True) or ``RMSNorm`` of its own.
    residual : bool
        Whether the input of a layer is added to its output, where both are of one width.
    method, tol, maxiter, on_failure, every, cotangent_clamp, kappa
        As of :class:`recsolve.nn.GRU`.
    device, dtype
        Of the parameters.

    Attributes
    ----------
    cell : Cell
    counters : Counters
        What it has done so far.

    Raises
    ------
    TypeError
        For a cell that is none, whose components have axes of their own, or which gathers by an index; and for one
        whose function cannot be differentiated: it couples units without a mixing, or branches in Python.
    ValueError
        For an unknown cell, mixing, norm, method or ``on_failure``; and for sizes that do not fit.

    Notes
    -----
    Parameters of layer l are ``CELL_lL.weight_ih`` (the drives one after the other, in the order in which the cell uses
    them), ``.bias_ih``, ``.mixing_NAME`` and ``.parameter_NAME``; ``CELL_lL_reverse`` for the other direction. It is
    called as torch's modules are: :meth:`forward`. Initial and final states are one tensor for each component of the
    state, in the order of ``cell.state``, a tuple where there are several.

    Examples
    --------
    >>> import torch, recsolve as rs
    >>> from recsolve.math import sigmoid, tanh
    >>> def highway(s, W, u, p):
    ...     f = sigmoid(W.f(s.h) + u.f)
    ...     return f * s.h + (1 - f) * tanh(W.h(s.h) + u.h)
    >>> cell = rs.Cell(highway, state=("h",), output="h")
    >>> layer = rs.nn.Recurrent(cell, 3, 8, mixing="diagonal", num_layers=2, norm=True, residual=True)
    >>> y, final = layer(torch.randn(50, 4, 3))
    >>> y.shape, final.shape, [name for name, _ in layer.named_parameters()][2:4]
    (torch.Size([50, 4, 8]), torch.Size([2, 4, 8]), ['highway_l0.weight_ih', 'highway_l0.bias_ih'])
    """

    def __init__(
        self,
        cell: str | Cell,
        input_size: int,
        hidden_size: int,
        *,
        mixing: str | Callable[[Any], Mixing] = "dense",
        heads: int | None = None,
        gain: float = 1.0,
        num_layers: int = 1,
        bidirectional: bool = False,
        dropout: float = 0.0,
        batch_first: bool = False,
        norm: bool | str = False,
        residual: bool = False,
        method: Any = "auto",
        tol: float | None = None,
        maxiter: int | None = None,
        on_failure: str = "loop",
        every: int | None = None,
        cotangent_clamp: float | None = None,
        kappa: bool = False,
        device: Any = None,
        dtype: Any = None,
    ):
        super().__init__()
        self.counters = Counters()
        self.cell = cells.get(cell) if isinstance(cell, str) else cell
        if not isinstance(self.cell, Cell):
            raise TypeError(f"cell is {type(cell).__name__}; wanted the name of a built-in cell, or a Cell")
        if self.cell.ragged:
            raise TypeError(f"cell is {self.cell.name}, whose components have axes of their own; layers have none")
        if norm not in _NORMS:
            raise ValueError(f"norm is {norm!r}; wanted False, True, 'layer' or 'rms'")
        if not isinstance(num_layers, int) or num_layers < 1:
            raise ValueError(f"num_layers is {num_layers!r}; wanted a positive integer")
        if not 0 <= dropout <= 1:
            raise ValueError(f"dropout is {dropout!r}; wanted a number from 0 to 1")
        self.input_size, self.hidden_size, self.num_layers = input_size, hidden_size, num_layers
        self.bidirectional, self.dropout, self.batch_first = bool(bidirectional), float(dropout), bool(batch_first)
        self.norm, self.residual = norm, bool(residual)
        factory = {"device": device, "dtype": dtype}
        draw: dict[str, Any] = {"mixing": mixing, "heads": heads, "gain": gain}
        _try(self.cell.random(input_size=input_size, hidden_size=hidden_size, **draw, rng=0))
        for layer in range(num_layers):
            width = input_size if layer == 0 else hidden_size * (1 + self.bidirectional)
            if _NORMS[norm] is not None:
                self.add_module(f"norm_l{layer}", _NORMS[norm](width, **factory))
            for reverse in (False, True)[: 1 + self.bidirectional]:
                self.add_module(self._name(layer, reverse), Weights(self.cell, width, hidden_size, draw, factory))
        self.solving = Settings(method, tol, maxiter, on_failure, every, cotangent_clamp, kappa)

    def _name(self, layer: int, reverse: bool) -> str:
        """Return what a layer and direction are called; with the cell, so that checkpoints of others do not fit."""
        return f"{self.cell.name}_l{layer}{'_reverse' if reverse else ''}"

    def reset_parameters(self) -> None:
        """Draw all parameters anew, as they were drawn at first."""
        for module in self.children():
            module.reset_parameters()

    def _direction(self, layer: int, reverse: bool) -> Direction:
        return self._modules[self._name(layer, reverse)]()  # type: ignore[no-any-return]

    def _like(self) -> Any:
        return self._modules[self._name(0, False)].weight_ih

    def _recurrent(self, layer: int, reverse: bool) -> list[tuple[Any, str | None]]:
        weights: Any = self._modules[self._name(layer, reverse)]
        found = {name: stored(weights, f"mixing_{name}") for name in weights.mixings}
        return [(w, form_of(weights.mixings[name](w.detach().to(wide(w))))) for name, w in found.items()]

    def _widths(self) -> tuple[int, ...]:
        return (self.hidden_size,) * len(self.cell.state)

    def _enter(self, layer: int, x: Any) -> Any:
        return x if not self.norm else self._modules[f"norm_l{layer}"](x)

    def _leave(self, layer: int, x: Any, y: Any) -> Any:
        y = super()._leave(layer, x, y)
        return x + y if self.residual and x.shape[-1] == y.shape[-1] else y

    def extra_repr(self) -> str:
        """Return what is printed of it."""
        given = [self.cell.name, str(self.input_size), str(self.hidden_size), f"num_layers={self.num_layers}"]
        options = ("bidirectional", "batch_first", "dropout", "norm", "residual")
        return ", ".join(given + [f"{name}={value}" for name in options if (value := getattr(self, name))])


def _try(cell: WeightedCell) -> None:
    """Take a few steps by Newton's method, so that a function that cannot be taken apart is refused at once."""
    try:
        solve(cell.recurrence(np.ones((3, 1, cell.input_size or 0))), method="newton", maxiter=1)
    except (TypeError, ValueError, AttributeError) as error:
        raise TypeError(f"cell is {cell.cell.name}, which cannot be solved: {error}") from error

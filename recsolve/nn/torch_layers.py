"""torch.nn.GRU, LSTM and RNN, solved in parallel over time."""

from __future__ import annotations

from typing import Any

import torch

from recsolve import cells
from recsolve.mixings import Dense
from recsolve.nn.counters import Counters
from recsolve.nn.solving import Settings
from recsolve.nn.stack import Direction, Stack, stored, wide
from recsolve.recurrence.torch_weights import CELL_OF_MODE, LAYOUTS


class _TorchStack(Stack):
    """A module of torch whose forward solves."""

    mode: str
    proj_size: int
    bias: bool
    weight_ih_l0: Any

    def __init__(
        self,
        *args: Any,
        method: Any = "auto",
        tol: float | None = None,
        maxiter: int | None = None,
        on_failure: str = "loop",
        every: int | None = None,
        cotangent_clamp: float | None = None,
        kappa: bool = False,
        **kwargs: Any,
    ):
        super().__init__(*args, **kwargs)
        self.solving = Settings(method, tol, maxiter, on_failure, every, cotangent_clamp, kappa)
        self.counters = Counters()

    def _like(self) -> Any:
        return self.weight_ih_l0

    def _recurrent(self, layer: int, reverse: bool) -> list[tuple[Any, str | None]]:
        stacked = stored(self, f"weight_hh_l{layer}{'_reverse' if reverse else ''}")
        return [(gate, "dense") for gate in stacked.split(self.hidden_size)]

    def _widths(self) -> tuple[int, ...]:
        shown = self.proj_size or self.hidden_size
        return (shown, self.hidden_size) if self.mode == "LSTM" else (shown,)

    def _result_dtype(self, x: Any) -> Any:
        # torch runs GRUs on a CPU without autocast
        return x.dtype if (self.mode, x.device.type) == ("GRU", "cpu") else super()._result_dtype(x)

    def _direction(self, layer: int, reverse: bool) -> Direction:
        def weight(name: str) -> Any:
            return getattr(self, f"{name}_l{layer}{'_reverse' if reverse else ''}")

        cell = cells.get(CELL_OF_MODE[self.mode])
        layout, n, hidden = LAYOUTS[cell.name], self.hidden_size, weight("weight_hh")
        gates = layout.gates
        recurrent = hidden if not self.proj_size else _product(hidden, weight("weight_hr"))
        split = recurrent.unflatten(0, (len(gates), n)).unbind(0)
        offset, inner = None, dict.fromkeys(layout.inner_biases)
        if self.bias:
            inside = dict(zip(gates, weight("bias_hh").chunk(len(gates)), strict=True))
            inner = {gate: inside[gate] for gate in layout.inner_biases}
            added = [torch.zeros_like(b) if gate in inner else b for gate, b in inside.items()]
            offset = weight("bias_ih") + torch.cat(added)
        parameters = {layout.inner_biases[gate]: hidden.new_zeros(n) if b is None else b for gate, b in inner.items()}
        readout = (weight("weight_hr"), hidden) if self.proj_size else (None, None)
        weights = dict(zip(gates, split, strict=True))
        return Direction(
            cell, dict.fromkeys(gates, Dense), gates, (n,), weight("weight_ih"), offset, weights, parameters, *readout
        )  # fmt: skip


def _product(a: Any, b: Any) -> Any:
    """Return the product of two weights in the dtype of states."""
    with torch.autocast(a.device.type, enabled=False):
        return a.to(wide(a)) @ b.to(wide(b))


class GRU(_TorchStack, torch.nn.GRU):  # type: ignore[misc]
    """torch.nn.GRU."""


class LSTM(_TorchStack, torch.nn.LSTM):  # type: ignore[misc]
    """torch.nn.LSTM."""


class RNN(_TorchStack, torch.nn.RNN):  # type: ignore[misc]
    """torch.nn.RNN."""

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


_DOCUMENTED = """torch.nn.{name}, solved in parallel over time: it takes the place of torch's by one import.

Parameters
----------
*args, **kwargs
    Those of ``torch.nn.{name}``, all of them. Names, shapes and initial values of parameters are torch's, so that
    checkpoints load both ways.
method, tol, maxiter
    As of :func:`recsolve.solve`; the method is "auto" unless one is given.
on_failure : {{"loop", "raise", "warn"}}
    What follows when a solve is not met: the sequential loop completes it, and that is counted; ConvergenceError is
    raised; or the states are used as they are, after a :class:`ConvergenceWarning`.
every : int, optional
    Keep the states of so many steps at a time for the backward, which solves each window again.
cotangent_clamp : float, optional
    Limit entries of the cotangents of states to this size.
kappa : bool
    Whether to estimate the conditioning of every solve, which takes a few scans: ``counters.kappa``.

Attributes
----------
counters : Counters
    What it has done so far.

Raises
------
ValueError, TypeError
    For an unknown method or ``on_failure``; and as torch for its own arguments.

Notes
-----
It is called as torch's, with a tensor or a PackedSequence; ``lengths=``, ``cu_seqlens=`` or ``reset=`` say besides
where sequences end: :meth:`forward`. States are float32 where weights are of fewer bits, or under autocast, which
rounds the projections of the input alone; results have the dtype that torch gives. Input and weights of two dtypes are
refused, as by torch. Unlike torch's, it takes inputs without steps.

Examples
--------
>>> import torch, recsolve as rs
>>> layer, theirs = rs.nn.{name}(3, 8, num_layers=2), torch.nn.{name}(3, 8, num_layers=2)
>>> layer.load_state_dict(theirs.state_dict())
<All keys matched successfully>
>>> x = torch.randn(50, 4, 3)
>>> y, final = layer(x)
>>> bool(torch.allclose(y, theirs(x)[0], atol=1e-5))
True
>>> y.square().mean().backward()
>>> layer.weight_hh_l0.grad.shape
torch.Size([{rows}, 8])

References
----------
{cite}; solved and differentiated as Lim et al., ICLR 2024 (arXiv 2309.12252).
"""


class GRU(_TorchStack, torch.nn.GRU):  # type: ignore[misc]
    __doc__ = _DOCUMENTED.format(name="GRU", rows=24, cite=cells.GRU.cite)


class LSTM(_TorchStack, torch.nn.LSTM):  # type: ignore[misc]
    __doc__ = _DOCUMENTED.format(name="LSTM", rows=32, cite=cells.LSTM.cite)


class RNN(_TorchStack, torch.nn.RNN):  # type: ignore[misc]
    __doc__ = _DOCUMENTED.format(name="RNN", rows=8, cite=cells.Elman.cite)

"""torch.nn.GRU, LSTM and RNN, solved in parallel over time."""

from __future__ import annotations

from dataclasses import fields
from typing import Any

import torch

from recsolve import cells
from recsolve.mixings import Dense
from recsolve.nn.counters import Counters
from recsolve.nn.direction import Direction, stored, wide
from recsolve.nn.solving import Settings
from recsolve.nn.stack import Stack
from recsolve.recurrence.torch_weights import CELL_OF_MODE, LAYOUTS


class _TorchStack(Stack, torch.nn.RNNBase):  # type: ignore[misc]
    """A module with the parameters of torch's, whose forward solves.

    It is no ``torch.nn.GRU``, LSTM or RNN, which ``torch.compile`` refuses to look into, whatever their forward does.
    """

    mode: str
    proj_size: int
    bias: bool
    weight_ih_l0: Any

    def __init__(self, mode: str, *args: Any, **kwargs: Any):
        settings = {f.name: kwargs.pop(f.name) for f in fields(Settings) if f.name in kwargs}
        if mode != "LSTM" and "proj_size" in kwargs:
            raise ValueError(f"proj_size is given; wanted an LSTM, not {type(self).__name__}")
        super().__init__(mode, *args, **kwargs)
        self.counters = Counters()
        self.solving = Settings(**settings)

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
    Solve windows of so many steps one after the other, and keep what each begins with alone: the backward solves it
    again. So memory for drives and states is that of one window. A window also ends before every ``reset``.
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
It is called as torch's, with a tensor or a PackedSequence, or with a Shard of which ranks hold some steps each;
``lengths=``, ``cu_seqlens=`` or ``reset=`` say besides where sequences end: :meth:`forward`. States are float32 where
weights are of fewer bits, or under autocast, which rounds the projections of the input alone; results have the dtype
that torch gives. Input and weights of two dtypes are refused, as by torch. Unlike torch's, it takes inputs without
steps. It is a ``torch.nn.RNNBase`` that ``torch.compile`` looks into; what is a ``torch.nn.{name}`` it refuses.

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


class GRU(_TorchStack):
    __doc__ = _DOCUMENTED.format(name="GRU", rows=24, cite=cells.GRU.cite)

    def __init__(self, *args: Any, **kwargs: Any):
        super().__init__("GRU", *args, **kwargs)


class LSTM(_TorchStack):
    __doc__ = _DOCUMENTED.format(name="LSTM", rows=32, cite=cells.LSTM.cite)

    def __init__(self, *args: Any, **kwargs: Any):
        super().__init__("LSTM", *args, **kwargs)


class RNN(_TorchStack):
    __doc__ = _DOCUMENTED.format(name="RNN", rows=8, cite=cells.Elman.cite)

    def __init__(self, *args: Any, **kwargs: Any):
        plain, named = args[:3] + args[4:], {"nonlinearity": args[3]} if len(args) > 3 else kwargs
        self.nonlinearity = named.pop("nonlinearity", "tanh")
        if self.nonlinearity not in ("tanh", "relu"):
            raise ValueError(f"nonlinearity is {self.nonlinearity!r}; wanted 'tanh' or 'relu'")
        super().__init__(f"RNN_{self.nonlinearity.upper()}", *plain, **kwargs)

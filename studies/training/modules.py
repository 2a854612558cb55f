"""The networks that are trained, as modules of torch."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import torch
from torch import nn

from recsolve.nn import Recurrent, reset_counters
from recsolve.nn.counters import Counters
from recsolve.studies.training import networks, tasks
from recsolve.studies.training.loop import torch_step

if TYPE_CHECKING:
    from recsolve.studies.training.config import TrainConfig


class Loop(Recurrent):
    """A layer with the weights of :class:`recsolve.nn.Recurrent` that takes one step of torch after the other."""

    def __init__(self, *args: Any, mixing: str, **settings: Any):
        super().__init__(*args, mixing=mixing, **settings)
        self.step = torch_step(self.cell, dict.fromkeys(self.cell.mixings, mixing))
        self.diagonal = mixing == "diagonal"

    def _states(self, spec: Any, tensors: dict[str, Any], solve: Any = None) -> Any:
        if solve is not None:  # of ranks
            raise TypeError("input is a Shard, and the loop of torch takes all steps; wanted a tensor")

        def of(kind: str) -> dict[str, Any]:
            return {n.removeprefix(kind): x for n, x in tensors.items() if n.startswith(kind)}

        drives, W, names = of("drive."), of("mixing."), self.cell.state
        W = W if self.diagonal else {name: _Product(weight) for name, weight in W.items()}
        state, parameters = tensors["initial"], of("parameter.")
        if state is None:
            first = next(iter(drives.values()))[0]
            parts = (torch.zeros_like(first),) * len(names)
        else:
            parts = tuple(state.unbind(1)) if len(names) > 1 else (state,)
        found = []
        for u in zip(*(drive.unbind() for drive in drives.values()), strict=True):
            parts = self.step(dict(zip(names, parts, strict=True)), W, dict(zip(drives, u, strict=True)), parameters)
            found.append(torch.stack(parts, dim=1) if len(names) > 1 else parts[0])
        return torch.stack(found)


class _Product:
    """The matrices of heads, or one matrix, times vectors."""

    def __init__(self, weight: Any):
        self.weight = weight.mT

    def __call__(self, x: Any) -> Any:
        return (x[..., None, :] @ self.weight)[..., 0, :] if self.weight.ndim > 2 else x @ self.weight


class OfTorch(nn.Module):  # type: ignore[misc]
    """Layers of torch's own, with norms and residuals as :class:`recsolve.nn.Recurrent` has them."""

    def __init__(self, kind: str, units: int, layers: int, *, norm: bool, residual: bool, dropout: float):
        super().__init__()
        made = getattr(nn, networks.OF_TORCH[kind])
        self.layers = nn.ModuleList(made(units, units) for _ in range(layers))
        self.norms = nn.ModuleList(nn.LayerNorm(units) if norm else nn.Identity() for _ in range(layers))
        self.dropout, self.residual = nn.Dropout(dropout), residual

    def forward(self, x: Any) -> tuple[Any, None]:
        """Return the output of the last layer, and no final states."""
        for number, (layer, norm) in enumerate(zip(self.layers, self.norms, strict=True)):
            y, _ = layer(norm(x))
            y = self.dropout(y) if number + 1 < len(self.layers) else y
            x = x + y if self.residual else y
        return x, None


class Network(nn.Module):  # type: ignore[misc]
    """An embedding, recurrent layers, a normalisation where they have one, and a linear layer that answers.

    Takes tokens (T, batch) or numbers (T, batch, channels), and returns scores (T, batch, classes).
    """

    def __init__(self, config: TrainConfig):
        super().__init__()
        task, units = tasks.get(config.task), config.units
        self.embedding = nn.Embedding(task.inputs, units) if task.tokens else nn.Linear(task.inputs, units)
        self.layers = _layers(config)
        self.norm = nn.LayerNorm(units) if config.norm else nn.Identity()
        self.answer = nn.Linear(units, task.classes)

    def forward(self, inputs: Any) -> Any:
        """Return scores (T, batch, classes) of inputs (T, batch) or (T, batch, channels)."""
        return self.answer(self.norm(self.layers(self.embedding(inputs))[0]))


def _layers(config: TrainConfig) -> Any:
    between: dict[str, Any] = {"norm": config.norm, "residual": config.residual, "dropout": config.dropout}
    if config.layer == "torch":
        return OfTorch(config.cell, config.units, config.layers, **between)
    made = Loop if config.layer == "loop" else Recurrent
    layers = made(
        networks.cell_of(config.cell), config.units, config.units, mixing=config.mixing, num_layers=config.layers,
        heads=config.heads if config.mixing == "heads" else None, method=config.method, tol=config.tol or None,
        maxiter=config.iterations or None, on_failure=config.on_failure, **between,
    )  # fmt: skip
    if config.cell == networks.AFFINE.name:
        with torch.no_grad():
            for name, x in layers.named_parameters():
                if name.endswith("parameter_rate"):
                    x.copy_(_rates(x.numel()).reshape(x.shape))
    return layers


def _rates(units: int) -> Any:
    """Return rates of decays with time constants from 2 to 500 steps, evenly spread over their logarithm."""
    steps = torch.logspace(0.301, 2.7, units)
    return torch.log(-torch.log1p(-1 / steps))


def counted(network: Any) -> dict[str, float]:
    """Return what the layers of a network have counted since this was last called; nothing of layers of torch."""
    found = [m.counters for m in network.modules() if isinstance(getattr(m, "counters", None), Counters)]
    if not found or not any(c.solves for c in found):
        return {}
    counts = {name: sum(getattr(c, name) for c in found) for name in ("solves", "iterations", "completed", "unmet")}
    reset_counters(network)
    return counts | {"worst": max(c.worst for c in found)}

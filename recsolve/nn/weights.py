"""The weights of one layer and direction of any cell, as a module."""

from __future__ import annotations

import warnings
from collections.abc import Callable, Mapping
from functools import partial
from typing import Any

import numpy as np
import torch
from torch import nn

from recsolve.base.arrays import Array
from recsolve.base.links import to_linked
from recsolve.base.overriding import changed
from recsolve.mixings import MIXINGS, Mixing
from recsolve.nn.direction import Direction
from recsolve.recurrence.cell import Cell


def _maker(mixing: Mixing) -> Callable[[Any], Mixing]:
    """Return what makes a mixing of the same kind of other weights."""
    return type(mixing) if type(mixing) in MIXINGS.values() else partial(_with_weight, mixing)


def _with_weight(mixing: Mixing, weight: Any) -> Mixing:
    """Return a mixing with another weight, which gradients may go back to."""
    return changed(mixing, weight=to_linked(weight, "weight"))


class Weights(nn.Module):  # type: ignore[misc]
    """The parameters of one layer and direction: ``weight_ih``, ``bias_ih``, ``mixing_NAME``, ``parameter_NAME``.

    What mixings hold besides their weights, such as masks, are the buffers ``fixed_NAME_ATTRIBUTE``: with them a
    checkpoint is the whole layer.
    """

    def __init__(self, cell: Cell, input_size: int, hidden_size: int, draw: dict[str, Any], factory: dict[str, Any]):
        super().__init__()
        self.cell, self.sizes, self.draw = cell, (input_size, hidden_size), draw
        drawn = self._drawn()
        self.mixings: dict[str, Callable[[Any], Mixing]] = {}
        self._fixed = tuple(_fixed(drawn))  # buffers of this class: pruning, say, registers others
        self._made_of: list[tuple[Any, int | None]] = []  # what mixings were made of, each with its version
        assert drawn.projection is not None
        self.drives, self.event = tuple(drawn.projection.weights), next(iter(drawn.projection.events.values()))
        for name, x in _named(drawn).items():
            self.register_parameter(name, nn.Parameter(torch.empty(x.shape, **factory)))
        for name, x in _fixed(drawn).items():
            self.register_buffer(name, torch.empty_like(torch.tensor(x), device=factory.get("device")))
        self._take(drawn)

    def _drawn(self) -> Any:
        """Return the cell with weights as ``Cell.random`` draws them, by torch's seed."""
        seed = int(torch.randint(2**62, (), device="cpu"))
        input_size, hidden_size = self.sizes
        return self.cell.random(input_size=input_size, hidden_size=hidden_size, **self.draw, rng=seed)

    def _take(self, drawn: Any) -> None:
        with torch.no_grad():
            for name, x in (_named(drawn) | _fixed(drawn)).items():
                getattr(self, name).copy_(torch.tensor(x))
        self._drawn_mixings = drawn.mixings
        self._made_of = self._buffers_now()
        self.mixings.update({name: _maker(mixing) for name, mixing in drawn.mixings.items()})

    def _buffers_now(self) -> list[tuple[Any, int | None]]:
        """Return the buffers and their versions; tensors of inference mode do not know theirs."""
        buffers = [self._buffers[name] for name in self._fixed]
        return [(x, None if x.is_inference() else x._version) for x in buffers]

    def _follow_buffers(self) -> None:
        """Make the mixings anew where buffers were loaded, replaced or written to."""
        now = self._buffers_now()
        pairs = zip(now, self._made_of, strict=True)
        if all(x is y and version is not None and version == seen for (x, version), (y, seen) in pairs):
            return
        if any(torch._C._functorch.is_functorch_wrapped_tensor(x) for x, _ in now):
            raise TypeError(f"{self._fixed[0]} differs between models under vmap; wanted one for all of them")
        for name, mixing in self._drawn_mixings.items():
            fixed = {key: self._buffers[f"fixed_{name}_{key}"] for key in fixed_of(mixing)}
            if fixed:
                self.mixings[name] = _maker(with_fixed(mixing, fixed))
        self._made_of = now

    def _load_from_state_dict(self, state_dict: Any, prefix: str, *args: Any) -> None:
        """Load, also from a checkpoint without buffers, which older ones were."""
        missing = [name for name in self._fixed if prefix + name not in state_dict]
        if missing and f"{prefix}weight_ih" in state_dict:
            text = f"the checkpoint has no {prefix}{missing[0]}, as older ones: the mixing stays as it was drawn"
            warnings.warn(text, UserWarning, stacklevel=2)
            state_dict.update({prefix + name: self._buffers[name] for name in missing})
        super()._load_from_state_dict(state_dict, prefix, *args)
        self._follow_buffers()

    def reset_parameters(self) -> None:
        """Draw all parameters anew."""
        self._take(self._drawn())

    def forward(self) -> Direction:
        """Return the weights as they are now; called as a module, so that hooks run, as those of pruning."""
        if self._fixed and not torch.compiler.is_compiling():
            self._follow_buffers()
        weights = {name: getattr(self, f"mixing_{name}") for name in self.cell.mixings}
        parameters = {name: getattr(self, f"parameter_{name}") for name in self.cell.parameters}
        return Direction(
            self.cell, self.mixings, self.drives, self.event, self.weight_ih, self.bias_ih, weights, parameters
        )

    def extra_repr(self) -> str:
        """Return what is printed of it."""
        return ", ".join(f"{name} {tuple(p.shape)}" for name, p in self.named_parameters())


def _named(drawn: Any) -> dict[str, Any]:
    """Return the arrays of a cell by the names of the parameters."""
    found = {"weight_ih": drawn.projection.matrix, "bias_ih": drawn.projection.offset}
    found |= {f"mixing_{name}": mixing.weight for name, mixing in drawn.mixings.items()}
    return found | {f"parameter_{name}": x for name, x in drawn.parameters.items()}


def _fixed(drawn: Any) -> dict[str, Any]:
    """Return what the mixings of a cell hold besides their weights, by the names of the buffers."""
    return {f"fixed_{n}_{key}": x for n, mixing in drawn.mixings.items() for key, x in fixed_of(mixing).items()}


def fixed_of(mixing: Mixing) -> dict[str, Array]:
    """Return the arrays that a mixing holds besides its weight, and those of one within it, by name.

    Examples
    --------
    >>> import numpy as np, recsolve as rs
    >>> from recsolve.nn.weights import fixed_of
    >>> fixed_of(rs.mixings.Masked(rs.mixings.Diagonal(np.ones(2)), [True, False]))
    {'mask': array([ True, False])}
    """
    found: dict[str, Array] = {}
    for name, x in vars(changed(mixing)).items():  # without what cached properties have found
        if isinstance(x, Mixing):
            found |= {f"{name}_{key}": value for key, value in fixed_of(x).items()}
        elif isinstance(x, np.ndarray) and name != "weight":
            found[name] = x
    return found


def with_fixed(mixing: Mixing, tensors: Mapping[str, Any]) -> Mixing:
    """Return a mixing with other arrays in the place of those of :func:`fixed_of`."""
    given: dict[str, Any] = {}
    for name, x in vars(changed(mixing)).items():
        if isinstance(x, Mixing):
            given[name] = with_fixed(x, {key: tensors[f"{name}_{key}"] for key in fixed_of(x)})
        elif name in tensors:
            given[name] = tensors[name].detach().to("cpu", torch.tensor(x).dtype, copy=True).numpy()
    return changed(mixing, **given)

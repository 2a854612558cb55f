"""Weights in torch's naming: ``weight_ih_l0`` and its family, from a module or from a saved state dict."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from recsolve.arrays import Array, namespace, to_native
from recsolve.mixings import Dense
from recsolve.projection import Projection

if TYPE_CHECKING:
    from recsolve.cell import Cell
    from recsolve.weighted_cell import WeightedCell


@dataclass(frozen=True)
class TorchLayout:
    """How torch stacks a cell's gates, and which hidden biases stay inside the cell.

    Attributes
    ----------
    mode : str
        torch's name of the kind (``module.mode``).
    gates : tuple of str
        Gate names in the order of the rows of ``weight_hh``.
    inner_biases : mapping
        Gate name to the parameter that holds its hidden bias; all other hidden biases join the projection.
    """

    mode: str
    gates: tuple[str, ...]
    inner_biases: Mapping[str, str]


LAYOUTS: dict[str, TorchLayout] = {
    "elman": TorchLayout("RNN_TANH", ("h",), {}),
    "elman_relu": TorchLayout("RNN_RELU", ("h",), {}),
    "gru": TorchLayout("GRU", ("r", "z", "n"), {"n": "b_n"}),
    "lstm": TorchLayout("LSTM", ("i", "f", "g", "o"), {}),
}
CELL_OF_MODE = {layout.mode: name for name, layout in LAYOUTS.items()}
_CELL_OF_GATES = {1: "elman", 3: "gru", 4: "lstm"}


def cell_from_module(cell: Cell, module: Any, layer: int, reverse: bool) -> WeightedCell:
    """Return one layer and direction of a torch module as a weighted cell."""
    mode = getattr(module, "mode", None)
    wanted = LAYOUTS.get(cell.name)
    if wanted is None:
        raise TypeError(f"{cell.name} has no torch module; from_torch exists for {', '.join(LAYOUTS)}")
    if mode != wanted.mode:
        raise TypeError(f"module is {type(module).__name__} with mode {mode!r}; {cell.name} wants {wanted.mode!r}")
    weights = plain_weights(module)
    return cell_from_weights(cell, weights, layer, reverse)


def plain_weights(module: Any) -> dict[str, Any]:
    """Return the parameters of a torch RNN, GRU or LSTM that computes what its class says.

    Raises
    ------
    ValueError
        For ``proj_size``, weights that are reparametrized or wrapped, or a subclass with a forward of its own.
    """
    refuse_projection(module)
    own: Any = type(module)
    base: Any = next((c for c in own.__mro__ if c.__module__ == "torch.nn.modules.rnn"), own)
    if own.forward is not base.forward:
        raise ValueError(f"module is {type(module).__name__}, which overrides forward; wanted a plain {base.__name__}")
    weights = {name: p.detach() for name, p in module.named_parameters()}
    if "weight_hh_l0" not in weights or "weight_ih_l0" not in weights:
        raise ValueError(
            f"module has parameters {sorted(weights)} and no plain weight_ih_l0, weight_hh_l0: it is reparametrized or "
            "wrapped; remove that first (torch.nn.utils.parametrize.remove_parametrizations, or module._orig_mod)"
        )
    return weights


def refuse_projection(module: Any) -> None:
    """Raise ValueError for an LSTM with ``proj_size``, whose state is not the size of its gates."""
    if getattr(module, "proj_size", 0):
        raise ValueError(f"module has proj_size {module.proj_size}; wanted 0 (projected LSTMs are not supported)")


def cell_from_weights(cell: Cell, weights: Mapping[str, Any], layer: int, reverse: bool) -> WeightedCell:
    """Return one layer and direction from weights by torch's names.

    Raises
    ------
    ValueError
        When the layer or direction is missing or a shape is wrong.
    """
    layout, suffix = LAYOUTS[cell.name], f"_l{layer}" + ("_reverse" if reverse else "")
    if f"weight_hh{suffix}" not in weights or f"weight_ih{suffix}" not in weights:
        raise ValueError(f"layer {layer}{' (reverse)' if reverse else ''} is not there; found {sorted(weights)}")
    hidden = _split(weights, f"weight_hh{suffix}", layout)
    inputs = _split(weights, f"weight_ih{suffix}", layout)
    xp = namespace(next(iter(hidden.values())))
    biases = {gate: xp.zeros(w.shape[0], dtype=w.dtype) for gate, w in inputs.items()}
    inner = {gate: biases[gate] for gate in layout.inner_biases}
    if f"bias_ih{suffix}" in weights:
        b_hh = _split(weights, f"bias_hh{suffix}", layout)
        biases = _split(weights, f"bias_ih{suffix}", layout)
        inner = {gate: b_hh.pop(gate) for gate in layout.inner_biases}
        biases = {gate: b + b_hh[gate] if gate in b_hh else b for gate, b in biases.items()}
    # The cell's own order of names, so that a projection lists its drives as the function first uses them.
    return cell.with_weights(
        mixings={gate: Dense(hidden[gate]) for gate in cell.mixings},
        parameters={layout.inner_biases[gate]: b for gate, b in inner.items()},
        projection=Projection({g: inputs[g] for g in cell.drives}, {g: biases[g] for g in cell.drives}),
    )


def _split(weights: Mapping[str, Any], name: str, layout: TorchLayout) -> dict[str, Array]:
    """Cut a stacked weight into its gates."""
    stacked = to_native(weights[name], name)
    gates = len(layout.gates)
    if stacked.ndim == 0 or stacked.shape[0] % gates:
        raise ValueError(f"{name} has shape {stacked.shape}; wanted a first axis of {gates} gates of equal size")
    n = stacked.shape[0] // gates
    # Copies: a module that trains on must not change a cell by half.
    return {gate: stacked[i * n : (i + 1) * n].copy() for i, gate in enumerate(layout.gates)}


def cell_name(weights: Mapping[str, Any], nonlinearity: str = "tanh") -> str:
    """Return which cell a state dict is of, from the number of gates.

    Raises
    ------
    ValueError
        When it is of none, or has ``proj_size``.
    """
    if any(name.startswith("weight_hr") for name in weights):
        raise ValueError("the weights have weight_hr (proj_size); projected LSTMs are not supported")
    if "weight_hh_l0" not in weights:
        raise ValueError(f"no weight_hh_l0 of a torch RNN, GRU or LSTM; found {sorted(weights) or 'nothing'}")
    shape = tuple(weights["weight_hh_l0"].shape)
    gates = shape[0] / shape[1] if len(shape) == 2 and shape[1] else 0
    if gates not in _CELL_OF_GATES:
        raise ValueError(f"weight_hh_l0 has shape {shape}; wanted (g n, n) with g = 1 (RNN), 3 (GRU) or 4 (LSTM)")
    if nonlinearity not in ("tanh", "relu"):
        raise ValueError(f"nonlinearity is {nonlinearity!r}; wanted 'tanh' or 'relu'")
    name = _CELL_OF_GATES[int(gates)]
    return "elman_relu" if name == "elman" and nonlinearity == "relu" else name


def directions(weights: Mapping[str, Any]) -> list[tuple[int, bool]]:
    """Return the (layer, reverse) pairs that the weights hold, in torch's order."""
    pairs = []
    layer = 0
    while f"weight_hh_l{layer}" in weights:
        pairs.append((layer, False))
        if f"weight_hh_l{layer}_reverse" in weights:
            pairs.append((layer, True))
        layer += 1
    return pairs

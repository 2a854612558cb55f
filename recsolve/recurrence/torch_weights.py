"""Weights in torch's naming: ``weight_ih_l0`` and its family, from a module or from a saved state dict."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from recsolve.base.arrays import FLOATS, Array, namespace, to_native
from recsolve.mixings import Dense
from recsolve.recurrence.projection import Projection

if TYPE_CHECKING:
    from recsolve.recurrence.cell import Cell
    from recsolve.recurrence.weighted_cell import WeightedCell


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
KEY = re.compile(r"(weight|bias)_(ih|hh|hr)_l(\d+)(_reverse)?$")
_LISTED = 6  # names, at most, in a message


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
    """Return the parameters of an unmodified torch RNN, GRU or LSTM.

    Raises
    ------
    ValueError
        For ``proj_size``, weights that are reparametrized or wrapped, missing or of a wrong shape, or a subclass with a
        forward of its own.
    TypeError
        For weights of mixed dtypes, or other ones than float32 and float64.
    """
    refuse_projection(module)
    own: Any = type(module)
    base: Any = next((c for c in own.__mro__ if c.__module__ == "torch.nn.modules.rnn"), own)
    if own.forward is not base.forward:
        raise ValueError(f"module is {type(module).__name__}, which overrides forward; wanted a plain {base.__name__}")
    found = {name: p.detach() for name, p in module.named_parameters(remove_duplicate=False)}
    weights = {name: p for name, p in found.items() if KEY.fullmatch(name)}
    if "weight_hh_l0" not in weights or "weight_ih_l0" not in weights:
        raise ValueError(
            f"module has parameters {sorted(found)} and no plain weight_ih_l0, weight_hh_l0: it is reparametrized or "
            "wrapped; remove that first (torch.nn.utils.parametrize.remove_parametrizations, or module._orig_mod)"
        )
    cell_name(weights)  # checks them
    return weights


def refuse_projection(module: Any) -> None:
    """Raise ValueError for an LSTM with ``proj_size``, whose state is not the size of its gates."""
    if getattr(module, "proj_size", 0):
        raise ValueError(f"module has proj_size {module.proj_size}; wanted 0 (projected LSTMs are not supported)")


def cell_from_weights(cell: Cell, weights: Mapping[str, Any], layer: int, reverse: bool) -> WeightedCell:
    """Return one layer and direction from weights by torch's names, which :func:`cell_name` has checked.

    Raises
    ------
    ValueError
        When the layer or direction is missing.
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
    n = stacked.shape[0] // len(layout.gates)
    # Copies: a module that goes on training must not change a cell.
    return {gate: stacked[i * n : (i + 1) * n].copy() for i, gate in enumerate(layout.gates)}


def cell_name(weights: Mapping[str, Any], nonlinearity: str = "tanh") -> str:
    """Return which cell a state dict is of, from the number of gates, having checked every key.

    Raises
    ------
    ValueError
        When it is of none, or has ``proj_size``; for keys that are missing, left over or of a wrong shape. The message
        names them.
    TypeError
        For dtypes that are mixed, or other ones than float32 and float64; the message names the keys.
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
    _check_weights(weights)
    name = _CELL_OF_GATES[int(gates)]
    return "elman_relu" if name == "elman" and nonlinearity == "relu" else name


def _check_weights(weights: Mapping[str, Any]) -> None:
    """Refuse weights unless their keys are those of one complete torch RNN, GRU or LSTM."""
    wanted = _shapes(weights)
    missing = [name for name in wanted if name not in weights]
    extra = [name for name in weights if name not in wanted]
    if missing or extra:
        seen = [f"{_listed(names)} {what}" for names, what in ((missing, "missing"), (extra, "left over")) if names]
        raise ValueError(f"the weights are not those of a whole torch RNN, GRU or LSTM: {'; '.join(seen)}")
    names, first = [dtype.name for dtype in FLOATS], str(weights["weight_hh_l0"].dtype)
    for name, shape in wanted.items():
        seen_shape, dtype = tuple(weights[name].shape), str(weights[name].dtype)
        if len(seen_shape) != len(shape) or any(n not in (m, None) for m, n in zip(seen_shape, shape, strict=True)):
            text = str(shape).replace("None", "input size")
            of = tuple(weights["weight_hh_l0"].shape)
            raise ValueError(f"{name} has shape {seen_shape}; wanted {text}, as weight_hh_l0 has shape {of}")
        if dtype.removeprefix("torch.") not in names:
            raise TypeError(f"{name} has dtype {dtype}; wanted {' or '.join(names)} (convert it first)")
        if dtype != first:
            raise TypeError(f"dtypes are mixed: {name} is {dtype}, weight_hh_l0 is {first}; convert them to one")


def _shapes(weights: Mapping[str, Any]) -> dict[str, tuple[int | None, ...]]:
    """Return the shape of every key of the smallest module that has all of the recurrent keys; None is any size."""
    keys = [key for name in weights if (key := KEY.fullmatch(name))]
    layers = min(max(int(key[3]) for key in keys), len(weights)) + 1  # more have a gap
    ends = ["", "_reverse"] if any(key[4] for key in keys) else [""]
    biased = any(key[1] == "bias" for key in keys)
    rows, units = weights["weight_hh_l0"].shape
    given = tuple(weights["weight_ih_l0"].shape) if "weight_ih_l0" in weights else ()
    inputs = given[1] if len(given) == 2 else None
    wanted: dict[str, tuple[int | None, ...]] = {}
    for layer in range(layers):
        for end in ends:
            suffix = f"_l{layer}{end}"
            wanted[f"weight_ih{suffix}"] = (rows, len(ends) * units if layer else inputs)
            wanted[f"weight_hh{suffix}"] = (rows, units)
            if biased:
                wanted |= {f"bias_ih{suffix}": (rows,), f"bias_hh{suffix}": (rows,)}
    return wanted


def _listed(names: Sequence[str]) -> str:
    rest = len(names) - _LISTED
    return ", ".join(names[:_LISTED]) + (f" and {rest} more" if rest > 0 else "")


def check_finite(weights: Mapping[str, Array]) -> None:
    """Refuse NumPy weights that are NaN or inf.

    Raises
    ------
    ValueError
        The message names the key.
    """
    for name, x in weights.items():
        if bad := int((~np.isfinite(x)).sum()):
            raise ValueError(f"{name} has {bad} of {x.size} numbers that are NaN or inf; wanted finite weights")


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

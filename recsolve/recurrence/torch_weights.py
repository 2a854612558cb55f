"""Weights in torch's naming: ``weight_ih_l0`` and its family, from a module or from a saved state dict."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from recsolve.base.arrays import FLOATS, Array, namespace
from recsolve.base.links import follow, to_linked
from recsolve.mixings import Dense
from recsolve.recurrence.projection import Projection
from recsolve.recurrence.read_cell import ReadCell

if TYPE_CHECKING:
    from recsolve.recurrence.cell import Cell
    from recsolve.recurrence.weighted_cell import WeightedCell

_FLOAT_NAMES = tuple(dtype.name for dtype in FLOATS)


@dataclass(frozen=True)
class TorchLayout:
    """How torch stacks a cell's gates, and which hidden biases stay inside the cell.

    Attributes
    ----------
    mode : str
        torch's name of the kind (``module.mode``), empty for a cell that torch lacks and other libraries' files hold.
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
    "cho_gru": TorchLayout("", ("r", "z", "n"), {}),
    "lstm": TorchLayout("LSTM", ("i", "f", "g", "o"), {}),
}
CELL_OF_MODE = {layout.mode: name for name, layout in LAYOUTS.items() if layout.mode}
_MODE_OF_CELL_MODULE = {"GRUCell": "GRU", "LSTMCell": "LSTM"}
_CELL_OF_GATES = {1: "elman", 3: "gru", 4: "lstm"}
KEY = re.compile(r"(weight|bias)_(ih|hh|hr)(_l(\d+)(_reverse)?)?$")
_LISTED = 6  # names, at most, in a message


def mode_of(module: Any) -> str | None:
    """Return torch's name of the kind of a torch RNN, GRU or LSTM, or of one step of it (``LSTMCell``), or None."""
    name = type(module).__name__
    if name == "RNNCell":
        return f"RNN_{getattr(module, 'nonlinearity', 'tanh').upper()}"
    return _MODE_OF_CELL_MODULE.get(name) or getattr(module, "mode", None)


def cell_from_module(cell: Cell, module: Any, layer: int, reverse: bool) -> WeightedCell:
    """Return one layer and direction of a torch module as a weighted cell."""
    mode = mode_of(module)
    wanted = LAYOUTS.get(cell.name)
    if wanted is None or not wanted.mode:
        known = ", ".join(name for name, layout in LAYOUTS.items() if layout.mode)
        raise TypeError(f"{cell.name} has no torch module; from_torch exists for {known}")
    if mode != wanted.mode:
        raise TypeError(f"module is {type(module).__name__} with mode {mode!r}; {cell.name} wants {wanted.mode!r}")
    weights = plain_weights(module, linked=True)
    return cell_from_weights(cell, weights, layer, reverse)


def plain_weights(module: Any, *, linked: bool = False) -> dict[str, Any]:
    """Return the parameters of an unmodified torch RNN, GRU or LSTM, scripted or not, or of one step of it.

    Parameters
    ----------
    module : torch.nn.Module
    linked : bool
        Whether gradients are to go back to them.

    Raises
    ------
    ValueError
        For weights that are reparametrized or wrapped, missing or of a wrong shape, or a subclass with a forward of
        its own.
    TypeError
        For weights of mixed dtypes, or other ones than float32 and float64.
    """
    found = {name: p if linked else p.detach() for name, p in module.named_parameters(remove_duplicate=False)}
    weights = {name: p for name, p in found.items() if KEY.fullmatch(name)}
    if not any({f"weight_hh{end}", f"weight_ih{end}"} <= set(weights) for end in ("", "_l0")):
        raise ValueError(
            f"module has parameters {sorted(found)} and no plain weight_ih_l0, weight_hh_l0: it is reparametrized or "
            "wrapped; remove that first (torch.nn.utils.parametrize.remove_parametrizations, or module._orig_mod)"
        )
    own: Any = type(module)
    base: Any = next((c for c in own.__mro__ if c.__module__ == "torch.nn.modules.rnn"), None)
    ours = own.__module__ == "recsolve.nn.torch_layers"  # whose forward solves the same
    if not (ours or (_is_scripted(module) if base is None else own.forward is base.forward)):
        known = "torch.nn.RNN, GRU or LSTM" if base is None else base.__name__
        raise ValueError(f"module is {own.__name__}, which overrides forward; wanted a plain {known}")
    cell_name(weights)  # checks them
    return weights


def _is_scripted(module: Any) -> bool:
    """Return whether TorchScript says that a module was made from torch's own class, not from one of that name."""
    if not (type(module).__module__ == "torch.jit._script" and hasattr(module, "_c")):
        return False
    names = [part for part in module._c._type().qualified_name().split(".") if "torch_mangle" not in part]
    return names[:-1] == ["__torch__", "torch", "nn", "modules", "rnn"]


def cell_from_weights(cell: Cell, weights: Mapping[str, Any], layer: int, reverse: bool) -> WeightedCell:
    """Return one layer and direction from weights by torch's names, which :func:`cell_name` has checked.

    A projected LSTM shows W_hr m, where m = o tanh(c) is what an LSTM without projection shows, and its gates see
    W_hh W_hr m. So it is an LSTM in m with these mixings, of which W_hr m is read out.

    Raises
    ------
    ValueError
        When the layer or direction is missing.
    """
    layout, suffix = LAYOUTS[cell.name], ends(weights).get((layer, reverse))
    if suffix is None:
        seen = f"layer {layer}{' reverse' if reverse else ''}"
        raise ValueError(f"{seen} is not there; there are {described(ends(weights))}")
    hidden = _split(weights, f"weight_hh{suffix}", layout)
    inputs = _split(weights, f"weight_ih{suffix}", layout)
    xp = namespace(next(iter(hidden.values())))
    biases = {gate: xp.zeros(w.shape[0], dtype=w.dtype) for gate, w in inputs.items()}
    inner = {gate: biases[gate] for gate in layout.inner_biases}
    if f"bias_ih{suffix}" in weights:
        b_hh = _split(weights, f"bias_hh{suffix}", layout)
        biases = _split(weights, f"bias_ih{suffix}", layout)
        inner = {gate: b_hh.pop(gate) for gate in layout.inner_biases}
        biases = {gate: _sum(b, b_hh[gate]) if gate in b_hh else b for gate, b in biases.items()}
    readout = None
    if f"weight_hr{suffix}" in weights:
        given = to_linked(weights[f"weight_hr{suffix}"], f"weight_hr{suffix}")
        readout = follow(given.copy(), [given], lambda tensors: tensors[0])
        hidden = {gate: follow(w @ readout, [w, readout], lambda t: t[0] @ t[1]) for gate, w in hidden.items()}
    # The cell's own order of names, so that a projection lists its drives as the function first uses them.
    made = cell.with_weights(
        mixings={gate: Dense(hidden[gate]) for gate in cell.mixings},
        parameters={layout.inner_biases[gate]: b for gate, b in inner.items()},
        projection=Projection({g: inputs[g] for g in cell.drives}, {g: biases[g] for g in cell.drives}),
    )
    return made if readout is None else ReadCell.of(made, readout)


def _split(weights: Mapping[str, Any], name: str, layout: TorchLayout) -> dict[str, Array]:
    """Cut a stacked weight into its gates."""
    stacked = to_linked(weights[name], name)
    n = stacked.shape[0] // len(layout.gates)

    def cut(place: int) -> Array:  # a copy: a module that goes on training must not change a cell
        rows = slice(place * n, (place + 1) * n)
        return follow(stacked[rows].copy(), [stacked], lambda tensors: tensors[0][rows])

    return {gate: cut(place) for place, gate in enumerate(layout.gates)}


def _sum(a: Array, b: Array) -> Array:
    return follow(a + b, [a, b], lambda tensors: tensors[0] + tensors[1])


def cell_name(weights: Mapping[str, Any], dtypes: Sequence[str] = _FLOAT_NAMES) -> str:
    """Return which cell a state dict is of, from the number of gates, having checked every key.

    Raises
    ------
    ValueError
        When it is of none; for keys that are missing, left over or of a wrong shape. The message names them.
    TypeError
        For dtypes that are mixed, or other ones than ``dtypes``; the message names the keys.
    """
    first = next((f"weight_hh{end}" for end in ("", "_l0", "_l0_reverse") if f"weight_hh{end}" in weights), None)
    if first is None:
        raise ValueError(f"no weight_hh_l0 of a torch RNN, GRU or LSTM; found {sorted(weights) or 'nothing'}")
    shape = tuple(weights[first].shape)
    projected = any(name.startswith("weight_hr") for name in weights)
    gates = shape[0] / shape[1] if len(shape) == 2 and shape[1] else 0
    if projected and len(shape) == 2 and shape[0] % 4 == 0 < shape[1]:
        gates = 4
    if gates not in _CELL_OF_GATES:
        raise ValueError(f"{first} has shape {shape}; wanted (g n, n) with g = 1 (RNN), 3 (GRU) or 4 (LSTM)")
    check_arrays(weights, _shapes(weights, first, int(gates)), first, dtypes)
    return _CELL_OF_GATES[int(gates)]


def check_arrays(
    weights: Mapping[str, Any], wanted: Mapping[str, tuple[int | None, ...]], first: str, dtypes: Sequence[str]
) -> None:
    """Refuse weights unless they have the wanted keys and shapes, and one dtype, of those listed.

    Parameters
    ----------
    weights : mapping
        What has a shape and a dtype, by name.
    wanted : mapping of tuple
        Shapes by name; None is any size.
    first : str
        The key that the shapes follow from.
    dtypes : sequence of str

    Raises
    ------
    ValueError, TypeError
        The message names the keys.
    """
    missing = [name for name in wanted if name not in weights]
    extra = [name for name in weights if name not in wanted]
    if missing or extra:
        seen = [f"{listed(names)} {what}" for names, what in ((missing, "missing"), (extra, "left over")) if names]
        raise ValueError(f"the weights are not those of a whole RNN, GRU or LSTM: {'; '.join(seen)}")
    one = str(weights[first].dtype)
    for name, shape in wanted.items():
        seen_shape, dtype = tuple(weights[name].shape), str(weights[name].dtype)
        if len(seen_shape) != len(shape) or any(n not in (m, None) for m, n in zip(seen_shape, shape, strict=True)):
            text = str(shape).replace("None", "input size")
            of = tuple(weights[first].shape)
            raise ValueError(f"{name} has shape {seen_shape}; wanted {text}, as {first} has shape {of}")
        if dtype.removeprefix("torch.") not in dtypes:
            raise TypeError(f"{name} has dtype {dtype}; wanted {' or '.join(dtypes)} (convert it first)")
        if dtype != one:
            raise TypeError(f"dtypes are mixed: {name} is {dtype}, {first} is {one}; convert them to one")


def _shapes(weights: Mapping[str, Any], first: str, gates: int) -> dict[str, tuple[int | None, ...]]:
    """Return the shape of every key of the smallest module that has all of the recurrent keys; None is any size."""
    keys = [key for name in weights if (key := KEY.fullmatch(name))]
    if first == "weight_hh":
        suffixes = [""]
    else:
        layers = min(max(int(key[4] or 0) for key in keys), len(weights)) + 1  # more have a gap
        directions = [end for end in ("", "_reverse") if any((key[5] or "") == end for key in keys)]
        suffixes = [f"_l{layer}{end}" for layer in range(layers) for end in directions]
    parts = {f"{key[1]}_{key[2]}" for key in keys}
    rows, shown = weights[first].shape
    below = shown * sum(suffix.startswith("_l0") for suffix in suffixes)
    lowest = first.replace("hh", "ih")
    given = tuple(weights[lowest].shape) if lowest in weights else ()
    inputs = given[1] if len(given) == 2 else None
    wanted: dict[str, tuple[int | None, ...]] = {}
    for suffix in suffixes:
        wanted[f"weight_ih{suffix}"] = (rows, inputs if suffix.startswith("_l0") or not suffix else below)
        wanted[f"weight_hh{suffix}"] = (rows, shown)
        if "bias_ih" in parts or "bias_hh" in parts:
            wanted |= {f"bias_ih{suffix}": (rows,), f"bias_hh{suffix}": (rows,)}
        if "weight_hr" in parts:
            wanted[f"weight_hr{suffix}"] = (shown, rows // gates)
    return wanted


def listed(names: Sequence[str]) -> str:
    """Return the first of some names, for a message."""
    rest = len(names) - _LISTED
    return (", ".join(names[:_LISTED]) or "nothing") + (f" and {rest} more" if rest > 0 else "")


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


def ends(weights: Mapping[str, Any]) -> dict[tuple[int, bool], str]:
    """Return how the keys of every layer and direction end, by (layer, reverse), in torch's order.

    >>> ends({"weight_hh_l0": 0, "weight_hh_l0_reverse": 0})
    {(0, False): '_l0', (0, True): '_l0_reverse'}
    """
    found = [(key, key[3] or "") for name in weights if (key := KEY.fullmatch(name)) and key[0].startswith("weight_hh")]
    return dict(sorted(((int(key[4] or 0), bool(key[5])), end) for key, end in found))


def described(places: Iterable[tuple[int, bool]]) -> str:
    """Return layers and directions in words.

    >>> described([(0, False), (0, True)])
    '2 layers and directions (0, 0 reverse)'
    """
    names = [f"{layer} reverse" if reverse else str(layer) for layer, reverse in places]
    return f"{len(names)} layer{'s and directions' * (len(names) > 1)} ({', '.join(names)})"

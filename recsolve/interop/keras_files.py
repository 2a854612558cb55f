"""Reading what Keras has saved: .keras, .weights.h5 and .h5, of Keras 2 and 3, through h5py."""

from __future__ import annotations

import io
import json
import re
import zipfile
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np

from recsolve.base.arrays import Array
from recsolve.interop.keras_config import Layer, layers_of
from recsolve.interop.modules import Module, Weights, made, numbers
from recsolve.interop.stored import Stored

# Keras 3 calls the weights of a cell .../cell/vars/0 and so on, Keras 2 .../lstm_cell_1/kernel:0.
_CELL = re.compile(r"((lstm|gru|simple_rnn)_)?cell(_\d+)?")
_NEW = re.compile(rf"(?P<base>(.*/)?{_CELL.pattern})/vars/(?P<part>\d+)")
_OLD = re.compile(r"(?P<base>.*)/(?P<part>[^/:]+)(:0)?")
_PARTS = {"0": "kernel", "1": "recurrent_kernel", "2": "bias"}
_WAY = re.compile(r"(forward|backward)_.+")
# torch's order of gates as blocks of Keras's: LSTM i f c o, GRU z r h.
_ORDERS = {1: [0], 3: [1, 0, 2], 4: [0, 1, 2, 3]}


def read_keras(path: Path) -> tuple[list[Module], dict[str, Stored]]:
    """Return the recurrent layers of a file as modules, and all of its arrays.

    Raises
    ------
    ValueError
        When the file cannot be read.
    """
    try:
        with _opened(path) as (file, config):
            entries, layers = dict(_entries(file)), layers_of(config)
    except (OSError, ValueError, LookupError, TypeError, AttributeError, RuntimeError, zipfile.BadZipFile) as error:
        raise ValueError(f"{path} is not a readable {path.suffix} file of Keras: {str(error)[:300]}") from error
    cells: dict[str, dict[str, str]] = {}  # by the folder of a cell: the keys of its weights
    for key in entries:
        if match := _NEW.fullmatch(key):
            cells.setdefault(match["base"], {})[_PARTS.get(match["part"], match["part"])] = key
        elif match := _OLD.fullmatch(key):
            cells.setdefault(match["base"], {})[match["part"]] = key
    found: dict[str, dict[str, dict[str, str]]] = {}  # by the name of a layer, and by direction
    for base, parts in cells.items():
        # What has a kernel and no more is a dense layer, but for a cell that has lost something.
        if "recurrent_kernel" in parts or ("kernel" in parts and _CELL.fullmatch(base.split("/")[-1])):
            name, way = _place(base)
            if way in found.get(name, {}):  # a layer of several cells
                name = base
            found.setdefault(name, {})[way] = parts
    modules = [_module(name, ways, layers, entries, config is not None) for name, ways in found.items()]
    order = [layer.name for layer in layers]
    modules.sort(key=lambda module: order.index(module.name) if module.name in order else -1)
    return modules, entries


@contextmanager
def _opened(path: Path) -> Iterator[tuple[Any, Any]]:
    """Open the weights of a file; the model's configuration beside them is None where the file has none."""
    import h5py

    if path.suffix.lower() != ".keras":
        with h5py.File(path, "r") as file:
            text = file.attrs.get("model_config")
            yield file, None if text is None else json.loads(text)
        return
    with zipfile.ZipFile(path) as archive:
        config = json.loads(archive.read("config.json"))
        with h5py.File(io.BytesIO(archive.read("model.weights.h5")), "r") as file:
            yield file, config


def _entries(file: Any) -> Iterator[tuple[str, Stored]]:
    """Yield the arrays of a file; what an optimizer keeps is left out."""
    found: list[tuple[str, Any]] = []
    file.visititems(lambda name, item: found.append((name, item)) if hasattr(item, "dtype") else None)
    for name, item in found:
        if name.startswith(("optimizer/", "optimizer_weights/")):
            continue
        key = name.removeprefix("model_weights/").replace("_layer_checkpoint_dependencies", "layers")
        raw = item[()]
        if item.attrs.get("dtype") == "bfloat16":
            yield key, Stored(item.shape, "bfloat16", np.asarray(raw).view(np.uint16))
        else:
            yield key, Stored(item.shape, item.dtype.name, raw)


def _place(base: str) -> tuple[str, str]:
    """Return the name of the layer whose cell lies at a path, and which way it goes where the path says so."""
    parts = base.split("/")
    if _CELL.fullmatch(parts[-1]) and len(parts) > 1:
        parts.pop()
    way = ""
    if len(parts) > 1 and (match := _WAY.fullmatch(parts[-1])):
        parts.pop()
        way = match[1]
    if len(parts) > 1 and parts[0] == parts[1]:
        parts.pop(0)
    return "/".join(parts), way


def _module(
    name: str, ways: dict[str, dict[str, str]], layers: list[Layer], entries: dict[str, Stored], configured: bool
) -> Module:
    """Return the module of a layer, of which each way has its keys."""
    keys = [key for parts in ways.values() for key in parts.values()]
    new = any(map(_NEW.fullmatch, keys))
    layer = _layer(name, layers, new)
    two = len(ways) > 1 if layer is None else layer.kind == "Bidirectional"
    if len(ways) == 1 and not two:  # whatever its name says, it goes forward
        ways = {"": next(iter(ways.values()))}

    def make() -> tuple[str, Weights, str]:
        if layer is None and configured and not new:
            raise ValueError(f"{name} is no layer of the model's configuration, which would say its activations")
        if set(ways) != ({"forward", "backward"} if two else {""}):
            seen = ", ".join(way or "one without direction" for way in ways)
            raise ValueError(f"{name} has weights of {seen}; wanted {'forward and backward' if two else 'one layer'}")
        weights: Weights = {}
        cells, dtypes = [], []
        for way, parts in ways.items():
            said = {} if layer is None else layer.settings(backward=way == "backward")
            end = "_l0_reverse" if way == "backward" else "_l0"
            cell, arrays, dtype = _converted(said, {part: entries[key] for part, key in parts.items()}, parts)
            weights |= {part + end: x for part, x in arrays.items()}
            cells.append(cell)
            dtypes.append(dtype)
        if len(set(cells)) > 1 or len(set(dtypes)) > 1:
            raise ValueError(f"{name} has directions of different kinds: {cells}, {dtypes}; wanted one")
        return cells[0], weights, dtypes[0]

    return made(name if layer is None else layer.name, keys, make, None if layer is None else layer.after)


def _layer(name: str, layers: list[Layer], new: bool) -> Layer | None:
    """Return what the configuration says of a layer; the names of files are those of Keras 2, or say the order."""
    if new:
        return next((layer for layer in layers if layer.path == name), None)
    parts = reversed(name.split("/"))
    return next((layer for part in parts for layer in layers if layer.name == part), None)


def _converted(
    said: Mapping[str, Any], found: dict[str, Stored], keys: dict[str, str]
) -> tuple[str, dict[str, Array], str]:
    """Return the cell, the weights by torch's names and the dtype of one direction."""
    missing = [part for part in ("kernel", "recurrent_kernel") if part not in keys]
    if missing:
        raise ValueError(f"{missing[0]} missing beside {', '.join(keys.values())}")
    first, shape = keys["recurrent_kernel"], found["recurrent_kernel"].shape
    gates = shape[1] / shape[0] if len(shape) == 2 and shape[0] else 0
    if gates not in _ORDERS or said.get("gates", gates) != gates:
        raise ValueError(f"{first} has shape {shape}; wanted (n, g n), g = 1 (SimpleRNN), 3 (GRU) or 4 (LSTM)")
    units, rows = shape[0], shape[1]
    after = _reset_after(said, found) if gates == 3 else False
    wanted: dict[str, tuple[int | None, ...]] = {keys["kernel"]: (None, rows), first: (units, rows)}
    if "bias" in keys:
        wanted[keys["bias"]] = (2, rows) if after else (rows,)
    arrays, dtype = numbers({keys[part]: x for part, x in found.items()}, wanted, first)
    named = {"weight_ih": arrays[keys["kernel"]].T, "weight_hh": arrays[first].T}
    if "bias" in keys:
        b = arrays[keys["bias"]]
        named |= {"bias_ih": b[0], "bias_hh": b[1]} if after else {"bias_ih": b, "bias_hh": np.zeros_like(b)}
    order = _ORDERS[int(gates)]
    weights = {
        part: np.concatenate([x[gate * units : (gate + 1) * units] for gate in order]) for part, x in named.items()
    }
    cell = {1: said.get("cell", "rnn"), 3: "gru" if after else "cho_gru", 4: "lstm"}[int(gates)]
    return str(cell), weights, dtype


def _reset_after(said: Mapping[str, Any], found: Mapping[str, Stored]) -> bool:
    """Return whether the reset gate of a GRU acts after the matrix: then it has two biases."""
    if "reset_after" in said:
        return bool(said["reset_after"])
    if "bias" not in found:
        raise ValueError(
            "a GRU without bias, and the file does not say reset_after; wanted a file that holds the model's "
            "configuration (model.save('NAME.keras'))"
        )
    return len(found["bias"].shape) == 2

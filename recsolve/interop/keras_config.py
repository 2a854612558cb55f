"""What the configuration of a Keras model says of its recurrent layers."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from typing import Any

_GATES = {"SimpleRNN": 1, "GRU": 3, "LSTM": 4}
_ACTIVATIONS = {"SimpleRNN": ("tanh", "relu"), "GRU": ("tanh",), "LSTM": ("tanh",)}
# Layers that hand on what they get, when a network runs.
_PASSING = ("Dropout", "SpatialDropout1D", "GaussianDropout", "GaussianNoise", "ActivityRegularization")


@dataclass(frozen=True)
class Layer:
    """A layer of a model.

    Attributes
    ----------
    name : str
        What the user calls it; its path where models within each other use a name twice.
    path : str
        Where Keras 3 stores its weights.
    kind : str
        The name of its class.
    config : mapping
    after : str or None
        The layer whose output is its input, if that is recurrent; what only passes it on is left out.
    """

    name: str
    path: str
    kind: str
    config: Mapping[str, Any]
    after: str | None

    def settings(self, *, backward: bool) -> dict[str, Any]:
        """Return what of the equations is to be known: cell, gates, reset_after.

        Raises
        ------
        ValueError
            For another layer, and for settings that the built-in cells have not; the message names them.
        """
        kind, config = self.kind, self.config
        if kind == "Bidirectional":
            if config.get("merge_mode", "concat") != "concat":
                raise ValueError(f"{self.name} has merge_mode {config['merge_mode']!r}; wanted 'concat'")
            own = config.get("backward_layer") if backward else None
            inner = own or config["layer"]
            kind, config = inner["class_name"], inner["config"]
            backward = backward and own is not None  # otherwise it is made from the configuration of the forward one
        if kind == "RNN" and config["cell"]["class_name"].endswith("Cell"):  # RNN(LSTMCell(...)), as LSTM(...)
            kind, config = config["cell"]["class_name"][:-4], {**config, **config["cell"]["config"]}
        if kind not in _GATES:
            raise ValueError(f"{self.name} is a layer {kind}; wanted one of {', '.join(_GATES)}")
        if bool(config.get("go_backwards", False)) != backward:
            raise ValueError(
                f"{self.name} has go_backwards {not backward}; wanted {backward}, and Bidirectional for the other way"
            )
        wanted: dict[str, tuple[str, ...]] = {"activation": _ACTIVATIONS[kind]}
        if kind != "SimpleRNN":
            wanted["recurrent_activation"] = ("sigmoid",)
        for name, known in wanted.items():
            if config.get(name, known[0]) not in known:
                raise ValueError(f"{self.name} has {name} {config[name]!r}; wanted {' or '.join(map(repr, known))}")
        said: dict[str, Any] = {"gates": _GATES[kind]}
        if kind == "SimpleRNN":
            said["cell"] = "elman_relu" if config.get("activation") == "relu" else "elman"
        return {**said, **{name: config[name] for name in ("reset_after",) if name in config}}


def layers_of(model: Any, path: str = "") -> list[Layer]:
    """Return the layers of a model's configuration, those of models within it included.

    Parameters
    ----------
    model : mapping or None
        ``{"class_name": ..., "config": {"layers": [...]}}``.
    path : str
        Where Keras 3 stores the weights of the model.
    """
    found = list(_layers(model, path)) if isinstance(model, Mapping) else []
    uses = Counter(layer.name for layer in found)
    names = {layer.path: layer.name if uses[layer.name] == 1 else layer.path for layer in found}
    return [replace(x, name=names[x.path], after=x.after and names[x.after]) for x in found]


def _layers(model: Mapping[str, Any], path: str) -> Iterator[Layer]:
    config = model.get("config", {})
    entries = config if isinstance(config, list) else config.get("layers", [])  # a list in the oldest files
    used: dict[str, int] = {}
    recurrent: dict[str, str | None] = {}  # the path of the recurrent layer whose output a layer gives, by name
    before = None
    for entry in entries:
        kind, own = entry["class_name"], entry["config"]
        name = own.get("name", entry.get("name", "")) if isinstance(own, Mapping) else ""
        snake = _snake(kind)
        used[snake] = used.get(snake, -1) + 1
        place = f"{path}layers/{snake}" + (f"_{used[snake]}" if used[snake] else "")
        fed = before if model["class_name"] == "Sequential" else _inbound(entry)
        source = recurrent.get(fed) if fed else None
        recurrent[name] = source if kind in _PASSING else place if _is_recurrent(kind, own) else None
        before = name
        yield Layer(name, place, kind, own, source)
        if isinstance(own, Mapping) and "layers" in own:
            yield from _layers(entry, place + "/")


def _is_recurrent(kind: str, config: Any) -> bool:
    return kind in _GATES or (kind == "Bidirectional" and config["layer"]["class_name"] in _GATES)


def _snake(name: str) -> str:
    """Return a name as Keras writes it in its files.

    >>> _snake("SimpleRNN"), _snake("LSTM"), _snake("SpatialDropout1D")
    ('simple_rnn', 'lstm', 'spatial_dropout1d')
    """
    text = re.sub(r"(.)([A-Z][a-z]+)", r"\1_\2", re.sub(r"\W+", "", name))
    return re.sub(r"([a-z])([A-Z])", r"\1_\2", text).lower()


def _inbound(entry: Mapping[str, Any]) -> str | None:
    """Return the one layer whose output a layer of a functional model gets first, None for layers used twice."""
    nodes = entry.get("inbound_nodes", [])
    return next(_histories(nodes), None) if len(nodes) == 1 else None


def _histories(x: Any) -> Iterator[str]:
    """Yield the names of layers in the [name, node, tensor] of both versions of Keras."""
    if isinstance(x, list) and len(x) >= 3 and isinstance(x[0], str) and isinstance(x[1], int):
        yield x[0]
    elif isinstance(x, (list, Mapping)):
        for inner in x.values() if isinstance(x, Mapping) else x:
            yield from _histories(inner)

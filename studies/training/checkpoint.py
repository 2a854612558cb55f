"""Checkpoints that are data alone: weights and the state of the optimiser in safetensors, all else as text.

The numbers of a run at a step depend on nothing but the config, these tensors and the number of the step: streams and
dropout are drawn afresh for every step from ``seed`` and its number. So a run that was stopped goes on bit for bit.
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from recsolve.studies.store.configs import to_toml
from recsolve.studies.store.files import replace_into_place

FORMAT = "recsolve train 1"
_KEPT = ("step", "exp_avg", "exp_avg_sq")  # of Adam, for each parameter


@dataclass(frozen=True)
class Checkpoint:
    """What a file holds.

    Attributes
    ----------
    step : int
        Steps of the optimiser that are done.
    losses : list of float
        Of the steps since the last line of the log.
    config : str
        TOML.
    tensors : mapping
    """

    step: int
    losses: list[float]
    config: str
    tensors: dict[str, Any]


def save(path: Path, network: Any, optimizer: Any, step: int, losses: list[float], config: Any) -> None:
    """Write a checkpoint; the file is whole or as it was before."""
    from safetensors.torch import save_file

    tensors = {f"network.{name}": x.detach().contiguous() for name, x in network.state_dict().items()}
    for name, parameter in network.named_parameters():
        state = optimizer.state.get(parameter, {})
        tensors |= {f"adam.{kept}.{name}": state[kept].detach().contiguous() for kept in _KEPT if kept in state}
    tensors = {name: x.cpu().clone() for name, x in tensors.items()}
    with replace_into_place(path) as part:
        said = {"format": FORMAT, "step": str(step), "losses": json.dumps(losses), "config": to_toml(config)}
        save_file(tensors, part, said)


def read(path: Path) -> Checkpoint:
    """Read a checkpoint.

    Raises
    ------
    ValueError
        For a file that is none: of another format, cut off, or of pickled objects, which are never loaded.
    """
    from safetensors import SafetensorError, safe_open

    wanted = f"wanted a checkpoint of recsolve train ({FORMAT})"
    try:
        with safe_open(path, "pt") as file:
            said = file.metadata() or {}
            if said.get("format") != FORMAT:
                raise ValueError(f"{path} is a safetensors file of {said.get('format', 'another writer')}; {wanted}")
            tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118 - it is no mapping
    except SafetensorError as error:
        raise ValueError(f"{path} is no safetensors file, or is cut off ({error}); {wanted}") from None
    return Checkpoint(int(said["step"]), json.loads(said.get("losses", "[]")), said["config"], tensors)


def restore(checkpoint: Checkpoint, network: Any, optimizer: Any, path: Path) -> None:
    """Put the tensors of a checkpoint into a network and its optimiser.

    Raises
    ------
    ValueError
        When the network is of another architecture; nothing has been changed then.
    """
    weights = {n.removeprefix("network."): x for n, x in checkpoint.tensors.items() if n.startswith("network.")}
    own = {name: tuple(x.shape) for name, x in network.state_dict().items()}
    stored = {name: tuple(x.shape) for name, x in weights.items()}
    if own != stored:
        differing = sorted(name for name in own.keys() | stored.keys() if own.get(name) != stored.get(name))
        first = differing[0]
        raise ValueError(
            f"{path} holds another network: {first} is {stored.get(first, 'not in it')}, wanted "
            f"{own.get(first, 'none')}" + (f"; {len(differing) - 1} more differ" if len(differing) > 1 else "")
        )
    network.load_state_dict(weights)
    for name, parameter in network.named_parameters():
        kept = {k: checkpoint.tensors[f"adam.{k}.{name}"] for k in _KEPT if f"adam.{k}.{name}" in checkpoint.tensors}
        if kept:  # the count of steps stays on the CPU, where Adam has it
            optimizer.state[parameter] = {k: x if k == "step" else x.to(parameter.device) for k, x in kept.items()}

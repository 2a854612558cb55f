"""Reading a torch state dict that was saved as .npz or .safetensors."""

from __future__ import annotations

import os
import zipfile
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from recsolve import torch_weights
from recsolve.arrays import Array

if TYPE_CHECKING:
    from recsolve.weighted_cell import WeightedCell


def load(
    path: str | os.PathLike[str],
    *,
    prefix: str | None = None,
    layer: int | None = None,
    reverse: bool = False,
    nonlinearity: str = "tanh",
) -> WeightedCell:
    """Load one layer and direction of a saved torch RNN, GRU or LSTM.

    Parameters
    ----------
    path : path
        A state dict as .npz (``numpy.savez(path, **{k: v.numpy() for k, v in module.state_dict().items()})``) or
        .safetensors (``safetensors.torch.save_file(module.state_dict(), path)``).
    prefix : str, optional
        What stands before ``weight_ih_l0`` when the file holds a larger model, for instance ``"encoder.gru."``.
        Found by itself when there is only one.
    layer : int, optional
        Which layer; needed when there are several. :meth:`recsolve.Layers.load` takes them all.
    reverse : bool
        The reverse direction of a bidirectional module.
    nonlinearity : {"tanh", "relu"}
        Of an RNN, whose files do not say it.

    Returns
    -------
    WeightedCell
        An Elman, GRU or LSTM cell in the dtype of the file.

    Raises
    ------
    FileNotFoundError
        When there is no such file.
    ValueError
        For another format, a corrupt file, or one without recurrent weights.

    Examples
    --------
    >>> import recsolve as rs
    >>> cell = rs.load("gru.safetensors")  # doctest: +SKIP
    """
    from recsolve import cells

    weights = read_state_dict(path, prefix)
    name = _named(path, weights, nonlinearity)
    found = torch_weights.directions(weights)
    if layer is None and len(found) > 1 and not reverse:
        raise ValueError(
            f"{path} holds {len(found)} layers and directions {found}; pass layer= (and reverse=), or use "
            "recsolve.Layers.load for all of them"
        )
    return torch_weights.cell_from_weights(cells.get(name), weights, layer or 0, reverse)


def _named(path: str | os.PathLike[str], weights: dict[str, Array], nonlinearity: str) -> str:
    try:
        return torch_weights.cell_name(weights, nonlinearity)
    except ValueError as error:
        raise ValueError(f"{path}: {error}") from None


def read_state_dict(path: str | os.PathLike[str], prefix: str | None = None) -> dict[str, Array]:
    """Return the arrays of one recurrent module in a file, by torch's names without the prefix."""
    arrays = _read(Path(path))
    if prefix is None:
        ends = sorted({name[: -len("weight_hh_l0")] for name in arrays if name.endswith("weight_hh_l0")})
        if len(ends) > 1:
            raise ValueError(f"{path} holds several recurrent modules; pass prefix= as one of {ends}")
        prefix = ends[0] if ends else ""
    return {name[len(prefix) :]: x for name, x in arrays.items() if name.startswith(prefix)}


def _read(path: Path) -> dict[str, Array]:
    if not path.is_file():
        raise FileNotFoundError(f"no weights file {path}")
    if path.suffix == ".npz":
        return _read_npz(path)
    if path.suffix == ".safetensors":
        return _read_safetensors(path)
    raise ValueError(f"{path} ends in {path.suffix!r}; wanted a state dict as .npz or .safetensors")


def _read_npz(path: Path) -> dict[str, Array]:
    try:
        with np.load(path, allow_pickle=False) as archive:
            return {name: archive[name] for name in archive.files}
    except (ValueError, OSError, EOFError, zipfile.BadZipFile, AttributeError) as error:
        raise ValueError(f"{path} is not a readable .npz file: {error}") from error


def _read_safetensors(path: Path) -> dict[str, Array]:
    from safetensors import SafetensorError, safe_open

    try:
        with safe_open(path, framework="numpy") as archive:
            return {name: archive.get_tensor(name) for name in archive.keys()}  # noqa: SIM118 - not a mapping
    except (SafetensorError, OSError) as error:
        raise ValueError(f"{path} is not a readable .safetensors file: {error}") from error
    except (TypeError, AttributeError, KeyError) as error:
        raise ValueError(f"{path} holds a dtype that NumPy lacks ({error}); save it as float32 or float64") from error

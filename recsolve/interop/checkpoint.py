"""Reading a torch state dict that was saved as .npz or .safetensors."""

from __future__ import annotations

import os
import zipfile
import zlib
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from recsolve.base.arrays import Array
from recsolve.recurrence import torch_weights

if TYPE_CHECKING:
    from recsolve.recurrence.weighted_cell import WeightedCell


# Errors that NumPy and zipfile raise for files that are no archives of arrays, or are damaged ones.
_DAMAGED = (ValueError, OSError, EOFError, AttributeError, NotImplementedError, zipfile.BadZipFile, zlib.error)


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
        Found by itself when there is only one. Keys that do not begin with it belong to other modules and are left
        alone; every key that does is used or refused.
    layer : int, optional
        Which layer; needed when there are several layers, or two directions and not ``reverse``.
        :meth:`recsolve.Layers.load` takes them all.
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
        For another format, a corrupt file, or one without recurrent weights; for keys that are missing, left over or of
        a wrong shape, and for weights that are NaN or inf. The message names the key.
    TypeError
        For weights of mixed dtypes, or other ones than float32 and float64.

    Examples
    --------
    >>> import os, tempfile, numpy as np, recsolve as rs
    >>> path = os.path.join(tempfile.mkdtemp(), "gru.npz")
    >>> np.savez(path, weight_ih_l0=np.ones((24, 3)), weight_hh_l0=np.ones((24, 8)))
    >>> rs.load(path)
    WeightedCell(gru, 8 units, mixings {'r': 'dense', 'z': 'dense', 'n': 'dense'}, float64)
    """
    from recsolve import cells

    name, weights = read_state_dict(path, prefix, nonlinearity)
    found = torch_weights.directions(weights)
    if layer is None and (found[-1][0] > 0 or (len(found) > 1 and not reverse)):
        raise ValueError(
            f"{path} holds {len(found)} layers and directions {found}; pass layer= (and reverse=), or use "
            "recsolve.Layers.load for all of them"
        )
    return torch_weights.cell_from_weights(cells.get(name), weights, layer or 0, reverse)


def read_state_dict(
    path: str | os.PathLike[str], prefix: str | None = None, nonlinearity: str = "tanh"
) -> tuple[str, dict[str, Array]]:
    """Return the cell's name and the weights of one recurrent module in a file, by torch's names without the prefix.

    Parameters
    ----------
    path, prefix, nonlinearity
        As in :func:`load`.

    Returns
    -------
    name : str
        A name in ``recsolve.cells``.
    weights : dict of array
        float32 or float64.

    Raises
    ------
    FileNotFoundError, ValueError, TypeError
        As :func:`load`; the message names the file and the key.
    """
    if not isinstance(path, (str, os.PathLike)):
        raise TypeError(f"path is {type(path).__name__}; wanted the name of a file, .npz or .safetensors")
    arrays = _read(Path(path))
    if prefix is None:
        prefix = _prefix(path, arrays)
    weights = {name[len(prefix) :]: x for name, x in arrays.items() if name.startswith(prefix)}
    try:
        name = torch_weights.cell_name(weights, nonlinearity)
        torch_weights.check_finite(weights)
    except (ValueError, TypeError) as error:
        raise type(error)(f"{path}: {error}") from None
    return name, weights


def _prefix(path: str | os.PathLike[str], arrays: dict[str, Array]) -> str:
    """Return the prefix that all recurrent weights of a file share."""
    owners: dict[str, str] = {}
    for name in sorted(arrays):
        if key := torch_weights.KEY.search(name):
            owners.setdefault(name[: key.start()], name)
    if len(owners) > 1:
        raise ValueError(
            f"{path} holds several recurrent modules; pass prefix= as one of {list(owners)} (there are "
            f"{', '.join(owners.values())})"
        )
    return next(iter(owners), "")


def _read(path: Path) -> dict[str, Array]:
    if not path.is_file():
        raise FileNotFoundError(f"no weights file {path}")
    if path.suffix == ".npz":
        return _read_npz(path)
    if path.suffix == ".safetensors":
        return _read_safetensors(path)
    raise ValueError(f"{path} ends in {path.suffix!r}; wanted a state dict as .npz or .safetensors")


def _read_npz(path: Path) -> dict[str, Array]:
    name = ""
    try:
        with np.load(path, allow_pickle=False) as archive:
            arrays = {}
            for name in archive.files:
                arrays[name] = archive[name]
            return arrays
    except _DAMAGED as error:
        raise ValueError(f"{path} is not a readable .npz file: {name + ': ' if name else ''}{error}") from error


def _read_safetensors(path: Path) -> dict[str, Array]:
    from safetensors import SafetensorError, safe_open

    name = ""
    try:
        with safe_open(path, framework="numpy") as archive:
            arrays = {}
            for name in archive.keys():  # noqa: SIM118 - not a mapping
                arrays[name] = archive.get_tensor(name)
            return arrays
    except (SafetensorError, OSError) as error:
        raise ValueError(f"{path} is not a readable .safetensors file: {error}") from error
    except (TypeError, AttributeError, KeyError) as error:
        raise ValueError(
            f"{path}: {name} has a dtype that NumPy lacks ({error}); save it as float32 or float64"
        ) from error

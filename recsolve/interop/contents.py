"""What a file of weights holds: its recurrent modules, and what else."""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from recsolve.interop.archives import metadata_of, read_npz, read_safetensors
from recsolve.interop.keras_files import read_keras
from recsolve.interop.modules import Module, of_state_dict, stacked
from recsolve.interop.onnx_files import read_onnx
from recsolve.interop.stored import Stored, patterns_of, selected
from recsolve.interop.torch_files import read_torch
from recsolve.recurrence.torch_weights import listed

_STATE_DICTS = {
    ".npz": read_npz,
    ".safetensors": read_safetensors,
    **dict.fromkeys((".pt", ".pth", ".ckpt", ".bin", ".jit"), read_torch),
}
_MODELS = {".onnx": read_onnx, **dict.fromkeys((".keras", ".h5", ".hdf5"), read_keras)}
KINDS = (*_STATE_DICTS, *_MODELS)


@dataclass(frozen=True)
class Contents:
    """What a file holds of the keys that are asked for.

    Attributes
    ----------
    path : Path
    modules : list of Module
        Every recurrent one, with those that cannot be used, which have a fault.
    unused : dict of Stored
        What belongs to none of them, by its key.
    """

    path: Path
    modules: list[Module]
    unused: dict[str, Stored]

    def record(self) -> dict[str, Any]:
        """Return what a listing shows, as plain JSON values."""
        unused = {key: {"shape": list(x.shape), "dtype": x.dtype} for key, x in self.unused.items()}
        return {"file": str(self.path), "modules": [module.summary() for module in self.modules], "unused": unused}

    def one(self) -> Module:
        """Return the only module.

        Raises
        ------
        ValueError
            Where there is none, or several; the message names them.
        ValueError, TypeError
            The fault of the module.
        """
        if len(self.modules) > 1:
            each = ", ".join(f"'{self._pattern(module)}' ({module.keys[0]})" for module in self.modules)
            raise ValueError(f"{self.path} holds several recurrent modules; choose one by keys= (--keys): {each}")
        if not self.modules:
            raise ValueError(
                f"{self.path} holds no recurrent layer of a known form (RNN, GRU, LSTM) with these keys; found "
                f"{listed([f'{key} {x}' for key, x in self.unused.items()])}"
            )
        (module,) = self.modules
        if (fault := module.fault) is not None:
            where = "" if module.name in str(fault) else f"{module.name}: "
            raise type(fault)(f"{self.path}: {where}{fault}")
        return module

    def _pattern(self, module: Module) -> str:
        """Return the pattern of keys that selects a module and no other one."""
        name = module.name
        if [other for other in self.modules if selected([other.name, *other.keys], [name or "*"])] == [module]:
            return name or "*"
        before = name and (name[:-1] if name.endswith("*") else module.keys[0][: len(name) + 1])
        return ",".join(f"{before}{part}_*" for part in ("weight", "bias"))


def read_contents(path: str | os.PathLike[str], keys: str | Sequence[str] | None = None) -> Contents:
    """Return what a file holds.

    Parameters
    ----------
    path : path
    keys : str or sequence of str, optional
        Patterns of the keys to look at, as in :func:`recsolve.load`.

    Raises
    ------
    FileNotFoundError, ImportError, ValueError, TypeError
        As :func:`recsolve.load`, but for what is wrong with a module, which is its fault.
    """
    if not isinstance(path, (str, os.PathLike)):
        raise TypeError(f"path is {type(path).__name__}; wanted the name of a file, {', '.join(KINDS)}")
    path, patterns = Path(path), patterns_of(keys)
    if not path.is_file():
        raise FileNotFoundError(f"no weights file {path}")
    kind = path.suffix.lower()
    if kind in KINDS and not path.stat().st_size:  # which is a readable file of ONNX
        raise ValueError(f"{path} is empty; wanted weights")
    if metadata_of(path) is not None:
        raise ValueError(f"{path} was written by recsolve.save; wanted weights of a network (recsolve.load reads it)")
    if kind in _STATE_DICTS:
        held = _STATE_DICTS[kind](path)
        names = list(held)
        entries = {k: x for k, x in held.items() if selected([k], patterns)}
        modules = of_state_dict(entries)
    elif kind in _MODELS:
        found, entries = _MODELS[kind](path)
        names = [*(module.name for module in found), *entries]
        modules = stacked(module for module in found if selected([module.name, *module.keys], patterns))
        entries = {k: x for k, x in entries.items() if selected([k], patterns)}
    else:
        raise ValueError(f"{path} ends in {path.suffix!r}; wanted weights as one of {', '.join(KINDS)}")
    if names and not modules and not entries:
        raise ValueError(f"{path} has no key that matches {', '.join(map(repr, patterns))}; found {listed(names)}")
    used = {key for module in modules for key in module.keys}
    return Contents(path, modules, {key: x for key, x in entries.items() if key not in used})

"""Reading .npz and .safetensors: arrays by their keys."""

from __future__ import annotations

import json
import os
import zipfile
import zlib
from pathlib import Path
from typing import Any

import numpy as np

from recsolve.interop.stored import Stored

# Errors that NumPy and zipfile raise for files that are no archives of arrays, or are damaged ones.
_DAMAGED = (ValueError, OSError, EOFError, AttributeError, NotImplementedError, zipfile.BadZipFile, zlib.error)
FORMAT = "recsolve"  # in the metadata of what recsolve.save writes
# What safetensors calls dtypes, and what NumPy reads their numbers as.
_SAFE = {"F64": ("float64", "<f8"), "F32": ("float32", "<f4"), "F16": ("float16", "<f2"), "BF16": ("bfloat16", "<u2")}


def read_npz(path: Path) -> dict[str, Stored]:
    """Return the arrays of a .npz file.

    Raises
    ------
    ValueError
        When it cannot be read; the message names the file, and the key where it is damaged.
    """
    name = ""
    try:
        with np.load(path, allow_pickle=False) as archive:
            arrays = {}
            for name in archive.files:
                arrays[name] = Stored.of(archive[name])
            return arrays
    except _DAMAGED as error:
        raise ValueError(f"{path} is not a readable .npz file: {name + ': ' if name else ''}{error}") from error


def read_safetensors(path: Path) -> dict[str, Stored]:
    """Return the arrays of a .safetensors file: views of the file, so that what is not used is not read.

    Raises
    ------
    ValueError
        When it cannot be read; the message names the file.
    """
    from safetensors import SafetensorError, safe_open

    try:
        with safe_open(path, framework="numpy"):  # it checks that what the header says fits the file
            pass
    except (SafetensorError, OSError) as error:
        raise ValueError(f"{path} is not a readable .safetensors file: {error}") from error
    with open(path, "rb") as file:
        size = int.from_bytes(file.read(8), "little")
        header = json.loads(file.read(size))
    header.pop("__metadata__", None)
    data = np.memmap(path, np.uint8, mode="r", offset=8 + size) if path.stat().st_size > 8 + size else np.empty(0, "u1")
    found = {}
    for name, entry in sorted(header.items()):
        shape, (begin, end) = tuple(entry["shape"]), entry["data_offsets"]
        dtype, read_as = _SAFE.get(entry["dtype"], (entry["dtype"], "|u1"))
        numbers = data[begin:end].view(read_as)
        found[name] = Stored(shape, dtype, numbers.reshape(shape) if entry["dtype"] in _SAFE else None)
    return found


def metadata_of(path: Any) -> dict[str, str] | None:
    """Return the metadata of a file that ``recsolve.save`` has written, None of any other one, readable or not."""
    from safetensors import SafetensorError, safe_open

    if not isinstance(path, (str, os.PathLike)) or Path(path).suffix.lower() != ".safetensors":
        return None
    try:
        with safe_open(path, framework="numpy") as file:
            said: dict[str, str] = file.metadata() or {}
    except (SafetensorError, OSError):
        return None
    return said if said.get("format") == FORMAT else None

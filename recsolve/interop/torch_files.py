"""Reading what torch.save and torch.jit.save have written: tensors by their keys, and never code."""

from __future__ import annotations

import argparse
import pickle
import re
import warnings
import zipfile
from collections.abc import Iterator, Mapping
from importlib import import_module
from pathlib import Path
from typing import Any

import numpy as np

from recsolve.interop.stored import Stored

_FORBIDDEN = re.compile(r"GLOBAL (\S+) was not an allowed global|unsupported (?:global|class) (\S+)", re.IGNORECASE)


def read_torch(path: Path) -> dict[str, Stored]:
    """Return the tensors of a checkpoint; those of dicts within dicts under keys joined by dots.

    Raises
    ------
    ImportError
        Without torch; the message names the extra.
    ValueError
        When the file cannot be read, or pickles objects, which may run any code. The message says what to do.
    """
    try:
        import torch
    except ImportError as error:
        raise ImportError(_WITHOUT_TORCH.format(path=path, safe=path.with_suffix(".safetensors").name)) from error
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # torch deprecates TorchScript and old formats
            if _is_script(path):
                content = torch.jit.load(str(path), map_location="cpu").state_dict()
            else:
                content = _unpickled(path)
    except pickle.UnpicklingError as error:
        if found := _FORBIDDEN.search(str(error)):
            raise ValueError(
                _PICKLED.format(path=path, safe=path.with_suffix(".safetensors").name, name=found[1] or found[2])
            ) from None
        raise ValueError(f"{path} is not a readable file of torch: {_first_line(error)}") from None
    except (RuntimeError, EOFError, OSError, ValueError, TypeError, KeyError, AttributeError) as error:
        raise ValueError(f"{path} is not a readable file of torch: {_first_line(error)}") from None
    return {name: _stored(x) for name, x in _leaves(content, "")}


_WITHOUT_TORCH = (
    "reading {path} needs torch: pip install 'recsolve[torch]'; or, where torch is installed, "
    "safetensors.torch.save_file(torch.load({path.name!r}), {safe!r}) makes a file that is read without it"
)
_PICKLED = (
    "{path} pickles objects ({name}), and reading those may run any code. Who trusts the file converts it: of what "
    "torch.load({path.name!r}, weights_only=False) returns, recsolve.Layers.from_torch takes a module, and "
    "safetensors.torch.save_file(module.state_dict(), {safe!r}) makes a file of its weights"
)


def _unpickled(path: Path) -> Any:
    """Return what torch.save has pickled, if it is tensors, numbers (also NumPy's) and plain collections of them."""
    import torch

    try:
        return torch.load(path, map_location="cpu", weights_only=True)
    except pickle.UnpicklingError:
        if not hasattr(torch.serialization, "safe_globals"):
            raise
    # What training scripts keep beside the weights: losses as numbers of NumPy, and the arguments of the command line.
    numpy = import_module("numpy._core.multiarray")
    safe: list[Any] = [argparse.Namespace, np.ndarray, np.dtype, *{type(np.dtype(code)) for code in "?bhilqBHILQefd"}]
    for core in ("core", "_core"):
        safe += [(getattr(numpy, name), f"numpy.{core}.multiarray.{name}") for name in ("scalar", "_reconstruct")]
    with torch.serialization.safe_globals(safe):
        return torch.load(path, map_location="cpu", weights_only=True)


def _first_line(error: Exception) -> str:
    return (str(error).strip() or type(error).__name__).splitlines()[0][:300]


def _is_script(path: Path) -> bool:
    """Return whether a file is an archive of TorchScript."""
    if not zipfile.is_zipfile(path):
        return False
    with zipfile.ZipFile(path) as archive:
        return any(name.endswith("/constants.pkl") for name in archive.namelist())


def _leaves(content: Any, key: str) -> Iterator[tuple[str, Any]]:
    """Yield what a nested content holds, by keys joined by dots."""
    inner: Any = None
    if isinstance(content, Mapping):
        inner = content.items()
    elif isinstance(content, (list, tuple)):
        inner = enumerate(content)
    if inner is None:
        yield key, content
        return
    for name, value in inner:
        yield from _leaves(value, f"{key}.{name}" if key else str(name))


def _stored(x: Any) -> Stored:
    import torch

    if not isinstance(x, torch.Tensor):
        return Stored((), type(x).__name__, None)
    dtype = str(x.dtype).removeprefix("torch.")
    if x.layout != torch.strided or x.is_quantized:
        return Stored(tuple(x.shape), f"{dtype}, {'quantized' if x.is_quantized else x.layout}", None)
    x = x.detach()
    if x.dtype == torch.bfloat16:
        return Stored(tuple(x.shape), dtype, x.view(torch.int16).numpy().view(np.uint16))
    try:
        return Stored(tuple(x.shape), dtype, x.numpy())
    except TypeError:  # a dtype that NumPy lacks
        return Stored(tuple(x.shape), dtype, None)

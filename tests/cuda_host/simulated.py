"""A GPU of the host's: arrays that count as CuPy's, a module in CuPy's place, and kernels built by g++.

With it public calls run from end to end as they do on a device: the engines that a solve binds, the driver, kernels,
verdicts. What NumPy allows and CuPy does not is refused where that is simple: conversion to a NumPy array.
"""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from importlib.machinery import ModuleSpec
from types import ModuleType, SimpleNamespace
from typing import Any

import numpy as np
import pytest

from cuda_host import Host
from recsolve.kernels import backends
from recsolve.kernels.gpu import device


class _Device:
    """The one device, which is always the current one."""

    id = 0

    def __enter__(self) -> None: ...

    def __exit__(self, *_: object) -> None: ...


class DeviceArray(np.ndarray):
    """NumPy's memory as a CuPy array."""

    __module__ = "cupy"
    device = _Device()

    @property
    def data(self) -> Any:
        return SimpleNamespace(ptr=self.ctypes.data, memset_async=lambda value, size: np.ndarray.fill(self, value))

    def __getitem__(self, key: Any) -> Any:
        return on_device(super().__getitem__(key))

    def get(self) -> np.ndarray:
        return np.array(self.view(np.ndarray))

    def __array_ufunc__(self, ufunc: Any, method: str, *inputs: Any, out: Any = None, **kwargs: Any) -> Any:
        """Refuse to mix arrays of the host and the device, as CuPy does."""
        for x in inputs:
            if hasattr(type(x), "__array_ufunc__") and not isinstance(x, (np.ndarray, np.generic)):
                return NotImplemented  # a dual, whose turn it is
            if type(x) is np.ndarray and x.ndim:
                raise TypeError(f"Unsupported type {type(x)}")
        if out is not None:
            kwargs["out"] = _plain(out)
        found = getattr(ufunc, method)(*_plain(inputs), **{name: _plain(x) for name, x in kwargs.items()})
        return on_device(found) if out is None else out[0]

    def __array_function__(self, function: Any, types: Any, args: Any, kwargs: Any) -> Any:
        if any(hasattr(t, "__array_function__") and not issubclass(t, np.ndarray) for t in types):
            return NotImplemented
        return on_device(function(*_plain(args), **{name: _plain(x) for name, x in kwargs.items()}))


def _plain(x: Any) -> Any:
    if isinstance(x, (tuple, list)):
        return type(x)(map(_plain, x))
    return x.view(np.ndarray) if isinstance(x, DeviceArray) else x


def on_device(x: Any) -> Any:
    """Return arrays as those of the device; CuPy has arrays where NumPy has scalars."""
    if isinstance(x, tuple):
        return tuple(map(on_device, x))
    return np.asarray(x).view(DeviceArray) if isinstance(x, (np.ndarray, np.generic)) else x


class _Machine(Host):
    kind = "cupy"

    def product(self, weights: Any, x: Any, out: Any, *, add: bool, rough: bool) -> None:
        super().product(*map(_plain, (weights, x, out)), add=add, rough=rough)


def _module(machine: Host) -> ModuleType:
    cupy = ModuleType("cupy")
    cupy.__spec__ = ModuleSpec("cupy", None)

    def function(name: str) -> Any:
        found = getattr(np, name)
        if not callable(found) or isinstance(found, type):
            return found

        def call(*args: Any, **kwargs: Any) -> Any:
            return on_device(found(*_plain(args), **{name: _plain(x) for name, x in kwargs.items()}))

        if isinstance(found, np.ufunc):
            call.at = lambda *args: found.at(*_plain(args))  # type: ignore[attr-defined]
        return call

    def copyto(target: Any, source: Any, where: Any = True) -> None:
        np.copyto(target.view(np.ndarray), source, where=where)

    cupy.__getattr__ = function  # type: ignore[method-assign]
    cupy.ndarray, cupy.copyto = DeviceArray, copyto  # type: ignore[attr-defined]
    stream = SimpleNamespace(ptr=0, synchronize=lambda: None)
    cupy.cuda = SimpleNamespace(  # type: ignore[attr-defined]
        get_current_stream=lambda: stream, runtime=SimpleNamespace(deviceSynchronize=lambda: None, getDevice=lambda: 0)
    )
    return cupy


@contextmanager
def gpu(workers: int = 2, processors: int = 4) -> Iterator[Callable[[Any], Any]]:
    """Yield what puts an array on the device of the host."""
    machine = _Machine(workers=workers, processors=processors)
    backends._installed.cache_clear()
    with pytest.MonkeyPatch.context() as patch:  # of one module: others that are imported meanwhile stay
        patch.setitem(sys.modules, "cupy", _module(machine))
        patch.setitem(device._DEVICES, 0, machine)
        yield lambda x: np.array(x).view(DeviceArray)
    backends._installed.cache_clear()

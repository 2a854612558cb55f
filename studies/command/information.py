"""The abilities of this installation: backends, devices, packages."""

from __future__ import annotations

from importlib.util import find_spec
from typing import Any

from recsolve import kernels
from recsolve.studies.store.provenance import machine, versions


def information() -> dict[str, Any]:
    """Return versions, machine, kernels by operation, and which optional array libraries are usable."""
    return {
        "versions": versions(),
        "machine": machine(),
        "kernels": kernels.registered(),
        "arrays": {"numpy": "yes", "torch": _torch(), "cupy": _cupy()},
    }


def _torch() -> str:
    if find_spec("torch") is None:
        return "not installed: pip install 'recsolve[torch]'"
    return "yes"


def has_gpu() -> bool:
    """Return whether CuPy is installed and sees a device."""
    if find_spec("cupy") is None:
        return False
    import cupy

    return bool(cupy.cuda.is_available())


def _cupy() -> str:
    if find_spec("cupy") is None:
        return "not installed: pip install 'recsolve[cuda13]' (or [cuda12])"
    import cupy

    if not has_gpu():
        return "installed, but no CUDA device is usable"
    name = cupy.cuda.runtime.getDeviceProperties(0)["name"].decode()
    return f"yes, on {name}"

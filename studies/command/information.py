"""The abilities of this installation: packages, and what a solve here would use."""

from __future__ import annotations

import os
from ctypes import CDLL, byref, c_int, create_string_buffer
from importlib.util import find_spec
from typing import Any

from recsolve import cells, kernels
from recsolve.base.arrays import Array
from recsolve.studies.store.provenance import machine, versions

_SMALL, _LARGE = 64, 16_384  # steps of two solves that show from which size on loops are compiled


def information() -> dict[str, Any]:
    """Return versions, machine, kernels by operation, optional array libraries, and what a solve would use here."""
    gpu = graphics()
    return {
        "versions": versions(),
        "machine": machine(),
        "kernels": kernels.registered(),
        "arrays": {"numpy": "yes", "torch": _torch(), "cupy": _cupy(gpu)},
        "solves": solves(usable=gpu["usable"]),
        "cache": cache(),
        "gpu": gpu,
    }


def solves(usable: bool) -> dict[str, Any]:
    """Return the backend and the threads of a solve that begins now.

    Parameters
    ----------
    usable : bool
        Whether CuPy sees a GPU.
    """
    from recsolve.kernels.backends import VARIABLE, asked
    from recsolve.kernels.cpu.threads import threads

    found = {
        "set_by": f"{VARIABLE}={os.environ[VARIABLE]}" if VARIABLE in os.environ else "default", "threads": threads(),
        "backend": None, "fault": None, "small": None, "large": None, "gpu": None,
    }  # fmt: skip
    try:
        backend = asked()
        found |= {"backend": backend, "small": _loops(_SMALL), "large": _loops(_LARGE)}
    except (ValueError, ImportError) as error:  # as every solve would raise
        return {**found, "fault": str(error)}
    return found | {"gpu": ("cuda" if backend in ("auto", "cuda") else "cupy") if usable else None}


def _loops(steps: int) -> str:
    """Return what walks a GRU of 64 units: ``"numba"`` for compiled loops, else ``"numpy"``."""
    import numpy as np

    cell = cells.GRU.random(input_size=1, hidden_size=64, mixing="diagonal", rng=0)
    drive: Array = np.zeros((steps, 1, 1))
    return "numba" if cell.recurrence(drive).compiled else "numpy"


def cache() -> dict[str, Any]:
    """Return where compiled code lies, how much there is, and whether more can be kept there."""
    from recsolve.kernels.cpu.jit.disk import VARIABLE, cache_directory
    from recsolve.studies.command.shared import check_output

    try:
        folder = cache_directory()
        sizes = [path.stat().st_size for path in folder.glob("*") if path.is_file()]
        found: dict[str, Any] = {"folder": str(folder), "files": len(sizes), "bytes": sum(sizes), "fault": None}
    except OSError as error:
        return {"folder": None, "files": 0, "bytes": 0, "fault": str(error)}
    try:
        check_output(folder)
    except (OSError, ValueError) as error:
        found["fault"] = str(error).replace("--out", VARIABLE)
    return found


def graphics() -> dict[str, Any]:
    """Return the GPUs that the driver knows, and whether CuPy is installed and can use them."""
    fault, usable = None, False
    if (installed := find_spec("cupy") is not None) and not (usable := has_gpu()):
        fault = _why_unusable()
    return {"devices": _devices(), "cupy": installed, "usable": usable, "fault": fault}


def _devices() -> list[str]:
    """Return the names of the GPUs, asked of NVIDIA's driver, which is there without CuPy."""
    try:
        driver = CDLL("nvcuda.dll" if os.name == "nt" else "libcuda.so.1")
    except OSError:
        return []
    count, name = c_int(), create_string_buffer(256)
    if driver.cuInit(0) or driver.cuDeviceGetCount(byref(count)):
        return []
    names = []
    for number in range(count.value):
        device = c_int()
        known = not driver.cuDeviceGet(byref(device), number) and not driver.cuDeviceGetName(name, len(name), device)
        names.append(name.value.decode() if known else f"GPU {number}")
    return names


def _torch() -> str:
    if find_spec("torch") is None:
        return "not installed: pip install 'recsolve[torch]'"
    return "yes"


def has_gpu() -> bool:
    """Return whether CuPy is installed and sees a device."""
    if find_spec("cupy") is None:
        return False
    try:
        import cupy

        return bool(cupy.cuda.is_available())
    except ImportError:  # a wheel for another release of CUDA
        return False


def _why_unusable() -> str:
    """Return why CuPy, which is installed, sees no GPU."""
    try:
        import cupy

        cupy.cuda.runtime.getDeviceCount()
    except Exception as error:  # of CuPy's own kinds, or an ImportError
        return str(error).splitlines()[0]
    return "no CUDA device"


def _cupy(gpu: dict[str, Any]) -> str:
    there = ", ".join(gpu["devices"])
    if not gpu["cupy"]:
        missing = "not installed: pip install 'recsolve[cuda13]' (or [cuda12])"
        return f"{missing}, to use {there}" if there else missing
    if not gpu["usable"]:
        return f"installed, but no CUDA device is usable ({gpu['fault']})"
    return f"yes, on {there or 'a GPU'}"

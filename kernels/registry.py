"""Kernels by operation and backend.

An operation has one signature for all its backends. A backend is a folder, whose modules register what they have.
NumPy's is the reference: it runs on any namespace that follows NumPy (so on CuPy arrays too), and every faster one is
tested against it.
"""

from __future__ import annotations

from collections.abc import Callable
from importlib import import_module
from typing import Any, TypeVar

Kernel = TypeVar("Kernel", bound=Callable[..., Any])

# The module that registers the kernels of each backend, imported when one of them is needed.
_MODULES = {
    "numpy": "recsolve.kernels.reference.scan_numpy",
    "numba": "recsolve.kernels.cpu.scan.scan_numba",
    "cuda": "recsolve.kernels.gpu.scan.scan_cuda",
}
_REGISTRY: dict[tuple[str, str], Callable[..., Any]] = {}


def register(operation: str, backend: str) -> Callable[[Kernel], Kernel]:
    """Return a decorator that registers a function as the kernel of ``operation`` on ``backend``.

    Parameters
    ----------
    operation : str
        For instance ``"scan"``; all its kernels have one signature.
    backend : {"numpy", "numba", "cuda"}
    """

    def decorate(kernel: Kernel) -> Kernel:
        _REGISTRY[operation, backend] = kernel
        return kernel

    return decorate


def get(operation: str, backend: str = "numpy") -> Callable[..., Any]:
    """Return the kernel of an operation on a backend.

    Parameters
    ----------
    operation : str
    backend : {"numpy", "numba", "cuda"}

    Returns
    -------
    callable

    Raises
    ------
    ValueError
        When none is registered; the message lists those that are.
    ImportError
        When the backend needs a package that is not installed.

    Examples
    --------
    >>> from recsolve.kernels.registry import get
    >>> get("scan", "numpy").__name__
    'scan'
    """
    if backend in _MODULES and (operation, backend) not in _REGISTRY:
        import_module(_MODULES[backend])
    try:
        return _REGISTRY[operation, backend]
    except KeyError:
        there = [f"{operation} on {', '.join(backends)}" for operation, backends in registered().items()]
        raise ValueError(f"no kernel {operation!r} on backend {backend!r}; there are {'; '.join(there)}") from None


def registered() -> dict[str, list[str]]:
    """Return the backends of each operation; this imports the modules of all backends.

    Examples
    --------
    >>> from recsolve.kernels.registry import registered
    >>> registered()["scan"]
    ['cuda', 'numba', 'numpy']
    """
    for module in _MODULES.values():
        import_module(module)
    table: dict[str, list[str]] = {}
    for operation, backend in sorted(_REGISTRY):
        table.setdefault(operation, []).append(backend)
    return table

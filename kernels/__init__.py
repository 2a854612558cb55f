"""Scan kernels by operation and backend.

An operation has one signature for all its backends. The NumPy backend is the reference: it runs on any namespace that
follows NumPy (so on CuPy arrays too) and is what every faster sibling is tested against.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, TypeVar

Kernel = TypeVar("Kernel", bound=Callable[..., Any])

_REGISTRY: dict[tuple[str, str], Callable[..., Any]] = {}


def register(operation: str, backend: str) -> Callable[[Kernel], Kernel]:
    """Register the decorated function as the kernel of ``operation`` on ``backend``."""

    def decorate(kernel: Kernel) -> Kernel:
        _REGISTRY[operation, backend] = kernel
        return kernel

    return decorate


def get(operation: str, backend: str = "numpy") -> Callable[..., Any]:
    """Return the kernel of an operation on a backend.

    Raises
    ------
    ValueError
        When there is none; the message lists what there is.
    """
    try:
        return _REGISTRY[operation, backend]
    except KeyError:
        raise ValueError(f"no kernel {operation!r} on backend {backend!r}; there are {sorted(_REGISTRY)}") from None


def registered() -> dict[str, list[str]]:
    """Return the backends of each operation."""
    table: dict[str, list[str]] = {}
    for operation, backend in sorted(_REGISTRY):
        table.setdefault(operation, []).append(backend)
    return table


from recsolve.kernels.cpu.scan import scan_numba  # noqa: E402 - they register themselves
from recsolve.kernels.gpu.scan import scan_cuda  # noqa: E402 - they register themselves
from recsolve.kernels.reference import scan_numpy  # noqa: E402 - they register themselves

__all__ = ["get", "register", "registered", "scan_cuda", "scan_numba", "scan_numpy"]

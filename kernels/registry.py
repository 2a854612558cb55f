"""Kernels by operation and backend.

An operation has one signature for all its backends. A backend is a folder, whose modules register what they have.
NumPy's scan and ``summary``, what all steps of a range do to the state before them, are the reference: they run on any
namespace that follows NumPy (so on CuPy arrays too), and every faster one is tested against them. The other operations
make what is compiled of a traced cell, whose reference is its function:

- ``fused``: f, its derivative, walk, solve and adjoint of a cell whose mixings are all diagonal;
- ``stages``, ``products``, ``walk``: the elementwise stages of other cells for all times at once, the matrix products
  between them, and their walk through time;
- ``sweeps``: quasi-Newton as a whole.
"""

from __future__ import annotations

from collections.abc import Callable
from importlib import import_module
from typing import Any, Protocol, TypeVar

from recsolve.symbolic.graph import Leaf, Node
from recsolve.symbolic.program import Program

Kernel = TypeVar("Kernel", bound=Callable[..., Any])

# The modules that register the kernels of each backend, imported when one of them is needed.
_MODULES = {
    "numpy": ("reference.scan_numpy", "summary"),
    "numba": (
        "cpu.scan.scan_numba",
        "cpu.scan.summary_numba",
        "cpu.cell.fused_loops",
        "cpu.cell.stage_loops",
        "cpu.cell.mixing",
    ),
    "cuda": (
        "gpu.scan.scan_cuda",
        "gpu.scan.summary_cuda",
        "gpu.cell.fused_solve",
        "gpu.cell.stage_launches",
        "gpu.cell.products",
        "gpu.cell.mixing_walk",
        "gpu.cell.sweeps",
    ),
}
_REGISTRY: dict[tuple[str, str], Callable[..., Any]] = {}


class TracedCell(Protocol):
    """What the operations on cells take: a program, and the way back of its cotangents past the mixings."""

    program: Program

    @property
    def back(self) -> dict[Leaf, Node]:
        """The cotangents of all leaves."""


def _import(backend: str) -> None:
    for module in _MODULES.get(backend, ()):
        import_module(f"recsolve.kernels.{module}")


def register(operation: str, backend: str) -> Callable[[Kernel], Kernel]:
    """Return a decorator that registers a function as the kernel of ``operation`` on ``backend``.

    Parameters
    ----------
    operation : str
        All its kernels have one signature: ``scan(monoid, elements, *, initial, reset)``, or ``(traced, dtype)``.
    backend : {"numpy", "numba", "cuda"}

    Examples
    --------
    >>> from recsolve.kernels.registry import get, register, _REGISTRY
    >>> @register("halving", "numpy")
    ... def halve(x):
    ...     return x / 2
    >>> get("halving")(3.0)
    1.5
    >>> del _REGISTRY["halving", "numpy"]
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
        _import(backend)
    try:
        return _REGISTRY[operation, backend]
    except KeyError:
        there = [f"{operation} on {', '.join(backends)}" for operation, backends in registered().items()]
        raise ValueError(f"no kernel {operation!r} on backend {backend!r}; there are {'; '.join(there)}") from None


def has(operation: str, backend: str) -> bool:
    """Return whether a backend has a kernel of an operation."""
    if (operation, backend) not in _REGISTRY:
        _import(backend)
    return (operation, backend) in _REGISTRY


def registered() -> dict[str, list[str]]:
    """Return the backends of each operation; this imports the modules of all backends.

    Examples
    --------
    >>> from recsolve.kernels.registry import registered
    >>> registered()["scan"]
    ['cuda', 'numba', 'numpy']
    """
    for backend in _MODULES:
        _import(backend)
    table: dict[str, list[str]] = {}
    for operation, backend in sorted(_REGISTRY):
        table.setdefault(operation, []).append(backend)
    return table

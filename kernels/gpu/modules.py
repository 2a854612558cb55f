"""Kernels of a device, compiled as they are asked for."""

from __future__ import annotations

from collections.abc import Callable, Hashable
from threading import Lock
from typing import Any

from recsolve.kernels.compile_clock import compiling


class Kernels:
    """Compiled kernels by key: each is compiled once, and seen when it is ready, however many threads ask for it."""

    def __init__(self) -> None:
        self._ready: dict[Hashable, Any] = {}
        self._lock = Lock()

    def get(self, key: Hashable, make: Callable[[], Any]) -> Any:
        """Return the kernel of a key, which ``make`` compiles the first time."""
        if key not in self._ready:
            with compiling(), self._lock:
                if key not in self._ready:
                    self._ready[key] = make()
        return self._ready[key]


def compile_kernel(code: str, expression: str, options: tuple[str, ...], shared: int = 0) -> Any:
    """Return a kernel by its C++ name, for blocks of up to ``shared`` bytes of shared memory where that is not 0."""
    import cupy

    kernel = cupy.RawModule(code=code, options=options, name_expressions=(expression,)).get_function(expression)
    if shared:
        kernel.max_dynamic_shared_size_bytes = shared
        kernel.preferred_shared_memory_carveout = 100
    return kernel

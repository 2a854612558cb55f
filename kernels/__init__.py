"""Kernels for scans and compiled cells, by backend."""

from recsolve.kernels.registry import get, register, registered

__all__ = ["get", "register", "registered"]


def __dir__() -> list[str]:
    return sorted(__all__)

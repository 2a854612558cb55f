"""Scans and compiled cells: what runs them, and on which backend."""

from recsolve.kernels.registry import get, register, registered

__all__ = ["get", "register", "registered"]

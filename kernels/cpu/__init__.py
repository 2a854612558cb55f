"""The Numba backend: loops compiled for the processor."""

"""From the program of a cell to source text, for Numba and for CUDA."""

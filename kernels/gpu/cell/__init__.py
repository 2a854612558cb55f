"""CUDA solves, evaluations, sweeps and adjoints made from the function of a cell."""

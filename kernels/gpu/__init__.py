"""The CUDA backend: kernels of :mod:`recsolve.kernels` in ``kernels/cuda``, compiled when they are asked for."""

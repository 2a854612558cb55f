"""How loops are compiled, cached and kept fast: decorators, aliasing, prefetching, elementary functions."""

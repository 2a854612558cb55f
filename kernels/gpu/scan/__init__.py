"""CUDA scans: operands, variants of the templates, and which of them is launched."""

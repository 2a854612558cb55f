"""Weights and modules of others: torch modules, checkpoints, stacked layers."""

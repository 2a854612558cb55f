"""Weights from elsewhere: torch modules, checkpoints, stacked layers."""

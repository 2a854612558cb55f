"""Walks, evaluations, Newton solves and adjoints compiled from the function of a cell."""

"""Recurrences to solve: the gallery, recordings, flows."""

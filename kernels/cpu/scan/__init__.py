"""Compiled scans, a file for how the work is laid out and one for the loops."""

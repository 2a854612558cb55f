"""Benchmarks: what is timed, and the tables of times."""

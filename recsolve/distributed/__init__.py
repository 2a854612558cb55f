"""Time over more than one device holds: arrays on disk, window by window."""

from recsolve.distributed.stored import StoredSolution, scan_stored, solve_stored

__all__ = ["StoredSolution", "scan_stored", "solve_stored"]


def __dir__() -> list[str]:
    return sorted(__all__)

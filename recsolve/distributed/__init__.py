"""Time over many devices, or over more than one holds.

:func:`shard` gives every rank of a process group of ``torch.distributed`` its steps of an array; recurrences, scans,
solves, gradients and layers then work on the whole, on all ranks together. docs/scale.md says when it pays, how to
launch it and what fails how. :func:`solve_stored` and :func:`scan_stored` go through arrays on disk, window by window.
"""

from recsolve.base.shard import Shard, Timeline
from recsolve.distributed import adjoint as _adjoint  # noqa: F401
from recsolve.distributed import scan as _scan  # noqa: F401  # so that recsolve.scan takes shards
from recsolve.distributed import solve as _solve  # noqa: F401
from recsolve.distributed.adjoint import ShardedGradients
from recsolve.distributed.gathering import RankError
from recsolve.distributed.shard import alone, from_local, gather, shard, spans
from recsolve.distributed.solution import ShardedSolution
from recsolve.distributed.stored import StoredSolution, scan_stored, solve_stored

__all__ = [
    "RankError", "Shard", "ShardedGradients", "ShardedSolution", "StoredSolution", "Timeline", "alone", "from_local",
    "gather", "scan_stored", "shard", "solve_stored", "spans",
]  # fmt: skip


def __dir__() -> list[str]:
    return sorted(__all__)

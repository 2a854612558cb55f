"""Time over many devices: the ranks of a process group of ``torch.distributed`` share the time axis.

:func:`shard` gives every rank its steps of an array; recurrences, scans, solves, gradients and layers then work on the
whole, on all ranks together. docs/scale.md says when it pays, how to launch it and what fails how.
"""

from recsolve.base.shard import Shard, Timeline
from recsolve.distributed import adjoint as _adjoint  # noqa: F401
from recsolve.distributed import scan as _scan  # noqa: F401  # so that recsolve.scan takes shards
from recsolve.distributed import solve as _solve  # noqa: F401
from recsolve.distributed.adjoint import ShardedGradients
from recsolve.distributed.ranks import RankError
from recsolve.distributed.shard import from_local, gather, shard, spans
from recsolve.distributed.solution import ShardedSolution

__all__ = [
    "RankError",
    "Shard",
    "ShardedGradients",
    "ShardedSolution",
    "Timeline",
    "from_local",
    "gather",
    "shard",
    "spans",
]

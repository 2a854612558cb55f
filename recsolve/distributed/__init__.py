"""Time shared by many devices, or gone through from disk to disk.

Ranks are processes, one to a device, that ``torchrun`` starts and ``torch.distributed.init_process_group`` joins. Each
holds consecutive steps of an array, a :class:`Shard`; recurrences, scans, solves, gradients and layers of such arrays
are those of the whole, computed by all ranks together, which all make the same calls::

    torch.distributed.init_process_group("gloo")  # "nccl" on GPUs
    x = rs.distributed.shard(recording)  # or from_local(own_steps)
    sol = rs.solve(cell.recurrence(x))  # a ShardedSolution
    g = rs.adjoint(sol, output=cotangent)  # of a shard; ShardedGradients
    sol.output.local  # the own steps
    whole = rs.distributed.gather(sol.output)

:func:`alone` tries that out on one process, and where a rank fails the others raise :class:`RankError`. docs/scale.md
says when it pays, how to launch it and what fails how; docs/tutorials/many_gpus.md trains models.

:func:`solve_stored` and :func:`scan_stored` need no ranks: they go through arrays on disk that are larger than memory,
window by window (docs/tutorials/memory.md).
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

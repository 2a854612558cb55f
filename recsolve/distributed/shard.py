"""Cutting arrays along time into the parts that ranks hold, and putting them together again."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import numpy as np

from recsolve.base.arrays import UserArray, from_native, kind_of, namespace, to_native
from recsolve.base.links import requires_grad
from recsolve.base.shard import Shard, Timeline, timeline_of
from recsolve.distributed.ranks import ranks_of
from recsolve.kernels.monoids.monoid import COMPLEX, STORED
from recsolve.solvers.settings import whole_number

_ANY: tuple[np.dtype[Any], ...] = (*STORED, *COMPLEX, *map(np.dtype, "?bhilqBHILQ"))


@contextmanager
def alone(timeout: float = 600.0) -> Iterator[None]:
    """Make this process a group of one rank, to try out what ``torchrun`` starts on many.

    Parameters
    ----------
    timeout : float
        Seconds for which ranks wait for each other.

    Raises
    ------
    RuntimeError
        Where a process group is initialised already.

    Examples
    --------
    >>> import numpy as np, recsolve as rs
    >>> with rs.distributed.alone():
    ...     rs.scan("addition", (rs.distributed.shard(np.arange(4.0)),)).local
    array([0., 1., 3., 6.])
    """
    import torch.distributed as dist

    if dist.is_initialized():
        raise RuntimeError("a process group is initialised; wanted none, for alone() makes one of this process")
    dist.init_process_group("gloo", store=dist.HashStore(), rank=0, world_size=1)
    try:
        ranks_of(None, timeout)
        yield
    finally:
        dist.destroy_process_group()


def spans(length: int, ranks: int) -> tuple[int, ...]:
    """Return how many steps each rank gets by default: equally many, and the first ones one more where they must.

    Parameters
    ----------
    length : int
        T.
    ranks : int

    Returns
    -------
    tuple of int

    Raises
    ------
    ValueError
        For fewer than 0 steps, or no rank.

    Examples
    --------
    >>> from recsolve.distributed import spans
    >>> spans(10, 4), spans(2, 3)
    ((3, 3, 2, 2), (1, 1, 0))
    """
    whole_number("length", length, 0)
    whole_number("ranks", ranks, 1)
    each, more = divmod(length, ranks)
    return tuple(each + (rank < more) for rank in range(ranks))


def shard(
    x: Any, group: Any = None, *, lengths: Sequence[int] | None = None, timeout: float | None = None
) -> Shard[Any]:
    """Return the steps of an array that this rank holds.

    No message is sent: every rank has the same array, or reads its part of it.

    Parameters
    ----------
    x : array, shape (T, ...)
        NumPy, CuPy or torch, time first; a view of it is returned. Or any array on disk that is sliced along time
        (``numpy.load(path, mmap_mode="r")``, zarr, h5py), of which only the own steps are read.
    group : ProcessGroup or DeviceMesh of one axis, optional
        Of ``torch.distributed``; default: that of all processes. It is NCCL's for arrays on GPUs, gloo's for others.
    lengths : sequence of int, optional
        How many steps each rank holds, T together; default: :func:`spans`.
    timeout : float, optional
        Seconds for which a rank waits for the others, in all calls of the group; 600 at first.

    Returns
    -------
    Shard

    Raises
    ------
    RuntimeError
        Where no process group is initialised.
    TypeError
        For what is no array, and for what is no process group.
    ValueError
        For lengths that are not one per rank, or not T together, and for a group without this process.

    Examples
    --------
    One process is a group of one rank; ``torchrun`` starts more of them.

    >>> import numpy as np, recsolve as rs
    >>> x = np.random.default_rng(0).standard_normal((1000, 3))
    >>> cell = rs.cells.GRU.random(input_size=3, hidden_size=8, rng=0)
    >>> with rs.distributed.alone():
    ...     sol = rs.solve(cell.recurrence(rs.distributed.shard(x)))
    >>> sol.success, sol.output.shape, sol.output.local.shape
    (True, (1000, 8), (1000, 8))
    """
    ranks = ranks_of(group, timeout)
    with ranks.by_itself("recsolve.distributed.shard"):
        total = _steps_of(x, "x")
        axis = Timeline(ranks, spans(total, ranks.size) if lengths is None else _checked(lengths, ranks.size, total))
        part = x[axis.start : axis.stop]
        known = kind_of(part) != "numpy" or isinstance(part, np.ndarray)
        return Shard(part if known else np.asarray(part), axis)


def _steps_of(x: Any, name: str) -> int:
    """Return how many steps an array has."""
    if isinstance(x, Shard):
        raise TypeError(f"{name} is {x!r}; wanted an array, and it is a Shard already")
    if not hasattr(x, "shape"):
        raise TypeError(
            f"{name} is {type(x).__name__}; wanted an array with time first: numpy.asarray(...) of a list, "
            'numpy.load(path, mmap_mode="r") of a file'
        )
    if not x.shape:
        raise ValueError(f"{name} has shape (); wanted (T, ...), an array with time first")
    return int(x.shape[0])


def _checked(lengths: Any, size: int, total: int) -> tuple[int, ...]:
    """Return how many steps each rank holds."""
    held = tuple(lengths) if isinstance(lengths, Iterable) else ()
    whole = all(isinstance(n, (int, np.integer)) and n >= 0 for n in held)
    if len(held) != size or not whole or sum(held) != total:
        raise ValueError(f"lengths is {lengths}; wanted {size} integers >= 0, one per rank, of the sum T = {total}")
    return tuple(map(int, held))


def from_local(local: Any, group: Any = None, *, timeout: float | None = None) -> Shard[Any]:
    """Return what this rank holds as its part of an array; one message tells all ranks how many steps each holds.

    Parameters
    ----------
    local : array, shape (own steps, ...)
        The ranks' parts follow each other in the order of ranks; a rank may hold none, of shape (0, ...).
    group : ProcessGroup or DeviceMesh of one axis, optional
    timeout : float, optional
        As of :func:`shard`.

    Returns
    -------
    Shard

    Raises
    ------
    RuntimeError
        Where no process group is initialised.
    TypeError, ValueError
        As of :func:`shard`.
    RankError
        Where a rank does not come, or has an array of other axes or another dtype.

    Examples
    --------
    >>> import numpy as np, recsolve as rs
    >>> with rs.distributed.alone():
    ...     rs.distributed.from_local(np.zeros((5, 2)))
    Shard(numpy array of shape (5, 2) and dtype float64: steps 0 to 4, rank 0 of 1)
    """
    ranks = ranks_of(group, timeout)
    shape = tuple(getattr(local, "shape", ()))
    with ranks.together(f"recsolve.distributed.from_local of {getattr(local, 'dtype', None)} {('steps', *shape[1:])}"):
        lengths = ranks.exchange([_steps_of(local, "local")]).numbers()[:, 0]
    return Shard(local, Timeline(ranks, tuple(map(int, lengths))))


def gather(x: Shard[UserArray]) -> UserArray:
    """Return the whole array on every rank.

    Parameters
    ----------
    x : Shard

    Returns
    -------
    array, shape (T, ...)
        Of the kind of the local array.

    Raises
    ------
    TypeError
        For what is no shard, and for tensors that require grad: gradients do not go back through it. Compute the loss
        of ``x.local`` on every rank, or pass a detached one.
    RankError
        Where a rank does not come.

    Examples
    --------
    >>> import numpy as np, recsolve as rs
    >>> with rs.distributed.alone():
    ...     rs.distributed.gather(rs.distributed.shard(np.arange(3)))
    array([0, 1, 2])
    """
    if not isinstance(x, Shard):
        raise TypeError(f"x is {type(x).__name__}; wanted a Shard")
    axis = x.timeline
    with axis.together("recsolve.distributed.gather"):
        timeline_of({"x": x})
        if requires_grad(x.local):
            raise TypeError(
                "x requires grad, and gradients do not go back through gather; compute the loss of x.local on every "
                "rank"
            )
        native = to_native(x.local, "x", _ANY)
        xp = namespace(native)
        padded = xp.zeros((max(axis.lengths), *native.shape[1:]), native.dtype)
        padded[: len(native)] = native
        (rows,) = axis.ranks.exchange((), [padded]).arrays
        axis.ranks.closed()
        found = [own[:n] for own, n in zip(rows, axis.lengths, strict=True)]
        return from_native(xp.concatenate(axis.in_order(found)), kind_of(x.local))  # type: ignore[no-any-return]

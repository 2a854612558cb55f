"""What the user gives to a recurrence besides f and its drive: initial states and resets, checked and broadcast."""

from __future__ import annotations

from typing import Any

import numpy as np

from recsolve.base.arguments import as_mask
from recsolve.base.arrays import Array, Kind, kind_of, namespace
from recsolve.base.links import follow, to_linked


def check_reset(reset: Any, length: int, batch: tuple[int, ...], xp: Any) -> Array | None:
    """Return resets as a mask (T, *batch) of their own; TypeError and ValueError name ``reset``."""
    if reset is None:
        return None
    reset = reset.numpy() if kind_of(reset) == "torch" and not reset.is_cuda else reset
    mask = as_mask(xp.asarray(reset), "reset")
    if mask.shape == (length,) and batch:
        mask = mask.reshape((length,) + (1,) * len(batch))
    try:
        if mask.ndim != 1 + len(batch):
            raise ValueError
        return xp.array(xp.broadcast_to(mask, (length, *batch)))  # type: ignore[no-any-return]
    except ValueError:
        raise ValueError(f"reset has shape {tuple(mask.shape)}; wanted (T, *batch) = {(length, *batch)}") from None


def packed_resets(lengths: Any) -> Array:
    """Return the reset mask of sequences packed one after the other.

    Parameters
    ----------
    lengths : sequence of int
        Length of each packed sequence; T is their sum, and one of length 0 has no steps.

    Returns
    -------
    array of bool, shape (T,)
        True at the first step of each sequence.

    Raises
    ------
    ValueError
        When a length is negative or not an integer.

    Examples
    --------
    >>> import recsolve as rs
    >>> rs.packed_resets([2, 3]).astype(int)
    array([1, 0, 1, 0, 0])
    """
    sizes = np.asarray(lengths)
    if sizes.ndim != 1 or (sizes.size and (sizes.dtype.kind not in "iu" or (sizes < 0).any())):
        raise ValueError(f"lengths is {lengths!r}; wanted a list of integers that are not negative")
    sizes = sizes[sizes > 0].astype(np.int64)
    mask = np.zeros(int(sizes.sum()), dtype=bool)
    mask[np.cumsum(sizes) - sizes] = True
    return mask


def check_initial(initial: Any, shape: tuple[int, ...], like: Array, kind: Kind) -> Array:
    """Return h[0] as a native array (*batch, *event), broadcast where it lacks batch axes.

    Raises
    ------
    TypeError, ValueError
        When kind, dtype or shape do not fit; the message names ``initial``.
    """
    xp = namespace(like)
    if initial is None:
        return xp.zeros(shape, dtype=like.dtype)  # type: ignore[no-any-return]
    if not np.isscalar(initial) and kind_of(initial) != kind:
        raise TypeError(f"initial is {kind_of(initial)} and the drive is {kind}; convert them to one kind first")
    native = xp.asarray(initial, dtype=like.dtype) if np.isscalar(initial) else to_linked(initial, "initial")
    if native.dtype != like.dtype:
        raise TypeError(f"initial has dtype {native.dtype}; wanted {like.dtype}, as the drive")
    try:
        full: Array = xp.broadcast_to(native.copy(), shape)
    except ValueError:
        raise ValueError(f"initial has shape {tuple(native.shape)}; wanted (*batch, *event) = {shape}") from None
    return follow(full, [native], lambda tensors: tensors[0].expand(shape))

"""How sequences lie in the tensors that a layer is given: padded, packed, or documents one after the other."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch

from recsolve.base.arrays import Array, from_native, to_host, to_native
from recsolve.interop.order import Order
from recsolve.recurrence.given import packed_resets


class Sequences:
    """The order in which a direction reads steps (T, B, ...), as :class:`recsolve.interop.order.Order`, on tensors.

    Parameters
    ----------
    x : tensor, shape (T, B, D)
    lengths, reset
        As of ``Order``; the mask of resets is (T, B).
    """

    def __init__(self, x: Any, lengths: Any = None, reset: Any = None):
        self._padded, self._order = lengths is not None, None
        if lengths is None and reset is None:
            return
        like = x.new_empty((*x.shape[:2], 0), dtype=torch.float32)
        self._order = Order(to_native(like, "x"), lengths, reset)
        if self._padded:
            self._there = _mask(self._order.there)
            self._back, self._lengths = (from_native(x, "torch") for x in (self._order.back, self._order.lengths))

    def read(self, x: Any, reverse: bool) -> Any:
        """Return steps (T, B, ...) in the order of a direction; what reads an input also puts outputs back."""
        if not self._padded:
            return x.flip(0) if reverse else x
        taken = torch.take_along_dim(x, _over(self._back, x), dim=0) if reverse else x
        return torch.where(_over(self._there, x), taken, 0)

    def resets(self, reverse: bool) -> Any:
        """Return where a direction starts again, (T, B), in its own order, or None for nowhere."""
        found = None if self._order is None else self._order.resets(reverse)
        return None if found is None else _mask(found)

    def last(self, states: Any, initial: Any, reverse: bool) -> Any:
        """Return the state (sequences, ...) after the last step of each, the initial one where there is none."""
        if not len(states):
            return initial
        if not self._padded:
            return states[-1]
        index = _over((self._lengths - 1).clamp(min=0)[None], states)
        ended = torch.take_along_dim(states, index, dim=0)[0]
        return torch.where(_over(self._lengths > 0, initial), ended, initial)


class Documents(Sequences):
    """Sequences one after the other along time, without padding, each from zeros.

    Parameters
    ----------
    x : tensor, shape (total, 1, D)
    offsets : array of int, shape (sequences + 1,)
        Where each begins, and the end of the last.
    """

    def __init__(self, x: Any, offsets: Array):
        lengths = np.diff(offsets)
        super().__init__(x, reset=packed_resets(lengths))
        ends = offsets[1:] - 1, offsets[-1] - 1 - offsets[:-1]  # forwards, and in a sequence that is turned round
        self._empty = torch.as_tensor(lengths == 0, device=x.device)
        self._ends = [torch.as_tensor(np.maximum(at, 0), device=x.device) for at in ends]

    def last(self, states: Any, initial: Any, reverse: bool) -> Any:
        if not len(states):
            return initial.expand(len(self._empty), *initial.shape[1:])
        ended = states[self._ends[reverse], 0]
        return torch.where(_over(self._empty, ended), initial, ended)


def _mask(x: Array) -> Any:
    """Return a native mask as a tensor; not every library hands on bools."""
    return from_native(x.view(np.uint8), "torch").view(torch.bool)


def _over(x: Any, like: Any) -> Any:
    """Return ``x`` with an axis of size 1 for each that only ``like`` has."""
    return x.reshape(*x.shape, *(1,) * (like.ndim - x.ndim))


def check_offsets(cu_seqlens: Any, total: int) -> Array:
    """Return cumulative lengths as integers on the host.

    Raises
    ------
    TypeError, ValueError
        When dtype, shape or values do not fit; the message names ``cu_seqlens``.

    Examples
    --------
    >>> from recsolve.nn.sequences import check_offsets
    >>> check_offsets([0, 3, 2], total=2)
    Traceback (most recent call last):
    ...
    ValueError: cu_seqlens is [0, 3, 2]; wanted (sequences + 1,) from 0 to the number of steps 2, never falling
    """
    given = cu_seqlens.detach().cpu() if isinstance(cu_seqlens, torch.Tensor) else cu_seqlens
    found = np.asarray(to_host(given))
    if found.size and found.dtype.kind not in "iu":
        raise TypeError(f"cu_seqlens has dtype {found.dtype}; wanted integers")
    fits = found.ndim == 1 and found.size and found[0] == 0 and found[-1] == total
    if not fits or (np.diff(found.astype(np.int64)) < 0).any():
        raise ValueError(
            f"cu_seqlens is {found.tolist()}; wanted (sequences + 1,) from 0 to the number of steps {total}, never "
            "falling"
        )
    return found.astype(np.int64)

"""How sequences lie in the tensors that a layer is given: padded, packed, or documents one after the other."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch

from recsolve.base.arguments import as_mask
from recsolve.base.arrays import Array, to_host
from recsolve.base.shard import Timeline
from recsolve.interop.order import check_lengths


class Sequences:
    """The order in which a direction reads steps: :class:`recsolve.interop.order.Order`, in operations of torch.

    Parameters
    ----------
    x : tensor, shape (T, B, D)
    lengths : sequence of int, optional
        (B,): how many leading steps of each sequence are there. Default: all.
    reset : array of bool, optional
        (T, B) or (T,): the steps at which another sequence begins, in the order of x.

    Raises
    ------
    TypeError, ValueError
        When dtype, shape or values do not fit; the message names ``lengths`` or ``reset``. ``torch.compile`` looks at
        no values.
    """

    def __init__(self, x: Any, lengths: Any = None, reset: Any = None):
        length, count = x.shape[:2]
        self._lengths, self._reset = lengths, reset
        if reset is not None:
            self._reset = self._mask(reset, length, count).to(x.device).expand(length, count)
        if lengths is not None:
            given = lengths if torch.compiler.is_compiling() else check_lengths(lengths, length, (count,))
            self._lengths = torch.as_tensor(given, dtype=torch.int64, device=x.device)
            steps = torch.arange(length, device=x.device)[:, None]
            self._there = steps < self._lengths
            self._back = torch.where(self._there, self._lengths - 1 - steps, steps)

    @staticmethod
    def _mask(reset: Any, length: int, count: int) -> Any:
        """Return resets as a tensor (T, 1) or (T, B)."""
        if not torch.compiler.is_compiling():
            if not isinstance(reset, torch.Tensor) or reset.dtype is not torch.bool:
                reset = torch.as_tensor(as_mask(_on_host(reset), "reset"))
            if tuple(reset.shape) not in ((length,), (length, count), (length, 1)):
                raise ValueError(f"reset has shape {tuple(reset.shape)}; wanted (T, B) = {(length, count)} or (T,)")
        return reset if reset.ndim == 2 else reset[:, None]

    def read(self, x: Any, reverse: bool) -> Any:
        """Return steps (T, B, ...) in the order of a direction; what reads an input also puts outputs back."""
        if self._lengths is None:
            return x.flip(0) if reverse else x
        taken = torch.take_along_dim(x, _over(self._back, x), dim=0) if reverse else x
        return torch.where(_over(self._there, x), taken, 0)

    def resets(self, reverse: bool) -> Any:
        """Return where a direction starts again, (T, B), in its own order, or None for nowhere."""
        reset = self.breaks(reverse)
        if self._lengths is None:
            return reset
        return ~self._there if reset is None else reset | ~self._there  # steps that are not there lead to nothing

    def breaks(self, reverse: bool) -> Any:
        """Return those of :meth:`resets` that are no padding."""
        reset = self._reset
        if reset is None or not reverse:
            return reset
        after = torch.cat([reset[1:], torch.zeros_like(reset[:1])])  # the last step of a sequence comes before a reset
        return after.flip(0) if self._lengths is None else after.take_along_dim(self._back, 0)

    def axis(self, reverse: bool) -> Timeline | None:
        """Return the time axis in the order of a direction where ranks share it, else None."""
        return None

    def last(self, states: Any, initial: Any, reverse: bool) -> Any:
        """Return the state (sequences, ...) after the last step of each, the initial one where there is none."""
        if not len(states):
            return initial
        if self._lengths is None:
            return states[-1]
        index = _over((self._lengths - 1).clamp(min=0)[None], states)
        ended = torch.take_along_dim(states, index, dim=0)[0]
        return torch.where(_over(self._lengths > 0, initial), ended, initial)


class Documents(Sequences):
    """Sequences one after the other along time, without padding, each from zeros.

    Parameters
    ----------
    x : tensor, shape (total, 1, D)
    offsets : tensor of int, shape (sequences + 1,)
        Where each begins, and the end of the last.
    """

    def __init__(self, x: Any, offsets: Any):
        total, begins = len(x), offsets[:-1]
        reset = torch.zeros(total + 1, dtype=torch.bool, device=x.device).index_fill(0, begins, True)[:total]
        super().__init__(x, reset=reset)
        self._empty = offsets[1:] == begins
        last = offsets[1:] - 1, total - 1 - begins  # forwards, and in a sequence that is turned round
        self._ends = [index.clamp(min=0) for index in last]

    def last(self, states: Any, initial: Any, reverse: bool) -> Any:
        if not len(states):
            return initial.expand(len(self._empty), *initial.shape[1:])
        ended = states[self._ends[reverse], 0]
        return torch.where(_over(self._empty, ended), initial, ended)


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
    found = _on_host(cu_seqlens)
    if found.size and found.dtype.kind not in "iu":
        raise TypeError(f"cu_seqlens has dtype {found.dtype}; wanted integers")
    fits = found.ndim == 1 and found.size and found[0] == 0 and found[-1] == total
    if not fits or (np.diff(found.astype(np.int64)) < 0).any():
        raise ValueError(
            f"cu_seqlens is {found.tolist()}; wanted (sequences + 1,) from 0 to the number of steps {total}, never "
            "falling"
        )
    return found.astype(np.int64)


def _on_host(x: Any) -> Array:
    return np.asarray(x.detach().cpu() if isinstance(x, torch.Tensor) else to_host(x))

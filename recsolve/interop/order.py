"""The order in which a direction takes the steps of padded sequences of several lengths, and of packed ones."""

from __future__ import annotations

from typing import Any

import numpy as np

from recsolve.base.arrays import Array, kind_of, namespace, to_host
from recsolve.recurrence.given import check_reset


class Order:
    """How each direction reads sequences (T, *batch, ...), and where it starts again.

    Reading a permutation of the steps that are there, which is its own inverse, and zeros elsewhere, is symmetric: what
    reads an input also puts outputs back, and takes tangents and cotangents of both through.

    Parameters
    ----------
    x : array, shape (T, *batch, D)
        The padded input, native.
    lengths : sequence of int, optional
        (*batch): how many leading steps of each sequence are there. Default: all.
    reset : array of bool, optional
        (T, *batch) or (T,): the steps at which another sequence begins, in the order of x.

    Raises
    ------
    TypeError, ValueError
        When dtype, shape or values do not fit; the message names ``lengths`` or ``reset``.

    Examples
    --------
    >>> import numpy as np
    >>> from recsolve.interop.order import Order
    >>> x = np.arange(1.0, 9.0).reshape(4, 2, 1)
    >>> Order(x, lengths=[4, 2]).read(x, reverse=True)[..., 0].T
    array([[7., 5., 3., 1.],
           [4., 2., 0., 0.]])
    """

    def __init__(self, x: Array, lengths: Any = None, reset: Any = None):
        xp, self.shape = namespace(x), x.shape[:-1]
        self._reset = check_reset(reset, self.shape[0], self.shape[1:], xp)
        self.padded = lengths is not None
        if self.padded:
            self._lengths = xp.asarray(check_lengths(lengths, self.shape[0], self.shape[1:]))
            self._steps = xp.arange(self.shape[0]).reshape(-1, *(1,) * self._lengths.ndim)
            self._there: Array = self._steps < self._lengths
            self._back = xp.where(self._there, self._lengths - 1 - self._steps, self._steps)

    def read(self, x: Array, reverse: bool | int) -> Array:
        """Return ``x`` (T, *batch, ...) in the order of a direction, zeros where no step is."""
        if not self.padded:
            return x[::-1] if reverse else x
        xp = namespace(x)
        taken = xp.take_along_axis(x, _over(self._back, x), axis=0) if reverse else x
        return xp.where(_over(self._there, x), taken, x.dtype.type(0))  # type: ignore[no-any-return]

    def resets(self, reverse: bool | int) -> Array | None:
        """Return where a direction starts again (T, *batch), in its own order, or None for nowhere.

        In reverse a sequence starts at its last step, the one before a reset. Steps that are not there start again
        each, so that they take no iteration and lead to nothing.
        """
        reset = self._reset
        if reset is not None and reverse:
            xp = namespace(reset)
            after = xp.concatenate([reset[1:], xp.zeros_like(reset[:1])])
            reset = xp.take_along_axis(after, self._back, axis=0) if self.padded else after[::-1]
        if not self.padded:
            return reset
        return ~self._there if reset is None else reset | ~self._there

    def last(self, states: Array, initial: Array) -> Array:
        """Return the state after the last step of every sequence, ``initial`` (*batch, ...) where there is none."""
        if not len(states):
            return initial
        if not self.padded:
            return states[-1]  # type: ignore[no-any-return]
        xp = namespace(states)
        index = _over(xp.maximum(self._lengths - 1, 0)[None], states)
        ended = xp.take_along_axis(states, index, axis=0)[0]
        return xp.where(_over(self._lengths > 0, initial), ended, initial)  # type: ignore[no-any-return]

    def pull_last(self, cotangent: Array) -> tuple[Array, Array]:
        """Return the cotangents of ``states`` and of ``initial`` for one of :meth:`last`."""
        xp, zero = namespace(cotangent), cotangent.dtype.type(0)
        if not self.padded and self.shape[0]:
            states = xp.zeros((self.shape[0], *cotangent.shape), dtype=cotangent.dtype)
            states[-1] = cotangent
            return states, xp.zeros_like(cotangent)
        if not self.padded:
            return xp.zeros((0, *cotangent.shape), dtype=cotangent.dtype), cotangent
        at = _over(self._steps == self._lengths - 1, cotangent[None])
        return xp.where(at, cotangent, zero), xp.where(_over(self._lengths == 0, cotangent), cotangent, zero)


def _over(x: Array, like: Array) -> Array:
    """Return ``x`` with an axis of size 1 for each that only ``like`` has."""
    return x.reshape(*x.shape, *(1,) * (like.ndim - x.ndim))


def check_lengths(lengths: Any, length: int, batch: tuple[int, ...]) -> Array:
    """Return lengths as integers (*batch) on the host.

    Raises
    ------
    TypeError, ValueError
        When dtype, shape or values do not fit; the message names ``lengths``.

    Examples
    --------
    >>> from recsolve.interop.order import check_lengths
    >>> check_lengths([3, 5], length=4, batch=(2,))
    Traceback (most recent call last):
    ...
    ValueError: lengths[1] is 5; wanted 0 to T = 4
    """
    given = lengths.detach().cpu().numpy() if kind_of(lengths) == "torch" else lengths
    try:
        found = to_host(given if kind_of(given) == "cupy" else np.asarray(given))
    except ValueError as error:
        raise ValueError(f"lengths is not a rectangular array: {error}") from error
    if found.size and found.dtype.kind not in "iu":
        raise TypeError(f"lengths has dtype {found.dtype}; wanted integers")
    if found.shape != batch:
        raise ValueError(f"lengths has shape {found.shape}; wanted one per sequence, {batch}")
    for index in np.argwhere((found < 0) | (found > length))[:1]:
        place = f"[{', '.join(map(str, index))}]" if batch else ""
        raise ValueError(f"lengths{place} is {found[tuple(index)]}; wanted 0 to T = {length}")
    return found.astype(np.int64)

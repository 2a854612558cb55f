"""The reference scan: chunks side by side, carries in order, work linear in T.

Time is cut into chunks of equal length. One pass composes each chunk into a single element (all chunks advance
together, one row of every chunk at a time), a short loop carries the state across chunks, and a last pass steps
through all chunks from their carries with the *original* elements. The answer therefore comes from the recurrence
itself, with rounding like the loop's, and monoids that do not round equal the loop bit for bit. Elements that are
costly to compose (dense matrices) take a single chunk, which is the loop; so do masks that cut a part of the numbers
that an element mixes, for then neither a composed element nor the value at a cut is the carry. float16 is widened to
float32 as it is taken.
"""

from __future__ import annotations

from math import ceil, isqrt
from typing import Any

import numpy as np

from recsolve.base.arrays import Array, namespace, to_host
from recsolve.kernels.monoids.float16 import HALF, Widened, state_dtype
from recsolve.kernels.monoids.monoid import Monoid
from recsolve.kernels.registry import register

# Above this many numbers a row, NumPy's overhead per call no longer matters and the plain loop does the least work.
_WIDE_ROW = 16_384
_SHORT = 64


def _chunk_length(length: int, row: int, composable: bool) -> int:
    if not composable or length < _SHORT or row > _WIDE_ROW:
        return max(length, 1)
    return max(isqrt(length // 2), 1)  # a row of all chunks is composed and stepped, a carry only stepped


@register("scan", "numpy")
def scan(
    monoid: Monoid,
    elements: Any,
    *,
    initial: Array | None = None,
    reset: Array | None = None,
    chunk: int | None = None,
) -> Array:
    """Return what :func:`recsolve.kernels.backends.scan` does.

    ``chunk`` is the length of a chunk; by default about sqrt(T / 2), or T where composing does not pay.
    """
    monoid, elements = monoid.simplest(elements)
    like = monoid.like(elements)
    y = namespace(like).empty_like(like)
    T = like.shape[0]
    if T == 0:
        return y  # type: ignore[no-any-return]
    row = like.size // T
    L = chunk or _chunk_length(T, row, monoid.composable(elements))
    if T > L and reset is not None and cuts_apart(monoid, elements, reset):
        L = T
    if like.dtype == HALF:
        monoid, initial = Widened(monoid), None if initial is None else initial.astype(state_dtype(like))
    state = _Stepper(monoid, elements, initial, reset)
    carries = state.carries(L) if T > L else state.before
    _step_chunks(state, y, L, carries)
    return y  # type: ignore[no-any-return]


def cuts_apart(monoid: Monoid, elements: Any, reset: Array) -> bool:
    """Return whether a mask cuts some of the numbers that an element mixes, and not all."""
    by_axis = (np.moveaxis(reset, axis, 0) for axis in monoid.mixed(elements))
    return any(bool((cuts != cuts[:1]).any()) for cuts in by_axis)


class _Stepper:
    """Steps and compositions with cuts selected."""

    def __init__(self, monoid: Monoid, elements: Any, initial: Array | None, reset: Array | None):
        self.monoid, self.elements, self.initial, self.reset = monoid, elements, initial, reset
        like = monoid.like(elements)
        self.xp, self.T, self.before = namespace(like), like.shape[0], initial
        # The times at which something is cut. A recurrence that starts afresh is cut at time 0 alone.
        cuts: Any = None if reset is None else reset.any(axis=tuple(range(1, reset.ndim)))
        self.cuts = None if cuts is None else to_host(cuts)
        if reset is not None and self.cuts is not None and not self.cuts[1:].any() and bool(reset[:1].all()):
            self.reset = self.cuts = self.before = None

    def step(self, index: Any, state: Array | None) -> Array:
        """Return the next rows at the times ``index`` from the rows before (None: cut)."""
        e = self.monoid.take(self.elements, index)
        if state is None:
            return self.monoid.constant(e, self.initial)
        after = self.monoid.act(e, state)
        if self.reset is None or self.cuts is None or not self.cuts[index].any():
            return after
        return self.xp.where(self.reset[index], self.monoid.constant(e, self.initial), after)  # type: ignore[no-any-return]

    def carries(self, L: int) -> Array:
        """Return the state with which each chunk starts, shape (chunks, ...)."""
        monoid, xp, full = self.monoid, self.xp, self.T // L  # complete chunks; the last carry needs no more
        rows = [slice(offset, full * L, L) for offset in range(L)]
        summary = monoid.take(self.elements, rows[0])
        local = self.step(rows[0], None) if self.reset is not None else None  # right after a cut
        seen = None if self.reset is None else self.reset[rows[0]]
        for index in rows[1:]:
            summary = monoid.compose(monoid.take(self.elements, index), summary)
            if self.reset is not None:
                local = self.step(index, local)
                seen = seen | self.reset[index]
        like = monoid.like(self.elements)
        out = xp.zeros((ceil(self.T / L), *like.shape[1:]), dtype=state_dtype(like))
        for careful in (False, True):
            state = self.before
            for j in range(len(out)):
                if state is not None:
                    out[j] = state
                if j + 1 < len(out):
                    state = self._across(summary, j, L, state, local, seen, careful)
            if not self._lost(out[:-1], out[1:]):  # looked at chunk by chunk only where anything is
                break
        return out  # type: ignore[no-any-return]

    def _across(
        self, summary: Any, j: int, L: int, state: Array | None, local: Array | None, seen: Array | None, careful: bool
    ) -> Array:
        """Carry a state over chunk ``j``."""
        if state is not None:
            after = self.monoid.act(self.monoid.take(summary, j), state)
            if local is not None and seen is not None:
                after = self.xp.where(seen[j], local[j], after)
            if not (careful and self._lost(state, after)):
                return after
        # Nothing comes in, or composing has lost what its steps may not: walk the chunk itself.
        for t in range(j * L, (j + 1) * L):
            state = self.step(t, state)
        assert state is not None
        return state

    def _lost(self, before: Array, after: Array) -> bool:
        """Return whether a composed element gives what its steps may not, because it has overflowed."""
        if after.dtype == object:
            return False
        finite, nan = self.xp.isfinite, self.xp.isnan
        return bool(((finite(before) & ~finite(after)) | (~nan(before) & nan(after))).any())


def _step_chunks(state: _Stepper, y: Array, L: int, carries: Array | None) -> None:
    """Fill ``y``, stepping all chunks together from their carries."""
    T = state.T
    if T <= L:
        current = carries
        for t in range(T):
            current = state.step(t, current)
            y[t] = current
        return
    assert carries is not None
    current = carries
    for offset in range(L):
        index = slice(offset, T, L)
        current = state.step(index, current[: len(range(offset, T, L))])
        if offset == 0 and state.before is None:
            current[0] = state.step(0, None)
        y[index] = current

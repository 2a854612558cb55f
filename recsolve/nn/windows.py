"""Windows of time of which a layer keeps what they begin with alone: the backward solves each again."""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import nullcontext
from typing import Any

import torch
from torch.utils.checkpoint import checkpoint

from recsolve.nn.solving import AGAIN


def in_windows(
    solve: Callable[..., tuple[Any, ...]],
    x: Any,
    starts: Sequence[Any],
    resets: Any,
    breaks: Any,
    every: int,
    weights: Iterable[Any],
) -> list[Any]:
    """Return the components (T, B, n) of the states, of windows solved one after the other.

    Parameters
    ----------
    solve : callable
        ``solve(x, resets, *starts)`` returns the components (T, B, n) for steps (T, B, D).
    x : tensor, shape (T, B, D)
    starts : sequence of tensors (B, n), or of None
        The initial state, component by component; None is zeros.
    resets : tensor of bool, shape (T, B), or None
        As ``solve`` takes them.
    breaks : tensor of bool, shape (T, B), or None
        The resets among them that are no padding.
    every : int
        The most steps of a window.
    weights : tensors
        What ``solve`` depends on besides.
    """
    weights = list(weights)
    spans = list(_spans(len(x), every, breaks)) or [(0, 0)]
    sizes, state, found = [end - begin for begin, end in spans], list(starts), []
    masks = [None] * len(spans) if resets is None else resets.split(sizes)
    for (begin, _), steps, mask in zip(spans, x.split(sizes), masks, strict=True):
        if begin and breaks is not None:
            first = [torch.zeros_like(h) if start is None else start for start, h in zip(starts, state, strict=True)]
            state = [torch.where(breaks[begin][:, None], s, h) for s, h in zip(first, state, strict=True)]
        # torch.compile follows no context of one's own: it looks after weights itself, and counts windows twice.
        again = {} if torch.compiler.is_compiling() else {"context_fn": lambda: (nullcontext(), _Again(weights))}
        parts = checkpoint(solve, steps, mask, *state, use_reentrant=False, preserve_rng_state=False, **again)
        found.append(parts)
        state = [part[-1] for part in parts] if len(steps) else state
    return [torch.cat(part) for part in zip(*found, strict=True)]


class _Again:
    """The context in which windows are solved for the second time, or once more.

    It refuses weights that have changed, which torch does not look at, for here they are not saved.
    """

    def __init__(self, tensors: Iterable[Any]):
        self._seen = [(x, x._version) for x in tensors if not x.is_inference()]

    def __enter__(self) -> None:
        if any(x._version != version for x, version in self._seen):
            raise RuntimeError(
                "a weight of a layer with every= was modified by an inplace operation before the backward, which "
                "solves each window again; take the optimiser's step afterwards"
            )
        self._before = AGAIN.set(True)

    def __exit__(self, *_: object) -> None:
        AGAIN.reset(self._before)


def _spans(length: int, every: int, breaks: Any) -> Iterator[tuple[int, int]]:
    """Yield where windows begin and end.

    Within a window resets start from what it begins with. That is right where all sequences begin there, and other
    windows end before the next reset.
    """
    if breaks is None:
        yield from ((begin, min(begin + every, length)) for begin in range(0, length, every))
        return
    # Where a sequence begins, and where all do.
    some, whole = (mask.nonzero().flatten().tolist() for mask in (breaks.any(1), breaks.all(1)))
    begin, fresh = 0, True
    while begin < length:
        end = min(begin + every, length)
        place = bisect_right(some, begin)
        if not fresh and place < len(some):
            end = min(end, some[place])
        place = bisect_right(whole, end)
        last = whole[place - 1] if place else 0
        if fresh and begin < last and end < length:
            end = last
        yield begin, end
        begin, fresh = end, end == last

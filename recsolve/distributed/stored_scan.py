"""A scan of elements on disk: what of it is known beforehand, and how a window of it is run."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np

from recsolve.base.arguments import as_mask
from recsolve.base.arrays import Array
from recsolve.distributed.stored_arrays import digest, digest_of, opened, rows_of, sample_of, sizes_of
from recsolve.distributed.stored_run import Done
from recsolve.jacobians import Jacobian
from recsolve.kernels.monoids.float16 import state_dtype, widen
from recsolve.kernels.monoids.monoid import Monoid
from recsolve.scan import read, scan
from recsolve.windows import Cut

_SAMPLE = 16  # rows that show what the result is like


@dataclass(frozen=True)
class StoredScan:
    """A scan on disk, and how its windows are run.

    Attributes
    ----------
    monoid : Monoid
    elements : tuple
        Arrays on disk, and what is the same at all times, in memory.
    initial : object
        As the user gave it.
    reset : array on disk, or None
    reverse : bool
    cut : Cut
    few : array
        The scan of a few elements: what the result is like.
    """

    monoid: Monoid
    elements: tuple[Any, ...]
    initial: Any
    reset: Any
    reverse: bool
    cut: Cut
    few: Array

    @classmethod
    def of(cls, monoid: Any, elements: Any, initial: Any, reset: Any, reverse: bool, every: int) -> StoredScan:
        """Check the arguments of :func:`recsolve.distributed.scan_stored`; raise as it says."""
        if not isinstance(elements, (tuple, list)):
            raise ValueError(f"elements is {type(elements).__name__}; wanted a tuple of paths, arrays and numbers")
        arrays = tuple(_element(e, f"elements[{i}]") for i, e in enumerate(elements))
        lengths = {f"elements[{i}]": e.shape[0] for i, e in enumerate(arrays) if _in_time(e)}
        lengths |= {} if reset is None else {"reset": (reset := opened(reset, "reset")).shape[0]}
        if len(set(lengths.values())) > 1:
            raise ValueError(f"lengths along time are {lengths}; wanted one, or 1 of what is the same at all times")
        T = next(iter(lengths.values()), 1)
        apart = max(-(-T // _SAMPLE), 1)
        few = tuple(sample_of(e, f"elements[{i}]", apart) if _in_time(e) else e for i, e in enumerate(arrays))
        mask = None if reset is None else sample_of(reset, "reset", apart)
        known = read(monoid, few, initial=initial, reset=mask, reverse=reverse, axis=0).monoid
        y = scan(known, few, initial=initial, reset=mask, reverse=reverse)
        return cls(known, arrays, initial, reset, reverse, Cut(T, every), y)

    @property
    def shape(self) -> tuple[int, ...]:
        """Of the result."""
        return (self.cut.length, *self.few.shape[1:])

    @property
    def dtype(self) -> np.dtype[Any]:
        """Of the result."""
        return self.few.dtype

    @property
    def carried(self) -> np.dtype[Any]:
        """The dtype of the state that goes from window to window: that of halves is not rounded on the way."""
        return state_dtype(self.few)

    @property
    def facts(self) -> Mapping[str, Any]:
        """What tells this run from others."""
        said = {f"elements[{i}]": _said(e, f"elements[{i}]") for i, e in enumerate(self.elements)}
        return {
            "of": f"scan of {type(self.monoid).__qualname__}",
            "steps": self.cut.length,
            "every": self.cut.every,
            **said,
            "initial": None if self.initial is None else digest(np.asarray(self.initial)),
            "reset": None if self.reset is None else digest_of(self.reset, "reset"),
            "reverse": bool(self.reverse),
            "output": f"{self.shape} {self.dtype}",
            "results at some steps": sizes_of(self.few),
        }

    def read(self, steps: slice) -> tuple[tuple[Any, ...], Array | None]:
        """Return elements and resets of some steps."""
        found = tuple(rows_of(e, steps, f"elements[{i}]") if _in_time(e) else e for i, e in enumerate(self.elements))
        return found, None if self.reset is None else as_mask(rows_of(self.reset, steps, "reset"), "reset")

    def work(self, given: tuple[tuple[Any, ...], Array | None], last: Array | None) -> Done:
        """Scan one window."""
        elements, mask = given
        if self.carried != self.dtype:
            elements = tuple(widen(e, self.carried) if isinstance(e, np.ndarray) else e for e in elements)
        y = scan(
            self.monoid, elements, initial=self.initial if last is None else last, reset=mask, reverse=self.reverse
        )
        if last is not None and self.monoid.restarts and mask is not None and mask.any():
            # Resets act on the initial state of the whole; what follows one does not depend on the state before.
            again = scan(self.monoid, elements, initial=self.initial, reset=mask, reverse=self.reverse)
            back = slice(None, None, -1 if self.reverse else 1)
            since = np.logical_or.accumulate(mask[back])[back]
            y = np.where(since.reshape(since.shape + (1,) * (y.ndim - since.ndim)), again, y)
        end = y[:1] if self.reverse else y[-1:]
        last = end[0] if len(end) else np.zeros(y.shape[1:], self.carried)  # of no steps, which nothing follows
        return Done(y.astype(self.dtype, copy=False), last, {})


def _element(e: Any, name: str) -> Any:
    """Return an element as an array on disk, or as what is the same at all times."""
    if isinstance(e, Jacobian):
        raise TypeError(
            f"{name} is a {type(e).__name__}, which lies in memory; wanted its numbers, in their own arrays"
        )
    if np.isscalar(e) and not isinstance(e, str):
        return e
    if isinstance(e, np.ndarray) and not e.ndim:
        return e
    found = opened(e, name)
    return rows_of(found, slice(0, 1), name) if found.shape[0] == 1 else found


def _in_time(e: Any) -> bool:
    """Return whether an element has a row for every step."""
    return bool(np.ndim(e) if np.isscalar(e) else len(e.shape) and e.shape[0] != 1)


def _said(e: Any, name: str) -> str:
    """Return what tells an element from others."""
    return digest_of(e, name) if _in_time(e) else digest(np.asarray(e))

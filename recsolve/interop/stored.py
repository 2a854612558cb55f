"""Arrays as files hold them, by their keys; halves are computed with in float32."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from fnmatch import fnmatchcase
from typing import Any

import numpy as np

from recsolve.base.arrays import Array

DTYPES = ("float32", "float64", "float16", "bfloat16")


@dataclass(frozen=True)
class Stored:
    """One entry of a file.

    Attributes
    ----------
    shape : tuple of int
    dtype : str
        As in the file; of what is no array its type.
    raw : array or None
        The numbers; those of bfloat16 as uint16, their bits.
    """

    shape: tuple[int, ...]
    dtype: str
    raw: Array | None

    @classmethod
    def of(cls, x: Any) -> Stored:
        """Return what an array is stored as."""
        return cls(tuple(x.shape), x.dtype.name, x)

    @property
    def array(self) -> Array:
        """The numbers in float32 or float64, of entries that have one of ``DTYPES``."""
        assert self.raw is not None, self.dtype
        if self.dtype == "bfloat16" and self.raw.dtype == np.uint16:
            return (self.raw.astype(np.uint32) << 16).view(np.float32)
        return self.raw.astype(np.float64 if self.dtype == "float64" else np.float32)

    def __str__(self) -> str:
        return f"{self.shape} {self.dtype}"


def patterns_of(keys: str | Sequence[str] | None) -> tuple[str, ...]:
    """Return the patterns that select keys, of one text with commas or of several; all keys by default.

    A dot or slash at the end, as of a prefix, is left out: it says no more than the name.

    Raises
    ------
    TypeError
        For what is no text.
    """
    texts = ("*",) if keys is None else (keys,) if isinstance(keys, str) else tuple(keys)
    for text in texts:
        if not isinstance(text, str):
            raise TypeError(f"keys has a {type(text).__name__}; wanted patterns such as 'encoder.rnn.*'")
    return tuple(name for text in texts for part in text.split(",") if (name := part.strip().rstrip("./")))


def selected(names: Iterable[str], patterns: Sequence[str]) -> bool:
    """Return whether a pattern matches one of these names, or a folder that it lies in.

    >>> selected(["encoder.rnn.weight_ih_l0"], ["encoder.rnn"]), selected(["encoder.rnn.weight_ih_l0"], ["rnn.*"])
    (True, False)
    """
    return any(fnmatchcase(name, p) or fnmatchcase(name, p + "[./]*") for name in names for p in patterns)

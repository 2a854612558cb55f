"""What ranks compute of what they tell each other, each in one launch.

Affine maps of numbers as :mod:`recsolve.distributed.carries` describes them, and steps that are taken anew as
:mod:`recsolve.distributed.shooting` does.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from functools import cache
from math import prod
from typing import Any

import numpy as np

from recsolve.base.arrays import Array, address, namespace
from recsolve.kernels.codegen.cuda_headers import headers
from recsolve.kernels.codegen.cuda_structures import constants, fields_at, structure
from recsolve.kernels.gpu.device import Launch, Machine, on

_OPTIONS = ("-std=c++17", "-fmad=false")  # so that ranks round as arrays do
_UNITS, _THREADS = (constants("ranks/carries")[name] for name in ("LANES", "RANK_THREADS"))
_JOINERS, _SLOTS = (constants("ranks/joins")[name] for name in ("JOIN_THREADS", "ADD_SLOTS"))
_MOST = 1024  # blocks that add
_KERNELS = {  # the header and the threads of a structure
    "probe_steps": ("ranks/carries", "Probe", _THREADS),
    "fold_ranks": ("ranks/carries", "Fold", _THREADS),
    "mend_steps": ("ranks/carries", "Mend", _THREADS),
    "agree": ("ranks/carries", "Agreement", _THREADS),
    "join_steps": ("ranks/joins", "Join", _JOINERS),
    "add_slots": ("ranks/joins", "Addition", _JOINERS),
    "meet": ("ranks/joins", "Meeting", _JOINERS),
    "sum_messages": ("ranks/message", "Sum", 256),
}
_NUMBERS = {"f": "float", "d": "double"}


def taken(x: Array, dtype: np.dtype[Any], shape: tuple[int, ...], *, repeats: bool = False) -> bool:
    """Return whether rows (T, ...) are read: of such a dtype and shape, contiguous of one time, or maybe the same."""
    same = x.dtype == dtype and dtype.char in _NUMBERS and x.shape[1:] == shape
    # Of rows that are not contiguous one after the other, such as those seen backwards, each may be.
    return same and (x.flags.c_contiguous or x[0].flags.c_contiguous or (repeats and not any(x.strides[1:])))


def alike(*rows: Array) -> bool:
    """Return whether rows are contiguous numbers of one shape and of one dtype that kernels read."""
    first = rows[0]
    same = all(x.dtype == first.dtype and x.shape == first.shape and x.flags.c_contiguous for x in rows)
    return same and first.dtype.char in _NUMBERS


def probed(
    A: Array, b: Array, steps: int, least: float, machine: Machine | None = None
) -> tuple[Array, Callable[[], bool]]:
    """Return what the first maps A h + b leave of ones at most, and the size of what they sum up from zero: (2, ...).

    And what tells whether of what comes in, if it is as large as that or as any b, at most ``least`` of that size is
    left. The host waits for this alone.

    Parameters
    ----------
    A, b : array, shape (T, ...)
        Of a number at least, which `taken` accepts; A may repeat along units.
    steps : int
        How many maps, at least 1.
    least : float
    machine : Machine, optional
        By default the device of the arrays, on its current stream.
    """
    xp, units, size = namespace(b), prod(b.shape[1:]), b.itemsize
    found, blocks = xp.empty((2, *b.shape[1:]), b.dtype), -(-units // _UNITS)
    forgets, left = xp.empty(blocks, np.int32), address(found)
    with on(b, machine) as where:
        _launch(where, "probe_steps", b.dtype, blocks, 4 * _THREADS * size, {
            "steps": steps, "units": units, "matrix": address(A), "vector": address(b),
            "matrix_time": A.strides[0] // size, "vector_time": b.strides[0] // size,
            "matrix_unit": int(any(A.strides[1:])),
            "left": left, "size": left + units * size, "forgets": address(forgets),
            "least": least, "tiny": _tiny(b.dtype),
        })  # fmt: skip
        coming = where.coming(forgets, blocks)
    return found, lambda: bool(coming().all())


def folded(
    first: Array,
    matrix: Array,
    vector: Array,
    after: Array,
    cut: Array,
    count: int,
    least: float,
    machine: Machine | None = None,
) -> tuple[Array, Array]:
    """Return the states that come into ranks, (1 + count, ...), from the first one, and what holds; nothing waits.

    Parameters
    ----------
    first : array
        Contiguous, of a number at least.
    matrix, vector, after, cut : array, shape (ranks, ...)
        In the order of steps, as far apart from rank to rank: what the first ``count`` of them do.
    count : int
        At least 1.
    least : float
    machine : Machine, optional

    Returns
    -------
    states : array
    holds : array of int32, shape (2, count, n)
        All n are set where what comes out is not finite, or NaN, only where what comes in is; and, of ranks that tell
        what `probed` returns in place of matrix and vector, where at most ``least`` of the size is left of what comes
        in.
    """
    xp, blocks = namespace(first), -(-first.size // _THREADS)
    states, holds = xp.empty((count + 1, *first.shape), first.dtype), xp.empty((2, count, blocks), np.int32)
    with on(first, machine) as where:
        _launch(where, "fold_ranks", first.dtype, blocks, 0, {
            "ranks": count, "units": first.size, "blocks": blocks, "first": address(first), "states": address(states),
            "holds": address(holds), "apart": matrix.strides[0], "matrix": address(matrix), "vector": address(vector),
            "after": address(after), "cut": address(cut), "least": least,
        })  # fmt: skip
    return states, holds


def mended(rows: Array, A: Array, b: Array, steps: int, comes: Array, machine: Machine | None = None) -> None:
    """Fill the first rows with what as many maps A h + b give, one after the other, from what comes in; nothing waits.

    Parameters
    ----------
    rows, A, b : array, shape (T, ...)
        Of a number at least, which `taken` accepts; A may repeat along units.
    steps : int
        How many, at least 1.
    comes : array
        Contiguous.
    machine : Machine, optional
    """
    size, units = b.itemsize, prod(b.shape[1:])
    with on(b, machine) as where:
        _launch(where, "mend_steps", b.dtype, -(-units // _THREADS), 0, {
            "steps": steps, "units": units, "matrix": address(A), "vector": address(b),
            "matrix_time": A.strides[0] // size, "vector_time": b.strides[0] // size,
            "matrix_unit": int(any(A.strides[1:])), "comes": address(comes), "rows": address(rows),
            "rows_time": rows.strides[0] // size,
        })  # fmt: skip


def agreed(end: Array, said: Array, size: Array, by: float, machine: Machine | None = None) -> Array:
    """Return whether all numbers of contiguous rows are what was said, up to ``by`` of a size; nothing waits.

    Parameters
    ----------
    end, said, size : array
        Of one shape and dtype; the sign of a size says nothing.
    by : float
    machine : Machine, optional

    Returns
    -------
    array of bool, without axes
    """
    agrees = namespace(end).empty((), bool)
    with on(end, machine) as where:
        _launch(where, "agree", end.dtype, 1, 0, {
            "units": end.size, "end": address(end), "said": address(said), "size": address(size),
            "agrees": address(agrees), "by": by,
        })  # fmt: skip
    return agrees  # type: ignore[no-any-return]


def joined(states: Array, found: Array, mixed: int, machine: Machine | None = None) -> None:
    """Put rows found anew in the place of those that are there, the last ``mixed`` in part; nothing waits.

    Parameters
    ----------
    states, found : array, shape (steps, ...)
        Contiguous.
    mixed : int
        The first of these rows is the one found but for 1 / (mixed + 1), the last one has that much of it.
    machine : Machine, optional
    """
    with on(states, machine) as where:
        _launch(where, "join_steps", states.dtype, -(-states.size // _JOINERS), 0, {
            "rows": len(states), "mixed": mixed, "units": states[0].size,
            "states": address(states), "found": address(found),
        })  # fmt: skip


def added(pairs: Sequence[tuple[Array, Array]], machine: Machine | None = None) -> bool:
    """Add to the first array of every pair the second one, in one launch for several; nothing waits.

    Return whether that is done: not where a pair is of several shapes or dtypes, with gaps, or of other numbers.
    """
    if not all(x.dtype == more.dtype and alike(x, more) for x, more in pairs):
        return False
    double = [x.dtype.char == "d" for x, _ in pairs]
    pairs = [*(pair for pair, wide in zip(pairs, double, strict=True) if not wide),
             *(pair for pair, wide in zip(pairs, double, strict=True) if wide)]  # fmt: skip
    narrow, dtype = double.count(False), np.dtype(np.float32)
    with on(pairs[0][0], machine) as where:
        for first in range(0, len(pairs), _SLOTS):
            some = pairs[first : first + _SLOTS]
            counts = [x.size for x, _ in some]
            blocks = min(max(-(-max(counts) // _JOINERS), 1), _MOST)
            _launch(where, "add_slots", dtype, blocks, 0, {
                "slots": len(some), "narrow": max(narrow - first, 0), "blocks": blocks, "count": counts,
                "to": [address(x) for x, _ in some], "from": [address(more) for _, more in some],
            })  # fmt: skip
    return True


def met_and_near(met: Array, near: Array, machine: Machine | None = None) -> tuple[Array, Array]:
    """Return whether all of contiguous flags are set, and the largest of as many numbers >= 0, both without axes."""
    xp = namespace(met)
    every, most = xp.empty((), bool), xp.empty((), near.dtype)
    with on(met, machine) as where:
        _launch(where, "meet", near.dtype, 1, _JOINERS * near.itemsize, {
            "count": met.size, "met": address(met), "near": address(near), "all": address(every), "most": address(most),
        })  # fmt: skip
    return every, most


def summed(arrays: Sequence[Array], machine: Machine | None = None) -> list[Array] | None:
    """Return the sums over ranks of arrays, (ranks, ...) each, that follow each other in messages; nothing waits.

    None where they do not, or are of several dtypes.
    """
    first, last = arrays[0], arrays[-1]
    size, apart = first.itemsize, first.strides[0]
    places = [address(x) - address(first) for x in arrays]
    nbytes = places[-1] + last[0].nbytes
    alike = all(x.dtype == first.dtype and x.strides[0] == apart and x[0].flags.c_contiguous for x in arrays)
    follow = all(0 <= place <= apart - x[0].nbytes for place, x in zip(places, arrays, strict=True))
    if not alike or not follow or first.dtype.char not in _NUMBERS or not nbytes or any(p % size for p in places):
        return None
    sums = namespace(first).empty(nbytes // size, first.dtype)
    with on(first, machine) as where:
        _launch(where, "sum_messages", first.dtype, -(-sums.size // 256), 0, {
            "count": sums.size, "ranks": len(first), "apart": apart, "from": address(first), "to": address(sums),
        })  # fmt: skip
    begins = [place // size for place in places]
    return [sums[at : at + x[0].size].reshape(x.shape[1:]) for at, x in zip(begins, arrays, strict=True)]


@cache
def _tiny(dtype: np.dtype[Any]) -> float:
    """Return the least positive number that has all its bits."""
    return float(np.finfo(dtype).tiny)


@cache
def _described(kernel: str, char: str) -> tuple[int, dict[str, int], str, str, int]:
    """Return the size of what a kernel is given and the places of its fields, the code, its name there, the threads."""
    header, name, threads = _KERNELS[kernel]
    described = structure(header, name)
    code, expression = headers(header), f"recsolve::{kernel}<{_NUMBERS[char]}>"
    return described.itemsize // 8, fields_at(described), code, expression, threads


def _launch(
    machine: Machine, kernel: str, dtype: np.dtype[Any], blocks: int, shared: int, given: Mapping[str, Any]
) -> None:
    size, places, code, name, threads = _described(kernel, dtype.char)
    p = np.zeros(size, np.int64)
    for field, value in given.items():
        at: Any = places[field] if not isinstance(value, list) else slice(places[field], places[field] + len(value))
        (p.view(np.float64) if isinstance(value, float) else p)[at] = value
    machine.launch(Launch(code, name, _OPTIONS, blocks, threads, shared, p))

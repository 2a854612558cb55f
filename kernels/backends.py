"""The choice of the backend that runs a scan or evaluates a cell; it is made here only."""

from __future__ import annotations

import os
from collections.abc import Hashable, Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from functools import cache, partial
from importlib.util import find_spec
from typing import Any

from recsolve.base.arrays import Array, kind_of
from recsolve.jacobians import LaneDense
from recsolve.kernels.cpu.jit.ready import attempt, calibrated, here
from recsolve.kernels.cpu.scan import scan_numba
from recsolve.kernels.cpu.scan.factored_scan import is_factored
from recsolve.kernels.cpu.scan.sparse import is_sparse
from recsolve.kernels.cpu.threads import limited
from recsolve.kernels.monoids.monoid import Monoid
from recsolve.kernels.registry import get
from recsolve.kernels.summary import Summary

BACKENDS = ("auto", "numpy", "numba", "cuda")
VARIABLE = "RECSOLVE_BACKEND"

# A compiled scan costs 60 us before it begins, a NumPy scan a few us per row; and below this many numbers the gain is
# less than the cost of loading the compiled loops.
_PAYS, _MANY_STEPS, _MANY_FACTORED = 32_768, 64, 1024
_FEW_STEPS = 16  # with fewer NumPy is faster than loops that are there already

# Compiling a cell takes seconds once, loading it a fraction of one per process; NumPy takes 20 us a step, or more.
_LONG, _LARGE = 4096, 1 << 18  # many steps, or numbers
_ROWS = 1 << 16  # numbers of trajectories whose rows are compared
_STEPS, _NUMBERS = 256, 1 << 12  # or fair numbers of both
_STEPS_ON_GPU = 256  # a step of CuPy calls takes a fraction of a millisecond

_CHOSEN: ContextVar[str | None] = ContextVar("recsolve_backend", default=None)


@contextmanager
def backend(name: str, *, threads: int | None = None) -> Iterator[None]:
    """Choose the backend of scans and of the functions of cells inside a ``with`` block.

    Parameters
    ----------
    name : {"auto", "numpy", "numba", "cuda"}
        ``auto`` takes CUDA kernels for arrays on a GPU, and for NumPy arrays Numba where it is installed, has a loop
        for the structure, and the problem is large enough to pay, or the loops are compiled already
        (RECSOLVE_CALIBRATION=off leaves that to the size). ``numba`` takes it at any size. What a backend has
        no kernel for goes to the NumPy one, which runs on CuPy arrays too.
    threads : int, optional
        At most this many threads for compiled loops; by default NUMBA_NUM_THREADS or all cores of the process.

    Raises
    ------
    ValueError
        For another name or no thread.
    ImportError
        For ``numba`` or ``cuda`` where it, or CuPy, is not installed.

    Notes
    -----
    Outside such blocks the environment variable RECSOLVE_BACKEND decides, ``auto`` where it is not set. Blocks nest;
    they hold for the Python thread (and asyncio task) that enters them. Results do not depend on the number of threads.
    With joblib use its default loky workers: it gives each its share of the cores.

    Examples
    --------
    >>> import numpy as np, recsolve as rs
    >>> with rs.backend("numpy"):
    ...     rs.scan("affine", (np.full(3, 0.5), np.ones(3)))
    array([1.  , 1.5 , 1.75])
    """
    _check(name, "name")
    if threads is not None and threads < 1:
        raise ValueError(f"threads is {threads}; wanted 1 or more")
    token = _CHOSEN.set(name)
    try:
        with limited(threads):
            yield
    finally:
        _CHOSEN.reset(token)


def _check(name: str, argument: str) -> None:
    if name not in BACKENDS:
        raise ValueError(f"{argument} is {name!r}; wanted one of {', '.join(BACKENDS)}")
    if name == "numba" and not _installed():
        raise ImportError("the backend 'numba' needs Numba: pip install numba")
    if name == "cuda" and not _installed("cupy"):
        raise ImportError("the backend 'cuda' needs CuPy: pip install 'recsolve[cuda13]' (or [cuda12])")


@cache
def _installed(package: str = "numba") -> bool:
    return find_spec(package) is not None


def asked() -> str:
    """Return the backend that is set: by the innermost block, else by the environment, else ``auto``."""
    name = _CHOSEN.get()
    if name is None:
        name = os.environ.get(VARIABLE, "auto")
        _check(name, VARIABLE)
    return name


def forced() -> bool:
    """Return whether a backend that compiles cells is set.

    Examples
    --------
    >>> import recsolve as rs
    >>> from recsolve.kernels.backends import forced
    >>> with rs.backend("numpy"):
    ...     forced()
    False
    """
    return asked() in ("numba", "cuda")


def compiles(steps: int, numbers: int, key: Hashable = None) -> bool:
    """Return whether Numba loops compiled from f evaluate it, or walk along a graph.

    Parameters
    ----------
    steps : int
        T.
    numbers : int
        Entries of all states, T times batch times event.
    key : hashable, optional
        The kind of call, for :mod:`recsolve.kernels.cpu.jit.ready`: what this process has compiled runs at any size.

    Examples
    --------
    >>> import recsolve as rs
    >>> from recsolve.kernels.backends import compiles
    >>> with rs.backend("numpy"):
    ...     compiles(10_000, 100_000)
    False
    """
    return _compiles(steps >= _LONG or numbers >= _LARGE or (steps >= _STEPS and numbers >= _NUMBERS), key)


def _compiles(pays: bool, key: Hashable) -> bool:
    """Return whether loops of Numba run: where that pays, or where they are compiled already."""
    name = asked()
    if name != "auto":
        return name == "numba"
    return (pays and _installed()) or (key is not None and calibrated() and here(key))


def may_be_ready() -> bool:
    """Return whether a problem that is too small to compile anything takes loops that are compiled already."""
    return asked() == "auto" and _installed() and calibrated()


def launches(like: Array, steps: int, numbers: int) -> bool:
    """Return whether CUDA kernels compiled from f evaluate it.

    Parameters
    ----------
    like : array
        Of the kind of the states: only CuPy arrays are on a GPU.
    steps, numbers : int
        As in :func:`compiles`.

    Examples
    --------
    >>> import numpy as np
    >>> from recsolve.kernels.backends import launches
    >>> launches(np.zeros(3), 10_000, 30_000)
    False
    """
    name = asked()
    pays = steps >= _STEPS_ON_GPU or numbers >= _NUMBERS
    return kind_of(like) == "cupy" and (name == "cuda" or (name == "auto" and pays))


def compiles_rows(numbers: int, key: Hashable) -> bool:
    """Return whether Numba loops compare and copy the rows of trajectories with ``numbers`` entries.

    The ``key`` says of which kind, for :mod:`recsolve.kernels.cpu.jit.ready`: what is compiled runs smaller ones too.
    """
    return _compiles(numbers >= _ROWS, key if numbers >= _NUMBERS else None)


def chosen(monoid: Monoid, elements: Any, initial: Array | None = None) -> str:
    """Return the backend that runs a scan here: ``"numpy"``, ``"numba"`` or ``"cuda"``.

    Parameters
    ----------
    monoid : Monoid
    elements : tuple
        What the monoid composes: arrays (T, ...); for affine maps a Jacobian and an array.
    initial : array, optional
        y before the first step.

    Examples
    --------
    >>> import numpy as np, recsolve as rs
    >>> from recsolve.kernels.backends import chosen
    >>> from recsolve.kernels.monoids import MONOIDS
    >>> with rs.backend("auto"):
    ...     chosen(MONOIDS["addition"], (np.ones(3),))  # too small for Numba to pay
    'numpy'
    """
    name, like = asked(), monoid.like(elements)
    if kind_of(like) == "cupy":
        return "numpy" if name == "numpy" else "cuda"
    if name != "auto":
        return name
    pays = _scan_pays(like, elements[0])
    return "numba" if pays and scan_numba.carries(monoid, elements, initial) and _installed() else "numpy"


def _scan_pays(like: Array, e: Any) -> bool:
    """Return whether a compiled scan of elements ``e``, rows as ``like``, is worth loading."""
    steps = len(like)
    if is_factored(e) or (is_sparse(e) and not e.composable):  # NumPy calls Python at every step
        return steps >= _MANY_FACTORED
    numbers = max(like.size, e.data.size) if isinstance(e, LaneDense) else like.size
    return bool(numbers >= (_PAYS if steps >= _MANY_STEPS else 8 * _PAYS))


def scan(monoid: Monoid, elements: Any, *, initial: Array | None = None, reset: Array | None = None) -> Array:
    """Return y[t] = e[t](y[t-1]) for all t, by the backend that :func:`chosen` returns.

    Parameters
    ----------
    monoid : Monoid
    elements : tuple
        In the monoid's form: arrays (T, ...); for affine maps a Jacobian and an array.
    initial : array, optional
        y[-1], the shape of one row; without it the first step is cut from its past.
    reset : array of bool, optional
        Broadcasting against rows (T, ...): steps that are cut from their past, by selection.

    Returns
    -------
    array, shape (T, ...)
        y, in the memory order of the elements.

    Raises
    ------
    ValueError, TypeError
        As :func:`recsolve.scan`, which checks the arguments; here arrays are native and of one dtype.

    Notes
    -----
    Blelloch, "Prefix sums and their applications" (1990).

    Examples
    --------
    >>> import numpy as np
    >>> from recsolve.kernels.backends import scan
    >>> from recsolve.kernels.monoids import MONOIDS
    >>> scan(MONOIDS["addition"], (np.arange(4.0),))
    array([0., 1., 3., 6.])
    """
    name = chosen(monoid, elements, initial)
    if name == "numpy" and (found := _if_ready(monoid, elements, initial, reset)) is not None:
        return found
    return get("scan", name)(monoid, elements, initial=initial, reset=reset)  # type: ignore[no-any-return]


def summarise(monoid: Monoid, elements: Any, *, initial: Array | None = None, reset: Array | None = None) -> Summary:
    """Return what a range of at least one step does to the state before it, by the backend that would scan it.

    Parameters
    ----------
    monoid : Monoid
        That composes ``elements``.
    elements : tuple
        In the monoid's form, time first.
    initial : array, optional
        What cut steps act on, with monoids that restart.
    reset : array of bool, optional
        Broadcasting against rows (T, ...): steps that are cut from their past.

    Returns
    -------
    Summary

    Notes
    -----
    Blelloch, "Prefix sums and their applications" (1990). Elements are read once by compiled loops and by kernels.

    Examples
    --------
    >>> import numpy as np
    >>> from recsolve.kernels.backends import summarise
    >>> from recsolve.kernels.monoids import MONOIDS
    >>> summarise(MONOIDS["clamp"], (np.array([5.0, 3.0]), np.array([1.0, 0.0]))).element
    (array([3.]), array([1.]))
    """
    name = chosen(monoid, elements, initial)
    return get("summary", name)(monoid, elements, initial=initial, reset=reset)  # type: ignore[no-any-return]


def _if_ready(monoid: Monoid, elements: Any, initial: Array | None, reset: Array | None) -> Array | None:
    """Return a scan by loops that are compiled already; None where there are none, or too few rows for them."""
    steps = len(monoid.like(elements))
    if steps < _FEW_STEPS or not (may_be_ready() and scan_numba.carries(monoid, elements, initial)):
        return None
    key = "scan", type(monoid), type(elements[0]), elements[1].dtype
    return attempt(key, steps, partial(scan_numba.scan, monoid, elements, initial=initial, reset=reset),
                   scan_numba.file_of(elements[0]))  # fmt: skip

"""Is a declared structure true of the function? A wrong declaration costs convergence; this finds it."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from recsolve.analysis.structure_truth import FUNCTIONS, Verification, by_differences, slopes, verify_jacobian
from recsolve.base.arguments import generator_of
from recsolve.base.arrays import Array, namespace, to_host, to_native
from recsolve.recurrence.base import Recurrence, check_recurrence
from recsolve.recurrence.causality import check_causal
from recsolve.recurrence.cell_recurrence import CellRecurrence
from recsolve.recurrence.engine import step_that_differs
from recsolve.recurrence.forms import ByPairs
from recsolve.recurrence.function import FunctionRecurrence
from recsolve.recurrence.function_arguments import STRUCTURES
from recsolve.recurrence.graph_recurrence import GraphRecurrence
from recsolve.recurrence.history import HistoryRecurrence

_LARGEST_STATE = 512  # beyond this the true structure is not searched for
_ROWS = 4  # rows at which it is searched


@dataclass(frozen=True)
class StructureReport:
    """The result of :func:`check_structure`; true in a condition when the declaration holds.

    Attributes
    ----------
    ok : bool
        Whether the declaration holds at the states that were tried.
    declared : str
        The declared structure.
    found : str or None
        The smallest structure that holds at the sampled rows (None when the state is too large to search).
    error : float
        Largest relative difference between the declared Jacobian and the true derivative along random directions,
        beyond what rounding and differences leave open. NaN where nothing could be compared.
    message : str
        What to do.

    Examples
    --------
    >>> import numpy as np, recsolve as rs
    >>> swap = lambda h, u: 0.5 * h[..., ::-1] + u
    >>> rec = rs.Recurrence.from_function(swap, inputs=np.ones((9, 2)), initial=np.zeros(2), structure="diagonal")
    >>> report = rs.check_structure(rec)
    >>> bool(report), report.message.split("; ")[1]
    (False, "declare structure='dense'")
    """

    ok: bool
    declared: str
    found: str | None
    error: float
    message: str

    def __bool__(self) -> bool:
        return self.ok

    def __str__(self) -> str:
        return self.message


def check_structure(
    recurrence: Recurrence, *, states: Any = None, samples: int = 3, rng: int | np.random.Generator = 0
) -> StructureReport:
    """Return whether the declared structure of a recurrence is true of its function, and which one is.

    Three things are tested: f mixes neither times nor sequences (bit for bit); the Jacobian in the declared structure
    gives the true derivative along random directions; and, for small states, which structure would be the smallest.
    Automatic derivatives are the truth where f has them, differences of f where it has not. At a kink any derivative
    between those of the two sides is true. Of a history, whether F is strictly causal is tested, and of structure
    "none", whether f mixes times or sequences.

    Parameters
    ----------
    recurrence : Recurrence
    states : array, shape (T, *batch, *event), optional
        Where to look; on a graph with its nodes in place of T. Default: f(h[0], u) plus random numbers of its size.
    samples : int
        Number of random states and directions.
    rng : int or Generator
        Seed.

    Returns
    -------
    StructureReport

    Raises
    ------
    TypeError, ValueError
        For states of another kind, dtype or shape, and what f raises.

    Examples
    --------
    >>> import numpy as np, recsolve as rs
    >>> W = np.array([[0.0, 0.5], [0.5, 0.0]])
    >>> rec = rs.Recurrence.from_function(
    ...     lambda h, u: np.tanh(h @ W.T + u), inputs=np.ones((9, 2)), initial=np.zeros(2), structure="diagonal")
    >>> report = rs.check_structure(rec)
    >>> report.ok, report.found
    (False, 'dense')
    """
    check_recurrence(recurrence)
    if samples < 1:
        raise ValueError(f"samples is {samples}; wanted at least 1")
    generator = generator_of(rng)
    if isinstance(recurrence, HistoryRecurrence):
        return _of_history(recurrence, generator)
    declared = _declared(recurrence)
    if declared == "none":
        leak = _steps_differ(recurrence, recurrence.previous(recurrence.guess()))
        return StructureReport(not leak, declared, None, float("nan"), leak or "none: no derivative is declared")
    if not np.prod(recurrence.shape):
        return StructureReport(True, declared, None, 0.0, f"{declared}: nothing to check, the recurrence is empty")
    found, leak = [], ""
    for _ in range(samples):
        previous = _sample(recurrence, states, generator)
        leak = leak or _steps_differ(recurrence, previous) or _leak(recurrence, previous, generator)
        found.append(_judged(recurrence, previous, generator))
    entries = _entries(recurrence, previous)
    smallest = None if entries is None else _classify(entries[0], recurrence.layout.event, entries[1])
    report = _report(declared, smallest, found, leak)
    if report.ok or leak or entries is None or not (missing := _undeclared(recurrence, *entries)):
        return report
    return replace(report, message=f"{report.message}, or the pairs that depend otherwise too: {missing}")


def _of_history(rec: HistoryRecurrence, generator: np.random.Generator) -> StructureReport:
    """Return whether F is strictly causal."""
    try:
        check_causal(rec, generator)
    except ValueError as error:
        return StructureReport(False, "history", None, float("nan"), str(error))
    return StructureReport(True, "history", None, float("nan"), "history: strictly causal, where it was tried")


def _judged(rec: Recurrence, previous: Array, generator: np.random.Generator) -> Verification:
    if not isinstance(rec, CellRecurrence):
        return verify_jacobian(rec, previous, rng=generator)
    return by_differences(rec, previous, rec.differentiate(previous)[1], generator)  # the library checks itself


def _report(declared: str, found: str | None, truths: list[Verification], leak: str) -> StructureReport:
    worst = float(np.fmax.reduce([x.error for x in truths]))
    if leak:
        return StructureReport(False, declared, found, worst, leak)
    if any(x.holds is False for x in truths):
        advice = f"declare structure={found!r}" if found else "declare structure='dense'"
        message = f"not true of the function (relative error {worst:.1e} along random directions); {advice}"
        return StructureReport(False, declared, found, worst, f"{declared}: {message}")
    if not any(x.holds for x in truths):
        message = f"{declared}: cannot be checked, {truths[0].reason}"
        return StructureReport(False, declared, found, worst, message)
    hint = f"; the smaller structure {found!r} would do too" if _smaller(found, declared) else ""
    return StructureReport(True, declared, found, worst, f"{declared}: true (relative error {worst:.1e}){hint}")


def _declared(rec: Recurrence) -> str:
    if isinstance(rec, FunctionRecurrence):
        return rec.structure
    return type(rec.linearise(rec.guess())[1]).__name__.lower()


def _smaller(found: str | None, declared: str) -> bool:
    order = list(STRUCTURES)
    return found is not None and declared in order and order.index(found) < order.index(declared)


def _sample(rec: Recurrence, states: Any, generator: np.random.Generator) -> Array:
    if states is not None:
        native = to_native(states, "states")
        if native.shape != (wanted := rec.as_given(rec.empty()).shape):
            raise ValueError(f"states has shape {tuple(native.shape)}; wanted {wanted}")
        return rec.previous(rec.in_order(native, "states"))
    guess = rec.guess()
    xp = namespace(guess)
    finite = to_host(guess)[np.isfinite(to_host(guess))]
    size = float(np.abs(finite).max(initial=0.0)) or 1.0
    noise = generator.standard_normal(rec.previous(guess).shape).astype(rec.dtype)
    return guess[_seen(rec, (slice(None),), None)] + size * xp.asarray(noise)  # type: ignore[no-any-return]


def _seen(rec: Recurrence, index: tuple[Any, ...], slot: Any) -> tuple[Any, ...]:
    """Return where what steps see has the entries of ``index``, (t, *batch): on a graph in a slot of parents."""
    return index if rec.graph is None else (index[0], slot, *index[1:])


def _steps_differ(rec: Recurrence, previous: Array) -> str:
    """Return a complaint when f gives another value for one step than for all at once."""
    t = step_that_differs(rec, previous.__getitem__, lambda: rec.apply(previous))
    if t is None:
        return ""
    where = f"step {t}" if rec.graph is None else f"node {rec.name_of(t)}"
    return f"f mixes times or sequences: evaluated at {where} alone it gives another value than for all t at once"


def _leak(rec: Recurrence, previous: Array, generator: np.random.Generator) -> str:
    """Return a complaint when a change of one row of h_prev changes another row of f."""
    rows = int(np.prod((rec.length, *rec.batch)))
    row = np.unravel_index(int(generator.integers(rows)), (rec.length, *rec.batch))
    moved = namespace(previous).array(previous)
    at = _seen(rec, row, slice(None))
    moved[at] = moved[at] * 1.5 + 1.0
    with np.errstate(all="ignore"):
        before, after = rec.apply(previous), rec.apply(moved)
    same = to_host((before == after) | ((before != before) & (after != after)))
    same[row] = True
    if same.all():
        return ""
    here, other = (
        (rec.name_of(int(t)), *map(int, sequence))
        for t, *sequence in (row, np.argwhere(~same)[0][: 1 + len(rec.batch)])
    )
    return (
        f"f mixes times or sequences: changing h_prev at {here} changed f at {other}; f must treat every (t, batch) "
        "entry by itself (give axis=-1 to sums and means)"
    )


def _undeclared(rec: Recurrence, matrices: Array, allowed: float) -> str:
    """Return the pairs of components with entries that their structure does not have, of a structure by pairs."""
    if not isinstance(rec, FunctionRecurrence) or not isinstance(rec.form, ByPairs):
        return ""
    pattern, least = rec.form.pattern, allowed * float(np.nanmax(abs(matrices), initial=0.0))
    seen = (abs(matrices) > least).any(axis=0) & ~pattern.matrix
    slices = pattern.named.slices.items()
    return ", ".join(str((a, b)) for a, rows in slices for b, columns in slices if seen[rows, columns].any())


def _entries(rec: Recurrence, previous: Array) -> tuple[Array, float] | None:
    """Return the full Jacobians (rows, N, N) at a few rows, and how exact they are; None where f has none."""
    N = rec.layout.size
    if N > _LARGEST_STATE:
        return None
    matrices, few = [], np.unique(np.linspace(0, rec.length - 1, _ROWS).astype(int))
    for t in few.tolist():
        part, at = rec.window(t, t + 1), previous[t : t + 1]
        for slot in range(1 if rec.graph is None else rec.graph.slots):
            with np.errstate(all="ignore"):
                columns, left = _columns(part, at, slot)
            if not columns:
                return None
            matrices.append(np.stack([to_host(c).reshape(-1, N) for c in columns], axis=-1))
    entries = np.concatenate(matrices)
    return (entries, left) if np.isfinite(entries).any() else None


def _columns(rec: Recurrence, previous: Array, slot: int) -> tuple[list[Array], float]:
    """Return the derivatives along every unit vector, and how exact they are; none of a graph that has none."""
    xp, N, eps = namespace(previous), rec.layout.size, float(np.finfo(rec.dtype).eps)
    units = xp.eye(N, dtype=rec.dtype).reshape(N, *(1,) * (1 + len(rec.batch)), *rec.layout.event)

    def direction(unit: Array) -> Array:
        v = xp.zeros_like(previous)
        v[_seen(rec, (slice(None),), slot)] = unit
        return v  # type: ignore[no-any-return]

    if isinstance(rec, CellRecurrence):
        J = rec.differentiate(previous)[1]
        return [J.matvec(direction(unit)) for unit in units], eps**0.5
    if isinstance(rec, FunctionRecurrence) and type(rec) in (*FUNCTIONS, GraphRecurrence):
        try:
            return [rec.push_state(previous, direction(unit)[None])[0] for unit in units], eps**0.5
        except Exception:  # f is the user's own code; automatic differentiation cannot follow
            pass
    if rec.graph is not None:
        return [], 0.0
    return [slopes(rec, previous, direction(unit)) for unit in units], eps ** (1 / 3)


def _classify(matrices: Array, event: tuple[int, ...], allowed: float) -> str:
    """Return the smallest structure of matrices (rows, N, N)."""
    N = matrices.shape[-1]
    small = allowed * max(float(np.nanmax(abs(matrices), initial=0.0)), 1e-300)
    diagonal = np.eye(N, dtype=bool)
    entries = matrices[:, diagonal]
    if (abs(matrices) <= small).all():
        return "zero"
    if (abs(matrices[:, ~diagonal]) <= small).all():
        if (abs(entries - 1) <= small).all():
            return "identity"
        return "scalar" if N > 1 and (np.ptp(entries, axis=1) <= small).all() else "diagonal"
    if len(event) == 2:
        first, last = np.divmod(np.arange(N), event[1])
        if (abs(matrices[:, last[:, None] != last[None, :]]) <= small).all():
            return "block"
        if (abs(matrices[:, first[:, None] != first[None, :]]) <= small).all():
            return "heads"
    return "dense"

"""Is a declared structure true of the function? A wrong declaration costs convergence, silently; this finds it."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np

from recsolve.arrays import Array, namespace, to_host, to_native
from recsolve.function import STRUCTURES, FunctionRecurrence
from recsolve.recurrence import Recurrence

_LARGEST_STATE = 512  # beyond this the true structure is not searched for
_ROWS = 4  # rows at which it is searched


@dataclass(frozen=True)
class StructureReport:
    """What :func:`check_structure` found.

    Attributes
    ----------
    ok : bool
        Whether the declaration holds at the states that were tried.
    declared : str
        The declared structure.
    found : str or None
        The smallest structure that holds at the sampled rows (None when the state is too large to search).
    error : float
        Largest relative difference between the declared Jacobian and the true derivative along random directions.
    message : str
        What to do.
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
    """Check that the declared structure of a recurrence is true of its function.

    Three things are tested: f mixes neither times nor sequences (bit for bit); the Jacobian in the declared structure
    gives the true derivative along random directions; and, for small states, which structure would be the smallest.

    Parameters
    ----------
    recurrence : Recurrence
    states : array, optional
        Where to look, shape of the states. Default: f(h[0], u) plus random numbers of its size.
    samples : int
        Number of random states and directions.
    rng : int or Generator
        Seed.

    Returns
    -------
    StructureReport
        True in a condition when the declaration holds.

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
    if samples < 1:
        raise ValueError(f"samples is {samples}; wanted at least 1")
    generator = np.random.default_rng(rng)
    declared = _declared(recurrence)
    if not np.prod(recurrence.shape):
        return StructureReport(True, declared, None, 0.0, f"{declared}: nothing to check, the recurrence is empty")
    worst, leak = float("nan"), ""
    for _ in range(samples):
        previous = _sample(recurrence, states, generator)
        leak = leak or _steps_differ(recurrence, previous) or _leak(recurrence, previous, generator)
        worst = np.fmax(worst, jacobian_error(recurrence, previous, generator))
    found = _search(recurrence, previous)
    return _report(recurrence, declared, found, worst, leak)


def _report(rec: Recurrence, declared: str, found: str | None, worst: float, leak: str) -> StructureReport:
    if leak:
        return StructureReport(False, declared, found, worst, leak)
    if np.isnan(worst):
        message = f"{declared}: cannot be checked, f is not finite or not smooth at the states tried; pass states="
        return StructureReport(False, declared, None, worst, message)
    if worst <= allowed_error(rec):
        hint = f"; the smaller structure {found!r} would do too" if _smaller(found, declared) else ""
        return StructureReport(True, declared, found, worst, f"{declared}: true (relative error {worst:.1e}){hint}")
    advice = f"declare structure={found!r}" if found else "declare structure='dense'"
    return StructureReport(
        False,
        declared,
        found,
        worst,
        f"{declared}: not true of the function (relative error {worst:.1e} along random directions); {advice}",
    )


def _declared(rec: Recurrence) -> str:
    if isinstance(rec, FunctionRecurrence):
        return rec.structure
    return type(rec.linearise(rec.guess())[1]).__name__.lower()


def _smaller(found: str | None, declared: str) -> bool:
    order = list(STRUCTURES)
    return found is not None and declared in order and order.index(found) < order.index(declared)


def allowed_error(rec: Recurrence) -> float:
    """Return the relative error that central differences leave."""
    return 1e3 * float(np.finfo(rec.dtype).eps) ** (2 / 3)  # type: ignore[no-any-return]


def _sample(rec: Recurrence, states: Any, generator: np.random.Generator) -> Array:
    if states is not None:
        native = to_native(states, "states")
        if native.shape != rec.shape:
            raise ValueError(f"states has shape {tuple(native.shape)}; wanted {rec.shape}")
        return rec.previous(native)
    guess = rec.guess()
    xp = namespace(guess)
    finite = to_host(guess)[np.isfinite(to_host(guess))]
    size = float(np.abs(finite).max(initial=0.0)) or 1.0
    noise = generator.standard_normal(rec.shape).astype(rec.dtype)
    return guess + size * xp.asarray(noise)  # type: ignore[no-any-return]


def _derivative(rec: Recurrence, previous: Array, direction: Array) -> tuple[Array, Array]:
    """Return central differences along a direction, and where they can be believed: finite, and not across a kink."""
    xp = namespace(previous)
    h = float(np.finfo(rec.dtype).eps) ** (1 / 3) * max(1.0, float(abs(previous).max()))
    with np.errstate(all="ignore"):
        middle, up, down = rec.apply(previous), rec.apply(previous + h * direction), rec.apply(previous - h * direction)
        forward, backward = (up - middle) / h, (middle - down) / h
        believed = xp.isfinite(forward - backward)
        curved = abs(forward - backward) > 0.05 * xp.maximum(abs(forward), abs(backward))
        noise = 1e3 * float(np.finfo(rec.dtype).eps) * (1 + abs(middle)) / h
        believed &= ~(curved & (abs(forward - backward) > noise))
    return (up - down) / (2 * h), believed


def jacobian_error(rec: Recurrence, previous: Array, generator: np.random.Generator) -> float:
    """Return the largest relative error of the declared Jacobian along a random direction; NaN if nothing is to see."""
    xp = namespace(previous)
    direction = xp.asarray(generator.standard_normal(rec.shape).astype(rec.dtype))
    true, believed = _derivative(rec, previous, direction)
    with np.errstate(all="ignore"):
        got = rec.differentiate(previous)[1].matvec(direction)
    if not believed.any():
        return float("nan")
    scale = float(abs(true[believed]).max()) or float(abs(got[believed]).max()) or 1.0
    worst = float(abs(true[believed] - got[believed]).max()) / scale
    return worst if np.isfinite(worst) else float("inf")


def _steps_differ(rec: Recurrence, previous: Array) -> str:
    """Return a complaint when f gives another value for one step than for all at once."""
    if (t := rec.one_step_differs(previous)) is None:
        return ""
    return f"f mixes times or sequences: evaluated at step {t} alone it gives another value than for all t at once"


def _leak(rec: Recurrence, previous: Array, generator: np.random.Generator) -> str:
    """Return a complaint when a change of one row of h_prev changes another row of f."""
    rows = int(np.prod((rec.length, *rec.batch)))
    row = np.unravel_index(int(generator.integers(rows)), (rec.length, *rec.batch))
    moved = namespace(previous).array(previous)
    moved[row] = moved[row] * 1.5 + 1.0
    with np.errstate(all="ignore"):
        before, after = rec.apply(previous), rec.apply(moved)
    same = to_host((before == after) | ((before != before) & (after != after)))
    same[row] = True
    if same.all():
        return ""
    other = tuple(int(i) for i in np.argwhere(~same)[0][: 1 + len(rec.batch)])
    here = tuple(int(i) for i in row)
    return (
        f"f mixes times or sequences: changing h_prev at {here} changed f at {other}; f must treat every (t, batch) "
        "entry by itself (give axis=-1 to sums and means)"
    )


def _search(rec: Recurrence, previous: Array) -> str | None:
    """Return the smallest structure that holds at a few rows, from their full Jacobians."""
    N = rec.layout.size
    if N > _LARGEST_STATE:
        return None
    xp = namespace(previous)
    rows = np.unique(np.linspace(0, rec.length - 1, _ROWS).astype(int))
    columns = []
    for j in range(N):
        unit = xp.zeros(N, dtype=rec.dtype)
        unit[j] = 1
        direction = xp.broadcast_to(unit.reshape(rec.layout.event), rec.shape)
        with np.errstate(all="ignore"):
            column = to_host(_derivative(rec, previous, direction)[0])
        columns.append(column[rows].reshape(len(rows), -1, N))
    return _classify(np.stack(columns, axis=-1).reshape(-1, N, N), rec.layout.event, allowed_error(rec))


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

"""Is the Jacobian that a recurrence gives the derivative of its function, at these states?

For a cell it is, by construction, where there is one; where a class of one's own takes part (a mixing whose ``matvec``
may not be linear, say) differences of f decide. For a user's function two things can be wrong, and are tested along a
random v:

- the *structure* is a declaration even where the entries are derived: J v is compared with the automatic derivative
  along v. The two differ by rounding at most, so a mismatch is a proof;
- a *jacobian* that the user gives (and Zero or Identity, which have no entries) is compared with the automatic
  derivative first. Where they differ, or where there is none, differences of f decide.

Differences decide as :mod:`recsolve.analysis.differences` says. With kinks in several variables at once Clarke's set is
larger than the hull of both sides, and a chain rule through kinks may leave even that set (Bolte and Pauwels,
"Conservative set valued fields", 2021). So where units couple, a Jacobian that jumps at the states is judged beside
them: it is refused if it is not the derivative there, and believed if at the states it is between its values around
them.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np

from recsolve.analysis.differences import brackets, reach_of
from recsolve.base.arrays import Array, namespace, to_host
from recsolve.jacobians import Diagonal, Jacobian, Zero
from recsolve.jacobians.jacobian import Entries
from recsolve.mixings import Mixing, states_linear
from recsolve.recurrence.base import Recurrence
from recsolve.recurrence.cell_recurrence import CellRecurrence
from recsolve.recurrence.compilation import unknown_parts
from recsolve.recurrence.function import FunctionRecurrence
from recsolve.recurrence.graph_recurrence import GraphRecurrence
from recsolve.recurrence.ragged_recurrence import RaggedRecurrence

FUNCTIONS = (FunctionRecurrence, RaggedRecurrence)  # whose f is the user's function, step by step

_TRIES = 3  # directions along which a derivative must fail before it is refused
_FINEST = 1e-4  # relative difference that counts
_ENOUGH = 0.25  # of the entries must be seen
_SHARE = 0.01  # an interval below this share of the derivative is narrow enough
_AROUND = 8  # states at which a Jacobian is looked at around one that may be a kink


@dataclass(frozen=True)
class Verification:
    """Whether a Jacobian is the derivative.

    Attributes
    ----------
    holds : bool or None
        None where that could not be decided.
    error : float
        The largest relative difference that was seen; NaN where nothing could be compared.
    reason : str
        Why it does not hold, or is unknown.
    missing : bool
        Whether there is no Jacobian at all.
    """

    holds: bool | None
    error: float
    reason: str = ""
    missing: bool = False


@dataclass(frozen=True)
class _Comparison:
    """For every entry of J v: by how much it misses, relative to its terms, and whether that is known."""

    error: Array
    known: Array
    allowed: float

    @property
    def wrong(self) -> Array:
        return self.known & (self.error > self.allowed)


def verify_jacobian(
    recurrence: Recurrence, previous: Array, jacobian: Jacobian | None = None, *, rng: Any = 0
) -> Verification:
    """Return whether the Jacobian of a recurrence is its derivative at some states.

    Parameters
    ----------
    recurrence : Recurrence
    previous : array, shape (T, *batch, *event)
        h[t-1] for all t, native.
    jacobian : Jacobian, optional
        What ``differentiate`` returned there.
    rng : int or Generator
        Seed of the random directions.

    Returns
    -------
    Verification
        An exception of f becomes its ``reason``.

    Examples
    --------
    >>> import numpy as np, recsolve as rs
    >>> from recsolve.analysis.structure_truth import verify_jacobian
    >>> rec = rs.Recurrence.from_function(
    ...     lambda h, u: h * h, inputs=np.ones((3, 1)), initial=np.ones(1), structure="zero")
    >>> verify_jacobian(rec, np.ones((3, 1))).holds
    False
    """
    if not previous.size:
        return Verification(True, 0.0)
    derived = type(recurrence) is CellRecurrence and all(_is_linear(x) for x in unknown_parts(recurrence))
    try:
        with np.errstate(all="ignore"):
            if derived and jacobian is None:
                recurrence.window(0, 1).differentiate(previous[:1])  # one step has a derivative if all have
            elif jacobian is None:
                jacobian = recurrence.differentiate(previous)[1]
    except Exception as error:  # f is the user's own code, and may raise anything
        return Verification(None, float("nan"), f"f cannot be differentiated ({error})", missing=True)
    if derived or jacobian is None:
        return Verification(True, 0.0)
    with np.errstate(all="ignore"):
        return _judged(recurrence, previous, jacobian, np.random.default_rng(rng))


def _is_linear(part: object) -> bool:
    """Return whether a part of a recurrence that compiled loops do not know is a mixing that states it is linear."""
    return isinstance(part, Mixing) and states_linear(part)


def _judged(rec: Recurrence, previous: Array, J: Jacobian, generator: np.random.Generator) -> Verification:
    if isinstance(rec, FunctionRecurrence) and type(rec) in (*FUNCTIONS, GraphRecurrence):
        try:
            found, _ = _repeated(lambda: by_derivatives(rec, previous, J, generator))
        except Exception:  # automatic differentiation cannot follow
            found = None
        if found is not None and (found.holds or rec.is_automatic or rec.graph is not None):
            return found
    if rec.graph is not None:
        return Verification(None, float("nan"), "f on a graph has no automatic derivative to compare with")
    return by_differences(rec, previous, J, generator)


def by_differences(rec: Recurrence, previous: Array, J: Jacobian, generator: np.random.Generator) -> Verification:
    """Return how a Jacobian compares with differences of f along random directions."""
    with np.errstate(all="ignore"):
        found, wrong = _repeated(lambda: _differences(rec, previous, J, generator))
        return found if found.holds else _beside(rec, previous, J, generator, found, wrong)


def _beside(
    rec: Recurrence, previous: Array, J: Jacobian, generator: np.random.Generator, found: Verification, wrong: Array
) -> Verification:
    """Return the verdict where states may lie on kinks, from the Jacobian around them and at some distance."""
    xp, v, alone = namespace(previous), _direction(rec, previous, generator), J.rank <= Diagonal.rank
    reach = reach_of(rec, previous, rec.apply(previous), xp.zeros_like(previous), alone)
    reach = xp.where(reach > 0, reach, 0).astype(rec.dtype)

    def moved(share: float) -> tuple[Array, Jacobian]:
        there = previous + share * reach * _direction(rec, previous, generator)
        return there, rec.differentiate(there)[1]

    short = float(np.finfo(rec.dtype).eps) ** 0.5
    around = xp.stack([moved(short)[1].matvec(v) for _ in range(_AROUND)])
    lower, upper, slack = around.min(axis=0), around.max(axis=0), _SHARE * abs(around).max(axis=0)
    jumps = upper - lower > slack
    if not alone:  # kinks of what is inside f are seen in some of the units
        event = tuple(range(1 + len(rec.batch), previous.ndim))
        jumps = xp.broadcast_to(jumps.any(axis=event, keepdims=True), jumps.shape)
    if not jumps[wrong].all():
        return found  # it is smooth where it is wrong
    there, K = moved(1.0)
    judged, _ = _repeated(lambda: _differences(rec, there, K, generator))
    if judged.holds is False:
        return judged
    got = J.matvec(v)
    if judged.holds and ((got >= lower - slack) & (got <= upper + slack)).all():
        return judged
    if not wrong.any():
        return found
    return Verification(None, float("nan"), "states lie on kinks, where the Jacobian is not between those around them")


def _repeated(compare: Any) -> tuple[Verification, Array]:
    """Return the verdict over a few directions, and the entries that are wrong along all of them."""
    first = compare()
    wrong = first.wrong
    for _ in range(_TRIES - 1):
        if not wrong.any():
            break
        wrong = wrong & compare().wrong
    if wrong.any():
        error = float(first.error[wrong].max())
        reason = f"the declared structure or jacobian is not the derivative of f (relative error {error:.1e})"
        return Verification(False, error, reason), wrong
    if float(first.known.mean()) < _ENOUGH:
        reason = "f is not finite, not smooth or too rough at the states, so its derivative is unknown"
        return Verification(None, float("nan"), reason), wrong
    return Verification(True, float(to_host(first.error[first.known & ~first.wrong]).max(initial=0.0))), wrong


def _direction(rec: Recurrence, previous: Array, generator: np.random.Generator) -> Array:
    """Return a random direction without small entries."""
    signs = generator.choice([-1.0, 1.0], previous.shape) * generator.uniform(0.5, 1.5, previous.shape)
    return namespace(previous).asarray(signs.astype(rec.dtype))  # type: ignore[no-any-return]


def _terms(J: Jacobian, v: Array) -> Array:
    """Return |J| |v|, or |J v| where the entries are not known."""
    return J._mapped(abs).matvec(abs(v)) if isinstance(J, Entries) else abs(J.matvec(v))


def _compared(missed: Array, scale: Array, known: Array, allowed: float, tiny: float) -> _Comparison:
    error = namespace(missed).where(missed > 0, missed / scale, missed.dtype.type(0))
    known = known & ~(error != error) & ((error <= allowed) | (missed > tiny**0.5))  # below that, factors underflow
    return _Comparison(error, known, allowed)


def by_derivatives(
    rec: FunctionRecurrence, previous: Array, J: Jacobian, generator: np.random.Generator
) -> _Comparison:
    """Return how a Jacobian compares with automatic derivatives; by how much these miss linearity is their rounding."""
    xp = namespace(previous)
    v, w = _direction(rec, previous, generator), _direction(rec, previous, generator)
    along_v, along_w, along_both = rec.push_state(previous, xp.stack([v, w, v + w]))
    got = J.matvec(v)
    rounding = 16 * abs(along_both - along_v - along_w)
    known = xp.isfinite(got) & xp.isfinite(along_both) & xp.isfinite(rounding)
    scale = _terms(J, v) + abs(along_v)
    limits = np.finfo(rec.dtype)
    return _compared(abs(got - along_v) - rounding, scale, known, float(limits.eps) ** 0.5, float(limits.tiny))


def _differences(rec: Recurrence, previous: Array, J: Jacobian, generator: np.random.Generator) -> _Comparison:
    xp, alone, eps = namespace(previous), J.rank <= Diagonal.rank, float(np.finfo(rec.dtype).eps)
    v = _direction(rec, previous, generator)
    apply, x = _in_double(rec, previous)
    wide = _cast(J, x.dtype)
    values, terms = apply(x), _terms(wide, v)
    short = eps**0.5 * (abs(x) + abs(values)) * v
    seen = abs(apply(x + short) - values) / xp.where(short == 0, 1, abs(short))  # f may be steep where J is not
    reach = reach_of(rec, x, values, xp.fmax(terms, seen), alone) * generator.uniform(0.5, 1.0)
    step = reach * v
    below, above = brackets(apply, x, values, step, wide, 16 * eps)
    lower, upper = xp.minimum(below[0], above[0]), xp.maximum(below[1], above[1])
    # Rounding moves the state on the way to f or to J, and so moves J.
    rounded = rec.apply(previous)
    blur = xp.where(rounded == values, 0, xp.fmin(4 * abs(rounded - values) / terms, reach / 16)) + 4 * eps * abs(x)
    nudged = rec.differentiate((x + blur * v).astype(rec.dtype))[1]
    moved = abs(_cast(nudged, x.dtype).matvec(step) - wide.matvec(step))
    missed = xp.maximum(lower, -upper) - 4 * moved
    scale = _terms(wide, step) + xp.minimum(abs(lower), abs(upper))
    least = max(64 * eps, float(np.finfo(x.dtype).eps) ** 0.5)
    missed = xp.where(missed > least * abs(values), missed, 0)  # by less, a saturated 1 - tanh(x)^2 rounds
    width = xp.maximum(below[1] - below[0], above[1] - above[0])
    known = (below[0] <= below[1]) & (above[0] <= above[1]) & xp.isfinite(width + rounded)
    if not alone:
        known &= (above[0] <= below[1]) & (below[0] <= above[1])
    typical = scale[known].mean() if known.any() else 0.0
    known &= (missed > 0) | (width <= _SHARE * xp.maximum(xp.maximum(scale, typical), reach / 10))
    return _compared(missed, scale, known, max(_FINEST, 4 * eps**0.5), float(np.finfo(rec.dtype).tiny))


def slopes(rec: Recurrence, previous: Array, direction: Array) -> Array:
    """Return the derivative of f along a direction by differences, shape of the states.

    NaN where it is not seen, 0 where 0 is among the possible values.
    """
    xp, (apply, x) = namespace(previous), _in_double(rec, previous)
    values, none = apply(x), Zero(x, rec.layout)
    reach = reach_of(rec, x, values, xp.zeros_like(x), False)
    below, above = brackets(apply, x, values, reach * direction, none, 0.0)
    lower, upper = xp.minimum(below[0], above[0]), xp.maximum(below[1], above[1])
    known = (below[0] <= below[1]) & (above[0] <= above[1]) & xp.isfinite(upper - lower)
    middle = xp.where((lower <= 0) & (upper >= 0), 0, (lower + upper) / 2)
    return xp.where(known, middle, np.nan) / reach  # type: ignore[no-any-return]


def _in_double(rec: Recurrence, previous: Array) -> tuple[Callable[[Array], Array], Array]:
    """Return f, and the states, in double precision where the function follows: differences see more then."""
    if isinstance(rec, FunctionRecurrence) and type(rec) in FUNCTIONS and rec.dtype == np.float32:
        try:
            double = rec.astype(np.float64)
            x = previous.astype(np.float64)
            double.apply(x)
            return double.apply, x
        except Exception:  # it fixes the dtype of its results
            pass
    return rec.apply, previous


def _cast(J: Jacobian, dtype: Any) -> Jacobian:
    return J._mapped(lambda x: x.astype(dtype)) if isinstance(J, Entries) else J

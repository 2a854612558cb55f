"""What a solver works on: the recurrence with its tolerance, its counters, and the guards that keep every step safe."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property
from typing import Any, NamedTuple

import numpy as np

from recsolve.arrays import Array, namespace, to_host
from recsolve.jacobians import Jacobian, Zero
from recsolve.kernels.iterate import guard, largest_finite, residual_of
from recsolve.recurrence import Recurrence
from recsolve.scan import affine_scan
from recsolve.tolerance import Tolerance

_TOGETHER = 1 << 16  # rows whose segments are looked at together, to save memory where a state is one number


@dataclass(frozen=True)
class Iterate:
    """A trajectory and all that is known of it; nothing in it belongs to another trajectory.

    Attributes
    ----------
    states, values, residual : array
        h, F[t] = f(h[t-1], u[t]) and r = F - h, each (T, *batch, *event).
    jacobian : Jacobian or None
        d F[t] / d h[t-1], for solvers that need it.
    converged : array of bool
        (T, *batch): rows whose every entry meets the tolerance.
    leading : array of bool
        (T, *batch): exact rows, and only such rows before them, back to the start of their sequence or the last reset.
        They are the sequential loop's own: their residual is 0, or was when the pin took F from an exact row before
        (f of other rows beside them may round otherwise).
    front : array of bool
        (T, *batch): the row after the leading ones in each segment.
    worst : float
        max |r|, NaN if any entry is.
    blocked : bool
        Whether each segment has converged, or has converged up to a row that equals its own non-finite F: no method can
        go further.
    """

    states: Array
    values: Array
    residual: Array
    jacobian: Jacobian | None
    converged: Array
    leading: Array
    front: Array
    worst: float
    blocked: bool

    @cached_property
    def progress(self) -> int:
        """The number of leading rows."""
        return int(self.leading.sum())

    def part(self, index: Any) -> Iterate:
        """Return what is known of some times and sequences (an index of the first axes)."""
        jacobian = None if self.jacobian is None else self.jacobian[index]
        names = ("states", "values", "residual", "converged", "leading", "front")
        arrays = {name: getattr(self, name)[index] for name in names}
        return Iterate(**arrays, jacobian=jacobian, worst=largest(arrays["residual"]), blocked=self.blocked)


def largest(residual: Array) -> float:
    """Return max |r|, NaN if any entry is, 0 of nothing."""
    return float(to_host(abs(residual).max())) if residual.size else 0.0


def leading_times(rows: Array) -> int:
    """Return how many leading times are true in all sequences, of rows (T, *batch, ...)."""
    host = to_host(rows)
    failed = np.flatnonzero(~host.all(axis=tuple(range(1, host.ndim))))
    return int(failed[0]) if failed.size else len(host)


class Direct(NamedTuple):
    """What compiled loops find: states, iterations, and F of these states where the loops have it anyway."""

    states: Array
    iterations: int
    values: Array | None = None


class Problem:
    """A recurrence to solve.

    Parameters
    ----------
    recurrence : Recurrence
    tolerance : Tolerance
    pin : bool
        Whether leading rows, which are exact, are left alone and the row after them takes F exactly. With the pin every
        causal method ends within T iterations, with the sequential loop's own numbers.
    jacobian : bool
        Whether iterates carry the Jacobian.

    Attributes
    ----------
    event_axes : tuple of int
        The axes of a trajectory after time and batch.
    counts : Counter
        ``nfev`` and ``njev`` (evaluations of f and of its Jacobian at all t still to be solved), ``njvp`` (products
        with a Jacobian that is not formed), ``nscan``, and ``rows``: at how many (t, sequence) f has been evaluated.
    """

    def __init__(self, recurrence: Recurrence, tolerance: Tolerance, *, pin: bool, jacobian: bool):
        self.recurrence, self.tolerance, self.pin, self.jacobian = recurrence, tolerance, pin, jacobian
        self.counts: Counter[str] = Counter(nfev=0, njev=0, njvp=0, nscan=0, rows=0)
        self.starts = recurrence.starts
        self.horizon = recurrence.length  # of the whole, when this is a part
        self._known: Array | None = None  # the largest |h| that is known to be real, per sequence
        self.event_axes = tuple(range(1 + len(recurrence.batch), len(recurrence.shape)))
        self._starts = to_host(self.starts)

    def part(self, recurrence: Recurrence, place: tuple[Array, ...] | None = None) -> Problem:
        """Return the problem of a window, or of the sequences at ``place``, counting into the same book."""
        part = Problem(recurrence, self.tolerance, pin=self.pin, jacobian=self.jacobian)
        part.counts, part.horizon, part._known = self.counts, self.horizon, self._known
        if part._known is not None and place is not None:
            index: Any = (slice(None), *place)
            part._known = part._known[index]
        return part

    def evaluate(
        self,
        states: Array,
        *,
        pinned: Array | None = None,
        jacobian: bool | None = None,
        chunk: int | None = None,
    ) -> Iterate:
        """Evaluate F, the residual and what it says of every row.

        Parameters
        ----------
        states : array
        pinned : array of bool, optional
            Rows that are exact by construction.
        jacobian : bool, optional
            Whether the iterate carries it; default: as the solver needs.
        chunk : int, optional
            Evaluate f at so many times together, to save memory.
        """
        rec, J = self.recurrence, None
        self.count_evaluation()
        if self.jacobian if jacobian is None else jacobian:
            self.counts["njev"] += 1
            values, J = rec.linearise(states)
        else:
            values = rec.evaluate(states) if chunk is None else self._by_chunks(states, chunk)
        return self.judge(states, values, J, pinned)

    def judge(self, states: Array, values: Array, J: Jacobian | None = None, pinned: Array | None = None) -> Iterate:
        """Return what follows from states and F."""
        residual, converged, exact, sizes = residual_of(states, values, self.tolerance, self.event_axes)
        if pinned is not None:
            exact = exact | (pinned & namespace(states).isfinite(sizes))
        leading, front = self.front(exact)
        worst = largest(sizes)
        blocked = not np.isfinite(worst) and self._blocked(states, values, converged)
        return Iterate(states, values, residual, J, converged, leading, front, worst, blocked)

    def sweep(self, *, scanned: bool = True) -> Direct | None:
        """Return what :meth:`Recurrence.sweep` does to this tolerance, and count its evaluations."""
        found = self.recurrence.sweep((self.tolerance.atol, self.tolerance.rtol), scanned=scanned)
        if found is None:
            return None
        states, iterations, residual = found
        evaluations = iterations + 1
        self.counts.update(nfev=evaluations, rows=evaluations * self.starts.size)
        self.counts.update(dict.fromkeys(("njev", "nscan"), evaluations * scanned))
        return Direct(states, iterations, None if residual is None else states + residual)

    def guess(self) -> Array:
        """Return f(h[0], u[t]) at every t."""
        self.count_evaluation()
        return self.recurrence.guess()

    def count_evaluation(self) -> None:
        """Count an evaluation of f at all t."""
        self.counts["nfev"] += 1
        self.counts["rows"] += self.starts.size

    def _by_chunks(self, states: Array, chunk: int) -> Array:
        """Return F, with the memory of one chunk beside it."""
        rec, values = self.recurrence, namespace(states).empty_like(states)
        for start in range(0, rec.length, chunk):
            stop = min(start + chunk, rec.length)
            before = rec.wrap(states[start - 1].copy()) if start else None
            values[start:stop] = rec.window(start, stop, before).evaluate(states[start:stop])
        return values  # type: ignore[no-any-return]

    def linearise(self, iterate: Iterate) -> Jacobian:
        """Return the Jacobian at an iterate that carries none."""
        self.counts["njev"] += 1
        self.counts["rows"] += self.starts.size
        return self.recurrence.linearise(iterate.states)[1]

    def _rows(self, entries: Array) -> Array:
        """Return the rows (T, *batch) of which every entry is true."""
        return entries.all(axis=self.event_axes)  # type: ignore[return-value]

    def _blocked(self, states: Array, values: Array, converged: Array) -> bool:
        """Return whether the first row of each segment to fail the tolerance equals a non-finite F."""
        xp = namespace(states)
        equal = (values == states) | ((values != values) & (states != states))
        hopeless = ~self._rows(xp.isfinite(values)) & self._rows(equal | xp.isfinite(values))
        _, front = self.front(converged)
        return bool(front.any()) and not bool((front & ~hopeless).any())

    def front(self, good: Array) -> tuple[Array, Array]:
        """Return the leading good rows of every segment, and the row at which each stops."""
        xp, host = namespace(good), to_host(good)
        if not host.size:
            return good, good.copy()
        clean = np.empty(host.shape, bool)
        failure, start = (np.full((1, *host.shape[1:]), -1) for _ in range(2))
        rows = max(_TOGETHER // max(self._starts[0].size, 1), 1)
        for begin in range(0, len(host), rows):
            part = slice(begin, begin + rows)
            index = np.arange(begin, min(begin + rows, len(host))).reshape((-1,) + (1,) * (host.ndim - 1))
            failures, starts = (
                np.maximum.accumulate(np.concatenate([before, np.where(mask[part], index, -1)]), axis=0)
                for before, mask in ((failure, ~host), (start, self._starts))
            )
            clean[part] = failures[:-1] < starts[1:]
            failure, start = failures[-1:], starts[-1:]
        return xp.asarray(clean & host), xp.asarray(clean & ~host)

    def cut(self, iterate: Iterate) -> Array:
        """Return the rows that take F without a correction from the row before, (T, *batch)."""
        return self.starts | iterate.leading | iterate.front if self.pin else self.starts

    def correct(self, iterate: Iterate, A: Jacobian) -> Array:
        """Return F[t] + A[t] d[t-1], where d[t] = A[t] d[t-1] + r[t] with cut rows selected."""
        if type(A) is Zero:
            return iterate.values
        self.counts["nscan"] += 1
        cut = self.recurrence.over_event(self.cut(iterate))
        d = affine_scan(A, iterate.residual, reset=cut)
        return iterate.values + self.carried(A.matvec, d, cut)

    def carried(self, product: Callable[[Array], Array], d: Array, cut: Array) -> Array:
        """Return A[t] d[t-1], nothing in rows that are cut from the one before."""
        before = namespace(d).empty_like(d)
        before[1:], before[:1] = d[:-1], 0
        return namespace(d).where(cut, d.dtype.type(0), product(before))  # type: ignore[no-any-return]

    def advance(self, iterate: Iterate, proposal: Array) -> Iterate:
        """Guard and pin a proposal, and evaluate it."""
        return self.evaluate(self.guarded(iterate, proposal), pinned=self.pinned(iterate))

    def pinned(self, iterate: Iterate) -> Array | None:
        """Return the rows that the pin makes exact in the next iterate."""
        return iterate.leading | iterate.front if self.pin else None

    def guarded(self, iterate: Iterate, proposal: Array) -> Array:
        """Return a proposal made safe.

        An entry that is not finite, or farther out than a recurrence with ||J|| <= 1 can come, takes the plain step F.
        The bound is 2 (T + 1) sqrt(N) times the largest number known of its sequence: of the first iterate and its F,
        of h[0] and of the rows solved since, but not of other iterates, whose junk would make room for more. Then the
        pin is applied.
        """
        pins = (iterate.leading, iterate.front) if self.pin else None
        return guard(proposal, iterate.states, iterate.values, self._reach(iterate), pins, self.event_axes)

    def _reach(self, iterate: Iterate) -> Array:
        """Return the bound on |h| per sequence, shape (1, *batch, 1...)."""
        rec, xp = self.recurrence, namespace(iterate.states)
        if self._known is None:
            self._known = xp.maximum(self._largest(iterate.values), self._largest(rec.initial[None]))
            self._known = xp.maximum(self._known, self._largest(iterate.states))
        solved, _ = self.front(iterate.converged)
        if solved.any():
            self._known = xp.maximum(self._known, self._largest(iterate.states, solved))
        return 2.0 * (self.horizon + 1) * rec.layout.size**0.5 * self._known  # type: ignore[no-any-return]

    def _largest(self, x: Array, rows: Array | None = None) -> Array:
        """Return the largest finite |x| of each sequence, of some rows (T, *batch), shape (1, *batch, 1...)."""
        sizes = largest_finite(x, self.event_axes)
        if rows is not None:
            sizes = namespace(x).where(rows, sizes, sizes.dtype.type(0))
        if not sizes.size:
            sizes = namespace(x).zeros((1, *sizes.shape[1:]), sizes.dtype)
        return sizes.max(axis=0).reshape(1, *sizes.shape[1:], *(1,) * len(self.event_axes))  # type: ignore[no-any-return]

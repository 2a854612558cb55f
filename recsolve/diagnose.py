"""What a short pilot tells of a recurrence: how chaotic it is, and how many iterations each solver will need."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np

from recsolve import solvers
from recsolve.arrays import Array, namespace, to_host
from recsolve.condition import condition
from recsolve.jacobians import Identity, Jacobian, Zero
from recsolve.recurrence import Recurrence
from recsolve.scan import affine_scan
from recsolve.solve import solve
from recsolve.solvers.sequential import loop
from recsolve.tolerance import tolerance_for


@dataclass(frozen=True)
class Diagnosis:
    """What :func:`diagnose` found.

    Attributes
    ----------
    length, pilot : int
        T, and the number of leading steps that were looked at.
    lyapunov : array
        The leading Lyapunov exponents per step, largest first, averaged over the sequences: below 0 perturbations die
        out and parallel methods converge fast; above 0 the recurrence is chaotic.
    condition : float
        kappa of the pilot.
    mass : dict
        For each fixed matrix A the largest |(A - J) v| / |v| over the pilot, v random: how far A is from J.
    predicted : dict
        Iterations each solver is expected to need for all T steps; T where only the pin would end it.
    """

    length: int
    pilot: int
    lyapunov: Array
    condition: float
    mass: dict[str, float]
    predicted: dict[str, int]

    def __str__(self) -> str:
        exponents = ", ".join(f"{x:.3g}" for x in self.lyapunov)
        rate = float(self.lyapunov[0])
        chaotic = "chaotic: small residuals do not mean small errors"
        kind = "contractive" if rate < 0 else chaotic if rate > 0 else "neutral" if rate == 0 else "unknown"
        counts = ", ".join(f"{name} {n}" for name, n in sorted(self.predicted.items(), key=lambda item: item[1]))
        return (
            f"Lyapunov exponents {exponents} per step ({kind}); kappa {self.condition:.1e} over {self.pilot} steps\n"
            f"predicted iterations for T = {self.length}: {counts}"
        )


def diagnose(
    recurrence: Recurrence,
    states: Any = None,
    *,
    pilot: int = 256,
    exponents: int = 4,
    tol: float | None = None,
    rng: int | np.random.Generator = 0,
) -> Diagnosis:
    """Diagnose a recurrence from its first steps, without solving all of it.

    Solvers with a fixed matrix A (jacobi, picard, quasi_newton, scaled_newton, clipped_newton, chord) are predicted by
    running their error recursion e <- (I - A S)^-1 (J - A) S e on the pilot, S the shift by one step; the others are
    run on it. Counts at the pilot and at a quarter of it are extrapolated in log T. The sequential loop is not listed.

    Parameters
    ----------
    recurrence : Recurrence
        At least 2 steps.
    states : array, optional
        A trajectory, of which the first ``pilot`` rows are used; default: the sequential loop over them.
    pilot : int
        Number of steps to look at, at least 2.
    exponents : int
        How many Lyapunov exponents.
    tol : float, optional
        As in :func:`recsolve.solve`.
    rng : int or Generator
        Seed of the random directions.

    Returns
    -------
    Diagnosis

    Raises
    ------
    ValueError
        For a recurrence or pilot of fewer than 2 steps, an empty batch, or states of a wrong shape.

    Notes
    -----
    The error recursion is proposition 3 of Gonzalez et al. (2025, "all as linear dynamical systems"); exponents by the
    QR method of Benettin et al. (1980).

    Examples
    --------
    >>> import numpy as np, recsolve as rs
    >>> cell = rs.cells.GRU.random(input_size=3, hidden_size=8, rng=0)
    >>> d = rs.diagnose(cell.recurrence(np.ones((2000, 3))), pilot=64)
    >>> bool(d.lyapunov[0] < 0), d.predicted["newton"] < d.predicted["jacobi"]
    (True, True)
    """
    length = min(pilot, recurrence.length)
    if length < 2 or 0 in recurrence.shape or exponents < 1:
        raise ValueError(
            f"pilot is {pilot}, exponents {exponents} and the states have shape {recurrence.shape}; wanted 2 steps or "
            "more, 1 exponent or more, and no empty axis"
        )
    generator = np.random.default_rng(rng)
    short = recurrence.window(0, length)
    truth = loop(short) if states is None else recurrence.native(states, "states", recurrence.shape)[:length]
    _, J = short.linearise(truth)
    with np.errstate(all="ignore"):
        spectrum = _lyapunov(short, J, exponents, generator)
        fixed = _fixed(short, J)
        mass = {name: _mass(short, J, A, generator) for name, A in fixed.items()}
        rate = float(spectrum[0])
        predicted = {
            name: _predict(recurrence, name, fixed.get(name), J, truth, length, tol, rate)
            for name in solvers.REGISTRY
            if name != "sequential"
        }
    # The error recursion is linear: where A = J it sees one iteration, and the curvature of f decides as for newton.
    predicted.update({name: max(predicted[name], predicted["newton"]) for name in fixed})
    return Diagnosis(recurrence.length, length, spectrum, condition(short, truth), mass, predicted)


def _fixed(short: Recurrence, J: Jacobian) -> dict[str, Jacobian]:
    """Return the matrices A that stay the same near the solution (the chord's is that of the first iterate)."""
    guess = short.guess()
    return {
        "jacobi": Zero(guess, short.layout),
        "picard": Identity(guess, short.layout),
        "quasi_newton": J.block(),
        "clipped_newton": J.diagonal().clip(-1.0, 1.0),
        "scaled_newton": J.scale(1.0 - solvers.ScaledNewton().k),
        "chord": short.linearise(guess)[1],
    }


def _lyapunov(short: Recurrence, J: Jacobian, count: int, generator: np.random.Generator) -> Array:
    """Return the leading exponents: push a frame of vectors along, and average the logarithms of what QR takes out."""
    N, batch, event = short.layout.size, short.batch, short.layout.event
    count, starts = min(count, N), to_host(short.starts)
    frame, _ = np.linalg.qr(generator.standard_normal((*batch, N, count)))
    logs, steps = np.zeros((*batch, count)), np.zeros(batch)
    xp = namespace(short.initial)
    for t in range(short.length):
        columns = xp.asarray(np.moveaxis(frame, -1, 0).reshape(count, *batch, *event).astype(short.dtype))
        moved = np.stack([to_host(J[t].matvec(column)) for column in columns]).astype(np.float64)
        stretched = np.moveaxis(moved.reshape(count, *batch, N), 0, -1)
        goes_on = ~starts[t][..., None, None]  # a step that starts afresh says nothing of growth
        frame_next, R = np.linalg.qr(np.where(goes_on, stretched, frame))
        logs += np.where(goes_on[..., 0], np.log(abs(np.diagonal(R, axis1=-2, axis2=-1))), 0.0)
        steps += ~starts[t]
        frame = np.where(np.isfinite(frame_next), frame_next, frame)
    exponents = logs / np.maximum(steps, 1)[..., None]
    return np.asarray(np.sort(exponents.reshape(-1, count).mean(axis=0))[::-1])


def _mass(short: Recurrence, J: Jacobian, A: Jacobian, generator: np.random.Generator) -> float:
    """Return the largest |(A - J) v| / |v| over the pilot for random v."""
    v = namespace(short.initial).asarray(generator.standard_normal(short.shape).astype(short.dtype))
    axes = tuple(range(1 + len(short.batch), v.ndim))
    missed = A.matvec(v) - J.matvec(v)
    return float(to_host(((missed**2).sum(axis=axes) / (v**2).sum(axis=axes)).max())) ** 0.5  # type: ignore[no-any-return]


def _predict(
    rec: Recurrence,
    name: str,
    A: Jacobian | None,
    J: Jacobian,
    truth: Array,
    length: int,
    tol: float | None,
    rate: float,
) -> int:
    """Return the count for all T steps from those at the pilot and at a quarter of it, which is two halvings."""
    counts, shrinks = [], False
    for size in (max(length // 4, 1), length):
        short = rec.window(0, size)
        if A is None:
            solution = solve(short, method=name, tol=tol)
            if not solution.success:
                return rec.length
            counts.append(solution.nit)
        else:
            count, shrinks = _error_recursion(short, A[:size], J[:size], truth[:size], tol)
            counts.append(count)
    quarter, full = counts
    if full >= 0.7 * length:  # the pilot ended it row by row, not its own convergence
        if shrinks and rate < 0:  # it would converge in a longer one, no slower than perturbations die out
            eps = max(tolerance_for(rec, tol).atol, float(np.finfo(rec.dtype).tiny))
            return int(min(max(full, np.ceil(np.log(eps) / rate)), rec.length))
        return max(full, round(rec.length * full / length))
    per_doubling = max(full - quarter, 0) / 2
    return min(round(full + per_doubling * np.log2(rec.length / length)), rec.length)  # type: ignore[no-any-return]


def _error_recursion(short: Recurrence, A: Jacobian, J: Jacobian, truth: Array, tol: float | None) -> tuple[int, bool]:
    """Return after how many steps the residual of e <- (I - A S)^-1 (J - A) S e meets the tolerance.

    Also returns whether the error was shrinking half way, where the front that the start sends out has not arrived.
    """
    xp = namespace(truth)
    test = tolerance_for(short, tol)
    starts = short.over_event(short.starts)
    e = short.guess() - truth
    first, shrinks = float(abs(e).max()), True
    for count in range(short.length):
        if count == max(short.length // 2, 1):
            shrinks = float(abs(e).max()) < 0.5 * first
        before = xp.empty_like(e)
        before[1:], before[:1] = e[:-1], 0
        before = xp.where(starts, e.dtype.type(0), before)
        change = J.matvec(before)
        if bool(test.met(truth, truth, change - e).all()):
            return count, shrinks
        e = affine_scan(A, change - A.matvec(before), reset=starts)
        e = xp.where(xp.isfinite(e), e, e.dtype.type(1e30))  # an overflow stays far from the tolerance
    return short.length, shrinks

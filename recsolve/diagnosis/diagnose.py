"""Diagnose a recurrence from a short pilot: how chaotic it is, and how many iterations each solver will need."""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from time import perf_counter
from typing import Any

import numpy as np

from recsolve import solvers
from recsolve.analysis.condition import condition
from recsolve.analysis.exponents import leading_exponents
from recsolve.analysis.structure_truth import verify_jacobian
from recsolve.base.arguments import generator_of
from recsolve.base.arrays import Array, namespace, to_host
from recsolve.base.report import as_html
from recsolve.diagnosis.budget import Budget, OutOfTimeError
from recsolve.diagnosis.prediction import Predictor
from recsolve.jacobians import Jacobian
from recsolve.plot.drawn import Drawn
from recsolve.plot.exponents import Predictions, Spectrum
from recsolve.recurrence.base import Recurrence, check_recurrence
from recsolve.solvers.sequential import loop
from recsolve.solvers.settings import number

_DIRECTIONS = 8
_LEAST, _LOOPS = 30.0, 3.0  # the budget: seconds, and times the loop over all T steps
# What takes many dear iterations on wide states is asked last, and then only costs what is left.
_LAST = ("newton_krylov", "elk", "levenberg_marquardt", "chain", "diagonal_broyden", "broyden")


@dataclass(frozen=True)
class Diagnosis(Drawn):
    """The result of :func:`diagnose`; ``str`` of it is a table.

    Attributes
    ----------
    length, pilot : int
        T, and the number of leading steps that were looked at.
    lyapunov : array, shape (exponents,)
        The leading Lyapunov exponents per step, largest first, averaged over the sequences: below 0 perturbations die
        out and parallel methods converge fast; above 0 the recurrence is chaotic.
    condition : float
        kappa of the pilot.
    mass : dict
        For each fixed matrix A the largest |(A - J) v| / |v| over the pilot, v random: how far A is from J.
    predicted : dict
        Iterations each solver is expected to need for all T steps; T where only the pin would end it.
    overshoot : tuple of float
        (b, a) with b e^(lambda k) <= ||J[t+k-1] ... J[t]|| <= a e^(lambda k) over the pilot, lambda the largest
        exponent: how far products of k Jacobians stray from their mean growth. a is what transients add to Jacobi's
        count, log(a |e| / tol) / |lambda|, and to the conditioning. Norms are estimated from a few random directions,
        and so from below. NaN where the exponent is not finite.
    left_out : tuple of str
        What the budget was not enough for: names of solvers, and "overshoot" where longer products were not looked at.

    Examples
    --------
    >>> import numpy as np, recsolve as rs
    >>> rec = rs.cells.GRU.random(input_size=3, hidden_size=4, rng=0).recurrence(np.ones((60, 3)))
    >>> d = rs.diagnose(rec, methods=["newton"])
    >>> d.pilot, d.lyapunov.shape, list(d.predicted), str(d).splitlines()[-1]
    (60, (4,), ['newton'], 'predicted iterations for T = 60: newton 5')
    """

    length: int
    pilot: int
    lyapunov: Array
    condition: float
    mass: dict[str, float]
    predicted: dict[str, int]
    overshoot: tuple[float, float]
    left_out: tuple[str, ...] = field(default=())

    _first = "prediction"

    def _spectrum(self, exponents: int | None, pilot: int | None) -> Spectrum:
        if exponents is not None or pilot is not None:
            name, seen = ("exponents", exponents) if exponents is not None else ("pilot", pilot)
            raise ValueError(
                f"{name} is {seen}; wanted None for a Diagnosis, which has its own: pass it to rs.diagnose"
            )
        return Spectrum(self.lyapunov, f"kappa {self.condition:.1e} over {self.pilot} steps")

    def _predictions(self) -> Predictions:
        return Predictions(self.predicted, self.length, tuple(x for x in self.left_out if x != "overshoot"))

    def _repr_html_(self) -> str:
        counts = sorted(self.predicted.items(), key=lambda item: item[1])
        facts = {
            "Lyapunov exponents": f"{', '.join(f'{x:.3g}' for x in self.lyapunov)} per step ({self._kind})",
            "overshoot": f"{self.overshoot[1]:.2g}",
            "kappa": f"{self.condition:.1e} over {self.pilot} steps",
            f"predicted iterations for T = {self.length}": ", ".join(f"{name} {n}" for name, n in counts),
        }
        return as_html(
            "Diagnosis", facts | ({"left out for want of time": ", ".join(self.left_out)} if self.left_out else {})
        )

    @property
    def _kind(self) -> str:
        rate = float(self.lyapunov[0])
        chaotic = "chaotic: small residuals do not mean small errors"
        return "contractive" if rate < 0 else chaotic if rate > 0 else "neutral" if rate == 0 else "unknown"

    def __str__(self) -> str:
        exponents = ", ".join(f"{x:.3g}" for x in self.lyapunov)
        counts = ", ".join(f"{name} {n}" for name, n in sorted(self.predicted.items(), key=lambda item: item[1]))
        return (
            f"Lyapunov exponents {exponents} per step ({self._kind}), overshoot {self.overshoot[1]:.2g}; "
            f"kappa {self.condition:.1e} over {self.pilot} steps\n"
            f"predicted iterations for T = {self.length}: {counts}"
            + (f"\nleft out for want of time (budget=): {', '.join(self.left_out)}" if self.left_out else "")
        )


def diagnose(
    recurrence: Recurrence,
    states: Any = None,
    *,
    pilot: int = 256,
    exponents: int = 4,
    methods: Sequence[str] | None = None,
    tol: float | None = None,
    budget: float | None = None,
    rng: int | np.random.Generator = 0,
) -> Diagnosis:
    """Diagnose a recurrence from its first steps, without solving all of it.

    Solvers with a fixed matrix A (jacobi, picard, quasi_newton, scaled_newton, clipped_newton, chord) are predicted by
    running their error recursion e <- (I - A S)^-1 (J - A) S e on the pilot, S the shift by one step; the others are
    run on it. Counts at the pilot and at a quarter of it are extrapolated in log T. The sequential loop and ``auto``,
    which :func:`recsolve.explain` explains, are not listed.

    Parameters
    ----------
    recurrence : Recurrence
        At least 2 steps.
    states : array, shape (T, *batch, *event), optional
        A trajectory in the dtype of the recurrence, of which the first ``pilot`` rows are used; default: the sequential
        loop over them.
    pilot : int
        Number of steps to look at, at least 2.
    exponents : int
        How many Lyapunov exponents.
    methods : sequence of str, optional
        The solvers to predict; default: all.
    tol : float, optional
        As in :func:`recsolve.solve`.
    budget : float, optional
        Seconds for predictions, of which each solver may take half of what is left; what does not get ready, or is
        still to come when nothing is left, is in ``left_out``. It is looked at between scans. Default: three times what
        the sequential loop takes for all T steps, but at least 30 s.
    rng : int or Generator
        Seed of the random directions.

    Returns
    -------
    Diagnosis

    Raises
    ------
    ValueError
        For a recurrence or pilot of fewer than 2 steps, an empty batch, states of a wrong shape, unknown methods, or a
        budget that is no number above 0;
        and for a function whose declared structure or jacobian is not its derivative.

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
    check_recurrence(recurrence, graphs=False)
    length = min(pilot, recurrence.length)
    if length < 2 or 0 in recurrence.shape or exponents < 1:
        raise ValueError(
            f"pilot is {pilot}, exponents {exponents} and the states have shape {recurrence.shape}; wanted 2 steps or "
            "more, 1 exponent or more, and no empty axis"
        )
    names, generator = _names(methods), generator_of(rng)
    number("budget", budget, 0, optional=True)
    short, begun = recurrence.window(0, length), perf_counter()
    if budget is None:
        loop(short)
        budget = max(_LEAST, _LOOPS * (perf_counter() - begun) * recurrence.length / length)
    time = Budget(budget)
    truth = loop(short) if states is None else recurrence.native(states, "states", recurrence.shape)[:length]
    _, J = short.linearise(truth)
    derivative = verify_jacobian(short, short.previous(truth), J)
    if derivative.holds is False:
        raise ValueError(f"{derivative.reason}; exponents need the true one: see recsolve.check_structure")
    with np.errstate(all="ignore"):
        spectrum = leading_exponents(short, J, exponents, generator)
        rate = float(spectrum[0])
        predictor = Predictor(recurrence, truth, J, rate, tol, time)
        mass = {name: _mass(short, J, A, generator) for name, A in predictor.fixed.items()}
        with time.share(0.2):
            overshoot, whole = _overshoot(short, J, rate, generator, time)
        found: dict[str, int] = {}
        for name in sorted(names, key=lambda name: _LAST.index(name) if name in _LAST else -1):
            with suppress(OutOfTimeError):
                found[name] = predictor[name]
    predicted = {name: found[name] for name in names if name in found}
    left_out = (*([] if whole else ["overshoot"]), *(name for name in names if name not in found))
    kappa = condition(short, truth)
    return Diagnosis(recurrence.length, length, spectrum, kappa, mass, predicted, overshoot, left_out)


def _names(methods: Sequence[str] | None) -> list[str]:
    """Return the solvers to predict."""
    known = [name for name in solvers.REGISTRY if name not in ("sequential", "auto")]
    if methods is None:
        return known
    unknown = [name for name in methods if name not in known] if not isinstance(methods, str) else [methods]
    if unknown:
        raise ValueError(f"methods has {unknown}; wanted a sequence of {', '.join(known)}")
    return list(methods)


def _mass(short: Recurrence, J: Jacobian, A: Jacobian, generator: np.random.Generator) -> float:
    """Return the largest |(A - J) v| / |v| over the pilot for random v."""
    v = namespace(short.initial).asarray(generator.standard_normal(short.shape).astype(short.dtype))
    axes = tuple(range(1 + len(short.batch), v.ndim))
    missed = A.matvec(v) - J.matvec(v)
    return float(to_host(((missed**2).sum(axis=axes) / (v**2).sum(axis=axes)).max())) ** 0.5  # type: ignore[no-any-return]


def _overshoot(
    short: Recurrence, J: Jacobian, rate: float, generator: np.random.Generator, time: Budget
) -> tuple[tuple[float, float], bool]:
    """Return the least and the largest norm of products of k Jacobians over e^(rate k), starting anywhere.

    Also returns whether there was time for all k.
    """
    if not np.isfinite(rate):
        return (float("nan"), float("nan")), True
    N, xp, starts = short.layout.size, namespace(short.initial), to_host(short.starts)
    frame, _ = np.linalg.qr(generator.standard_normal((N, min(N, _DIRECTIONS))))
    spread = np.broadcast_to(
        frame.T.reshape(-1, *(1,) * (1 + len(short.batch)), *short.layout.event), (frame.shape[1], *short.shape)
    )
    products, least, most = xp.asarray(spread.astype(short.dtype)), np.inf, 0.0
    alive = np.ones(starts.shape, bool)  # windows that no reset has cut
    for k in range(1, short.length + 1):
        if k > 1 and time.over:
            return (least, most), False
        last = short.length - k + 1  # the product that starts at s has reached s + k - 1
        products = xp.stack([J[k - 1 :].matvec(column[:last]) for column in products])
        alive = alive[:last] & ~starts[k - 1 :]
        vectors = np.moveaxis(to_host(products).astype(np.float64).reshape(len(products), *alive.shape, N), 0, -1)
        norms = np.linalg.norm(vectors[alive], 2, axis=(-2, -1)) / np.exp(rate * k) if alive.any() else np.ones(0)
        if not norms.size or not np.isfinite(norms).all():
            break
        least, most = min(least, float(norms.min())), max(most, float(norms.max()))
    return (least, most), True

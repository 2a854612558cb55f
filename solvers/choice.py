"""What ``auto`` has to choose from, and what it takes."""

from __future__ import annotations

from dataclasses import dataclass, field

from recsolve.solvers.method import Method

_GAIN = 0.8  # a method must be faster than the loop by this factor to be worth its risk


@dataclass(frozen=True)
class Candidate:
    """A method with its predicted iterations and time.

    Attributes
    ----------
    method : Method
    label : str
        Its name in :func:`explain`.
    iterations : int
    seconds : float
        For all steps, predicted from the pilot.
    """

    method: Method
    label: str
    iterations: int
    seconds: float


@dataclass
class Choice:
    """The measurements of the pilot and the choice that follows from them.

    Attributes
    ----------
    chosen : Candidate
    candidates : list of Candidate
        All that were considered, the fastest first.
    reasons : list of str
        Sentences.

    Examples
    --------
    >>> import numpy as np, recsolve as rs
    >>> cell = rs.cells.GRU.random(input_size=3, hidden_size=4, rng=0)
    >>> choice = rs.explain(cell.recurrence(np.ones((60, 3))))
    auto takes sequential.
    60 steps are too few for anything to be faster than one after the other.
    >>> choice.chosen.label, [candidate.iterations for candidate in choice.candidates]
    ('sequential', [0])
    """

    candidates: list[Candidate]
    reasons: list[str] = field(default_factory=list)

    @property
    def chosen(self) -> Candidate:
        """The fastest; the sequential loop unless another is clearly faster."""
        fastest = min(self.candidates, key=lambda candidate: candidate.seconds)
        loop = self.candidates_by_name["sequential"]
        return fastest if fastest.seconds < _GAIN * loop.seconds else loop

    @property
    def candidates_by_name(self) -> dict[str, Candidate]:
        """The candidates by the name of their method."""
        return {candidate.method.name: candidate for candidate in self.candidates}

    def __repr__(self) -> str:
        return f"Choice({self.chosen.label})"

    def __str__(self) -> str:
        lines = [f"auto takes {self.chosen.label}.", *self.reasons]
        if len(self.candidates) > 1 and self.chosen.seconds > 0:
            lines.append("Predicted:")
            for c in sorted(self.candidates, key=lambda candidate: candidate.seconds):
                unit = "iteration" if c.iterations == 1 else "iterations"
                steps = "" if c.method.name == "sequential" else f", {c.iterations} {unit}"
                lines.append(f"  {c.label}{steps}: {1e3 * c.seconds:.3g} ms")
        return "\n".join(lines)

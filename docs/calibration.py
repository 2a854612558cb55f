"""Draw docs/figures/calibration.png: stated against true errors; prints the table of docs/reliability.md.

python docs/calibration.py [--problems N] [--out FOLDER]
"""

from __future__ import annotations

import argparse
from collections import Counter
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

import recsolve as rs
from recsolve.studies.draw.style import house_style

TRUSTED, TIMES = 1e-2, 10
METHODS = ("newton", "quasi_newton", "jacobi", "sequential", "damped_newton")
COLOURS = {"chaotic": "#D55E00", "random": "#0072B2", "trained": "#E69F00"}

Step = Callable[[Any, Any], Any]


@dataclass(frozen=True)
class Solved:
    """One solution: the error that it states and its own, relative to what belongs together."""

    kind: str
    dtype: str
    success: bool
    trusted: bool
    stated: float
    error: float


def sine(rng: np.random.Generator, dtype: Any, T: int, p: float) -> tuple[rs.Recurrence, Step]:
    u, p = rng.standard_normal((T, 4)).astype(dtype), dtype(p)
    rec = rs.Recurrence.from_function(
        lambda h, u: p * np.sin(h) + u, inputs=u, initial=np.zeros(4, dtype), structure="diagonal"
    )
    return rec, lambda h, t: h.dtype.type(p) * np.sin(h) + u[t]


def logistic(rng: np.random.Generator, dtype: Any, T: int, p: float) -> tuple[rs.Recurrence, Step]:
    first, p = rng.uniform(0.1, 0.9, 4).astype(dtype), dtype(p)
    rec = rs.Recurrence.from_function(lambda h, u: p * h * (1 - h), initial=first, structure="diagonal", length=T)
    return rec, lambda h, t: h.dtype.type(p) * h * (1 - h)


def memory(rng: np.random.Generator, dtype: Any, T: int, p: float) -> tuple[rs.Recurrence, Step]:
    u, keep = rng.standard_normal((T, 4)).astype(dtype), dtype(1 - 2.0 ** -round(p))
    rec = rs.Recurrence.from_function(
        lambda h, u: keep * h + np.tanh(u - h) / 8, inputs=u, initial=np.ones(4, dtype), structure="diagonal"
    )
    return rec, lambda h, t: h.dtype.type(keep) * h + np.tanh(u[t] - h) / 8


def network(relu: bool) -> Callable[..., tuple[rs.Recurrence, Step]]:
    def make(rng: np.random.Generator, dtype: Any, T: int, p: float) -> tuple[rs.Recurrence, Step]:
        bend: Any = (lambda x: np.maximum(x, 0)) if relu else np.tanh
        W = (p * rng.standard_normal((8, 8)) / 8**0.5).astype(dtype)
        u = (10.0 ** rng.uniform(-1, 1) * rng.standard_normal((T, 8))).astype(dtype)
        rec = rs.Recurrence.from_function(lambda h, u: bend(h @ W.T + u), inputs=u, initial=np.zeros(8, dtype))
        return rec, lambda h, t: bend(W.astype(h.dtype) @ h + u[t])

    return make


def gru(rng: np.random.Generator, dtype: Any, T: int, p: float) -> tuple[rs.Recurrence, Step]:
    """Long memory, large rows, and sums of aligned terms that biases take away again, as training leaves them."""
    n = int(rng.choice([8, 16, 32]))
    held = np.arange(n) < n // 2
    sign = np.where(held, rng.choice([-1.0, 1.0], n), 0.0)
    W, shift = {}, {}
    for name in "rzn":
        weight = np.where(held, 0.0, rng.uniform(0, 3) * rng.standard_normal(n))
        W[name] = (p * rng.standard_normal((n, n)) / n**0.5 + weight[:, None] * sign / held.sum() ** 0.5).astype(dtype)
        shift[name] = -weight * held.sum() ** 0.5
    b = np.zeros(n, dtype)
    cell = rs.cells.GRU.with_weights(mixings={k: rs.mixings.Dense(w) for k, w in W.items()}, parameters={"b_n": b})
    shift["z"], shift["n"] = shift["z"] + rng.uniform(0, 5), shift["n"] + 6 * sign
    u = {k: (rng.standard_normal((T, n)) + shift[k]).astype(dtype) for k in W}
    first = sign.astype(dtype)

    def step(h: Any, t: int) -> Any:
        products = {k: w.astype(h.dtype) @ h for k, w in W.items()}
        r, z = (1 / (1 + np.exp(-(products[k] + u[k][t]))) for k in "rz")
        return (1 - z) * np.tanh(u["n"][t] + r * products["n"]) + z * h

    return cell.recurrence(drive=u, initial=first), step


FAMILIES: dict[str, tuple[str, Callable[..., tuple[rs.Recurrence, Step]], float, float]] = {
    "sine": ("random", sine, 0.3, 1.5),
    "memory": ("random", memory, 4, 16),
    "tanh network": ("random", network(relu=False), 0.3, 1.5),
    "relu network": ("random", network(relu=True), 0.3, 1.3),
    "gru": ("random", gru, 0.5, 1.5),
    "trained gru": ("trained", gru, 1.0, 5.0),
    "chaotic sine": ("chaotic", sine, 1.5, 3.0),
    "logistic": ("chaotic", logistic, 3.5, 4.0),
    "chaotic network": ("chaotic", network(relu=False), 1.5, 4.0),
}


def truth_of(rec: rs.Recurrence, step: Step) -> Any:
    """Return the literal loop in a type whose rounding does not show in that of the recurrence."""
    fine: Any = np.float64 if rec.dtype == np.float32 else np.longdouble
    state, states = rec.initial.astype(fine), np.empty(rec.shape, fine)
    with np.errstate(all="ignore"):
        for t in range(rec.length):
            states[t] = state = step(state, t)
    return states


def solved(family: str, seed: int) -> Solved:
    """Solve one problem."""
    kind, make, low, high = FAMILIES[family]
    rng = np.random.default_rng(seed)
    dtype: Any = (np.float32, np.float64)[seed % 2]
    rec, step = make(rng, dtype, int(rng.choice([30, 60, 120, 240])), rng.uniform(low, high))
    truth, axis = truth_of(rec, step), None if rec.rounding > 0 else 0
    tol = None if rng.random() < 0.5 else float(10.0 ** rng.uniform(-14, -2))
    with rs.backend("numpy"):
        sol = rs.solve(rec, method=str(rng.choice(METHODS)), tol=tol)
    size = np.abs(sol.states).max(axis=axis)
    with np.errstate(all="ignore"):
        error = float((np.abs(sol.states - truth).max(axis=axis) / size).max())
    return Solved(kind, np.dtype(dtype).name, sol.success, sol.trusted, sol._estimate.relative, error)


def sample(problems: int) -> Iterator[Solved]:
    """Solve problems of all families in turn."""
    names = list(FAMILIES)
    yield from (solved(names[i % len(names)], i) for i in range(problems))


def counts(found: Iterable[Solved]) -> dict[str, Counter[str]]:
    """Count by kind: what converged; what is trusted, and how much of it is beyond; what is within, and trusted."""
    table: dict[str, Counter[str]] = {kind: Counter() for kind in (*COLOURS, "all")}
    for s in found:
        for count in (table[s.kind], table["all"]):
            count["converged"] += s.success
            count["trusted"] += s.trusted
            count["beyond"] += s.trusted and not (
                s.error <= TIMES * max(s.stated, 1e-30) and s.error <= TIMES * TRUSTED
            )
            good = s.success and s.error <= TRUSTED
            count["within"] += good
            count["trusted within"] += good and s.trusted
    return table


def draw(found: list[Solved], path: Path) -> None:
    with house_style() as pyplot:
        figure, panels = pyplot.subplots(1, 2, figsize=(9, 4.8), layout="constrained")
        for axes, dtype in zip(panels, ("float32", "float64"), strict=True):
            low, high = (1e-9, 1e2) if dtype == "float32" else (1e-18, 1e2)
            for kind, colour in COLOURS.items():
                for trusted in (False, True):
                    part = [s for s in found if (s.dtype, s.kind, s.trusted, s.success) == (dtype, kind, trusted, True)]
                    x, y = (np.clip([getattr(s, a) for s in part], low, high) for a in ("stated", "error"))
                    y = np.where(np.isfinite(y), y, high)
                    style = {"marker": "o", "facecolors": colour} if trusted else {"marker": "x", "color": colour}
                    label = f"{kind}, {'' if trusted else 'not '}trusted"
                    axes.scatter(x, y, s=9, alpha=0.55, linewidths=0.6, label=label, **style)
            line = np.array([low, high])
            axes.plot(line, line, color="0.3", lw=0.8)
            axes.plot(line, TIMES * line, color="0.3", lw=0.8, ls="--")
            axes.axhline(TRUSTED, color="0.3", lw=0.8, ls=":")
            axes.axvline(TRUSTED, color="0.3", lw=0.8, ls=":")
            axes.set(xscale="log", yscale="log", xlim=(low, high), ylim=(low, high), title=dtype)
            axes.set_xlabel("error stated, relative to the states")
        panels[0].set_ylabel("true error, relative to the states")
        panels[0].legend(loc="upper left", fontsize=7)
        figure.savefig(path, dpi=130)
        pyplot.close(figure)


def main() -> None:
    """Solve, draw, and print the table."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--problems", type=int, default=9000)
    parser.add_argument("--out", type=Path, default=Path(__file__).parent / "figures")
    arguments = parser.parse_args()
    found = list(sample(arguments.problems))
    draw(found, arguments.out / "calibration.png")
    columns = "converged", "trusted", "beyond ten times what is stated", "within 1 %", "of these trusted"
    print("| recurrences | " + " | ".join(columns) + " |")
    print("|---|--:|--:|--:|--:|--:|")
    for kind, c in counts(found).items():
        share = c["trusted within"] / max(c["within"], 1)
        print(f"| {kind} | {c['converged']} | {c['trusted']} | {c['beyond']} | {c['within']} | {share:.1%} |")


if __name__ == "__main__":
    main()

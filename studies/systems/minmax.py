"""MinMax recurrent neural cascades: neurons that hold what they were given between moving bounds.

With r_t, s_t, A_t and b_t affine in the input (Ronca, arXiv 2605.06384):

neuron:   x_t = max(min(r_t, x_{t-1}), s_t)
matrix:   x_t[i] = max(b_t[i], max over j of min(A_t[i, j], x_{t-1}[j]))
cascade:  neurons x_t[l] of layers l, with r_t[l] = R_l x_t[l-1] + u_t[l, 0],  s_t[l] = S_l x_t[l-1] + u_t[l, 1]

The Jacobian of a neuron is 0 or 1 per unit, that of a matrix has at most one 1 in a row, that of a cascade has such
neurons on its diagonal and products of R and S below it. Maps compose to maps of the same form, which do not round: a
scan gives the loop's own bits, and a cascade is a scan for each layer. A gradient with respect to a bound goes to
exactly one step of the past.

To read a letter twice does to a cascade what reading it once does: none holds the parity of all bits. Matrices of plus
and minus infinity permute, and two states hold it.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np

import recsolve as rs
from recsolve.base.arrays import Array
from recsolve.math import maximum, minimum
from recsolve.mixings import Dense
from recsolve.studies.systems.system import Arrays, Draw, system_of


@dataclass(frozen=True)
class Config:
    """Bounds are normal around -1 and 1, so that units hold what they were given for some steps."""

    length: int = 4096
    batch: int = 2
    units: int = 16
    spread: float = 1.0
    seed: int = 0
    dtype: str = "float64"


def draw(config: Config) -> Arrays:
    return _bounds(config, "r", "s", config.units)


def _bounds(config: Any, above: str, below: str, *units: int) -> dict[str, Array]:
    """Return bounds around 1 and -1; those from above have axes of ``units``, those from below one."""
    leading, random = (config.length, config.batch), Draw(config.seed, config.dtype)
    r = random.normal(*leading, *units, scale=config.spread)
    s = random.normal(*leading, units[0], scale=config.spread)
    return {above: r + r.dtype.type(1), below: s - s.dtype.type(1)}


def make(arrays: Arrays) -> rs.Recurrence:
    return rs.cells.MinMax.with_weights(hidden_size=arrays["r"].shape[-1]).recurrence(drive=dict(arrays))


def scan(recurrence: rs.Recurrence) -> Array:
    drive = recurrence.drive  # type: ignore[attr-defined]
    found: Array = rs.scan("clamp", (drive["r"], drive["s"]), initial=recurrence.initial)
    return found


@dataclass(frozen=True)
class Matrix(Config):
    """Entries of A are normal around 1, those of b around -1."""

    length: int = 1024
    units: int = 4


def draw_matrix(config: Matrix) -> Arrays:
    return _bounds(config, "A", "b", config.units, config.units)


def matrix(arrays: Arrays, initial: Any = None, ties: Any = None) -> rs.Recurrence:
    first = np.zeros_like(arrays["b"][0]) if initial is None else initial
    return rs.Recurrence.from_function(_widest, inputs=dict(arrays), initial=first, structure="dense", ties=ties)


def _widest(x: Any, u: Any) -> Any:
    return np.maximum(u["b"], np.minimum(u["A"], x[..., None, :]).max(axis=-1))


def scan_matrix(recurrence: rs.Recurrence) -> Array:
    A, b = recurrence.inputs  # type: ignore[attr-defined]
    found: Array = rs.scan("max_min", (A, b), initial=recurrence.initial)
    return found


def parity(bits: Array, ties: Any = None, entries: tuple[float, float] = (-np.inf, np.inf)) -> rs.Recurrence:
    """Return the matrix neuron that swaps its two states at every 1 of ``bits``, (T, *batch); the first starts as 1.

    The ``entries`` of permutations are infinite, so that there are no ties; with (0, 1) there are at every step.
    """
    eye = np.where(np.eye(2) == 1, entries[1], entries[0])
    A = np.where(np.asarray(bits)[..., None, None] == 1, eye[::-1], eye)
    first = np.broadcast_to([1.0, 0.0], A.shape[1:-1])
    return matrix({"A": A, "b": np.full(A.shape[:-1], -np.inf)}, first, ties)


@dataclass(frozen=True)
class Cascade(Config):
    """R and S have rows of norm ``gain``."""

    length: int = 1024
    depth: int = 3
    units: int = 8
    gain: float = 1.0


def draw_cascade(config: Cascade) -> Arrays:
    n, random = config.units, Draw(config.seed, config.dtype)
    u = random.normal(config.length, config.batch, config.depth, 2, n, scale=config.spread)
    around = np.array([[1], [-1]], u.dtype)
    return {"u": u + around, "R": random.normal(config.depth - 1, 2, n, n, scale=config.gain * n**-0.5)}


@dataclass(frozen=True)
class Layers:
    """The function of a cascade: every layer sees the new state of the one below it."""

    depth: int

    def __call__(self, s: Any, W: Any, u: Any, p: Any) -> tuple[Any, ...]:
        states: list[Any] = []
        for layer in range(self.depth):
            r, f = getattr(u, f"r{layer}"), getattr(u, f"s{layer}")
            if states:
                r, f = getattr(W, f"r{layer}")(states[-1]) + r, getattr(W, f"s{layer}")(states[-1]) + f
            states.append(maximum(minimum(r, getattr(s, f"x{layer}")), f))
        return tuple(states)


def cascade(arrays: Arrays) -> rs.Recurrence:
    u, R = arrays["u"], arrays["R"]
    depth = u.shape[2]
    names = tuple(f"x{layer}" for layer in range(depth))
    drive = {f"{gate}{layer}": u[:, :, layer, i] for layer in range(depth) for i, gate in enumerate("rs")}
    mixings = {f"{gate}{layer}": Dense(R[layer - 1, i]) for layer in range(1, depth) for i, gate in enumerate("rs")}
    cell = rs.Cell(Layers(depth), state=names, output=names[-1], name="minmax_cascade")
    return cell.with_weights(mixings=mixings, hidden_size=u.shape[-1]).recurrence(drive=drive)


def scan_cascade(recurrence: rs.Recurrence) -> Array:
    drive, weights = recurrence.drive, recurrence.cell.mixings  # type: ignore[attr-defined]
    states: list[Array] = []
    first = recurrence.initial.reshape(*recurrence.batch, -1, recurrence.shape[-1])  # one layer has no such axis
    for layer in range(recurrence.layout.components):
        bounds = [drive[f"{gate}{layer}"] for gate in "rs"]
        if states:
            bounds = [u + states[-1] @ weights[f"{gate}{layer}"].weight.T for gate, u in zip("rs", bounds, strict=True)]
        states.append(rs.scan("clamp", tuple(bounds), initial=first[:, layer]))
    return np.stack(states, axis=2).reshape(recurrence.shape)


_PAPER = {"title": "MinMax recurrent neural cascades", "cite": "Ronca, arXiv 2605.06384"}
SYSTEMS = (
    system_of(__name__, name="minmax", make=make, scan=scan, structure="diagonal, 0 or 1", study="minmax", **_PAPER),
    system_of(
        __name__,
        name="minmax_matrix",
        config=Matrix(),
        draw=draw_matrix,
        make=matrix,
        scan=scan_matrix,
        structure="dense, at most one 1 in a row",
        study="minmax_parity",
        **_PAPER,
    ),
    system_of(
        __name__,
        name="minmax_cascade",
        config=Cascade(),
        draw=draw_cascade,
        make=cascade,
        scan=scan_cascade,
        structure="dense, triangular by layers",
        study="minmax_parity",
        **_PAPER,
    ),
)

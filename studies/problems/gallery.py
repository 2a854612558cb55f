"""Twelve named recurrences on which the solvers differ: from strongly contractive to chaotic."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np

from recsolve import cells, packed_resets
from recsolve.mixings import Dense
from recsolve.recurrence.base import Recurrence
from recsolve.recurrence.weighted_cell import WeightedCell

PROBLEMS: dict[str, Callable[[int], Recurrence]] = {}


def _problem(make: Callable[[int], Recurrence]) -> Callable[[int], Recurrence]:
    PROBLEMS[make.__name__] = make
    return make


def _elman(gain: float, units: int, length: int, seed: int) -> Recurrence:
    """h = tanh(W h + u), W ~ N(0, gain^2 / units), u ~ N(0, 1)."""
    rng = np.random.default_rng(seed)
    W = rng.standard_normal((units, units)) * gain / np.sqrt(units)
    drive = rng.standard_normal((length, units))
    return cells.Elman.with_weights(mixings={"h": Dense(W)}).recurrence(drive={"h": drive})


def _driven(cell: WeightedCell, length: int, seed: int, scale: float = 1.0, **kwargs: Any) -> Recurrence:
    x = scale * np.random.default_rng(seed + 1).standard_normal((length, 3))
    return cell.recurrence(x, **kwargs)


@_problem
def contractive(seed: int = 0) -> Recurrence:
    """A tanh network of gain 0.5: perturbations halve in every step."""
    return _elman(0.5, 32, 2000, seed)


@_problem
def near_critical(seed: int = 0) -> Recurrence:
    """A tanh network of gain 1.2: perturbations die out slowly."""
    return _elman(1.2, 32, 500, seed)


@_problem
def chaotic(seed: int = 0) -> Recurrence:
    """A tanh network of gain 3: perturbations grow."""
    return _elman(3.0, 32, 300, seed)


@_problem
def stiff_gates(seed: int = 0) -> Recurrence:
    """A diagonal LSTM whose forget gates span time scales from one step to thousands."""
    cell = cells.LSTM.random(input_size=3, hidden_size=16, mixing="diagonal", rng=seed)
    drive = cell.drive(np.random.default_rng(seed + 1).standard_normal((2000, 3)))
    return cell.recurrence(drive={**drive, "f": drive["f"] + np.linspace(-2.0, 7.0, 16)})


@_problem
def saturated_gates(seed: int = 0) -> Recurrence:
    """A diagonal GRU with weights twenty times as large: gates are open or shut."""
    cell = cells.GRU.random(input_size=3, hidden_size=16, mixing="diagonal", gain=20.0, rng=seed)
    return _driven(cell, 2000, seed, scale=5.0)


@_problem
def minmax_ties(seed: int = 0) -> Recurrence:
    """max(min(r, h), s) with integer r and s, so that ties are frequent."""
    rng = np.random.default_rng(seed)
    r, s = rng.integers(-3, 4, (2, 2000, 16)).astype(float)
    return cells.MinMax.with_weights(hidden_size=16).recurrence(drive={"r": r, "s": s})


@_problem
def langevin(seed: int = 0) -> Recurrence:
    """Two wells, h + 0.01 (h - h^3) + noise: jumps between -1 and 1 are rare, and J is near 1."""
    noise = np.sqrt(2 * 0.01 * 0.2) * np.random.default_rng(seed).standard_normal((2000, 16))
    return Recurrence.from_function(
        lambda h, u: h + 0.01 * (h - h**3) + u, inputs=noise, initial=np.ones(16), structure="diagonal"
    )


@_problem
def lorenz96(seed: int = 0) -> Recurrence:
    """Lorenz-96 with 8 variables, F = 8, steps of 0.01 by Runge and Kutta: chaos in slow steps."""
    left, right, far = np.arange(8) - 1, (np.arange(8) + 1) % 8, np.arange(8) - 2

    def slope(h: Any) -> Any:
        return (h[..., right] - h[..., far]) * h[..., left] - h + 8.0

    def step(h: Any, _: None) -> Any:
        k1 = slope(h)
        k2 = slope(h + 0.005 * k1)
        k3 = slope(h + 0.005 * k2)
        return h + (0.01 / 6) * (k1 + 2 * k2 + 2 * k3 + slope(h + 0.01 * k3))

    initial = 8.0 + np.random.default_rng(seed).standard_normal(8)
    return Recurrence.from_function(step, initial=initial, structure="dense", length=500)


@_problem
def long_memory(seed: int = 0) -> Recurrence:
    """A dense GRU whose update gate keeps 98% of the state in every step."""
    cell = cells.GRU.random(input_size=3, hidden_size=32, mixing="dense", rng=seed)
    drive = cell.drive(np.random.default_rng(seed + 1).standard_normal((1000, 3)))
    return cell.recurrence(drive={**drive, "z": drive["z"] + 4.0})


@_problem
def resets(seed: int = 0) -> Recurrence:
    """A dense GRU over forty packed sequences of 20 to 80 steps."""
    cell = cells.GRU.random(input_size=3, hidden_size=32, mixing="dense", rng=seed)
    lengths = np.random.default_rng(seed).integers(20, 81, 40)
    return _driven(cell, int(lengths.sum()), seed, reset=packed_resets(lengths))


@_problem
def tiny_drive(seed: int = 0) -> Recurrence:
    """A dense LSTM driven by 1e-6: it rests near its fixed point."""
    return _driven(cells.LSTM.random(input_size=3, hidden_size=32, mixing="dense", rng=seed), 1000, seed, scale=1e-6)


@_problem
def huge_drive(seed: int = 0) -> Recurrence:
    """A dense LSTM driven by 1e3: gates jump between 0 and 1."""
    return _driven(cells.LSTM.random(input_size=3, hidden_size=32, mixing="dense", rng=seed), 1000, seed, scale=1e3)

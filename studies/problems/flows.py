"""Recurrences that are no networks: a particle in two wells, chaotic flows, and observers of them."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np

from recsolve.base.arrays import Array
from recsolve.recurrence.base import Recurrence
from recsolve.solve import solve

Field = Callable[[Any], Any]


@dataclass(frozen=True)
class Flow:
    """dh/dt = field(h), in steps of ``dt`` that resolve it about equally well, from somewhere near its attractor."""

    field: Field
    near: tuple[float, ...]
    dt: float


def _three(f: Callable[[Any, Any, Any], tuple[Any, Any, Any]]) -> Field:
    return lambda h: np.stack(f(h[..., 0], h[..., 1], h[..., 2]), axis=-1)


def _lorenz96(h: Any) -> Any:
    n = np.arange(h.shape[-1])
    return (h[..., (n + 1) % n.size] - h[..., n - 2]) * h[..., n - 1] - h + 8.0


FLOWS: dict[str, Flow] = {
    "lorenz63": Flow(_three(lambda x, y, z: (10 * (y - x), x * (28 - z) - y, x * y - 8 * z / 3)), (1.0, 1.0, 9), 0.01),
    "rossler": Flow(_three(lambda x, y, z: (-y - z, x + 0.2 * y, 0.2 + z * (x - 5.7))), (1.0, 1.0, 0.0), 0.05),
    "thomas": Flow(
        _three(lambda x, y, z: (np.sin(y) - 0.18 * x, np.sin(z) - 0.18 * y, np.sin(x) - 0.18 * z)), (1.0, 0.0, 0.5), 0.1
    ),
    "sprott_b": Flow(_three(lambda x, y, z: (y * z, x - y, 1 - x * y)), (0.5, 0.5, 0.5), 0.05),
    "nose_hoover": Flow(_three(lambda x, y, z: (y, y * z - x, 1.5 - y * y)), (0.0, 0.1, 0.0), 0.05),
    "lorenz96": Flow(_lorenz96, (8.0, 8.0, 8.0, 8.0, 8.0, 8.0, 8.0, 8.5), 0.01),
}  # fmt: skip


def runge_kutta(field: Field, h: Any, dt: float) -> Any:
    """Return the state one step later, by the classical method of order four."""
    k1 = field(h)
    k2 = field(h + dt / 2 * k1)
    k3 = field(h + dt / 2 * k2)
    return h + dt / 6 * (k1 + 2 * k2 + 2 * k3 + field(h + dt * k3))


def _start(flow: Flow, seed: int, burn: int = 1000) -> Array:
    """Return a state on the attractor."""
    near = np.array(flow.near) + 0.1 * np.random.default_rng(seed).standard_normal(len(flow.near))
    approach = Recurrence.from_function(
        lambda h, _: runge_kutta(flow.field, h, flow.dt), initial=near, structure="dense", length=burn
    )
    return np.asarray(solve(approach, method="sequential").final)


def system(name: str, T: int, seed: int) -> Recurrence:
    """Return a flow as a recurrence, from a state on its attractor."""
    flow = FLOWS[name]
    return Recurrence.from_function(
        lambda h, _: runge_kutta(flow.field, h, flow.dt), initial=_start(flow, seed), structure="dense", length=T
    )


def observer(name: str, T: int, seed: int, nudge: float) -> Recurrence:
    """Return an observer of :func:`system`: the same step, drawn to what is observed by ``nudge``, from elsewhere.

    h = step(h) + nudge (y - h), with y the state of the system before the step.
    """
    flow, watched = FLOWS[name], system(name, T, seed)
    y = watched.previous(np.asarray(solve(watched, method="sequential").states))
    initial = y[0] + np.random.default_rng(seed + 1).standard_normal(y.shape[1])
    return Recurrence.from_function(
        lambda h, y: runge_kutta(flow.field, h, flow.dt) + nudge * (y - h), inputs=y, initial=initial, structure="dense"
    )


def two_wells(T: int, seed: int, temperature: float, units: int = 1, step: float = 0.01) -> Recurrence:
    """Return Langevin dynamics of particles in the potential h^4 / 4 - h^2 / 2, where J > 1 between the wells."""
    noise = np.sqrt(2 * step * temperature) * np.random.default_rng(seed).standard_normal((T, units))
    return Recurrence.from_function(
        lambda h, u: h + step * (h - h**3) + u, inputs=noise, initial=np.ones(units), structure="diagonal"
    )

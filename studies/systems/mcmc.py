"""Parallel MCMC: chains of MALA and HMC are recurrences once their random numbers are fixed.

With U = -log of the density and step e (Zoltowski et al., arXiv 2508.18413, solve them by Newton's method in parallel):

MALA:  y = x - e grad U(x) + sqrt(2 e) xi,   x' = y if log u < log a(x, y) else x
HMC:   (y, p') = L leapfrog steps from (x, p),   x' = y if log u < H(x, p) - H(y, p') else x
leapfrog:  p <- p - e/2 grad U(x),  x <- x + e p,  p <- p - e/2 grad U(x), with a fresh p after every L steps

The accept step is piecewise: its derivative is I where a step is rejected, and that of the move elsewhere, which is
diagonal for densities of independent numbers, I - e Hess U for MALA. Newton's method has to find all decisions.
Targets: a Gaussian of a given precision (dense), and double wells U = sum (x^2 - 1)^2 / 4 (diagonal, 2 x 2 blocks).
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np

import recsolve as rs
from recsolve.math import where
from recsolve.studies.systems.system import Arrays, Draw, system_of

LEAPS = 5  # of one HMC step


@dataclass(frozen=True)
class Config:
    length: int = 512
    chains: int = 4
    width: int = 4
    step: float = 0.1
    seed: int = 0
    dtype: str = "float64"


def draw(config: Config) -> Arrays:
    n, random = config.width, Draw(config.seed, config.dtype)
    leading = config.length, config.chains
    half = random.normal(n, n, scale=0.5 * n**-0.5)
    return {
        "noise": random.normal(*leading, n),
        "log_u": np.log1p(-random.uniform(0, 1, *leading, 1)).astype(config.dtype),
        "step": np.full((config.length, 1, 1), config.step, config.dtype),
        "precision": half @ half.T + np.eye(n, dtype=config.dtype),
        "initial": random.normal(config.chains, n),
    }


@dataclass(frozen=True)
class Target:
    """A density: ``slope(x, p)`` is grad U, and ``energy(x, slope)`` is U of each chain, (*batch, 1)."""

    slope: Callable[..., Any]
    energy: Callable[..., Any]


def _total(x: Any) -> Any:
    return x.sum(axis=-1, keepdims=True)


WELLS = Target(lambda x, p: x * (x * x - 1), lambda x, slope: _total((x * x - 1) ** 2) / 4)
GAUSSIAN = Target(lambda x, p: x @ p.precision, lambda x, slope: _total(x * slope) / 2)


def _mala(target: Target) -> Callable[..., Any]:
    def step(x: Any, u: Any, p: Any) -> Any:
        e, xi, slope = u["step"], u["noise"], target.slope(x, p)
        y = x - e * slope + np.sqrt(2 * e) * xi
        back = target.slope(y, p)
        there, here = 2 * e * _total(xi * xi), _total((x - y + e * back) ** 2)
        log_a = target.energy(x, slope) - target.energy(y, back) + (there - here) / (4 * e)
        return where(u["log_u"] < log_a, y, x)

    return step


def _hmc(target: Target) -> Callable[..., Any]:
    def step(x: Any, u: Any, p: Any) -> Any:
        e, first = u["step"], target.slope(x, p)
        y, v, slope = x, u["noise"], first
        for _ in range(LEAPS):
            v = v - e / 2 * slope
            y = y + e * v
            slope = target.slope(y, p)
            v = v - e / 2 * slope
        kinetic = (_total(u["noise"] ** 2) - _total(v * v)) / 2
        log_a = target.energy(x, first) - target.energy(y, slope) + kinetic
        return where(u["log_u"] < log_a, y, x)

    return step


def _made(step: Callable[..., Any], arrays: Arrays, structure: str) -> rs.Recurrence:
    return rs.Recurrence.from_function(
        step,
        inputs={name: arrays[name] for name in ("noise", "log_u", "step")},
        initial=arrays["initial"],
        parameters={"precision": arrays["precision"]},
        structure=structure,
    )


def mala_gaussian(arrays: Arrays) -> rs.Recurrence:
    return _made(_mala(GAUSSIAN), arrays, "dense")


def mala_wells(arrays: Arrays) -> rs.Recurrence:
    return _made(_mala(WELLS), arrays, "diagonal")


def hmc_gaussian(arrays: Arrays) -> rs.Recurrence:
    return _made(_hmc(GAUSSIAN), arrays, "dense")


def hmc_wells(arrays: Arrays) -> rs.Recurrence:
    return _made(_hmc(WELLS), arrays, "diagonal")


def _leap(s: Any, W: Any, u: Any, p: Any) -> Any:
    v = where(u.fresh > 0, u.noise, s.v) - u.step / 2 * (s.x * (s.x * s.x - 1))
    x = s.x + u.step * v
    return x, v - u.step / 2 * (x * (x * x - 1))


LEAPFROG = rs.Cell(_leap, state=("x", "v"), output="x")


def leapfrog(arrays: Arrays) -> rs.Recurrence:
    x, noise = arrays["initial"], arrays["noise"]
    fresh = (np.arange(len(noise)) % LEAPS == 0).astype(x.dtype)[:, None, None]
    drive = {"noise": noise, "step": arrays["step"], "fresh": fresh}
    return LEAPFROG.with_weights(hidden_size=x.shape[-1]).recurrence(drive=drive, initial={"x": x, "v": 0 * x})


_PAPER: dict[str, Any] = {"title": "Parallel MCMC", "cite": "Zoltowski et al., arXiv 2508.18413", "study": "mala"}
SYSTEMS = tuple(
    system_of(__name__, name=make.__name__, make=make, structure=structure, **_PAPER)
    for make, structure in (
        (mala_gaussian, "dense where a step is accepted, I elsewhere"),
        (mala_wells, "diagonal, 1 where a step is rejected"),
        (hmc_gaussian, "dense where a step is accepted, I elsewhere"),
        (hmc_wells, "diagonal, 1 where a step is rejected"),
        (leapfrog, "2 x 2 per unit"),
    )
)

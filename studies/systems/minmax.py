"""MinMax recurrent neural cascades: a neuron that is held between two moving bounds.

With r_t and s_t affine in the input (Ronca, arXiv 2605.06384):

    x_t = max(min(r_t, x_{t-1}), s_t)

The Jacobian is 0 or 1 per unit. The maps compose to maps of the same form, which do not round: the scan gives the
loop's own bits. A gradient with respect to a bound goes to exactly one step of the past.
"""

from __future__ import annotations

from dataclasses import dataclass

import recsolve as rs
from recsolve.base.arrays import Array
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
    shape, random = (config.length, config.batch, config.units), Draw(config.seed, config.dtype)
    r, s = random.normal(*shape, scale=config.spread), random.normal(*shape, scale=config.spread)
    return {"r": r + r.dtype.type(1), "s": s - s.dtype.type(1)}


def make(arrays: Arrays) -> rs.Recurrence:
    return rs.cells.MinMax.with_weights(hidden_size=arrays["r"].shape[-1]).recurrence(drive=dict(arrays))


def scan(recurrence: rs.Recurrence) -> Array:
    drive = recurrence.drive  # type: ignore[attr-defined]
    found: Array = rs.scan("clamp", (drive["r"], drive["s"]), initial=recurrence.initial)
    return found


SYSTEMS = (
    system_of(
        __name__,
        name="minmax",
        make=make,
        scan=scan,
        structure="diagonal, 0 or 1",
        title="MinMax recurrent neural cascades",
        cite="Ronca, arXiv 2605.06384",
        study="minmax",
    ),
)

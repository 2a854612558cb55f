"""FlashRNN: Elman's network, GRU, LSTM and sLSTM with a matrix for each head, so that heads do not couple.

With matrices R (gates, heads, n, n), hoisted drives x, and y the output at the step before (Poeppel et al.,
arXiv 2412.07752; sLSTM: Beck et al., arXiv 2405.04517), g_k = R_k y + x_k + b_k for every gate k:

Elman:  y' = tanh(g)
GRU:    y' = z y + (1 - z) tanh(x_n + r (R_n y + b_n)),  r = sigmoid(g_r),  z = sigmoid(g_z)
LSTM:   c' = sigmoid(g_f) c + sigmoid(g_i) tanh(g_z),  y' = sigmoid(g_o) tanh(c')
sLSTM:  m' = max(g_i, m + log sigmoid(g_f)),  i = e^(g_i - m'),  f = e^(m + log sigmoid(g_f) - m'),
        c' = f c + i tanh(g_z),  n' = f n + i,  y' = sigmoid(g_o) c' / n',  from m = -inf

The Jacobian is dense within a head. The output of the sLSTM does not depend on m, nor on where m begins; from 0 in
place of -inf a solve takes more iterations or fewer, by the draw.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

import recsolve as rs
from recsolve.mixings import Heads
from recsolve.studies.systems.system import Arrays, Draw, system_of


@dataclass(frozen=True)
class Config:
    """``gain`` scales the matrices, of which rows have a norm of about gain; forget gates are open by ``bias``."""

    length: int = 512
    batch: int = 2
    heads: int = 4
    units: int = 8
    gain: float = 0.5
    bias: float = 1.0
    seed: int = 0
    dtype: str = "float64"


def draw(config: Config) -> Arrays:
    shape, random = (config.heads, config.units), Draw(config.seed, config.dtype)
    b = random.normal(4, *shape, scale=0.1)
    b[1] += config.bias
    return {
        "x": random.normal(config.length, config.batch, 4, *shape),
        "R": random.normal(4, *shape, config.units, scale=config.gain * config.units**-0.5),
        "b": b,
    }


def made(cell: rs.Cell, gates: str, arrays: Arrays, **initial: float) -> rs.Recurrence:
    """Return the recurrence of a cell whose gates come in this order; without ``initial`` all states begin with 0."""
    x, R, b = arrays["x"], arrays["R"], arrays["b"]
    inner = {"n": "b_n"} if "b_n" in cell.parameters else {}  # a bias that stays with the matrix
    drive = {gate: x[:, :, i] + (0 if gate in inner else b[i]) for i, gate in enumerate(gates)}
    weighted = cell.with_weights(
        mixings={gate: Heads(R[i]) for i, gate in enumerate(gates)},
        parameters={inner[gate]: b[i] for i, gate in enumerate(gates) if gate in inner},
    )
    shape = x.shape[1], *x.shape[3:]
    start = {name: np.full(shape, initial.get(name, 0.0), x.dtype) for name in cell.state} if initial else None
    return weighted.recurrence(drive=drive, initial=start)


def elman(arrays: Arrays) -> rs.Recurrence:
    return made(rs.cells.Elman, "h", arrays)


def gru(arrays: Arrays) -> rs.Recurrence:
    return made(rs.cells.GRU, "rzn", arrays)


def lstm(arrays: Arrays) -> rs.Recurrence:
    return made(rs.cells.LSTM, "ifgo", arrays)


def slstm(arrays: Arrays) -> rs.Recurrence:
    return made(rs.cells.SLSTM, "ifzo", arrays, m=-np.inf)


SYSTEMS = tuple(
    system_of(
        __name__,
        name=f"flash_{make.__name__}",
        make=make,
        structure=structure,
        title="FlashRNN",
        cite="Poeppel et al., arXiv 2412.07752",
        study=study,
    )
    for make, structure, study in (
        (elman, "dense within a head", "heads"),
        (gru, "dense within a head", "heads"),
        (lstm, "dense within a head, of both components", "heads"),
        (slstm, "dense within a head, of four components", "slstm"),
    )
)

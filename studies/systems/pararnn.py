"""ParaRNN: a GRU and an LSTM whose units do not couple, so that Newton's Jacobian is diagonal, or 2 x 2 per unit.

With u = B x + b and diagonals A, C (Danieli et al., arXiv 2510.21450):

GRU, state h:       z = sigmoid(A_z h + u_z),  r = sigmoid(A_r h + u_r),  n = tanh(A_n h r + u_n),
                    h' = (1 - z) h + z n
LSTM, state (h, c): f = sigmoid(A_f h + C_f c + u_f),  g = tanh(A_g h + u_g),  c' = f c + (1 - f) g,
                    o = sigmoid(A_o h + C_o c' + u_o),  h' = o tanh(c')

The paper iterates three times from f(0, u) and does not look at what it gets.
"""

from __future__ import annotations

from dataclasses import dataclass

import recsolve as rs
from recsolve.mixings import Diagonal
from recsolve.studies.systems.system import Arrays, Draw, system_of


@dataclass(frozen=True)
class Config:
    """``scale`` is the largest entry of the diagonals."""

    length: int = 1024
    batch: int = 2
    inputs: int = 8
    units: int = 32
    scale: float = 1.0
    seed: int = 0
    dtype: str = "float64"


def draw(config: Config) -> Arrays:
    n, random = config.units, Draw(config.seed, config.dtype)
    return {
        "x": random.normal(config.length, config.batch, config.inputs),
        "A": random.uniform(-config.scale, config.scale, 3, n),
        "C": random.uniform(-config.scale, config.scale, 2, n),
        "B": random.normal(3, n, config.inputs, scale=config.inputs**-0.5),
        "b": random.normal(3, n, scale=0.1),
    }


def _made(cell: rs.Cell, gates: str, arrays: Arrays, peepholes: dict[str, int]) -> rs.Recurrence:
    A, B, b = (dict(zip(gates, arrays[name], strict=True)) for name in "ABb")
    weighted = cell.with_weights(
        mixings={gate: Diagonal(a) for gate, a in A.items()},
        parameters={name: arrays["C"][i] for name, i in peepholes.items()},
        projection=rs.Projection(B, b),
    )
    return weighted.recurrence(arrays["x"])


def gru(arrays: Arrays) -> rs.Recurrence:
    return _made(rs.cells.ParaRNNGRU, "zrn", arrays, {})


def lstm(arrays: Arrays) -> rs.Recurrence:
    return _made(rs.cells.ParaRNNLSTM, "fgo", arrays, {"c_f": 0, "c_o": 1})


_PAPER = {"title": "ParaRNN", "cite": "Danieli et al., arXiv 2510.21450", "study": "paper/pararnn"}
SYSTEMS = (
    system_of(__name__, name="pararnn_gru", make=gru, structure="diagonal", **_PAPER),
    system_of(__name__, name="pararnn_lstm", make=lstm, structure="2 x 2 per unit", **_PAPER),
)

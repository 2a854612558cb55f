"""Critical review of recurrent networks: Elman's and Jordan's networks, and the LSTM.

As Lipton, Berkowitz and Elkan have them (arXiv 1506.00019), with u = U x + b hoisted:

Elman:   h' = tanh(W h + u)
Jordan:  h' = tanh(W_h y + u),  y' = tanh(W_y h' + b_y), where the output comes back: a recurrence in y alone
LSTM:    i, f, o = sigmoid(W h + u),  g = tanh(W h + u),  s' = f s + i g,  h' = o tanh(s')

The Jacobian is dense: diag(1 - h'^2) W for Elman's network, a product of two such for Jordan's, and dense in h with
diagonals in s for the LSTM.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import recsolve as rs
from recsolve.math import tanh
from recsolve.mixings import Dense
from recsolve.studies.systems.system import Arrays, Draw, system_of


@dataclass(frozen=True)
class Config:
    """``gain`` scales the matrices, of which rows have a norm of about gain."""

    length: int = 512
    batch: int = 2
    inputs: int = 4
    units: int = 24
    gain: float = 0.8
    seed: int = 0
    dtype: str = "float64"


def draw(config: Config) -> Arrays:
    """Return matrices and biases in the order of torch's gates, i f g o; Elman has the first, Jordan two."""
    n, random = config.units, Draw(config.seed, config.dtype)
    return {
        "x": random.normal(config.length, config.batch, config.inputs),
        "U": random.normal(4, n, config.inputs, scale=config.inputs**-0.5),
        "W": random.normal(4, n, n, scale=config.gain * n**-0.5),
        "b": random.normal(4, n, scale=0.1),
    }


def _jordan(s: Any, W: Any, u: Any, p: Any) -> Any:
    return tanh(W.y(tanh(W.h(s.y) + u.h)) + p.b_y)


JORDAN = rs.Cell(_jordan, state=("y",), output="y")


def _made(cell: rs.Cell, mixings: str, arrays: Arrays) -> rs.Recurrence:
    U, W, b = (dict(zip(mixings, arrays[name], strict=False)) for name in "UWb")
    weighted = cell.with_weights(
        mixings={name: Dense(W[name]) for name in mixings},
        parameters={name: b[name[-1]] for name in cell.parameters},
        projection=rs.Projection({name: U[name] for name in cell.drives}, {name: b[name] for name in cell.drives}),
    )
    return weighted.recurrence(arrays["x"])


def elman(arrays: Arrays) -> rs.Recurrence:
    return _made(rs.cells.Elman, "h", arrays)


def jordan(arrays: Arrays) -> rs.Recurrence:
    return _made(JORDAN, "hy", arrays)


def lstm(arrays: Arrays) -> rs.Recurrence:
    return _made(rs.cells.LSTM, "ifgo", arrays)


_PAPER = {
    "title": "Critical review of recurrent networks",
    "cite": "Lipton et al., arXiv 1506.00019",
    "study": "truncation",
}
SYSTEMS = (
    system_of(__name__, name="elman", make=elman, structure="dense", **_PAPER),
    system_of(__name__, name="jordan", make=jordan, structure="dense", **_PAPER),
    system_of(__name__, name="lstm_review", make=lstm, structure="dense in h, diagonal in s", **_PAPER),
)

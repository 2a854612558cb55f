"""ConvSSM: ConvS5, an S5 at every pixel whose input and output are convolutions, and the ConvLSTM beside it.

On pictures of H x W points, with P complex states at each (Smith et al., arXiv 2310.19694), Lambda of negative real
part, a step Delta for every state, and convolutions * of k x k points:

ConvS5:    x' = L x + B * u,   L = e^(Lambda Delta),   B = (L - 1) / Lambda B_0,   y = 2 Re(C * x') + D * u
ConvLSTM:  g_k = W_k * u + R_k * h + b_k for f, i, z, o,   c' = sigmoid(g_f) c + sigmoid(g_i) tanh(g_z),
           h' = sigmoid(g_o) tanh(c')

The states of ConvS5 do not couple, since their kernel is 1 x 1: complex numbers as two components, a constant 2 x 2
block for each, or one complex diagonal scan. (A kernel of k x k points grows to 2k - 1 when composed with itself.) The
Jacobian of the ConvLSTM is a stencil, and dense when it is composed; it has to be iterated without matrices.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np

import recsolve as rs
from recsolve.base.arrays import Array
from recsolve.mixings import Conv
from recsolve.studies.systems.system import Arrays, Draw, system_of


@dataclass(frozen=True)
class Config:
    """Lambda is that of HiPPO-N, S4D's -1/2 + i pi n; ``window`` the points of a kernel along each axis."""

    length: int = 512
    batch: int = 1
    height: int = 3
    width: int = 3
    channels: int = 2
    states: int = 3
    window: int = 3
    gain: float = 0.5
    seed: int = 0
    dtype: str = "float64"


def convolved(pictures: Any, kernel: Any) -> Any:
    """Return sum over places of kernel[place] pictures[point + place]: (..., H, W, in) to (..., H, W, out)."""
    (h, w), (height, width) = kernel.shape[:2], pictures.shape[-3:-1]
    around = [(0, 0)] * (pictures.ndim - 3) + [(h // 2, h // 2), (w // 2, w // 2), (0, 0)]
    padded, y = np.pad(pictures, around), 0.0
    for i, j in np.ndindex(h, w):
        y = y + padded[..., i : i + height, j : j + width, :] @ kernel[i, j].T
    return y


def _drawn(config: Config, kernels: dict[str, tuple[int, int, int]], random: Draw) -> Arrays:
    """Return pictures u and kernels, (how many, window, window, out, in), by name."""
    window, picture = (config.window, config.window), (config.height, config.width, config.channels)
    scale = config.gain / config.window
    drawn = {
        name: random.normal(count, *window, out, into, scale=scale * into**-0.5)
        for name, (count, out, into) in kernels.items()
    }
    return {"u": random.normal(config.length, config.batch, *picture), **drawn}


def draw_s5(config: Config) -> Arrays:
    U, P, random = config.channels, config.states, Draw(config.seed, config.dtype)
    delta = np.exp(random.uniform(*np.log([1e-3, 1e-1]), P))
    kernels = {"B": (2, P, U), "C": (2, U, P), "D": (1, U, U)}
    eigenvalues = np.stack([np.full(P, -0.5), np.pi * np.arange(P)]).astype(config.dtype)
    return {**_drawn(config, kernels, random), "delta": delta, "eigenvalues": eigenvalues}


def draw_lstm(config: Config) -> Arrays:
    U, P, random = config.channels, config.states, Draw(config.seed, config.dtype)
    drawn = _drawn(config, {"W": (4, P, U), "R": (4, P, P)}, random)
    return {**drawn, "b": random.normal(4, P, scale=0.1)}


def rotate(x: Any, u: Any, p: Any) -> Any:
    re, im = x[..., 0, :], x[..., 1, :]
    return np.stack([p.L[0] * re - p.L[1] * im, p.L[1] * re + p.L[0] * im], axis=-2) + u["Bu"]


def blocks(x: Any, u: Any, p: Any) -> Any:
    re, im = p.L
    J = np.stack([np.stack([re, -im]), np.stack([im, re])])
    return np.broadcast_to(J, (*x.shape[:-2], *J.shape))


def picture(x: Any, u: Any, p: Any) -> Any:
    height, width = u["u"].shape[-3:-1]
    pictures = x.reshape(*x.shape[:-1], height, width, -1)
    re, im = (convolved(pictures[..., k, :, :, :], p.C[k]) for k in range(2))
    return 2 * (re - im) + convolved(u["u"], p.D[0])


def convs5(arrays: Arrays) -> rs.Recurrence:
    u, B, eigenvalues = (arrays[name] for name in ("u", "B", "eigenvalues"))
    Lambda = eigenvalues[0] + 1j * eigenvalues[1]
    L = np.exp(Lambda * arrays["delta"])
    Bu = (L - 1) / Lambda * (convolved(u, B[0]) + 1j * convolved(u, B[1]))
    points = u.shape[-3] * u.shape[-2]
    Bu = Bu.reshape(*u.shape[:-3], points * len(L))
    return rs.Recurrence.from_function(
        rotate,
        inputs={"Bu": np.stack([Bu.real, Bu.imag], axis=-2), "u": u},
        initial=np.zeros((*u.shape[1:-3], 2, points * len(L)), u.dtype),
        structure="block",
        parameters={"L": np.tile(np.stack([L.real, L.imag]), points), "C": arrays["C"], "D": arrays["D"]},
        jacobian=blocks,
        readout=picture,
    )


def scan(recurrence: rs.Recurrence) -> Array:
    Bu, (re, im) = recurrence.inputs[0], recurrence.parameters.L  # type: ignore[attr-defined]
    L = (re + 1j * im)[None, None]  # the same at all times
    x = rs.scan("affine", (L, Bu[..., 0, :] + 1j * Bu[..., 1, :]))
    return np.stack([x.real, x.imag], axis=-2)


def convlstm(arrays: Arrays) -> rs.Recurrence:
    u, W, R, b = (arrays[name] for name in "uWRb")
    flat, grid = (*u.shape[:-3], -1), u.shape[-3:-1]
    cell = rs.cells.LSTM.with_weights(mixings={gate: Conv(R[k], grid) for k, gate in enumerate("figo")})
    return cell.recurrence(drive={gate: (convolved(u, W[k]) + b[k]).reshape(flat) for k, gate in enumerate("figo")})


_PAPER = {"title": "ConvSSM", "cite": "Smith et al., arXiv 2310.19694", "study": "paper/convssm"}
SYSTEMS = (
    system_of(
        __name__,
        name="convs5",
        draw=draw_s5,
        make=convs5,
        scan=scan,
        structure="2 x 2 per unit, constant: a complex diagonal",
        **_PAPER,
    ),
    system_of(__name__, name="convlstm", draw=draw_lstm, make=convlstm, structure="a stencil over the grid", **_PAPER),
)

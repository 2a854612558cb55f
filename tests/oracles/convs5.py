import numpy as np
from scipy.signal import correlate2d, lfilter

from oracles.functions import sigmoid, walked


def correlated(pictures, kernel):
    """Sum over input channels of scipy's 2-D correlations, (..., H, W, in) to (..., H, W, out)."""
    flat = pictures.reshape(-1, *pictures.shape[-3:])
    y = np.zeros((*flat.shape[:-1], kernel.shape[2]), pictures.dtype)
    for row, picture in enumerate(flat):
        for out, into in np.ndindex(*kernel.shape[2:]):
            y[row, ..., out] += correlate2d(picture[..., into], kernel[:, :, out, into], mode="same")
    return y.reshape(*pictures.shape[:-1], -1)


def discrete(arrays):
    """L and B u of all steps, complex."""
    u, B, (real, imaginary) = (arrays[name] for name in ("u", "B", "eigenvalues"))
    eigenvalues = real + 1j * imaginary
    L = np.exp(eigenvalues * arrays["delta"])
    return L, (L - 1) / eigenvalues * (correlated(u, B[0]) + 1j * correlated(u, B[1]))


def convs5(arrays):
    L, Bu = discrete(arrays)
    states = np.stack(walked(lambda x, t: L * x + Bu[t], np.zeros_like(Bu[0]), len(Bu)))
    states = states.reshape(*states.shape[:-3], -1)
    return np.stack([states.real, states.imag], axis=-2)


def filtered(arrays):
    """y = 2 Re(C * x) + D * u, x from scipy's recursive filters."""
    L, Bu = discrete(arrays)
    x = np.stack([lfilter([1], [1, -L[p]], Bu[..., p], axis=0) for p in range(len(L))], axis=-1)
    C, D, u = (arrays[name] for name in "CDu")
    return 2 * (correlated(x.real, C[0]) - correlated(x.imag, C[1])) + correlated(u, D[0])


def convlstm(arrays):
    u, W, R, b = (arrays[name] for name in "uWRb")
    driven = [correlated(u, W[k]) + b[k] for k in range(4)]

    def step(state, t):
        h, c = state
        f, i, z, o = (driven[k][t] + correlated(h, R[k]) for k in range(4))
        c = sigmoid(f) * c + sigmoid(i) * np.tanh(z)
        return sigmoid(o) * np.tanh(c), c

    zero = np.zeros((*u.shape[1:-1], b.shape[-1]), u.dtype)
    flat = len(u[0]), 2, -1
    return np.stack([np.stack(state, axis=1).reshape(flat) for state in walked(step, (zero, zero), len(u))])


ORACLES = {"convs5": convs5, "convlstm": convlstm}

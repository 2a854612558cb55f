import numpy as np

from oracles.functions import sigmoid, walked


def elman(arrays):
    x, U, W, b = (arrays[name] for name in ("x", "U", "W", "b"))
    zero = np.zeros((x.shape[1], W.shape[-1]), x.dtype)
    return np.stack(walked(lambda h, t: np.tanh(h @ W[0].T + x[t] @ U[0].T + b[0]), zero, len(x)))


def jordan(arrays):
    x, U, W, b = (arrays[name] for name in ("x", "U", "W", "b"))

    def step(y, t):
        h = np.tanh(x[t] @ U[0].T + y @ W[0].T + b[0])
        return np.tanh(h @ W[1].T + b[1])

    return np.stack(walked(step, np.zeros((x.shape[1], W.shape[-1]), x.dtype), len(x)))


def lstm(arrays):
    x, U, W, b = (arrays[name] for name in ("x", "U", "W", "b"))
    return lstm_of(x, U, W, b)


def lstm_of(x, U, W, b):
    def step(state, t):
        h, c = state
        i, f, g, o = (h @ W[k].T + x[t] @ U[k].T + b[k] for k in range(4))
        c = sigmoid(f) * c + sigmoid(i) * np.tanh(g)
        return sigmoid(o) * np.tanh(c), c

    zero = np.zeros((x.shape[1], W.shape[-1]), x.dtype)
    return np.stack([np.stack(state, axis=1) for state in walked(step, (zero, zero), len(x))])


ORACLES = {"elman": elman, "jordan": jordan, "lstm_review": lstm}

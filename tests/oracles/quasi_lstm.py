import numpy as np

from oracles.functions import sigmoid, walked


def quasi_lstm(arrays):
    x, W, b = (arrays[name] for name in "xWb")
    b = np.tile(b, W.shape[1] // b.shape[1])

    def step(c, t):
        f, i, z, _ = (x[t] @ W[k].T + b[k] for k in range(4))
        return sigmoid(f + 1) * c + sigmoid(i) * np.tanh(z)

    return np.stack(walked(step, np.zeros((x.shape[1], W.shape[1]), x.dtype), len(x)))


def mh_lstm(arrays):
    x, W, b, R = (arrays[name] for name in "xWbR")
    shape = (x.shape[1], W.shape[1] // b.shape[1], b.shape[1])

    def step(state, t):
        h, c = state
        f, i, z, o = ((x[t] @ W[k].T).reshape(shape) + b[k] + h @ R[k].T for k in range(4))
        c = sigmoid(f) * c + sigmoid(i) * np.tanh(z)
        return sigmoid(o) * np.tanh(c), c

    zero = np.zeros(shape, x.dtype)
    return np.stack([np.stack(state, axis=2) for state in walked(step, (zero, zero), len(x))])


ORACLES = {"quasi_lstm": quasi_lstm, "mh_lstm": mh_lstm}

"""Gates g_k = R_k y + x_k + b_k for all sequences and heads at a time."""

import numpy as np

from oracles.functions import sigmoid, walked


def by_heads(first):
    """Make an oracle of a step ``step(state, mixed, x, b)``, with mixed, x and b by gate."""

    def decorate(step):
        def oracle(arrays):
            x, R, b = arrays["x"], arrays["R"], arrays["b"]
            shape = (x.shape[1], *x.shape[3:])

            def move(state, t):
                mixed = [np.matmul(R[k], state[0][..., None])[..., 0] for k in range(4)]
                return step(state, mixed, np.moveaxis(x[t], 1, 0), b)

            states = walked(move, tuple(np.full(shape, value, x.dtype) for value in first), len(x))
            return np.stack([state[0] if len(first) == 1 else np.stack(state, axis=1) for state in states])

        return oracle

    return decorate


@by_heads((0.0,))
def elman(state, mixed, x, b):
    return (np.tanh(mixed[0] + x[0] + b[0]),)


@by_heads((0.0,))
def gru(state, mixed, x, b):
    r, z = (sigmoid(mixed[k] + x[k] + b[k]) for k in range(2))
    return (z * state[0] + (1 - z) * np.tanh(x[2] + r * (mixed[2] + b[2])),)


@by_heads((0.0, 0.0))
def lstm(state, mixed, x, b):
    i, f, z, o = (mixed[k] + x[k] + b[k] for k in range(4))
    c = sigmoid(f) * state[1] + sigmoid(i) * np.tanh(z)
    return sigmoid(o) * np.tanh(c), c


@by_heads((0.0, 0.0, 0.0, -np.inf))
def slstm(state, mixed, x, b):
    _, c, n, m = state
    i, f, z, o = (mixed[k] + x[k] + b[k] for k in range(4))
    kept = m - np.logaddexp(0, -f)
    top = np.maximum(i, kept)
    c = np.exp(kept - top) * c + np.exp(i - top) * np.tanh(z)
    n = np.exp(kept - top) * n + np.exp(i - top)
    return sigmoid(o) * c / n, c, n, top


ORACLES = {"flash_elman": elman, "flash_gru": gru, "flash_lstm": lstm, "flash_slstm": slstm}

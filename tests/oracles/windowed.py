"""Networks that see windows of their inputs, and no state."""

import numpy as np

from oracles.functions import sigmoid


def fsmn(arrays):
    u, W_l, b, W_p, a = (arrays[name] for name in ("u", "W_l", "b", "W_p", "a"))
    p = np.stack([[W_p @ np.maximum(W_l @ x + b, 0) for x in row] for row in u])
    filtered = np.empty_like(p)
    for sequence, unit in np.ndindex(*p.shape[1:]):  # a correlation: taps turned round
        filtered[:, sequence, unit] = np.convolve(p[:, sequence, unit], a[::-1, unit], mode="full")[
            len(a) // 2 : len(a) // 2 + len(p)
        ]
    return p + filtered


def pgn(arrays):
    x, W_p, W_g, W_c, b = (arrays[name] for name in ("x", "W_p", "W_g", "W_c", "b"))
    w, states = W_p.shape[-1], []
    padded = np.concatenate([np.zeros((w, *x.shape[1:]), x.dtype), x])
    for t in range(len(x)):
        past = sum(padded[t + j] @ W_p[:, :, j].T for j in range(w)) + b[0]
        seen = np.concatenate([x[t], past], axis=-1)
        g = sigmoid(seen @ W_g.T + b[1])
        states.append(g * past + (1 - g) * np.tanh(seen @ W_c.T + b[2]))
    return np.stack(states)


ORACLES = {"fsmn": fsmn, "pgn": pgn}

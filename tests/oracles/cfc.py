import numpy as np

from oracles.functions import sigmoid, walked


def cfc(arrays):
    I, time, W, V, b = (arrays[name] for name in ("I", "t", "W", "V", "b"))  # noqa: E741 - the paper's name

    def step(x, t):
        f, g, h = (x @ W[k].T + I[t] @ V[k].T + b[k] for k in range(3))
        early = sigmoid(-f * time[t])
        return early * np.tanh(g) + (1 - early) * np.tanh(h)

    return np.stack(walked(step, np.zeros((I.shape[1], W.shape[-1]), I.dtype), len(I)))


ORACLES = {"cfc": cfc}

import numpy as np

from oracles.functions import sigmoid, walked


def gru(arrays):
    x, (Az, Ar, An), B, b = (arrays[name] for name in ("x", "A", "B", "b"))

    def step(h, t):
        uz, ur, un = (B[k] @ x[t].T for k in range(3))
        z = sigmoid(Az * h + uz.T + b[0])
        r = sigmoid(Ar * h + ur.T + b[1])
        return (1 - z) * h + z * np.tanh(An * h * r + un.T + b[2])

    return np.stack(walked(step, np.zeros((x.shape[1], len(Az)), x.dtype), len(x)))


def lstm(arrays):
    x, (Af, Ag, Ao), (Cf, Co), B, b = (arrays[name] for name in ("x", "A", "C", "B", "b"))

    def step(state, t):
        h, c = state
        uf, ug, uo = ((B[k] @ x[t].T).T + b[k] for k in range(3))
        f = sigmoid(Af * h + Cf * c + uf)
        c = f * c + (1 - f) * np.tanh(Ag * h + ug)
        return sigmoid(Ao * h + Co * c + uo) * np.tanh(c), c

    zero = np.zeros((x.shape[1], len(Af)), x.dtype)
    return np.stack([np.stack(state, axis=1) for state in walked(step, (zero, zero), len(x))])


ORACLES = {"pararnn_gru": gru, "pararnn_lstm": lstm}

import numpy as np

from oracles.functions import walked


def minmax(arrays):
    r, s = arrays["r"], arrays["s"]
    return np.stack(walked(lambda x, t: np.maximum(np.minimum(r[t], x), s[t]), np.zeros_like(r[0]), len(r)))


def matrix(arrays):
    A, b = arrays["A"], arrays["b"]

    def step(x, t):
        return np.maximum(b[t], np.minimum(A[t], x[:, None, :]).max(axis=-1))

    return np.stack(walked(step, np.zeros_like(b[0]), len(b)))


def cascade(arrays):
    u, R = arrays["u"], arrays["R"]

    def step(x, t):
        new = []
        for layer in range(u.shape[2]):
            r, s = u[t, :, layer, 0], u[t, :, layer, 1]
            if layer:
                r, s = r + new[-1] @ R[layer - 1, 0].T, s + new[-1] @ R[layer - 1, 1].T
            new.append(np.maximum(np.minimum(r, x[:, layer]), s))
        return np.stack(new, axis=1)

    return np.stack(walked(step, np.zeros_like(u[0, :, :, 0]), len(u)))


ORACLES = {"minmax": minmax, "minmax_matrix": matrix, "minmax_cascade": cascade}

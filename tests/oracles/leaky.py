import numpy as np

from oracles.functions import walked


def phi(x):
    return np.where(x > 0, x, np.asarray(0.01, x.dtype) * x)


def leaky(inside):
    def oracle(arrays):
        x, W, V, b, tau = (arrays[name] for name in ("x", "W", "V", "b", "tau"))
        W = W * (1 - np.eye(len(W), dtype=W.dtype))

        def step(h, t):
            new = h @ W.T + (x[t] @ V.T + b)
            return (1 - 1 / tau) * h + phi(new) / tau if inside else phi((1 - 1 / tau) * h + new / tau)

        return np.stack(walked(step, arrays["initial"], len(x)))

    return oracle


ORACLES = {"leaky_outer": leaky(False), "leaky_inner": leaky(True), "leaky_parity": leaky(False)}

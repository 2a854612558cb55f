import numpy as np

from oracles.functions import walked


def loop(arrays):
    u, W, levels = (arrays[name] for name in ("u", "W", "levels"))

    def step(h, t):
        return np.rint(levels * np.tanh((W @ (h / levels).T).T + u[t])).astype(int)

    return np.stack(walked(step, np.zeros(u.shape[1:], int), len(u)))


ORACLES = {"hidden_transfer": loop}

import numpy as np

from oracles.functions import walked


def loop(arrays):
    u, W = arrays["u"], arrays["W"]
    return np.stack(walked(lambda h, t: np.tanh((W @ h.T).T + u[t]), np.zeros_like(u[0]), len(u)))


ORACLES = {"learn2pd": loop}

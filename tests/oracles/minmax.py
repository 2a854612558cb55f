import numpy as np

from oracles.functions import walked


def minmax(arrays):
    r, s = arrays["r"], arrays["s"]
    return np.stack(walked(lambda x, t: np.maximum(np.minimum(r[t], x), s[t]), np.zeros_like(r[0]), len(r)))


ORACLES = {"minmax": minmax}

import numpy as np

from oracles.functions import walked


def pointer(arrays):
    i, j = arrays["i"], arrays["j"]
    return np.stack(walked(lambda h, t: np.where(h == i[t], j[t], h), np.zeros_like(i[0]), len(i)))[..., None]


def connectivity(arrays):
    """The path from node 0, of which those nodes are known whose edges have been read."""
    T, states = len(arrays["j"]), []
    for edges in arrays["j"].T.tolist():
        path = [0]
        while path[-1] < T and edges[path[-1]] != path[-1]:
            path.append(edges[path[-1]])
        states.append([path[np.searchsorted(path[:-1], t, side="right")] for t in range(T)])
    return np.array(states, arrays["j"].dtype).T[..., None]


ORACLES = {"pointer": pointer, "connectivity": connectivity}

import numpy as np


def recurrent_depth(arrays):
    s0, W, V, E, C, P = (arrays[name] for name in ("s0", "W", "V", "E", "C", "P"))
    nodes, inner = arrays["nodes"].shape
    states = np.empty((len(P), nodes, *s0.shape), s0.dtype)
    past = s0
    for t in range(len(P)):
        e = past @ V.T + E[np.argmax(past @ C.T, axis=-1)] + P[t]
        s = s0
        for i in range(nodes * inner):
            s = np.tanh(s @ W.T + e)
            if i % inner == inner - 1:
                states[t, i // inner] = s
        past = s
    return states


ORACLES = {"recurrent_depth": recurrent_depth}

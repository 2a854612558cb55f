"""Matrices on edges, from one node to the next."""

import numpy as np

from oracles.functions import walked


def line(arrays):
    k, v, T, S = (arrays[name] for name in "kvTS")

    def step(C, t):
        return T[t][..., None, None] * C + S[t][..., None, None] * k[t][..., :, None] * v[t][..., None, :]

    zero = np.zeros((*k.shape[1:], v.shape[-1]), k.dtype)
    return np.stack(walked(step, zero, len(k))).reshape(*T.shape, -1)


def grid(transition):
    """Make an oracle of ``transition(gates)``, which gives T^rl, T^ru, T^dl, T^du, S^r and S^d."""

    def oracle(arrays):
        k, v, gates = (arrays[name] for name in ("k", "v", "gates"))
        X, Y = gates.shape[:2]
        R, W = {}, {}
        zero = np.zeros((*k.shape[2:], v.shape[-1]), k.dtype)
        for x in range(X):
            for y in range(Y):
                # The graph's first axis is the one along which R goes on, its second that of W.
                left, above = R.get((x - 1, y), zero), W.get((x, y - 1), zero)
                rl, ru, dl, du, r, d = (g[..., None, None] for g in transition(*np.moveaxis(gates[x, y], -1, 0)))
                kv = k[x, y][..., :, None] * v[x, y][..., None, :]
                R[x, y] = rl * left + ru * above + r * kv
                W[x, y] = dl * left + du * above + d * kv
        both = [np.stack([R[x, y], W[x, y]], axis=-3) for x in range(X) for y in range(Y)]
        return np.stack(both).reshape(*gates.shape[:-1], 2, -1)

    return oracle


def graph(arrays):
    k, v, a, g, edges = (arrays[name] for name in ("k", "v", "a", "g", "edges"))
    C = np.zeros((len(edges), *k.shape[1:], v.shape[-1]), k.dtype)
    for node in range(len(k)):  # sources come before targets
        seen = sum(g[e][..., None, None] * C[e] for e in np.flatnonzero(edges[:, 1] == node))
        for e in np.flatnonzero(edges[:, 0] == node):
            C[e] = a[e][..., None, None] * (seen + k[node][..., :, None] * v[node][..., None, :])
    return C.reshape(*a.shape, -1)


ORACLES = {
    "plstm_line": line,
    "plstm_grid_p": grid(lambda a, b, c: (a, a, 1 - a, 1 - a, a, 1 - a)),
    "plstm_grid_d": grid(lambda a, b, c: (a, 0 * a, b, c, a, 1 - a)),
    "plstm_graph": graph,
}

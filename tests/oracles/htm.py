"""Sets of cells, in plain Python, and one permanence after the other."""

import numpy as np


def memory(arrays):
    columns, source, theta = arrays["columns"], arrays["source"], int(arrays["theta"])
    T, B, N = columns.shape
    M = source.shape[1]
    connected = [
        (i, j, [int(c) for c, p in zip(cells, values, strict=True) if p > 0.5])
        for i in range(N)
        for j in range(M)
        for cells, values in zip(source[i, j], arrays["permanence"][i, j], strict=True)
    ]
    states = np.zeros((T, B, N * M), bool)
    for b in range(B):
        active = set()
        for t in range(T):
            predicted = {(i, j) for i, j, cells in connected if sum(c in active for c in cells) > theta}
            active = set()
            for i in np.flatnonzero(columns[t, b]):
                cells = [j for j in range(M) if (i, j) in predicted] or range(M)
                active |= {int(i) * M + j for j in cells}
            states[t, b, sorted(active)] = True
    return states


def permanence(arrays):
    T, B, S = arrays["right"].shape
    p = arrays["initial"].reshape(B, S, -1).copy()
    states = np.empty((T, *p.shape), p.dtype)
    for t in range(T):
        right, wrong, active = (arrays[name][t] for name in ("right", "wrong", "active"))
        p[right] += np.where(active[right], 1 / 16, -1 / 32)
        p[wrong] -= 1 / 128
        np.clip(p, 0, 1, out=p)
        states[t] = p
    return states.reshape(T, B, -1)


ORACLES = {"htm_memory": memory, "htm_permanence": permanence}

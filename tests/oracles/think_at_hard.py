"""One token, one depth and one seen token at a time."""

import numpy as np

from oracles.functions import sigmoid


def softmax(x):
    e = np.exp(x - x.max())
    return e / e.sum()


def think_at_hard(arrays):
    e, W, U, E = (arrays[name] for name in ("e", "W", "U", "E"))
    depth, window = arrays["sees"].shape
    T, batch, n = e.shape
    weights = [W] + [W + arrays["B"] @ arrays["A"]] * (depth - 1)
    states = np.zeros((T, depth, batch, n + 1), e.dtype)
    for s in range(batch):
        x = {(i, 0): e[i, s] for i in range(T)}  # those that run
        for d in range(depth):
            for i in range(T):
                if (i, d) not in x:
                    states[i, d, s, :n] = states[i, d - 1, s, :n]  # stopped
                    continue
                seen = [(j, k) for j in range(i - window + 1, i + 1) for k in range(d + 1) if (j, k) in x]
                q = x[i, d] @ weights[d][0]
                share = softmax(np.array([q @ (x[j, k] @ weights[k][1]) for j, k in seen]) / np.sqrt(e.dtype.type(n)))
                h = x[i, d] + np.tanh(sum(a * (x[j, k] @ weights[k][2]) for a, (j, k) in zip(share, seen, strict=True)))
                goes_on = sigmoid(h @ arrays["w"] + arrays["b"][0]) > 0.5
                states[i, d, s] = [*h, goes_on]
                if goes_on:
                    x[i, d + 1] = h + softmax(U @ h) @ E
    return states


ORACLES = {"think_at_hard": think_at_hard}

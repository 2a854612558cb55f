"""The layer one position and one head at a time, and the halting of one position at a time."""

import numpy as np

from oracles.functions import sigmoid


def normalised(x):
    return (x - x.mean()) / np.sqrt(x.var() + 1e-5)


def layer(H, w):
    A = np.empty_like(H)
    for i in range(len(H)):
        mixed = np.zeros_like(H[i])
        for head, Wo in enumerate(w["Wo"]):
            Wq, Wk, Wv = w["Wqkv"][:, head]
            scores = np.array([(H[i] @ Wq) @ (H[j] @ Wk) for j in range(len(H))]) / np.sqrt(H.dtype.type(len(Wo)))
            share = np.exp(scores - scores.max())
            share /= share.sum()
            mixed += sum(share[j] * (H[j] @ Wv) for j in range(len(H))) @ Wo
        A[i] = normalised(H[i] + mixed)
    inner = np.maximum(A @ w["W1"] + w["b1"], 0) @ w["W2"] + w["b2"]
    return np.array([normalised(a + x) for a, x in zip(A, inner, strict=True)])


def signal(t, i, d):
    """Position i and depth t from 1."""
    waves = [(np.sin, np.cos)[j % 2] for j in range(d)]
    return np.array([waves[j](i / 1e4 ** ((j - j % 2) / d)) + waves[j](t / 1e4 ** ((j - j % 2) / d)) for j in range(d)])


def embedded(H, t):
    return H + np.array([signal(t + 1, i + 1, H.shape[1]) for i in range(len(H))]).astype(H.dtype)


def transformer(arrays):
    states = []
    for H in arrays["H"]:
        states.append([])
        for t in range(len(arrays["P"])):
            H = layer(embedded(H, t), arrays)
            states[-1].append(H.ravel())
    return np.moveaxis(np.array(states), 0, 1)


def act(arrays):
    states = []
    for H in arrays["H"]:
        c, y, steps = np.zeros_like(H[:, 0]), np.zeros_like(H), []
        for t in range(len(arrays["P"])):
            seen = embedded(H, t)
            new = layer(seen, arrays)
            H, c, y = H.copy(), c.copy(), y.copy()
            for i in range(len(H)):
                if c[i] == 1:
                    continue  # halted
                p = sigmoid(seen[i] @ arrays["w"] + arrays["b"][0])
                H[i] = new[i]
                last = c[i] + p > 1 - 0.01
                y[i] += (1 - c[i] if last else p) * H[i]
                c[i] = 1 if last else c[i] + p
            steps.append(np.concatenate([H.ravel(), c, y.ravel()]))
        states.append(steps)
    return np.moveaxis(np.array(states), 0, 1)


ORACLES = {"universal_transformer": transformer, "universal_act": act}

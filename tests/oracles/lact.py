"""One sequence and one chunk at a time; gradients token by token."""

import numpy as np

from oracles.functions import sigmoid


def gradients(W0, W1, W2, k, v, eta):
    """Return dL/dW0, dL/dW1, dL/dW2 of L = -sum of eta <W1 (silu(W0 k) * W2 k), v>, with a rate for each matrix."""
    G0, G1, G2 = np.zeros_like(W0), np.zeros_like(W1), np.zeros_like(W2)
    for i in range(len(k)):
        a, c, g = W0 @ k[i], W2 @ k[i], W1.T @ v[i]
        gate = sigmoid(a)
        G0 -= eta[0, i] * np.outer(g * c * gate * (1 + a * (1 - gate)), k[i])
        G1 -= eta[1, i] * np.outer(v[i], a * gate * c)
        G2 -= eta[2, i] * np.outer(g * a * gate, k[i])
    return G0, G1, G2


def orthogonal(G):
    X = G / (np.linalg.norm(G) + 1e-7)
    for _ in range(5):
        A = X @ X.T
        X = 3.4445 * X + (-4.775 * A + 2.0315 * A @ A) @ X
    return X


def oracle(norm=False, muon=False, gradients=gradients):
    def states(arrays):
        first = [arrays[name] for name in ("W0", "W1", "W2")]
        sizes = [np.linalg.norm(W, axis=-1, keepdims=True) for W in first]
        T, batch = arrays["k"].shape[:2]
        rows = []
        for b in range(batch):
            W, m = first, [np.zeros_like(w) for w in first]
            for t in range(T):
                G = gradients(*W, arrays["k"][t, b], arrays["v"][t, b], arrays["eta"][:, t, b])
                if muon:
                    m = [arrays["mu"][t, b] * old - g for old, g in zip(m, G, strict=True)]
                    W = [w + orthogonal(x) for w, x in zip(W, m, strict=True)]
                else:
                    W = [w - g for w, g in zip(W, G, strict=True)]
                if norm:
                    W = [w / np.linalg.norm(w, axis=-1, keepdims=True) * size for w, size in zip(W, sizes, strict=True)]
                rows.append(np.concatenate([x.ravel() for x in (W + m if muon else W)]))
        return np.moveaxis(np.reshape(rows, (batch, T, -1)), 0, 1)

    return states


ORACLES = {"lact": oracle(), "lact_norm": oracle(norm=True), "lact_muon": oracle(norm=True, muon=True)}

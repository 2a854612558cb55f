"""Permutations are composed as lists, products of integers are Python's, reduced at the end."""

import numpy as np

from oracles.functions import walked


def diagonal(arrays):
    a, b = arrays["a"], arrays["b"]
    return np.stack(walked(lambda h, t: a[t] * h + b[t], np.zeros_like(b[0]), len(b)))


def pd(arrays):
    a, b, p = arrays["a"], arrays["b"], arrays["p"]
    rows = np.arange(b.shape[1])[:, None]

    def step(h, t):
        moved = b[t].copy()
        np.add.at(moved, (rows, p[t]), a[t] * h)
        return moved

    return np.stack(walked(step, np.zeros_like(b[0]), len(b)))


def s5(arrays):
    p, start = arrays["p"].tolist(), arrays["start"]
    whole = [list(range(len(start)))] * len(p[0])  # where the word so far leads each place
    states = []
    for letters in p:
        whole = [[letter[place] for place in word] for letter, word in zip(letters, whole, strict=True)]
        states.append([[start[word.index(place)] for place in range(len(start))] for word in whole])
    return np.array(states, start.dtype)


def relu(arrays):
    A, b = arrays["A"], arrays["b"]
    return np.stack(walked(lambda h, t: np.maximum((A @ h.T).T + b[t], 0), np.zeros_like(b[0]), len(b)))


def products(arrays):
    def times(A, M):
        return [[sum(a * M[k][j] for k, a in enumerate(row)) for j in range(len(M))] for row in A]

    A = arrays["A"].tolist()
    size, batch = len(A[0][0]), len(A[0])
    one = [[int(i == j) for j in range(size)] for i in range(size)]
    states = walked(lambda M, t: [times(A[t][b], M[b]) for b in range(batch)], [one] * batch, len(A))
    signed = [[[(x + 2**63) % 2**64 - 2**63 for row in M for x in row] for M in state] for state in states]
    return np.array(signed, arrays["A"].dtype)


ORACLES = {"lrnn_diagonal": diagonal, "lrnn_pd": pd, "lrnn_s5": s5, "lrnn_relu": relu, "lrnn_products": products}

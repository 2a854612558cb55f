"""Gradient steps by chunks: W_t is W at the beginning of the chunk less the sum of the gradients there."""

import numpy as np


def followed(arrays, start, begins, restarts=None, rates="eta"):
    """Return W_t, (batch, v, k), and W at the beginning of the chunk, for all t."""
    W, states = start, []
    for t in range(len(begins)):
        if restarts is not None and restarts[t]:
            W = start
        if begins[t]:
            anchor, total = W, 0
        k, v, eta = arrays["k"][t], arrays["v"][t], arrays[rates][t]
        wrong = (anchor @ k[:, :, None])[:, :, 0] - v
        total = total + (eta[:, None] * wrong)[:, :, None] * k[:, None, :]
        W = anchor - total
        states.append((W, anchor))
    return states


def joined(*memories):
    T, batch = len(memories[0]), len(memories[0][0][0])
    stacked = [np.stack([state[part] for state in memory]) for memory in memories for part in range(2)]
    return np.concatenate([x.reshape(T, batch, -1) for x in stacked], axis=-1)


def zero(arrays):
    k, v = arrays["k"], arrays["v"]
    return np.zeros((k.shape[1], v.shape[-1], k.shape[-1]), k.dtype)


def ttt(arrays):
    return joined(followed(arrays, zero(arrays), arrays["begins"]))


def tnt(arrays):
    V = followed(arrays, zero(arrays), arrays["begins_long"], rates="eta_long")
    local = [
        followed(arrays, np.broadcast_to(W0, zero(arrays).shape), arrays["begins"], arrays["begins_shard"])
        for W0 in arrays["W0"]
    ]
    W = [tuple(np.stack([one[t][part] for one in local], axis=1) for part in range(2)) for t in range(len(V))]
    return joined(V, W)


ORACLES = {"ttt": ttt, "tnt": tnt}

"""One sequence at a time, with the long memory as a list that grows; slots say where its entries lie in the end."""

import numpy as np


def recurrent_gpt(arrays):
    x, W, V, P, first, write = (arrays[name] for name in ("x", "W", "V", "P", "first", "write"))
    T, batch, n = x.shape
    states = np.zeros((T, batch, n + write.shape[1] * n), x.dtype)
    for b in range(batch):
        h, memory = np.zeros(n, x.dtype), {0: first}
        for t in range(T):
            texts, plan = np.stack([memory[slot] for slot in sorted(memory)]), P @ h
            score = texts @ plan
            share = np.exp(score - score.max())
            found = texts.T @ (share / share.sum())
            memory.update({int(slot): h for slot in np.flatnonzero(write[t])})
            h = np.tanh(W @ h + x[t, b] + V @ found)
            states[t, b, :n] = h
            for slot, text in memory.items():
                states[t, b, n * (slot + 1) : n * (slot + 2)] = text
    return states


ORACLES = {"recurrent_gpt": recurrent_gpt}

"""The memories of the segments one after the other; a memory that is not begun yet is what it begins as."""

import numpy as np

from oracles.functions import sigmoid


def _walk(arrays, start, move, mode):
    """Return the memories in all slots after each step; ``move(memory, t)`` writes into one memory."""
    segment = arrays["segment"].astype(int)
    slots = [start] * (segment[-1] + 1)
    states = []
    for t, current in enumerate(segment):
        slots = list(slots)
        slots[current] = moved = move(slots[current], t)
        if mode == "checkpoint":
            slots[current + 1 :] = [moved] * len(slots[current + 1 :])
        states.append(slots)
    return states


def linear(arrays, mode="independent"):
    k, v = arrays["k"], arrays["v"]
    start = np.zeros((k.shape[1], v.shape[-1], k.shape[-1]), k.dtype)
    states = _walk(arrays, start, lambda M, t: M + v[t][:, :, None] * k[t][:, None, :], mode)
    return np.stack([np.stack(slots, axis=1).reshape(k.shape[1], -1) for slots in states])


def dla_gradients(W0, W1, k, v):
    """Return those of <W1 silu(W0 k), v>, for all sequences."""
    a = np.einsum("bhk,bk->bh", W0, k)
    gate = sigmoid(a)
    g = np.einsum("bvh,bv->bh", W1, v) * (gate + a * gate * (1 - gate))
    return g[:, :, None] * k[:, None, :], v[:, :, None] * (a * gate)[:, None, :]


def dla(arrays, mode="independent", gradients=dla_gradients):
    k, v, eta = arrays["k"], arrays["v"], arrays["eta"][..., None, None]
    start = tuple(np.broadcast_to(arrays[name], (k.shape[1], *arrays[name].shape)) for name in ("W0", "W1"))

    def move(memory, t):
        G = gradients(*memory, k[t], v[t])
        return tuple(W + eta[t] * g for W, g in zip(memory, G, strict=True))

    states = _walk(arrays, start, move, mode)
    flat = [[np.stack([m[i] for m in slots], axis=1).reshape(k.shape[1], -1) for i in range(2)] for slots in states]
    return np.stack([np.concatenate(parts, axis=-1) for parts in flat])


ORACLES = {"memory_caching": linear, "memory_caching_dla": dla}

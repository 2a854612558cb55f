import numpy as np

from oracles.functions import walked


def _start(arrays):
    k, v = arrays["k"], arrays["v"]
    return np.zeros((k.shape[1], v.shape[-1], k.shape[-1]), k.dtype)


def deltanet(arrays):
    k, v, b = (arrays[name] for name in "kvb")

    def step(S, t):
        wrong = v[t] - np.einsum("bvk,bk->bv", S, k[t])
        return S + b[t][:, None, None] * wrong[:, :, None] * k[t][:, None, :]

    return np.stack(walked(step, _start(arrays), len(k)))


def rwkv7(arrays):
    k, v, c, a, w = (arrays[name] for name in "kvcaw")

    def step(S, t):
        forgotten = np.einsum("bvk,bk->bv", S, c[t])
        kept = S * w[t][:, None, :] - forgotten[:, :, None] * (a[t] * c[t])[:, None, :]
        return kept + v[t][:, :, None] * k[t][:, None, :]

    return np.stack(walked(step, _start(arrays), len(k)))


ORACLES = {"deltanet": deltanet, "rwkv7": rwkv7}

import numpy as np

from oracles.functions import walked


def titans(arrays):
    k, v = arrays["k"], arrays["v"]
    eta, theta, alpha = (arrays[name][..., None, None] for name in ("eta", "theta", "alpha"))

    def step(state, t):
        S, M = state
        gradient = 2 * (np.einsum("bvk,bk->bv", M, k[t]) - v[t])[:, :, None] * k[t][:, None, :]
        S = eta[t] * S - theta[t] * gradient
        return S, (1 - alpha[t]) * M + S

    zero = np.zeros((k.shape[1], v.shape[-1], k.shape[-1]), k.dtype)
    return np.stack(
        [np.concatenate([x.reshape(len(x), -1) for x in state], -1) for state in walked(step, (zero, zero), len(k))]
    )


ORACLES = {"titans": titans}

import numpy as np

from oracles.functions import sigmoid, walked


def mlstm(arrays):
    k, v, i, f = (arrays[name] for name in "kvif")

    def step(state, t):
        m, n, C = state
        kept = m - np.logaddexp(0, -f[t])
        top = np.maximum(kept, i[t])
        F, I = np.exp(kept - top), np.exp(i[t] - top)  # noqa: E741
        n = F[..., None] * n + I[..., None] * k[t]
        C = F[..., None, None] * C + I[..., None, None] * np.einsum("bhk,bhv->bhkv", k[t], v[t])
        return top, n, C

    batch, keys, values = k.shape[1:3], k.shape[-1], v.shape[-1]
    first = (
        np.full(batch, -np.inf, k.dtype),
        np.zeros((*batch, keys), k.dtype),
        np.zeros((*batch, keys, values), k.dtype),
    )
    return np.stack(
        [np.concatenate([m[..., None], n, C.reshape(*batch, -1)], axis=-1) for m, n, C in walked(step, first, len(k))]
    )


def mlstm_sig(arrays):
    k, v, i, f = (arrays[name] for name in "kvif")

    def step(C, t):
        F, I = sigmoid(f[t])[..., None, None], sigmoid(i[t])[..., None, None]  # noqa: E741
        return F * C + I * np.einsum("bhk,bhv->bhkv", k[t], v[t])

    states = np.stack(walked(step, np.zeros((*k.shape[1:], v.shape[-1]), k.dtype), len(k)))
    return states.reshape(*k.shape[:-1], -1)


def quadratic(arrays, *, exponential):
    """The outputs from all pairs of steps, without a state: the unstabilised form in longdouble, floor 1."""
    q, k, v, i, f, o = (np.moveaxis(arrays[name].astype(np.longdouble), 0, 2) for name in "qkvifo")
    until = np.cumsum(-np.logaddexp(0, -f), axis=2)  # (batch, heads, T)
    gate = i if exponential else -np.logaddexp(0, -i)
    D = np.exp(until[..., :, None] - until[..., None, :] + gate[..., None, :])
    S = np.einsum("bhtk,bhsk->bhts", q / np.sqrt(np.longdouble(q.shape[-1])), k) * np.tril(D)
    h = np.einsum("bhts,bhsv->bhtv", S, v)
    if exponential:
        h = h / np.maximum(abs(S.sum(axis=-1)), 1)[..., None]
    h = h - h.mean(axis=-1, keepdims=True)
    y = sigmoid(o) * h / np.sqrt((h * h).mean(axis=-1, keepdims=True) + 1e-6)
    return np.moveaxis(y, 2, 0).astype(float)


ORACLES = {"mlstm": mlstm, "mlstm_sig": mlstm_sig}

import numpy as np

from oracles.functions import walked


def sampler(arrays):
    alpha, mu, v, eta = (arrays[name] for name in ("alpha", "mu", "variance", "eta"))

    def step(x, t):
        old, new = alpha[t], alpha[t + 1]
        spread = old * v + 1 - old
        logits = -((x[:, None] - np.sqrt(old) * mu) ** 2).sum(axis=-1) / (2 * spread)
        weights = np.exp(logits - logits.max(axis=-1, keepdims=True))
        score = (np.sqrt(old) * (weights / weights.sum(axis=-1, keepdims=True)) @ mu - x) / spread
        e = -np.sqrt(1 - old) * score
        clean = (x - np.sqrt(1 - old) * e) / np.sqrt(old)
        sigma = eta * np.sqrt((1 - new) / (1 - old)) * np.sqrt(1 - old / new)
        return np.sqrt(new) * clean + np.sqrt(1 - new - sigma**2) * e + sigma * arrays["z"][t]

    return np.stack(walked(step, arrays["x"], len(arrays["z"])))


ORACLES = {"diffusion": sampler}

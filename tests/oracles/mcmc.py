"""Chains as a sampler would run them, one step after the other; logarithms of densities of all chains at once."""

import numpy as np

from oracles.functions import walked

LEAPS = 5


def wells(arrays):
    return lambda x: -((x**2 - 1) ** 2 / 4).sum(-1), lambda x: x - x**3


def gaussian(arrays):
    P = arrays["precision"]
    return lambda x: -np.einsum("bi,ij,bj->b", x, P, x) / 2, lambda x: -(x @ P)


def mala(target):
    def oracle(arrays):
        noise, log_u, e = arrays["noise"], arrays["log_u"][..., 0], arrays["step"][0, 0, 0]
        logp, score = target(arrays)

        def proposal(y, x):  # log q(y | x) up to a constant
            return -((y - x - e * score(x)) ** 2).sum(-1) / (4 * e)

        def step(x, t):
            y = x + e * score(x) + np.sqrt(2 * e) * noise[t]
            accepted = log_u[t] < logp(y) + proposal(x, y) - logp(x) - proposal(y, x)
            return np.where(accepted[:, None], y, x)

        return np.stack(walked(step, arrays["initial"], len(noise)))

    return oracle


def hmc(target):
    def oracle(arrays):
        noise, log_u, e = arrays["noise"], arrays["log_u"][..., 0], arrays["step"][0, 0, 0]
        logp, score = target(arrays)

        def step(x, t):
            y, p = x, noise[t]
            for _ in range(LEAPS):
                p = p + e / 2 * score(y)
                y = y + e * p
                p = p + e / 2 * score(y)
            energies = [(v**2).sum(-1) / 2 - logp(at) for at, v in ((x, noise[t]), (y, p))]
            return np.where((log_u[t] < energies[0] - energies[1])[:, None], y, x)

        return np.stack(walked(step, arrays["initial"], len(noise)))

    return oracle


def leapfrog(arrays):
    noise, e, (_, score) = arrays["noise"], arrays["step"][0, 0, 0], wells(arrays)

    def step(state, t):
        x, p = state
        p = (noise[t] if t % LEAPS == 0 else p) + e / 2 * score(x)
        x = x + e * p
        return x, p + e / 2 * score(x)

    first = arrays["initial"], np.zeros_like(arrays["initial"])
    return np.stack([np.stack(state, axis=1) for state in walked(step, first, len(noise))])


ORACLES = {
    "mala_gaussian": mala(gaussian),
    "mala_wells": mala(wells),
    "hmc_gaussian": hmc(gaussian),
    "hmc_wells": hmc(wells),
    "leapfrog": leapfrog,
}

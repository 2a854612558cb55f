"""Loops over time as written by hand in NumPy, for cells whose units do not mix: the rivals of compiled solves.

States and drives have time first; weights are one number per unit.
"""

from __future__ import annotations

import numpy as np

from recsolve.base.arrays import Array


def _sigmoid(x: Array) -> Array:
    return 1 / (1 + np.exp(-x))


def gru(u: dict[str, Array], w: dict[str, Array]) -> Array:
    """Return h[t] = (1 - z) n + z h[t-1], from h[-1] = 0; ``w`` has the weights r, z, n and the bias b_n."""
    states = np.empty_like(u["r"])
    h = np.zeros_like(states[0])
    for t in range(len(states)):
        r = _sigmoid(u["r"][t] + w["r"] * h)
        z = _sigmoid(u["z"][t] + w["z"] * h)
        n = np.tanh(u["n"][t] + r * (w["n"] * h + w["b_n"]))
        states[t] = h = (1 - z) * n + z * h
    return states


def gru_adjoint(u: dict[str, Array], w: dict[str, Array], states: Array, c: Array) -> tuple[Array, dict[str, Array]]:
    """Return the adjoint variables and the gradients to drives (as ``r``) and weights (as ``w_r``)."""
    g, carry = np.empty_like(states), np.zeros_like(states[0])
    found = {name: np.empty_like(states) for name in "rzn"} | {f"w_{name}": np.zeros_like(carry) for name in "rzn"}
    found["b_n"] = np.zeros_like(carry)
    for t in range(len(states) - 1, -1, -1):
        h = states[t - 1] if t else np.zeros_like(carry)
        r, z = _sigmoid(u["r"][t] + w["r"] * h), _sigmoid(u["z"][t] + w["z"] * h)
        mixed = w["n"] * h + w["b_n"]
        n = np.tanh(u["n"][t] + r * mixed)
        g[t] = now = c[t] + carry
        found["n"][t] = dn = now * (1 - z) * (1 - n * n)
        found["r"][t] = dr = dn * mixed * r * (1 - r)
        found["z"][t] = dz = now * (h - n) * z * (1 - z)
        carry = now * z + w["r"] * dr + w["z"] * dz + w["n"] * r * dn
        found["w_r"] += dr * h
        found["w_z"] += dz * h
        found["w_n"] += dn * r * h
        found["b_n"] += dn * r
    return g, found


def lstm(u: dict[str, Array], w: dict[str, Array]) -> Array:
    """Return h = o tanh(c) and c = f c[t-1] + i g, stacked (T, batch, 2, n), from 0."""
    drive = u["i"]
    states = np.empty((*drive.shape[:-1], 2, drive.shape[-1]), drive.dtype)
    h, c = np.zeros_like(drive[0]), np.zeros_like(drive[0])
    for t in range(len(states)):
        i, f, o = (_sigmoid(u[name][t] + w[name] * h) for name in "ifo")
        c = f * c + i * np.tanh(u["g"][t] + w["g"] * h)
        h = o * np.tanh(c)
        states[t, ..., 0, :], states[t, ..., 1, :] = h, c
    return states


def lstm_adjoint(
    u: dict[str, Array], w: dict[str, Array], states: Array, cotangent: Array
) -> tuple[Array, dict[str, Array]]:
    """Return the adjoint variables and the gradients to drives (as ``i``) and weights (as ``w_i``)."""
    result, zero = np.empty_like(states), np.zeros_like(u["i"][0])
    carry_h, carry_c = zero, zero
    found = {name: np.empty_like(u["i"]) for name in "ifgo"} | {f"w_{name}": np.zeros_like(zero) for name in "ifgo"}
    for t in range(len(states) - 1, -1, -1):
        h, c = (states[t - 1, ..., 0, :], states[t - 1, ..., 1, :]) if t else (zero, zero)
        i, f, o = (_sigmoid(u[name][t] + w[name] * h) for name in "ifo")
        g, top = np.tanh(u["g"][t] + w["g"] * h), np.tanh(states[t, ..., 1, :])
        result[t, ..., 0, :] = now_h = cotangent[t, ..., 0, :] + carry_h
        result[t, ..., 1, :] = now_c = cotangent[t, ..., 1, :] + carry_c
        dc = now_c + now_h * o * (1 - top * top)
        d = {"i": dc * g * i * (1 - i), "f": dc * c * f * (1 - f), "g": dc * i * (1 - g * g)}
        d["o"] = now_h * top * o * (1 - o)
        carry_h, carry_c = sum((w[name] * d[name] for name in d), start=zero), dc * f
        for name in d:
            found[name][t] = d[name]
            found[f"w_{name}"] += d[name] * h
    return result, found

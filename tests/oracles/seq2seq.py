import numpy as np

from oracles.functions import sigmoid


def seq2seq(arrays):
    Wh, b, n = arrays["Wh"], arrays["b"], arrays["Wh"].shape[2]
    L, batch = Wh.shape[1], arrays["source"].shape[1]
    below = np.concatenate([arrays["source"][::-1], arrays["target"]])
    stack = []
    for layer in range(L):
        h = c = np.zeros((batch, n), Wh.dtype)
        states = []
        for t, x in enumerate(below):
            part = int(t >= len(arrays["source"]))
            Wx = arrays["Wx"][part] if layer == 0 else arrays["Wbelow"][part, layer - 1]
            gates = h @ Wh[part, layer] + x @ Wx + b[part, layer]
            i, f, g, o = np.split(gates, 4, axis=-1)
            c = sigmoid(f) * c + sigmoid(i) * np.tanh(g)
            h = sigmoid(o) * np.tanh(c)
            states.append(np.concatenate([h, c], axis=-1))
        below = [state[:, :n] for state in states]
        stack.append(states)
    return np.array(stack)


ORACLES = {"seq2seq_lstm": seq2seq}

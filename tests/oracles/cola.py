import numpy as np


def cola(arrays):
    H, A, b, B = (arrays[name] for name in ("H", "A", "b", "B"))
    states = []
    for block in arrays["path"].astype(int):
        mean = np.stack([H[:, : i + 1].mean(axis=1) for i in range(H.shape[1])], axis=1)
        H = H + np.tanh(mean @ A[block] + b[block]) @ B[block]
        states.append(H.reshape(len(H), -1))
    return np.array(states)


ORACLES = {"cola_depth": cola}

"""Hidden transfer: the states ahead are drafted by linear maps of the last one, and verified in one pass.

Wu et al. (arXiv 2404.12022) draft the hidden states of the next tokens of a language model. Here a state is a vector of
whole numbers, so that two states agree or do not:

    h' = round(levels tanh(W h / levels + u))
    draft:   h_{t+i} is about W_i [1, h_t, u_{t+1}, ..., u_{t+i}],  i = 1, ..., k,  by ridge regression on a solution
    verify:  f of all k drafts at once; those that agree from the first on are kept, and one state more

There is no Jacobian. The answer is that of the loop, whatever the draft.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np

import recsolve as rs
from recsolve.base.arrays import Array
from recsolve.studies.systems.system import Arrays, Draw, system_of


@dataclass(frozen=True)
class Config:
    """``drive`` is the size of the inputs, which decides how far tanh is from a line."""

    length: int = 1024
    batch: int = 1
    units: int = 2
    levels: float = 4.0
    gain: float = 0.9
    drive: float = 0.5
    seed: int = 0


def draw(config: Config) -> Arrays:
    n, random = config.units, Draw(config.seed, "float64")
    return {
        "u": random.normal(config.length, config.batch, n, scale=config.drive),
        "W": random.normal(n, n, scale=config.gain * n**-0.5),
        "levels": np.array(config.levels),
    }


def _step(h: Any, u: Any, p: Any) -> Any:
    return np.rint(p.levels * np.tanh((h / p.levels) @ p.W.T + u)).astype(h.dtype)


def make(arrays: Arrays) -> rs.Recurrence:
    u = arrays["u"]
    return rs.Recurrence.from_function(
        _step,
        inputs=u,
        initial=np.zeros(u.shape[1:], np.int64),
        parameters={name: arrays[name] for name in ("W", "levels")},
        structure="none",
    )


def _features(h: Array, ahead: Array) -> Array:
    """Return [1, h, u_1, ..., u_i] from h (..., n) and the inputs after it, (i, ..., n)."""
    one = np.ones((*h.shape[:-1], 1))
    return np.concatenate([one, h, *ahead], axis=-1)


class Draft:
    """Linear maps of a state and of the inputs after it, fitted to a solution; a guess for any solve.

    Parameters
    ----------
    solution : Solution
        To learn from.
    reach : int
        k, of how many states; a longer draft begins again from its own last state.
    ridge : float
    """

    def __init__(self, solution: rs.Solution, reach: int, ridge: float = 1e-3):
        u, h = solution.recurrence.inputs[0], solution.states  # type: ignore[attr-defined]
        self.maps = []
        for i in range(1, reach + 1):
            x = _features(h[:-i], np.stack([u[j : len(u) - i + j] for j in range(1, i + 1)]))
            x, y = x.reshape(-1, x.shape[-1]), h[i:].reshape(-1, h.shape[-1])
            self.maps.append(np.linalg.solve(x.T @ x + ridge * np.eye(x.shape[1]), x.T @ y))

    def __call__(self, recurrence: Any) -> Array:
        (u,), states = recurrence.inputs, np.empty(recurrence.shape, recurrence.dtype)
        for start in range(0, len(u), len(self.maps)):
            h = states[start - 1] if start else recurrence.initial
            for i, W in enumerate(self.maps[: len(u) - start]):
                states[start + i] = np.rint(_features(h, u[start : start + i + 1]) @ W)
        return states


def verified(recurrence: Any, draft: Any, reach: int) -> tuple[Array, list[int]]:
    """Return the states, and how many each pass has found, of one sequence.

    A pass drafts ``reach`` states and evaluates f after all of them at once: it finds the states that agree, from the
    first on, and the one after them.
    """
    states, found, start = np.empty(recurrence.shape, recurrence.dtype), [], 0
    while start < recurrence.length:
        before = states[start - 1] if start else recurrence.initial
        part = recurrence.window(start, min(start + reach + 1, recurrence.length), initial=before)
        values = part.bind().evaluate(guess := draft(part))
        wrong = (guess != values).any(axis=tuple(range(1, guess.ndim)))
        right = int(wrong.argmax()) + 1 if wrong.any() else len(wrong)
        states[start : start + right] = values[:right]
        found.append(right)
        start += right
    return states, found


SYSTEMS = (
    system_of(
        __name__,
        name="hidden_transfer",
        make=make,
        structure="none: whole numbers",
        title="Hidden transfer",
        cite="Wu et al., arXiv 2404.12022",
        study="hidden_transfer",
    ),
)

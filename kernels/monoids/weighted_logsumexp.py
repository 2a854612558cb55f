"""Running sums of vectors with exponential weights and decay: softmax attention as a recurrence."""

from __future__ import annotations

from typing import Any

import numpy as np

from recsolve.base.arrays import Array, broadcast, namespace
from recsolve.jacobians import Jacobian
from recsolve.kernels.monoids.exponential_sums import joined, linearise_sums, weight
from recsolve.kernels.monoids.monoid import Monoid, Pull, exact_range, given, spread


class WeightedLogSumExp(Monoid):
    """(M, S) -> (M', S'), S' e^M' = e^f S e^M + v e^m and M' = max(M + f, m): weighted sums that share one maximum.

    Elements are a triple (f, m, v), float16, float32 or float64: the logarithms f of what is kept and m of the weight
    of what is new, both (T, ...), and vectors v (T, ..., d). f = 0.0 keeps all. States (T, ..., 1 + d) have M before
    the d sums. A one among the entries of v sums up the weights, by which the others are divided for an average. No
    exponential overflows. m = -inf adds nothing, f = -inf forgets all. A cut step gives (m, v). NaN propagates.

    With f = 0.0 these are the states of softmax attention as a recurrence (Feng et al., "Attention as an RNN", arXiv
    2405.13956), with f = log sigmoid those of the mLSTM (Beck et al., "xLSTM", arXiv 2405.04517, equations 19 to 27).

    Raises
    ------
    ValueError
        For other than three arrays, or shapes that do not fit.

    Examples
    --------
    >>> import numpy as np, recsolve as rs
    >>> scores, values = np.array([1000.0, 1000.0, 999.0]), np.array([[1.0], [3.0], [5.0]])
    >>> y = rs.scan("weighted_logsumexp", (0.0, scores, np.concatenate([np.ones((3, 1)), values], axis=1)))
    >>> y[:, 2:] / y[:, 1:2]  # averages of the values so far
    array([[1.        ],
           [2.        ],
           [2.46608721]])
    """

    name, letters, place = "weighted_logsumexp", ("f", "m", "v"), 8.5

    def prepare(self, elements: Any) -> tuple[Array, Array, Array]:
        f, m, v = given(self.title, self.letters, elements)
        shapes = " and ".join(str(x.shape) for x in (f, m, v))
        wanted = f"elements (f, m, v) have shapes {shapes}; wanted f and m (T, ...) (or f a number) and v (T, ..., d)"
        try:
            f, m = spread(("f", "m"), (f, m))
            if v.ndim != m.ndim + 1:
                raise ValueError
            shape = np.broadcast_shapes(m.shape, v.shape[:-1])
        except ValueError:
            raise ValueError(wanted) from None
        return broadcast(f, shape), broadcast(m, shape), broadcast(v, (*shape, v.shape[-1]))

    def like(self, elements: tuple[Array, ...]) -> Array:
        _, m, v = elements
        return namespace(m).broadcast_to(m[..., None], (*m.shape, 1 + v.shape[-1]))  # type: ignore[no-any-return]

    def act(self, elements: tuple[Array, ...], states: Array) -> Array:
        f, m, v = elements
        carried = states[..., 0] + f
        greatest = np.maximum(carried, m)
        kept, new = weight(carried, greatest)[..., None], weight(m, greatest)[..., None]
        return joined(greatest, states[..., 1:] * kept + v * new)

    def compose(self, later: tuple[Array, ...], earlier: tuple[Array, ...]) -> tuple[Array, ...]:
        f, m, v = earlier
        after = self.act(later, joined(m, v))
        return exact_range(f, later[0]), after[..., 0], after[..., 1:]

    def identity(self, elements: tuple[Array, ...]) -> tuple[Array, ...]:
        f, m, v = elements
        xp = namespace(m)
        return xp.zeros_like(f), xp.full_like(m, -np.inf), xp.zeros_like(v)

    def constant(self, elements: tuple[Array, ...], initial: Array | None) -> Array:
        return joined(elements[1], elements[2])

    def mixed(self, elements: tuple[Array, ...]) -> tuple[int, ...]:
        return (-1,)

    def linearise(self, elements: tuple[Array, ...], before: Array) -> tuple[Jacobian, Pull]:
        f, m, v = elements
        return linearise_sums(before[..., 0] + f, before[..., 1:], m, v)

    def forget(self, elements: tuple[Array, ...], cotangent: Array) -> tuple[None, Array, Array]:
        return None, cotangent[..., 0], cotangent[..., 1:]

"""Convolutions: a stencil over the axes of a grid, with channels at every point."""

from __future__ import annotations

from collections.abc import Iterator
from math import prod
from typing import Any

import numpy as np

from recsolve.base.arrays import Array, namespace, to_host
from recsolve.base.overriding import changed
from recsolve.mixings.mixing import LinearInWeight, Mixing, severed

_BOUNDARIES = ("zero", "periodic")
_SMALL = 1 << 12  # numbers up to which all places of a window are one product: a loop over them would take its calls


class Conv(LinearInWeight):
    """A convolution over a grid: y[p] = sum over k of K[k] x[p + k - centre], with channels at every point p.

    The units of a state are the points of the grid, with their channels last: n = prod(grid) * channels, and
    ``h.reshape(*h.shape[:-1], *grid, channels)`` is the picture.

    Parameters
    ----------
    weight : array, shape (*window, channels, channels)
        The kernel K, the channel that is written first; float32 or float64. Sizes of the window are odd.
    grid : tuple of int
        The sizes of the grid, one for every axis of the window.
    boundary : {"zero", "periodic"}
        What lies beyond the grid.

    Raises
    ------
    ValueError
        For an unknown boundary, and shapes that do not agree. A window reaches no further than the grid: half of it
        is less than the size, and with a periodic boundary all of it is no more.

    Notes
    -----
    The coupling of ConvLSTM: Shi et al., NeurIPS 2015 (arXiv 1506.04214). What deep learning calls a convolution, with
    the kernel not turned round.

    Examples
    --------
    >>> import numpy as np, recsolve as rs
    >>> blur = rs.mixings.Conv(np.full((3, 1, 1), 1.0), grid=(5,))
    >>> blur(np.array([0.0, 0.0, 1.0, 0.0, 0.0])).tolist()
    [0.0, 1.0, 1.0, 1.0, 0.0]
    """

    name = "conv"
    linear = True

    def __init__(self, weight: Any, grid: tuple[int, ...], boundary: str = "zero"):
        super().__init__(weight)
        self.grid, self.boundary = tuple(int(n) for n in grid), boundary
        if boundary not in _BOUNDARIES:
            raise ValueError(f"boundary is {boundary!r}; wanted one of {', '.join(map(repr, _BOUNDARIES))}")
        shape = tuple(self.weight.shape)
        if not self.grid or len(shape) != len(self.grid) + 2 or shape[-1] != shape[-2] or not all(shape):
            wanted = f"({'window, ' * len(self.grid)}channels, channels)"
            raise ValueError(f"weight has shape {shape}; wanted {wanted} for the grid {self.grid}")
        for n, w in zip(self.grid, shape, strict=False):
            if w % 2 == 0 or w // 2 >= n or (boundary == "periodic" and w > n):
                raise ValueError(
                    f"window is {shape[:-2]} and grid is {self.grid}; wanted odd sizes that the grid holds"
                )

    @property
    def units(self) -> int:
        return prod(self.grid) * self.channels

    @property
    def channels(self) -> int:
        """Numbers at every point of the grid."""
        return int(self.weight.shape[-1])

    def _shifted(self, x: Array) -> Iterator[tuple[tuple[int, ...], Array]]:
        """Return what each point sees of pictures (..., n) at every place of the window, (rows, points, channels)."""
        window = self.weight.shape[:-2]
        pictures = x.reshape(prod(x.shape[:-1]), *self.grid, self.channels)
        halves = [w // 2 for w in window]
        if self.boundary == "periodic":
            padded = namespace(x).pad(pictures, [(0, 0), *((h, h) for h in halves), (0, 0)], mode="wrap")
        else:  # in place of pad, which takes longer than all else that a step of a small picture needs
            sizes = [n + 2 * h for n, h in zip(self.grid, halves, strict=True)]
            padded = namespace(x).zeros((len(pictures), *sizes, self.channels), x.dtype)
            padded[(slice(None), *(slice(h, h + n) for n, h in zip(self.grid, halves, strict=True)))] = pictures
        for place in np.ndindex(*window):
            cut = tuple(slice(k, k + n) for k, n in zip(place, self.grid, strict=True))
            yield place, padded[(slice(None), *cut)].reshape(len(pictures), prod(self.grid), self.channels)

    def matvec(self, x: Any) -> Any:
        if x.size <= _SMALL:
            seen = namespace(x).concatenate([part for _, part in self._shifted(x)], axis=-1)
            return (seen @ self.weight.swapaxes(-1, -2).reshape(-1, self.channels)).reshape(x.shape)
        y: Any = 0.0
        for place, seen in self._shifted(x):
            y = y + seen @ self.weight[place].T
        return y.reshape(x.shape)

    def _turned(self) -> Array:
        """Return the kernel of the transpose."""
        axes = tuple(range(len(self.grid)))
        return namespace(self.weight).flip(self.weight, axes).swapaxes(-1, -2)  # type: ignore[no-any-return]

    def transpose(self) -> Mixing:
        return severed(changed(self, weight=self._turned()), self)

    def diagonal(self) -> Array:
        xp, centre = namespace(self.weight), tuple(w // 2 for w in self.weight.shape[:-2])
        return xp.tile(xp.diagonal(self.weight[centre]), prod(self.grid))  # type: ignore[no-any-return]

    def hadamard_transpose(self, other: Mixing) -> Mixing:
        alike = type(other) is Conv and (other.grid, other.boundary) == (self.grid, self.boundary)
        if not alike or other.weight.shape != self.weight.shape:
            return super().hadamard_transpose(other)
        return severed(changed(self, weight=self.weight * other._turned()), self, other)  # type: ignore[attr-defined]

    @property
    def rounding(self) -> float:
        squares = to_host(self.weight).astype(np.float64) ** 2
        terms = squares.size // self.channels
        norm = float(squares.sum(axis=(*range(len(self.grid)), -1)).max()) ** 0.5
        return norm * terms**0.5 / 8  # type: ignore[no-any-return]

    def weight_cotangent(self, g: Array, x: Array) -> Array:
        rows, found = g.reshape(-1, self.channels), namespace(x).zeros_like(self.weight)
        for place, seen in self._shifted(x):
            found[place] = rows.T @ seen.reshape(-1, self.channels)
        return found  # type: ignore[no-any-return]

    def weight_tangent(self, tangent: Array, x: Array) -> Array:
        return changed(self, weight=tangent).matvec(x)  # type: ignore[no-any-return]

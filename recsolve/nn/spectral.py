"""Keeping layers where parallel solves are short: exponents of a layer on data, and bounds on recurrent weights."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch

from recsolve.analysis.exponents import lyapunov
from recsolve.base.arrays import to_native
from recsolve.interop.autograd import CellSpec
from recsolve.interop.autograd_ops import run
from recsolve.nn.seen import Seen, check_layer, watched

_PILOT = 256  # steps from which an exponent is measured
_CLOSE = 3e-3  # of the logarithm of a scale
_WIDEST = 64.0  # factor on the weights as they are, and its inverse
_MOVED = 1e-5  # how far a pilot starts from the trajectory, in float64


def exponents(layer: Any, x: Any) -> Any:
    """Return the largest Lyapunov exponent per step of each layer and direction, on data.

    Parameters
    ----------
    layer : GRU, LSTM, RNN or Recurrent
    x : tensor
        An input, of which the first 256 steps are looked at.

    Returns
    -------
    array, shape (layers directions,)
        As ``rs.diagnose`` has it: below 0 perturbations die out and solves are short, above 0 the layer is chaotic.

    Raises
    ------
    TypeError
        For a layer that is none of this package.
    ValueError
        For fewer than 2 steps, and as the layer itself.

    Examples
    --------
    >>> import torch, recsolve as rs
    >>> layer = rs.nn.GRU(3, 8, num_layers=2)
    >>> bool((rs.nn.exponents(layer, torch.randn(50, 4, 3)) < 0).all())
    True
    """
    with watched(layer) as seen, torch.no_grad():
        layer(_pilot(layer, x))
    return np.array([_exponent(solve) for solve in seen])


def _pilot(layer: Any, x: Any) -> Any:
    return x[:, :_PILOT] if layer.batch_first and x.ndim == 3 else x[:_PILOT]


def _exponent(solve: Seen) -> float:
    recurrence = solve.recurrence
    if recurrence.length < 2 or 0 in recurrence.shape:
        raise ValueError(f"x gives states of shape {recurrence.shape}; wanted 2 steps or more, and no empty axis")
    return lyapunov(recurrence, to_native(solve.states, "states"))


def init_lyapunov_(layer: Any, x: Any, exponent: float) -> Any:
    """Scale the recurrent weights of every layer and direction, until its largest Lyapunov exponent is the wished one.

    Parameters
    ----------
    layer : GRU, LSTM, RNN or Recurrent
        Its weights are changed in place, from below upwards, for each layer sees what those below it show.
    x : tensor
        Data on which the exponents are measured.
    exponent : float
        Per step: a perturbation grows by exp(exponent).

    Returns
    -------
    layer

    Raises
    ------
    ValueError
        When no scale from 1/64 to 64 gives it: gates keep what they keep without recurrent weights. Then the weights
        are as they were.

    Notes
    -----
    Below 0 the number of Newton iterations grows as log T, above it as T: Gonzalez et al. (2025), arXiv 2508.16817.

    Examples
    --------
    >>> import torch, recsolve as rs
    >>> _ = torch.manual_seed(0)
    >>> layer, x = rs.nn.RNN(3, 16), torch.randn(200, 4, 3)
    >>> rs.nn.init_lyapunov_(layer, x, -0.1).counters.completed, rs.nn.exponents(layer, x).round(2)
    (0, array([-0.1]))
    """
    x = _pilot(layer, x)
    with torch.no_grad():
        weights = [[w.clone() for w, _ in _recurrent(layer, i)] for i in range(len(exponents(layer, x)))]
        try:
            for index, kept in enumerate(weights):
                _scale_to(layer, x, exponent, index, kept)
        except ValueError:
            for index, kept in enumerate(weights):
                _write(layer, index, kept)
            raise
    return layer


def _scale_to(layer: Any, x: Any, wanted: float, index: int, weights: list[Any]) -> None:
    """Find the scale of one layer and direction between two that lie on either side of what is wanted."""
    found: list[float] = []

    def above(scale: float) -> bool:
        _write(layer, index, [scale * w for w in weights])
        with watched(layer) as seen:
            layer(x)
        found.append(_exponent(seen[index]))
        return found[-1] > wanted

    low = high = 1.0
    while above(low) and low > 1 / _WIDEST:
        low /= 2
    while not above(high) and high < _WIDEST:
        high *= 2
    if above(low) or not above(high):
        place, reverse = divmod(index, 1 + layer.bidirectional)
        raise ValueError(
            f"exponent is {wanted}; the recurrent weights of layer {place}{', reverse' if reverse else ''} give "
            f"{min(found):.3g} to {max(found):.3g}, by factors of up to {_WIDEST:g}"
        )
    while np.log(high / low) > _CLOSE:
        middle = (low * high) ** 0.5
        low, high = (low, middle) if above(middle) else (middle, high)
    above((low * high) ** 0.5)


def _write(layer: Any, index: int, weights: list[Any]) -> None:
    for (place, _), w in zip(_recurrent(layer, index), weights, strict=True):
        place.copy_(w)


def clip_recurrent_(layer: Any, max_norm: float) -> Any:
    """Bound the spectral norm of every recurrent weight: larger singular values are set to ``max_norm``.

    Parameters
    ----------
    layer : GRU, LSTM, RNN or Recurrent
        Its weights are changed in place: to the nearest ones within the bound, entries of diagonal ones clipped. Call
        it after every step of the optimiser.
    max_norm : float
        Of each gate's matrix, head or diagonal by itself.

    Returns
    -------
    layer

    Raises
    ------
    ValueError
        For a bound that is not above 0, and for weights that are reparametrized.
    TypeError
        For a layer that is none of this package, and mixings whose weight is no matrix or diagonal.

    Notes
    -----
    Danieli et al., ICLR 2026 (arXiv 2510.21450), train with recurrent weights clipped to 0.5.

    Examples
    --------
    >>> import torch, recsolve as rs
    >>> layer = rs.nn.clip_recurrent_(rs.nn.RNN(3, 16), 0.5)
    >>> round(float(torch.linalg.matrix_norm(layer.weight_hh_l0, 2).detach()), 4)
    0.5
    """
    check_layer(layer)
    if not max_norm > 0:
        raise ValueError(f"max_norm is {max_norm!r}; wanted a number above 0")
    with torch.no_grad():
        for index in range(layer.num_layers * (1 + layer.bidirectional)):
            for weight, form in _recurrent(layer, index):
                if form is None:
                    raise TypeError("a mixing has a weight of another form; wanted dense, heads or diagonal mixings")
                if form == "diagonal":
                    weight.clamp_(-max_norm, max_norm)
                    continue
                u, s, v = torch.linalg.svd(weight.float() if weight.dtype.itemsize < 4 else weight, full_matrices=False)
                if bool((s > max_norm).any()):
                    weight.copy_(u * s.clamp(max=max_norm)[..., None, :] @ v)
    return layer


def lyapunov_penalty(layer: Any, x: Any, *, ceiling: float = -0.05, steps: int = 16, windows: int = 8) -> Any:
    """Return a differentiable penalty on layers whose perturbations die out too slowly, or grow.

    From places along the trajectory, ``steps`` steps are taken, and again with the state moved a little at random; how
    its distance grows over the second half of them, per step, predicts the largest Lyapunov exponent.

    Parameters
    ----------
    layer : GRU, LSTM, RNN or Recurrent
    x : tensor
        An input of more than ``steps`` steps.
    ceiling : float
        Up to which exponents cost nothing.
    steps : int
        At least 2, even.
    windows : int
        From how many places, evenly spread over time.

    Returns
    -------
    tensor
        The sum over layers and directions of max(0, exponent - ceiling)^2.

    Raises
    ------
    ValueError
        For other numbers of steps.

    Examples
    --------
    >>> import torch, recsolve as rs
    >>> layer, x = rs.nn.RNN(3, 16), torch.randn(50, 4, 3)
    >>> rs.nn.lyapunov_penalty(layer, x).backward()
    >>> layer.weight_hh_l0.grad.shape
    torch.Size([16, 16])
    """
    return sum((predicted - ceiling).clamp(min=0) ** 2 for predicted in _predicted(layer, x, steps, windows))


def _predicted(layer: Any, x: Any, steps: int, windows: int) -> list[Any]:
    """Return the predicted exponent of each layer and direction."""
    if steps < 2 or steps % 2 or windows < 1:
        raise ValueError(f"steps is {steps} and windows {windows}; wanted an even number >= 2, and 1 or more")
    with watched(layer, still=False) as seen:
        layer(x)
    found = []
    for spec, tensors, states in seen:
        states, length = states.double(), len(states)
        if length <= steps:
            raise ValueError(f"x has {length} steps; wanted more than steps = {steps}")
        places = np.linspace(0, length - 1 - steps, windows).astype(int).tolist()
        start = torch.cat([states[place] for place in places])
        moved = torch.randn_like(start)
        axes = tuple(range(1, start.ndim))
        moved = moved * (_MOVED / moved.square().sum(axes, keepdim=True).sqrt())
        given: dict[str, Any] = {"initial": torch.cat([start, start + moved])}
        for name, x in tensors.items():
            if name.startswith("drive"):
                pilots = torch.cat([x[place + 1 : place + 1 + steps] for place in places], dim=1).double()
                given[name] = torch.cat([pilots, pilots], dim=1)
            elif name not in ("initial", "reset"):
                given[name] = x.double()
        pair = run(CellSpec(spec.cell, spec.mixings, {"method": "auto"}, event=spec.event), given)
        plain, other = pair[[steps // 2 - 1, steps - 1]].chunk(2, dim=1)
        size = (other - plain).square().sum(tuple(range(2, plain.ndim))).clamp(min=torch.finfo(plain.dtype).tiny)
        found.append((size[1].log() - size[0].log()).mean() / steps)  # half of squares, over half of the steps
    return found


def _recurrent(layer: Any, index: int) -> list[tuple[Any, str | None]]:
    """Return the recurrent weights of one layer and direction, to be changed in place, and the forms of their maps."""
    layer_number, reverse = divmod(index, 1 + layer.bidirectional)
    found: list[tuple[Any, str | None]] = layer._recurrent(layer_number, bool(reverse))
    return found

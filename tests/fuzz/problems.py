"""A seed to a problem: sizes, dtypes, memory orders, resets, ties and magnitudes of what drives a random cell."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np

from . import cells, oracle, trees
from .trees import LONG

SHORT = (0, 1, 2, 31, 33, 97)
LENGTHS = (*SHORT, 31, 33, 97, 257)
BATCHES = ((), (), (1,), (3,), (2, 2), (0,))
# Compiled cells are drawn from so many, for each costs seconds once.
SHAPES = 12


@dataclass
class Problem:
    """A recurrence of a model, and what the loop says of it.

    Attributes
    ----------
    model : Model
    drive : dict of array
        As handed over: any memory order, read-only perhaps.
    initial : array
        (*batch, k, *lanes, n).
    reset : array of bool or None
    dtype : dtype
    ties : bool
        Whether data are drawn that meet kinks exactly, or nearly.
    """

    model: cells.Model
    drive: dict
    initial: Any
    reset: Any
    dtype: Any
    batch: tuple
    length: int
    ties: bool = False

    @cached_property
    def starts(self):
        starts = np.zeros((self.length, *self.batch), bool) if self.reset is None else np.array(self.reset)
        starts[:1] = True
        return starts

    @cached_property
    def truth(self):
        """The trajectory in extended precision."""
        return oracle.loop(self.model, self.drive, self.initial, self.starts)

    @cached_property
    def plain(self):
        """The trajectory of the literal loop in the working dtype."""
        return oracle.loop(self.model, self.drive, self.initial, self.starts, self.dtype)

    def with_components(self, states):
        """Return the library's states with an axis of components also where there is one."""
        x = np.asarray(states)
        return x if self.model.components > 1 else np.expand_dims(x, 1 + len(self.batch))

    def first(self, rng=None, style="array"):
        """Return h[0] as the library takes it: an array, by name, broadcast, or None for zeros."""
        if self.model.components == 1:
            return {"x": self.initial[..., 0, :]} if style == "dict" and not self.model.lanes else self._squeezed()
        if style == "dict":
            axis = len(self.batch)
            names = cells.COMPONENTS[: self.model.components]
            return {n: np.take(self.initial, i, axis=axis) for i, n in enumerate(names)}
        return self.initial

    def _squeezed(self):
        return np.take(self.initial, 0, axis=len(self.batch))


def ordered(rng, x):
    """Return an array of the same numbers in some memory order: C, Fortran, batch first, strided, read-only."""
    choice = int(rng.integers(6))
    if choice == 1:
        x = np.asfortranarray(x)
    elif choice == 2 and x.ndim > 1:
        x = np.ascontiguousarray(x.swapaxes(0, 1)).swapaxes(0, 1)
    elif choice == 3:
        x = np.repeat(x, 2, axis=0)[::2]
    elif choice == 4:
        x = np.ascontiguousarray(x[..., ::-1])[..., ::-1]
    elif choice == 5:
        x = x.copy()
        x.flags.writeable = False
    return x


def data(rng, shape, dtype, kind):
    """Return numbers: normal, small integers (which tie), sparse, tiny or large."""
    x = rng.standard_normal(shape)
    if kind == "integers":
        x = np.rint(x)
    elif kind == "sparse":
        x = x * (rng.random(shape) < 0.3)
    elif kind == "tiny":
        x = x * 1e-12
    elif kind == "large":
        x = x * 100
    return x.astype(dtype)


def random_problem(rng, *, compiled=False, style=None, mixing="any", kind=None, lengths=LENGTHS, batches=BATCHES):
    """Draw a problem; a compiled one takes its cell from few, so that few are compiled."""
    shape_rng = np.random.default_rng([77, int(rng.integers(SHAPES))]) if compiled else rng
    if mixing == "any":
        mixing = str(shape_rng.choice(["diagonal", "dense", "heads", "none"]))
    style = style or str(shape_rng.choice(trees.STYLES))
    components, dtype = int(shape_rng.choice([1, 1, 2, 3])), shape_rng.choice([np.float64, np.float32])
    lanes, units = ((2,) if mixing == "heads" else ()), int(shape_rng.choice([1, 2, 3, 5]))
    mixing, gain = (None if mixing == "none" else mixing), float(shape_rng.choice([0.5, 1.0, 2.0]))
    model = cells.random_model(
        shape_rng, mixing=mixing, components=components, lanes=lanes, units=units, style=style, dtype=dtype, gain=gain
    )
    T, batch = int(rng.choice(lengths)), batches[rng.integers(len(batches))]
    return filled(rng, model, T, batch, dtype, kind or str(rng.choice(["normal"] * 4 + ["integers", "sparse", "tiny"])))


def filled(rng, model, T, batch, dtype, kind):
    """Return the problem of a model with random data of one kind."""
    event, drive = (*model.lanes, model.units), {}
    text = repr(model.trees)
    for i, name in enumerate(model.drives):
        if f"('u', '{name}')" not in text:
            continue
        spread = tuple(1 if drive and rng.random() < 0.2 else n for n in (*batch, *event))
        drive[name] = ordered(rng, data(rng, (T, *(spread if i else (*batch, *event))), dtype, kind))
    initial = np.zeros((*batch, model.components, *event), dtype)
    if rng.random() < 0.7:
        initial = data(rng, initial.shape, dtype, "integers" if kind == "integers" else "normal")
    reset = None
    if rng.random() < 0.3:
        reset = rng.random((T, *batch)) < float(rng.choice([0.05, 0.5, 1.0]))
    # A problem has the batch that its drives span together.
    shapes = [u.shape[1 : 1 + len(batch)] for u in drive.values()]
    if np.broadcast_shapes(*shapes) != batch:
        name = next(iter(drive))
        drive[name] = data(rng, (T, *batch, *event), dtype, kind)
    return Problem(model, drive, initial, reset, dtype, batch, T, kind in ("integers", "sparse", "tiny"))


def defect(problem, states):
    """Return |h[t] - f(h[t-1])|, f in extended precision, and a bound on the rounding of f; and max(|h|, |f|)."""
    before = oracle.previous_of(states, problem.initial, problem.starts)
    with np.errstate(all="ignore"):
        F, rounding = problem.model.rounding(before, problem.drive, problem.dtype)
        wide = states.astype(LONG)
        return np.abs(F - wide), rounding, np.maximum(np.abs(F), np.abs(wide))

"""How the arrays of a fused solve lie, as kernels see them, and what is kept of that from call to call."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import lru_cache
from itertools import chain, count
from math import ceil, prod
from typing import Any, NamedTuple, TypeAlias

import numpy as np

from recsolve.base.arrays import Array, address, namespace, slowest_first
from recsolve.kernels.codegen.cuda_structures import structure
from recsolve.kernels.gpu.cell.solve_plan import Plan, Sizes
from recsolve.kernels.gpu.device import Launch
from recsolve.kernels.gpu.views import AXES, LANES, merge, strides_of

_FORGOTTEN = 4.0  # tolerances: what a state that is led into may still depend on its guess
_NEAR = 3.0  # a start that moves less than this square root of the tolerance moves by little once more
_TICKETS = count(1)  # of solves, so that no checksum is taken for that of another one

# Inputs, states and such, starts, and what comes from beyond the last step if anything does.
Arrays: TypeAlias = tuple[Sequence[Array], Sequence[Array], Sequence[Array], Sequence[Array]]


class Given(NamedTuple):
    """An array (T, ...) that has the axes of lanes, and perhaps one for components; ``base`` is whose memory it is."""

    array: Array
    base: int
    component: int | None = None


class Laid(NamedTuple):
    """What a solve reads and writes, as kernels see it; lanes are those of what is written last."""

    drives: list[Given]
    constants: list[Given]
    written: list[Given]
    others: dict[str, Given]


def lay_out(back: bool, arrays: Arrays, axis: int | None, sizes: Sizes) -> Laid:
    """Return how kernels see arrays, on the way back from the last step to the first.

    Parameters
    ----------
    back : bool
    arrays : Arrays
        Inputs, states (on the way back also cotangents, and gradients to drives and states), and starts.
    axis : int or None
        Of components, if there are several.
    sizes : Sizes
        Of the cell on its way forward.
    """
    moving, bases = sizes.drives, [*chain(*arrays)]
    inputs = moving + sizes.constants
    after = inputs + (3 + moving if back else 1)  # where starts begin; what is written last comes before them

    def parts(base: int) -> list[Given]:
        return [Given(x[::-1] if back else x, base) for x in components_of(bases[base], axis, sizes.parts)]

    written = parts(after - 1)
    shape = written[0].array.shape
    full = [namespace(x).broadcast_to(x, shape) for x in bases[:inputs]]
    drives = [Given(x[::-1] if back else x, i) for i, x in enumerate(full[:moving])]
    fixed = [Given(x[:1], moving + i) for i, x in enumerate(full[moving:])]
    if back:
        # The states before the steps are one fewer; kernels never look at the one that is missing.
        before = [Given(x[1:] if len(x) > 1 else x, inputs) for x, *_ in parts(inputs)]
        drives += [*before, *parts(inputs + 1)]
        written = [*(Given(bases[inputs + 2 + i][::-1], inputs + 2 + i) for i in range(moving)), *written]
    others = {name: Given(bases[after + i][None], after + i, axis) for i, name in enumerate(("initial", "restart"))}
    if arrays[3]:
        others["incoming"] = Given(bases[-1][None], len(bases) - 1, axis)
    if len(arrays[2]) > 2:
        mask = bases[after + 2]
        mask = namespace(mask).broadcast_to(mask.reshape(*mask.shape, *(1,) * (len(shape) - mask.ndim)), shape)
        others["cut"] = Given(mask[::-1] if back else mask, after + 2)
    return Laid(drives, fixed, written, others)


def components_of(states: Array, axis: int | None, parts: int) -> list[Array]:
    """Return the components of states."""
    if axis is None:
        return [states]
    before: Any = (slice(None),) * axis
    return [states[(*before, i)] for i in range(parts)]


def problem(laid: Laid) -> tuple[Array, list[tuple[int, Given]]]:
    """Return an array of one ``Recurrence`` with all arrays filled in, and where in it the addresses are, in words."""
    drives, constants, written, others = laid
    like = written[-1]
    given = [like, *drives, *constants, *written, *others.values()]
    strides = [strides_of(g.array, () if g.component is None else (g.component,)) for g in given]
    shape = [n for axis, n in enumerate(like.array.shape) if axis and axis != like.component]
    merged, runs = merge(shape, [s.lanes for s in strides])
    if len(merged) > AXES:
        raise ValueError(f"arrays have {len(merged)} axes that cannot be merged; wanted at most {AXES}")
    kind = structure("solve/problem", "Recurrence", DRIVES=len(drives), CONSTANTS=len(constants), WRITTEN=len(written))
    filled = np.zeros(1, kind)
    p = filled[0]
    p["steps"], p["lanes"], p["sizes"] = len(like.array), prod(shape), 1
    p["sizes"][: len(merged)] = merged
    p["groups"] = ceil(prod(shape) / LANES)
    counted = {"drives": drives, "constants": constants, "written": written}
    begins = {name: place[1] for name, place in (kind.fields or {}).items()}
    names: list[tuple[str, int | None]] = [(name, i) for name, views in counted.items() for i in range(len(views))]
    names += [(name, None) for name in others]
    places = []
    for (name, i), g, s, run in zip(names, given[1:], strides[1:], runs[1:], strict=True):
        view = p[name] if i is None else p[name][i]
        view["at"], view["time"], view["row"] = address(g.array), s.time, s.row
        view["lane"][: len(run)] = run
        places.append(((begins[name] + (i or 0) * view.dtype.itemsize) // 8, g))  # which begins with it
        if name == "drives" and _by_rows(view, p["sizes"], len(merged), g.array.itemsize):
            p["rows"] |= 1 << int(i or 0)
    return filled, places


def in_shape(x: Array, like: Array) -> Array:
    """Return (numbers, lanes) as (numbers, *axes of lanes), for lanes in the order of ``like`` (T, *axes)."""
    order = [1 + axis for axis in slowest_first(like.shape[1:], like.strides[1:])]
    spread = x.reshape(len(x), *(like.shape[axis] for axis in order))
    return spread.transpose(0, *(1 + order.index(axis) for axis in range(1, like.ndim)))


def _by_rows(view: Any, sizes: Any, axes: int, size: int) -> bool:
    """Return whether lanes lie in aligned pieces of 16 bytes, counted from the first one."""
    piece = 16 // size
    rest = [view["time"], *view["lane"][1:axes]]
    inner = view["lane"][0] == 1 and sizes[0] % piece == 0
    return bool(inner and view["at"] % 16 == 0 and not any(stride % piece for stride in rest))


class Ready(NamedTuple):
    """A solve but for its addresses, of arrays that lie like some that have been seen.

    Attributes
    ----------
    plan : Plan
    solve, check : callable
        Make the launch that solves and that which reads the states again, of the structure that they are given.
    groups : int
        Of 32 lanes.
    words : array of int64
        The structure that kernels are given.
    places, bases, offsets : array of int
        Which words are addresses in which array, and how many bytes from its beginning; the last array is the memory of
        the solve.
    numbers : array of int
        Which words are the tolerances, and what tells solves apart.
    unaligned : bool
        Whether arrays have to be copied first.
    sums : tuple of int
        The shape of what is added up.
    zeroed, added, nbytes : int
        Of the memory: bytes that are 0 at first, where sums begin, and all.
    """

    plan: Plan
    solve: Callable[[Array], Launch]
    check: Callable[[Array], Launch]
    groups: int
    words: Array
    places: Array
    bases: Array
    offsets: Array
    numbers: Array
    unaligned: bool
    sums: tuple[int, int, int]
    zeroed: int
    added: int
    nbytes: int

    def filled(self, addresses: list[int], tol: tuple[float, float]) -> Array:
        """Return the structure for arrays, and memory, at some addresses."""
        words = self.words.copy()
        words[self.places] = np.array(addresses)[self.bases] + self.offsets
        words[self.numbers] = *_words_of(*tol), next(_TICKETS)
        return words


@lru_cache(maxsize=256)
def _words_of(atol: float, rtol: float) -> list[int]:
    """Return the tolerances as words, and whether nothing but equality is accepted."""
    most = max(atol, rtol)
    near = _NEAR * most**-0.5 if most else 1.0
    return [*np.array([atol, rtol, _FORGOTTEN * most, near], np.float64).view(np.int64).tolist(), int(not most)]

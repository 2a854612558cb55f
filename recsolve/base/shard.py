"""Arrays whose time axis is shared by the ranks of a process group: each holds the steps of a range of its own."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from contextlib import AbstractContextManager
from dataclasses import dataclass
from functools import cached_property, wraps
from inspect import signature
from itertools import accumulate
from typing import TYPE_CHECKING, Any, Generic, ParamSpec, TypeVar

from recsolve.base.arrays import UserArray, kind_of

if TYPE_CHECKING:
    from recsolve.distributed.ranks import Ranks


Given = ParamSpec("Given")
Made = TypeVar("Made")
ByRank = TypeVar("ByRank", bound=Any)


@dataclass(frozen=True)
class Timeline:
    """A time axis of which every rank of a process group holds a range of steps.

    Parameters
    ----------
    ranks : Ranks
        The process group.
    lengths : tuple of int
        How many steps each rank holds, in the order of ranks; some may be 0.
    backwards : bool
        Whether steps are counted from the last one: then the last rank comes first.

    Attributes
    ----------
    place : int
        Where this rank comes in the order of steps, from 0.
    total : int
        T, the steps of all ranks.
    start, stop : int
        The steps of this rank are start..stop-1 of all, in the order of steps.

    Examples
    --------
    >>> import numpy as np, recsolve as rs
    >>> with rs.distributed.alone():
    ...     axis = rs.distributed.shard(np.zeros((7, 2))).timeline
    >>> axis.lengths, axis.start, axis.stop
    ((7,), 0, 7)
    """

    ranks: Ranks
    lengths: tuple[int, ...]
    backwards: bool = False

    @property
    def size(self) -> int:
        """How many ranks there are."""
        return len(self.lengths)

    @cached_property
    def place(self) -> int:
        return self.rank_at(self.ranks.rank)  # turning round is its own inverse

    @cached_property
    def ordered(self) -> tuple[int, ...]:
        """How many steps each rank holds, in the order of steps."""
        return self.lengths[::-1] if self.backwards else self.lengths

    @cached_property
    def _bounds(self) -> tuple[int, ...]:
        return (0, *accumulate(self.ordered))

    @property
    def total(self) -> int:
        return self._bounds[-1]

    @cached_property
    def start(self) -> int:
        return self._bounds[self.place]

    @cached_property
    def stop(self) -> int:
        return self._bounds[self.place + 1]

    @cached_property
    def length(self) -> int:
        """How many steps this rank holds."""
        return self.stop - self.start

    def __str__(self) -> str:
        return f"{self.total} steps, shared as {self.lengths}"

    @property
    def begins(self) -> bool:
        """Whether this rank holds the first step of all."""
        return self.length > 0 and self.start == 0

    @property
    def ends(self) -> bool:
        """Whether this rank holds the last step of all."""
        return self.length > 0 and self.stop == self.total

    @cached_property
    def final(self) -> int:
        """The place of the rank that holds the last step of all; 0 where there is none."""
        return max((place for place, length in enumerate(self.ordered) if length), default=0)

    def rank_at(self, place: int) -> int:
        """Return the rank that comes at a place in the order of steps."""
        return self.size - 1 - place if self.backwards else place

    @property
    def own(self) -> str:
        """The steps of this rank in words."""
        return f"{self.start} to {self.stop - 1}" if self.length else "none"

    def reversed(self) -> Timeline:
        """Return the same axis with steps counted from the last one."""
        return Timeline(self.ranks, self.lengths, not self.backwards)

    def together(self, call: str | Callable[[], str]) -> AbstractContextManager[None]:
        """Run what the ranks of this axis do together; an exception of one ends it on all.

        Parameters
        ----------
        call : str, or callable that returns one
            What is done, and with what: ranks that do something else, or share other steps, are told so.
        """
        return self.ranks.together(lambda: f"{text_of(call)}, of {self.lengths} steps")

    def in_order(self, by_rank: ByRank) -> ByRank:
        """Return what there is of every rank, a list or an array, in the order of steps."""
        return by_rank[::-1] if self.backwards else by_rank  # type: ignore[no-any-return]


def text_of(call: str | Callable[[], str]) -> str:
    """Return what is done, in words, of which it may take some work to find them."""
    return call if isinstance(call, str) else call()


_INSTEAD = (
    "take its own steps, x.local, or the whole, recsolve.distributed.gather(x); of what you make of the own steps "
    "recsolve.distributed.Shard(own, x.timeline) is a shard again"
)


@dataclass(frozen=True, eq=False)
class Shard(Generic[UserArray]):
    """The steps of an array that this rank holds; time is its first axis.

    :func:`recsolve.distributed.shard` and :func:`recsolve.distributed.from_local` make one. Recurrences, scans and
    layers take it where they take the array, and every rank calls the same function with its own part.

    Attributes
    ----------
    local : array, shape (own steps, ...)
    timeline : Timeline
        Which steps these are.

    Examples
    --------
    >>> import numpy as np, recsolve as rs
    >>> with rs.distributed.alone():
    ...     x = rs.distributed.shard(np.ones((7, 2)))
    >>> x.shape, x.local.shape
    ((7, 2), (7, 2))
    """

    local: UserArray
    timeline: Timeline

    @property
    def shape(self) -> tuple[int, ...]:
        """The shape of the whole array."""
        return (self.timeline.total, *self.local.shape[1:])  # type: ignore[attr-defined]

    @property
    def dtype(self) -> Any:
        """That of the local array."""
        return self.local.dtype  # type: ignore[attr-defined]

    def __getattr__(self, name: str) -> Any:
        """Raise AttributeError, which says where an array with more attributes is."""
        raise AttributeError(f"{name} is no attribute of a Shard; {_INSTEAD}")

    def _refuse(self, *_: Any, **__: Any) -> Any:
        """Raise TypeError: the rest is elsewhere."""
        raise TypeError(f"{self!r} is no array; {_INSTEAD}")

    # What arrays can do: a part of one would do it wrongly without a word.
    __array__ = __len__ = __getitem__ = __setitem__ = __bool__ = __float__ = __int__ = __complex__ = _refuse
    __add__ = __radd__ = __sub__ = __rsub__ = __mul__ = __rmul__ = __truediv__ = __rtruediv__ = __pow__ = _refuse
    __matmul__ = __rmatmul__ = __neg__ = __abs__ = __lt__ = __le__ = __gt__ = __ge__ = _refuse

    def __repr__(self) -> str:
        axis = self.timeline
        return (
            f"Shard({kind_of(self.local)} array of shape {self.shape} and dtype {self.dtype}: steps {axis.own}, rank "
            f"{axis.ranks.rank} of {axis.size})"
        )


# What runs over ranks in the place of a public function: in recsolve.distributed, above those who ask for it.
OVER_RANKS: dict[str, Callable[..., Any]] = {}


_WHOLE = ("initial", "parameters")  # arguments of recurrences that have no time
_OVER_TIME = ("x", "input", "inputs", "drive", "elements")  # and those that have


def timeline_of(named: Mapping[str, Any]) -> Timeline | None:
    """Return the time axis that named arguments, and what is in their containers, have in common; None without one.

    Raises
    ------
    TypeError
        Where an array over time stands beside a shard and is none itself, or one without time is a shard.
    ValueError
        For shards of different axes, and for one whose local array does not hold the steps of its rank.
    """
    for x in (x for name, whole in named.items() for _, x in _leaves(name, whole)):
        if isinstance(x, (Shard, Timeline)):
            shared = x.timeline if isinstance(x, Shard) else x
            with shared.together("a call"):
                check_shared(named)
            return shared
    return None


def check_shared(named: Mapping[str, Any]) -> None:
    """Raise what :func:`timeline_of` does, amid what ranks do together; there is a shard, or a time axis."""
    parts = [leaf for name, x in named.items() for leaf in _leaves(name, x)]
    found = [(name, x.timeline if isinstance(x, Shard) else x) for name, x in parts if isinstance(x, (Shard, Timeline))]
    first, shared = found[0]
    for name, axis in found:
        if name.partition("[")[0] in _WHOLE:
            raise TypeError(f"{name} is a Shard; wanted what is the same on all ranks, for it has no time")
        if axis is not shared and axis != shared:
            by = " by another process group" * (axis.ranks is not shared.ranks)
            raise ValueError(
                f"{first} has {shared} and {name} has {axis}{by}; wanted shards of one time axis, and of one "
                "process group"
            )
    for name, x in parts:
        if isinstance(x, Shard):
            _check_steps(name, x)
        elif x is None or isinstance(x, Timeline):
            continue
        elif name == "reset" or (name.partition("[")[0] in _OVER_TIME and _is_whole(x, shared)):
            shape = f" of shape {tuple(x.shape)}" if hasattr(x, "shape") else ""
            raise TypeError(
                f"{name} is {type(x).__name__}{shape} and {first} is a Shard; wanted a Shard, as "
                "recsolve.distributed.shard gives"
            )


def _is_whole(x: Any, axis: Timeline) -> bool:
    """Return whether an array has the steps of all ranks where it should have the own ones; one may be of all times."""
    return axis.total not in (1, axis.length) and tuple(getattr(x, "shape", ()))[:1] == (axis.total,)


def local_of(x: Any) -> Any:
    """Return arguments with the local part in place of every shard, in their containers."""
    if isinstance(x, Shard):
        return x.local
    if isinstance(x, Timeline):
        return x.length
    if isinstance(x, dict):
        return {name: local_of(part) for name, part in x.items()}
    return tuple(map(local_of, x)) if type(x) is tuple else x


def _check_steps(name: str, x: Shard[Any]) -> None:
    """Raise ValueError for a shard whose local array, as the user has made it, does not hold the steps of its rank."""
    shape = x.local.shape
    if shape[:1] != (x.timeline.length,):
        raise ValueError(
            f"{name} has a local array of shape {tuple(shape)}, and this rank has {x.timeline.length} steps; wanted "
            "these as the first axis"
        )


def _leaves(name: str, x: Any) -> list[tuple[str, Any]]:
    """Return what is in an argument by name."""
    if x is None or isinstance(x, Shard):
        return [(name, x)]
    if isinstance(x, tuple):  # not lists, which may be long ones of numbers
        return [leaf for i, part in enumerate(x) for leaf in _leaves(f"{name}[{i}]", part)]
    if isinstance(x, Mapping):
        return [leaf for key, part in x.items() for leaf in _leaves(f"{name}[{key!r}]", part)]
    return [(name, x)]


def takes_shards(make: Callable[Given, Made]) -> Callable[Given, Made]:
    """Let a maker of recurrences take shards: it makes one of the own steps, which knows whose steps the others are."""

    names = tuple(signature(make).parameters)

    @wraps(make)
    def made(*args: Given.args, **kwargs: Given.kwargs) -> Made:
        shared = timeline_of({**dict(zip(names, args, strict=False)), **kwargs})
        if shared is None:
            return make(*args, **kwargs)
        with shared.ranks.by_itself(make.__qualname__):
            recurrence: Any = make(*map(local_of, args), **{name: local_of(x) for name, x in kwargs.items()})
        recurrence.timeline = shared
        return recurrence  # type: ignore[no-any-return]

    return made

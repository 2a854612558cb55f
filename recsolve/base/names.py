"""A small immutable mapping whose entries are attributes too: ``s.h``, ``u.r``, ``p.b_n``."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any


class Names(Mapping[str, Any]):
    """Values by name, as a mapping and as attributes; immutable.

    Parameters
    ----------
    entries : mapping
        Name to value.
    what : str
        What an entry is, for the errors.

    Raises
    ------
    AttributeError
        For an unknown name as an attribute, and for an assignment.
    KeyError
        For an unknown name as a key.

    Examples
    --------
    >>> from recsolve.base.names import Names
    >>> u = Names({"r": 1.0, "z": 2.0}, "drive")
    >>> u.r + u["z"], list(u)
    (3.0, ['r', 'z'])
    """

    __slots__ = ("__dict__", "_what")  # entries are found as fast as attributes of other objects

    def __init__(self, entries: Mapping[str, Any], what: str):
        object.__setattr__(self, "_what", what)
        self.__dict__.update(entries)

    def __getattr__(self, name: str) -> Any:
        if name.startswith("__") or name == "_what":  # asked for by copies and pickles before there is anything
            raise AttributeError(name)
        raise AttributeError(f"no {self._what} {name!r}; there are {tuple(self.__dict__)}")

    def __reduce__(self) -> Any:
        return Names, (dict(self.__dict__), self._what)

    def __setattr__(self, name: str, value: Any) -> None:
        raise AttributeError(f"{self._what} {name!r} cannot be assigned")

    def __delattr__(self, name: str) -> None:
        raise AttributeError(f"{self._what} {name!r} cannot be deleted")

    def __getitem__(self, name: str) -> Any:
        try:
            return self.__dict__[name]
        except KeyError:
            raise KeyError(f"no {self._what} {name!r}; there are {tuple(self.__dict__)}") from None

    def __iter__(self) -> Iterator[str]:
        return iter(self.__dict__)

    def __len__(self) -> int:
        return len(self.__dict__)

    def __repr__(self) -> str:
        return f"Names({', '.join(self.__dict__)})"


_set_what = Names.__dict__["_what"].__set__


def empty_names(what: str) -> Names:
    """Return names without entries, for a loop that enters them into ``__dict__`` itself, which is faster."""
    made = Names.__new__(Names)
    _set_what(made, what)
    return made

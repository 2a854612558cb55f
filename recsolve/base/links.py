"""Which tensor of the user's a native array was made of, where gradients are to go back to it.

A native array carries no gradient. One that was made of a torch tensor that requires grad is *linked* to it, or to what
torch makes of several in the same way (joined, broadcast, cut into gates), so that a solve can record a node between
these tensors and its result. Links are kept beside the arrays, by identity, as long as these live: they are never
pickled, and whatever computes a new array of a linked one without saying how *severs* it, which the solve refuses.
"""

from __future__ import annotations

import sys
from collections.abc import Callable, Collection, Hashable, Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager, nullcontext
from typing import Any, NamedTuple, Protocol
from weakref import ref

import numpy as np

from recsolve.base.arrays import FLOATS, Array, Kind, from_native, kind_of, owner_of, to_native

Leaf = tuple[str, Hashable]  # what a recurrence is made of: a kind, "mixing" say, and a name


class _Link(NamedTuple):
    alive: ref[Array]  # its end takes the link away
    tensor: Any  # None where it was severed
    roots: tuple[tuple[Any, int], ...]  # the user's tensors, and which version of them was seen


_LINKS: dict[int, _Link] = {}

# What records a node of autograd for a solution and for a scan: in recsolve.interop, above those who ask for it.
RECORDERS: dict[str, Callable[..., Any]] = {}


def _put(x: Array, tensor: Any, roots: tuple[tuple[Any, int], ...]) -> None:
    key = id(x)
    _LINKS[key] = _Link(ref(x, lambda _: _LINKS.pop(key, None)), tensor, roots)


def link(x: Array, tensor: Any) -> None:
    """Remember that a native array is a view of a tensor that requires grad."""
    _put(x, tensor, ((tensor, 0 if tensor.is_inference() else tensor._version),))


def requires_grad(x: Any) -> bool:
    """Return whether ``x`` is a tensor that requires grad, or one that forward differentiation moves."""
    if kind_of(x) != "torch":
        return False
    return getattr(x, "requires_grad", False) is True or (_forward() and hasattr(x, "grad_fn") and _moves(x))


def _forward() -> bool:
    """Return whether torch differentiates forward; ``import torch`` is none of this module's where nobody has."""
    torch = sys.modules["torch"]
    return bool(torch.autograd.forward_ad._current_level >= 0 and torch._C._is_fwd_grad_enabled())


def _moves(x: Any) -> bool:
    return sys.modules["torch"].autograd.forward_ad.unpack_dual(x).tangent is not None


def recording() -> bool:
    """Return whether torch, which has been imported, keeps track of what is computed."""
    return sys.modules["torch"].is_grad_enabled() or _forward()


def to_linked(x: Any, name: str, dtypes: Sequence[np.dtype[Any]] = FLOATS) -> Array:
    """View ``x`` as :func:`recsolve.base.arrays.to_native` does; a tensor that requires grad is linked."""
    if not requires_grad(x):
        return to_native(x, name, dtypes)
    native = to_native(x.detach(), name, dtypes)
    link(native, x)
    return native


def tensor_of(x: Array) -> Any | None:
    """Return the tensor that an array is linked to, or None."""
    found = _LINKS.get(id(x))
    return None if found is None else found.tensor


def from_linked(x: Array, kind: Kind) -> Any:
    """Return an array as one of the user's kind, or the tensor that it is linked to."""
    tensor = tensor_of(x)
    return from_native(x, kind) if tensor is None else tensor


def follow(made: Array, parts: Sequence[Array], compute: Callable[[list[Any]], Any]) -> Array:
    """Return ``made``, linked to what torch computes of the tensors of its parts, if any of these is linked.

    Parameters
    ----------
    made : array
        Computed of ``parts``.
    parts : sequence of array
    compute : callable
        The same computation on a list of tensors.
    """
    found = [_LINKS.get(id(x)) for x in parts] if _LINKS else []
    known = [x for x in found if x is not None and x.tensor is not None]
    if known:
        import torch

        given = zip(parts, found, strict=True)
        tensors = [from_native(x, "torch") if f is None or f.tensor is None else f.tensor for x, f in given]
        with torch.enable_grad():
            _put(made, compute(tensors), tuple(root for x in known for root in x.roots))
    return made


class HasLeaves(Protocol):
    """A recurrence, a cell or a projection."""

    def leaves(self) -> dict[Leaf, Array]:
        """Return its arrays, by what gradients call them."""


def sever(made: Array, of: Array) -> None:
    """Remember that an array was computed of a linked one in a way that gradients do not go back."""
    if _LINKS and id(of) in _LINKS and id(made) not in _LINKS:
        _put(made, None, ())


def sever_all(made: HasLeaves, of: HasLeaves) -> None:
    """The same of all arrays of two objects; it costs nothing where nothing is linked."""
    if _LINKS:
        others = made.leaves()
        for leaf, x in of.leaves().items():
            if leaf in others:
                sever(others[leaf], x)


def linked(recurrence: HasLeaves, kind: str) -> dict[Leaf, Any]:
    """Return the tensors that gradients of a solve are to go back to, by leaf; none where torch records nothing.

    Raises
    ------
    TypeError
        For arrays that were computed of linked ones, as those of a window are.
    ValueError
        When a tensor has changed since arrays were made of it.
    """
    if not _LINKS or kind != "torch" or not recording():
        return {}
    found = {leaf: x for leaf, a in recurrence.leaves().items() if (x := _LINKS.get(id(a))) is not None}
    for leaf, x in found.items():
        if x.tensor is None:
            raise TypeError(
                f"{describe(leaf)} was computed of a tensor that requires grad (by window, map or astype), and "
                "gradients do not go back through that; compute it with torch, or solve under torch.no_grad()"
            )
        if any(version != (0 if root.is_inference() else root._version) for root, version in x.roots):
            raise ValueError(
                f"the tensor of {describe(leaf)} was changed in place since the cell or recurrence was made of it, as "
                "an optimiser does; make it anew of the tensor"
            )
    return {leaf: x.tensor for leaf, x in found.items()}


def beside(recurrence: HasLeaves, tensors: Collection[Leaf]) -> list[Any]:
    """Return tensors besides those that are linked, whose memory a recurrence views: a node tells when they change."""
    owners = [owner_of(x) for leaf, x in recurrence.leaves().items() if leaf not in tensors]
    return [x for x in owners if kind_of(x) == "torch" and not x.is_inference()]


def unrecorded(kind: str) -> AbstractContextManager[Any]:
    """Return a context in which solves of this kind of arrays record nothing."""
    if not _LINKS or kind != "torch":
        return nullcontext()
    return _unrecorded()


@contextmanager
def _unrecorded() -> Iterator[None]:
    import torch

    with torch.no_grad(), torch.autograd.forward_ad._set_fwd_grad_enabled(False):
        yield


def describe(leaf: Leaf) -> str:
    """Return what a leaf is called in messages.

    >>> describe(("mixing", "r")), describe(("initial", None))
    ('mixing r', 'initial')
    """
    kind, name = leaf
    return kind if name is None else f"{kind} {name}"

"""The laws of a mixing, checked on one of yours: :func:`check_mixing`."""

from __future__ import annotations

import copy
import pickle
import sys
from collections.abc import Callable, Iterator
from functools import partial
from typing import Any

import numpy as np

from recsolve.base.arrays import Array, freeze, namespace, to_host
from recsolve.mixings import Mixing

_LEADING: tuple[tuple[int, ...], ...] = ((), (1,), (5,), (3, 2), (0,), (3, 0))


def check_mixing(mixing: Mixing, *, rng: int | np.random.Generator = 0) -> None:
    """Check that a mixing keeps the rules of :class:`recsolve.mixings.Mixing`, on random vectors.

    The laws, in this order: ``matvec`` keeps shape and dtype, for empty batches too, leaves its argument alone and
    returns the same when it is called again; it is 0 at 0 and linear; it couples neither rows nor lanes; ``dense``,
    ``rmatvec`` and ``transpose``, ``diagonal``, ``hadamard_transpose`` and ``rounding`` say the same of it; ``map``
    keeps the class and changes the weight alone, and with float32 the mixing is one of float32; ``weight_tangent``
    agrees with differences, and ``weight_cotangent`` with both, as far as they are defined; it copies and, where its
    class can be imported, pickles.

    Parameters
    ----------
    mixing : Mixing
        Of finite weights, with so few units that its matrix fits into memory.
    rng : int or Generator
        Seed of the vectors.

    Raises
    ------
    AssertionError
        When a law does not hold; the message begins with its name.
    TypeError
        For what is no Mixing.

    Examples
    --------
    >>> import numpy as np, recsolve as rs
    >>> rs.testing.check_mixing(rs.mixings.Dense(np.eye(3)))
    >>> class Squared(rs.mixings.Dense):
    ...     def matvec(self, x):
    ...         return super().matvec(x * x)
    >>> rs.testing.check_mixing(Squared(np.eye(3)))
    Traceback (most recent call last):
    AssertionError: linear: Squared(weight (3, 3) float64) is off by 1.0e+00 of its size
    """
    if not isinstance(mixing, Mixing):
        raise TypeError(f"mixing is {type(mixing).__name__}; wanted a Mixing")
    check = _Check(mixing, np.random.default_rng(rng))
    with np.errstate(all="ignore"):
        for law in (check.shapes, check.linear, check.apart, check.derived, check.mapped, check.weights, check.kept):
            for name, verdict in law():
                _judge(name, mixing, verdict)


def _judge(name: str, mixing: Mixing, verdict: Callable[[], Any]) -> None:
    """Raise an AssertionError that begins with the law unless what is compared is close."""
    try:
        found = verdict()
    except Exception as error:
        raise AssertionError(f"{name}: {mixing} raises {type(error).__name__}: {error}") from error
    if isinstance(found, str):
        assert not found, f"{name}: {mixing} {found}"
        return
    got, wanted, allowed = found
    assert got.shape == wanted.shape, f"{name}: {mixing} has shape {got.shape}; wanted {wanted.shape}"
    if not got.size:
        return
    size = max(float(abs(wanted).max()), float(abs(got).max()), float(np.finfo(wanted.dtype).tiny))
    off = float(abs(got - wanted).max()) / size
    assert off <= allowed, f"{name}: {mixing} is off by {off:.1e} of its size"


class _Check:
    """The laws of one mixing: each yields names, and what gives two arrays to compare, or a complaint."""

    def __init__(self, mixing: Mixing, rng: np.random.Generator):
        self.mixing, self.rng, self.weight = mixing, rng, mixing.weight
        self.xp, self.event = namespace(mixing.weight), (*mixing.lanes, mixing.units)
        self.allowed = 64 * float(np.finfo(self.weight.dtype).eps) * mixing.units**0.5

    def draw(self, *shape: int) -> Array:
        return self.xp.asarray(self.rng.standard_normal(shape).astype(self.weight.dtype))  # type: ignore[no-any-return]

    def vectors(self, *leading: int) -> Array:
        return self.draw(*leading, *self.event)

    def same(self, got: Any, wanted: Any, allowed: float | None = None) -> tuple[Array, Array, float]:
        return to_host(got), to_host(wanted), self.allowed if allowed is None else allowed

    def shapes(self) -> Iterator[tuple[str, Callable[[], Any]]]:
        W = self.mixing.matvec

        def kept(x: Array) -> str:
            before, y = x.copy(), W(freeze(x))
            if y.shape != x.shape or y.dtype != x.dtype:
                return f"maps {x.shape} {x.dtype} to {y.shape} {y.dtype}; wanted the same"
            return "" if bool((x == before).all()) else "writes into its argument"

        for leading in _LEADING:
            yield "shape", partial(kept, self.vectors(*leading))
        x = self.vectors(3, 2)
        yield "repeats", lambda: self.same(W(x), W(x), 0.0)
        order = tuple(reversed(range(x.ndim)))
        turned = self.xp.ascontiguousarray(x.transpose(order)).transpose(order)
        yield "shape", lambda: self.same(W(turned), W(x))  # whatever the order in memory

    def linear(self) -> Iterator[tuple[str, Callable[[], Any]]]:
        W, x, y = self.mixing.matvec, self.vectors(4), self.vectors(4)
        yield "zero", lambda: "is not 0 at 0" if bool((abs(W(0 * x)) > 0).any()) else ""
        a, b = (self.weight.dtype.type(c) for c in (1.75, -0.6))
        yield "linear", lambda: self.same(W(a * x + b * y), a * W(x) + b * W(y))

    def apart(self) -> Iterator[tuple[str, Callable[[], Any]]]:
        W, x = self.mixing.matvec, self.vectors(3, 2)
        yield "rows", lambda: self.same(W(x)[1, 1], W(x[1, 1]))
        if self.mixing.lanes:
            first = (Ellipsis, *(0,) * len(self.mixing.lanes), slice(None))
            other = self.vectors(3, 2)
            other[first] = x[first]
            yield "lanes", lambda: self.same(W(other)[first], W(x)[first])

    def derived(self) -> Iterator[tuple[str, Callable[[], Any]]]:
        m, n, lanes = self.mixing, self.mixing.units, self.mixing.lanes
        x, y = self.vectors(5), self.vectors(5)
        wanted = lambda: self.xp.broadcast_to(m.dense(), (*lanes, n, n))  # noqa: E731
        matrix = lambda: self.xp.broadcast_to(Mixing.dense(m), (*lanes, n, n))  # noqa: E731
        yield "dense", lambda: self.same(wanted(), matrix())
        yield "transpose", lambda: self.same((y * m.matvec(x)).sum(), (m.rmatvec(y) * x).sum(), self.allowed * n)
        yield "transpose", lambda: self.same(m.rmatvec(y), self.xp.einsum("...ij,t...i->t...j", matrix(), y))
        yield "transpose", lambda: self.same(m.transpose().matvec(y), m.rmatvec(y))
        diagonal = lambda M: self.xp.diagonal(M, axis1=-2, axis2=-1)  # noqa: E731
        full = lambda v: self.xp.broadcast_to(v, self.event)  # noqa: E731
        yield "diagonal", lambda: self.same(full(m.diagonal()), diagonal(matrix()))
        other = m.map(lambda w: w[..., ::-1].copy()) if self.weight.ndim > 1 else m
        for V in (m, other, m.transpose()):
            product = lambda V=V: matrix() * Mixing.dense(V).swapaxes(-1, -2)  # noqa: E731
            yield (
                "hadamard_transpose",
                lambda V=V, product=product: self.same(  # type: ignore[misc]
                    m.hadamard_transpose(V).matvec(x), self.xp.einsum("...ij,t...j->t...i", product(), x)
                ),
            )
        yield "rounding", lambda: "" if 0 <= m.rounding < np.inf else f"has rounding {m.rounding}; wanted it finite"

    def mapped(self) -> Iterator[tuple[str, Callable[[], Any]]]:
        m, x = self.mixing, self.vectors(3)
        doubled = lambda: m.map(lambda w: w + w)  # noqa: E731
        yield "map", lambda: "" if type(doubled()) is type(m) else f"becomes {type(doubled()).__name__}"
        yield "map", lambda: "" if vars(doubled()).keys() >= self._stored() else "loses attributes"
        yield "map", lambda: self.same(doubled().weight, m.weight + m.weight, 0.0)
        yield "map", lambda: self.same(m.map(lambda w: w.copy()).matvec(x), m.matvec(x), 0.0)
        single = lambda: m.map(lambda w: w.astype(np.float32))  # noqa: E731
        short = x.astype(np.float32)
        yield "float32", lambda: "" if single().matvec(short).dtype == np.float32 else "is not of float32 after map"
        limit = max(self.allowed, 64 * float(np.finfo(np.float32).eps) * m.units**0.5)
        yield "float32", lambda: self.same(single().matvec(short).astype(x.dtype), m.matvec(x), limit)

    def kept(self) -> Iterator[tuple[str, Callable[[], Any]]]:
        m, x = self.mixing, self.vectors(3)
        ways: dict[str, Callable[[], Any]] = {"copy": lambda: copy.deepcopy(m)}
        if _is_importable(type(m)):
            ways["pickle"] = lambda: pickle.loads(pickle.dumps(m))
        for name, made in ways.items():
            yield name, lambda made=made: "" if type(made()) is type(m) else "becomes another class"
            yield name, lambda made=made: self.same(made().matvec(x), m.matvec(x), 0.0)

    def _stored(self) -> set[str]:
        """Return the attributes that are no results of cached properties."""
        return {n for n in vars(self.mixing) if not hasattr(getattr(type(self.mixing), n, None), "attrname")}

    def weights(self) -> Iterator[tuple[str, Callable[[], Any]]]:
        m, W, x, g = self.mixing, self.weight, self.vectors(3, 2), self.vectors(3, 2)
        tangent = self.draw(*W.shape)
        knows_tangent = _defined(lambda: m.weight_tangent(tangent, x))
        knows_cotangent = _defined(lambda: m.weight_cotangent(g, x))
        step = float(np.finfo(W.dtype).eps) ** (1 / 3)
        ahead, behind = (m.map(lambda w, s=s: w + w.dtype.type(s * step) * tangent) for s in (1, -1))
        slope = lambda: (ahead.matvec(x) - behind.matvec(x)) / W.dtype.type(2 * step)  # noqa: E731
        near = 100 * step**2 * (1 + float(abs(W).max() if W.size else 0.0))
        if knows_tangent:
            yield "weight_tangent", lambda: self.same(m.weight_tangent(tangent, x), slope(), near)
        if knows_cotangent:
            pulled = lambda: m.weight_cotangent(g, x)  # noqa: E731
            seen = lambda: f"has a gradient of shape {pulled().shape}; wanted that of the weight, {W.shape}"  # noqa: E731
            yield "weight_cotangent", lambda: "" if pulled().shape == W.shape else seen()
            pushed = (lambda: m.weight_tangent(tangent, x)) if knows_tangent else slope
            limit = self.allowed * x.size if knows_tangent else near * x.size
            yield (
                "weight_cotangent",
                lambda: self.same((pulled() * tangent).sum(), (g * pushed()).sum(), limit),
            )
            nothing = self.vectors(0)
            yield "weight_cotangent", lambda: self.same(m.weight_cotangent(nothing, nothing), 0 * W, 0.0)


def _is_importable(kind: type) -> bool:
    """Return whether pickle can find a class at all: not one that a function defines."""
    return getattr(sys.modules.get(kind.__module__), kind.__qualname__, None) is kind


def _defined(ask: Callable[[], Any]) -> bool:
    """Return whether a derivative is defined: Mixing itself raises a TypeError that says so."""
    try:
        ask()
    except TypeError as error:
        return "so the" not in str(error)
    except Exception:
        pass
    return True

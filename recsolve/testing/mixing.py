"""The laws of a mixing, checked on one of yours: :func:`check_mixing`."""

from __future__ import annotations

import copy
import pickle
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
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
    agrees with differences, ``weight_cotangent`` with both, and ``rmatvec_tangent`` and ``weight_curvature`` with them,
    as far as they are defined; it copies and, where its class can be imported, pickles.

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
    AssertionError: linear: Squared(weight (3, 3) float64) is off by 1.1e+00 of its size
    """
    if not isinstance(mixing, Mixing):
        raise TypeError(f"mixing is {type(mixing).__name__}; wanted a Mixing")
    laws = _Laws(mixing, np.random.default_rng(rng))
    with np.errstate(all="ignore"):
        laws.shapes()
        laws.linear()
        laws.apart()
        laws.derived()
        laws.mapped()
        laws.weights()
        laws.kept()


def _require(holds: Any, what: str) -> None:
    if not bool(holds):
        raise AssertionError(what)


def _same(got: Array, wanted: Array, allowed: float) -> None:
    """Raise AssertionError unless arrays agree up to a share of the largest entry; NaN does not."""
    got, wanted = to_host(got), to_host(wanted)
    _require(got.shape == wanted.shape, f"has shape {got.shape}; wanted {wanted.shape}")
    if got.size:
        size = max(float(abs(wanted).max()), float(abs(got).max()), float(np.finfo(wanted.dtype).tiny))
        off = float(abs(got - wanted).max()) / size
        _require(off <= allowed, f"is off by {off:.1e} of its size")


def _is_importable(kind: type) -> bool:
    """Return whether pickle can find a class at all: not one that a function defines."""
    return getattr(sys.modules.get(kind.__module__), kind.__qualname__, None) is kind


def _found(ask: Callable[[], Array]) -> Array | None:
    """Return a derivative, or None where the class defines none: Mixing itself says so by a TypeError."""
    try:
        return ask()
    except TypeError as error:
        if "its weight is not known; define it" in str(error):
            return None
        raise


class _Laws:
    """The laws of one mixing, and the random vectors on which they are tried."""

    def __init__(self, mixing: Mixing, rng: np.random.Generator):
        self.mixing, self.rng, self.weight = mixing, rng, mixing.weight
        self.xp, self.event = namespace(mixing.weight), (*mixing.lanes, mixing.units)
        self.eps = float(np.finfo(self.weight.dtype).eps)
        self.allowed = 64 * self.eps * mixing.units**0.5

    @contextmanager
    def law(self, name: str) -> Iterator[None]:
        """Name the law that an exception within breaks."""
        try:
            yield
        except AssertionError as error:
            raise AssertionError(f"{name}: {self.mixing} {error}") from None
        except Exception as error:
            raise AssertionError(f"{name}: {self.mixing} raises {type(error).__name__}: {error}") from error

    def draw(self, *shape: int) -> Array:
        return self.xp.asarray(self.rng.standard_normal(shape).astype(self.weight.dtype))  # type: ignore[no-any-return]

    def vectors(self, *leading: int) -> Array:
        return self.draw(*leading, *self.event)

    def matrices(self, mixing: Mixing) -> Array:
        """Return what ``matvec`` alone says, (*lanes, n, n)."""
        shape = (*self.mixing.lanes, mixing.units, mixing.units)
        return self.xp.broadcast_to(Mixing.dense(mixing), shape)  # type: ignore[no-any-return]

    def shapes(self) -> None:
        W = self.mixing.matvec
        for leading in _LEADING:
            with self.law("shape"):
                x = self.vectors(*leading)
                before, y = x.copy(), W(freeze(x))
                seen = f"maps {x.shape} {x.dtype} to {y.shape} {y.dtype}; wanted the same"
                _require(y.shape == x.shape and y.dtype == x.dtype, seen)
                _require((x == before).all(), "writes into its argument")
        x = self.vectors(3, 2)
        with self.law("repeats"):
            _same(W(x), W(x), 0.0)
        with self.law("shape"):  # whatever the order in memory
            turned = self.xp.ascontiguousarray(x.T).T
            _same(W(turned), W(x), self.allowed)

    def linear(self) -> None:
        W, x, y = self.mixing.matvec, self.vectors(4), self.vectors(4)
        with self.law("zero"):
            _require(not (abs(W(0 * x)) > 0).any(), "is not 0 at 0")
        with self.law("linear"):
            a, b = (self.weight.dtype.type(c) for c in (1.75, -0.6))
            _same(W(a * x + b * y), a * W(x) + b * W(y), self.allowed)

    def apart(self) -> None:
        W, x = self.mixing.matvec, self.vectors(3, 2)
        with self.law("rows"):
            _same(W(x)[1, 1], W(x[1, 1]), self.allowed)
        first: Any = (..., *(0,) * len(self.mixing.lanes), slice(None))
        with self.law("lanes"):
            other = self.vectors(3, 2)
            other[first] = x[first]
            _same(W(other)[first], W(x)[first], self.allowed)

    def derived(self) -> None:
        m, x, y = self.mixing, self.vectors(5), self.vectors(5)
        M = self.matrices(m)
        with self.law("dense"):
            _same(self.xp.broadcast_to(m.dense(), M.shape), M, self.allowed)
        with self.law("transpose"):
            _same((y * m.matvec(x)).sum(), (m.rmatvec(y) * x).sum(), self.allowed * x.size)
            _same(m.rmatvec(y), self.xp.einsum("...ij,t...i->t...j", M, y), self.allowed)
            _same(m.transpose().matvec(y), m.rmatvec(y), self.allowed)
        with self.law("diagonal"):
            entries = self.xp.broadcast_to(m.diagonal(), self.event)
            _same(entries, self.xp.diagonal(M, axis1=-2, axis2=-1), self.allowed)
        for other in (m, m.map(lambda w: self.draw(*w.shape)), m.transpose()):
            with self.law("hadamard_transpose"):
                product = M * self.matrices(other).swapaxes(-1, -2)
                wanted = self.xp.einsum("...ij,t...j->t...i", product, x)
                _same(m.hadamard_transpose(other).matvec(x), wanted, self.allowed)
        with self.law("rounding"):
            _require(0 <= m.rounding < np.inf, f"has rounding {m.rounding}; wanted it finite")

    def mapped(self) -> None:
        m, x = self.mixing, self.vectors(3)
        with self.law("map"):
            before, doubled = self.weight.copy(), m.map(lambda w: w + w)
            _require(type(doubled) is type(m), f"becomes {type(doubled).__name__}")
            cached = {n for n in vars(m) if hasattr(getattr(type(m), n, None), "attrname")}
            _require(vars(doubled).keys() >= vars(m).keys() - cached, "loses attributes")
            _same(doubled.weight, before + before, 0.0)
            _same(m.weight, before, 0.0)
            _same(m.map(lambda w: w.copy()).matvec(x), m.matvec(x), 0.0)
        with self.law("float32"):
            single = m.map(lambda w: w.astype(np.float32)).matvec(x.astype(np.float32))
            _require(single.dtype == np.float32, f"returns {single.dtype} for float32")
            _same(single, m.matvec(x), self.allowed * float(np.finfo(np.float32).eps) / self.eps)

    def weights(self) -> None:
        m, x, g = self.mixing, self.vectors(3, 2), self.vectors(3, 2)
        direction, step = self.draw(*self.weight.shape), self.eps ** (1 / 3)
        ahead, behind = (m.map(lambda w, s=s: w + w.dtype.type(s * step) * direction) for s in (1, -1))
        slope = (ahead.matvec(x) - behind.matvec(x)) / self.weight.dtype.type(2 * step)
        near = 100 * step**2 * (1 + float(to_host(abs(self.weight)).max(initial=0.0)))
        with self.law("weight_tangent"):
            if (tangent := _found(lambda: m.weight_tangent(direction, x))) is not None:
                _same(tangent, slope, near)
                slope, near = tangent, self.allowed
        with self.law("weight_cotangent"):
            if (cotangent := _found(lambda: m.weight_cotangent(g, x))) is not None:
                seen = f"has a gradient of shape {cotangent.shape}; wanted that of the weight, {self.weight.shape}"
                _require(cotangent.shape == self.weight.shape, seen)
                _same((cotangent * direction).sum(), (g * slope).sum(), near * x.size)
                self.second(cotangent, direction, x, g, step, near)
                nothing = self.vectors(0)
                _same(m.weight_cotangent(nothing, nothing), 0 * self.weight, 0.0)

    def second(self, cotangent: Array, direction: Array, x: Array, g: Array, step: float, near: float) -> None:
        m = self.mixing
        with self.law("rmatvec_tangent"):
            moved = _found(lambda: m.rmatvec_tangent(direction, g))
            if moved is not None:
                _same((moved * x).sum(), (g * m.weight_tangent(direction, x)).sum(), self.allowed * x.size)
        with self.law("weight_curvature"):
            curvature = _found(lambda: m.weight_curvature(direction, g, x))
            if curvature is not None:
                ahead, behind = (m.map(lambda w, s=s: w + w.dtype.type(s * step) * direction) for s in (1, -1))
                difference = ahead.weight_cotangent(g, x) - behind.weight_cotangent(g, x)
                slope = difference / self.weight.dtype.type(2 * step)
                _require(curvature.shape == self.weight.shape, f"has the shape {curvature.shape}")
                size = 1 + float(to_host(abs(cotangent)).max(initial=0.0))
                off = float(to_host(abs(curvature - slope)).max(initial=0.0)) / size
                _require(off <= 100 * step**2 * x.size, f"is off by {off:.1e}")

    def kept(self) -> None:
        m, x = self.mixing, self.vectors(3)
        ways: dict[str, Callable[[], Any]] = {"copy": lambda: copy.deepcopy(m)}
        if _is_importable(type(m)):
            ways["pickle"] = lambda: pickle.loads(pickle.dumps(m))
        for name, again in ways.items():
            with self.law(name):
                made = again()
                _require(type(made) is type(m), f"becomes {type(made).__name__}")
                _same(made.matvec(x), m.matvec(x), 0.0)

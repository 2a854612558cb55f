"""The laws of a monoid, checked on one of yours: :func:`check_monoid`."""

from __future__ import annotations

import pickle
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import numpy as np

from recsolve.base.arrays import Array, kind_of, namespace, to_host
from recsolve.kernels.monoids.float16 import HALF
from recsolve.kernels.monoids.monoid import Monoid
from recsolve.kernels.reference import scan_numpy
from recsolve.scan import Given, read


def check_monoid(
    monoid: str | Monoid | type[Monoid], elements: Any, initial: Any = None, *, rtol: float | None = None
) -> None:
    """Check that a monoid keeps the laws on which a scan rests, on elements of yours.

    The laws, in this order: nothing is written into; ``act`` gives states like those that it takes, every time by
    itself; ``compose`` is associative; ``identity`` does nothing, on either side; a composed element acts as one
    after the other does; cut steps forget; chunks of any length give what single steps do, with cuts and without; so
    does reversed time; a pickled monoid scans as this one does, where its class can be imported; and ``linearise``,
    where a class defines it, agrees with differences.

    Parameters
    ----------
    monoid : str, Monoid or type
        As for :func:`recsolve.scan`.
    elements : tuple
        As for :func:`recsolve.scan`, time first, at least 3 steps; a few dozen random ones find most faults.
    initial : array, optional
        A state, the shape of one step. Without it the monoid's own value of an absent past is the first.
    rtol : float, optional
        How far results may differ, relative to the largest number among them; by default 1000 rounding units of the
        dtype, and nothing for integers and objects.

    Raises
    ------
    AssertionError
        When a law does not hold; the message begins with its name.
    ValueError, TypeError
        As :func:`recsolve.scan`, and for fewer than 3 steps, and float16.

    Notes
    -----
    Blelloch, "Prefix sums and their applications" (1990), section 1.2.

    Examples
    --------
    >>> import numpy as np, recsolve as rs
    >>> class Difference(rs.Monoid):
    ...     letters = ("b",)
    ...
    ...     def act(self, elements, states):
    ...         return elements[0] - states
    ...
    ...     def compose(self, later, earlier):
    ...         return (later[0] - earlier[0],)
    ...
    ...     def identity(self, elements):
    ...         return (np.zeros_like(elements[0]),)
    >>> rs.testing.check_monoid(Difference, (np.arange(5.0),), initial=0.0)
    Traceback (most recent call last):
    AssertionError: associativity: Difference is off by 1.3e+00 of its size
    """
    given = read(monoid, elements, initial=initial, reset=None, reverse=False, axis=0)
    if len(given.like) < 3:
        raise ValueError(f"elements have {len(given.like)} steps; wanted at least 3")
    if given.like.dtype == HALF:
        raise TypeError("elements have dtype float16, which scans widen; wanted float32 or float64")
    if given.monoid.restarts and given.initial is None:
        given.monoid.constant(given.elements, None)  # which says that it needs one
    laws = _Laws(given, elements, initial, rtol)
    with np.errstate(all="ignore"):
        laws.steps()
        laws.algebra()
        laws.cuts()
        laws.chunks()
        laws.reversal()
        laws.copies()
        laws.derivatives()


def _require(holds: Any, what: str) -> None:
    if not bool(holds):
        raise AssertionError(what)


def _turned(e: Any) -> Any:
    """Return an element of the user's with its last step first."""
    if np.isscalar(e) or not getattr(e, "ndim", 1):
        return e
    return e.flip(0) if kind_of(e) == "torch" else (e if hasattr(e, "__getitem__") else np.asarray(e))[::-1]


class _Laws:
    """The laws on some elements, and the states of a literal loop on which they are tried."""

    def __init__(self, given: Given, elements: Any, initial: Any, rtol: float | None):
        self.given, self.monoid, self.e, self.start = given, given.monoid, given.elements, given.initial
        self.user, self.first = elements, initial
        inexact = given.like.dtype.kind in "fc"
        self.rtol = rtol if rtol is not None else 1000 * float(np.finfo(given.like.dtype).eps) if inexact else 0.0
        self.T, self.rng = len(given.like), np.random.default_rng(0)

    @contextmanager
    def law(self, name: str) -> Iterator[None]:
        """Name the law that an exception within breaks."""
        try:
            yield
        except AssertionError as error:
            raise AssertionError(f"{name}: {self.monoid.title} {error}") from None
        except Exception as error:
            raise AssertionError(f"{name}: {self.monoid.title} raises {type(error).__name__}: {error}") from error

    def same(self, got: Any, wanted: Any) -> None:
        """Raise AssertionError unless arrays agree, NaN and infinities at the same places."""
        got, wanted = np.asarray(to_host(got)), np.asarray(to_host(wanted))
        _require(got.shape == wanted.shape, f"has shape {got.shape}; wanted {wanted.shape}")
        if not self.rtol:
            _require(bool((got == wanted).all()), "is not the same")
            return
        special = ~np.isfinite(wanted)
        _require(np.array_equal(got[special], wanted[special], equal_nan=True), "is not finite elsewhere")
        size = float(np.abs(wanted[~special]).max(initial=float(np.finfo(wanted.dtype).tiny)))
        off = float(np.abs(got - wanted)[~special].max(initial=0.0)) / size
        _require(off <= self.rtol, f"is off by {off:.1e} of its size")

    def loop(self, cuts: Array | None = None) -> Array:
        """Return the states, one step at a time."""
        rows: list[Array] = []
        for t in range(self.T):
            one = self.monoid.take(self.e, slice(t, t + 1))
            before = rows[-1] if rows else self.start
            if before is None or (cuts is not None and cuts[t]):
                row = self.monoid.constant(one, self.start)
            else:
                row = self.monoid.act(one, before)
            rows.append(row.reshape(1, *self.given.like.shape[1:]))
        return np.concatenate([to_host(row) for row in rows]) if rows else to_host(self.given.like)

    def steps(self) -> None:
        """A state goes in, a state comes out, time by time, and nothing is written into."""
        with self.law("inputs"):
            first = self.monoid.constant(self.monoid.take(self.e, slice(0, 1)), self.start)
            x = self._native(np.broadcast_to(to_host(first), self.given.like.shape).copy())
            taken = [x, *(e for e in self.e if hasattr(e, "dtype"))]
            kept = [np.array(to_host(e)) for e in taken]
            self.monoid.act(self.e, x)
            self.monoid.compose(self.e, self.e)
            for before, after in zip(kept, taken, strict=True):
                _require(np.array_equal(before, to_host(after), before.dtype.kind in "fc"), "writes into its arguments")
        with self.law("states"):
            self.y = self.loop()
            self.states = self._native(self.y[:-1])
            self.later = self.monoid.take(self.e, slice(1, None))
            y = self.monoid.act(self.later, self.states)
            _require(y.dtype == self.given.like.dtype, f"has dtype {y.dtype}; wanted {self.given.like.dtype}")
            self.same(y, self.y[1:])

    def _native(self, x: Array) -> Array:
        return namespace(self.given.like).asarray(x)  # type: ignore[no-any-return]

    def algebra(self) -> None:
        """Associativity, identity, and that composing is acting one after the other."""
        m, take, n = self.monoid, self.monoid.take, self.T - 2
        a, b, c = (take(self.e, slice(i, i + n)) for i in range(3))
        x = self._native(np.broadcast_to(self.y[:1], self.y[:n].shape).copy())
        for states in (x, self.states[:n]):
            with self.law("associativity"):
                self.same(m.act(m.compose(m.compose(c, b), a), states), m.act(m.compose(c, m.compose(b, a)), states))
            with self.law("identity"):
                self.same(m.act(m.identity(a), states), states)
                self.same(m.act(m.compose(a, m.identity(a)), states), m.act(a, states))
                self.same(m.act(m.compose(m.identity(a), a), states), m.act(a, states))
            with self.law("composition"):
                self.same(m.act(m.compose(b, a), states), m.act(b, m.act(a, states)))

    def cuts(self) -> None:
        """A cut step gives what it gives when it is the first, whatever came before."""
        with self.law("cut"):
            every = scan_numpy.scan(self.monoid, self.e, initial=self.start, reset=self._mask(np.ones(self.T, bool)))
            self.same(every, self.loop(np.ones(self.T, bool)))
            _require(every.dtype == self.given.like.dtype, f"has dtype {every.dtype}; wanted {self.given.like.dtype}")

    def _mask(self, cuts: Array) -> Array:
        return self._native(cuts).reshape(-1, *(1,) * (self.given.like.ndim - 1))

    def chunks(self) -> None:
        """Chunks that are composed give what single steps do."""
        some = np.arange(self.T) % 5 == 3
        for cuts in (None, some):
            wanted = self.loop(cuts)
            for chunk in (1, 2, 3, max(self.T // 2, 1)):
                with self.law(f"chunks of {chunk}{'' if cuts is None else ' with cuts'}"):
                    mask = None if cuts is None else self._mask(cuts)
                    self.same(scan_numpy.scan(self.monoid, self.e, initial=self.start, reset=mask, chunk=chunk), wanted)

    def reversal(self) -> None:
        """Time from the last step to the first is time that has been turned round."""
        with self.law("reversal"):
            turned = tuple(_turned(e) for e in self.user)
            forwards = read(self.monoid, turned, initial=self.first, reset=None, reverse=False, axis=0)
            backwards = read(self.monoid, self.user, initial=self.first, reset=None, reverse=True, axis=0)
            y, wanted = (scan_numpy.scan(self.monoid, x.elements, initial=self.start) for x in (backwards, forwards))
            self.same(y, wanted)

    def copies(self) -> None:
        """Scans of a copy are the same; a class inside a function cannot be imported."""
        kind = type(self.monoid)
        if getattr(sys.modules.get(kind.__module__), kind.__qualname__, None) is not kind:
            return
        with self.law("pickling"):
            copy = pickle.loads(pickle.dumps(self.monoid))
            self.same(scan_numpy.scan(copy, self.e, initial=self.start), self.loop())

    def derivatives(self) -> None:
        """What a class states of its derivative agrees with differences, along random directions."""
        if type(self.monoid).linearise is Monoid.linearise or self.given.like.dtype != np.float64:
            return
        m, h = self.monoid, 1e-6
        given: tuple[Any, ...] = (*(x if isinstance(x, np.ndarray) else None for x in self.later), self.states)
        # A little aside, because elements and states of a loop may lie on kinks.
        near: list[Any] = [None if x is None else x + 0.01 * self._direction(x) for x in given]
        directions: list[Any] = [None if x is None else self._direction(x) for x in given]
        states, de, v = near.pop(), directions[:-1], directions[-1]
        e = tuple(x if y is None else y for x, y in zip(self.later, near, strict=True))
        g = self._direction(self.states)

        def moved(step: float) -> Array:
            return m.act(tuple(x if d is None else x + step * d for x, d in zip(e, de, strict=True)), states + step * v)

        with self.law("derivative"):
            try:
                J, pull = m.linearise(e, states)
            except TypeError:
                return  # it says that it has none
            wanted = (g * (moved(h) - moved(-h))).sum() / (2 * h)
            forth, back = (g * J.matvec(v)).sum(), (v * J.rmatvec(g)).sum()
            found = forth + sum(
                (a * d).sum() for a, d in zip(pull(g), de, strict=True) if a is not None and d is not None
            )
            size = max(np.abs(g).sum(), abs(wanted), abs(forth))
            _require(abs(found - wanted) <= 1e-5 * size, f"is {found:.6g}, by differences {wanted:.6g}")
            _require(abs(back - forth) <= 1e-8 * size, f"is {forth:.6g}, and {back:.6g} when it is transposed")

    def _direction(self, x: Array) -> Array:
        """Return random numbers, zero beside what is not finite."""
        return np.where(np.isfinite(x), self.rng.standard_normal(x.shape), 0.0)

"""Scans over ranks equal the scan of the whole: every monoid and structure, however their steps are shared.

The references are scans on one device, in wider numbers, which other tests hold against the loop.
"""

import re
from dataclasses import dataclass, replace
from typing import Any

import gallery
import monoid_gallery
import numpy as np
import pytest
import ranks
from test_scan_numba_dense import factored
from test_structures import KINDS

import recsolve as rs
from recsolve.jacobians import Block, Diagonal, Jacobian, LaneDense
from recsolve.kernels.monoids import MONOIDS
from recsolve.kernels.monoids.float16 import widen
from recsolve.kernels.reference.scan_numpy import cuts_apart

pytest.importorskip("torch")

WIDER = {"e": np.float32, "f": np.float64, "d": np.float64, "F": np.complex128, "D": np.complex128}
LENGTHS = (0, 1, 2, 3, 7, 13, 41)
BATCHES = ((), (2,), (2, 3), (0,))
LAYOUTS = (rs.Layout(units=3), rs.Layout(components=2, lanes=(2,), units=3))


class Reflection(rs.Monoid):
    """x -> b + x or b - x: one of the user's own."""

    letters, dtypes = ("sign", "b"), (np.dtype(np.float64), np.dtype(np.int64))

    def act(self, elements, states):
        return elements[0] * states + elements[1]

    def compose(self, later, earlier):
        return later[0] * earlier[0], later[0] * earlier[1] + later[1]

    def identity(self, elements):
        return np.ones_like(elements[0]), np.zeros_like(elements[1])

    def constant(self, elements, initial):
        return elements[1]


class Restarting(Reflection):
    """The same maps, which act on the first state of all where they are cut."""

    constant = rs.Monoid.constant


class Uncomposable(Reflection):
    """The same maps, which do not compose."""

    def composable(self, elements):
        return False

    def compose(self, later, earlier):
        raise AssertionError("nobody may ask for it")


@dataclass(frozen=True)
class Case:
    """A scan, and how many steps each rank holds."""

    monoid: Any
    elements: tuple
    lengths: tuple
    initial: Any = None
    reset: Any = None
    reverse: bool = False

    @property
    def op(self):
        return MONOIDS[self.monoid] if isinstance(self.monoid, str) else self.monoid()

    def scan(self, elements=None, reset=None, initial=None):
        elements, reset = elements or self.elements, self.reset if reset is None else reset
        initial = self.initial if initial is None else initial
        return rs.scan(self.monoid, elements, initial=initial, reset=reset, reverse=self.reverse)

    def reference(self):
        """The scan on one device, of the same numbers in a wider dtype."""
        wide = WIDER[self.elements[-1].dtype.char]
        elements, initial = [widen(e, wide) for e in self.elements], self.initial
        return self.scan(tuple(elements), initial=None if initial is None else initial.astype(wide))

    def slack(self, y):
        """How far each number may be from that of the reference ``y``.

        What a step and the composition of its block round, c u (|J| |y[t-1]| + |y[t]|), goes on as |J| has it.
        """
        e, way = self.op.prepare(self.elements), slice(None, None, -1 if self.reverse else 1)
        e, rows, reset = self.op.take(e, way), y[way], None if self.reset is None else self.reset[way]
        first = np.zeros_like(rows[:1]) if self.initial is None else np.broadcast_to(self.initial, rows[:1].shape)
        before = np.concatenate([first, rows[:-1]])
        J = e[0] if self.monoid == "affine" else self.op.linearise(e, before)[0]
        if self.monoid == "riccati":  # of single numbers, where it composes
            J = Diagonal(J.matvec(np.ones_like(rows)), J.layout)
        J = LaneDense(abs(J.lane_dense().data).astype(np.float64), J.layout)
        half, size = self.elements[-1].dtype == np.float16, abs(rows).astype(np.float64)
        stepped = np.finfo(np.float32 if half else self.elements[-1].dtype)
        local = (4 + np.log2(len(y))) * stepped.eps * (J.matvec(abs(before).astype(np.float64)) + size)
        bound = rs.scan("affine", (J, local + stepped.smallest_subnormal), reset=reset)
        if half:  # stored so, to the nearest
            bound += np.maximum(size * np.finfo(np.float16).eps / 2, np.finfo(np.float16).smallest_subnormal / 2)
        return bound[way]

    def composes(self, e):
        return self.op.composable(e) or type(e[0]) is LaneDense

    def messages(self):
        """How many messages it takes: one, and one more for each rank that others wait for."""
        e, stops = self.op.prepare(self.elements), np.cumsum(self.lengths)
        mask = self.reset
        if mask is not None:
            mask = mask.reshape(*mask.shape, *(1,) * (self.op.like(e).ndim - mask.ndim))
        own = [slice(stop - n, stop) for n, stop in zip(self.lengths, stops, strict=True) if n]
        followed = (own[1:] if self.reverse else own[:-1]) if own else []
        apart = [mask is not None and cuts_apart(self.op, self.op.take(e, part), mask[part]) for part in followed]
        return 1 + sum(cut or not self.composes(e) for cut in apart)

    def judge(self, y):
        """Check the rows of all ranks together: bit for bit where nothing rounds, or nothing is composed."""
        whole = self.scan()
        assert (y.dtype, y.shape) == (whole.dtype, whole.shape)
        rounds = self.monoid not in monoid_gallery.WHOLE and isinstance(self.monoid, str)
        if not rounds or not y.size or not self.composes(self.op.prepare(self.elements)):
            np.testing.assert_array_equal(y, whole)
            return
        reference = self.reference()
        finite, bound = np.isfinite(reference), self.slack(reference)
        np.testing.assert_array_equal(y[~finite], reference[~finite])
        off = abs(y - reference)[finite] / np.maximum(bound[finite], np.finfo(np.float64).tiny)
        assert off.max(initial=0) <= 1, self


def of_rank(x, group, lengths):
    """Return the own part of an array as a shard; that of a structure as it is; numbers as they are."""
    if not isinstance(x, Jacobian):
        return x if x is None or np.isscalar(x) else rs.distributed.shard(x, group, lengths=lengths)
    import torch.distributed as dist

    stop = sum(lengths[: dist.get_rank(group) + 1])
    return x[stop - lengths[dist.get_rank(group)] : stop]


def scanned(group, cases):
    """Return the own rows of every case, and how many messages it took."""
    return [scan_on(group, case) for case in cases]


def scan_on(group, case):
    elements = tuple(of_rank(e, group, case.lengths) for e in case.elements)
    axis = elements[-1].timeline
    before = axis.ranks.messages
    y = case.scan(elements, of_rank(case.reset, group, case.lengths))
    assert y.timeline == axis
    return y.local, axis.ranks.messages - before


def over(size, cases, function=scanned, *more):
    """Return the whole rows of every case, and the messages that it took, on every rank as many."""
    found = ranks.over(size, function, cases, *more)
    rows = [np.concatenate([rank[i][0] for rank in found]) for i in range(len(cases))]
    counts = [{rank[i][1] for rank in found} for i in range(len(cases))]
    assert all(len(count) == 1 for count in counts), counts
    return rows, [count.pop() for count in counts]


def hold(size, cases):
    """Check that cases are on ranks what they are on one device."""
    with np.errstate(all="ignore"):
        for case, y, count in zip(cases, *over(size, cases), strict=True):
            case.judge(y)
            assert count == case.messages(), case


def shared(T, size, rng):
    """Return a way to share steps: evenly, or by chance with empty ranks anywhere."""
    if rng.random() < 0.3:
        return rs.distributed.spans(T, size)
    held = rng.random(size) < 0.6
    held[rng.integers(size)] = True
    return tuple(map(int, rng.multinomial(T, held / held.sum())))


def laid_out(x, rng):
    """Return an array read-only, in one of several layouts."""
    if isinstance(x, np.ndarray):
        views = x.copy(), np.repeat(x, 2, axis=0)[::2], x.copy(order="F"), x[::-1].copy()[::-1]
        x = views[rng.integers(len(views))]
        x.flags.writeable = False
    return x


def varied(monoid, elements, lanes, size, rng, state):
    """Return a case with or without an initial state and resets, in some direction, layout and shares."""
    T = len(elements[-1])
    shape = (None, (T,), (T, *lanes[:1]), (T, *lanes), state.shape and (T, *state.shape))[rng.integers(5)]
    case = Case(monoid, tuple(laid_out(e, rng) for e in elements), shared(T, size, rng), reverse=rng.random() < 0.5)
    reset = rng.random(shape) < 0.1 if shape else None
    return replace(case, initial=state if case.op.restarts or rng.random() < 0.5 else None, reset=reset)


def of_monoid(name, size, rng):
    monoid = MONOIDS[name]
    T, lanes = int(rng.choice(LENGTHS)), BATCHES[rng.integers(len(BATCHES))]
    known = [dtype for dtype in monoid.dtypes if dtype.kind != "c"]
    dtype, whole = known[rng.integers(len(known))].type, name in monoid_gallery.WHOLE
    elements = monoid_gallery.elements(name, T, lanes, rng, dtype, size=int(rng.integers(1, 4)), whole=whole)
    if name in ("max_min", "max_plus", "min_plus") and rng.random() < 0.3:
        elements = monoid_gallery.matrices(name, T, lanes, rng, dtype)
    state = monoid_gallery.state(name, elements, rng)
    return varied(name, elements, lanes, size, rng, state)


def of_structure(kind, size, rng):
    """Return a case of affine maps with a Jacobian of some structure."""
    T, batch = int(rng.choice(LENGTHS)), BATCHES[rng.integers(3)]
    layout, dtype = LAYOUTS[kind is Block or rng.integers(2)], (np.float64, np.float32)[rng.integers(2)]
    if kind == "pairs":
        A, layout = gallery.pairs((T, *batch), rng, dtype, gain=0.3), rs.Layout(units=3)
    elif kind == "factored":
        A = factored(T, layout, batch, dtype)[0]
    else:
        A = gallery.structure(kind, layout, (T, *batch), rng, dtype, gain=0.5)
    b = rng.standard_normal((T, *batch, *layout.event)).astype(dtype)
    return varied("affine", (A, b), batch, size, rng, b[:1].sum(axis=0))


@pytest.mark.parametrize("name", MONOIDS)
def test_every_monoid_is_on_ranks_what_it_is_on_one_device(name):
    for size in ranks.SIZES:
        rng = np.random.default_rng(size)
        hold(size, [of_monoid(name, size, rng) for _ in range(15)])


@pytest.mark.parametrize("kind", [*KINDS, "pairs", "factored"])
def test_every_structure_is_on_ranks_what_it_is_on_one_device(kind):
    for size in ranks.SIZES:
        rng = np.random.default_rng(size)
        hold(size, [of_structure(kind, size, rng) for _ in range(10)])


def test_complex_numbers_beside_real_ones():
    for size in ranks.SIZES:
        rng, cases = np.random.default_rng(size), []
        for dtype in (np.complex64, np.complex128):
            a = (0.9 * np.exp(1j * rng.uniform(0, 6, (41, 3)))).astype(dtype)
            b = (rng.standard_normal((41, 3)) + 1j * rng.standard_normal((41, 3))).astype(dtype)
            for elements in ((a, b), (a.real, b), (Diagonal(a, rs.Layout(units=3)), b)):
                cases.append(varied("affine", elements, (3,), size, rng, b[0]))
            whole = np.rint(b * 3)
            cases.append(varied("addition", (whole,), (3,), size, rng, whole[0]))
        hold(size, cases)


@pytest.mark.parametrize("monoid", [Reflection, Restarting, Uncomposable])
def test_monoids_of_the_users_own(monoid):
    for size in ranks.SIZES:
        rng, cases = np.random.default_rng(size), []
        for dtype in (np.float64, np.int64):
            for T in LENGTHS:
                elements = (1 - 2 * rng.integers(0, 2, (T, 2))).astype(dtype), rng.integers(-9, 9, (T, 2)).astype(dtype)
                cases.append(varied(monoid, elements, (2,), size, rng, np.full(2, 5, dtype)))
        hold(size, cases)


def test_what_is_the_same_at_all_times_and_tensors():
    """Numbers and arrays of one time stand beside shards of any length, 1 and 0 among them."""
    for size in ranks.SIZES:
        rng = np.random.default_rng(size)
        for T in (0, 1, 2, 13):
            found = ranks.over(size, repeated, rng.standard_normal((T, 2, 3)), rng.standard_normal((1, 1, 3, 3)))
            for whole, rows in found:
                np.testing.assert_allclose(rows, whole, rtol=1e-13, atol=1e-13)


def repeated(group, b, A):
    import torch

    whole, rows = [], []
    for a in (0.5, A, A[..., 0]):
        for x in (b, torch.from_numpy(b)):
            e = torch.from_numpy(a) if isinstance(x, torch.Tensor) and isinstance(a, np.ndarray) else a
            whole.append(np.asarray(rs.scan("affine", (e, x))))
            y = rs.scan("affine", (e, rs.distributed.shard(x, group)))
            assert type(y.local) is type(x)
            rows.append(np.asarray(rs.distributed.gather(y)))
    return np.stack(whole), np.stack(rows)


# What is not finite, and what overflows ---------------------------------------------------------------------------


@pytest.mark.parametrize("bad", [np.nan, np.inf, -np.inf])
@pytest.mark.parametrize("name", [name for name in MONOIDS if name not in ("finite_map", "riccati")])
def test_what_is_not_finite_moves_forward_only_and_stops_at_resets(name, bad):
    """Before it not a bit changes, whatever the ranks that follow have to do."""
    rng = np.random.default_rng(0)
    elements = monoid_gallery.elements(name, 41, (2,), rng, whole=name in monoid_gallery.WHOLE)
    start, lengths = monoid_gallery.state(name, elements, rng), (10, 10, 11, 10)
    cuts = np.arange(41) == 34

    def scan(arrays):
        return over(4, [Case(name, tuple(arrays), lengths, start, cuts)])[0][0]

    def judge(arrays):
        return monoid_gallery.loop(name, arrays, start, cuts)

    rtol = 0.0 if name in monoid_gallery.WHOLE else 1e-12
    monoid_gallery.stays_where_it_is(scan, judge, elements, bad, 24, 1, 34, rtol)


def test_no_later_number_changes_a_bit_of_what_comes_before():
    """Whether a later rank does not compose, is cut apart, overflows or has guessed wrongly."""
    rng, T, lengths = np.random.default_rng(0), 6000, (1500, 1500, 1500, 1500)
    A, b = 0.999 * rng.uniform(0.9, 1, (T, 2, 1)), rng.standard_normal((T, 2, 3))
    stored = 0.999 * rng.uniform(0.9, 1, (T, 2, 3, 3)) / 3
    apart = np.zeros((T, 2, 3), bool)
    apart[4000, 0, 1] = True
    silent, huge = b.copy(), stored.copy()
    silent[3500:4500], huge[4000] = 0, 1e300
    m, s = rng.standard_normal((2, T, 2))
    mask = np.zeros((T, 2, 2), bool)
    mask[4000, 0, 1] = True
    for name, plain, changed, reset in (
        ("affine", (A, b), (A, silent), None),
        ("affine", (stored, b), (stored, b), apart),
        ("affine", (stored, b), (huge, b), None),
        ("logsumexp", (m, s), (m, s), mask),
    ):
        (clean, other), _ = over(4, [Case(name, plain, lengths), Case(name, changed, lengths, reset=reset)])
        np.testing.assert_array_equal(clean[:3000], other[:3000])
        assert not np.array_equal(clean[3000:], other[3000:])


def test_what_overflows_when_composed_and_not_when_stepped():
    T = 40
    d = np.where(np.arange(T) % 4 < 2, 1e308, -1e308)
    lo, hi = np.full(T, -1.7e308), np.full(T, 1.7e308)
    a, zero = np.where(np.arange(T) % 4 < 2, 1e200, 1e-200), np.zeros(T)
    J, rows = rs.jacobians.LaneDense(a[:, None, None] * np.eye(2), rs.Layout(units=2)), np.zeros((T, 2))
    for size, lengths in ((1, (40,)), (2, (18, 22)), (3, (18, 0, 22)), (4, (18, 4, 16, 2))):
        cases = [
            Case("saturating_add", (d, lo, hi), lengths, np.float64(-1e308)),
            Case("max_plus", (-d, -hi), lengths, np.float64(1.5e308)),
            Case("min_plus", (d, hi), lengths, np.float64(-1.5e308)),
            Case("affine", (a, zero), lengths, np.float64(1e-300)),
            Case("affine", (J, rows), lengths, np.full(2, 1e-300)),
        ]
        found, counts = over(size, cases)
        for case, y in zip(cases, found, strict=True):
            assert np.isfinite(y).all()
            np.testing.assert_allclose(y, case.scan(), rtol=1e-13)
        assert min(counts) >= 1
        assert max(counts) <= size
        assert (max(counts) > 1) == (size > 1)


# What is said before it is known ----------------------------------------------------------------------------------


def long(kind, rng, T=6000, dtype=np.float64):
    """Affine maps of a long sequence that forget what came before, keep it, or seem to forget it."""
    b = rng.standard_normal((T, 2)).astype(dtype)
    if kind in ("forgets", "silent"):
        A = rng.choice([-1, 1], (T, 2)) * rng.uniform(0.8, 0.85, (T, 2))
        if kind == "silent":  # what remains of earlier numbers is all there is
            b[np.arange(T) % 1500 > 1180] = 0
    elif kind == "remembers":
        A = np.full((T, 2), 1 - 1e-6, dtype)
    elif kind == "one remembers":
        A = np.where((np.arange(T) // 1500 == 1)[:, None], 0.9999, 0.5) * np.ones((T, 2), dtype)
    elif kind == "dense":
        A = rng.standard_normal((T, 2, 2)).astype(dtype) / 3
    else:  # products with ones vanish, those with (1, -1) do not
        A = np.broadcast_to(np.array([[0.5, -0.5], [-0.5, 0.5]], dtype), (T, 2, 2))
        b = np.rint(3 * b)
    return A.astype(dtype), b


# How many messages each takes on 2, 3 and 4 ranks.
COUNTS = {
    "forgets": ({1}, {1}, {1}), "dense": ({2}, {2}, {2}), "remembers": ({1}, {1}, {1}),
    "one remembers": ({1}, {1}, {1}), "silent": ({1}, {1}, {1}), "pretends": ({2}, {3}, {4}),
}  # fmt: skip


@pytest.mark.parametrize("kind", COUNTS)
def test_what_comes_out_of_long_ranges_is_said_before_it_is_known(kind):
    """Of maps of single numbers that is proven; else one message more compares it with what has come out."""
    for size in ranks.SIZES[1:]:
        rng, lengths = np.random.default_rng(size), ((3000, 3000), (1500, 1501, 2999), (1500,) * 4)[size - 2]
        cases = []
        for dtype in (np.float64, np.float32):
            A, b = long(kind, rng, dtype=dtype)
            cases += [Case("affine", (A, b), lengths, b[0]), Case("affine", (A, b), lengths[::-1], reverse=True)]
        found, counts = over(size, cases)
        for case, y in zip(cases, found, strict=True):
            case.judge(y)
        assert set(counts) == COUNTS[kind][size - 2]


def told_wrongly(group, cases, liars, factor):
    """The same scans, in which some ranks say something else than what comes out of their last steps."""
    import torch.distributed as dist

    from recsolve.distributed import carries

    known, lies = carries._forgotten, dist.get_rank(group) in liars

    def wrong(given):
        said = known(given)
        return said._replace(end=factor * said.end) if lies and said is not None else said

    carries._forgotten = wrong
    try:
        return scanned(group, cases)
    finally:
        carries._forgotten = known


@pytest.mark.parametrize("factor", [1 + 1e-12, 1.5, np.nan, np.inf])
def test_what_is_said_wrongly_reaches_no_result(factor):
    rng = np.random.default_rng(0)
    (A, b), lengths = long("dense", rng, 4100), (1025,) * 4
    cases = [Case("affine", (A, b), lengths, b[0]), Case("affine", (A, b), lengths, reverse=True)]
    for liars in ((0,), (1, 2), (3,), (0, 1, 2, 3)):
        found, counts = over(4, cases, told_wrongly, liars, factor)
        for case, y in zip(cases, found, strict=True):
            case.judge(y)
        assert max(counts) == 3 if np.isfinite(factor) else max(counts) in (3, 4)
    # Halves never say: what comes out of them is rounded, and proves nothing.
    half = Case("affine", (A.astype(np.float16), b.astype(np.float16)), lengths)
    (y,), (count,) = over(4, [half], told_wrongly, (0, 1, 2, 3), factor)
    half.judge(y)
    assert count == 1


# Shards -----------------------------------------------------------------------------------------------------------


def put_together(group, arrays, lengths):
    """Shard arrays, in both ways, and gather them; return what comes out and what it says of itself."""
    import torch

    out = []
    for x in (*arrays, *(torch.from_numpy(x.copy()) for x in arrays)):
        first = rs.distributed.shard(x, group, lengths=lengths)
        second = rs.distributed.from_local(first.local, group)
        assert (first.shape, first.dtype) == (x.shape, x.dtype)
        assert first.timeline == second.timeline
        for part in (first, second):
            whole = rs.distributed.gather(part)
            assert (type(whole), whole.dtype) == (type(x), x.dtype)
            out.append(np.asarray(whole))
    return out, repr(first)


@pytest.mark.parametrize("size", ranks.SIZES)
def test_what_is_shared_and_gathered_is_what_it_was(size):
    rng = np.random.default_rng(size)
    for T in (0, 3, 13):
        x = rng.standard_normal((T, 2, 3))
        dtypes = (np.float16, np.float32, np.complex64, np.int8, np.int64, bool)
        arrays = [x, x[:, 0, 0], x[:, ::-1], x[:, :0], *(x[:, 0].astype(dtype) for dtype in dtypes)]
        for lengths in (None, shared(T, size, rng))[: 1 + T // 13]:
            for rank, (found, shown) in enumerate(
                ranks.over(size, put_together, [laid_out(a, rng) for a in arrays], lengths)
            ):
                for i, y in enumerate(found):
                    np.testing.assert_array_equal(y, arrays[i // 2 % len(arrays)])
                assert f"rank {rank} of {size}" in shown
                assert ("steps none" in shown) == (not (lengths or rs.distributed.spans(T, size))[rank])


def refused(group, call):
    """Return the error with which a call ends; the ranks are in step afterwards."""
    import torch.distributed as dist

    try:
        call_of(call, group, dist.get_rank(group))
        found = None
    except Exception as error:
        found = type(error).__name__, str(error)
    assert rs.distributed.gather(rs.distributed.shard(np.arange(5), group)).tolist() == list(range(5))
    return found


def call_of(name, group, rank):
    import torch

    shard, gather, from_local = (getattr(rs.distributed, x) for x in ("shard", "gather", "from_local"))
    x, y, odd = np.ones((6, 2)), np.ones((6, 2)), rank == 1
    a, b = shard(x, group), shard(y, group)
    return {
        "plain reset": lambda: rs.scan("affine", (a, b), reset=np.zeros(6, bool)),
        "two lengths": lambda: rs.scan("affine", (a, shard(x[:5], group))),
        "two ways": lambda: rs.scan("affine", (a, shard(x, group, lengths=(0, 6)))),
        "reset of another": lambda: rs.scan("affine", (a, b), reset=shard(np.zeros(5, bool), group)),
        "plain elements": lambda: rs.scan("affine", (x, b)),
        "axis": lambda: rs.scan("affine", (a, b), axis=1),
        "another length of one": lambda: rs.scan("affine", (shard(x[: 6 - odd], group),) * 2),
        "another dtype of one": lambda: rs.scan("affine", (shard(x.astype("fd"[odd]), group),) * 2),
        "another direction of one": lambda: rs.scan("affine", (a, b), reverse=odd),
        "another start of one": lambda: rs.scan("affine", (a, b), initial=1.0 if odd else None),
        "another monoid of one": lambda: rs.scan("max_plus" if odd else "affine", (a, b)),
        "wrong shape of one": lambda: rs.scan("affine", (a, shard(np.ones((6, 2 + odd)), group))),
        "sum": lambda: shard(x, group, lengths=(3, 4)),
        "count": lambda: shard(x, group, lengths=(6,)),
        "negative": lambda: shard(x, group, lengths=(7, -1)),
        "fractions": lambda: shard(x, group, lengths=(2.5, 3.5)),
        "no axes": lambda: shard(np.float64(3), group),
        "no array": lambda: shard([1, 2], group),
        "local without axes": lambda: from_local(np.float64(3), group),
        "local of another width": lambda: from_local(x[:, : 1 + odd], group),
        "local of another dtype": lambda: from_local(x.astype("fd"[odd]), group),
        "no shard": lambda: gather(x),
        "gather of another length of one": lambda: gather(shard(np.ones(6 - odd), group)),
        "gather with gradients": lambda: gather(shard(torch.ones(6, requires_grad=True), group)),
        "steps that are missing": lambda: rs.scan("affine", (a, rs.distributed.Shard(b.local[1:], b.timeline))),
        "steps that are missing of a recurrence": lambda: rs.Recurrence.from_function(
            np.add, inputs=rs.distributed.Shard(b.local[1:], b.timeline), initial=np.zeros(2)
        ),
        "gather of steps that are missing": lambda: gather(rs.distributed.Shard(b.local[1:], b.timeline)),
        "no state": lambda: rs.scan("clamp", (a, b)),
        "objects": lambda: rs.scan(Texts, (shard(np.array(list("abcdef"), object), group),), initial=""),
        "list": lambda: rs.scan("affine", [a, b, b]),
    }[name]()


class Texts(rs.Monoid):
    """x -> x + text."""

    letters, dtypes = ("text",), (np.dtype(object),)

    def act(self, elements, states):
        return states + elements[0]

    def compose(self, later, earlier):
        return (earlier[0] + later[0],)

    def identity(self, elements):
        return (np.full_like(elements[0], ""),)


REFUSED = {
    "plain reset": ("TypeError", r"reset is ndarray of shape \(6,\) and elements\[0\] is a Shard; wanted a Shard"),
    "two lengths": (
        "ValueError",
        r"elements\[0\] has 6 steps, shared as \(3, 3\) and elements\[1\] has 5 steps, shared as \(3, 2\)",
    ),
    "two ways": ("ValueError", r"as \(3, 3\) and elements\[1\] has 6 steps, shared as \(0, 6\)"),
    "reset of another": ("ValueError", r"as \(3, 3\) and reset has 5 steps, shared as \(3, 2\)"),
    "plain elements": (
        "TypeError",
        r"elements\[0\] is ndarray of shape \(6, 2\) and elements\[1\] is a Shard",
    ),
    "axis": ("ValueError", "axis is 1; wanted 0 with shards"),
    "another length of one": ("RankError", r"rank 0 calls .*of \(3, 3\) steps.*rank 1 calls .*of \(3, 2\) steps"),
    "another dtype of one": ("RankError", "rank 0 calls .*float32.*rank 1 calls .*float64"),
    "another direction of one": ("RankError", "rank 1 calls recsolve.scan.'affine', reverse=True."),
    "another start of one": ("RankError", "rank 1 calls recsolve.scan.'affine', initial=....."),
    "another monoid of one": ("RankError", "rank 1 calls recsolve.scan.'max_plus'"),
    "wrong shape of one": ("ValueError|RankError", r"shapes \(3, 2\) and \(3, 3\)|float64 \(2,\), float64 \(3,\)"),
    "sum": ("ValueError", r"lengths is \(3, 4\); wanted 2 integers >= 0, one per rank, of the sum T = 6"),
    "count": ("ValueError", "wanted 2 integers"),
    "negative": ("ValueError", "wanted 2 integers >= 0"),
    "fractions": ("ValueError", r"lengths is \(2.5, 3.5\)"),
    "no axes": ("ValueError", r"x has shape \(\); wanted \(T, ...\)"),
    "no array": ("TypeError", "x is list; wanted an array with time first"),
    "local without axes": ("ValueError|RankError", r"local has shape \(\); wanted \(T, ...\)"),
    "local of another width": ("RankError", r"rank 0 calls .*\('steps', 1\).*rank 1 calls .*\('steps', 2\)"),
    "local of another dtype": ("RankError", "rank 0 calls .*float32.*rank 1 calls .*float64"),
    "no shard": ("TypeError", "x is ndarray; wanted a Shard"),
    "gather of another length of one": (
        "RankError",
        r"rank 0 calls .*of \(3, 3\) steps.*rank 1 calls .*of \(3, 2\) steps",
    ),
    "gather with gradients": ("TypeError", "x requires grad"),
    "steps that are missing": (
        "ValueError",
        r"elements\[1\] has a local array of shape \(2, 2\), and this rank",
    ),
    "steps that are missing of a recurrence": ("ValueError", r"inputs has a local array of shape \(2, 2\)"),
    "gather of steps that are missing": ("ValueError", r"x has a local array of shape \(2, 2\)"),
    "no state": ("ValueError", "initial is None; the clamp monoid needs a state"),
    "objects": ("TypeError", "elements have dtype object; wanted numbers"),
    "list": ("ValueError", "elements of the affine monoid are a pair .*; got 3 arrays"),
}


@pytest.mark.parametrize("name", REFUSED)
def test_what_is_wrong_is_refused_on_all_ranks(name):
    kinds, words = REFUSED[name]
    for kind, text in ranks.over(2, refused, name):
        assert re.fullmatch(kinds, kind), (kind, text)
        assert re.search(words, text), text


def test_without_a_process_group_nothing_is_shared():
    with pytest.raises(RuntimeError, match=r"no process group .* is initialised; call .*init_process_group first"):
        rs.distributed.shard(np.ones(3))

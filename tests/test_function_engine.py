"""The written-out loop of a user's function gives the bits of the reference, and its errors, whatever f does."""

from dataclasses import dataclass, field
from functools import partial
from typing import Any

import numpy as np
import pytest

import recsolve as rs
from recsolve.recurrence import function
from recsolve.recurrence.engine import Engine
from recsolve.recurrence.function import FunctionRecurrence
from recsolve.recurrence.function_engine import FunctionEngine

AT = 17  # the step at which a function does what it does


class Odd(np.ndarray):
    """An array of another type."""


class Fault(LookupError):
    """No error that the loop expects."""


def raising(error, out, state, u):
    raise error


def writing(x, out):
    x[...] = 0
    return out


# What a function returns at one step in the place of ``out``, one of its components: given that and what it gets.
FAULTS = {
    "another dtype": lambda out, state, u: out.astype("f2"),
    "a number of Python": lambda out, state, u: 2,
    "a number of NumPy": lambda out, state, u: np.float64(2),
    "a list": lambda out, state, u: out.tolist(),
    "nothing": lambda out, state, u: None,
    "an axis more": lambda out, state, u: out[None],
    "what broadcasts": lambda out, state, u: out[:1, ..., :1] if out.ndim > 1 else out[:0],
    "a subclass": lambda out, state, u: out.view(Odd),
    "a ValueError": partial(raising, ValueError("of f")),
    "a TypeError": partial(raising, TypeError("of f")),
    "another error": partial(raising, Fault("of f")),
    "a write to the state": lambda out, state, u: writing(state, out),
    "a write to an input": lambda out, state, u: writing(u, out),
    "the state itself": lambda out, state, u: state,
    "a view of the state": lambda out, state, u: state[::-1][::-1],
    "not a number": lambda out, state, u: out * np.nan if out.dtype.kind == "f" else out,
}  # fmt: skip


@dataclass
class Case:
    """A random function with what it is given."""

    seed: int
    fault: str | None = None
    seen: list[Any] = field(default_factory=list)  # what f got, and what it was then

    def __post_init__(self):
        self.rng = rng = np.random.default_rng(self.seed)
        self.dtype = np.dtype(rng.choice(["f8", "f4", "i8", "u1"]))
        self.T = 25 if self.fault else int(rng.choice([0, 1, 2, 25]))
        self.batch = [(), (2,), (2, 3)][rng.integers(3)] if self.fault else [(), (2,), (2, 3), (0,)][rng.integers(4)]
        shapes = [[(), (3,), (2, 3), (1, 2, 2)][i] for i in rng.integers(4, size=rng.integers(1, 4))]
        self.named = bool(rng.random() < 0.6)
        if not self.named:
            shapes = [() if not self.batch and rng.random() < 0.5 else (3,)]
        self.axes = {f"c{i}": tuple(f"a{i}{j}" for j in range(len(shape))) for i, shape in enumerate(shapes)}
        self.shapes = dict(zip(self.axes, shapes, strict=True))
        self.container = (dict, tuple, None)[rng.integers(3)]
        self.parameters = {"a": self.numbers(())} if rng.random() < 0.5 else None
        self.reset = rng.random((self.T, *self.batch)) < rng.choice([0.1, 0.9]) if rng.random() < 0.5 else None
        self.result = (dict, tuple)[rng.integers(2)]
        self.own = bool(rng.random() < 0.3)  # whether f returns memory of its own, the same at every step

    def numbers(self, shape):
        return self.rng.integers(0, 9, shape).astype(self.dtype) / self.dtype.type(1)

    def made(self):
        """Return the recurrence, the same each time but for the function's own memory."""
        self.rng, self.seen, memory = np.random.default_rng(self.seed + 1), [], {}
        time = np.arange(self.T).astype("i8")  # tells f what step it is
        other = self.numbers((self.T, *self.batch, 1)).astype(self.dtype)
        if self.seed % 3 == 0 and self.batch:  # one sequence after the other in memory
            other = np.ascontiguousarray(other.swapaxes(0, 1)).swapaxes(0, 1)
        inputs = {dict: {"t": time, 2: other, "x": other}, tuple: (time, other), None: time}[self.container]
        initial = {name: self.numbers((*self.batch, *shape)).astype(self.dtype) for name, shape in self.shapes.items()}

        def moved(name, x, u, p):
            out = x + x.dtype.type(1) + (0 if p is None else p.a)
            if self.container is not None:
                out = out + (u[2] if self.container is dict else u[1])[..., 0].reshape(
                    *x.shape[: 1 + len(self.batch)], *(1,) * (x.ndim - 1 - len(self.batch))
                )
            if self.own:
                out = np.add(out, 0, out=memory.setdefault((name, out.shape), out))
            return out.astype(self.dtype, copy=False)

        def f(state, u, p=None):
            now = u if self.container is None else u["t" if self.container is dict else 0]
            parts = dict(state) if self.named else {"c0": state}
            self.seen.append([(x, x.copy(), x.flags.writeable) for x in (*parts.values(), now)])
            out = {name: moved(name, x, u, p) for name, x in parts.items()}
            if self.fault and AT in now:
                last = list(parts)[-1]
                out[last] = FAULTS[self.fault](out[last], parts[last], now)
            if not self.named:
                return out["c0"]
            return out if self.result is dict else tuple(out.values())

        named = {"state": self.axes, "initial": initial} if self.named else {"initial": initial["c0"]}
        return rs.Recurrence.from_function(
            f, inputs=inputs, structure="none", reset=self.reset, parameters=self.parameters, **named
        )


def outcome(case, engine, start=0, known=None):
    """Return the states and their kind, or the error with its notes; and what f saw."""
    rec = case.made()
    try:
        states = engine(rec).walk(known, start)
        return ("states", states.dtype, states.shape, states.strides, states.tobytes()), case.seen
    except Exception as error:
        return (type(error), str(error), getattr(error, "__notes__", [])), case.seen


def kept(seen):
    """Return what f saw, having asserted that it could not write to it, and that nobody has."""
    for step in seen:
        for x, then, writeable in step:
            assert not writeable
            assert x.tobytes() == then.tobytes()
    return [[(then.shape, then.dtype, then.tobytes()) for _, then, _ in step] for step in seen]


@pytest.mark.parametrize("seed", range(150))
def test_random_functions_are_followed_as_the_reference_follows_them(seed, monkeypatch):
    case = Case(seed)
    wanted, what_it_sees = outcome(case, Engine)
    wanted_seen = kept(what_it_sees)
    assert wanted[0] == "states"
    steps = []
    monkeypatch.setattr(FunctionRecurrence, "step", lambda self, state, t: steps.append(t))
    assert type(case.made().bind()) is FunctionEngine
    found, seen = outcome(case, FunctionEngine)
    assert not steps  # none of them is left to the reference
    assert found == wanted
    assert kept(seen) == wanted_seen


@pytest.mark.parametrize("seed", range(0, 150, 5))
def test_the_loop_goes_on_from_where_it_is_told(seed):
    case = Case(seed)
    whole = Engine(case.made()).walk()
    for start in {0, 1, case.T // 2, case.T} & set(range(case.T + 1)):
        known = whole.copy()
        known[start:] = 0
        assert outcome(case, FunctionEngine, start, known)[0] == outcome(case, Engine, start, known)[0]


@pytest.mark.parametrize("fault", FAULTS)
def test_what_a_function_does_at_one_step_is_taken_or_said_as_the_reference_does(fault):
    taken = ("a subclass", "the state itself", "a view of the state", "not a number")
    for seed in range(1000, 1012):
        case = Case(seed, fault)
        wanted, _ = outcome(case, Engine)
        found, seen = outcome(case, FunctionEngine)
        assert found == wanted
        if fault != "what broadcasts":  # where components are of one number it is what is wanted
            assert (wanted[0] == "states") == (fault in taken)
        kept(seen)


@pytest.mark.parametrize("seed", range(0, 150, 3))
def test_many_numbers_are_evaluated_part_by_part(seed, monkeypatch):
    case = Case(seed)
    rec = case.made()
    states = Engine(rec).walk()
    whole = rec.evaluate(states).copy(), rec.guess()  # of which f may keep the memory
    monkeypatch.setattr(function, "_LARGE", 1)
    monkeypatch.setattr(function, "_TOGETHER", 7 * max(1, int(np.prod(rec.shape[1:]))))
    case.seen.clear()
    for found, wanted in zip((rec.evaluate(states), rec.guess()), whole, strict=True):
        np.testing.assert_array_equal(found, wanted)
        assert found.dtype == wanted.dtype
    assert 0 in rec.shape or max(len(now) for *_, (now, *_) in case.seen) <= 7


def test_dtypes_that_are_equal_and_not_one_object_are_taken():
    for case in map(Case, range(40)):
        rec = case.made()
        rec.dtype = np.dtype(rec.dtype.str, copy=True)
        np.testing.assert_array_equal(FunctionEngine(rec).walk(), Engine(case.made()).walk())


def test_the_loop_goes_on_where_a_state_is_one_number():
    u = np.linspace(0.0, 1.0, 7)
    rec = rs.Recurrence.from_function(lambda h, u: np.cos(h + u), inputs=u, initial=np.array(0.5), structure="diagonal")
    for start in range(8):
        np.testing.assert_array_equal(FunctionEngine(rec).walk(rec.bind().walk(), start), Engine(rec).walk())


def test_a_container_that_is_none_of_those_that_are_known_is_what_it_was():
    class Pair(tuple):
        """Of which f gets the first."""

    u = np.arange(12.0).reshape(4, 3)
    rec = rs.Recurrence.from_function(lambda h, u: h + u, inputs=Pair((u, -u)), initial=np.zeros(3))
    np.testing.assert_array_equal(FunctionEngine(rec).walk(), Engine(rec).walk())
